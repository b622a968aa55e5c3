//! Requests of clients and their answers.

use std::fmt;

use crate::bytes::event_stream;
use crate::bytes::history::EventId;
use crate::bytes::http::{
    Cors, Method, Parsed, RequestHead, ShortAnswer, Status, parse_head, preflight, short_answer,
    stream_head,
};
use crate::bytes::target::{Begin, Resolved, Since, StreamRequest};
use crate::ground::ids::ConnectionId;
use crate::state::catch_up::Start;
use crate::state::connections::{HeadBuffer, State};
use crate::state::counters::CloseReason;
use crate::state::sockets::Sockets;
use crate::sys::{raw, socket};

use super::core::{ANSWERS_PER_TURN_MAX, Core};

/// How much longer than usual a client is told to stay away when there is no room for it.
const CAPACITY_RETRY_FACTOR: f64 = 5.0;

impl Core {
    /// Bytes of a connection whose request head is awaited.
    pub(super) fn on_head_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        let mut kept = self.streams.take_head(id);
        let joined;
        let mut rest = if kept.bytes.is_empty() {
            bytes
        } else {
            kept.bytes.extend_from_slice(bytes);
            joined = std::mem::take(&mut kept.bytes);
            &joined
        };
        let mut skip = kept.skip;
        loop {
            let skipped = skip.min(rest.len() as u64);
            skip -= skipped;
            rest = rest.get(usize::try_from(skipped).unwrap_or(rest.len())..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match parse_head(rest, self.config.limits.head_bytes) {
                Ok(Parsed::Partial) => break,
                Ok(Parsed::Complete { head, consumed }) => {
                    self.answers += 1;
                    if self.answers > ANSWERS_PER_TURN_MAX {
                        return self.close(id, CloseReason::BadRequest);
                    }
                    self.on_request(id, &head);
                    if self.streams.get(id).is_none_or(|c| c.state != State::Head) {
                        return;
                    }
                    skip = head.body_bytes;
                    rest = rest.get(consumed..).unwrap_or_default();
                    self.await_head(id);
                }
                Err(bad) => return self.refuse(id, bad.status(), &bad, CloseReason::BadRequest),
            }
        }
        self.streams.keep_head(id, HeadBuffer { bytes: rest.to_vec(), skip });
    }

    /// A connection took too long to send its request.
    pub(super) fn on_head_timeout(&mut self, id: ConnectionId) {
        if self.streams.take_head(id).bytes.is_empty() {
            // Nobody asked anything, so nobody is answered.
            return self.close(id, CloseReason::HeadTimeout);
        }
        let seconds = self.config.head_timeout.as_secs_f64();
        let late = format_args!("the request head did not arrive within {seconds} s").to_string();
        self.refuse(id, Status::RequestTimeout408, &late, CloseReason::HeadTimeout);
    }

    fn on_request(&mut self, id: ConnectionId, head: &RequestHead<'_>) {
        let config = std::sync::Arc::clone(&self.config);
        let cors = Cors::new(&config.cors_origins, head.origin);
        let answer = |status, body| ShortAnswer {
            status,
            body,
            keep_alive: head.keep_alive,
            head_only: head.method == Method::Head,
            cors,
        };
        match head.method {
            Method::Options => {
                let mut bytes = Vec::new();
                preflight(cors, head.keep_alive, &mut bytes);
                let end = (!head.keep_alive).then_some(CloseReason::Answered);
                return self.answer(id, &bytes, end);
            }
            Method::Post | Method::Other => {
                let body = "only GET, HEAD and OPTIONS are allowed here";
                return self.short(id, &answer(Status::MethodNotAllowed405, &body));
            }
            Method::Get | Method::Head => {}
        }
        match self.routes.resolve(head.target) {
            Resolved::NotFound => {
                let body = "no stream at this path: see the server's routes";
                self.short(id, &answer(Status::NotFound404, &body));
            }
            Resolved::Bad(bad) => self.short(id, &answer(Status::BadRequest400, &bad)),
            Resolved::Stream(_) if head.method == Method::Head => {
                let mut bytes = Vec::new();
                stream_head(cors, &mut bytes);
                self.answer(id, &bytes, Some(CloseReason::Answered));
            }
            Resolved::Stream(request) => self.on_stream(id, head, &request, cors),
        }
    }

    fn on_stream(
        &mut self,
        id: ConnectionId,
        head: &RequestHead<'_>,
        request: &StreamRequest,
        cors: Cors<'_>,
    ) {
        let mut bytes = Vec::with_capacity(256);
        stream_head(cors, &mut bytes);
        // This connection counts itself.
        if self.draining || self.capacity.is_exceeded(self.streams.connections()) {
            let retry_ms = self.jittered_retry_ms(CAPACITY_RETRY_FACTOR);
            event_stream::encode_retry(retry_ms, &mut bytes);
            event_stream::encode_comment(
                b"no room for another stream: come back later",
                &mut bytes,
            );
            bytes.push(b'\n');
            return self.answer(id, &bytes, Some(CloseReason::Capacity));
        }
        let retry_ms = self.jittered_retry_ms(1.0);
        let start = match head.last_event_id.or(request.last_event_id.as_deref()) {
            Some(id) => EventId::parse(id).map_or(Start::Unknown, Start::After),
            None => start_of(request.begin),
        };
        let prefix = &self.config.strip_prefix;
        let names: Vec<Vec<u8>> =
            request.channels.iter().map(|name| [prefix, name.as_slice()].concat()).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        if self.streams.request(id, &names, start, bytes, retry_ms, &mut self.sockets) {
            self.openings.push(self.now, id);
        }
    }

    /// The reconnection time, spread so that a herd of clients does not come back as one.
    pub(super) fn jittered_retry_ms(&self, factor: f64) -> u64 {
        let jitter = f64::from(self.config.retry_jitter_percent) / 100.0;
        let spread = 1.0 + jitter * (fastrand::f64() * 2.0 - 1.0);
        let retry = self.config.retry.mul_f64(factor * spread);
        u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)
    }

    /// Answers a request that can't be read, and ends its connection.
    fn refuse(
        &mut self,
        id: ConnectionId,
        status: Status,
        body: &dyn fmt::Display,
        reason: CloseReason,
    ) {
        let cors = Cors { allow_origin: None, vary: !self.config.cors_origins.is_empty() };
        let answer = ShortAnswer { status, body, keep_alive: false, head_only: false, cors };
        let mut bytes = Vec::with_capacity(512);
        short_answer(&answer, &mut bytes);
        self.answer(id, &bytes, Some(reason));
    }

    fn short(&mut self, id: ConnectionId, answer: &ShortAnswer<'_>) {
        let mut bytes = Vec::with_capacity(512);
        short_answer(answer, &mut bytes);
        let keep = answer.keep_alive && !answer.status.closes();
        self.answer(id, &bytes, (!keep).then_some(CloseReason::Answered));
    }

    /// Sends an answer that is no stream. With a reason to `end` the connection, it lingers until
    /// the peer has read the answer.
    fn answer(&mut self, id: ConnectionId, bytes: &[u8], end: Option<CloseReason>) {
        let Some(connection) = self.streams.get(id) else { return };
        let fd = connection.fd;
        match self.sockets.send(fd, bytes) {
            Ok(sent) if sent == bytes.len() => {}
            // Who does not read the answers to what it asked for gets no more of them.
            _ => return self.close(id, CloseReason::WriteFailed),
        }
        if let Some(reason) = end {
            socket::finish(raw::borrow(fd));
            self.streams.set_lingering(id, reason);
            self.lingerings.push(self.now, id);
        }
    }
}

/// Where a stream begins that brings no last event ID.
fn start_of(begin: Begin) -> Start {
    match begin {
        Begin::Present | Begin::Last(0) => Start::Now,
        Begin::Last(count) => Start::Last(count),
        Begin::Since(Since::All) => Start::All,
        Begin::Since(Since::Id(id)) => Start::After(id),
        Begin::Since(Since::Ago(ago)) => {
            Start::Ago(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
        }
        Begin::Since(Since::At { ms }) => Start::At(ms),
        Begin::Unreadable => Start::Unknown,
    }
}
