//! What a connection holds while its stream is not in the present yet: where it begins, and what is
//! owed to it. [`streams`](super::streams) brings it there.

use crate::bytes::event_stream::ResetReason;
use crate::bytes::history::EventId;
use crate::ground::ids::ChannelId;
use crate::state::backlog::Backlog;

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// After this id, the last that the client had.
    After(EventId),
    /// With so many of the newest events.
    Last(usize),
    /// The client was here before, and what it had is not known.
    Unknown,
    /// The stream was opened before anything was heard of Redis.
    Unheard,
}

/// A stream that is not in the present yet.
#[derive(Debug)]
pub struct CatchUp {
    pub(super) channels: Vec<ChannelId>,
    pub(super) start: Start,
    /// Response head and first fields; empty once sent.
    pub(super) head: Vec<u8>,
    /// Bytes that the socket did not take.
    pub unsent: Option<Backlog>,
    /// Channels of which something is missing.
    pub(super) resets: Vec<Reset>,
    /// For a start with the newest events: what was before them is not missed.
    pub(super) since: EventId,
    /// For such a start: the worker's position when the head was sent early. The client misses what
    /// comes after that, however much it is.
    pub(super) opened: Option<EventId>,
    /// How often Redis has to have told its newest id before an id beyond it is none of ours.
    pub(super) clock_needed: u64,
    pub(super) has_read: bool,
}

/// A channel of which something is missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    pub(super) channel: ChannelId,
    pub(super) reason: ResetReason,
    /// What is missing was published up to here. The client is told before it gets anything later:
    /// its last event ID must not pass by what it was not told of. `None`: nothing of the channel
    /// is kept, and it is told when the stream joins; should it come back before, it is told then.
    pub(super) until: Option<EventId>,
    pub(super) is_told: bool,
}
