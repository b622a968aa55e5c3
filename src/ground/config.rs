//! Settings: valid values, parsed once by floor 6, read by every floor.

use std::net::SocketAddr;
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
    pub broker_password: Option<String>,
    pub admin_listen: ListenAddress,
    pub admin_token: Option<String>,
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
    /// Exact origins.
    pub cors_origins: Vec<String>,
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
    pub password: Option<String>,
    pub database: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisEndpoint {
    /// Host name or address, resolved anew at every connect.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
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
