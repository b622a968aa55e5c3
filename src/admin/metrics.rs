//! The counters of all workers as Prometheus reads them (text exposition format 0.0.4).

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::BrokerCounters;
use crate::io::prober::Probes;
use crate::state::counters::{CloseReason, Counter, Counters, LossReason};
use crate::sys::clock;

/// Appends all metrics of the workers.
pub fn render(workers: &[Arc<Counters>], restarts: u64, out: &mut String) {
    let all = |of: fn(&Counters) -> &Counter| total(workers, of);
    let gauges: [(&str, &str, u64); 3] = [
        ("connections", "Connections, whatever they are doing.", all(|c| &c.connections)),
        ("streams", "Connections that receive events.", all(|c| &c.streams)),
        ("subscriptions", "Subscriptions that stand, of all workers.", all(|c| &c.subscriptions)),
    ];
    for (name, help, value) in gauges {
        metric(out, name, "gauge", help);
        line(out, name, "", value);
    }
    // Each worker knows of all that it needs.
    let mixed = workers.iter().map(|worker| worker.mixed_channels.get()).max().unwrap_or(0);
    let help = "Channels with events beside those that are kept: streams that come back are reset.";
    metric(out, "mixed_channels", "gauge", help);
    line(out, "mixed_channels", "", mixed);
    let counters: [(&str, &str, u64); 20] = [
        ("connections_accepted", "Connections accepted.", all(|c| &c.accepted)),
        ("events_received", "Events taken in, of all workers.", all(|c| &c.received)),
        ("deliveries", "Events handed to streams, once per stream.", all(|c| &c.deliveries)),
        ("delivered_bytes", "Bytes of those.", all(|c| &c.delivered_bytes)),
        ("heartbeats", "Heartbeats sent.", all(|c| &c.heartbeats)),
        ("undecodable", "Payloads that their format can't read.", all(|c| &c.undecodable)),
        ("oversize", "Messages over --max-event-bytes.", all(|c| &c.oversize)),
        ("overload", "Events given up over --max-intake.", all(|c| &c.overload)),
        ("resets", "stream-reset events, once per channel.", all(|c| &c.resets)),
        ("accept_failures", "Connections the kernel had no room for.", all(|c| &c.accept_failures)),
        ("resubscriptions", "Made because a link was lost.", all(|c| &c.resubscriptions)),
        ("probes_lost", "Probes published that did not arrive.", all(|c| &c.probes_lost)),
        ("gaps", "Events that did not arrive on a link that stood.", all(|c| &c.gaps)),
        ("repaired", "Events passed on after a lost link.", all(|c| &c.repaired)),
        ("plain", "Events without history where it is kept.", all(|c| &c.plain)),
        ("history_reads", "Readings of history that Redis was asked.", all(|c| &c.history_reads)),
        ("history_looks", "Looks of streams for what they missed.", all(|c| &c.looks)),
        ("history_over_bound", "Channels not made up for.", all(|c| &c.history_over_bound)),
        ("forged", "What looked like a kept event and was none.", all(|c| &c.forged)),
        ("worker_restarts", "Workers that failed and were started again.", restarts),
    ];
    for (name, help, value) in counters {
        let name = format!("{name}_total");
        metric(out, &name, "counter", help);
        line(out, &name, "", value);
    }
    metric(out, "closes_total", "counter", "Connections ended, by reason.");
    for reason in CloseReason::ALL {
        let closed = workers.iter().map(|worker| worker.closed(reason)).sum();
        line(out, "closes_total", &format!("{{reason=\"{}\"}}", reason.as_str()), closed);
    }
    render_links(workers, out);
}

/// Appends the metrics of the links to Redis.
fn render_links(workers: &[Arc<Counters>], out: &mut String) {
    metric(out, "link_losses_total", "counter", "Links to Redis that were lost, by reason.");
    for reason in LossReason::ALL {
        let lost = workers.iter().map(|worker| worker.links_lost(reason)).sum();
        line(out, "link_losses_total", &format!("{{reason=\"{}\"}}", reason.as_str()), lost);
    }
    let help = "0 down, 1 connecting, 2 greeting, 3 up but unproven, 4 proven.";
    metric(out, "link_stage", "gauge", help);
    for (number, worker) in workers.iter().enumerate() {
        line(out, "link_stage", &format!("{{worker=\"{number}\"}}"), worker.link_stage.get());
    }
    let help = "Seconds since something published arrived; NaN while nothing has.";
    metric(out, "link_proof_age_seconds", "gauge", help);
    let now_ms = clock::monotonic_ns() / 1_000_000;
    for (number, worker) in workers.iter().enumerate() {
        let age = match worker.proven_at_ms.get() {
            0 => f64::NAN,
            at_ms => Duration::from_millis(now_ms.saturating_sub(at_ms)).as_secs_f64(),
        };
        let _ = writeln!(out, "corecast_link_proof_age_seconds{{worker=\"{number}\"}} {age}");
    }
    let sum = |of: fn(&Counters) -> &Counter| total(workers, of);
    metric(out, "resumes_total", "counter", "Streams that came back, by where the rest was had.");
    for (from, count) in [
        ("memory", sum(|c| &c.resumed_from_memory)),
        ("redis", sum(|c| &c.resumed_from_redis)),
        ("reset", sum(|c| &c.resumed_with_reset)),
    ] {
        line(out, "resumes_total", &format!("{{from=\"{from}\"}}"), count);
    }
    metric(out, "link_up", "gauge", "1 while the worker's link to Redis stands and is proven.");
    for (number, worker) in workers.iter().enumerate() {
        line(out, "link_up", &format!("{{worker=\"{number}\"}}"), worker.link_ready.get());
    }
}

/// Appends the metrics of the embedded broker.
pub fn render_broker(broker: &BrokerCounters, out: &mut String) {
    let gauges: [(&str, &str, &Counter); 3] = [
        ("clients", "Clients of the embedded broker, workers included.", &broker.clients),
        ("history_channels", "Channels with a history.", &broker.history_channels),
        ("history_bytes", "Bytes of history.", &broker.history_bytes),
    ];
    for (name, help, gauge) in gauges {
        let name = format!("broker_{name}");
        metric(out, &name, "gauge", help);
        line(out, &name, "", gauge.get());
    }
    let counters: [(&str, &str, &Counter); 9] = [
        ("accepted", "Clients accepted.", &broker.accepted),
        ("refused", "Clients refused because there were too many.", &broker.refused),
        ("commands", "Commands of clients.", &broker.commands),
        ("published", "Messages published.", &broker.published),
        ("delivered", "Messages handed to subscribers, once each.", &broker.delivered),
        ("authentication_failures", "Wrong passwords.", &broker.authentication_failures),
        ("protocol_errors", "Clients closed for not speaking RESP.", &broker.protocol_errors),
        ("overflows", "Clients closed for not reading.", &broker.overflows),
        ("history_evicted", "Events of history that made room.", &broker.history_evicted),
    ];
    for (name, help, counter) in counters {
        let name = format!("broker_{name}_total");
        metric(out, &name, "counter", help);
        line(out, &name, "", counter.get());
    }
}

/// Appends the metrics of the prober.
pub fn render_probes(probes: &Probes, out: &mut String) {
    metric(out, "probes_sent_total", "counter", "Probes published, once per link.");
    line(out, "probes_sent_total", "", probes.sent.get());
    let help = "Rounds of probes of which Redis took none.";
    metric(out, "probe_failures_total", "counter", help);
    line(out, "probe_failures_total", "", probes.failed.get());
}

/// One counter of all workers together.
fn total(workers: &[Arc<Counters>], of: fn(&Counters) -> &Counter) -> u64 {
    workers.iter().map(|worker| of(worker).get()).sum()
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "# HELP corecast_{name} {help}\n# TYPE corecast_{name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "corecast_{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_workers_are_added_up() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        workers[0].connections.set(3);
        workers[1].connections.set(4);
        workers[1].link_ready.set(1);
        workers[1].close(CloseReason::SlowConsumer);
        let mut text = String::new();
        render(&workers, 2, &mut text);
        for expected in [
            "\ncorecast_connections 7\n",
            "\ncorecast_closes_total{reason=\"slow-consumer\"} 1\n",
            "\ncorecast_closes_total{reason=\"drained\"} 0\n",
            "\ncorecast_link_up{worker=\"0\"} 0\n",
            "\ncorecast_link_up{worker=\"1\"} 1\n",
            "\ncorecast_worker_restarts_total 2\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn every_sample_has_its_help_and_type() {
        let mut text = String::new();
        render(&[Arc::new(Counters::default())], 0, &mut text);
        render_broker(&BrokerCounters::default(), &mut text);
        render_probes(&Probes::new(1).unwrap(), &mut text);
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let name = sample.split([' ', '{']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }
}
