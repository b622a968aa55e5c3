//! Bytes that a connection's socket would not take yet: references to shared writes, in order.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

/// Unsent bytes of one connection.
#[derive(Debug)]
pub struct Backlog {
    /// Invariant: never empty; every chunk has bytes left.
    chunks: VecDeque<Chunk>,
    /// Invariant: the sum of the bytes left in all chunks but the first.
    behind: usize,
}

/// The rest of one write from `from` on.
#[derive(Debug)]
struct Chunk {
    bytes: Rc<[u8]>,
    /// Invariant: `from < bytes.len()`.
    from: usize,
}

/// Buffers handed to one vectored send (writev(2) takes 1,024; the socket's buffer fills sooner).
const BUFFERS_PER_SEND: usize = 16;

impl Backlog {
    /// The backlog of a write of which the socket took the bytes before `from`.
    #[must_use]
    pub fn new(bytes: Rc<[u8]>, from: usize) -> Self {
        debug_assert!(from < bytes.len());
        Self { chunks: VecDeque::from([Chunk { bytes, from }]), behind: 0 }
    }

    /// Appends the bytes of a write from `from` on. O(1); the bytes are shared.
    pub fn push(&mut self, bytes: Rc<[u8]>, from: usize) {
        debug_assert!(from < bytes.len());
        self.behind += bytes.len() - from;
        self.chunks.push_back(Chunk { bytes, from });
    }

    /// Bytes queued behind the write that is being sent: what `--max-pending` bounds.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.behind
    }

    /// All unsent bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.behind + self.chunks.front().map_or(0, Chunk::left)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Calls `send` with the first unsent buffers; they are valid during the call.
    pub fn with_buffers<R>(&self, send: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let mut buffers = [IoSlice::new(&[]); BUFFERS_PER_SEND];
        let mut count = 0;
        for (buffer, chunk) in buffers.iter_mut().zip(&self.chunks) {
            *buffer = IoSlice::new(chunk.bytes.get(chunk.from..).unwrap_or_default());
            count += 1;
        }
        send(buffers.get(..count).unwrap_or_default())
    }

    /// Takes note that so many bytes were sent.
    pub fn advance(&mut self, mut sent: usize) {
        while let Some(front) = self.chunks.front_mut() {
            let left = front.left();
            if sent < left {
                front.from += sent;
                return;
            }
            sent -= left;
            self.chunks.pop_front();
            self.behind -= self.chunks.front().map_or(0, Chunk::left);
        }
        debug_assert_eq!(sent, 0, "more was sent than was queued");
    }
}

impl Chunk {
    fn left(&self) -> usize {
        self.bytes.len() - self.from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_sequence_of_partial_sends_yields_the_bytes_in_order() {
        for step in 1..=9 {
            let mut backlog = Backlog::new(Rc::from(&b"xabc"[..]), 1);
            backlog.push(Rc::from(&b"de"[..]), 0);
            backlog.push(Rc::from(&b"..fgh"[..]), 2);
            assert_eq!((backlog.len(), backlog.behind()), (8, 5));
            let mut sent = Vec::new();
            while !backlog.is_empty() {
                let took = backlog.with_buffers(|buffers| {
                    let all: Vec<u8> = buffers.iter().flat_map(|b| b.to_vec()).collect();
                    let took = step.min(all.len());
                    sent.extend_from_slice(&all[..took]);
                    took
                });
                backlog.advance(took);
                assert_eq!(backlog.len(), 8 - sent.len());
            }
            assert_eq!(sent, b"abcdefgh");
            assert_eq!(backlog.behind(), 0);
        }
    }
}
