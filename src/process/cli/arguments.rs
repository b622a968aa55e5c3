//! The options as clap reads them, with the words of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};

use super::bench::{BENCH_AFTER_HELP, BenchArguments, FloorArguments};
use super::redis::{REDIS, RedisArguments};
use super::values::{self, KIB, MIB, MILLISECOND};
use crate::ground::config::{
    Driver, FormatRule, HistoryRule, ListenAddress, RouteTemplate, Secret,
};
use crate::ground::limits::TICK;
use crate::process::log::LogFormat;

#[derive(Parser)]
#[command(
    version,
    about,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) subcommand: Option<Subcommand>,
    #[command(flatten)]
    pub(super) serve: ServeArguments,
}

#[derive(clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run the server (the default).
    #[command(after_help = AFTER_HELP)]
    Serve(Box<ServeArguments>),
    /// Publish one event, or one per line of standard input.
    #[command(after_help = PUBLISH_AFTER_HELP)]
    Publish(Box<PublishArguments>),
    /// Load a server: connections x messages, latency, memory, comparison with a floor.
    #[command(after_help = BENCH_AFTER_HELP)]
    Bench(Box<BenchArguments>),
    /// Run the floor that `bench --compare-floor` compares a server with.
    #[command(hide = true)]
    Floor(Box<FloorArguments>),
}

#[derive(Args)]
pub(super) struct ServeArguments {
    /// Address of a public listener: HOST:PORT or unix:/path; may be given several times
    #[arg(long, value_name = "ADDR", help_heading = LISTENING)]
    #[arg(value_parser = values::listen_address, default_value = "127.0.0.1:8080")]
    pub(super) listen: Vec<ListenAddress>,
    /// Origin whose pages may read streams: SCHEME://HOST[:PORT]; may be given several times
    /// [default: none]
    #[arg(long = "cors-origin", value_name = "ORIGIN", help_heading = LISTENING)]
    #[arg(value_parser = values::origin)]
    pub(super) cors_origins: Vec<String>,
    /// Address for metrics and health: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR", help_heading = LISTENING)]
    #[arg(value_parser = values::listen_address, default_value = "127.0.0.1:9180")]
    pub(super) admin_listen: ListenAddress,
    /// Token that admin requests must bear; required beyond loopback and unix sockets
    /// [default: none]
    #[arg(long, value_name = "TOKEN", help_heading = LISTENING, value_parser = values::secret)]
    pub(super) admin_token: Option<Secret>,

    #[command(flatten)]
    pub(super) redis: RedisArguments,
    /// Redis channel that is always subscribed and closed to clients; may be given several times
    /// [default: none]
    #[arg(long, value_name = "CHANNEL", help_heading = REDIS, value_parser = values::channel)]
    pub(super) subscribe_ahead: Vec<String>,
    /// Prefix that every streamed channel has in Redis, and that clients leave out (Laravel's
    /// laravel-database-) [default: none]
    #[arg(long, value_name = "PREFIX", help_heading = REDIS, default_value = "")]
    #[arg(hide_default_value = true)]
    pub(super) strip_prefix: String,

    /// URL path and the channel that it streams; may be given several times [default:
    /// /events/{*channel}={channel}, and /events and /events/ with {?channel}]
    #[arg(long = "route", value_name = "PATH=CHANNEL", help_heading = STREAMS)]
    #[arg(value_parser = values::route)]
    pub(super) routes: Vec<RouteTemplate>,
    /// How payloads on channels with that prefix are read: raw, json, django-sse, flask-sse,
    /// django-eventstream, laravel or anycable; may be given several times
    #[arg(long = "format", value_name = "[PREFIX=]FORMAT", help_heading = STREAMS)]
    #[arg(value_parser = values::format_rule, default_value = "raw")]
    pub(super) formats: Vec<FormatRule>,
    /// Silence after which a stream gets a comment line; 0 = never
    #[arg(long, value_name = "TIME", help_heading = STREAMS, default_value = "15s")]
    #[arg(value_parser = values::duration_or_zero(TICK))]
    pub(super) heartbeat: Duration,
    /// Reconnection time that streams begin with
    #[arg(long, value_name = "TIME", help_heading = STREAMS, default_value = "2s")]
    #[arg(value_parser = values::duration(MILLISECOND))]
    pub(super) retry: Duration,
    /// How far the reconnection time of a connection may lie from it, in percent
    #[arg(long, value_name = "PERCENT", help_heading = STREAMS, default_value = "50")]
    #[arg(value_parser = values::number(0u8, 100))]
    pub(super) retry_jitter: u8,
    /// Longest wait to merge events of a channel into one write; 0 = merge what has arrived
    #[arg(long, value_name = "TIME", help_heading = STREAMS, default_value = "0")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) coalesce: Duration,

    /// Events that are kept of each channel with that prefix, for streams that come back; 0 = none;
    /// may be given several times [default: none]
    #[arg(long, value_name = "[PREFIX=]N", help_heading = HISTORY)]
    #[arg(value_parser = values::history_rule)]
    pub(super) history: Vec<HistoryRule>,
    /// Time that a channel's events are kept after its last one
    #[arg(long, value_name = "TIME", help_heading = HISTORY, default_value = "10m")]
    #[arg(value_parser = values::duration(SECOND))]
    pub(super) history_ttl: Duration,
    /// Most bytes of history that the broker keeps; over it, the oldest events go first
    #[arg(long, value_name = "SIZE", help_heading = HISTORY, default_value = "256MiB")]
    #[arg(value_parser = values::size(MIB, 1024 * 1024 * MIB))]
    pub(super) broker_history_bytes: usize,

    /// Most connections at a time [default: what descriptors and memory allow]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    #[arg(value_parser = values::number(1usize, CONNECTIONS_MAX))]
    pub(super) max_connections: Option<usize>,
    /// Most channels of one connection
    #[arg(long, value_name = "N", help_heading = LIMITS, default_value = "32")]
    #[arg(value_parser = values::number(1usize, 4096))]
    pub(super) max_channels_per_connection: usize,
    /// Longest name of a channel
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value = "256")]
    #[arg(value_parser = values::size(1, 64 * KIB))]
    pub(super) max_channel_bytes: usize,
    /// Largest event
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value = "1MiB")]
    #[arg(value_parser = values::size(1, 512 * MIB))]
    pub(super) max_event_bytes: usize,
    /// Largest request head
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value = "8KiB")]
    #[arg(value_parser = values::size(256, MIB))]
    pub(super) max_head_bytes: usize,
    /// Longest time that a client takes to send a whole request head
    #[arg(long, value_name = "TIME", help_heading = LIMITS, default_value = "10s")]
    #[arg(value_parser = values::duration(TICK))]
    pub(super) head_timeout: Duration,
    /// Most bytes queued for a connection behind the event that is being sent
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value = "64KiB")]
    #[arg(value_parser = values::size(1, 1024 * MIB))]
    pub(super) max_pending: usize,
    /// Most bytes of events received and not yet passed on, per worker
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, default_value = "64MiB")]
    #[arg(value_parser = values::size(1, 64 * 1024 * MIB))]
    pub(super) max_intake: usize,
    /// Time after which a client that acknowledges or takes nothing is closed; 0 = the kernel's
    #[arg(long, value_name = "TIME", help_heading = LIMITS, default_value = "30s")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) dead_peer_timeout: Duration,

    /// Threads that hold the streams [default: the cores that may be used]
    #[arg(long, value_name = "N", help_heading = PROCESS)]
    #[arg(value_parser = values::number(1usize, 1024))]
    pub(super) workers: Option<usize>,
    /// Let the kernel move workers between cores, as it does wherever there are more workers than
    /// cores
    #[arg(long, help_heading = PROCESS, value_parser = values::switch)]
    pub(super) no_pin: bool,
    /// I/O driver: auto, uring or epoll; auto is uring, or epoll where that is refused
    #[arg(long, value_name = "DRIVER", help_heading = PROCESS, default_value = "auto")]
    #[arg(value_parser = values::driver)]
    pub(super) driver: Driver,
    /// Time over which streams are closed on SIGTERM and SIGINT
    #[arg(long, value_name = "TIME", help_heading = PROCESS, default_value = "10s")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) drain_time: Duration,
    /// Logs on standard error: text or json
    #[arg(long, value_name = "FORMAT", help_heading = PROCESS, default_value = "text")]
    #[arg(value_parser = values::log_format)]
    pub(super) log: LogFormat,
    /// Least severe records that are logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", help_heading = PROCESS, default_value = "info")]
    #[arg(value_parser = values::log_level)]
    pub(super) log_level: tracing::Level,
    /// TOML file with options as keys [default: none]
    #[arg(long, value_name = "FILE", help_heading = PROCESS)]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct PublishArguments {
    /// The channel to publish to
    #[arg(required_unless_present = "print_function")]
    pub(super) channel: Option<OsString>,
    /// The event's data; without it, every line of standard input is an event
    #[arg(allow_negative_numbers = true)]
    pub(super) data: Option<OsString>,

    /// Type of the event [default: none, which is "message" in browsers]
    #[arg(long, value_name = "EVENT", value_parser = values::field)]
    pub(super) event: Option<String>,
    /// Id of the event [default: none]
    #[arg(long, value_name = "ID", value_parser = values::field)]
    pub(super) id: Option<String>,
    /// Reconnection time that the event tells [default: none]
    #[arg(long, value_name = "TIME", value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) retry: Option<Duration>,
    /// Keep the event for streams that come back, and the channel's N newest (without N, 100)
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100")]
    #[arg(value_parser = values::number(1, values::HISTORY_EVENTS_MAX))]
    pub(super) history: Option<usize>,
    /// Time that a channel's events are kept after its last one
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10m",
        value_parser = values::duration(SECOND)
    )]
    pub(super) history_ttl: Duration,
    /// Print the function that --history calls, for FUNCTION LOAD, and do nothing else
    #[arg(long)]
    pub(super) print_function: bool,

    #[command(flatten)]
    pub(super) redis: RedisArguments,
    /// TOML file with the server's options as keys [default: none]
    #[arg(long, value_name = "FILE", help_heading = REDIS)]
    pub(super) config: Option<PathBuf>,
}

const LISTENING: &str = "Listening";
const STREAMS: &str = "Streams";
const HISTORY: &str = "History";
const LIMITS: &str = "Limits";
const PROCESS: &str = "Process";

const SECOND: Duration = Duration::from_secs(1);

/// More than a process can have descriptors (proc(5), nr_open).
const CONNECTIONS_MAX: usize = 1 << 31;

const AFTER_HELP: &str = "\
Every option also reads an environment variable, CORECAST_ and its name (CORECAST_MAX_PENDING), \
and a key of its name in the --config file. A flag counts before the environment, the environment \
before the file, the file before the default; an empty variable counts as unset. An option that \
may be given several times takes values divided by white space from the environment, and an array \
from the file.

Times take ms, s, m and h. Sizes take KiB, MiB and GiB (of 1024), kB, MB and GB (of 1000), or no \
unit for bytes.

Examples:
  corecast
      Serve http://127.0.0.1:8080/events/CHANNEL; any Redis client publishes at 127.0.0.1:6380.
  corecast --redis redis://:secret@10.0.0.5 --listen 0.0.0.0:80 --cors-origin https://example.org
      Serve what is published on a Redis server, to the pages of another origin.
  corecast --route '/course/{id}/=course-{id}' --route '/stream={?channel=sse}'
      Serve an application's own URLs.
  corecast publish news 'Hello'
      Publish an event.
  corecast bench http://127.0.0.1:8080/events/bench --streams 10000
      Load a server.";

const PUBLISH_AFTER_HELP: &str = "\
Without --event, --id and --retry the data is published as it is, so it may be in any format that \
the server reads. With one of them it is wrapped in an envelope that the server knows whatever the \
format of the channel.

With --history the event gets an id, which is printed, and is kept in Redis (or in the broker) \
by a function that is loaded if it is missing; where that is not allowed, by a script. Let an \
administrator load it by: corecast publish --print-function | redis-cli -x FUNCTION LOAD REPLACE

--redis, --broker-listen, --broker-password, --history-ttl and --config also read the environment \
(CORECAST_REDIS) and the --config file, as the server does.

Examples:
  corecast publish news 'Hello'
  corecast publish news --event headline --id 7 'Hello'
  corecast publish news --history 50 'Hello'
  tail -f access.log | corecast publish log";
