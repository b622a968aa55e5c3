//! An event stream as a browser reads it, line by line from WHATWG HTML 9.2.6 ("Interpreting an
//! event stream"): the judge of what our encoder writes, and therefore independent of it.

use std::mem;

/// The state of a stream that may arrive in pieces of any size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventSource {
    /// The events that were dispatched, in order.
    pub(crate) messages: Vec<Message>,
    /// The last event ID string: what a reconnecting browser sends as `Last-Event-ID`.
    pub(crate) last_event_id: String,
    /// The reconnection time in milliseconds; `None` until the stream has set it.
    pub(crate) reconnection_time: Option<u64>,
    /// The comments, each without its colon.
    pub(crate) comments: Vec<String>,
    data_buffer: String,
    event_type_buffer: String,
    last_event_id_buffer: String,
    /// The line that is not ended yet.
    line: Vec<u8>,
    /// Whether a line has ended, and a byte order mark is therefore none any more.
    begun: bool,
    after_carriage_return: bool,
}

/// An event, as a page's listener gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The event's type.
    pub(crate) event: String,
    pub(crate) data: String,
    pub(crate) last_event_id: String,
}

impl EventSource {
    /// Reads the next bytes of the stream. What is pending when the stream ends is never
    /// dispatched.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_carriage_return =
                mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                // The second half of a CRLF pair, which ended the line already.
                b'\n' if after_carriage_return => {}
                b'\r' | b'\n' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    /// Decodes a line. "UTF-8 decode" drops one byte order mark at the start of the stream, and
    /// replaces invalid sequences, none of which can reach across the end of a line.
    fn end_line(&mut self) {
        let bytes = mem::take(&mut self.line);
        let mut line: &[u8] = &bytes;
        if !mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        self.interpret_line(&String::from_utf8_lossy(line));
    }

    fn interpret_line(&mut self, line: &str) {
        if line.is_empty() {
            self.dispatch();
        } else if let Some(comment) = line.strip_prefix(':') {
            self.comments.push(comment.to_owned());
        } else if let Some((field, value)) = line.split_once(':') {
            self.process_field(field, value.strip_prefix(' ').unwrap_or(value));
        } else {
            self.process_field(line, "");
        }
    }

    fn process_field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event_type_buffer),
            "data" => {
                self.data_buffer.push_str(value);
                self.data_buffer.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id_buffer),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.reconnection_time = value.parse().ok().or(self.reconnection_time);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_event_id.clone_from(&self.last_event_id_buffer);
        let event = mem::take(&mut self.event_type_buffer);
        let mut data = mem::take(&mut self.data_buffer);
        if data.is_empty() {
            return;
        }
        if data.ends_with('\n') {
            data.pop();
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        self.messages.push(Message { event, data, last_event_id: self.last_event_id.clone() });
    }
}
