//! Replies in the words and the version of the protocol that a client understands.

use super::output::Output;
use crate::bytes::resp::{encode_bulk, encode_length};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Resp2,
    Resp3,
}

/// Writes one client's replies. Errors are reported nowhere: output over its bound is dropped.
pub(super) struct Reply<'a> {
    pub(super) output: &'a mut Output,
    pub(super) protocol: Protocol,
}

impl Protocol {
    /// The type byte of a push, which RESP2 knows only as an array.
    pub(super) fn push(self) -> u8 {
        match self {
            Self::Resp2 => b'*',
            Self::Resp3 => b'>',
        }
    }

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

impl Reply<'_> {
    pub(super) fn ok(&mut self) {
        self.simple("OK");
    }

    pub(super) fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: its code in capitals, then words, in which line ends turn into spaces.
    pub(super) fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.line(b':', number.to_string().as_bytes());
    }

    pub(super) fn count(&mut self, count: usize) {
        self.output.write(|out| encode_length(b':', count, out));
    }

    pub(super) fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        self.output.write(|out| encode_bulk(bytes.as_ref(), out));
    }

    /// A text to be shown to people as it is.
    pub(super) fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.output.write(|out| {
                encode_length(b'=', "txt:".len() + text.len(), out);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }),
        }
    }

    pub(super) fn null(&mut self) {
        self.output.write(|out| {
            out.extend_from_slice(match self.protocol {
                Protocol::Resp2 => b"$-1\r\n",
                Protocol::Resp3 => b"_\r\n",
            });
        });
    }

    /// Where an array was expected and there is none.
    pub(super) fn null_array(&mut self) {
        match self.protocol {
            Protocol::Resp2 => self.output.write(|out| out.extend_from_slice(b"*-1\r\n")),
            Protocol::Resp3 => self.null(),
        }
    }

    /// Begins a set of so many elements, which is an array in RESP2.
    pub(super) fn set(&mut self, elements: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(elements),
            Protocol::Resp3 => self.output.write(|out| encode_length(b'~', elements, out)),
        }
    }

    /// Begins an array of so many elements.
    pub(super) fn array(&mut self, elements: usize) {
        self.output.write(|out| encode_length(b'*', elements, out));
    }

    /// Begins a map of so many pairs, which is a flat array in RESP2.
    pub(super) fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => self.output.write(|out| encode_length(b'%', pairs, out)),
        }
    }

    /// Begins a push of so many elements.
    pub(super) fn push(&mut self, elements: usize) {
        self.output.write(|out| encode_length(self.protocol.push(), elements, out));
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.output.write(|out| {
            out.push(kind);
            out.extend(
                text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { &b' ' } else { byte }),
            );
            out.extend_from_slice(b"\r\n");
        });
    }
}
