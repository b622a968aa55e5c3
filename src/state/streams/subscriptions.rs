//! What Redis is asked for: a channel is subscribed while somebody needs it, and a while longer.

use super::{LinkState, REFUSED_TICKS, Streams, shrink};
use crate::bytes::event_stream::ResetReason;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::state::channels::Subscription;
use crate::state::connections::State;
use crate::state::deadlines::Deadlines;

impl Streams {
    /// Counts one more user of a channel, and asks Redis for it if nobody has.
    pub fn hold(&mut self, name: &[u8]) -> ChannelId {
        let id = self.channels.find_or_insert(name, self.now);
        let mut is_unaligned = false;
        if let Some(channel) = self.channels.get_mut(id) {
            if channel.recent.is_none() && channel.users == 0 && self.history.keeps(name) {
                let recent = channel.recent.insert(Box::default());
                let channels = &mut self.history.gone_on_without;
                let place = channels.iter().position(|(gone, _)| **gone == *name);
                if let Some((_, until)) = place.and_then(|place| channels.remove(place)) {
                    recent.lapsed = until;
                    recent.has_gone_on_without = until.is_none();
                }
                self.history.channels += 1;
                // It lingers from a time in which history could not be read.
                is_unaligned = channel.subscription == Subscription::Standing;
            }
            channel.users += 1;
            if channel.subscription == Subscription::Idle && self.link == LinkState::Up {
                channel.subscription = Subscription::Asked;
                self.ask.push_back(id);
            }
        }
        if is_unaligned {
            self.await_clock(id);
        }
        id
    }

    /// Counts one user less. The last one leaves the subscription behind for a while: most come
    /// back.
    pub(super) fn release(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        debug_assert!(channel.users > 0);
        channel.users -= 1;
        if channel.users == 0 {
            channel.linger_until = self.lingering.push(self.now, id);
        }
    }

    /// Channels that Redis has to be asked for.
    #[must_use]
    pub fn asks(&self) -> usize {
        self.ask.len()
    }

    /// Whether Redis has to be asked for something.
    #[must_use]
    pub fn has_asks(&self) -> bool {
        !self.ask.is_empty()
    }

    /// The next channels to subscribe, at most `max`.
    pub fn next_asks(&mut self, max: usize) -> Vec<ChannelId> {
        let count = self.ask.len().min(max);
        let ids: Vec<ChannelId> = self.ask.drain(..count).collect();
        // Where events are kept, a subscription stands once the newest id is known.
        if ids.iter().any(|id| self.is_kept(*id)) {
            self.history.wish_clock(super::ClockWish::Newest);
        }
        ids
    }

    /// The name in Redis.
    #[must_use]
    pub fn name(&self, id: ChannelId) -> &[u8] {
        self.channels.get(id).map_or(&[], |channel| channel.name())
    }

    /// The name as clients know it: without `--strip-prefix`.
    #[must_use]
    pub fn public_name(&self, id: ChannelId) -> &[u8] {
        let name = self.name(id);
        name.strip_prefix(&*self.strip_prefix).unwrap_or(name)
    }

    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<ChannelId> {
        self.channels.find(name)
    }

    /// Whether an event on this channel would reach anybody.
    #[must_use]
    pub fn has_streams(&self, id: ChannelId) -> bool {
        self.channels.get(id).is_some_and(super::super::channels::Channel::has_streams)
    }

    /// Redis acknowledged the subscription. Where events are kept, it stands once Redis has also
    /// told how far they have come.
    pub fn acknowledge(&mut self, id: ChannelId) {
        if self.is_kept(id) {
            self.await_clock(id);
        } else {
            self.stand(id);
        }
    }

    /// The subscription stands: streams that waited for it open in the next slice, and
    /// those that were already open learn that they may have missed something.
    pub(super) fn stand(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.subscription != Subscription::Asked {
            return;
        }
        channel.subscription = Subscription::Standing;
        let is_begun = self.history.repair.as_ref().is_none_or(|repair| repair.is_begun());
        let mut has_lapsed = false;
        if let Some(recent) = &mut channel.recent
            && std::mem::take(&mut recent.has_gone_on_without)
        {
            // Its streams have had later events of others: they are told, and get none of before.
            has_lapsed = true;
            recent.passed = recent.passed.max(recent.floor().unwrap_or_default());
            recent.lapsed = recent.floor().max(self.history.position);
        }
        self.counters.subscriptions.add(1);
        // What was missed of kept events is made up for.
        if channel.has_streams() && (channel.recent.is_none() || is_begun || has_lapsed) {
            self.reset(id, self.link_loss);
        }
        for (waiter, ticket) in self.waiters.remove(&id).unwrap_or_default() {
            if let Some(opening) = self.connections.opening_mut(waiter) {
                opening.missing = opening.missing.saturating_sub(1);
                if opening.missing == 0 {
                    self.ready.push_back(waiter);
                }
            } else {
                self.wake_waiter(waiter, ticket);
            }
        }
    }

    /// Something has come that a stream which catches up waits for.
    fn wake_waiter(&mut self, id: ConnectionId, ticket: u32) {
        if self.connections.catch_up_mut(id).is_some_and(|catch_up| catch_up.arrived(ticket)) {
            self.wake(id);
        }
    }

    /// Redis refused the subscription; it is asked again after a while. Who waited for it opens
    /// before that, by its deadline.
    pub fn refuse(&mut self, id: ChannelId) {
        // Who waits for it alone opens by its deadline; who waits for history does without.
        for (waiter, ticket) in self.waiters.remove(&id).unwrap_or_default() {
            self.wake_waiter(waiter, ticket);
        }
        if let Some(channel) = self.channels.get_mut(id) {
            channel.subscription = Subscription::Refused;
            if let Some(recent) = &mut channel.recent {
                recent.has_gone_on_without = true;
            }
        }
        self.refused.push(self.now, id);
    }

    /// The link speaks: everything that is needed is asked for.
    pub fn link_up(&mut self) {
        self.link = LinkState::Up;
        self.history.begin();
        self.ask.clear();
        // The oldest first, and so those of `--subscribe-ahead` before all others: events for a
        // channel come by way of them, so it does not stand before they do.
        let mut ids = self.channels.ids();
        ids.sort_unstable();
        for id in ids {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            if channel.users > 0 {
                channel.subscription = Subscription::Asked;
                self.ask.push_back(id);
            }
        }
    }

    /// The link is lost, and every subscription with it. Who waited for one opens in the next
    /// slice. If the link stood, `loss` is what its streams are told once it stands again.
    pub fn link_down(&mut self, loss: ResetReason) {
        if self.link == LinkState::Up {
            self.link_loss = loss;
        }
        let passes_on = self.link == LinkState::Up && self.history.is_current();
        self.link = LinkState::Down;
        self.ask.clear();
        self.refused = Deadlines::new(REFUSED_TICKS);
        self.counters.subscriptions.set(0);
        for id in self.channels.ids() {
            if let Some(channel) = self.channels.get_mut(id) {
                let stood = channel.subscription == Subscription::Standing;
                channel.subscription = Subscription::Idle;
                let has_streams = channel.has_streams();
                if let Some(recent) = &mut channel.recent {
                    recent.has_gone_on_without |= passes_on && has_streams && !stood;
                }
            }
        }
        self.lose_history();
        for (waiter, _) in std::mem::take(&mut self.waiters).into_values().flatten() {
            match self.connections.get(waiter).map(|c| c.state) {
                Some(State::CatchingUp) => self.wake(waiter),
                _ => self.ready.push_back(waiter),
            }
        }
    }

    /// Subscriptions that ended by lapse of time: names to be unsubscribed. Their channels are
    /// forgotten.
    pub fn lapsed(&mut self) -> Vec<Vec<u8>> {
        while let Some((_, id)) = self.refused.pop_due(self.now) {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            // The channel may have come to stand, or the link have gone, since then.
            if channel.subscription != Subscription::Refused || self.link != LinkState::Up {
                continue;
            }
            if channel.users > 0 {
                channel.subscription = Subscription::Asked;
                self.ask.push_back(id);
            } else {
                // Nobody waits for an answer any more: the channel may lapse.
                channel.subscription = Subscription::Idle;
            }
        }
        let mut names = Vec::new();
        while let Some((deadline, id)) = self.lingering.pop_due(self.now) {
            let Some(channel) = self.channels.get(id) else { continue };
            if channel.users > 0 || channel.linger_until != deadline || channel.name().is_empty() {
                continue;
            }
            let stands = channel.subscription == Subscription::Standing;
            let is_read = channel
                .recent
                .as_ref()
                .is_some_and(|recent| recent.is_read() || stands && recent.floor().is_none());
            let is_asked =
                matches!(channel.subscription, Subscription::Asked | Subscription::Refused);
            let repair = self.history.repair.as_ref();
            if is_asked || is_read || repair.is_some_and(|repair| repair.has_channels()) {
                // Something is still to come; it must find its channel.
                let again = self.lingering.push(self.now, id);
                if let Some(channel) = self.channels.get_mut(id) {
                    channel.linger_until = again;
                }
                continue;
            }
            if channel.subscription == Subscription::Standing {
                names.push(channel.name().to_vec());
                self.counters.subscriptions.subtract(1);
            }
            self.forget_traffic(id);
            self.forget_recent(id);
            self.channels.remove(id);
        }
        if self.waiters.is_empty() {
            self.waiters.shrink_to_fit();
        }
        names
    }

    /// Drops the memory that a burst of requests left behind.
    pub fn give_memory_back(&mut self) {
        self.ask.shrink_to(self.ask.len() * 2);
        self.ready.shrink_to(self.ready.len() * 2);
        self.turns.shrink_to(self.turns.len() * 2);
        self.merging.shrink_to(self.merging.len() * 2);
        shrink(&mut self.cold);
        shrink(&mut self.scratch);
    }
}
