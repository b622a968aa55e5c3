//! Settings: valid values, parsed once by floor 6, read by every floor.

use std::cmp::Reverse;
use std::fmt;
use std::hint;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

/// Everything `corecast serve` was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Public listeners; never empty.
    pub listen: Vec<ListenAddress>,
    /// The Redis to subscribe to; `None` runs the embedded broker.
    pub redis: Option<RedisAddress>,
    pub broker_listen: ListenAddress,
    pub broker_password: Option<Secret>,
    pub admin_listen: ListenAddress,
    pub admin_token: Option<Secret>,
    /// Invariant: at least 1.
    pub workers: usize,
    pub pin: bool,
    pub driver: Driver,
    /// URL template and channel template, as given; checked by `bytes::target::Routes`.
    pub routes: Vec<RouteTemplate>,
    pub formats: Vec<FormatRule>,
    pub strip_prefix: Vec<u8>,
    /// Redis channels that every worker subscribes to from the start.
    pub subscribe_ahead: Vec<Vec<u8>>,
    /// `None`: no heartbeats.
    pub heartbeat: Option<Duration>,
    pub retry: Duration,
    /// 0 to 100.
    pub retry_jitter_percent: u8,
    /// Connections of the whole process; `None`: what descriptors and memory allow.
    pub max_connections: Option<usize>,
    pub limits: RequestLimits,
    pub max_event_bytes: usize,
    pub head_timeout: Duration,
    pub max_pending_bytes: usize,
    pub max_intake_bytes: usize,
    /// `None`: the kernel's default.
    pub dead_peer_timeout: Option<Duration>,
    pub coalesce: Duration,
    /// Exact origins as browsers send them: lower case, no default port.
    pub cors_origins: Vec<String>,
    pub history: HistoryRules,
    /// How long a channel's history is kept after its last event.
    pub history_ttl: Duration,
    /// Bytes of history that the embedded broker keeps.
    pub broker_history_bytes: usize,
    pub drain_time: Duration,
}

/// Bounds of what one request may ask for.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    pub head_bytes: usize,
    pub channels: usize,
    pub channel_bytes: usize,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Where Redis is, and as whom to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    pub endpoint: RedisEndpoint,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub database: u32,
    /// `None`: in the clear.
    pub tls: Option<Box<TlsFiles>>,
}

/// The files that TLS is made from (PEM).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities to trust; `None`: those that this host trusts.
    pub authorities: Option<PathBuf>,
    /// The certificate that says who we are, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisEndpoint {
    /// Host name or address, resolved anew at every connect.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    /// The master of this name, wherever it is now.
    Sentinel(Box<Sentinels>),
}

/// Who knows where a master is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// Host names or addresses; never empty.
    pub hosts: Vec<(String, u16)>,
    pub master: String,
    /// The password of the Sentinels themselves.
    pub password: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, or epoll where it is refused.
    Auto,
    Uring,
    Epoll,
}

/// `PATH=CHANNEL`, in the path syntax of the `matchit` crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTemplate {
    pub path: String,
    pub channel: String,
}

/// Channels whose name begins with `prefix` carry payloads of this format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatRule {
    /// Empty for the default format.
    pub prefix: Vec<u8>,
    pub format: Format,
}

/// Of channels whose name begins with `prefix` so many events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// Empty for all channels.
    pub prefix: Vec<u8>,
    /// 0 for none.
    pub events: usize,
}

/// Which channels have a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryRules {
    /// Invariant: longer prefixes before shorter ones.
    rules: Vec<HistoryRule>,
    strip_prefix: Vec<u8>,
}

/// A password or token: readable as a `str`, but never part of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// How a payload becomes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Json,
    DjangoSse,
    FlaskSse,
    DjangoEventstream,
    Laravel,
    Anycable,
}

impl Format {
    pub const ALL: [Self; 7] = [
        Self::Raw,
        Self::Json,
        Self::DjangoSse,
        Self::FlaskSse,
        Self::DjangoEventstream,
        Self::Laravel,
        Self::Anycable,
    ];
}

impl HistoryRules {
    /// No prefix may be there twice. Rules may name channels as Redis does, or as clients do,
    /// without `strip_prefix`.
    #[must_use]
    pub fn new(mut rules: Vec<HistoryRule>, strip_prefix: &[u8]) -> Self {
        rules.sort_by_key(|rule| Reverse(rule.prefix.len()));
        Self { rules, strip_prefix: strip_prefix.to_vec() }
    }

    /// How many events are kept of `channel`, a name in Redis; `None`: it has no history, as
    /// corecast's own channels have none. O(n) in rules.
    #[must_use]
    pub fn of(&self, channel: &[u8]) -> Option<usize> {
        if channel.starts_with(b"corecast:") {
            return None;
        }
        let stripped = channel.strip_prefix(&*self.strip_prefix).unwrap_or(channel);
        let is_prefix = |prefix: &[u8]| channel.starts_with(prefix) || stripped.starts_with(prefix);
        let rule = self.rules.iter().find(|rule| is_prefix(&rule.prefix))?;
        Some(rule.events).filter(|&events| events > 0)
    }

    /// Whether no channel has a history.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.iter().all(|rule| rule.events == 0)
    }
}

impl ListenAddress {
    /// Whether only this host can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for RedisEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Sentinel(sentinels) => write!(f, "master {}", sentinels.master),
        }
    }
}

impl Secret {
    /// Compares in a time that depends on the length of `given` alone, so that nobody learns the
    /// secret from how soon a guess is refused.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let difference = given
            .iter()
            .zip(secret.iter().cycle())
            .fold(given.len() ^ secret.len(), |seen, (a, b)| {
                hint::black_box(seen | usize::from(a ^ b))
            });
        difference == 0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_readable_but_not_shown() {
        let secret = Some(Secret::from("hunter2"));
        assert_eq!(secret.as_deref(), Some("hunter2"));
        assert_eq!(format!("{secret:?}"), "Some(***)");
    }

    #[test]
    fn the_longest_prefix_says_how_much_history_a_channel_has() {
        let rule = |prefix: &str, events| HistoryRule { prefix: prefix.into(), events };
        let rules = vec![rule("", 10), rule("orders/", 500), rule("orders/x/", 0), rule("p-c", 7)];
        let rules = HistoryRules::new(rules, b"p-");
        for (channel, expected) in [
            ("news", Some(10)),
            ("orders/1", Some(500)),
            ("p-orders/1", Some(500)),
            ("orders/x/1", None),
            ("p-c", Some(7)),
            ("c", Some(10)),
            ("corecast:probe:1", None),
        ] {
            assert_eq!(rules.of(channel.as_bytes()), expected, "{channel}");
        }
        assert!(!rules.is_empty());
        assert_eq!(HistoryRules::default().of(b"news"), None);
        assert!(HistoryRules::new(vec![rule("a", 0)], b"").is_empty());
    }

    #[test]
    fn only_loopback_and_unix_addresses_are_local() {
        let is_local = |text: &str| ListenAddress::Tcp(text.parse().unwrap()).is_local();
        for local in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_local(local), "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!is_local(open), "{open}");
        }
        assert!(ListenAddress::Unix("/run/x".into()).is_local());
    }

    #[test]
    fn a_secret_is_only_itself() {
        let secret = Secret::from("abc");
        assert!(secret.is(b"abc"));
        for other in ["", "ab", "abd", "xbc", "abcabc", "abca"] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
        assert!(Secret::from("").is(b"") && !Secret::from("").is(b"a"));
    }
}
