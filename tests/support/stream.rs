//! A blocking EventSource over a raw socket.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::address::Address;
use super::clock::{Deadline, PATIENCE};
use super::event_source::{EventSource, Message};
use super::http::{Connection, Head};

pub(crate) struct Stream {
    connection: Connection,
    pub(crate) head: Head,
    parser: EventSource,
    messages: VecDeque<Message>,
    raw: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// Asks for a stream, and returns once its head has arrived.
    pub(crate) fn open(address: &Address, target: &str) -> Self {
        Self::open_with(address, target, &[])
    }

    /// [`Self::open`], with more header fields.
    pub(crate) fn open_with(address: &Address, target: &str, fields: &[(&str, &str)]) -> Self {
        Self::over(Connection::open(address), target, fields)
    }

    pub(crate) fn over(mut connection: Connection, target: &str, fields: &[(&str, &str)]) -> Self {
        connection.send(request(target, fields));
        Self::of(connection)
    }

    /// Takes over a connection on which a stream was asked for.
    pub(crate) fn of(mut connection: Connection) -> Self {
        let head = connection.head();
        assert_eq!(head.status, 200, "not a stream: {head:?}");
        assert_eq!(head.field("content-type"), Some("text/event-stream"));
        let mut stream = Self {
            connection,
            head,
            parser: EventSource::default(),
            messages: VecDeque::new(),
            raw: Vec::new(),
            ended: false,
        };
        stream.take_in();
        stream
    }

    /// The next event; a stream that ends or stays silent fails the test.
    pub(crate) fn next_message(&mut self) -> Message {
        self.next_message_or_end().unwrap_or_else(|| {
            panic!("the stream ended after {:?}", String::from_utf8_lossy(&self.raw))
        })
    }

    /// The next event, or `None` once the stream has ended.
    pub(crate) fn next_message_or_end(&mut self) -> Option<Message> {
        let deadline = Deadline::after(PATIENCE);
        while self.messages.is_empty() && !self.ended {
            assert!(
                self.fill(deadline),
                "no event within {PATIENCE:?}, after {:?}",
                String::from_utf8_lossy(&self.raw)
            );
        }
        self.messages.pop_front()
    }

    /// The next event that has been read already.
    pub(crate) fn take_message(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// Waits for the end of the stream; events before it stay to be read.
    pub(crate) fn wait_end(&mut self) {
        let deadline = Deadline::after(PATIENCE);
        while !self.ended {
            assert!(self.fill(deadline), "the stream did not end within {PATIENCE:?}");
        }
    }

    /// Reads once what arrives within `wait`.
    pub(crate) fn poll(&mut self, wait: Duration) {
        if !self.ended {
            self.fill(Deadline::after(wait));
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits until the bytes of the body so far satisfy `enough`, and returns them as text.
    pub(crate) fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let text = String::from_utf8_lossy(&self.raw).into_owned();
            if enough(&text) {
                return text;
            }
            assert!(!self.ended, "the stream ended after {text:?}");
            assert!(self.fill(deadline), "nothing more within {PATIENCE:?}, after {text:?}");
        }
    }

    /// Asserts that nothing but comments arrives for a while.
    pub(crate) fn stays_silent(&mut self, time: Duration) {
        let deadline = Deadline::after(time);
        while !self.ended && self.fill(deadline) {}
        assert!(!self.ended, "the stream ended");
        assert_eq!(self.messages.front(), None);
    }

    /// Milliseconds of the reconnection time that the stream has set.
    pub(crate) fn retry(&mut self) -> u64 {
        self.wait_for("no retry", |parser| parser.reconnection_time)
    }

    /// The last event ID, once there is one.
    pub(crate) fn last_event_id(&mut self) -> String {
        self.wait_for("no id", |parser| {
            (!parser.last_event_id.is_empty()).then(|| parser.last_event_id.clone())
        })
    }

    /// The comments so far, once there are `count`.
    pub(crate) fn comments(&mut self, count: usize) -> Vec<String> {
        self.wait_for("no comments", |parser| {
            (parser.comments.len() >= count).then(|| parser.comments.clone())
        })
    }

    fn wait_for<T>(&mut self, missing: &str, find: impl Fn(&EventSource) -> Option<T>) -> T {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(found) = find(&self.parser) {
                return found;
            }
            let more = !self.ended && self.fill(deadline);
            assert!(more, "{missing} in {:?}", String::from_utf8_lossy(&self.raw));
        }
    }

    /// Reads once; `false` once the deadline has passed.
    fn fill(&mut self, deadline: Deadline) -> bool {
        match self.connection.fill(deadline) {
            Ok(0) => self.ended = true,
            Ok(_) => self.take_in(),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ended = true,
            Err(error) => {
                use io::ErrorKind::{TimedOut, WouldBlock};
                assert!(matches!(error.kind(), TimedOut | WouldBlock), "{error}");
                return false;
            }
        }
        true
    }

    fn take_in(&mut self) {
        let bytes = self.connection.take_unread();
        self.parser.push(&bytes);
        for message in self.parser.messages.drain(..) {
            match &*message.event {
                "stream-open" => {}
                // A sign of life, as a comment is where events are not kept.
                "keep-alive" => self.parser.comments.push(message.event),
                _ => self.messages.push_back(message),
            }
        }
        self.raw.extend_from_slice(&bytes);
    }
}

/// A request for a stream, as an EventSource sends it.
pub(crate) fn request(target: &str, fields: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
         Cache-Control: no-cache\r\n"
    );
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}
