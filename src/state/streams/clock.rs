//! What Redis is asked of its clock, and what it tells.

use crate::bytes::history::{Clock, EventId};
use crate::state::deadlines::Tick;

/// Ticks after which what Redis could not tell for the moment is asked for again.
pub const DELAYED_TICKS: u32 = 10;

/// Ticks for which a chain that somebody has forged proves nothing.
pub(super) const DISTRUST_TICKS: u32 = 100;

/// The questions for Redis' newest id.
#[derive(Debug, Default)]
pub(super) struct ClockState {
    pub(super) wish: Option<ClockWish>,
    /// How often it was asked for, and how often answered.
    pub(super) asked: u64,
    pub(super) told: u64,
    pub(super) told_at: Tick,
    /// When it is asked for again, after Redis could not tell it, and what.
    pub(super) due: Option<(Tick, ClockWish)>,
}

/// What Redis is to be asked about its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClockWish {
    Newest,
    /// And whether it has evicted keys since it was written.
    WithEvictions,
}

/// What Redis told.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub clock: Clock,
    /// The time of day there, in milliseconds since 1970.
    pub now_ms: u64,
    /// Channels with events beside the kept ones: when each was noted, and its name.
    pub plain: &'a [(EventId, &'a [u8])],
    pub wish: ClockWish,
    /// It is the first that this link tells.
    pub is_first: bool,
}

/// What was found out by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Redis has lost events that it had.
    pub has_lost: bool,
    /// Events have arrived that it never gave an id to, on so many channels.
    pub forged: usize,
}
