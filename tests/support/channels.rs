//! The channels of the soak test, by what may befall them.

use std::ops::Range;

/// Channels that the servers may subscribe to, and whose events are kept: the first ones.
pub(crate) const OPEN: usize = 40;

/// All of them: Redis refuses the rest to the servers.
pub(crate) const ALL: usize = 44;

/// On these messages are published that are not kept.
pub(crate) const MIXED: Range<usize> = 24..34;

/// On these somebody forges events.
pub(crate) const FORGED: Range<usize> = 30..40;

/// On these so little is published that their streams get heartbeats.
pub(crate) const QUIET: Range<usize> = 22..28;

const _: () = assert!(ALL <= u64::BITS as usize);

/// A set of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels(u64);

impl Channels {
    pub(crate) fn contains(self, channel: usize) -> bool {
        self.0 & (1 << channel) != 0
    }

    pub(crate) fn insert(&mut self, channel: usize) {
        self.0 |= 1 << channel;
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..ALL).filter(move |channel| self.contains(*channel))
    }

    /// The first that is in none of the others.
    pub(crate) fn first_beside(self, others: Self) -> Option<usize> {
        Self(self.0 & !others.0).iter().next()
    }

    pub(crate) fn filter(self, keeps: impl Fn(usize) -> bool) -> Self {
        self.iter().filter(|channel| keeps(*channel)).collect()
    }
}

impl FromIterator<usize> for Channels {
    fn from_iter<I: IntoIterator<Item = usize>>(channels: I) -> Self {
        let mut set = Self::default();
        channels.into_iter().for_each(|channel| set.insert(channel));
        set
    }
}

pub(crate) fn is_open(channel: usize) -> bool {
    channel < OPEN
}

pub(crate) fn is_mixed(channel: usize) -> bool {
    MIXED.contains(&channel)
}

pub(crate) fn is_forged(channel: usize) -> bool {
    FORGED.contains(&channel)
}

/// A channel's name in Redis.
pub(crate) fn name(channel: usize) -> String {
    match channel.checked_sub(OPEN) {
        None => format!("c{channel}"),
        Some(number) => format!("forbidden/{number}"),
    }
}

/// The channel of a name.
pub(crate) fn number(name: &str) -> Option<usize> {
    match name.strip_prefix("forbidden/") {
        None => name.strip_prefix('c')?.parse().ok(),
        Some(number) => number.parse::<usize>().ok().map(|number| number + OPEN),
    }
}

/// What Redis lets the servers do: no more than the documentation asks for, and nothing with
/// channels that are not open.
pub(crate) const RIGHTS: [&str; 21] = [
    "resetchannels",
    "&c[0-9]*",
    "&corecast:probe:*",
    "resetkeys",
    "~corecast:{c[0-9]*}",
    "~corecast:clock",
    "~corecast:plain",
    "-@all",
    "+ping",
    "+subscribe",
    "+unsubscribe",
    "+publish",
    "+multi",
    "+exec",
    "+xrevrange",
    "+xrange",
    "+time",
    "+xadd",
    "+info",
    "+function|load",
    "+fcall_ro",
];
