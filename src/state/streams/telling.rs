//! What streams on their way to the present are told of what they miss.

use super::Streams;
use crate::bytes::event_stream::{self, ResetReason};
use crate::bytes::history::EventId;
use crate::state::catch_up::CatchUp;
use crate::state::channels::{Channel, Channels};

impl Streams {
    /// Who comes back to a channel that has had events which nobody keeps is told.
    pub(super) fn lack_mixed(&self, catch_up: &mut CatchUp) {
        for place in &mut catch_up.places {
            if self.is_kept(place.channel) && self.is_mixed(place.channel) {
                place.lack_now(ResetReason::NoHistory);
            }
        }
    }

    /// Appends what the client has still to be told before the stream joins its channels. It has
    /// everything else.
    pub(super) fn encode_rest(&self, catch_up: &mut CatchUp, bytes: &mut Vec<u8>) {
        if catch_up.start.returns() {
            self.lack_mixed(catch_up);
        }
        if catch_up.is_begun {
            // What was published without history since the head was sent went to others.
            for place in &mut catch_up.places {
                let plain = self.channels.get(place.channel).and_then(Channel::plain);
                let has_had_others = plain != place.plain && self.is_mixed(place.channel);
                let is_plain = self.recent(place.channel).is_none();
                if has_had_others || is_plain {
                    place.lack_now(ResetReason::NoHistory);
                }
            }
        }
        self.encode_resets(catch_up, self.history.confirmed(), true, bytes);
    }

    /// Appends what the client has to be told of what is missing, up to an id; `all`: also of
    /// channels that are not kept, since the stream joins them.
    pub(super) fn encode_resets(
        &self,
        catch_up: &mut CatchUp,
        until: Option<EventId>,
        all: bool,
        bytes: &mut Vec<u8>,
    ) {
        let mut resets: Vec<(ResetReason, Vec<&[u8]>)> = Vec::new();
        for place in &mut catch_up.places {
            let Some(reset) = place.reset.as_mut().filter(|reset| !reset.is_told) else { continue };
            if !all && !self.is_kept(place.channel) {
                continue;
            }
            reset.is_told = true;
            let name = self.public_name(place.channel);
            match resets.iter_mut().find(|(reason, _)| *reason == reset.reason) {
                Some((_, names)) => names.push(name),
                None => resets.push((reset.reason, vec![name])),
            }
        }
        // The id passes by what all of them tell of, so it stands in the last.
        let id = until.map(|id| id.to_string());
        let count = resets.len();
        for (number, (reason, names)) in (1..).zip(resets) {
            let id = id.as_ref().filter(|_| number == count).map(|id| id.as_bytes());
            event_stream::encode_reset(reason, &names, id, bytes);
            self.counters.resets.add(1);
        }
    }
}

/// Notes how many events without history its channels have had when its head is sent.
pub(super) fn note_plain(channels: &Channels, catch_up: &mut CatchUp) {
    for place in &mut catch_up.places {
        place.plain = channels.get(place.channel).and_then(Channel::plain);
    }
}
