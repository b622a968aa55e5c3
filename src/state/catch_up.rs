//! What a connection holds while its stream is on its way to the present.

use std::rc::Rc;

use crate::bytes::event_stream::ResetReason;
use crate::bytes::history::EventId;
use crate::ground::ids::ChannelId;
use crate::state::backlog::Backlog;
use crate::state::history_page::{Account, HistoryPage};
use crate::state::recent::Index;

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// After this id, the last that the client had.
    After(EventId),
    /// With so many of the newest events.
    Last(usize),
    /// With the oldest event that is kept.
    All,
    /// With what was published so many milliseconds ago.
    Ago(u64),
    /// With what was published at this time, in milliseconds since 1970.
    At(u64),
    /// The client was here before, and what it had is not known.
    Unknown,
    /// The stream was opened before anything was heard of Redis.
    Unheard,
}

/// A stream that is not in the present yet.
#[derive(Debug)]
pub struct CatchUp {
    pub places: Vec<Place>,
    pub start: Start,
    pub first: First,
    /// Everything up to here was sent, or the client told of it; `None` until that is known.
    pub cursor: Option<EventId>,
    /// For a start with the newest events: the worker's position when the head was sent early. The
    /// client misses what comes after that, however much it is.
    pub opened: Option<EventId>,
    /// For a start with all, or the newest events: where the worker was when it began. What was
    /// lost before that is none of the client's.
    pub begun_at: EventId,
    /// How often Redis has to have told its newest id before an id beyond it is none of ours.
    pub clock_needed: Option<u64>,
    /// Bytes that the socket did not take.
    pub unsent: Option<Backlog>,
    /// Counts its waits, so that the end of one is not taken for that of another.
    pub ticket: u32,
    /// What it still waits for.
    pub awaited: usize,
    /// It stands in the list of those who have something to do.
    pub is_ready: bool,
    /// It may hold pages while it waits.
    pub is_admitted: bool,
    /// Room for its pages, from when it was admitted until it waits for them.
    pub set_aside: Option<Account>,
    /// Bytes of what it waits for in line.
    pub wanted: usize,
    pub has_read: bool,
    pub has_looked: bool,
    /// Its head was sent in an earlier step; events were.
    pub is_begun: bool,
    pub has_had_events: bool,
    /// Events of this step.
    pub gathered: usize,
}

/// The first bytes of a stream.
#[derive(Debug)]
pub enum First {
    /// Response head, and the reconnection time of the first block.
    Unsent {
        head: Vec<u8>,
        retry_ms: u64,
    },
    Sent,
}

/// What a stream knows of one of its channels.
#[derive(Debug)]
pub struct Place {
    pub channel: ChannelId,
    /// What may have been lost up to here is none of the client's.
    pub excused: EventId,
    /// Nor are events up to here, though they may come after the stream's cursor.
    pub begins_after: EventId,
    /// Events without history that the channel had had when the head was sent; `None`: they might
    /// not have come.
    pub plain: Option<u32>,
    /// Redis did not let us have it when the stream looked last.
    pub is_refused: bool,
    /// What is at hand of its history.
    pub page: Option<Rc<HistoryPage>>,
    /// The ids of its newest events, as long as the stream counts them.
    pub index: Option<Rc<Index>>,
    /// What the client has to be told, or was told last.
    pub reset: Option<Reset>,
}

/// Something of a channel is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub reason: ResetReason,
    pub is_told: bool,
    /// It was told in an earlier step: what is missing since is not told by it.
    pub is_past: bool,
}

impl Start {
    /// Whether the client wants what it has not had of a time before.
    #[must_use]
    pub fn returns(self) -> bool {
        matches!(self, Self::After(_) | Self::Ago(_) | Self::At(_) | Self::Unknown)
    }
}

impl CatchUp {
    #[must_use]
    pub fn new(channels: Vec<ChannelId>, start: Start, head: Vec<u8>, retry_ms: u64) -> Self {
        Self {
            places: channels.into_iter().map(Place::new).collect(),
            start,
            first: First::Unsent { head, retry_ms },
            cursor: None,
            opened: None,
            begun_at: EventId::ZERO,
            clock_needed: None,
            unsent: None,
            ticket: 0,
            awaited: 0,
            is_ready: false,
            is_admitted: false,
            set_aside: None,
            wanted: 0,
            has_read: false,
            has_looked: false,
            is_begun: false,
            has_had_events: false,
            gathered: 0,
        }
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.first, First::Sent)
    }

    /// A step begins: what was told before does not tell of what is missing since.
    pub fn begin_step(&mut self, position: EventId) {
        self.is_begun = self.is_open();
        for place in &mut self.places {
            if let Some(reset) = &mut place.reset {
                reset.is_past |= reset.is_told;
            }
            // What arrived ahead of the clock may have been none.
            if self.has_looked && place.begins_after > position {
                place.begins_after = EventId::ZERO;
            }
        }
    }

    /// The client wants nothing up to `id`. Returns it.
    pub fn begin_after(&mut self, id: EventId) -> EventId {
        self.places.iter_mut().for_each(|place| place.begins_after = id);
        id
    }

    /// A new wait begins, for so many things. Returns its ticket.
    pub fn wait(&mut self, awaited: usize) -> u32 {
        self.ticket = self.ticket.wrapping_add(1);
        self.awaited = awaited;
        self.ticket
    }

    /// Whether the wait of this ticket is on.
    #[must_use]
    pub fn is_awaited(&self, ticket: u32) -> bool {
        ticket == self.ticket && self.awaited > 0
    }

    /// Something that was awaited has come. True if it was the last.
    pub fn arrived(&mut self, ticket: u32) -> bool {
        if !self.is_awaited(ticket) {
            return false;
        }
        self.awaited -= 1;
        self.awaited == 0
    }

    /// Lets all pages and ids go. True if there were any.
    pub fn drop_pages(&mut self) -> bool {
        let mut had_any = false;
        for place in &mut self.places {
            had_any |= place.page.take().is_some() | place.index.take().is_some();
        }
        had_any
    }

    /// Ticks of silence, as far as it counts: none is noted for the few streams that wait.
    #[must_use]
    pub fn silence(&self) -> Option<u32> {
        self.is_open().then_some(u32::MAX)
    }
}

impl Place {
    #[must_use]
    pub fn new(channel: ChannelId) -> Self {
        Self {
            channel,
            excused: EventId::ZERO,
            begins_after: EventId::ZERO,
            plain: None,
            is_refused: false,
            page: None,
            index: None,
            reset: None,
        }
    }

    /// Notes that something is missing which the client was not told of.
    pub fn lack(&mut self, reason: ResetReason) {
        if self.reset.is_none_or(|reset| reset.is_told) {
            self.reset = Some(Reset { reason, is_told: false, is_past: false });
        }
    }

    /// Notes the same, unless the client is told of something in this step anyway.
    pub fn lack_now(&mut self, reason: ResetReason) {
        if !self.was_told_now() {
            self.lack(reason);
        }
    }

    /// Notes the same, unless the client was told so before.
    pub fn lack_once(&mut self, reason: ResetReason) {
        if self.reset.is_none_or(|reset| reset.reason != reason) {
            self.lack(reason);
        }
    }

    /// Whether the client is told in this step that something is missing.
    #[must_use]
    pub fn was_told_now(&self) -> bool {
        self.reset.is_some_and(|reset| !reset.is_past)
    }
}
