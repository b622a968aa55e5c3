//! Heartbeats: a comment line on streams that were silent, so that proxies and peers see life.
//!
//! No timer and no clock per stream. A sweep visits every connection twice per interval and sends
//! where nothing was sent for half of it; a stream that got a heartbeat is left out at the next
//! visit. So the silence on a stream never exceeds the interval, and the heartbeats of a stream
//! that stays silent are one interval apart.
//!
//! The sweep also offers unsent bytes again, which the kernel may have refused without promise.

use super::Streams;
use crate::bytes::event_stream::HEARTBEAT;
use crate::ground::ids::ChannelId;
use crate::state::connections::State;
use crate::state::sockets::Sockets;

/// Ticks of a sweep that only looks after unsent bytes.
const PERIOD_WITHOUT_HEARTBEATS: u32 = 75;

impl Streams {
    /// Connections to visit in this tick; to be asked once a tick.
    pub fn sweep_quota(&mut self) -> usize {
        let period = match self.limits.heartbeat_ticks / 2 {
            0 => PERIOD_WITHOUT_HEARTBEATS,
            period => period,
        };
        self.sweep_due += self.connections.slots();
        let visits = self.sweep_due / period;
        self.sweep_due %= period;
        visits as usize
    }

    /// Visits at most `visits` connections, until `budget` sends are made. Returns the visits
    /// that are left.
    pub fn sweep(&mut self, visits: usize, budget: usize, sockets: &mut impl Sockets) -> usize {
        let mut sent = 0;
        for visited in 0..visits {
            if sent == budget {
                return visits - visited;
            }
            if self.sweep >= self.connections.slots() {
                self.sweep = 0;
            }
            sent += usize::from(self.visit(self.sweep, sockets));
            self.sweep += 1;
        }
        0
    }

    /// True if something was sent, or offered.
    fn visit(&mut self, slot: u32, sockets: &mut impl Sockets) -> bool {
        let Some((id, connection)) = self.connections.in_slot(slot) else { return false };
        let sent_at = match connection.state {
            State::One => self.channels.get(ChannelId(connection.home)).map(|c| c.sent_at),
            State::Many => self.lane.streams.get(connection.home).map(|multi| multi.sent_at),
            State::Vacant | State::Head | State::Opening | State::Lingering(_) => None,
        };
        let Some(sent_at) = sent_at else { return false };
        if self.connections.has_backlog(slot) {
            // A kernel that was short of memory for sockets (tcp(7), tcp_mem) refuses bytes without
            // telling when it takes them again.
            self.flush(id, sockets);
            return true;
        }
        let silent = self.now.since(sent_at) >= self.limits.heartbeat_ticks / 2;
        let due = silent && !connection.beat && self.limits.heartbeat_ticks > 0;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.beat = due;
        }
        if !due {
            return false;
        }
        self.counters.heartbeats.add(1);
        self.send_own(id, HEARTBEAT, sockets);
        true
    }
}
