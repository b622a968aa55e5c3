//! The prober: one thread that publishes as an application would, so that each link to Redis can
//! tell whether what is published reaches it.
//!
//! A connection that answers PING may hang on a node that nobody publishes to any more. So a link
//! that has received nothing for a while asks for a probe: the prober finds Redis anew, connects
//! anew, and publishes to the probe channels of all links. One round for all, at most one every few
//! seconds: a connection of its own for each costs little, and is what a publisher would get now.
//!
//! Workers and prober share numbers and a bell, all made before any of their threads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{info, warn};

use crate::bytes::resp::encode_command;
use crate::ground::ids::WorkerId;
use crate::ground::limits::{PROBE_FORBIDDEN_WAIT, SENTINEL_INTERVAL};
use crate::io::redis::{Client, ClientError, Location, Redis, locate};
use crate::io::wake::Wake;
use crate::state::counters::Counter;
use crate::sys::clock;

/// What links and prober tell each other.
#[derive(Debug)]
pub struct Probes {
    /// Rung by the links.
    bell: Wake,
    /// Tells our probes from those of other processes.
    token: u64,
    slots: Box<[Slot]>,
    /// Where Sentinels said that the master is: how often they were asked in the upper half, a hash
    /// of the answer in the lower.
    sighting: AtomicU64,
    /// Probes that were published, one for each link.
    pub sent: Counter,
    /// Rounds in which nothing could be published.
    pub failed: Counter,
}

/// One link's numbers.
#[derive(Debug, Default)]
struct Slot {
    /// The last probe that was asked for. Written by the link.
    asked: AtomicU64,
    /// The last one that was dealt with, and in the lowest two bits, how. Written by the prober.
    answered: AtomicU64,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Redis took it.
    Published,
    /// Nothing can be published now.
    Failed,
    /// Our user may not publish it.
    Forbidden,
}

/// One link's end.
#[derive(Clone, Debug)]
pub struct ProbeLine {
    probes: Arc<Probes>,
    place: usize,
}

impl Probes {
    /// # Errors
    /// What eventfd(2) answers.
    pub fn new(workers: usize) -> io::Result<Self> {
        Ok(Self {
            bell: Wake::new()?,
            token: fastrand::u64(..),
            slots: (0..workers).map(|_| Slot::default()).collect(),
            sighting: AtomicU64::new(0),
            sent: Counter::default(),
            failed: Counter::default(),
        })
    }

    /// Answers all that was asked, in place of a prober.
    #[cfg(test)]
    pub fn answer(&self, outcome: Outcome) {
        for slot in &self.slots {
            let asked = slot.asked.load(Ordering::Acquire);
            slot.answered.store(asked << 2 | outcome as u64, Ordering::Release);
        }
    }

    fn channel(&self, place: usize) -> String {
        format!("corecast:probe:{:016x}:{place}", self.token)
    }
}

impl ProbeLine {
    #[must_use]
    pub fn new(probes: Arc<Probes>, worker: WorkerId) -> Self {
        Self { probes, place: usize::from(worker.0) }
    }

    /// The channel on which the link's probes arrive.
    #[must_use]
    pub fn channel(&self) -> Vec<u8> {
        self.probes.channel(self.place).into_bytes()
    }

    /// Asks for a probe. Never waits.
    #[must_use]
    pub fn ask(&self) -> u64 {
        let Some(slot) = self.probes.slots.get(self.place) else { return 0 };
        let number = slot.asked.load(Ordering::Relaxed) + 1;
        slot.asked.store(number, Ordering::Release);
        self.probes.bell.ring();
        number
    }

    /// What became of the probe that was asked for as this number, once something did.
    #[must_use]
    pub fn outcome(&self, number: u64) -> Option<Outcome> {
        let answered = self.probes.slots.get(self.place)?.answered.load(Ordering::Acquire);
        (answered >> 2 >= number).then_some(match answered & 3 {
            0 => Outcome::Published,
            1 => Outcome::Failed,
            _ => Outcome::Forbidden,
        })
    }

    /// How often Sentinels were asked for the master, and a number for where it was.
    #[must_use]
    pub fn sighting(&self) -> (u32, u32) {
        let sighting = self.probes.sighting.load(Ordering::Acquire);
        (half(sighting >> 32), half(sighting))
    }
}

/// A number for a place, by which two sightings are compared.
#[must_use]
pub fn place_number(location: &Location) -> u32 {
    let mut hasher = DefaultHasher::new();
    location.hash(&mut hasher);
    half(hasher.finish())
}

/// The lower half.
fn half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
}

/// Serves for the life of the process.
///
/// # Errors
/// What poll(2) answers.
pub fn run(redis: &Redis, probes: &Probes) -> io::Result<()> {
    let mut prober = Prober { redis, probes, fails: false, forbidden: None };
    loop {
        if prober.wait()? {
            prober.round();
        }
        if redis.must_be_master() {
            prober.look_for_master();
        }
    }
}

struct Prober<'a> {
    redis: &'a Redis,
    probes: &'a Probes,
    /// The last round failed.
    fails: bool,
    /// When we were told that we may not publish.
    forbidden: Option<Instant>,
}

impl Prober<'_> {
    /// Waits for a link to ask, or for the time to look after the master. True if one has asked.
    fn wait(&self) -> io::Result<bool> {
        let mut source = [PollFd::from_borrowed_fd(self.probes.bell.as_fd(), PollFlags::IN)];
        let interval = Timespec::try_from(SENTINEL_INTERVAL).ok();
        let timeout = interval.filter(|_| self.redis.must_be_master());
        match rustix::event::poll(&mut source, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(false),
            Ok(_) => {
                self.probes.bell.hear();
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes a probe for each link, and tells each what became of it.
    fn round(&mut self) {
        let load = |slot: &Slot| slot.asked.load(Ordering::Acquire);
        let asked: Vec<u64> = self.probes.slots.iter().map(load).collect();
        let outcome = self.publish();
        for (slot, asked) in self.probes.slots.iter().zip(asked) {
            slot.answered.store(asked << 2 | outcome as u64, Ordering::Release);
        }
    }

    fn publish(&mut self) -> Outcome {
        let now = clock::now();
        if self.forbidden.is_some_and(|since| now.duration_since(since) < PROBE_FORBIDDEN_WAIT) {
            return Outcome::Forbidden;
        }
        let was_forbidden = self.forbidden.take().is_some();
        match self.try_to_publish() {
            Ok(()) => {
                self.probes.sent.add(self.probes.slots.len() as u64);
                if std::mem::take(&mut self.fails) {
                    info!("Redis takes what is published again");
                }
                Outcome::Published
            }
            Err(ClientError::Refused(error)) if error.starts_with("NOPERM") => {
                self.forbidden = Some(now);
                if !was_forbidden {
                    warn!(
                        "our user at Redis may not publish to corecast:probe:*, so links are \
                         proven by PING alone, which a node that lost its publishers answers too: \
                         {error}"
                    );
                }
                Outcome::Forbidden
            }
            Err(error) => {
                self.probes.failed.add(1);
                if !std::mem::replace(&mut self.fails, true) {
                    warn!("nothing can be published at Redis now: {error}");
                }
                Outcome::Failed
            }
        }
    }

    fn try_to_publish(&self) -> Result<(), ClientError> {
        let mut client = Client::open(self.redis)?;
        let mut commands = Vec::new();
        for place in 0..self.probes.slots.len() {
            let channel = self.probes.channel(place);
            encode_command(&[b"PUBLISH", channel.as_bytes(), b"probe"], &mut commands);
        }
        client.send(&commands)?;
        (0..self.probes.slots.len()).try_for_each(|_| client.reply(|_| ()))
    }

    /// Asks the Sentinels, so that links leave a master that was replaced before it is missed.
    fn look_for_master(&self) {
        // While none answers, links stay where they are.
        let Ok(location) = locate(self.redis) else { return };
        let count = (self.probes.sighting.load(Ordering::Relaxed) >> 32) + 1;
        let sighting = u64::from(half(count)) << 32 | u64::from(place_number(&location));
        self.probes.sighting.store(sighting, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_hears_of_its_own_probes_only_once_they_are_dealt_with() {
        let probes = Arc::new(Probes::new(2).unwrap());
        let lines = [0, 1].map(|worker| ProbeLine::new(Arc::clone(&probes), WorkerId(worker)));
        assert_ne!(lines[0].channel(), lines[1].channel());
        let number = lines[0].ask();
        assert_eq!(lines[0].outcome(number), None);
        for outcome in [Outcome::Published, Outcome::Failed, Outcome::Forbidden] {
            probes.answer(outcome);
            assert_eq!(lines[0].outcome(number), Some(outcome));
        }
        assert_eq!(lines[0].outcome(lines[0].ask()), None);
        assert_eq!(lines[1].outcome(1), None);
    }
}
