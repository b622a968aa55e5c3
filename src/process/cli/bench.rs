//! The options of `bench` and of the floor that it starts, with the words of `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::redis::{REDIS, RedisArguments};
use super::values::{self, MIB, MILLISECOND, Rate};
use super::{Command, redis};
use crate::bench::options::{
    Aftermath, Allowed, BenchOptions, Choice, Closing, Comparison, FloorOptions, Load,
    MESSAGES_MAX, Opening, Posting, Publication, Sink, Wrapping,
};
use crate::bench::schedule::Schedule;
use crate::bench::target::{Target, Template};
use crate::bytes::history::HistoryOptions;
use crate::sys::host;

/// The placeholder of a channel's number, as help shows it. clap makes a line end of it, unless
/// something stands inside: an escape sequence that changes nothing, and that clap removes where
/// the output is no terminal.
macro_rules! n {
    () => {
        "{\u{1b}[0mn}"
    };
}

#[derive(Args)]
pub(super) struct BenchArguments {
    #[arg(value_parser = Target::parse)]
    #[arg(help = concat!("What the streams ask for: http://HOST[:PORT]/PATH; ", n!(), " in it is \
                          the number of a channel, {nnn} the same with at least three digits"))]
    pub(super) url: Target,

    /// Streams to open; 0 = only publish
    #[arg(long, value_name = "N", help_heading = STREAMS, default_value = "1000")]
    #[arg(value_parser = values::number(0u32, 100_000_000))]
    pub(super) streams: u32,
    #[arg(long, value_name = "N", help_heading = STREAMS)]
    #[arg(help = concat!("Channels that the streams share where the URL has ", n!(), ", in turn \
                          [default: one for each stream]"))]
    #[arg(value_parser = values::number(1u32, 100_000_000))]
    pub(super) channels: Option<u32>,
    #[arg(long, value_name = "N", help_heading = STREAMS, default_value = "1")]
    #[arg(help = concat!("Channels of each stream, one after the other; more than one where the \
                          URL's query has ", n!(), ", and is repeated for each"))]
    #[arg(value_parser = values::number(1u32, 1000))]
    pub(super) channels_per_stream: u32,
    /// Streams opened per second [default: as fast as the server takes them]
    #[arg(long, value_name = "N", help_heading = STREAMS)]
    #[arg(value_parser = values::number(1u32, 10_000_000))]
    pub(super) open_rate: Option<u32>,
    /// Longest time that a stream may take to open
    #[arg(long, value_name = "TIME", help_heading = STREAMS, default_value = "10s")]
    #[arg(value_parser = values::duration(MILLISECOND))]
    pub(super) open_timeout: Duration,
    /// Silence before the first message, after which the server's memory is measured
    #[arg(long, value_name = "TIME", help_heading = STREAMS, default_value = "1s")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) idle: Duration,
    /// Threads that hold the streams [default: as many as descriptors and cores ask for]
    #[arg(long, value_name = "N", help_heading = STREAMS)]
    #[arg(value_parser = values::number(1usize, 1024))]
    pub(super) threads: Option<usize>,
    /// Streams come back, each with the id of a random event of its channel's history, which an
    /// earlier bench with --streams 0 has published; once they have what they missed, one message
    /// is published to each channel
    #[arg(long, help_heading = STREAMS, requires = "history")]
    #[arg(conflicts_with_all = ["messages", "rate", "burst", "order", "compare_floor"])]
    pub(super) resume: bool,

    /// Messages to publish, over all channels
    #[arg(long, value_name = "N", help_heading = MESSAGES, default_value = "20")]
    #[arg(value_parser = values::number(1u32, MESSAGES_MAX))]
    pub(super) messages: u32,
    /// Messages per second on average, whatever the server does; or max
    #[arg(long, value_name = "RATE", help_heading = MESSAGES, default_value = "10")]
    #[arg(value_parser = values::rate)]
    pub(super) rate: Rate,
    /// Messages that are due at the same time
    #[arg(long, value_name = "N", help_heading = MESSAGES, default_value = "1")]
    #[arg(value_parser = values::number(1u32, MESSAGES_MAX))]
    pub(super) burst: u32,
    /// Which channel is next: in turn, or at random
    #[arg(long, value_name = "in-turn|random", help_heading = MESSAGES)]
    #[arg(default_value = "in-turn", value_parser = values::choice)]
    pub(super) order: Choice,
    /// Connections to publish over; all messages of a channel take the same one
    #[arg(long, value_name = "N", help_heading = MESSAGES, default_value = "1")]
    #[arg(value_parser = values::number(1u32, 1024))]
    pub(super) publishers: u32,
    /// Publish one more message to each channel in the end, so long after all others were answered,
    /// and report their latencies apart: is service normal again?
    #[arg(long, value_name = "TIME", help_heading = MESSAGES, conflicts_with = "listen_only")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) closing_after: Option<Duration>,
    /// Closing messages per second
    #[arg(long, value_name = "RATE", help_heading = MESSAGES, default_value = "10000")]
    #[arg(value_parser = values::number(1u32, 1_000_000))]
    pub(super) closing_rate: u32,
    /// Length of a message
    #[arg(long, value_name = "SIZE", help_heading = MESSAGES, default_value = "200")]
    #[arg(value_parser = values::size(STAMP_BYTES_MAX, 16 * MIB))]
    pub(super) bytes: usize,
    #[arg(long, value_name = "CHANNEL", help_heading = MESSAGES, value_parser = values::channel)]
    #[arg(help = concat!("Channel to publish to; ", n!(), " as in the URL [default: the rest of a \
                          path below /events/]"))]
    #[arg(conflicts_with_all = ["publish_url", "listen_only"])]
    pub(super) channel: Option<String>,
    /// Publish by FCALL corecast_publish, which keeps the N newest messages of each channel for
    /// ten minutes; the server should have the same --history
    #[arg(long, value_name = "N", help_heading = MESSAGES)]
    #[arg(value_parser = values::number(1, values::HISTORY_EVENTS_MAX))]
    #[arg(conflicts_with_all = ["publish_url", "listen_only"])]
    pub(super) history: Option<usize>,
    /// Publish by POST to this URL, the message being the body, and not through Redis
    #[arg(long, value_name = "URL", help_heading = MESSAGES, value_parser = Target::parse)]
    #[arg(conflicts_with = "listen_only")]
    pub(super) publish_url: Option<Target>,
    /// Body of such a POST, with {message} in the place of the message; {message} and a line feed
    /// suit servers that join messages
    #[arg(long, value_name = "TEXT", help_heading = MESSAGES, value_parser = Wrapping::parse)]
    #[arg(requires = "publish_url", default_value = "{message}")]
    pub(super) publish_body: Wrapping,
    /// Requests sent before the first of them is answered, for servers that take them in advance
    #[arg(long, value_name = "N", help_heading = MESSAGES, default_value = "1")]
    #[arg(requires = "publish_url", value_parser = values::number(1u32, 1024))]
    pub(super) publish_ahead: u32,
    /// Publish nothing, and listen for so long to what another bench publishes
    #[arg(long, value_name = "TIME", help_heading = MESSAGES)]
    #[arg(value_parser = values::duration(MILLISECOND), conflicts_with_all = ["messages", "rate"])]
    pub(super) listen_only: Option<Duration>,
    /// Silence after which messages that are missing are lost
    #[arg(long, value_name = "TIME", help_heading = MESSAGES, default_value = "10s")]
    #[arg(value_parser = values::duration(MILLISECOND))]
    pub(super) patience: Duration,

    #[command(flatten)]
    pub(super) redis: RedisArguments,
    /// TOML file with the server's options as keys [default: none]
    #[arg(long, value_name = "FILE", help_heading = REDIS)]
    pub(super) config: Option<PathBuf>,

    /// Process of the server, to measure its memory and time; may be given several times
    #[arg(long = "server-pid", value_name = "PID", help_heading = REPORT)]
    #[arg(value_parser = values::number(1u32, u32::MAX))]
    pub(super) server_pids: Vec<u32>,
    /// Silence after the last message, after which the server's memory is measured again
    #[arg(long, value_name = "TIME", help_heading = REPORT, default_value = "0")]
    #[arg(value_parser = values::duration_or_zero(MILLISECOND))]
    pub(super) settle: Duration,
    /// Disconnect all streams but so many in the end, and measure memory after --settle
    #[arg(long, value_name = "N", help_heading = REPORT, requires = "server_pids")]
    #[arg(value_parser = values::number(0u32, 100_000_000))]
    pub(super) keep: Option<u32>,
    /// In the end send SIGTERM to the server, and wait so long until it has ended all streams
    #[arg(long, value_name = "TIME", help_heading = REPORT, requires = "server_pids")]
    #[arg(value_parser = values::duration(MILLISECOND), conflicts_with = "compare_floor")]
    pub(super) stop_server: Option<Duration>,
    /// Compare with the least that does a server's job, in so many rounds of each
    #[arg(long, value_name = "ROUNDS", help_heading = REPORT, conflicts_with = "listen_only")]
    #[arg(value_parser = values::number(1u32, 1000))]
    pub(super) compare_floor: Option<u32>,
    /// Threads of that floor; give as many as the server has [default: the cores that may be used]
    #[arg(long, value_name = "N", help_heading = REPORT)]
    #[arg(value_parser = values::number(1usize, 1024))]
    pub(super) floor_workers: Option<usize>,
    /// Exit with 0 also if something was lost, but its streams were told by a stream-reset
    #[arg(long, help_heading = REPORT)]
    pub(super) allow_told_loss: bool,
    /// Exit with 0 also if something was lost
    #[arg(long, help_heading = REPORT)]
    pub(super) allow_loss: bool,
    /// Print one JSON object instead of a table
    #[arg(long, help_heading = REPORT)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct FloorArguments {
    /// Address of the listeners
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Threads
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::number(1usize, 1024))]
    workers: usize,
    /// The channel that every stream gets
    #[arg(long, value_name = "CHANNEL", value_parser = values::channel)]
    channel: String,
    #[command(flatten)]
    redis: RedisArguments,
    /// TOML file with the server's options as keys [default: none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl BenchArguments {
    pub(super) fn command(self) -> Result<Command, String> {
        redis::plain_only(self.redis.redis.as_ref())?;
        let channels = self.channel_count()?;
        let comparison = self.comparison()?;
        let target = self.url.clone();
        let opening = Opening { rate: self.open_rate, timeout: self.open_timeout };
        Ok(Command::Bench(Box::new(BenchOptions {
            streams: self.streams,
            channels,
            channels_per_stream: self.channels_per_stream(channels)?,
            threads: self.threads,
            opening,
            resumes: self.resume,
            idle: self.idle,
            patience: self.patience,
            server_pids: self.server_pids.clone(),
            aftermath: Aftermath {
                settle: self.settle,
                keep: self.keep,
                stop_server: self.stop_server,
            },
            allowed: self.allowed(),
            json: self.json,
            comparison,
            load: self.load(channels)?,
            target,
        })))
    }

    fn allowed(&self) -> Allowed {
        match (self.allow_loss, self.allow_told_loss) {
            (true, _) => Allowed::Anything,
            (false, true) => Allowed::Told,
            (false, false) => Allowed::Nothing,
        }
    }

    fn channel_count(&self) -> Result<u32, String> {
        match (self.url.has_number(), self.channels) {
            (true, channels) => Ok(channels.unwrap_or(self.streams).max(1)),
            (false, None | Some(1)) => Ok(1),
            (false, Some(channels)) => Err(format!(
                "--channels \"{channels}\": expected {{n}} in the URL, which has only one channel"
            )),
        }
    }

    fn channels_per_stream(&self, channels: u32) -> Result<u32, String> {
        let count = self.channels_per_stream;
        let named = format!("--channels-per-stream \"{count}\": expected");
        if count > 1 && !self.url.has_number_in_query_alone() {
            return Err(format!("{named} {{n}} in the URL's query, and not before it"));
        }
        if count > channels {
            return Err(format!("{named} at most {channels}, the number of --channels"));
        }
        Ok(count)
    }

    fn comparison(&self) -> Result<Option<Comparison>, String> {
        let Some(rounds) = self.compare_floor else { return Ok(None) };
        if self.url.has_number() {
            return Err("--compare-floor: expected a URL without {n}: a floor has one channel, \
                        which all its streams get"
                .to_owned());
        }
        let cores = || host::usable_cores().len().max(1);
        let workers = self.floor_workers.unwrap_or_else(cores);
        Ok(Some(Comparison { rounds, workers, redis: self.redis.redis.clone() }))
    }

    fn load(self, channels: u32) -> Result<Load, String> {
        if let Some(duration) = self.listen_only {
            return Ok(Load::Listen(duration));
        }
        let schedule = Schedule { interval: self.rate.0, burst: self.burst };
        let (bytes, connections) = (self.bytes, self.publishers);
        if connections > channels {
            return Err(format!(
                "--publishers \"{connections}\": expected at most {channels}, one for each channel"
            ));
        }
        let interval = Duration::from_secs(1) / self.closing_rate;
        let closing_after = self.closing_after.or_else(|| self.resume.then_some(Duration::ZERO));
        let closing = closing_after.map(|after| Closing { after, interval });
        let messages = if self.resume { 0 } else { self.messages };
        let choice = self.order;
        let sink = self.sink(channels)?;
        let publication =
            Publication { sink, messages, schedule, bytes, connections, choice, closing };
        Ok(Load::Publish(publication))
    }

    fn sink(self, channels: u32) -> Result<Sink, String> {
        let (sink, option, has_number) = match self.publish_url {
            Some(target) => {
                let has_number = target.has_number();
                let (body, unanswered_max) = (self.publish_body, self.publish_ahead);
                let posting = Box::new(Posting { target, body, unanswered_max });
                (Sink::Http(posting), "--publish-url", has_number)
            }
            None => {
                let given = self.channel.as_deref().map(Template::new);
                let channel = given.or_else(|| self.url.default_channel()).ok_or(
                    "--channel: expected the channel that the URL streams, which only a path \
                     below /events/ tells",
                )?;
                let has_number = channel.has_number();
                let history =
                    self.history.map(|kept| HistoryOptions { kept, ttl_ms: HISTORY_TTL_MS });
                let server = redis::server_or_broker(self.redis)?;
                (Sink::Redis { server, channel, history }, "--channel", has_number)
            }
        };
        if has_number != self.url.has_number() && (channels > 1 || has_number) {
            return Err(format!("{option}: expected {{n}} in it and in the URL, or in neither"));
        }
        Ok(sink)
    }
}

impl FloorArguments {
    pub(super) fn command(self) -> Command {
        Command::Floor(FloorOptions {
            listen: self.listen,
            workers: self.workers,
            channel: self.channel,
            redis: self.redis.redis,
        })
    }
}

/// The server's default.
const HISTORY_TTL_MS: u64 = 600_000;

const STREAMS: &str = "Streams";
const MESSAGES: &str = "Messages";
const REPORT: &str = "Report";

/// A message has to have room for what it is recognised by.
const STAMP_BYTES_MAX: usize = 72;

pub(super) const BENCH_AFTER_HELP: &str = concat!(
    "\
Opens the streams, is silent for --idle, publishes, and checks by sequence numbers that every \
stream receives every message of its channel once and in order; one that misses some is told so \
by a stream-reset event, or they are lost in silence. Latencies count from the time at \
which a message was meant to be sent, so a publisher or server that stalls can't hide it. Exits \
with 1 if a stream did not open, was ended, or lost, repeated or reordered a message.

Each thread has a table of descriptors of its own, so ulimit -n bounds a thread, not the process; \
streams to a loopback address come from many source addresses, so ports do not run out. A server \
on this host needs more --workers than cores to hold more streams than one table: corecast \
--workers 8.

--compare-floor measures the same load on the least that could do the job (accept, a fixed \
response head, one send per stream and message), in rounds that take turns, and prints the ratio: \
that says more than a latency, which depends on the machine. Without --redis the floor has a \
broker of its own, as the server has.

Examples:
  corecast bench http://127.0.0.1:8080/events/bench --streams 10000 --rate 3 \\
      --server-pid $(pidof corecast)
  corecast bench 'http://127.0.0.1:8080/events/bench-",
    n!(),
    "' --streams 10000 --channels 100
  corecast bench 'http://127.0.0.1:8080/events/bench-",
    n!(),
    "' --streams 0 --channels 100 --messages 5000 --history 50
  corecast bench 'http://127.0.0.1:8080/events/bench-",
    n!(),
    "' --streams 10000 --channels 100 --resume --history 50
  corecast bench http://127.0.0.1:8080/events/bench --streams 10000 --burst 20 --compare-floor 5
  corecast bench http://127.0.0.1:8081/sub --publish-url http://127.0.0.1:8081/pub"
);
