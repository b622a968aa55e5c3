//! Publishers that disturb the soak test: with messages that are not kept, forged or too long, and
//! without the rights that it takes.

use std::sync::mpsc::Sender;

use corecast::bytes::history::EventId;

use super::channels;
use super::clock::time_of_day_ms;
use super::follower::{message_data, payload};
use super::kept::Publisher;
use super::ledger::{FORGED_MS, Message, MessageKind, Notice};
use super::redis::{Client, Redis, Reply};
use super::resumption::add_user;

/// What the servers take for too long: more than `--max-event-bytes`.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024;

/// Users that may do anything but what stands here.
const UNENTITLED: [(&str, &[&str]); 3] = [
    ("mute", &["~*", "resetchannels", "&c0"]),
    ("reader", &["&*", "resetkeys", "%R~*", "~corecast:clock"]),
    ("keeper", &["~*", "&*", "-xadd"]),
];

pub(crate) struct Intruder {
    client: Client,
    unentitled: Vec<Publisher>,
    random: fastrand::Rng,
    notices: Sender<Notice>,
    /// Of the next message.
    number: u32,
    /// Publications that were refused.
    pub(crate) refused: u64,
}

impl Intruder {
    pub(crate) fn new(redis: &Redis, notices: Sender<Notice>, seed: u64) -> Self {
        let unentitled = UNENTITLED.map(|(name, rights)| {
            add_user(&mut redis.client(), name, &[&["+@all"], rights].concat());
            let mut client = redis.client();
            let reply = client.command(&[b"AUTH", name.as_bytes(), b"pw"]);
            assert_eq!(reply, Reply::Simple("OK".to_owned()));
            Publisher::over(client, 1000)
        });
        Self {
            client: redis.client(),
            unentitled: unentitled.into(),
            random: fastrand::Rng::with_seed(seed),
            notices,
            number: 0,
            refused: 0,
        }
    }

    /// Disturbs, or does not: `forges` says whether it may forge. `newest` is the id of the latest
    /// event. Draws the same number of times from its seed, whatever comes out.
    pub(crate) fn intrude(&mut self, forges: bool, newest: EventId) {
        let kind = self.random.u32(0..100);
        let (choice, length) = (self.random.usize(0..10_000), self.random.usize(1..30_000));
        let mixed = channels::MIXED.start + choice % channels::MIXED.len();
        let forged = channels::FORGED.start + choice % channels::FORGED.len();
        match kind {
            0..=7 => self.publish_plain(mixed, choice / 100),
            8..=12 => self.publish_plain_oversize(mixed, choice / 100, length),
            13..=17 => self.publish_unentitled(1 + choice % (channels::OPEN - 1), choice / 100),
            18..=60 if forges => self.forge(forged, choice / 10, newest, 0),
            61..=63 if forges => self.forge(forged, choice / 10, newest, EVENT_BYTES_MAX + length),
            _ => {}
        }
    }

    /// Something that is no envelope, though most of it begins like one.
    fn publish_plain(&mut self, channel: usize, choice: usize) {
        let heads = [
            "",
            "\0",
            "\0{",
            "\0\n",
            "\0 \n",
            "\0abc-1 <0-0\n",
            "\0-5-0 <0-0\n",
            "\x0005-0 <0-0\n",
            "\x0018446744073709551616-0 <0-0\n",
            "\x005-0\n",
            "\x005-0 9-0\n",
            "\x005-0 5-0\n",
            "\x005 4\n",
        ];
        let head = heads[choice % heads.len()];
        self.publish(channel, MessageKind::Plain, head, 0);
    }

    fn publish_plain_oversize(&mut self, channel: usize, choice: usize, length: usize) {
        let head = ["", "\0", "\x005-0 9-0\n"][choice % 3];
        self.publish(channel, MessageKind::Plain, head, EVENT_BYTES_MAX + length);
    }

    /// What looks as if it were kept, and lies ahead of all time.
    fn forge(&mut self, channel: usize, choice: usize, newest: EventId, length: usize) {
        let far = EventId { ms: FORGED_MS + choice as u64, seq: 7 };
        let max = EventId { ms: u64::MAX, seq: 0 };
        let id = [max, far, EventId { seq: u64::MAX, ..max }, far][choice % 4];
        let before = id.before().unwrap();
        let head = match choice / 4 % 7 {
            0 => format!("\0{id} <0-0\n"),
            1 => format!("\0{id} 0-0\n"),
            2 | 3 => format!("\0{id} {before}\n"),
            4 => format!("\0{id} <{before}\n"),
            5 => format!("\0{id} {newest}\n"),
            // It names one that is yet to come.
            _ => format!("\0{id} {}-0\n", newest.ms + 1 + choice as u64 % 50),
        };
        self.publish(channel, MessageKind::Forged, &head, length);
    }

    /// The servers see that it is too long if it is to be of more than [`EVENT_BYTES_MAX`].
    fn publish(&mut self, channel: usize, kind: MessageKind, head: &str, length: usize) {
        let number = self.number;
        self.number += 1;
        let data = message_data(kind, channel, number);
        let message = format!("{head}{data:.<length$}");
        let is_oversize = length > EVENT_BYTES_MAX;
        let sent_ms = time_of_day_ms();
        // The clients' thread tells itself why it has ended.
        let told = Message { channel, number, kind, is_oversize, sent_ms };
        let _ = self.notices.send(Notice::Message(told));
        self.client.publish(&channels::name(channel), message);
        let _ = self.notices.send(Notice::Sent { number, at_ms: time_of_day_ms() });
    }

    /// Nothing of this may ever arrive.
    fn publish_unentitled(&mut self, channel: usize, choice: usize) {
        let (name, _) = UNENTITLED[choice % UNENTITLED.len()];
        let publisher = &mut self.unentitled[choice % UNENTITLED.len()];
        let data = payload(channel, u32::MAX, 50);
        let answer = publisher.try_publish(&channels::name(channel), data);
        let refusal = answer.expect_err(name);
        assert!(refusal.contains("NOPERM"), "{name} was answered {refusal}");
        self.refused += 1;
    }
}
