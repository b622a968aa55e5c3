//! Connections as data: about 20 bytes each while nothing special is going on.

use std::os::fd::RawFd;

use crate::ground::ids::{ChannelId, ConnectionId};
use crate::state::backlog::Backlog;
use crate::state::catch_up::CatchUp;
use crate::state::counters::CloseReason;
use crate::state::pages::Pages;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Vacant,
    /// Its next request head is awaited.
    Head,
    /// A stream whose subscriptions are not acknowledged yet.
    Opening,
    /// A stream that is told what it missed before it joins its channels.
    CatchingUp,
    /// A stream of one channel; `home` is the channel, `position` the place in its list.
    One,
    /// A stream of several channels; `home` is its entry among them.
    Many,
    /// Answered for the last time, for this reason: what still comes is thrown away until the peer
    /// has read that.
    Lingering(CloseReason),
}

/// One connection. Plain data, so that it could be written down and handed over.
#[derive(Debug)]
pub struct Connection {
    pub fd: RawFd,
    /// A channel's or a multi-channel entry's number, by `state`.
    pub home: u32,
    /// In its channel's list; while the head is awaited, the tick by which it has to be there.
    pub position: u32,
    rare: u32,
    generation: u16,
    pub state: State,
    /// The last visit of the heartbeat sweep sent one, so the next leaves it out.
    pub beat: bool,
}

const _: () = assert!(size_of::<Connection>() == 20);

/// State that few connections have at a time.
#[derive(Debug)]
pub enum Rare {
    Vacant,
    /// Bytes of an incomplete request.
    Head(HeadBuffer),
    Opening(Box<Opening>),
    CatchUp(Box<CatchUp>),
    Backlog(Backlog),
}

/// Received bytes that are not a whole request head yet.
#[derive(Debug, Default)]
pub struct HeadBuffer {
    pub bytes: Vec<u8>,
    /// Bytes of a request body still to be thrown away.
    pub skip: u64,
}

/// A stream that waits for its subscriptions.
#[derive(Debug)]
pub struct Opening {
    pub channels: Vec<ChannelId>,
    /// Channels of these whose subscription does not stand yet.
    pub missing: usize,
    /// Response head and first bytes, to be sent in one write.
    pub answer: Vec<u8>,
}

/// All connections of a worker, and the rare state of some.
#[derive(Debug, Default)]
pub struct Connections {
    entries: Pages<Connection>,
    rares: Pages<Rare>,
    next_generation: u16,
}

const NONE: u32 = u32::MAX;

impl Connections {
    /// A new connection, about to send its request head.
    pub fn insert(&mut self, fd: RawFd) -> ConnectionId {
        // Generations are counted over all slots, so that giving back pages repeats none soon.
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let slot = self.entries.insert(Connection {
            fd,
            home: NONE,
            position: NONE,
            rare: NONE,
            generation,
            state: State::Head,
            beat: false,
        });
        ConnectionId { slot, generation }
    }

    /// Makes the entry vacant; its rare state goes with it. The caller closes the descriptor.
    pub fn remove(&mut self, id: ConnectionId) {
        self.set_rare(id.slot, Rare::Vacant);
        if let Some(entry) = self.get_mut(id) {
            entry.state = State::Vacant;
            entry.fd = -1;
            self.entries.release(id.slot);
        }
    }

    /// The connection, unless it is gone.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.entries.get(id.slot).filter(|entry| entry.is(id.generation))
    }

    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.entries.get_mut(id.slot).filter(|entry| entry.is(id.generation))
    }

    /// The tenant of a slot at this moment.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<(ConnectionId, &Connection)> {
        let entry = self.entries.get(slot).filter(|entry| entry.state != State::Vacant)?;
        Some((ConnectionId { slot, generation: entry.generation }, entry))
    }

    /// As [`Self::in_slot`], to be changed.
    pub fn in_slot_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.entries.get_mut(slot).filter(|entry| entry.state != State::Vacant)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Slots to visit for seeing every connection.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.entries.slots()
    }

    /// The unsent bytes of the connection in a slot.
    pub fn backlog_mut(&mut self, slot: u32) -> Option<&mut Backlog> {
        match self.rare_mut(slot)? {
            Rare::Backlog(backlog) => Some(backlog),
            Rare::CatchUp(catch_up) => catch_up.unsent.as_mut(),
            _ => None,
        }
    }

    #[must_use]
    pub fn has_backlog(&self, slot: u32) -> bool {
        let rare = self.entries.get(slot).map_or(NONE, |entry| entry.rare);
        match self.rares.get(rare) {
            Some(Rare::Backlog(_)) => true,
            Some(Rare::CatchUp(catch_up)) => catch_up.unsent.is_some(),
            _ => false,
        }
    }

    pub fn opening_mut(&mut self, id: ConnectionId) -> Option<&mut Opening> {
        self.get(id)?;
        match self.rare_mut(id.slot)? {
            Rare::Opening(opening) => Some(opening),
            _ => None,
        }
    }

    pub fn catch_up_mut(&mut self, id: ConnectionId) -> Option<&mut CatchUp> {
        self.get(id)?;
        match self.rare_mut(id.slot)? {
            Rare::CatchUp(catch_up) => Some(catch_up),
            _ => None,
        }
    }

    /// Takes the rare state of the connection in a slot away from it.
    pub fn take_rare(&mut self, slot: u32) -> Rare {
        let Some(rare) = self.rare_mut(slot) else { return Rare::Vacant };
        let taken = std::mem::replace(rare, Rare::Vacant);
        self.set_rare(slot, Rare::Vacant);
        taken
    }

    /// Gives the connection in a slot rare state, in place of what it had.
    pub fn set_rare(&mut self, slot: u32, state: Rare) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let vacant = matches!(state, Rare::Vacant);
        match (self.rares.get_mut(entry.rare), vacant) {
            (Some(place), false) => *place = state,
            (Some(place), true) => {
                *place = Rare::Vacant;
                self.rares.release(entry.rare);
                entry.rare = NONE;
            }
            (None, false) => entry.rare = self.rares.insert(state),
            (None, true) => {}
        }
    }

    fn rare_mut(&mut self, slot: u32) -> Option<&mut Rare> {
        let rare = self.entries.get(slot)?.rare;
        self.rares.get_mut(rare)
    }
}

impl Connection {
    fn is(&self, generation: u16) -> bool {
        self.generation == generation && self.state != State::Vacant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut connections = Connections::default();
        let first = connections.insert(5);
        connections.insert(9);
        connections.remove(first);
        let second = connections.insert(6);
        assert_eq!(first.slot, second.slot);
        assert!(connections.get(first).is_none());
        assert_eq!(connections.get(second).map(|c| c.fd), Some(6));
        connections.remove(first);
        assert_eq!(connections.len(), 2, "removing by a stale id must not touch the new tenant");
    }

    #[test]
    fn rare_state_comes_and_goes_and_leaves_with_its_connection() {
        let mut connections = Connections::default();
        let id = connections.insert(5);
        assert!(!connections.has_backlog(id.slot));
        connections.set_rare(id.slot, Rare::Backlog(Backlog::new(Rc::from(&b"ab"[..]), 0)));
        assert!(connections.has_backlog(id.slot));
        assert!(matches!(connections.take_rare(id.slot), Rare::Backlog(_)));
        assert!(!connections.has_backlog(id.slot));
        connections.set_rare(id.slot, Rare::Head(HeadBuffer::default()));
        connections.remove(id);
        assert!(connections.rares.is_empty());
    }
}
