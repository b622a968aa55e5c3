//! The result of a test: figures, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::observer::{self, Usage};
use super::options::Load;
use super::publisher::Published;
use super::score::Tally;
use crate::bytes::quantity::count;

/// What a test has found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) url: String,
    /// Streams that were wanted.
    pub(super) streams: u32,
    pub(super) threads: usize,
    /// Time until the last stream had opened or failed.
    pub(super) open_ns: u64,
    /// If the streams came back to history.
    pub(super) resumption: Option<Resumption>,
    pub(super) load: Load,
    pub(super) published: Option<Published>,
    pub(super) server: Option<ServerUsage>,
    pub(super) tally: Tally,
    pub(super) warnings: Vec<String>,
}

/// How streams that came back got what they had missed.
#[derive(Debug)]
pub(super) struct Resumption {
    /// Events that all of them had missed together.
    pub(super) events: u64,
    /// From the first packet until the last stream had them.
    pub(super) time_ns: u64,
    /// What Redis has executed meanwhile, by command.
    pub(super) calls: BTreeMap<String, u64>,
}

/// The server's processes at several moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUsage {
    pub(super) before: Usage,
    /// As soon as the last stream was open.
    pub(super) opened: Usage,
    /// After they have been idle for a while.
    pub(super) idle: Usage,
    pub(super) end: Usage,
    pub(super) later: Later,
}

/// What the server's processes come to when all messages are received.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Later {
    /// The most memory so far.
    pub(super) peak_bytes: u64,
    /// After some silence.
    pub(super) settled: Option<Usage>,
    /// After only some streams have stayed.
    pub(super) kept: Option<Usage>,
    /// The time in which the server has ended all streams, if it was told to, and if it has.
    pub(super) drained_ns: Option<u64>,
}

/// What the server has spent on each of something, in microseconds of a core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) user_us: f64,
    pub(super) system_us: f64,
    /// What one tick of the kernel's clock makes of it.
    pub(super) resolution_us: f64,
}

/// A figure that may be compared; less is better, unless it is a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
}

impl Report {
    pub(super) fn opened_per_second(&self) -> f64 {
        per_second(self.tally.opened, self.open_ns)
    }

    /// From the moment the first message was due, or received where nothing was published.
    pub(super) fn deliveries_per_second(&self) -> f64 {
        let published = self.published.filter(|_| self.resumption.is_none());
        let start_ns = published.map(|published| published.start_ns).or(self.tally.first_ns);
        let (Some(start_ns), Some(last_ns)) = (start_ns, self.tally.last_ns) else { return 0.0 };
        per_second(self.tally.delivered, last_ns.saturating_sub(start_ns))
    }

    pub(super) fn bytes_per_idle_stream(&self) -> Option<f64> {
        let server = self.server?;
        let grown = server.idle.resident_bytes as f64 - server.before.resident_bytes as f64;
        Some(grown / self.tally.opened.max(1) as f64)
    }

    pub(super) fn cost_per_stream(&self) -> Option<Cost> {
        let server = self.server?;
        Some(Cost::of(server.before, server.opened, self.tally.opened))
    }

    pub(super) fn cost_per_delivery(&self) -> Option<Cost> {
        let server = self.server?;
        let delivered = match self.resumption {
            // Everything else was delivered before.
            Some(_) => self.tally.closing.len(),
            None => self.tally.delivered,
        };
        Some(Cost::of(server.idle, server.end, delivered))
    }

    /// The figures that a comparison is about.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let figure = |name, unit, value| Figure { name, unit, value };
        let latency = |quantile| milliseconds(&self.tally.latency, quantile);
        let mut figures = vec![
            figure("latency p50", "ms", latency(0.5)),
            figure("latency p99", "ms", latency(0.99)),
            figure("latency max", "ms", self.tally.latency.max() as f64 / 1000.0),
            figure("to the last stream", "ms", self.last_receiver_ms().0),
            figure("deliveries", "/s", self.deliveries_per_second()),
            figure("streams opened", "/s", self.opened_per_second()),
        ];
        if let (Some(stream), Some(delivery)) = (self.cost_per_stream(), self.cost_per_delivery()) {
            figures.push(figure("user time per delivery", "µs", delivery.user_us));
            figures.push(figure("system time per delivery", "µs", delivery.system_us));
            figures.push(figure("time per delivery", "µs", delivery.all_us()));
            figures.push(figure("time per stream opened", "µs", stream.all_us()));
        }
        figures
    }

    /// The time until the last stream had received each message, if they are few.
    fn each_ms(&self) -> Option<Vec<f64>> {
        let each = &self.tally.slowest;
        let milliseconds = |latency_us: &u32| f64::from(*latency_us) / 1000.0;
        (each.len() <= EACH_MAX).then(|| each.iter().map(milliseconds).collect())
    }

    /// Median and maximum, over the messages, of the time until the last stream had received one.
    fn last_receiver_ms(&self) -> (f64, f64) {
        let mut slowest = self.tally.slowest.clone();
        slowest.retain(|latency_us| *latency_us > 0);
        slowest.sort_unstable();
        let median = slowest.get(slowest.len() / 2).copied().unwrap_or(0);
        let max = slowest.last().copied().unwrap_or(0);
        (f64::from(median) / 1000.0, f64::from(max) / 1000.0)
    }

    /// What was wrong, a line each.
    pub(super) fn faults(&self) -> Vec<String> {
        let tally = &self.tally;
        let mut faults: Vec<String> = tally
            .failures
            .iter()
            .map(|(failure, number)| {
                format!("{} did not open: {failure}", count(*number, "stream"))
            })
            .collect();
        if tally.ended > 0 {
            faults.push(format!("{} ended by the server", count(tally.ended, "stream")));
        }
        if tally.told > 0 {
            let (told, streams) = (count(tally.told, "message"), tally.told_losers);
            let streams = count(streams, "stream");
            faults.push(format!("{told} lost, and {streams} told so by a stream-reset"));
        }
        if tally.lost > 0 {
            let examples: Vec<String> = tally
                .losses
                .iter()
                .map(|loss| {
                    let (stream, messages, first) = (loss.stream, loss.messages, loss.first);
                    format!("stream {stream} lost {messages} from message {first} on")
                })
                .collect();
            let more = if tally.losers > 3 { ", …" } else { "" };
            faults.push(format!(
                "{} lost by {}: {}{more}",
                count(tally.lost, "message"),
                count(tally.losers, "stream"),
                examples.join(", ")
            ));
        }
        if tally.duplicated > 0 {
            faults.push(format!("{} received again", count(tally.duplicated, "message")));
        }
        if tally.reordered > 0 {
            faults.push(format!("{} received out of order", count(tally.reordered, "message")));
        }
        faults
    }

    pub(super) fn to_json(&self) -> Value {
        let tally = &self.tally;
        let failures: serde_json::Map<String, Value> =
            tally.failures.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
        let (last_median, last_max) = self.last_receiver_ms();
        json!({
            "url": self.url,
            "host": observer::host(),
            "ok": tally.is_flawless(),
            "streams": {
                "wanted": self.streams,
                "opened": tally.opened,
                "failed": tally.failed(),
                "failures": failures,
                "ended": tally.ended,
                "dismissed": tally.dismissed,
                "seconds": self.open_ns as f64 / 1e9,
                "per_second": self.opened_per_second(),
                "opening_ms": quantiles(&tally.opening),
            },
            "resumption": self.resumption.as_ref().map(|resumption| json!({
                "events": resumption.events,
                "seconds": resumption.time_ns as f64 / 1e9,
                "redis_calls": resumption.calls,
            })),
            "messages": self.messages_json(),
            "deliveries": {
                "expected": tally.expected,
                "received": tally.delivered,
                "lost": tally.lost,
                "losers": tally.losers,
                "told": tally.told,
                "told_losers": tally.told_losers,
                "duplicated": tally.duplicated,
                "reordered": tally.reordered,
                "resets": tally.resets.values().sum::<u64>(),
                "reset_reasons": tally.resets,
                "foreign": tally.foreign,
                "per_second": self.deliveries_per_second(),
            },
            "latency_ms": quantiles(&tally.latency),
            "last_stream_ms": { "median": last_median, "max": last_max, "each": self.each_ms() },
            "closing": {
                "received": tally.closing.len(),
                "latency_ms": quantiles(&tally.closing),
            },
            "server": self.server_json(),
            "generator": { "threads": self.threads, "busy": tally.busy },
            "warnings": self.warnings,
        })
    }

    fn messages_json(&self) -> Value {
        match (&self.load, self.published) {
            (Load::Publish(publication), Some(published)) => json!({
                "published": publication.messages,
                "bytes": publication.bytes,
                "late_ms": published.late_ns as f64 / 1e6,
                "seconds": published.end_ns.saturating_sub(published.start_ns) as f64 / 1e9,
            }),
            _ => Value::Null,
        }
    }

    fn server_json(&self) -> Value {
        let (Some(server), Some(stream), Some(delivery)) =
            (self.server, self.cost_per_stream(), self.cost_per_delivery())
        else {
            return Value::Null;
        };
        json!({
            "resident_bytes": {
                "before": server.before.resident_bytes,
                "idle": server.idle.resident_bytes,
                "end": server.end.resident_bytes,
                "peak": server.later.peak_bytes,
                "settled": server.later.settled.map(|usage| usage.resident_bytes),
                "kept": server.later.kept.map(|usage| usage.resident_bytes),
            },
            "drain_seconds": server.later.drained_ns.map(|time_ns| time_ns as f64 / 1e9),
            "bytes_per_idle_stream": self.bytes_per_idle_stream(),
            "per_stream_us": stream.to_json(),
            "per_delivery_us": delivery.to_json(),
        })
    }
}

impl Cost {
    fn of(before: Usage, after: Usage, count: u64) -> Self {
        let count = count.max(1) as f64;
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / count;
        Self {
            user_us: each(after.user.saturating_sub(before.user)),
            system_us: each(after.system.saturating_sub(before.system)),
            resolution_us: each(Usage::resolution()),
        }
    }

    fn all_us(self) -> f64 {
        self.user_us + self.system_us
    }

    fn to_json(self) -> Value {
        json!({
            "user": self.user_us,
            "system": self.system_us,
            "resolution": self.resolution_us,
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user_us, system_us, resolution_us } = self;
        write!(f, "user {user_us:.2} µs, system {system_us:.2} µs (± {resolution_us:.2})")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        writeln!(f, "{} ({})", self.url, observer::host())?;
        writeln!(
            f,
            "  streams     {} of {} open after {:.2} s ({:.0}/s), {} failed, {} ended",
            tally.opened,
            self.streams,
            self.open_ns as f64 / 1e9,
            self.opened_per_second(),
            tally.failed(),
            tally.ended
        )?;
        writeln!(f, "  opening     {}", Quantiles(&tally.opening))?;
        if let Some(Resumption { events, time_ns, calls }) = &self.resumption {
            let seconds = *time_ns as f64 / 1e9;
            let calls: Vec<String> =
                calls.iter().map(|(command, count)| format!("{count} x {command}")).collect();
            writeln!(f, "  resumed     {events} events after {seconds:.2} s")?;
            writeln!(f, "  Redis did   {}", calls.join(", "))?;
        }
        if let (Load::Publish(publication), Some(published)) = (&self.load, self.published) {
            let seconds = published.end_ns.saturating_sub(published.start_ns) as f64 / 1e9;
            let (messages, bytes) = (publication.messages, publication.bytes);
            let late = published.late_ns as f64 / 1e6;
            writeln!(
                f,
                "  messages    {messages} of {bytes} bytes in {seconds:.2} s, at most {late:.2} \
                 ms late"
            )?;
        }
        write!(f, "  received    {}", tally.delivered)?;
        if self.published.is_some() {
            write!(f, " of {}", tally.expected)?;
        }
        writeln!(
            f,
            " ({:.0}/s), {} lost, {} lost and told, {} again, {} out of order, {} foreign",
            self.deliveries_per_second(),
            tally.lost,
            tally.told,
            tally.duplicated,
            tally.reordered,
            tally.foreign
        )?;
        for (reason, number) in &tally.resets {
            writeln!(f, "  reset       {number} x {reason}")?;
        }
        let (median, max) = self.last_receiver_ms();
        writeln!(f, "  latency     {}", Quantiles(&tally.latency))?;
        if !tally.closing.is_empty() {
            writeln!(f, "  closing     {}", Quantiles(&tally.closing))?;
        }
        writeln!(f, "  last stream median {median:.2} ms, max {max:.2} ms per message")?;
        self.show_server(f)?;
        writeln!(
            f,
            "  generator   {} threads, the busiest on a core {:.0} % of the time",
            self.threads,
            100.0 * tally.busy
        )
    }
}

impl Report {
    fn show_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(server), Some(stream), Some(delivery), Some(bytes)) = (
            self.server,
            self.cost_per_stream(),
            self.cost_per_delivery(),
            self.bytes_per_idle_stream(),
        ) else {
            return Ok(());
        };
        let mebibytes = |usage: Usage| usage.resident_bytes as f64 / 1_048_576.0;
        writeln!(
            f,
            "  memory      {:.1} MiB before, {:.1} MiB idle ({bytes:.0} B per stream), {:.1} MiB \
             at the end",
            mebibytes(server.before),
            mebibytes(server.idle),
            mebibytes(server.end)
        )?;
        let Later { peak_bytes, settled, kept, drained_ns } = server.later;
        let peak = peak_bytes as f64 / 1_048_576.0;
        write!(f, "              {peak:.1} MiB at most")?;
        if let Some(settled) = settled {
            write!(f, ", {:.1} MiB after a while", mebibytes(settled))?;
        }
        if let Some(kept) = kept {
            write!(f, ", {:.1} MiB for those that stayed", mebibytes(kept))?;
        }
        writeln!(f)?;
        if let Some(drained_ns) = drained_ns {
            let seconds = drained_ns as f64 / 1e9;
            let ended = self.tally.dismissed;
            writeln!(f, "  stopping    {ended} streams ended in {seconds:.2} s")?;
        }
        writeln!(f, "  per stream  {stream}")?;
        writeln!(f, "  per message and stream  {delivery}")
    }
}

/// The quantiles that are shown, of times in microseconds.
struct Quantiles<'a>(&'a Histogram<u64>);

impl fmt::Display for Quantiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, quantile) in QUANTILES {
            write!(f, "{name} {:.2} ms  ", milliseconds(self.0, quantile))?;
        }
        write!(f, "max {:.2} ms", self.0.max() as f64 / 1000.0)
    }
}

fn quantiles(times: &Histogram<u64>) -> Value {
    let mut values: serde_json::Map<String, Value> = QUANTILES
        .iter()
        .map(|(name, quantile)| ((*name).to_owned(), json!(milliseconds(times, *quantile))))
        .collect();
    values.insert("max".to_owned(), json!(times.max() as f64 / 1000.0));
    Value::Object(values)
}

fn milliseconds(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

fn per_second(count: u64, time_ns: u64) -> f64 {
    count as f64 * 1e9 / time_ns.max(1) as f64
}

/// Messages of a test that are told one by one.
const EACH_MAX: usize = 1000;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
