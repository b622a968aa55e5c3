//! What a load test publishes: which message of which test it is, and when it was due.

use std::io::Write;

/// The readable start of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Tells messages of this test from those of another on the same channel.
    pub(super) token: u32,
    pub(super) channel: u32,
    /// Place among the messages of its channel, from 0.
    pub(super) sequence: u32,
    /// When the schedule wanted it sent, in nanoseconds of CLOCK_MONOTONIC, which all processes of
    /// a host share.
    pub(super) due_ns: u64,
}

impl Stamp {
    /// The payload, filled up to `bytes` bytes; longer if the stamp alone takes more.
    pub(super) fn payload(&self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes);
        let Self { token, channel, sequence, due_ns } = *self;
        // Writing to memory does not fail.
        let _ = write!(payload, "{MARK}{token:08x} {channel} {sequence} {due_ns} ");
        payload.resize(bytes.max(payload.len()), b'.');
        payload
    }

    /// The stamp of a payload; `None` if that is nobody's test.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(MARK.as_bytes())?;
        let mut words = rest.splitn(5, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let token = u32::from_str_radix(word()?, 16).ok()?;
        let channel = word()?.parse().ok()?;
        let sequence = word()?.parse().ok()?;
        let due_ns = word()?.parse().ok()?;
        Some(Self { token, channel, sequence, due_ns })
    }
}

const MARK: &str = "corecast-bench ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_stamp_and_has_the_wanted_length() {
        for (token, channel, sequence, due_ns) in
            [(0, 0, 0, 0), (0xabc, 3, 7, 12_345), (!0, !0, !0, !0)]
        {
            let stamp = Stamp { token, channel, sequence, due_ns };
            for bytes in [100, 200, 5000] {
                let payload = stamp.payload(bytes);
                assert_eq!(payload.len(), bytes);
                assert_eq!(Stamp::parse(&payload), Some(stamp));
            }
            assert_eq!(Stamp::parse(&stamp.payload(0)), Some(stamp));
        }
    }

    #[test]
    fn other_payloads_have_no_stamp() {
        for payload in
            ["", "hello", "corecast-bench ", "corecast-bench x 1 2 3 ", "corecast-bench 1 1 1"]
        {
            assert_eq!(Stamp::parse(payload.as_bytes()), None, "{payload}");
        }
    }
}
