//! The way of an event to streams of several channels.
//!
//! Channels take turns, so a stream served from its channels' own lists would see a later event
//! before an earlier one. Streams of several channels therefore share one lane: a pass takes a
//! range of arrivals, and each stream gets its events of that range, in order of arrival, in one
//! send.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::rc::Rc;

use super::{LOOKS_PER_SEND, Streams, index, shrink};
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId, MultiId};
use crate::ground::limits::COALESCED_WRITE_BYTES_MAX;
use crate::state::channels::{Channels, Kind, waiting_bytes};
use crate::state::connections::State;
use crate::state::deadlines::Tick;
use crate::state::pages::Pages;
use crate::state::sockets::{Outcome, Sockets};

/// All streams of several channels, and the events on their way to them.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) streams: Pages<Multi>,
    pub(super) arrivals: VecDeque<Arrival>,
    pub(super) bytes: usize,
    /// Number of the newest arrival.
    newest: u64,
    pass: Option<LanePass>,
    pub(super) queued: bool,
    /// Number of the running or last pass, to tell who was served in it.
    stamp: u32,
}

/// A stream of several channels.
#[derive(Debug)]
pub(super) struct Multi {
    slot: u32,
    fd: RawFd,
    /// Arrivals up to this one were before its time.
    since: u64,
    /// Some of its channels are kept: ids of the others mean nothing to it.
    has_kept: bool,
    /// The pass that served it last.
    stamp: u32,
    pub(super) sent_at: Tick,
    seats: Box<[Seat]>,
}

/// A stream's place among a channel's members.
#[derive(Clone, Copy, Debug)]
struct Seat {
    channel: ChannelId,
    position: u32,
}

/// An encoded event in the lane.
#[derive(Debug)]
pub(super) struct Arrival {
    number: u64,
    pub(super) channel: ChannelId,
    pub(super) bytes: Rc<[u8]>,
    /// The same without the publisher's id, if it has one.
    anonymous: Option<Rc<[u8]>>,
    pub(super) kind: Kind,
    /// Of an event of the server's own.
    id: Option<EventId>,
}

/// One run over the streams that a range of arrivals concerns.
#[derive(Debug)]
struct LanePass {
    range: Vec<Arrival>,
    /// Each channel of the range once, with the places of its arrivals in the range.
    groups: Vec<(ChannelId, Vec<usize>)>,
    group_of: HashMap<ChannelId, usize>,
    /// Group and member to look at next, and how many members the group had when it began.
    group: usize,
    member: usize,
    members: Option<usize>,
    /// Channels with gaps among their members.
    gaps: Vec<ChannelId>,
}

impl Lane {
    pub(super) fn push(
        &mut self,
        channel: ChannelId,
        bytes: Rc<[u8]>,
        anonymous: Option<Rc<[u8]>>,
        kind: Kind,
        id: Option<EventId>,
    ) {
        self.newest += 1;
        self.bytes += waiting_bytes(1, bytes.len());
        let number = self.newest;
        self.arrivals.push_back(Arrival { number, channel, bytes, anonymous, kind, id });
    }

    /// Puts an event of the server's own where an arrival was dropped.
    pub(super) fn push_front(
        &mut self,
        dropped: &Arrival,
        channel: ChannelId,
        bytes: Rc<[u8]>,
        kind: Kind,
    ) {
        self.bytes += waiting_bytes(1, bytes.len());
        let (number, anonymous, id) = (dropped.number, None, None);
        self.arrivals.push_front(Arrival { number, channel, bytes, anonymous, kind, id });
    }

    /// The channels of a stream.
    pub(super) fn channels_of(&self, multi: u32) -> impl Iterator<Item = ChannelId> + Clone {
        let seats = self.streams.get(multi).map_or(&[][..], |multi| &multi.seats);
        seats.iter().map(|seat| seat.channel)
    }

    /// Whether something is on its way to streams of several channels.
    pub(super) fn is_busy(&self) -> bool {
        self.queued || self.pass.is_some() || !self.arrivals.is_empty()
    }

    /// Takes the next range of arrivals, up to the size of one write, for a pass.
    fn begin_pass(&mut self) -> bool {
        let mut range = Vec::new();
        let mut length = 0;
        while let Some(next) = self.arrivals.front()
            && (range.is_empty() || length + next.bytes.len() <= COALESCED_WRITE_BYTES_MAX)
        {
            length += next.bytes.len();
            range.extend(self.arrivals.pop_front());
        }
        if range.is_empty() {
            return false;
        }
        self.bytes -= waiting_bytes(range.len(), length);
        let mut groups: Vec<(ChannelId, Vec<usize>)> = Vec::new();
        let mut group_of = HashMap::new();
        for (place, arrival) in range.iter().enumerate() {
            let group = *group_of.entry(arrival.channel).or_insert(groups.len());
            match groups.get_mut(group) {
                Some((_, places)) => places.push(place),
                None => groups.push((arrival.channel, vec![place])),
            }
        }
        self.stamp = self.stamp.wrapping_add(1);
        let gaps = Vec::new();
        let pass = LanePass { range, groups, group_of, group: 0, member: 0, members: None, gaps };
        self.pass = Some(pass);
        true
    }
}

impl LanePass {
    fn bytes(&self) -> usize {
        self.range.iter().map(|arrival| waiting_bytes(1, arrival.bytes.len())).sum()
    }

    /// The next member to look at.
    fn next_member(&mut self, channels: &Channels) -> Option<MultiId> {
        loop {
            let (channel, _) = self.groups.get(self.group)?;
            let members = channels.get(*channel).map_or(&[][..], |c| &c.members);
            let count = *self.members.get_or_insert(members.len());
            if self.member < count
                && let Some(member) = members.get(self.member)
            {
                self.member += 1;
                return Some(*member);
            }
            self.group += 1;
            self.member = 0;
            self.members = None;
        }
    }

    /// The events of the range for a stream, in order of arrival. Resets for one reason with
    /// nothing but resets between them become one that names all their channels.
    fn pieces<'a>(
        &self,
        multi: &Multi,
        names: &dyn Fn(ChannelId) -> &'a [u8],
    ) -> Vec<(Rc<[u8]>, usize)> {
        let mut places: Vec<usize> = multi
            .seats
            .iter()
            .filter_map(|seat| self.groups.get(*self.group_of.get(&seat.channel)?))
            .flat_map(|(_, places)| places.iter().copied())
            .collect();
        places.sort_unstable();
        let mine: Vec<&Arrival> = places
            .into_iter()
            .filter_map(|place| self.range.get(place))
            .filter(|arrival| arrival.number > multi.since)
            .collect();
        let mut pieces = Vec::with_capacity(mine.len());
        for (place, arrival) in mine.iter().enumerate() {
            let Kind::Reset(reason) = arrival.kind else {
                let anonymous = arrival.anonymous.as_ref().filter(|_| multi.has_kept);
                pieces.push((Rc::clone(anonymous.unwrap_or(&arrival.bytes)), 0));
                continue;
            };
            let is_reset = |other: &&&Arrival| matches!(other.kind, Kind::Reset(_));
            let (before, from) = mine.split_at_checked(place).unwrap_or_default();
            let mut later = from.iter().skip(1).take_while(is_reset).peekable();
            // An id passes by what all of them tell of, so it stands in the last.
            let is_last = later.peek().is_none();
            if later.any(|other| other.kind == arrival.kind) {
                continue;
            }
            let run = before.iter().rev().take_while(is_reset).count();
            let run = mine.get(place - run..=place).unwrap_or_default();
            pieces.push((merged_reset(reason, run, is_last, names), 0));
        }
        pieces
    }
}

impl Streams {
    pub(super) fn join_many(&mut self, id: ConnectionId, channels: Vec<ChannelId>) {
        let has_kept = channels.iter().any(|channel| self.is_kept(*channel));
        let Some(connection) = self.connections.get_mut(id) else { return };
        let multi = MultiId(self.lane.streams.insert(Multi {
            slot: id.slot,
            fd: connection.fd,
            since: self.lane.newest,
            has_kept,
            stamp: self.lane.stamp,
            sent_at: self.now,
            seats: Box::default(),
        }));
        connection.state = State::Many;
        connection.home = multi.0;
        let seats = channels
            .into_iter()
            .filter_map(|channel| {
                let members = &mut self.channels.get_mut(channel)?.members;
                members.push(multi);
                Some(Seat { channel, position: index(members.len() - 1) })
            })
            .collect();
        if let Some(entry) = self.lane.streams.get_mut(multi.0) {
            entry.seats = seats;
        }
    }

    pub(super) fn leave_many(&mut self, multi: u32) {
        let Some(entry) = self.lane.streams.get_mut(multi) else { return };
        let seats = std::mem::take(&mut entry.seats);
        self.lane.streams.release(multi);
        for seat in seats {
            self.leave_seat(seat);
            self.release(seat.channel);
        }
    }

    fn leave_seat(&mut self, seat: Seat) {
        let Some(channel) = self.channels.get_mut(seat.channel) else { return };
        let position = seat.position as usize;
        if let Some(pass) = &mut self.lane.pass {
            if let Some(member) = channel.members.get_mut(position) {
                *member = MultiId::GAP;
                pass.gaps.push(seat.channel);
            }
            return;
        }
        if position < channel.members.len() {
            channel.members.swap_remove(position);
            if let Some(moved) = channel.members.get(position) {
                self.lane.move_seat(*moved, seat.channel, position);
            }
            shrink(&mut channel.members);
        }
    }

    /// Serves streams of several channels with at most `budget` sends. Returns how many it took,
    /// and whether the lane has more to send.
    pub(super) fn many_turn(&mut self, budget: usize, sockets: &mut impl Sockets) -> (usize, bool) {
        if self.lane.pass.is_none() && !self.lane.begin_pass() {
            self.lane.queued = false;
            return (0, false);
        }
        let mut looks = 0;
        while looks < budget * LOOKS_PER_SEND {
            let Some(pass) = &mut self.lane.pass else { break };
            let Some(member) = pass.next_member(&self.channels) else {
                self.end_lane_pass();
                self.lane.queued = !self.lane.arrivals.is_empty();
                break;
            };
            looks += if self.serve_many(member, sockets) { LOOKS_PER_SEND } else { 1 };
        }
        (looks.div_ceil(LOOKS_PER_SEND), self.lane.queued)
    }

    /// Sends a stream its events of the running pass. False if it was served already.
    fn serve_many(&mut self, member: MultiId, sockets: &mut impl Sockets) -> bool {
        let stamp = self.lane.stamp;
        let Some(pass) = &self.lane.pass else { return false };
        let Some(multi) = self.lane.streams.get_mut(member.0) else { return false };
        if multi.stamp == stamp {
            return false;
        }
        multi.stamp = stamp;
        let (slot, fd) = (multi.slot, multi.fd);
        let Some(multi) = self.lane.streams.get(member.0) else { return false };
        let pieces = pass.pieces(multi, &|id| self.public_name(id));
        if pieces.is_empty() {
            return false;
        }
        if let Some(multi) = self.lane.streams.get_mut(member.0) {
            multi.sent_at = self.now;
        }
        let length: usize = pieces.iter().map(|(bytes, _)| bytes.len()).sum();
        self.counters.deliveries.add(pieces.len() as u64);
        self.counters.delivered_bytes.add(length as u64);

        let outcome = if self.connections.has_backlog(slot) {
            Outcome::Skipped
        } else {
            let sent = match pieces.as_slice() {
                [(only, _)] => sockets.send(fd, only),
                _ => {
                    self.scratch.clear();
                    pieces.iter().for_each(|(bytes, _)| self.scratch.extend_from_slice(bytes));
                    sockets.send(fd, &self.scratch)
                }
            };
            match sent {
                Ok(sent) if sent == length => return true,
                Ok(sent) => Outcome::Partial(sent),
                Err(_) => Outcome::Failed,
            }
        };
        self.settle(slot, outcome, &pieces, sockets);
        true
    }

    fn end_lane_pass(&mut self) {
        let Some(pass) = self.lane.pass.take() else { return };
        self.intake_bytes -= pass.bytes();
        let mut gaps = pass.gaps;
        gaps.sort_unstable();
        gaps.dedup();
        for id in gaps {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            channel.members.retain(|member| *member != MultiId::GAP);
            for (position, member) in channel.members.iter().enumerate() {
                self.lane.move_seat(*member, id, position);
            }
            shrink(&mut channel.members);
        }
    }
}

impl Lane {
    /// Notes a stream's new place among a channel's members. O(1): channels per stream are bounded.
    fn move_seat(&mut self, multi: MultiId, channel: ChannelId, position: usize) {
        let Some(entry) = self.streams.get_mut(multi.0) else { return };
        if let Some(seat) = entry.seats.iter_mut().find(|seat| seat.channel == channel) {
            seat.position = index(position);
        }
    }
}

fn merged_reset<'a>(
    reason: ResetReason,
    mine: &[&Arrival],
    is_last: bool,
    name: &dyn Fn(ChannelId) -> &'a [u8],
) -> Rc<[u8]> {
    let same: Vec<&&Arrival> = mine.iter().filter(|a| a.kind == Kind::Reset(reason)).collect();
    let id = mine.iter().rev().find_map(|arrival| arrival.id).filter(|_| is_last);
    if let [only] = same.as_slice()
        && only.id == id
    {
        return Rc::clone(&only.bytes);
    }
    let id = id.map(|id| id.to_string());
    let mut names: Vec<&[u8]> = Vec::new();
    for arrival in same {
        let name = name(arrival.channel);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut encoded = Vec::new();
    let id = id.as_ref().map(|id| id.as_bytes());
    event_stream::encode_reset(reason, &names, id, &mut encoded);
    Rc::from(encoded)
}
