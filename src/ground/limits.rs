//! Every bound of the program that is not an option: unit last in the name, reason beside it.

use std::time::Duration;

/// Sends between two yields of a worker to its driver, about 2 ms of kernel time.
pub const SENDS_PER_SLICE_MAX: usize = 256;

/// Bytes of one write that merges several events. A single larger event still leaves whole.
pub const COALESCED_WRITE_BYTES_MAX: usize = 16 * 1024;

/// Connections taken from the listener's queue in one turn.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Readiness events taken from the worker's epoll set in one turn.
pub const READINESS_PER_TURN_MAX: usize = 512;

/// Resolution of a worker's clock: deadlines and heartbeats are counted in ticks.
pub const TICK: Duration = Duration::from_millis(100);

/// Longest wait for the acknowledgement of a stream's subscriptions: the stream then opens without,
/// and learns of it by a `stream-reset` once they stand.
pub const OPEN_WAIT: Duration = Duration::from_secs(1);

/// How long an unused channel stays subscribed: longer than a browser takes to come back.
pub const CHANNEL_LINGER: Duration = Duration::from_secs(30);

/// How long a refused connection may go on sending before it is closed, so that the answer is read
/// (RFC 9112 9.6).
pub const LINGERING_CLOSE: Duration = Duration::from_secs(2);

/// Request bytes read at once; one such buffer per worker.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Request body that is skipped to keep a connection alive after a short answer.
pub const SKIPPED_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Field lines of a request head.
pub const HEAD_FIELDS_MAX: usize = 100;

/// Channels in one SUBSCRIBE: managed services refuse commands of about 4,000 arguments.
pub const CHANNELS_PER_SUBSCRIBE_MAX: usize = 512;

/// Silence on the Redis link after which it is asked for a sign of life.
pub const LINK_PING_AFTER: Duration = Duration::from_secs(5);

/// Wait for that sign, for a connection, or for the answer to HELLO, before the link is given up.
pub const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// Time without a message from Redis after which a link asks for a probe …
pub const PROBE_AFTER: Duration = Duration::from_secs(4);

/// … and the time that it has to arrive, before the link counts as unproven. `CLIENT PAUSE` of a
/// few seconds, which failovers begin with, holds publishers back and must not count.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// Wait for a probe that Redis took to arrive, before the link is given up.
pub const PROBE_ARRIVAL: Duration = Duration::from_secs(3);

/// Pause before a probe that could not be published is asked for again.
pub const PROBE_RETRY: Duration = Duration::from_secs(1);

/// How long a user that may not publish is not asked to again.
pub const PROBE_FORBIDDEN_WAIT: Duration = Duration::from_secs(60);

/// Time between two questions to Sentinels about where the master is.
pub const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);

/// Reconnect delays grow from here, with full jitter …
pub const LINK_RETRY_MIN: Duration = Duration::from_millis(50);

/// … to here.
pub const LINK_RETRY_MAX: Duration = Duration::from_secs(5);

/// Bytes read from the Redis link before other work gets a turn.
pub const LINK_READ_BYTES_MAX: usize = 1024 * 1024;

/// How long a link counts as behind after a read that ended with more to come. Redis closes a
/// subscriber that falls too far behind; its last bytes arrive before the end does.
pub const LINK_BEHIND: Duration = Duration::from_secs(1);

/// Bytes of a message that is too long which are looked at: they say which event it was.
pub const OVERSIZE_START_BYTES: usize = 1280;

/// Longest line of the Redis protocol that is no payload (a reply, an error, a length).
pub const RESP_LINE_BYTES_MAX: usize = 64 * 1024;

/// A reply, or a push that is no message: pages of history stay far below.
pub const RESP_REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a string inside a reply may have beyond the longest message before it is left out: what
/// INFO says is no event, and has to come through however short those are.
pub const RESP_BULK_BYTES_SPARE: usize = 64 * 1024;

/// Aggregates within aggregates in a reply. EXEC around XRANGE needs 4; the decoder recurses.
pub const RESP_DEPTH_MAX: usize = 8;

/// A RESP client's unread output after which it is closed (Redis: client-output-buffer-limit).
pub const BROKER_OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a RESP client may send before it authenticates.
pub const BROKER_UNAUTHENTICATED_BYTES_MAX: usize = 64 * 1024;

/// Arguments of one RESP command.
pub const BROKER_ARGUMENTS_MAX: usize = 4096;

/// What a RESP command may take besides its longest argument: a script and 512 channels, and more.
pub const BROKER_COMMAND_BYTES_SPARE: usize = 1024 * 1024;

/// Commands queued by one MULTI, bytes and count.
pub const BROKER_TRANSACTION_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest argument of a RESP command where events have to be shorter: scripts do not.
pub const BROKER_BULK_BYTES_MIN: usize = 16 * 1024;

/// Name of a channel on the broker: what a link reads.
pub const BROKER_CHANNEL_BYTES_MAX: usize = RESP_LINE_BYTES_MAX;

/// Pattern of a PSUBSCRIBE.
pub const BROKER_PATTERN_BYTES_MAX: usize = 1024;

/// Different patterns of all clients; each costs every PUBLISH a match.
pub const BROKER_PATTERNS_MAX: usize = 1024;

/// Channels of one client of the broker: a worker's link may have one for each of its streams.
pub const BROKER_SUBSCRIPTIONS_MAX: usize = 4_000_000;

/// Bytes read from a client of the broker in one turn.
pub const BROKER_READ_BYTES: usize = 64 * 1024;

/// Output after which the broker writes before it reads on, so that a client that reads is never
/// over its bound for the burst of a single turn.
pub const BROKER_UNWRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// Clients of the embedded broker.
pub const BROKER_CLIENTS_MAX: usize = 10_000;

/// Bytes of the first page of a channel's history: fifty events of a few hundred bytes. Pages grow
/// from there, while they come full, …
pub const HISTORY_PAGE_BYTES_MIN: usize = 32 * 1024;

/// … by this factor …
pub const HISTORY_PAGE_GROWTH: usize = 2;

/// … up to here. An event that is larger has a page of its own.
pub const HISTORY_PAGE_BYTES_MAX: usize = 256 * 1024;

/// Entries of a page.
pub const HISTORY_PAGE_EVENTS_MAX: usize = 4096;

/// What Redis may be asked for at a time, in bytes of pages: a live event that is published
/// meanwhile arrives behind them, and what Redis has to send on a link counts as unread output of a
/// subscriber, which it bounds (client-output-buffer-limit).
pub const HISTORY_READING_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Pages that streams hold which come back, those that are on their way included.
pub const HISTORY_PAGES_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Of these, pages that nobody holds, and that somebody may want soon.
pub const HISTORY_PAGES_IDLE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What a plain XRANGE may bring, where Redis does not let us call a function that bounds it.
pub const HISTORY_RANGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of events that have arrived and are kept for streams that come back.
pub const HISTORY_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The least page of a channel that is made up for after a lost link, …
pub const REPAIR_PAGE_BYTES_MIN: usize = 4 * 1024;

/// … all of them, …
pub const REPAIR_PAGES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// … and what arrives meanwhile.
pub const REPAIR_HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Channels whose newest ids are asked for at a time.
pub const CHANNELS_PER_NEWEST_MAX: usize = 512;

/// Bytes of one write of events to a stream that comes back; the rest follows when they have left.
pub const CATCH_UP_WRITE_BYTES_MAX: usize = 64 * 1024;

/// What such a stream gets at a time, where its socket takes it.
pub const CATCH_UP_LOOK_BYTES_MAX: usize = 2 * CATCH_UP_WRITE_BYTES_MAX;

/// Ids of a channel's newest events that are counted for `?last=`; who asks for more begins with
/// the oldest that is kept.
pub const LAST_EVENTS_COUNTED_MAX: usize = 16_384;

/// How often a worker asks Redis how far its history has come, so that the ids of heartbeats
/// follow.
pub const CLOCK_READ_INTERVAL: Duration = Duration::from_secs(5);

/// Descriptors of a table that are not client sockets: runtime, links, listeners, spare.
pub const DESCRIPTORS_RESERVED: usize = 128;

/// Kernel and user memory of one connection, for the capacity that memory allows: 4 KB of kernel
/// structures, 0.2 KB of ours, and room for unacknowledged data.
pub const CONNECTION_MEMORY_BYTES: usize = 8 * 1024;

/// Send buffer asked of the kernel per connection: what a stalled reader can pin. The kernel
/// doubles it for its own overhead (socket(7), SO_SNDBUF).
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Pending connections per listener (listen(2)); cut by the kernel to net.core.somaxconn.
pub const LISTEN_BACKLOG: i32 = 4096;

/// `/readyz` tells within 10 s that delivery is not proven any more; ticks come on top.
const _: () = assert!(PROBE_AFTER.as_millis() + PROBE_DEADLINE.as_millis() < 10_000);
const _: () = assert!(LINK_RETRY_MIN.as_millis() < LINK_RETRY_MAX.as_millis());
const _: () = assert!(COALESCED_WRITE_BYTES_MAX <= SEND_BUFFER_BYTES);
const _: () = assert!(HISTORY_PAGE_BYTES_MIN <= HISTORY_PAGE_BYTES_MAX);
const _: () = assert!(HISTORY_PAGE_BYTES_MAX <= HISTORY_READING_BYTES_MAX);
const _: () = assert!(HISTORY_READING_BYTES_MAX <= HISTORY_PAGES_BYTES_MAX);
const _: () = assert!(HISTORY_PAGES_IDLE_BYTES_MAX < HISTORY_PAGES_BYTES_MAX);
const _: () = assert!(CATCH_UP_WRITE_BYTES_MAX <= SEND_BUFFER_BYTES);
const _: () = assert!(OPEN_WAIT.as_millis() >= TICK.as_millis());
const _: () = assert!(BROKER_UNWRITTEN_BYTES_MAX < BROKER_OUTPUT_BYTES_MAX);
