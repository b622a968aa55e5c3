//! One private epoll set per worker that watches all its sockets; the runtime waits for that one
//! descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::ground::ids::ConnectionId;
use crate::ground::limits::READINESS_PER_TURN_MAX;

/// What a descriptor in the set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Connection(ConnectionId),
    /// A listener, by its place in the worker's list.
    Listener(usize),
    /// The link to Redis.
    Link,
    /// The bell that the process rings.
    Wake,
}

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
    /// The peer will send nothing more than what is there to be read.
    pub peer_finished: bool,
    /// The peer has closed, or the connection is broken.
    pub hung_up: bool,
}

/// An epoll set.
pub struct Reactor {
    set: OwnedFd,
    events: Vec<Event>,
}

/// The upper 16 bits of epoll's data say what the rest is; a connection's id has 48.
const KIND_SHIFT: u32 = 48;
const KIND_LISTENER: u64 = 1;
const KIND_LINK: u64 = 2;
const KIND_WAKE: u64 = 3;

impl Reactor {
    /// # Errors
    /// What epoll_create1(2) answers.
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { set, events: Vec::with_capacity(READINESS_PER_TURN_MAX) })
    }

    /// A second descriptor of the set, for the runtime to wait on.
    ///
    /// # Errors
    /// What dup(2) answers.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.set.try_clone()
    }

    /// Watches a client socket, once and for all: edge-triggered, so that EPOLLOUT costs nothing
    /// until a send meets a full buffer.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn watch_connection(&self, socket: impl AsFd, id: ConnectionId) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        self.add(socket, Token::Connection(id), flags)
    }

    /// Watches for input, level-triggered: what one turn leaves is reported again.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn watch_input(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        self.add(source, token, EventFlags::IN)
    }

    /// As [`Self::watch_input`], and for room to write while there is something to be written.
    ///
    /// # Errors
    /// What epoll_ctl(2) answers.
    pub fn watch_both(&self, source: impl AsFd, token: Token, output: bool) -> io::Result<()> {
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, output);
        epoll::modify(&self.set, source, EventData::new_u64(token.to_data()), flags)?;
        Ok(())
    }

    /// Watches a descriptor no more.
    pub fn forget(&self, source: impl AsFd) {
        // Fails only if it was not watched, which is what is asked for.
        let _ = epoll::delete(&self.set, source);
    }

    /// What is ready now, at most [`READINESS_PER_TURN_MAX`] descriptors. The list is lent: give it
    /// back with [`Self::give_back`].
    ///
    /// # Errors
    /// What epoll_wait(2) answers.
    pub fn ready(&mut self) -> io::Result<Vec<Event>> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(events),
            Err(error) => Err(error.into()),
        }
    }

    pub fn give_back(&mut self, events: Vec<Event>) {
        self.events = events;
    }

    fn add(&self, source: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        epoll::add(&self.set, source, EventData::new_u64(token.to_data()), flags)?;
        Ok(())
    }
}

impl Readiness {
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        let (flags, data) = (event.flags, event.data);
        Some(Self {
            token: Token::from_data(data.u64())?,
            readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP),
            writable: flags.contains(EventFlags::OUT),
            peer_finished: flags.contains(EventFlags::RDHUP),
            hung_up: flags.intersects(EventFlags::ERR | EventFlags::HUP),
        })
    }
}

impl Token {
    fn to_data(self) -> u64 {
        match self {
            Self::Connection(id) => id.to_token(),
            Self::Listener(place) => KIND_LISTENER << KIND_SHIFT | place as u64,
            Self::Link => KIND_LINK << KIND_SHIFT,
            Self::Wake => KIND_WAKE << KIND_SHIFT,
        }
    }

    fn from_data(data: u64) -> Option<Self> {
        let rest = data & ((1 << KIND_SHIFT) - 1);
        match data >> KIND_SHIFT {
            0 => Some(Self::Connection(ConnectionId::from_token(rest))),
            KIND_LISTENER => Some(Self::Listener(usize::try_from(rest).ok()?)),
            KIND_LINK => Some(Self::Link),
            KIND_WAKE => Some(Self::Wake),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_way_through_epoll() {
        let id = ConnectionId { slot: u32::MAX >> 1, generation: u16::MAX };
        for token in [Token::Connection(id), Token::Listener(7), Token::Link, Token::Wake] {
            assert_eq!(Token::from_data(token.to_data()), Some(token));
        }
        assert_eq!(Token::from_data(u64::MAX), None);
    }
}
