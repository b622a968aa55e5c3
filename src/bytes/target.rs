//! Request targets as streams: which channels a path and query ask for, by route templates.

use std::fmt;

use crate::ground::config::{RequestLimits, RouteTemplate};

mod begin;
mod template;
#[cfg(test)]
mod tests;

pub use begin::{Begin, Since};
use template::{Part, parse_channel, parse_path};
pub use template::{RouteError, RouteProblem};

/// The routes of the public listener.
#[derive(Debug)]
pub struct Routes {
    router: matchit::Router<Vec<Part>>,
    limits: RequestLimits,
    reserved: Reserved,
}

/// Channels that no client may subscribe to: the server's own, and those that carry the events of
/// several others.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    names: Vec<Vec<u8>>,
}

/// What a request target asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    Stream(StreamRequest),
    NotFound,
    Bad(BadTarget),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// Without repetition, in order of appearance; never empty.
    pub channels: Vec<Vec<u8>>,
    /// By query, decoded; the last one of several; an empty one is `None`.
    pub last_event_id: Option<Vec<u8>>,
    /// By query: where a stream begins that brings no last event ID.
    pub begin: Begin,
}

/// Why a target that has a route is refused. `Display` is the line that the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTarget {
    NotAscii,
    Escape,
    SlashInSegment { name: String },
    MissingParameter { name: String },
    EmptyChannel,
    ChannelTooLong { channel_bytes_max: usize },
    ControlByte,
    Reserved { channel: String },
    TooManyChannels { channels_max: usize },
}

impl Routes {
    /// Compiles the templates. None of them: `/events/{*channel}` for one channel, `/events` and
    /// `/events/` with a repeatable `?channel=`.
    ///
    /// # Errors
    /// [`RouteError`] names the template and what is wrong with it.
    pub fn new(
        templates: &[RouteTemplate],
        limits: RequestLimits,
        reserved: Reserved,
    ) -> Result<Self, RouteError> {
        let mut routes = Self { router: matchit::Router::new(), limits, reserved };
        if templates.is_empty() {
            for (path, channel) in DEFAULT_ROUTES {
                routes
                    .add(&RouteTemplate { path: path.to_owned(), channel: channel.to_owned() })?;
            }
        }
        templates.iter().try_for_each(|template| routes.add(template))?;
        Ok(routes)
    }

    /// Finds the route of an origin-form, and the channels it asks for. An empty path is `/`.
    ///
    /// The raw path is matched and only then decoded, so `%2F` does not divide segments. Costs a
    /// walk through the routes' tree, a pass over the target, O(n²) comparisons for n channels.
    #[must_use]
    pub fn resolve(&self, target: &[u8]) -> Resolved {
        let (path, query) = split_once(target, b'?');
        let path = if path.is_empty() { b"/" } else { path };
        let path = match std::str::from_utf8(path) {
            Ok(path) if path.is_ascii() => path,
            _ => return Resolved::Bad(BadTarget::NotAscii),
        };
        let Ok(found) = self.router.at(path) else { return Resolved::NotFound };
        match self.stream_request(found.value, &found.params, query) {
            Ok(request) => Resolved::Stream(request),
            Err(bad) => Resolved::Bad(bad),
        }
    }

    fn add(&mut self, template: &RouteTemplate) -> Result<(), RouteError> {
        let wrong = |problem| RouteError { template: template.clone(), problem };
        let names = parse_path(&template.path).map_err(wrong)?;
        let parts = parse_channel(&template.channel, &names).map_err(wrong)?;
        if let [Part::Text(channel)] = parts.as_slice() {
            self.check(channel).map_err(|bad| wrong(RouteProblem::NeverGood(bad)))?;
        }
        self.router
            .insert(template.path.as_str(), parts)
            .map_err(|error| wrong(RouteProblem::from(error)))
    }

    fn stream_request(
        &self,
        parts: &[Part],
        params: &matchit::Params<'_, '_>,
        query: &[u8],
    ) -> Result<StreamRequest, BadTarget> {
        let parameter = parts.iter().find_map(|part| match part {
            Part::Query { name, default } => Some((name, default)),
            _ => None,
        });
        let mut channels = Vec::new();
        let mut last_event_id = None;
        let mut begin = Begin::Present;
        let mut empty_value = false;
        for pair in query.split(|&byte| byte == b'&') {
            let (name, value) = split_once(pair, b'=');
            if parameter.is_some_and(|(known, _)| is_name(name, known.as_bytes())) {
                if value.is_empty() {
                    empty_value = true;
                } else {
                    self.add_channel(parts, params, QueryValue::Form(value), &mut channels)?;
                }
            } else if is_name(name, b"last") || is_name(name, b"since") {
                let mut text = Vec::with_capacity(value.len());
                // A time zone's + is one as it stands.
                decode(value, Encoding::Path, &mut text)?;
                begin = begin.or(Begin::parse(is_name(name, b"since"), &text));
            }
            if LAST_EVENT_ID_NAMES.iter().any(|known| is_name(name, known)) {
                let mut id = Vec::with_capacity(value.len());
                decode(value, Encoding::Form, &mut id)?;
                last_event_id = Some(id).filter(|id| !id.is_empty());
            }
        }
        if channels.is_empty() {
            let value = match parameter {
                None => QueryValue::Plain(b""),
                Some((_, Some(default))) => QueryValue::Plain(default),
                Some((_, None)) if empty_value => return Err(BadTarget::EmptyChannel),
                Some((name, None)) => {
                    return Err(BadTarget::MissingParameter { name: name.clone() });
                }
            };
            self.add_channel(parts, params, value, &mut channels)?;
        }
        Ok(StreamRequest { channels, last_event_id, begin })
    }

    fn add_channel(
        &self,
        parts: &[Part],
        params: &matchit::Params<'_, '_>,
        query_value: QueryValue<'_>,
        channels: &mut Vec<Vec<u8>>,
    ) -> Result<(), BadTarget> {
        let mut channel = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => channel.extend_from_slice(text),
                Part::Path { name, is_rest } => {
                    let raw = params.get(name).unwrap_or_default().as_bytes();
                    let start = channel.len();
                    decode(raw, Encoding::Path, &mut channel)?;
                    let decoded = channel.get(start..).unwrap_or_default();
                    if !is_rest && decoded.contains(&b'/') {
                        return Err(BadTarget::SlashInSegment { name: name.clone() });
                    }
                }
                Part::Query { .. } => match query_value {
                    QueryValue::Form(raw) => decode(raw, Encoding::Form, &mut channel)?,
                    QueryValue::Plain(text) => channel.extend_from_slice(text),
                },
            }
        }
        self.check(&channel)?;
        if !channels.contains(&channel) {
            if channels.len() >= self.limits.channels {
                return Err(BadTarget::TooManyChannels { channels_max: self.limits.channels });
            }
            channels.push(channel);
        }
        Ok(())
    }

    fn check(&self, channel: &[u8]) -> Result<(), BadTarget> {
        if channel.is_empty() {
            return Err(BadTarget::EmptyChannel);
        }
        if channel.len() > self.limits.channel_bytes {
            return Err(BadTarget::ChannelTooLong { channel_bytes_max: self.limits.channel_bytes });
        }
        if channel.iter().any(u8::is_ascii_control) {
            return Err(BadTarget::ControlByte);
        }
        if self.reserved.contains(channel) {
            let channel = String::from_utf8_lossy(channel).into_owned();
            return Err(BadTarget::Reserved { channel });
        }
        Ok(())
    }
}

impl Reserved {
    /// `subscribe_ahead` are names in Redis; where they begin with `strip_prefix`, clients know
    /// them without.
    #[must_use]
    pub fn new(subscribe_ahead: &[Vec<u8>], strip_prefix: &[u8]) -> Self {
        let stripped = subscribe_ahead.iter().filter_map(|name| name.strip_prefix(strip_prefix));
        let names = subscribe_ahead.iter().cloned().chain(stripped.map(<[u8]>::to_vec)).collect();
        Self { names }
    }

    /// Whether clients are kept away from a channel of this name. O(n) in the names.
    #[must_use]
    pub fn contains(&self, channel: &[u8]) -> bool {
        RESERVED_PREFIXES.iter().any(|prefix| channel.starts_with(prefix))
            || self.names.iter().any(|name| name == channel)
    }
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAscii => f.write_str("bad path: bytes beyond ASCII must be percent-encoded"),
            Self::Escape => {
                f.write_str("bad percent-encoding: expected two hexadecimal digits behind each %")
            }
            Self::SlashInSegment { name } => {
                write!(f, "bad path: {name} must not contain a percent-encoded /")
            }
            Self::MissingParameter { name } => {
                write!(f, "no channel: expected a query parameter, ?{name}=CHANNEL")
            }
            Self::EmptyChannel => f.write_str("empty channel: expected at least one byte"),
            Self::ChannelTooLong { channel_bytes_max } => {
                write!(f, "channel too long: at most {channel_bytes_max} bytes are allowed")
            }
            Self::ControlByte => f.write_str("bad channel: control bytes are not allowed"),
            Self::Reserved { channel } => {
                write!(f, "channel {channel} is reserved: it cannot be subscribed to")
            }
            Self::TooManyChannels { channels_max } => {
                write!(f, "too many channels: at most {channels_max} are allowed for one stream")
            }
        }
    }
}

impl std::error::Error for BadTarget {}

/// A value of the query parameter that a template asks for.
#[derive(Clone, Copy)]
enum QueryValue<'a> {
    /// As sent.
    Form(&'a [u8]),
    /// Of the template.
    Plain(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// Percent-encoding (RFC 3986 2.1).
    Path,
    /// The same, and `+` is a space (URL standard, application/x-www-form-urlencoded).
    Form,
}

fn decode(raw: &[u8], encoding: Encoding, out: &mut Vec<u8>) -> Result<(), BadTarget> {
    // Decoding only shortens: one allocation does.
    out.reserve(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, after @ ..] = tail else { return Err(BadTarget::Escape) };
                out.push(hexadecimal(*high)? << 4 | hexadecimal(*low)?);
                rest = after;
            }
            b'+' if encoding == Encoding::Form => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Ok(())
}

fn hexadecimal(digit: u8) -> Result<u8, BadTarget> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BadTarget::Escape),
    }
}

/// Whether the name of a query parameter, as sent, means `known`.
fn is_name(raw: &[u8], known: &[u8]) -> bool {
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return raw == known;
    }
    let mut name = Vec::new();
    decode(raw, Encoding::Form, &mut name).is_ok() && name == known
}

/// The bytes before and after the first `separator`; without one, all of them and none.
fn split_once(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let mut parts = bytes.splitn(2, |&byte| byte == separator);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

const DEFAULT_ROUTES: [(&str, &str); 3] =
    [("/events/{*channel}", "{channel}"), ("/events", "{?channel}"), ("/events/", "{?channel}")];

const LAST_EVENT_ID_NAMES: [&[u8]; 3] = [b"lastEventId", b"last_event_id", b"last-event-id"];

/// Of names that frameworks keep for themselves (`__anycable__`, `__keyspace@0__:…`), and of ours.
const RESERVED_PREFIXES: [&[u8]; 2] = [b"__", b"corecast:"];
