//! Values of options: what is allowed, and how it is said.
//!
//! Each parser's error says what it expected; option and value are named where it is reported.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tracing::Level;

use crate::bench::options::Choice;
use crate::bytes::format;
use crate::ground::config::{
    Driver, Format, FormatRule, HistoryRule, ListenAddress, RouteTemplate, Secret,
};
use crate::process::log::LogFormat;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

/// Longest time that any option takes.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The parameter of a Redis URL that is a secret.
pub(super) const SENTINEL_PASSWORD: &str = "?sentinel_password=";

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// Whole numbers from `min` to `max`.
pub(super) fn number<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("expected a whole number from {min} to {max}"))
    }
}

/// Bytes from `min` to `max`: a whole number, with a unit of 1024 (`KiB`, `MiB`, `GiB`) or of 1000
/// (`kB`, `MB`, `GB`), whatever the case of its letters.
pub(super) fn size(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let bytes = parse_size(text).filter(|bytes| (min..=max).contains(bytes));
        bytes.ok_or_else(|| {
            format!(
                "expected a size such as 1000, 64KiB or 1MiB, from {} to {}",
                show_size(min),
                show_size(max)
            )
        })
    }
}

/// A time from `min` to [`DURATION_MAX`]: a whole number with its unit.
pub(super) fn duration(min: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = parse_duration(text).filter(|time| (min..=DURATION_MAX).contains(time));
        time.ok_or_else(|| {
            format!(
                "expected a time such as 500ms, 15s, 2m or 1h, from {}ms to 24h",
                min.as_millis()
            )
        })
    }
}

/// As [`duration`], or 0.
pub(super) fn duration_or_zero(min: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    let duration = duration(min);
    move |text| match parse_duration(text) {
        Some(Duration::ZERO) => Ok(Duration::ZERO),
        _ => duration(text).map_err(|expected| format!("{expected}, or 0")),
    }
}

/// Messages per second, as the time between two; or `max`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate(None));
    }
    let per_second: Option<f64> = text.parse().ok().filter(|rate| (0.001..=1e6).contains(rate));
    let interval = per_second.map(|rate| Duration::from_secs_f64(1.0 / rate));
    interval
        .map(|interval| Rate(Some(interval)))
        .ok_or_else(|| "expected messages per second, from 0.001 to 1000000, or max".to_owned())
}

/// The time between two messages; `None` leaves none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(pub(super) Option<Duration>);

pub(super) fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "in-turn" => Ok(Choice::InTurn),
        "random" => Ok(Choice::Random),
        _ => Err("expected in-turn or random".to_owned()),
    }
}

/// What stands in the environment or the file for a flag without a value.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

pub(super) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.is_empty() {
            return Ok(ListenAddress::Unix(PathBuf::from(path)));
        }
    } else if let Some(port) = text.strip_prefix("localhost:") {
        if let Ok(port) = port.parse() {
            return Ok(ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
    } else if let Ok(address) = text.parse() {
        return Ok(ListenAddress::Tcp(address));
    }
    Err("expected an IP address (or localhost) and a port, such as 0.0.0.0:8080 or [::1]:8080, \
         or unix:/path"
        .to_owned())
}

/// A bad value as it may be repeated: without a secret, or the user and password of a URL.
pub(super) fn redacted(option: &str, value: &str) -> String {
    if matches!(option, "--admin-token" | "--broker-password") && !value.is_empty() {
        return "***".to_owned();
    }
    let value = match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://***@{host}"),
        _ => value.to_owned(),
    };
    match value.split_once(SENTINEL_PASSWORD) {
        Some((url, _)) => format!("{url}{SENTINEL_PASSWORD}***"),
        None => value,
    }
}

/// `PATH=CHANNEL`, divided at the first `=` that is not between braces.
pub(super) fn route(text: &str) -> Result<RouteTemplate, String> {
    let mut depth = 0u32;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth = depth.saturating_add(1),
            '}' => depth = depth.saturating_sub(1),
            '=' if depth == 0 => {
                let (path, channel) = text.split_at_checked(at).unwrap_or_default();
                return Ok(RouteTemplate {
                    path: path.to_owned(),
                    channel: channel.strip_prefix('=').unwrap_or_default().to_owned(),
                });
            }
            _ => {}
        }
    }
    Err("expected PATH=CHANNEL, such as /course/{id}=course-{id} or /stream={?channel=sse}"
        .to_owned())
}

/// `[PREFIX=]FORMAT`.
pub(super) fn format_rule(text: &str) -> Result<FormatRule, String> {
    let (prefix, name) = text.rsplit_once('=').unwrap_or(("", text));
    match Format::ALL.iter().find(|format| format::name(**format) == name) {
        Some(format) => Ok(FormatRule { prefix: prefix.as_bytes().to_vec(), format: *format }),
        None => {
            let names = Format::ALL.map(format::name).join(", ");
            Err(format!("expected [PREFIX=]FORMAT, the format one of {names}"))
        }
    }
}

/// `[PREFIX=]N`.
pub(super) fn history_rule(text: &str) -> Result<HistoryRule, String> {
    let (prefix, events) = text.rsplit_once('=').unwrap_or(("", text));
    match number(0, HISTORY_EVENTS_MAX)(events) {
        Ok(events) => Ok(HistoryRule { prefix: prefix.as_bytes().to_vec(), events }),
        Err(_) => {
            Err(format!("expected [PREFIX=]N, the number of events from 0 to {HISTORY_EVENTS_MAX}"))
        }
    }
}

/// A scheme, a host and perhaps a port, as browsers send them in `Origin`: lower case, and without
/// the port that the scheme implies (RFC 6454 6.2).
pub(super) fn origin(text: &str) -> Result<String, String> {
    let expected = "expected an exact origin without a path, such as https://www.example.org";
    if text.contains('*') {
        return Err(format!("patterns (*) are not supported by this version; {expected}"));
    }
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://").ok_or(expected)?;
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
        return Err(expected.to_owned());
    }
    let (host, port) = host_and_port(authority).ok_or(expected)?;
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    if !host.bytes().all(is_host_byte) {
        return Err(expected.to_owned());
    }
    let implied = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Ok(match port.filter(|port| Some(*port) != implied) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected text or json".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    }
}

pub(super) fn driver(text: &str) -> Result<Driver, String> {
    match text {
        "auto" => Ok(Driver::Auto),
        "uring" => Ok(Driver::Uring),
        "epoll" => Ok(Driver::Epoll),
        _ => Err("expected auto, uring or epoll".to_owned()),
    }
}

/// A password or a token.
pub(super) fn secret(text: &str) -> Result<Secret, String> {
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("expected at least one character, and no control characters".to_owned());
    }
    Ok(text.into())
}

/// The path of a file that is read later, when it is known to be needed.
pub(super) fn pem_file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("expected the path of a PEM file".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn channel(text: &str) -> Result<String, String> {
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("expected a channel: at least one byte, and no control bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// A value of an event's field, which one line must hold (WHATWG, "server-sent events").
pub(super) fn field(text: &str) -> Result<String, String> {
    if text.contains(['\r', '\n', '\0']) {
        return Err("expected one line: CR, LF and NUL are not allowed".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = digits_and_rest(text)?;
    let bytes: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => KIB,
        "mib" => MIB,
        "gib" => 1024 * MIB,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(bytes)
}

fn show_size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= MIB && bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        _ if bytes >= KIB && bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
        _ => bytes.to_string(),
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = digits_and_rest(text)?;
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" if number == 0 => 0,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The digits at the start, of which there must be one, and what follows.
fn digits_and_rest(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(digits, _)| !digits.is_empty())
}

/// `host[:port]`; an IPv6 address keeps its brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            (host, Some(port.parse().ok().filter(|port| *port > 0)?))
        }
        _ => (text, None),
    };
    let is_address = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let is_name = !host.contains([':', '[', ']', '/', '@', ' ']) && !host.is_empty();
    (is_address || is_name).then_some((host, port))
}

/// More events of a channel than anybody would send to one browser at once.
pub(super) const HISTORY_EVENTS_MAX: usize = 1_000_000;
