//! corecast: a thread-per-core server for very many `EventSource` connections, fed by Redis
//! `PUBLISH`.
//!
//! # The problem
//!
//! A message is published once and must reach a hundred thousand browsers, each behind a TCP
//! connection that is silent most of the time. What that costs is one `send()` per connection and
//! message, 7 to 12 µs of kernel time each, and the memory of the connections. Everything else this
//! program does is to be small beside that: about 0.1 µs of its own per send, about 100 bytes of
//! its own per connection.
//!
//! # One picture
//!
//! ```text
//! publisher ── PUBLISH ──► Redis, or the embedded broker (a thread of ours that speaks RESP)
//!                            │ one link per worker
//! ┌──────────────────────────▼──────── worker (one per core, pinned, shares nothing) ────────┐
//! │ io::link ► bytes::resp ► bytes::format ► bytes::event_stream: ONE encoding               │
//! │                                            │                                             │
//! │                              state::streams: passes in slices ► send() per stream        │
//! │                                                              │ what a socket did not take │
//! │ listener ► bytes::http ► bytes::target ► state::streams      ▼                           │
//! │                                                         state::backlog                   │
//! │ one private epoll set watches all sockets; the runtime waits for that one descriptor     │
//! └──────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Floors
//!
//! Arrows point down only, and no two modules import each other; tests check both. The rooms of
//! floor 5 stand side by side: of each other they know only what data must pass, which is what the
//! broker counts, for [`admin`], and the broker itself, which [`bench`] may start.
//!
//! | floor | folder | what is there |
//! |---|---|---|
//! | 6 | [`process`] | command line, threads, signals, exit code, publishing |
//! | 5 | [`worker`] | one core's server: owns all below, orders what happens |
//! | 5 | [`broker`] | the embedded broker, which speaks RESP where no Redis is |
//! | 5 | [`admin`] | health and metrics, on a thread and a listener of their own |
//! | 5 | [`bench`] | load generator, and the floor that a server is compared with |
//! | 4 | [`io`] | reactor of sockets, link to Redis, TLS, prober |
//! | 3 | [`sys`] | the runtime (one file), every unsafe block (one file), socket options |
//! | 2 | [`state`] | connections, channels, passes, backlogs, counters: no socket, no clock |
//! | 1 | [`bytes`] | event stream, request heads, routes, RESP, payload formats: pure functions |
//! | 0 | [`ground`] | ids, bounds, settings |
//!
//! # Life of a connection
//!
//! `accept4` → a slot of 20 bytes ([`state::connections`]) and one registration in the epoll set,
//! edge-triggered, for good → request head, parsed from one buffer that all connections share → its
//! channels ([`bytes::target`]) are looked up, or asked of Redis → once their subscriptions are
//! acknowledged, response head and first bytes leave in one write, and 8 bytes join the channel's
//! list → silence, events, heartbeats → close: the slot's generation ends, so that nothing that
//! still names it finds the next tenant.
//!
//! No task, future, timer or buffer belongs to a connection. What few connections need (half a
//! request head, unsent bytes) is kept aside, and only while it is needed.
//!
//! # Life of a message
//!
//! [`io::link`] reads a push and hands it to its worker, which decodes it by its channel's format
//! and encodes it once. The bytes wait in their channel ([`state::channels::Traffic`]). When the
//! channel's turn comes, a pass merges all that waits, up to 16 KiB, into one write; the hot loop
//! then passes pointer and length to `send()` for each subscriber, one flag test apart. After 256
//! sends the thread goes back to the driver. A socket that is full gets a backlog of references to
//! the shared bytes, bounded by `--max-pending`.
//!
//! Streams of several channels do not stand in the channels' lists: channels take turns, and such a
//! stream would see a later event before an earlier one. They share one lane of arrivals instead
//! ([`state::streams`]), which keeps the order across channels.
//!
//! # Life of a stream that comes back
//!
//! Where events are kept (`--history`), publishing appends to a Redis stream and publishes in one
//! step, with an id from one clock for all channels ([`bytes::history`]). Redis executes one
//! command after the other, so one id tells how far a worker has come on all its channels: its
//! position, which only the clock moves. Streams begin with it, and signs of life repeat it.
//!
//! A stream that returns has one cursor for all its channels: everything up to there was sent, or
//! the client told of it. For each channel it has at hand what comes next, in a page that was read
//! ([`state::history_page`]) or in what has arrived ([`state::recent`]); so it sends, merged by id,
//! up to where the first of these ends, and needs the next page of that channel then. It waits for
//! one thing at a time, and looks again once when that has come:
//!
//! | it waits for | until | then |
//! |---|---|---|
//! | the link, or the making up for its loss | both are over | it begins where its cursor is |
//! | subscriptions | the last one stands, or is refused | a refused one is told, and goes without |
//! | the clock, its id being higher | it was told once more | an id still higher is unknown |
//! | room to hold pages | it is first in line and there is room | it is admitted |
//! | pages, or ids of the newest events | the last is there | it sends; holes are told first |
//! | its socket | that has taken the rest | it reads on, and holds nothing meanwhile |
//! | nothing: all that is missing has arrived | | it joins its channels, in the same step |
//!
//! Whatever happens in whichever of these: no event comes twice; none is missing unless a
//! `stream-reset` has named its channel before an id passed it by; no id claims more than was sent;
//! looks are few (four for each channel and page) and bytes bounded. A model of Redis, of clients
//! and of all that can go wrong checks that in `state::streams`, step by step.
//!
//! A lost link is made up for in the same way, for all streams at once, before anything newer is
//! passed on: channels in which something was published meanwhile are read from where they were.
//!
//! # What must hold
//!
//! - A subscriber gets what arrives after its head was sent, once, in order; where that can't be
//!   proven (a lost link, a flood, an oversize message, a return without history) it gets a
//!   `stream-reset` event once the subscription stands again. Nothing is skipped in silence.
//! - A client is told of a hole before its last event ID passes the hole by, so that it can't come
//!   back behind it.
//! - Every queue has a bound ([`ground::limits`] and the options), and what happens at the bound is
//!   counted.
//! - Workers share nothing but counters that one thread writes and others read, and bells. Each has
//!   its own descriptor table, so `RLIMIT_NOFILE` bounds a worker, not the process; descriptor
//!   numbers of one thread mean nothing in another.
//! - A worker that panics costs its own streams only: its thread ends, the kernel closes its
//!   descriptors, and it is started again.
//! - Names are those of WHATWG HTML (event stream, last event ID), RFC 9112 and Redis.

pub mod ground;

pub mod bytes;

pub mod state;

pub mod sys;

pub mod io;

pub mod worker;

pub mod broker;

pub mod admin;

pub mod bench;

pub mod process;
