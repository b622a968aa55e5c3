//! Ids as types, so that a swapped argument does not compile.

use std::fmt;

/// Number of a worker, counted from 0 in the order of start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

/// Slot of a channel in its worker's channel table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// Slot of a stream of several channels in its worker's multi-channel table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MultiId(pub u32);

impl MultiId {
    /// The place of a stream that has gone.
    pub const GAP: Self = Self(u32::MAX);
}

/// A connection of a worker: its slot, and the generation that tells it from earlier and later
/// tenants of that slot. A stale id finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub slot: u32,
    pub generation: u16,
}

impl ConnectionId {
    /// The id as one number, as epoll carries it.
    #[must_use]
    pub fn to_token(self) -> u64 {
        u64::from(self.slot) | u64::from(self.generation) << 32
    }

    /// The id that [`Self::to_token`] made.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "takes the number apart")]
    pub fn from_token(token: u64) -> Self {
        Self { slot: token as u32, generation: (token >> 32) as u16 }
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel #{}", self.0)
    }
}

impl fmt::Debug for MultiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "multi #{}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection #{}.{}", self.slot, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_id_survives_the_way_through_epoll() {
        for (slot, generation) in [(0, 0), (1, 2), (u32::MAX, u16::MAX)] {
            let id = ConnectionId { slot, generation };
            assert_eq!(ConnectionId::from_token(id.to_token()), id);
        }
    }
}
