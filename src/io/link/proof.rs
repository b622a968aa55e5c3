//! Whether what is published reaches a link: by what arrives, by probes, or, where those are
//! forbidden, by PING.

use std::time::{Duration, Instant};

use crate::ground::limits::{PROBE_AFTER, PROBE_ARRIVAL, PROBE_DEADLINE, PROBE_RETRY};
use crate::io::prober::{Outcome, ProbeLine};

/// What is known about a link that is up.
#[derive(Debug)]
pub(super) struct Proof {
    line: ProbeLine,
    /// Where probes arrive.
    pub(super) channel: Vec<u8>,
    by: By,
    /// Invariant: true only if something has arrived.
    is_proven: bool,
    /// When something arrived last.
    last: Option<Instant>,
    probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Probe,
    Ping,
}

/// A probe that was asked for, and perhaps asked for again.
#[derive(Debug)]
struct Probe {
    number: u64,
    /// When it was asked for, the first time.
    since: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked,
    /// Nothing can be published; to be asked for again.
    Failed {
        until: Instant,
    },
    Published {
        since: Instant,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Ping,
    /// Nothing proves any more that the link delivers; nor that it does not.
    Unproven,
    /// A probe was published and did not arrive.
    Lost,
}

impl Proof {
    pub(super) fn new(line: ProbeLine) -> Self {
        let channel = line.channel();
        Self { line, channel, by: By::Probe, is_proven: false, last: None, probe: None }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// When something arrived last.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Everything that was asked has been answered: now the first proof.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.by == By::Probe {
            self.ask(now);
        }
    }

    /// Something that was published has arrived. True if that was not proven before.
    pub(super) fn arrived(&mut self, now: Instant) -> bool {
        self.last = Some(now);
        self.probe = None;
        !std::mem::replace(&mut self.is_proven, true)
    }

    /// Redis has answered a PING. True if it counts, and nothing was proven before.
    pub(super) fn ponged(&mut self, now: Instant) -> bool {
        self.by == By::Ping && self.arrived(now)
    }

    /// Probes can't reach us.
    pub(super) fn forbid(&mut self) {
        self.by = By::Ping;
        self.probe = None;
    }

    pub(super) fn on_tick(&mut self, now: Instant) -> Step {
        let is_silent = |last: Instant| now.duration_since(last) >= PROBE_AFTER;
        match (self.by, &mut self.probe) {
            (By::Ping, _) if self.last.is_none_or(is_silent) => Step::Ping,
            (By::Ping, _) => Step::Nothing,
            (By::Probe, None) => {
                if self.last.is_some_and(is_silent) {
                    self.ask(now);
                }
                Step::Nothing
            }
            (By::Probe, Some(probe)) => {
                if probe.proceed(now, &self.line) {
                    self.forbid();
                    return Step::Ping;
                }
                match probe.state {
                    State::Published { since } if is_over(now, since, PROBE_ARRIVAL) => Step::Lost,
                    _ if self.is_proven && is_over(now, probe.since, PROBE_DEADLINE) => {
                        self.is_proven = false;
                        Step::Unproven
                    }
                    _ => Step::Nothing,
                }
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        self.probe = Some(Probe { number: self.line.ask(), since: now, state: State::Asked });
    }
}

impl Probe {
    /// Sees what has become of it. True if it is forbidden.
    fn proceed(&mut self, now: Instant, line: &ProbeLine) -> bool {
        match self.state {
            State::Asked => match line.outcome(self.number) {
                Some(Outcome::Published) => self.state = State::Published { since: now },
                Some(Outcome::Failed) => self.state = State::Failed { until: now + PROBE_RETRY },
                Some(Outcome::Forbidden) => return true,
                None => {}
            },
            State::Failed { until } if now >= until => {
                self.number = line.ask();
                self.state = State::Asked;
            }
            State::Failed { .. } | State::Published { .. } => {}
        }
        false
    }
}

fn is_over(now: Instant, since: Instant, time: Duration) -> bool {
    now.duration_since(since) >= time
}
