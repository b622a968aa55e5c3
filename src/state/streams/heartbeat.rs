//! Heartbeats on streams that were silent, so that proxies and peers see life: a comment, or an
//! event that carries the position where the stream's events are kept.
//!
//! No timer and no clock per stream. A sweep visits every connection twice per interval and sends
//! where nothing was sent for half of it; a stream that got a heartbeat is left out at the next
//! visit. So the silence on a stream never exceeds the interval, and the heartbeats of a stream
//! that stays silent are one interval apart.
//!
//! The sweep also offers unsent bytes again, which the kernel may have refused without promise.

use super::Streams;
use crate::bytes::event_stream::{self, HEARTBEAT};
use crate::bytes::history::EventId;
use crate::ground::ids::ChannelId;
use crate::state::channels::Subscription;
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
        let (state, home, beat) = (connection.state, connection.home, connection.beat);
        let silence = match state {
            State::One => self.channels.get(ChannelId(home)).map(|c| self.now.since(c.sent_at)),
            State::Many => self.lane.streams.get(home).map(|multi| self.now.since(multi.sent_at)),
            State::CatchingUp => self.connections.catch_up_mut(id).and_then(|c| c.silence()),
            State::Vacant | State::Head | State::Opening | State::Lingering(_) => None,
        };
        let Some(silence) = silence else { return false };
        if self.connections.has_backlog(slot) {
            // A kernel that was short of memory for sockets (tcp(7), tcp_mem) refuses bytes without
            // telling when it takes them again.
            self.flush(id, sockets);
            return true;
        }
        let silent = silence >= self.limits.heartbeat_ticks / 2;
        let due = silent && !beat && self.limits.heartbeat_ticks > 0;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.beat = due;
        }
        if !due {
            return false;
        }
        self.counters.heartbeats.add(1);
        match self.proven_position(state, home) {
            Some(position) => {
                let mut bytes = Vec::new();
                event_stream::encode_keep_alive(position.to_string().as_bytes(), &mut bytes);
                self.send_own(id, &bytes, sockets);
            }
            None => self.send_own(id, HEARTBEAT, sockets),
        }
        true
    }

    /// The id up to which a stream has all events that are kept, if nothing is on its way to it.
    fn proven_position(&self, state: State, home: u32) -> Option<EventId> {
        if self.history.channels == 0 || !self.history.is_current() {
            return None;
        }
        let is_proven = |id: ChannelId| {
            self.channels.get(id).is_some_and(|channel| match &channel.recent {
                None => true,
                Some(recent) => channel.subscription == Subscription::Standing && !recent.is_ahead,
            })
        };
        let is_proven = match state {
            State::One => {
                let id = ChannelId(home);
                let is_idle = self.channels.get(id).is_some_and(|c| c.traffic.is_none());
                is_idle && self.is_kept(id) && is_proven(id)
            }
            State::Many => {
                let mut channels = self.lane.channels_of(home);
                !self.lane.is_busy()
                    && channels.clone().any(|id| self.is_kept(id))
                    && channels.all(is_proven)
            }
            _ => false,
        };
        self.history.position.filter(|_| is_proven)
    }
}
