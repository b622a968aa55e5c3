//! The bound on what was taken in and is not fanned out yet (`--max-intake`).
//!
//! Reading more slowly would only move the flood into Redis, which ends the link at 32 MB. So the
//! channels with most lose their oldest events, and their streams are told.

use std::rc::Rc;

use super::{Streams, Turn};
use crate::bytes::event_stream::{self, ResetReason};
use crate::ground::ids::ChannelId;
use crate::state::channels::{Kind, Pending, waiting_bytes};

impl Streams {
    /// Bytes that wait to be fanned out.
    #[must_use]
    pub fn intake_bytes(&self) -> usize {
        self.intake_bytes
    }

    /// Over the bound, caps what each channel holds so that the whole falls to seven eighths of
    /// it. O(n log n) in busy channels, paid for by the eighth that has to come in before the next.
    pub(super) fn bound_intake(&mut self) {
        let bound = self.limits.max_intake_bytes;
        if self.intake_bytes <= bound {
            self.trimmed_bytes = 0;
            return;
        }
        // Resets can't be given up. Where they alone fill the bound, nothing is gained by trimming
        // again before as much has come in as makes it worth the walk.
        if self.intake_bytes < self.trimmed_bytes + bound / 16 {
            return;
        }
        let mut holdings: Vec<(usize, Turn)> = self
            .turns
            .iter()
            .chain(self.merging.iter().map(|(_, turn)| turn))
            .map(|turn| (self.held_by(*turn), *turn))
            .collect();
        holdings.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        let excess = self.intake_bytes - bound / 8 * 7;
        let cap = cap_for(&holdings, excess);
        for (_, turn) in holdings.into_iter().take_while(|(bytes, _)| *bytes > cap) {
            match turn {
                Turn::Channel(id) => self.trim_channel(id, cap),
                Turn::Many => self.trim_lane(cap),
            }
        }
        self.trimmed_bytes = self.intake_bytes;
    }

    fn held_by(&self, turn: Turn) -> usize {
        match turn {
            Turn::Channel(id) => self
                .channels
                .get(id)
                .and_then(|channel| channel.traffic.as_ref())
                .map_or(0, |traffic| traffic.pending_bytes),
            Turn::Many => self.lane.bytes,
        }
    }

    /// Drops a channel's oldest events until it holds at most `cap` bytes, and puts a reset in
    /// their place.
    fn trim_channel(&mut self, id: ChannelId, cap: usize) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(traffic) = &mut channel.traffic else { return };
        let mut lost = None;
        let mut told = None;
        while traffic.pending_bytes > cap
            && let Some(dropped) = traffic.pending.pop_front()
        {
            traffic.pending_bytes -= waiting_bytes(1, dropped.bytes.len());
            self.intake_bytes -= waiting_bytes(1, dropped.bytes.len());
            self.counters.overload.add(u64::from(dropped.kind == Kind::Publisher));
            lost = Some(dropped.reach);
            if dropped.kind == Kind::Reset(ResetReason::Overload) {
                told = Some(dropped.bytes);
            }
        }
        let Some(reach) = lost else { return };
        // A channel that lost something before mostly still holds the reset that says so.
        let reset = told.unwrap_or_else(|| {
            self.counters.resets.add(1);
            encoded_reset(self.public_name(id))
        });
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(traffic) = &mut channel.traffic else { return };
        let kind = Kind::Reset(ResetReason::Overload);
        traffic.pending_bytes += waiting_bytes(1, reset.len());
        self.intake_bytes += waiting_bytes(1, reset.len());
        traffic.pending.push_front(Pending { bytes: reset, reach, kind });
    }

    /// The same for the lane, with a reset for each channel that lost something.
    fn trim_lane(&mut self, cap: usize) {
        let mut losers: Vec<ChannelId> = Vec::new();
        let mut newest = None;
        while self.lane.bytes > cap
            && let Some(dropped) = self.lane.arrivals.pop_front()
        {
            self.lane.bytes -= waiting_bytes(1, dropped.bytes.len());
            self.intake_bytes -= waiting_bytes(1, dropped.bytes.len());
            self.counters.overload.add(u64::from(dropped.kind == Kind::Publisher));
            losers.push(dropped.channel);
            newest = Some(dropped);
        }
        losers.sort_unstable();
        losers.dedup();
        let Some(newest) = newest else { return };
        for id in losers {
            let reset = encoded_reset(self.public_name(id));
            self.intake_bytes += waiting_bytes(1, reset.len());
            self.counters.resets.add(1);
            self.lane.push_front(&newest, id, reset, Kind::Reset(ResetReason::Overload));
        }
    }
}

/// The largest cap per holder that frees at least `excess` bytes. `holdings` fall.
fn cap_for(holdings: &[(usize, Turn)], excess: usize) -> usize {
    let mut freed_above = 0;
    for (count, pair) in holdings.windows(2).enumerate() {
        let [(bytes, _), (next, _)] = pair else { continue };
        let holders = count + 1;
        // Lowering the cap from `bytes` to `next` frees the difference from each holder so far.
        let step = (bytes - next) * holders;
        if freed_above + step >= excess {
            return bytes - (excess - freed_above).div_ceil(holders);
        }
        freed_above += step;
    }
    let lowest = holdings.last().map_or(0, |(bytes, _)| *bytes);
    let holders = holdings.len().max(1);
    lowest.saturating_sub((excess - freed_above).div_ceil(holders))
}

fn encoded_reset(name: &[u8]) -> Rc<[u8]> {
    let mut encoded = Vec::new();
    event_stream::encode_reset(ResetReason::Overload, &[name], None, &mut encoded);
    Rc::from(encoded)
}
