//! The server beside the floor: rounds in turn, so that what else the machine does meets both.

use std::fmt;

use serde_json::{Value, json};

use super::floor::Floor;
use super::observer;
use super::options::{BenchOptions, Comparison, Load, Sink};
use super::progress::Progress;
use super::report::{Figure, Report};
use super::round::{self, BenchError, Subject};
use super::statistics::{Ratio, Spread};
use super::target::Template;
use crate::sys::clock;

/// The reports of both, round by round.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) server: Vec<Report>,
    pub(super) floor: Vec<Report>,
}

/// Runs the rounds; each has a floor of its own, and the server and the floor take turns in being
/// first.
pub(super) fn run(
    options: &BenchOptions,
    comparison: &Comparison,
    server: &Subject,
    progress: &mut Progress,
) -> Result<Compared, BenchError> {
    let mut compared = Compared::default();
    for number in 0..comparison.rounds {
        if number > 0 {
            // What a server does to see the streams of the last round off is not this round's.
            clock::pause(options.idle);
        }
        if number % 2 == 0 {
            compared.server.push(round::run(options, server, progress)?);
        }
        compared.floor.push(run_floor(options, comparison, server, progress)?);
        if number % 2 == 1 {
            compared.server.push(round::run(options, server, progress)?);
        }
    }
    Ok(compared)
}

fn run_floor(
    options: &BenchOptions,
    comparison: &Comparison,
    server: &Subject,
    progress: &mut Progress,
) -> Result<Report, BenchError> {
    let floor = Floor::start(comparison, FLOOR_CHANNEL).map_err(BenchError::Floor)?;
    let mut subject = server.clone();
    subject.target = server.target.at(floor.streams);
    subject.pids = if server.pids.is_empty() { Vec::new() } else { vec![floor.pid()] };
    if let Load::Publish(publication) = &mut subject.load {
        let channel = Template::new(FLOOR_CHANNEL);
        publication.sink = Sink::Redis { server: floor.redis.clone(), channel, history: None };
    }
    round::run(options, &subject, progress)
}

/// A channel of its own: on a Redis that both use, the server does not hear it.
const FLOOR_CHANNEL: &str = "corecast-bench-floor";

/// A figure of both.
struct Row {
    figure: Figure,
    server: Spread,
    floor: Spread,
    ratio: Ratio,
}

impl Compared {
    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.server.iter().chain(&self.floor)
    }

    fn rows(&self) -> Vec<Row> {
        let Some(first) = self.server.first() else { return Vec::new() };
        let row = |figure: Figure| {
            let values = |reports: &[Report]| -> Vec<f64> {
                let figures = reports.iter().flat_map(Report::figures);
                figures.filter(|other| other.name == figure.name).map(|one| one.value).collect()
            };
            let (server, floor) = (values(&self.server), values(&self.floor));
            Row {
                figure,
                server: Spread::of(&server),
                floor: Spread::of(&floor),
                ratio: Ratio::of(&server, &floor),
            }
        };
        first.figures().into_iter().map(row).collect()
    }

    /// Bytes per idle stream, of the server and of the floor, in the first round: a server that has
    /// held streams before has memory left from them.
    fn memory(&self) -> Option<(f64, f64)> {
        let bytes = |reports: &[Report]| reports.first()?.bytes_per_idle_stream();
        Some((bytes(&self.server)?, bytes(&self.floor)?))
    }

    pub(super) fn to_json(&self) -> Value {
        let spread = |spread: Spread| {
            let Spread { median, min, max } = spread;
            json!({ "median": median, "min": min, "max": max })
        };
        let figures: Vec<Value> = self
            .rows()
            .iter()
            .map(|row| {
                let ratio = row.ratio;
                json!({
                    "name": row.figure.name,
                    "unit": row.figure.unit,
                    "server": spread(row.server),
                    "floor": spread(row.floor),
                    "ratio": { "median": ratio.median, "low": ratio.low, "high": ratio.high },
                })
            })
            .collect();
        let reports = |reports: &[Report]| reports.iter().map(Report::to_json).collect::<Vec<_>>();
        json!({
            "ok": self.reports().all(|report| report.tally.is_flawless()),
            "host": observer::host(),
            "rounds": self.server.len(),
            "figures": figures,
            "bytes_per_idle_stream": self.memory().map(|(server, floor)| {
                json!({ "server": server, "floor": floor })
            }),
            "server": reports(&self.server),
            "floor": reports(&self.floor),
        })
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.server.len();
        writeln!(f, "{}", observer::host())?;
        writeln!(
            f,
            "{rounds} rounds: median (min to max), ratio of server to floor (95 % interval)"
        )?;
        for row in self.rows() {
            let name = format!("{}, {}", row.figure.name, row.figure.unit);
            let (server, floor) = (shown(row.server), shown(row.floor));
            let ratio = shown_ratio(row.ratio);
            writeln!(f, "  {name:<28} server {server:<30} floor {floor:<30} ratio {ratio}")?;
        }
        match self.memory() {
            Some((server, floor)) => writeln!(
                f,
                "  memory per idle stream, in the first round: server {server:.0} B, floor \
                 {floor:.0} B"
            ),
            None => Ok(()),
        }
    }
}

fn shown_ratio(ratio: Ratio) -> String {
    let Ratio { median, low, high } = ratio;
    if [median, low, high].iter().all(|value| value.is_finite()) {
        format!("{median:.2} ({low:.2} to {high:.2})")
    } else {
        "unknown: too little to measure".to_owned()
    }
}

fn shown(spread: Spread) -> String {
    let digits = if spread.median.abs() < 100.0 { 2 } else { 0 };
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
}
