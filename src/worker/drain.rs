//! Draining: streams are closed evenly over `--drain-time`, each told when to come back, so that
//! neither the clients nor the server that takes them over see a herd.

use crate::bytes::event_stream;
use crate::ground::ids::ConnectionId;
use crate::state::connections::State;
use crate::state::counters::CloseReason;
use crate::state::deadlines::Tick;
use crate::sys::{raw, socket};

use super::core::Core;
use crate::ground::limits::TICK;

/// The end of a worker's connections, planned.
pub(super) struct Drain {
    until: Tick,
    /// Next slot to look at.
    slot: u32,
    /// Connections to be closed in this tick.
    due: usize,
    /// Slots that are still to be looked at in this tick.
    looks: u32,
}

/// Slots that are looked at between two yields: most of a server's are vacant at its end.
const LOOKS_PER_SLICE_MAX: usize = 4096;

impl Core {
    pub(super) fn begin_drain(&mut self) -> Drain {
        self.draining = true;
        let ticks = self.config.drain_time.as_millis().div_ceil(TICK.as_millis());
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX / 4);
        Drain { until: self.now.after(ticks), slot: 0, due: 0, looks: 0 }
    }

    /// Tells a stream when to come back, and ends it.
    fn dismiss(&mut self, id: ConnectionId) {
        let mut retry = Vec::new();
        event_stream::encode_retry(self.jittered_retry_ms(1.0), &mut retry);
        retry.push(b'\n');
        self.streams.open(id, &mut self.sockets);
        self.streams.send_own(id, &retry, &mut self.sockets);
        if let Some(connection) = self.streams.get(id) {
            socket::finish(raw::borrow(connection.fd));
            self.close(id, CloseReason::Drained);
        }
    }
}

impl Drain {
    /// Plans this tick's share. True once no connection is left.
    pub(super) fn tick(&mut self, core: &mut Core) -> bool {
        let left = core.streams.connections();
        self.looks = core.streams.slots();
        if core.now.has_reached(self.until) {
            self.due = left;
        } else {
            let ticks = self.until.since(core.now).max(1) as usize;
            self.due = left.div_ceil(ticks);
        }
        left == 0
    }

    /// Closes at most `budget` connections. True if more are due in this tick.
    pub(super) fn slice(&mut self, budget: usize, core: &mut Core) -> bool {
        let is_last = core.now.has_reached(self.until);
        let mut closed = 0;
        let mut looked = 0;
        while self.due > 0 && closed < budget && self.looks > 0 && looked < LOOKS_PER_SLICE_MAX {
            looked += 1;
            self.looks -= 1;
            if self.slot >= core.streams.slots() {
                self.slot = 0;
            }
            let Some((id, state)) = core.streams.in_slot(self.slot) else {
                self.slot += 1;
                continue;
            };
            self.slot += 1;
            // Unsent bytes get the time there is to leave.
            if core.streams.has_backlog(id) && !is_last {
                continue;
            }
            match state {
                State::One | State::Many | State::Opening | State::CatchingUp => core.dismiss(id),
                State::Head => core.close(id, CloseReason::Drained),
                // Has its answer, and a deadline of its own.
                State::Lingering(_) if !is_last => continue,
                State::Lingering(_) | State::Vacant => core.close(id, CloseReason::Answered),
            }
            self.due -= 1;
            closed += 1;
        }
        self.due > 0 && self.looks > 0
    }
}
