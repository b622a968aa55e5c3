//! Streams on their way to the present: from the id of the last event that the client had, through
//! what it missed, to their channels' lists.
//!
//! Every stream of a channel whose events are kept comes this way; one that wants nothing of the
//! past passes through in no time. It has one cursor for all its channels: everything up to there
//! was sent, or the client was told of it. For each channel it has at hand what comes next, in a
//! page that was read or in what has arrived; so it may send, merged by id, up to where the first
//! of these ends, and needs the next page of that channel then. Once all that is missing has
//! arrived by itself, the stream joins the lists, in the same step, so that nothing can come in
//! between.
//!
//! It waits for one thing at a time and then looks again, once; the crate's documentation has
//! the table. Whatever it finds, an id that it sends claims no more than was sent before: a hole
//! is told before anything later is.

use std::rc::Rc;

use super::telling::note_plain;
use super::{LinkState, Streams};
use crate::bytes::event_stream::{self, FIRST_EVENT_ID, ResetReason};
use crate::bytes::history::EventId;
use crate::ground::ids::{ChannelId, ConnectionId};
use crate::ground::limits::{
    CATCH_UP_LOOK_BYTES_MAX, CATCH_UP_WRITE_BYTES_MAX, LAST_EVENTS_COUNTED_MAX,
};
use crate::state::catch_up::{CatchUp, First, Start};
use crate::state::channels::Subscription;
use crate::state::connections::{Rare, State};
use crate::state::history_page::HistoryPage;
use crate::state::recent::{Need, Recent};
use crate::state::sockets::Sockets;

/// What comes next for a stream.
enum Step {
    Wait,
    /// Some of what was missed; the stream looks again at once, or waits for more.
    Send {
        bytes: Vec<u8>,
        goes_on: bool,
    },
    /// The rest of it.
    Join(Vec<u8>),
}

/// Events of one channel after the cursor.
struct Source<'a> {
    /// Of the stream's places.
    place: usize,
    events: Events<'a>,
    /// Of the next event.
    number: usize,
}

enum Events<'a> {
    Page(Rc<HistoryPage>),
    Arrived(&'a Recent),
}

/// An event to be sent.
#[derive(Clone, Copy)]
struct Next {
    id: EventId,
    /// Nothing is known of what is between this and the event before.
    previous: Option<EventId>,
}

/// Bytes that are as much work as an event of none.
const EVENT_COST: usize = 64;

impl Streams {
    /// Makes the connection a stream of `channels`, some of which are kept. True if it has to wait.
    pub(super) fn begin_catch_up(
        &mut self,
        id: ConnectionId,
        mut catch_up: CatchUp,
        sockets: &mut impl Sockets,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.state = State::CatchingUp;
        if catch_up.start.returns() {
            for place in &mut catch_up.places {
                if !self.is_kept(place.channel) {
                    place.lack(ResetReason::NoHistory);
                }
            }
        }
        if matches!(catch_up.start, Start::Now | Start::Last(0)) {
            self.begin_with_present(&mut catch_up);
        }
        self.connections.set_rare(id.slot, Rare::CatchUp(Box::new(catch_up)));
        self.catch_up(id, sockets);
        self.connections.get(id).is_some_and(|c| c.state == State::CatchingUp)
    }

    /// Lets a stream that catches up look again, once.
    pub(super) fn wake(&mut self, id: ConnectionId) {
        if let Some(catch_up) = self.connections.catch_up_mut(id)
            && !std::mem::replace(&mut catch_up.is_ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// Takes a stream as far towards the present as it goes now. Returns the bytes that it sent,
    /// more for events of next to none.
    pub(super) fn catch_up(&mut self, id: ConnectionId, sockets: &mut impl Sockets) -> usize {
        let mut bytes = 0;
        self.counters.looks.add(1);
        self.history.looked_at = self.now;
        while bytes < CATCH_UP_LOOK_BYTES_MAX {
            let (cost, goes_on) = self.catch_up_once(id, sockets);
            bytes += cost;
            if !goes_on {
                return bytes;
            }
        }
        self.wake(id);
        bytes
    }

    /// The same with one write. True if there is more to send at once.
    fn catch_up_once(&mut self, id: ConnectionId, sockets: &mut impl Sockets) -> (usize, bool) {
        if self.connections.get(id).is_none_or(|c| c.state != State::CatchingUp) {
            return (0, false);
        }
        let mut catch_up = match self.connections.take_rare(id.slot) {
            Rare::CatchUp(catch_up) => catch_up,
            other => {
                self.connections.set_rare(id.slot, other);
                return (0, false);
            }
        };
        catch_up.is_ready = false;
        catch_up.gathered = 0;
        let step = self.next_step(id, &mut catch_up);
        let work = catch_up.gathered * EVENT_COST;
        catch_up.has_looked = true;
        match step {
            Step::Wait => {
                self.connections.set_rare(id.slot, Rare::CatchUp(catch_up));
                (0, false)
            }
            Step::Send { bytes, goes_on } => {
                self.connections.set_rare(id.slot, Rare::CatchUp(catch_up));
                self.send_own(id, &bytes, sockets);
                (bytes.len().max(work), goes_on && !self.connections.has_backlog(id.slot))
            }
            Step::Join(bytes) => {
                self.join(id, *catch_up);
                self.send_own(id, &bytes, sockets);
                (bytes.len().max(work), false)
            }
        }
    }

    fn join(&mut self, id: ConnectionId, mut catch_up: CatchUp) {
        self.release_pages(&mut catch_up);
        self.count_resumed(&catch_up);
        let channels: Vec<ChannelId> =
            catch_up.places.into_iter().map(|place| place.channel).collect();
        match *channels.as_slice() {
            [channel] => self.join_one(id, channel),
            _ => self.join_many(id, channels),
        }
        self.counters.streams.add(1);
    }

    fn count_resumed(&self, catch_up: &CatchUp) {
        if catch_up.start == Start::Now {
            return;
        }
        let counters = &self.counters;
        let has_reset = catch_up.places.iter().any(|place| place.reset.is_some());
        let counter = match (has_reset, catch_up.has_read) {
            (true, _) => &counters.resumed_with_reset,
            (false, true) => &counters.resumed_from_redis,
            (false, false) => &counters.resumed_from_memory,
        };
        counter.add(1);
    }

    /// Sends the head of a stream that waits: the rest follows.
    pub(super) fn open_early(&mut self, id: ConnectionId, sockets: &mut impl Sockets) {
        let position = self.history.position.filter(|_| !self.history.is_given_up);
        let Some(catch_up) = self.connections.catch_up_mut(id) else { return };
        let First::Unsent { head, retry_ms } = std::mem::replace(&mut catch_up.first, First::Sent)
        else {
            return;
        };
        note_plain(&self.channels, catch_up);
        // An id promises that the client has everything up to there.
        let has = match (catch_up.start, catch_up.cursor, position) {
            (Start::Now, None, Some(position)) => {
                // What is published from here on will be made up for.
                catch_up.start = Start::After(position);
                Some(position)
            }
            (Start::Now, None, None) => {
                catch_up.start = Start::Unheard;
                None
            }
            (Start::After(after), ..) => Some(after),
            (Start::Unknown, None, _) => None,
            (Start::Last(_) | Start::All, None, position) => {
                catch_up.opened = position;
                if position.is_none() {
                    // Nobody knows what of all that is kept is published from here on.
                    catch_up.places.iter_mut().for_each(|p| p.lack(ResetReason::LinkLost));
                }
                None
            }
            (_, cursor, _) => cursor,
        };
        let start = catch_up.start;
        if start != Start::Unknown {
            // Nothing makes up for what is published on a channel that is not kept.
            let channels = &self.channels;
            for place in &mut catch_up.places {
                if channels.get(place.channel).is_some_and(|c| c.recent.is_none()) {
                    place.lack_once(ResetReason::LinkLost);
                }
            }
        }
        let mut bytes = head;
        encode_first(start, has, retry_ms, &mut bytes);
        self.send_own(id, &bytes, sockets);
    }

    fn next_step(&mut self, id: ConnectionId, catch_up: &mut CatchUp) -> Step {
        if catch_up.unsent.is_some() {
            self.release_pages(catch_up);
            return Step::Wait;
        }
        let is_current = self.link == LinkState::Up && self.history.is_current();
        let Some(position) = self.history.position.filter(|_| is_current) else {
            self.release_pages(catch_up);
            self.history.suspended.push(id);
            return Step::Wait;
        };
        catch_up.begin_step(position);
        if self.history.is_given_up && (catch_up.is_open() || catch_up.start.returns()) {
            // What came since its head was sent, or since it was here before, went to nobody.
            catch_up.places.iter_mut().for_each(|place| place.lack_now(ResetReason::NoHistory));
        }
        if self.waits_for_subscriptions(id, catch_up) {
            return Step::Wait;
        }
        if catch_up.cursor.is_none() {
            catch_up.cursor = self.resolve(id, catch_up, position);
        }
        let Some(mut cursor) = self.proven_cursor(id, catch_up, position) else {
            return Step::Wait;
        };
        let mut bytes = Vec::new();
        if let First::Unsent { head, retry_ms } =
            std::mem::replace(&mut catch_up.first, First::Sent)
        {
            bytes = head;
            note_plain(&self.channels, catch_up);
            let has = Some(cursor).filter(|_| !self.history.is_given_up);
            encode_first(catch_up.start, has, retry_ms, &mut bytes);
        }
        loop {
            let needs = self.cover(catch_up, cursor);
            if !needs.is_empty() {
                self.await_needs(id, catch_up, needs, position);
                if bytes.is_empty() {
                    return Step::Wait;
                }
                return Step::Send { bytes, goes_on: false };
            }
            let pages = catch_up.places.iter().filter_map(|place| place.page.as_ref());
            let limit = pages.map(|page| page.to()).min();
            let is_all = self.gather(catch_up, limit, &mut bytes);
            if !is_all {
                return Step::Send { bytes, goes_on: true };
            }
            let sent = catch_up.cursor.unwrap_or(cursor);
            let Some(limit) = limit else {
                self.encode_rest(catch_up, &mut bytes);
                return Step::Join(bytes);
            };
            cursor = limit.max(sent);
            catch_up.cursor = Some(cursor);
        }
    }

    /// Lets the stream wait for what it needs of its channels.
    fn await_needs(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        needs: Vec<(ChannelId, Need)>,
        position: EventId,
    ) {
        // What is read up to an id is all only if Redis has given that.
        let is_ahead = |(channel, _): &(ChannelId, Need)| {
            self.recent(*channel).and_then(Recent::floor).is_some_and(|floor| floor > position)
        };
        if !needs.iter().any(is_ahead) || !self.waits_for_clock(id, catch_up) {
            self.await_history(id, catch_up, needs);
        }
    }

    /// How far the stream has come. It may have had events ahead of the clock that were none, or
    /// that Redis has lost since: then it has not had all that came later on its other channels.
    fn proven_cursor(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        position: EventId,
    ) -> Option<EventId> {
        let cursor = catch_up.cursor?;
        if cursor > position && catch_up.is_open() {
            if self.waits_for_clock(id, catch_up) {
                return None;
            }
        } else if !self.history.is_of_lost_time(cursor) {
            catch_up.clock_needed = None;
            return Some(cursor);
        }
        catch_up.clock_needed = None;
        catch_up.cursor = Some(self.start_anew(catch_up, ResetReason::UnknownId));
        catch_up.cursor
    }

    fn waits_for_subscriptions(&mut self, id: ConnectionId, catch_up: &mut CatchUp) -> bool {
        let mut missing = Vec::new();
        for place in &mut catch_up.places {
            let Some(entry) = self.channels.get(place.channel) else { continue };
            match entry.subscription {
                Subscription::Standing if std::mem::take(&mut place.is_refused) => {
                    place.lack(ResetReason::LinkLost);
                }
                Subscription::Standing => {}
                // It is told again once the subscription stands.
                Subscription::Refused => {
                    place.is_refused = true;
                    place.lack_once(ResetReason::LinkLost);
                }
                Subscription::Idle | Subscription::Asked => missing.push(place.channel),
            }
        }
        if missing.is_empty() {
            return false;
        }
        let ticket = catch_up.wait(missing.len());
        for channel in missing {
            self.waiters.entry(channel).or_default().push((id, ticket));
        }
        true
    }

    /// Finds out where the stream begins; `None` while something is to be asked for that.
    fn resolve(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        position: EventId,
    ) -> Option<EventId> {
        // Who is told that it has missed something does not begin with some of that.
        let is_unknown = matches!(catch_up.start, Start::Unknown | Start::Unheard);
        if is_unknown && self.waits_for_clock(id, catch_up) {
            return None;
        }
        let after = match catch_up.start {
            Start::Now => return Some(position),
            Start::Unknown => return Some(self.start_anew(catch_up, ResetReason::UnknownId)),
            Start::Unheard => return Some(self.start_anew(catch_up, ResetReason::LinkLost)),
            Start::All => {
                let since = self.history.since;
                catch_up.places.iter_mut().for_each(|place| place.excused = since);
                catch_up.begun_at = catch_up.opened.unwrap_or(position);
                return Some(EventId::ZERO);
            }
            Start::Last(0) => return Some(catch_up.opened.unwrap_or(position)),
            Start::Last(count) if count > LAST_EVENTS_COUNTED_MAX => {
                catch_up.start = Start::All;
                return self.resolve(id, catch_up, position);
            }
            Start::Last(count) => {
                catch_up.begun_at = catch_up.opened.unwrap_or(position);
                return self.start_of_last(id, catch_up, count, position);
            }
            Start::Ago(ms) => {
                let now_ms = self.history.redis_time_ms(self.now_ms);
                self.start_at(catch_up, now_ms.saturating_sub(ms), position)
            }
            Start::At(ms) => self.start_at(catch_up, ms, position),
            Start::After(after) => after,
        };
        if after > position {
            // Another worker may know of later events.
            if self.waits_for_clock(id, catch_up) {
                return None;
            }
            return Some(self.start_anew(catch_up, ResetReason::UnknownId));
        }
        if self.history.is_of_lost_time(after) {
            return Some(self.start_anew(catch_up, ResetReason::UnknownId));
        }
        for place in &mut catch_up.places {
            let lapsed = self.recent(place.channel).and_then(|recent| recent.lapsed);
            if lapsed.is_some_and(|lapsed| after <= lapsed) {
                place.lack_once(ResetReason::LinkLost);
            }
        }
        self.lack_mixed(catch_up);
        Some(after)
    }

    /// Whether the position is still to be asked for. A question that is on its way does not do:
    /// the client may have got its id after that.
    fn waits_for_clock(&mut self, id: ConnectionId, catch_up: &mut CatchUp) -> bool {
        if self.history.channels == 0 {
            return false;
        }
        let needed = *catch_up.clock_needed.get_or_insert_with(|| self.history.next_clock());
        if self.history.has_told(needed) {
            return false;
        }
        catch_up.wait(0);
        self.history.clock_waiters.push(id);
        true
    }

    /// The stream wants nothing that has arrived by now. Some of that may be ahead of the clock.
    fn begin_with_present(&self, catch_up: &mut CatchUp) {
        for place in &mut catch_up.places {
            let arrived = self.standing(place.channel).and_then(Recent::newest);
            place.begins_after = arrived.unwrap_or_default();
        }
    }

    /// Nothing is known of what the client has: it is told, and begins with the present.
    fn start_anew(&self, catch_up: &mut CatchUp, reason: ResetReason) -> EventId {
        for place in &mut catch_up.places {
            if self.is_kept(place.channel) {
                place.lack_now(reason);
            } else {
                place.lack_once(ResetReason::NoHistory);
            }
        }
        catch_up.start = Start::Unknown;
        self.history.position.unwrap_or_default()
    }

    /// The id after which a stream begins that asks for a time. One at which Redis kept nothing, or
    /// has lost it, is none that the client has brought: what is there of later follows.
    fn start_at(&self, catch_up: &mut CatchUp, ms: u64, position: EventId) -> EventId {
        let mut after = catch_up.begin_after(before(ms)).min(position);
        while let Some(begin) = self.history.lost_since(after) {
            after = begin;
        }
        after
    }

    /// The id after which the newest `count` events of the stream's channels come; `None` while
    /// some are still to be read.
    fn start_of_last(
        &mut self,
        id: ConnectionId,
        catch_up: &mut CatchUp,
        count: usize,
        position: EventId,
    ) -> Option<EventId> {
        let mut needs = Vec::new();
        let mut ids = Vec::new();
        for place in &mut catch_up.places {
            let Some(recent) = self.standing(place.channel) else { continue };
            if recent.count() >= count {
                ids.extend(recent.newest_first(EventId::ZERO).take(count));
                continue;
            }
            if place.index.is_none() {
                place.index = recent.index(count).cloned();
            }
            let Some(index) = &place.index else {
                needs.push((place.channel, Need::Newest(count)));
                continue;
            };
            let told = index.ids.first().copied().unwrap_or(index.previous);
            let arrived = recent.newest_first(told);
            ids.extend(arrived.chain(index.ids.iter().copied()).take(count));
            if index.is_lost {
                place.lack(ResetReason::HistoryTrimmed);
            } else if index.is_whole {
                place.excused = index.previous;
            }
        }
        if !needs.is_empty() {
            self.await_history(id, catch_up, needs);
            return None;
        }
        catch_up.places.iter_mut().for_each(|place| place.index = None);
        if let Some(last) = count.checked_sub(1).filter(|last| *last < ids.len()) {
            ids.select_nth_unstable_by(last, |a, b| b.cmp(a));
            ids.truncate(count);
        }
        let first = ids.into_iter().min();
        let after = first.map_or(position, |first| first.before().unwrap_or(first));
        let after = after.min(catch_up.opened.unwrap_or(after));
        // One that is ahead of the clock, or of which that knows nothing, is no place to be at.
        Some(catch_up.begin_after(after).min(position))
    }

    /// What is known of a channel's history, where its subscription stands.
    fn standing(&self, id: ChannelId) -> Option<&Recent> {
        let channel = self.channels.get(id)?;
        channel.recent.as_deref().filter(|_| channel.subscription == Subscription::Standing)
    }

    /// Takes to hand what comes after `cursor` on each channel. What is not there is returned.
    fn cover(&self, catch_up: &mut CatchUp, cursor: EventId) -> Vec<(ChannelId, Need)> {
        let mut needs = Vec::new();
        // Who has had nothing yet wanted what there was, and what has come since.
        let begun_at = Some(catch_up.begun_at).filter(|_| !catch_up.has_had_events);
        let begun_at = begun_at.unwrap_or_default();
        for place in &mut catch_up.places {
            let Some(recent) = self.standing(place.channel) else {
                place.page = None;
                continue;
            };
            if recent.has_arrived(cursor) {
                place.page = None;
                continue;
            }
            if place.page.as_ref().is_none_or(|page| !page.continues(cursor)) {
                place.page = recent.page(cursor).cloned();
            }
            match &place.page {
                None => needs.push((place.channel, Need::After(cursor))),
                Some(page) if page.is_empty() => {
                    // Who asks for all asks for what was before the rest, and for nothing where
                    // there is no rest.
                    let begins = catch_up.start == Start::All && page.is_followed();
                    let from = if begins { cursor } else { cursor.max(begun_at) };
                    if page.lost_until() > from.max(place.excused) {
                        place.excused = page.lost_until();
                        place.lack(ResetReason::HistoryTrimmed);
                    }
                }
                Some(_) => {}
            }
        }
        needs
    }

    /// Appends what the stream missed after its cursor, in the order of publication, up to `limit`
    /// and to the size of one write. Moves the cursor on to the last event. True if that is all.
    fn gather(&self, catch_up: &mut CatchUp, limit: Option<EventId>, bytes: &mut Vec<u8>) -> bool {
        let bytes_max = CATCH_UP_WRITE_BYTES_MAX.min(self.limits.max_pending_bytes);
        let mut sources = self.sources(catch_up);
        let mut count = 0;
        let mut is_all = true;
        loop {
            let first = sources
                .iter()
                .enumerate()
                .filter_map(|(number, source)| Some((number, source.next()?)))
                .min_by_key(|(_, next)| next.id);
            let Some((number, next)) = first else { break };
            if limit.is_some_and(|limit| next.id > limit) {
                break;
            }
            if count > 0 && bytes.len().max(catch_up.gathered * EVENT_COST) >= bytes_max {
                is_all = false;
                break;
            }
            catch_up.gathered += 1;
            // An event that arrived ahead of the clock may be none, and its id no place to be at.
            let confirmed = catch_up.cursor.filter(|cursor| Some(*cursor) <= self.history.position);
            self.encode_resets(catch_up, confirmed, false, bytes);
            let Some(source) = sources.get_mut(number) else { break };
            bytes.extend_from_slice(source.bytes());
            catch_up.cursor = Some(next.id);
            catch_up.has_had_events = true;
            source.number += 1;
            count += 1;
            note_hole(catch_up, source, next.id);
        }
        self.counters.deliveries.add(count);
        is_all
    }

    /// What is at hand of each channel. Holes at its beginning are noted.
    fn sources(&self, catch_up: &mut CatchUp) -> Vec<Source<'_>> {
        let mut sources = Vec::with_capacity(catch_up.places.len());
        for number in 0..catch_up.places.len() {
            let Some(place) = catch_up.places.get(number) else { continue };
            let Some(recent) = self.standing(place.channel) else { continue };
            let cursor = catch_up.cursor.unwrap_or_default().max(place.begins_after);
            let source = match &place.page {
                Some(page) => Source {
                    place: number,
                    number: page.position(cursor),
                    events: Events::Page(Rc::clone(page)),
                },
                None => Source {
                    place: number,
                    number: recent.position(cursor),
                    events: Events::Arrived(recent),
                },
            };
            note_hole(catch_up, &source, cursor);
            sources.push(source);
        }
        sources
    }
}

/// Notes that events may be missing before the next one of a page. What has arrived has no holes.
fn note_hole(catch_up: &mut CatchUp, source: &Source<'_>, after: EventId) {
    let Some(previous) = source.next().and_then(|next| next.previous) else { return };
    let Some(place) = catch_up.places.get_mut(source.place) else { return };
    if previous > after.max(place.excused) {
        place.excused = previous;
        place.lack(ResetReason::HistoryTrimmed);
    }
}

impl Source<'_> {
    fn next(&self) -> Option<Next> {
        match &self.events {
            Events::Page(page) => page
                .entry(self.number)
                .map(|(entry, _)| Next { id: entry.id, previous: Some(entry.previous) }),
            Events::Arrived(recent) => {
                recent.event(self.number).map(|event| Next { id: event.id, previous: None })
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match &self.events {
            Events::Page(page) => page.entry(self.number).map_or(&[], |(_, bytes)| bytes),
            Events::Arrived(recent) => recent.event(self.number).map_or(&[], |event| &event.bytes),
        }
    }
}

/// The last id before a time, in milliseconds since 1970.
fn before(ms: u64) -> EventId {
    EventId { ms, seq: 0 }.before().unwrap_or_default()
}

/// The first block of a stream. Its id is what the client has; where that is not known, it is one
/// that only says that the client was here, unless it brought one of its own.
fn encode_first(start: Start, has: Option<EventId>, retry_ms: u64, bytes: &mut Vec<u8>) {
    let id = match (start, has) {
        (Start::Unknown, _) => None,
        (_, Some(id)) => Some(id.to_string().into_bytes()),
        (_, None) => Some(FIRST_EVENT_ID.to_vec()),
    };
    event_stream::encode_open(retry_ms, id.as_deref(), bytes);
}
