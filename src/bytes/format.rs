//! Payload formats: what a publisher sent, as the event it meant.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use super::event_stream::Event;
use super::json::{self, Malformed, Value};
pub use crate::ground::config::{Format, FormatRule};

/// A payload, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The channel that the payload itself names, in the formats that carry one; the event then
    /// belongs there and not to the channel that it was published on.
    pub channel: Option<Cow<'a, [u8]>>,
    pub event: Event<'a>,
}

/// A payload that its format can't read: what was expected, and where. Says nothing of what the
/// payload contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable {
    pub format: Format,
    /// Byte of the payload, where one is to blame.
    pub offset: Option<usize>,
    pub expected: &'static str,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} payload: expected {}", name(self.format), self.expected)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, "; the format is {}", shape(self.format))
    }
}

impl std::error::Error for Undecodable {}

/// The name of a format on the command line.
#[must_use]
pub fn name(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Json => "json",
        Format::DjangoSse => "django-sse",
        Format::FlaskSse => "flask-sse",
        Format::DjangoEventstream => "django-eventstream",
        Format::Laravel => "laravel",
        Format::Anycable => "anycable",
    }
}

/// Which format the payloads of a channel have.
#[derive(Clone, Debug, Default)]
pub struct Formats {
    /// Invariant: no prefix twice, longer prefixes before shorter ones.
    rules: Vec<FormatRule>,
    strip_prefix: Vec<u8>,
}

impl Formats {
    /// Of two rules with the same prefix, the later counts. Rules may name channels as Redis does,
    /// or as clients do, without `strip_prefix`.
    #[must_use]
    pub fn new(rules: &[FormatRule], strip_prefix: &[u8]) -> Self {
        let mut sorted: Vec<FormatRule> = Vec::with_capacity(rules.len());
        for rule in rules {
            sorted.retain(|earlier| earlier.prefix != rule.prefix);
            sorted.push(rule.clone());
        }
        sorted.sort_by_key(|rule| Reverse(rule.prefix.len()));
        Self { rules: sorted, strip_prefix: strip_prefix.to_vec() }
    }

    /// The format of the longest prefix that `channel`, a name in Redis, begins with, else `raw`.
    /// O(n) in rules.
    #[must_use]
    pub fn of(&self, channel: &[u8]) -> Format {
        let stripped = channel.strip_prefix(&*self.strip_prefix).unwrap_or(channel);
        let is_prefix = |prefix: &[u8]| channel.starts_with(prefix) || stripped.starts_with(prefix);
        let rule = self.rules.iter().find(|rule| is_prefix(&rule.prefix));
        rule.map_or(Format::Raw, |rule| rule.format)
    }
}

/// The event that `payload` is in `format`. O(n); borrows what the payload says as it stands.
///
/// Data that is a JSON string is its text; any other JSON is the publisher's own bytes. Of members
/// with the same name the last counts, members without a meaning are ignored. In every format, NUL
/// and an object of the `json` format are what [`encode_envelope`] made.
///
/// # Errors
/// What the format can't read. Nothing of such a payload may be sent.
pub fn decode(format: Format, payload: &[u8]) -> Result<Decoded<'_>, Undecodable> {
    if let Some(envelope @ [b'{', ..]) = payload.strip_prefix(b"\0")
        && let Ok(decoded) = decode_object(Format::Json, &JSON, envelope)
    {
        return Ok(decoded);
    }
    match format {
        Format::Raw => {
            let event = Event { data: payload.into(), ..Event::default() };
            Ok(Decoded { channel: None, event })
        }
        Format::DjangoSse => decode_pair(payload),
        Format::Json => decode_object(format, &JSON, payload),
        Format::FlaskSse => decode_object(format, &FLASK_SSE, payload),
        Format::DjangoEventstream => decode_object(format, &DJANGO_EVENTSTREAM, payload),
        Format::Laravel => decode_object(format, &LARAVEL, payload),
        Format::Anycable => decode_object(format, &ANYCABLE, payload),
    }
}

/// Appends an event as a payload that is understood on channels of every format: a NUL, with which
/// no text begins, and an object of the `json` format.
pub fn encode_envelope(event: &Event<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\0{\"data\": ");
    json::encode_text(&event.data, out);
    if !event.event.is_empty() {
        out.extend_from_slice(b", \"event\": ");
        json::encode_text(&event.event, out);
    }
    if let Some(id) = &event.id {
        out.extend_from_slice(b", \"id\": ");
        json::encode_text(id, out);
    }
    if let Some(retry_ms) = event.retry_ms {
        out.extend_from_slice(b", \"retry\": ");
        out.extend_from_slice(retry_ms.to_string().as_bytes());
    }
    out.push(b'}');
}

/// What the members of a publisher's object are called, beside `data`.
struct Names {
    channel: Option<&'static str>,
    event: Option<&'static str>,
    id: Option<&'static str>,
    retry: Option<&'static str>,
}

const JSON: Names =
    Names { channel: None, event: Some("event"), id: Some("id"), retry: Some("retry") };

const FLASK_SSE: Names = Names { event: Some("type"), ..JSON };

const DJANGO_EVENTSTREAM: Names =
    Names { channel: Some("channel"), event: Some("event_type"), id: Some("pub_id"), retry: None };

const LARAVEL: Names = Names { channel: None, event: Some("event"), id: None, retry: None };

const ANYCABLE: Names = Names { channel: Some("stream"), event: None, id: None, retry: None };

/// What a format looks like, for messages.
fn shape(format: Format) -> &'static str {
    match format {
        Format::Raw => "any bytes",
        Format::Json => r#"{"data": any, "event"?, "id"?, "retry"?}"#,
        Format::DjangoSse => "[event, data]",
        Format::FlaskSse => r#"{"data": any, "type"?, "id"?, "retry"?}"#,
        Format::DjangoEventstream => {
            r#"{"channel": string, "data": string, "event_type"?, "pub_id"?}"#
        }
        Format::Laravel => r#"{"event", "data": any, "socket"?}"#,
        Format::Anycable => r#"{"stream": string, "data": string}"#,
    }
}

fn decode_object<'a>(
    format: Format,
    names: &Names,
    payload: &'a [u8],
) -> Result<Decoded<'a>, Undecodable> {
    let wanted = [Some("data"), names.channel, names.event, names.id, names.retry];
    let mut found = [None; 5];
    json::members(payload, |name, value| {
        for (slot, wanted) in found.iter_mut().zip(wanted) {
            if wanted.is_some_and(|wanted| wanted.as_bytes() == &*name) {
                *slot = Some(value);
            }
        }
    })
    .map_err(|malformed| not_json(format, malformed))?;
    let [data, channel, event, id, retry] = found;

    let missing = |expected| Undecodable { format, offset: None, expected };
    let data = data.ok_or_else(|| missing("a member `data`"))?;
    let channel = match names.channel {
        None => None,
        Some(_) => {
            let text = channel.and_then(Value::text);
            Some(text.ok_or_else(|| missing("a string that names the channel"))?)
        }
    };
    let event = Event {
        event: event_label(format, event)?,
        data: data.text().unwrap_or(Cow::Borrowed(data.raw)),
        id: label(format, id)?,
        retry_ms: retry.and_then(milliseconds),
    };
    Ok(Decoded { channel, event })
}

fn decode_pair(payload: &[u8]) -> Result<Decoded<'_>, Undecodable> {
    let format = Format::DjangoSse;
    let mut found = [None; 3];
    let mut free = found.iter_mut();
    json::elements(payload, |value| {
        if let Some(slot) = free.next() {
            *slot = Some(value);
        }
    })
    .map_err(|malformed| not_json(format, malformed))?;
    let [Some(event), Some(data), None] = found else {
        return Err(Undecodable { format, offset: None, expected: "two elements" });
    };
    let data = data.text().or_else(|| lines(data)).unwrap_or(Cow::Borrowed(data.raw));
    let event = Event { event: event_label(format, Some(event))?, data, ..Event::default() };
    Ok(Decoded { channel: None, event })
}

/// The text whose lines are the elements of a list; `None` if one of them is no string, or `value`
/// no list. An end of line at the end of an element is the line's own.
fn lines(value: Value<'_>) -> Option<Cow<'_, [u8]>> {
    let mut text = Vec::new();
    let mut only_strings = true;
    json::elements(value.raw, |element| match element.text() {
        Some(line) => {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            text.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            text.push(b'\n');
        }
        None => only_strings = false,
    })
    .ok()?;
    text.pop();
    only_strings.then_some(Cow::Owned(text))
}

/// A type of events; `message` is what events without one have.
fn event_label(format: Format, value: Option<Value<'_>>) -> Result<Cow<'_, [u8]>, Undecodable> {
    let event = label(format, value)?.unwrap_or_default();
    Ok(if &*event == b"message" { Cow::default() } else { event })
}

/// A short text that publishers may also give as a number, or as null if they have none.
fn label(format: Format, value: Option<Value<'_>>) -> Result<Option<Cow<'_, [u8]>>, Undecodable> {
    let Some(Value { raw, offset }) = value else {
        return Ok(None);
    };
    match raw {
        b"null" => Ok(None),
        [b'[' | b'{', ..] => {
            let expected = "a string, a number or null";
            Err(Undecodable { format, offset: Some(offset), expected })
        }
        _ => Ok(value.and_then(Value::text).or(Some(Cow::Borrowed(raw)))),
    }
}

/// A reconnection time, as a number or as its digits in a string. Anything else is ignored, as
/// browsers do, because the event is worth more than its time.
fn milliseconds(value: Value<'_>) -> Option<u64> {
    let text = value.text().unwrap_or(Cow::Borrowed(value.raw));
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(&text).ok()?.parse().ok()
}

fn not_json(format: Format, malformed: Malformed) -> Undecodable {
    let Malformed { offset, expected } = malformed;
    Undecodable { format, offset: Some(offset), expected }
}

#[cfg(test)]
mod tests;
