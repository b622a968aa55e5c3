//! The way of an event to the streams of one channel.
//!
//! An event is encoded once and waits in its channel. When the channel's turn comes, a pass merges
//! all that waits into one write, and each subscriber gets that write in one send; a subscriber who
//! came after some of these events gets the write's tail.

use std::rc::Rc;

use super::{Streams, Turn, index, shrink};
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::history::EventId;
use crate::ground::ids::ChannelId;
use crate::ground::limits::COALESCED_WRITE_BYTES_MAX;
use crate::state::channels::{Channel, Kind, Pass, Pending, Segment, Traffic, waiting_bytes};
use crate::state::connections::Connections;
use crate::state::sockets::{Cold, Outcome, Sockets};

impl Streams {
    /// Takes an encoded event in for all streams of a channel. O(1).
    pub fn publish(&mut self, channel: ChannelId, bytes: &Rc<[u8]>) {
        self.enqueue(channel, bytes, None, Kind::Publisher, None);
        self.bound_intake();
    }

    /// The same for an event with an id of the publisher's, which is of no use to streams that have
    /// channels whose events are kept.
    pub fn publish_with_id(&mut self, channel: ChannelId, bytes: &Rc<[u8]>) {
        let is_alone = self.channels.get(channel).is_none_or(|c| c.members.is_empty());
        let anonymous = (!is_alone).then(|| event_stream::without_id(bytes).into());
        self.enqueue(channel, bytes, anonymous, Kind::Publisher, None);
        self.bound_intake();
    }

    /// Tells all streams of a channel that they may have missed something, and, where nothing is on
    /// its way that this could pass by, how far they have come.
    pub fn reset(&mut self, channel: ChannelId, reason: ResetReason) {
        let id = self.history.confirmed().filter(|_| self.is_kept(channel));
        self.reset_at(channel, reason, id);
    }

    /// Tells all streams of a channel that they may have missed something; with everything else
    /// they have come to `id`.
    pub(super) fn reset_at(
        &mut self,
        channel: ChannelId,
        reason: ResetReason,
        id: Option<EventId>,
    ) {
        let mut encoded = Vec::new();
        let text = id.map(|id| id.to_string());
        let text = text.as_ref().map(|text| text.as_bytes());
        event_stream::encode_reset(reason, &[self.public_name(channel)], text, &mut encoded);
        self.counters.resets.add(1);
        self.enqueue(channel, &Rc::from(encoded), None, Kind::Reset(reason), id);
    }

    /// Tells all streams that they may have missed something. O(n) in channels.
    pub fn reset_all(&mut self, reason: ResetReason) {
        for channel in self.channels.ids() {
            if self.has_streams(channel) {
                self.reset(channel, reason);
            }
        }
    }

    fn enqueue(
        &mut self,
        id: ChannelId,
        bytes: &Rc<[u8]>,
        anonymous: Option<Rc<[u8]>>,
        kind: Kind,
        event: Option<EventId>,
    ) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if !channel.members.is_empty() {
            self.lane.push(id, Rc::clone(bytes), anonymous, kind, event);
            self.intake_bytes += waiting_bytes(1, bytes.len());
            if !self.lane.queued {
                self.lane.queued = true;
                self.take_turn(Turn::Many);
            }
        }
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.subscribers.is_empty() {
            return;
        }
        let reach = channel.subscribers.len();
        let new = channel.traffic.is_none();
        let traffic = channel.traffic.get_or_insert_default();
        traffic.pending.push_back(Pending { bytes: Rc::clone(bytes), reach, kind });
        traffic.pending_bytes += waiting_bytes(1, bytes.len());
        self.intake_bytes += waiting_bytes(1, bytes.len());
        if new {
            self.take_turn(Turn::Channel(id));
        }
    }

    /// Serves a channel with at most `budget` sends. Returns how many it took, and whether the
    /// channel has more to send.
    pub(super) fn channel_turn(
        &mut self,
        id: ChannelId,
        budget: usize,
        sockets: &mut impl Sockets,
    ) -> (usize, bool) {
        let mut used = 0;
        while used < budget {
            let Some(channel) = self.channels.get_mut(id) else { return (used, false) };
            let Some(traffic) = &mut channel.traffic else { return (used, false) };
            if traffic.pass.is_none() {
                let waiting = traffic.pending_bytes;
                if !traffic.begin_pass(&mut self.scratch) {
                    self.end_traffic(id);
                    return (used, false);
                }
                let begun = traffic.pass.as_ref().map_or(0, |pass| pass.bytes.len());
                self.intake_bytes -= waiting - traffic.pending_bytes - begun;
            }
            let Some(pass) = &mut traffic.pass else { return (used, false) };
            channel.sent_at = self.now;
            let Some(segment) = pass.segment() else {
                self.intake_bytes -= pass.bytes.len();
                traffic.pass = None;
                tidy(channel, &mut self.connections);
                // One pass a turn: other channels wait too.
                let more = channel.traffic.as_ref().is_some_and(|t| !t.pending.is_empty());
                if !more {
                    self.end_traffic(id);
                }
                return (used, more);
            };
            let start = pass.next;
            let end = segment.end.min(start + budget - used);
            pass.next = end;
            used += end - start;
            self.send_segment(id, start, end, segment, sockets);
        }
        (used, true)
    }

    /// One send to each subscriber from `start` to `end`.
    fn send_segment(
        &mut self,
        id: ChannelId,
        start: usize,
        end: usize,
        segment: Segment,
        sockets: &mut impl Sockets,
    ) {
        let Some(channel) = self.channels.get(id) else { return };
        let Some(pass) = channel.traffic.as_ref().and_then(|t| t.pass.as_ref()) else { return };
        let Some(bytes) = pass.bytes.get(segment.from..) else { return };
        let Some(subscribers) = channel.subscribers.get(start..end) else { return };
        let mut cold = std::mem::take(&mut self.cold);
        sockets.send_to_all(subscribers, bytes, &mut cold);

        let length = bytes.len();
        let mut served = subscribers.len();
        if !cold.is_empty() {
            let slots: Vec<(u32, Outcome)> = cold
                .drain(..)
                .filter_map(|Cold { index, outcome }| {
                    let subscriber = subscribers.get(index)?;
                    (!subscriber.is_gap()).then_some((subscriber.slot(), outcome))
                })
                .collect();
            served = subscribers.iter().filter(|subscriber| !subscriber.is_gap()).count();
            let pieces = [(Rc::clone(&pass.bytes), segment.from)];
            for (slot, outcome) in slots {
                self.settle(slot, outcome, &pieces, sockets);
            }
        }
        self.cold = cold;
        self.counters.deliveries.add((served * segment.events) as u64);
        self.counters.delivered_bytes.add((served * length) as u64);
    }

    fn end_traffic(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(traffic) = &mut channel.traffic else { return };
        debug_assert!(traffic.pending.is_empty() && traffic.pass.is_none());
        if traffic.gaps > 0 {
            compact(channel, &mut self.connections);
        }
        channel.traffic = None;
        shrink(&mut channel.subscribers);
    }

    /// Drops what was to be sent on a channel that nobody listens to any more.
    pub(super) fn forget_traffic(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if let Some(traffic) = channel.traffic.take() {
            let passing = traffic.pass.as_ref().map_or(0, |pass| pass.bytes.len());
            self.intake_bytes -= traffic.pending_bytes + passing;
        }
    }
}

impl Traffic {
    /// Merges what is pending, up to the size of one write, into a new pass. False if nothing is.
    fn begin_pass(&mut self, scratch: &mut Vec<u8>) -> bool {
        debug_assert!(self.pass.is_none());
        let Some(first) = self.pending.pop_front() else { return false };
        let mut segments = vec![Segment { end: first.reach, from: 0, events: 1 }];
        let mut length = first.bytes.len();
        let mut merged = 1;
        scratch.clear();
        while let Some(next) = self.pending.front()
            && length + next.bytes.len() <= COALESCED_WRITE_BYTES_MAX
        {
            if scratch.is_empty() {
                scratch.extend_from_slice(&first.bytes);
            }
            scratch.extend_from_slice(&next.bytes);
            segments.iter_mut().for_each(|segment| segment.events += 1);
            if segments.last().is_none_or(|last| last.end < next.reach) {
                segments.push(Segment { end: next.reach, from: length, events: 1 });
            }
            length += next.bytes.len();
            merged += 1;
            self.pending.pop_front();
        }
        self.pending_bytes -= waiting_bytes(merged, length);
        let bytes = if merged == 1 { first.bytes } else { Rc::from(&scratch[..]) };
        self.pass = Some(Pass { bytes, segments, next: 0 });
        true
    }
}

impl Pass {
    /// The segment of the next subscriber; none once all are served. O(1) amortised: a pass rarely
    /// has more than one.
    fn segment(&self) -> Option<Segment> {
        self.segments.iter().find(|segment| segment.end > self.next).copied()
    }
}

/// Closes the gaps if they are many, so that a channel whose traffic never ends does not grow.
fn tidy(channel: &mut Channel, connections: &mut Connections) {
    let gaps = channel.traffic.as_ref().map_or(0, |traffic| traffic.gaps);
    if gaps * 4 > channel.subscribers.len() {
        compact(channel, connections);
    }
}

/// Closes all gaps. O(n) in subscribers. What is pending reaches as far as it did.
fn compact(channel: &mut Channel, connections: &mut Connections) {
    let Some(traffic) = &mut channel.traffic else { return };
    debug_assert!(traffic.pass.is_none(), "positions must not move under a pass");
    let mut reaches = traffic.pending.iter_mut().peekable();
    let (mut position, mut kept) = (0, 0);
    channel.subscribers.retain(|subscriber| {
        while let Some(pending) = reaches.next_if(|pending| pending.reach <= position) {
            pending.reach = kept;
        }
        position += 1;
        if subscriber.is_gap() {
            return false;
        }
        if let Some(connection) = connections.in_slot_mut(subscriber.slot()) {
            connection.position = index(kept);
        }
        kept += 1;
        true
    });
    reaches.for_each(|pending| pending.reach = kept);
    traffic.gaps = 0;
}
