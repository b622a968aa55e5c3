//! What a client is still to be sent: replies and messages in order.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::Bytes;

use crate::bytes::resp::{encode_bulk, encode_length};
use crate::ground::limits;

/// Bytes on their way to one client. Small items are copied together, so that a burst leaves in few
/// large pieces; large payloads are shared between clients.
#[derive(Debug, Default)]
pub(super) struct Output {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are sent. Invariant: less than its length, 0 without one.
    sent: usize,
    /// Invariant: the length of all segments less `sent`.
    unsent: usize,
    /// More was to be added than [`limits::BROKER_OUTPUT_BYTES_MAX`]; everything was dropped then.
    overflowed: bool,
}

/// Invariant: not empty.
#[derive(Debug)]
enum Segment {
    Copied(Vec<u8>),
    Shared(Bytes),
}

/// A published message, encoded once for all who hear it.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// All of it but the type byte, which differs between the versions of the protocol, and but the
    /// payload if that is shared.
    text: Vec<u8>,
    /// A large payload and CR LF.
    shared: Option<Bytes>,
}

impl Message {
    /// Encodes a message of which `strings` come before the payload. Reuses the memory of the last
    /// one, and its payload too if `same_payload` says that it is the same.
    pub(super) fn encode(&mut self, strings: &[&[u8]], payload: &[u8], same_payload: bool) {
        self.text.clear();
        // The number of elements is one digit: the strings and the payload.
        self.text.push(b'1' + u8::try_from(strings.len()).unwrap_or(0));
        self.text.extend_from_slice(b"\r\n");
        for string in strings {
            encode_bulk(string, &mut self.text);
        }
        if payload.len() < SHARED_BYTES_MIN {
            self.shared = None;
            encode_bulk(payload, &mut self.text);
            return;
        }
        encode_length(b'$', payload.len(), &mut self.text);
        if self.shared.is_none() || !same_payload {
            self.shared = Some(Bytes::from([payload, b"\r\n"].concat()));
        }
    }

    /// Gives back what the last message needed, unless that is little.
    pub(super) fn clear(&mut self) {
        self.shared = None;
        if self.text.capacity() > SEGMENT_BYTES {
            self.text = Vec::new();
        }
    }
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.unsent == 0
    }

    pub(super) fn len(&self) -> usize {
        self.unsent
    }

    /// Whether the client reads too slowly for what it is sent. It is not sent anything any more.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Appends what `write` appends to the vector it is given.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.unsent > limits::BROKER_OUTPUT_BYTES_MAX {
            *self = Self { overflowed: true, ..Self::default() };
        }
        if self.overflowed {
            return;
        }
        if let Some(Segment::Copied(segment)) = self.segments.back_mut()
            && segment.len() < SEGMENT_BYTES
        {
            let before = segment.len();
            write(segment);
            self.unsent += segment.len() - before;
            return;
        }
        let mut segment = Vec::new();
        write(&mut segment);
        if !segment.is_empty() {
            self.unsent += segment.len();
            self.segments.push_back(Segment::Copied(segment));
        }
    }

    /// Appends a message behind the type byte of the client's version of the protocol.
    pub(super) fn push(&mut self, kind: u8, message: &Message) {
        self.write(|out| {
            out.push(kind);
            out.extend_from_slice(&message.text);
        });
        if let Some(payload) = message.shared.as_ref().filter(|_| !self.overflowed) {
            self.unsent += payload.len();
            self.segments.push_back(Segment::Shared(payload.clone()));
        }
    }

    /// Moves what `later` holds behind everything else. Nothing of it may be sent yet.
    pub(super) fn append(&mut self, later: &mut Self) {
        let mut later = mem::take(later);
        if self.overflowed || later.overflowed {
            *self = Self { overflowed: true, ..Self::default() };
            return;
        }
        self.segments.append(&mut later.segments);
        self.unsent += later.unsent;
    }

    /// The beginning of what is unsent, and how many slices of it are in use.
    pub(super) fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut skip = self.sent;
        let used = slices.iter_mut().zip(&self.segments).map(|(slice, segment)| {
            *slice = IoSlice::new(segment.bytes().get(mem::take(&mut skip)..).unwrap_or_default());
        });
        let count = used.count();
        (slices, count)
    }

    /// The first `count` unsent bytes are sent. Gives their memory back.
    pub(super) fn advance(&mut self, count: usize) {
        self.unsent = self.unsent.saturating_sub(count);
        self.sent += count;
        while let Some(first) = self.segments.front()
            && self.sent >= first.bytes().len()
        {
            self.sent -= first.bytes().len();
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Below this, copying a payload is cheaper than a reference count and a slice of its own.
const SHARED_BYTES_MIN: usize = 8 * 1024;

/// Items are copied together into pieces of about this size.
const SEGMENT_BYTES: usize = 64 * 1024;

/// Slices of one vectored write; far below the kernel's 1024 (writev(2), IOV_MAX).
const SLICES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything in pieces of `count` bytes.
    fn drain(output: &mut Output, count: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !output.is_empty() {
            let (slices, used) = output.slices();
            let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
            assert!(!bytes.is_empty());
            let count = count.min(bytes.len());
            sent.extend_from_slice(&bytes[..count]);
            output.advance(count);
        }
        assert_eq!(output.segments.capacity() + output.sent, 0);
        sent
    }

    fn message(payload: &[u8]) -> Message {
        let mut message = Message::default();
        message.encode(&[b"message", b"ch"], payload, false);
        message
    }

    #[test]
    fn everything_leaves_in_order_however_little_is_taken_at_a_time() {
        let (small, large) = (vec![b's'; 100], vec![b'l'; SHARED_BYTES_MIN]);
        let mut expected = Vec::new();
        for payload in [&small, &large, &large, &small] {
            expected.extend_from_slice(b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n");
            encode_bulk(payload, &mut expected);
        }
        expected.extend_from_slice(b"+OK\r\n");
        for count in [1, 2, 7, 100, 8192, usize::MAX] {
            let mut output = Output::default();
            for payload in [&small, &large, &large, &small] {
                output.push(b'>', &message(payload));
            }
            output.write(|out| out.extend_from_slice(b"+OK\r\n"));
            assert_eq!(output.len(), expected.len());
            assert!(drain(&mut output, count) == expected, "{count}");
        }
    }

    #[test]
    fn small_items_share_segments_and_large_payloads_are_not_copied() {
        let mut output = Output::default();
        let message = message(&[b'x'; 200]);
        for _ in 0..1000 {
            output.push(b'*', &message);
        }
        assert_eq!(output.segments.len(), 4);
        let large = tests::message(&vec![b'x'; 1024 * 1024]);
        let (mut one, mut two) = (Output::default(), Output::default());
        one.push(b'*', &large);
        two.push(b'>', &large);
        let pointer = |output: &Output| output.segments.back().unwrap().bytes().as_ptr();
        assert_eq!(pointer(&one), pointer(&two));
    }

    #[test]
    fn what_is_never_read_is_dropped_at_the_bound() {
        let large = message(&vec![b'x'; 1024 * 1024]);
        let mut output = Output::default();
        let mut pushed = 0;
        while !output.has_overflowed() {
            output.push(b'>', &large);
            pushed += 1;
        }
        assert_eq!(pushed, 33);
        assert!(output.is_empty() && output.segments.is_empty());
        output.push(b'>', &large);
        assert!(output.is_empty());
    }

    #[test]
    fn appended_output_comes_last() {
        let (mut output, mut later) = (Output::default(), Output::default());
        later.write(|out| out.extend_from_slice(b"later"));
        output.write(|out| out.extend_from_slice(b"first "));
        output.append(&mut later);
        assert!(later.is_empty());
        assert_eq!(drain(&mut output, 3), b"first later");
    }
}
