//! The admin listener: health and metrics, on a thread of its own that the data path never waits
//! for.
//!
//! Few and short requests, so one poll(2) over all of them; a connection has five seconds and one
//! answer.

pub mod metrics;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SocketFlags;

use crate::broker::BrokerCounters;
use crate::bytes::http::{
    Cors, Method, Parsed, RequestHead, ShortAnswer, Status, parse_head, short_answer,
};
use crate::ground::config::Secret;
use crate::io::prober::Probes;
use crate::state::counters::Counters;
use crate::sys::socket::Received;
use crate::sys::{clock, socket};

/// What the admin listener tells about.
#[derive(Debug)]
pub struct Overview {
    pub workers: Arc<[Arc<Counters>]>,
    /// None where there is a Redis.
    pub broker: Option<Arc<BrokerCounters>>,
    pub probes: Arc<Probes>,
    pub restarts: AtomicU64,
    pub draining: AtomicBool,
    /// Required for metrics where the listener is open to others than this host.
    pub token: Option<Secret>,
}

impl Overview {
    #[must_use]
    pub fn new(
        workers: Arc<[Arc<Counters>]>,
        broker: Option<Arc<BrokerCounters>>,
        probes: Arc<Probes>,
        token: Option<Secret>,
    ) -> Self {
        let (restarts, draining) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { workers, broker, probes, restarts, draining, token }
    }
}

const CLIENTS_MAX: usize = 64;
const CLIENT_TIME: Duration = Duration::from_secs(5);
const EXHAUSTED_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Content type of the text exposition format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves for the life of the process.
///
/// # Errors
/// What poll(2) answers.
pub fn run(listener: impl AsFd, overview: &Overview) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        wait(listener.as_fd(), &clients)?;
        let now = clock::now();
        clients.retain_mut(|client| client.proceed(overview) && now < client.until);
        while clients.len() < CLIENTS_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&listener, flags) {
                Ok(socket) => clients.push(Client::new(socket, now)),
                Err(rustix::io::Errno::AGAIN) => break,
                // No descriptor or memory is left: asking again at once would not change that.
                Err(_) => {
                    rustix::event::poll(&mut [], Some(&EXHAUSTED_WAIT))?;
                    break;
                }
            }
        }
    }
}

/// Waits for a connection, for a client, or for a client's time to run out.
fn wait(listener: BorrowedFd<'_>, clients: &[Client]) -> io::Result<()> {
    let mut sources: Vec<PollFd<'_>> = clients.iter().map(Client::interest).collect();
    if clients.len() < CLIENTS_MAX {
        sources.push(PollFd::from_borrowed_fd(listener, PollFlags::IN));
    }
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let timeout = (!clients.is_empty()).then_some(&second);
    match rustix::event::poll(&mut sources, timeout) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Client {
    socket: OwnedFd,
    until: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    answered: bool,
}

impl Client {
    fn new(socket: OwnedFd, now: Instant) -> Self {
        let until = now + CLIENT_TIME;
        Self { socket, until, input: Vec::new(), output: Vec::new(), answered: false }
    }

    fn interest(&self) -> PollFd<'_> {
        let output = if self.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN | output)
    }

    /// Reads, answers, writes. False once there is nothing more to do.
    fn proceed(&mut self, overview: &Overview) -> bool {
        let mut buffer = [0; 1024];
        match socket::receive(&self.socket, &mut buffer) {
            Received::Closed => return false,
            Received::Empty => {}
            Received::Bytes(count) if !self.answered => {
                self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.answer(overview);
            }
            // The answer is on its way; what still comes is thrown away until it is read.
            Received::Bytes(_) => {}
        }
        if self.output.is_empty() {
            return true;
        }
        match socket::send(&self.socket, &self.output) {
            Ok(sent) => {
                self.output.drain(..sent);
            }
            Err(_) => return false,
        }
        if self.output.is_empty() {
            socket::finish(&self.socket);
        }
        true
    }

    fn answer(&mut self, overview: &Overview) {
        let mut output = Vec::new();
        match parse_head(&self.input, HEAD_BYTES_MAX) {
            Ok(Parsed::Partial) => return,
            Ok(Parsed::Complete { head, .. }) => answer(&head, overview, &mut output),
            Err(bad) => short(bad.status(), &bad, false, &mut output),
        }
        self.output = output;
        self.answered = true;
    }
}

fn answer(head: &RequestHead<'_>, overview: &Overview, out: &mut Vec<u8>) {
    let head_only = head.method == Method::Head;
    if !matches!(head.method, Method::Get | Method::Head) {
        let body = "only GET and HEAD are allowed here";
        return short(Status::MethodNotAllowed405, &body, false, out);
    }
    // A page of another site can make a browser ask here under a name of its own choice (DNS
    // rebinding), but not under an address.
    if overview.token.is_none() && !is_local(head) {
        let body = "foreign Host or Origin: ask by address, or as localhost";
        return short(Status::Forbidden403, &body, head_only, out);
    }
    let path = head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
    match path {
        b"/livez" => return short(Status::Ok200, &"alive", head_only, out),
        b"/readyz" => return readiness(overview, head_only, out),
        b"/metrics" => {}
        _ => {
            let body = "no such path: there are /livez, /readyz and /metrics";
            return short(Status::NotFound404, &body, head_only, out);
        }
    }
    if overview.token.as_ref().is_some_and(|token| !has_token(head, token)) {
        let body = "this needs the header Authorization: Bearer and the --admin-token";
        return short(Status::Unauthorized401, &body, head_only, out);
    }
    let mut text = String::new();
    metrics::render(&overview.workers, overview.restarts.load(Ordering::Relaxed), &mut text);
    metrics::render_probes(&overview.probes, &mut text);
    if let Some(broker) = &overview.broker {
        metrics::render_broker(broker, &mut text);
    }
    out.extend_from_slice(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {METRICS_TYPE}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            text.len()
        )
        .as_bytes(),
    );
    if !head_only {
        out.extend_from_slice(text.as_bytes());
    }
}

fn readiness(overview: &Overview, head_only: bool, out: &mut Vec<u8>) {
    let down = overview.workers.iter().filter(|worker| worker.link_ready.get() == 0).count();
    if overview.draining.load(Ordering::Relaxed) {
        short(Status::ServiceUnavailable503, &"draining", head_only, out);
    } else if down > 0 {
        let of = overview.workers.len();
        let body = format!("{down} of {of} workers have no proven link to Redis");
        short(Status::ServiceUnavailable503, &body, head_only, out);
    } else {
        short(Status::Ok200, &"ready", head_only, out);
    }
}

fn short(status: Status, body: &dyn std::fmt::Display, head_only: bool, out: &mut Vec<u8>) {
    let cors = Cors::default();
    short_answer(&ShortAnswer { status, body, keep_alive: false, head_only, cors }, out);
}

fn has_token(head: &RequestHead<'_>, token: &Secret) -> bool {
    let given = head.authorization.and_then(|field| field.strip_prefix(b"Bearer "));
    given.is_some_and(|given| token.is(given))
}

fn is_local(head: &RequestHead<'_>) -> bool {
    let Some(host) = head.host.map(String::from_utf8_lossy) else { return head.origin.is_none() };
    let is_address = host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_localhost = host == "localhost" || host.starts_with("localhost:");
    let same_origin = |origin: &[u8]| origin.strip_prefix(b"http://") == Some(host.as_bytes());
    (is_address || is_localhost) && head.origin.is_none_or(same_origin)
}
