//! The broker's thread: its epoll set, its listener, and the sockets of its clients.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, SocketFlags, sockopt};
use tracing::warn;

use super::client::{ClientId, CloseReason, State};
use super::hub::Hub;
use super::{BrokerCounters, BrokerListener, BrokerOptions};
use crate::ground::limits;
use crate::io::rate_limited::RateLimited;
use crate::sys::clock;
use crate::sys::socket::{self, Received};

pub(super) struct EventLoop {
    epoll: OwnedFd,
    listener: BrokerListener,
    hub: Hub,
    /// By the client's slot in the hub.
    connections: Vec<Option<Connection>>,
    /// Connections that are closed at the latest at that time, the earliest first. Those that were
    /// closed before stay in it till then.
    lingering: VecDeque<(Instant, ClientId)>,
    /// When connections are accepted again, after there was no descriptor for one.
    accept_again: Option<Instant>,
    read_buffer: Vec<u8>,
    logs: Logs,
}

struct Connection {
    id: ClientId,
    socket: OwnedFd,
    /// `None` on a unix socket.
    peer: Option<SocketAddr>,
    /// The beginning of a command.
    input: Vec<u8>,
    /// How long `input` has to be before it is worth looking at again.
    needed: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The kernel takes no more output now; epoll tells when it does.
    Blocked,
    /// Everything is sent. The connection is closed once the client has read it and closed too:
    /// closing on unread input would reset the connection and lose the answer.
    Lingering,
}

#[derive(Default)]
struct Logs {
    accept: RateLimited,
    cross_protocol: RateLimited,
    overflow: RateLimited,
    refused: RateLimited,
}

const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Pause after the kernel had no descriptor or memory for a connection: nobody tells when it has.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Writes to one client in one turn. A client that reads as fast as we write must not keep us.
const WRITES_PER_TURN_MAX: usize = 16;

/// Idle time, interval and count of TCP keepalive: the default of Redis, so that a subscriber that
/// vanished does not count as one for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(100);
const KEEPALIVE_COUNT: u32 = 3;

impl EventLoop {
    pub(super) fn new(
        listener: BrokerListener,
        options: BrokerOptions,
        stop: &OwnedFd,
        counters: Arc<BrokerCounters>,
    ) -> io::Result<Self> {
        match &listener {
            BrokerListener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                sockopt::set_tcp_nodelay(listener, true)?;
                sockopt::set_socket_keepalive(listener, true)?;
                sockopt::set_tcp_keepidle(listener, KEEPALIVE_IDLE)?;
                sockopt::set_tcp_keepintvl(listener, KEEPALIVE_INTERVAL)?;
                sockopt::set_tcp_keepcnt(listener, KEEPALIVE_COUNT)?;
            }
            BrokerListener::Unix(listener) => listener.set_nonblocking(true)?,
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, stop, EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            hub: Hub::new(options, counters),
            connections: Vec::new(),
            lingering: VecDeque::new(),
            accept_again: None,
            read_buffer: vec![0; limits::BROKER_READ_BYTES],
            logs: Logs::default(),
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(limits::READINESS_PER_TURN_MAX);
        loop {
            let timeout = self.timeout();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    STOP => return Ok(()),
                    LISTENER => self.accept()?,
                    token => self.ready(ClientId::from_token(token), event.flags),
                }
                if self.hub.unwritten_bytes() >= limits::BROKER_UNWRITTEN_BYTES_MAX {
                    self.write_all();
                }
            }
            self.write_all();
            self.expire()?;
        }
    }

    /// How long epoll may wait before something is due.
    fn timeout(&self) -> Option<Timespec> {
        let lingering = self.lingering.front().map(|(deadline, _)| *deadline);
        let due = [lingering, self.accept_again].into_iter().flatten().min()?;
        Timespec::try_from(due.saturating_duration_since(clock::now())).ok()
    }

    /// Does what is due.
    fn expire(&mut self) -> io::Result<()> {
        if self.lingering.is_empty() && self.accept_again.is_none() {
            return Ok(());
        }
        let now = clock::now();
        while let Some(&(deadline, id)) = self.lingering.front()
            && deadline <= now
        {
            self.lingering.pop_front();
            self.close(id);
        }
        if self.accept_again.take_if(|again| *again <= now).is_some() {
            let data = EventData::new_u64(LISTENER);
            epoll::modify(&self.epoll, &self.listener, data, EventFlags::IN)?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        for _ in 0..limits::ACCEPTS_PER_TURN_MAX {
            match rustix::net::acceptfrom_with(&self.listener, flags) {
                Ok((socket, peer)) => {
                    self.admit(socket, peer.and_then(|peer| SocketAddr::try_from(peer).ok()));
                }
                Err(Errno::AGAIN) => break,
                Err(error) if socket::is_exhausted(&error.into()) => {
                    self.pause_accepting(error)?;
                    break;
                }
                // The connection died before it was accepted (accept(2)).
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn pause_accepting(&mut self, error: Errno) -> io::Result<()> {
        self.hub.counters.accept_failures.add(1);
        let now = clock::now();
        if let Some(suppressed) = self.logs.accept.permit(now) {
            warn!(%error, suppressed, "the broker can't accept a connection; it tries again");
        }
        self.accept_again = Some(now + ACCEPT_PAUSE);
        let data = EventData::new_u64(LISTENER);
        epoll::modify(&self.epoll, &self.listener, data, EventFlags::empty())?;
        Ok(())
    }

    fn admit(&mut self, socket: OwnedFd, peer: Option<SocketAddr>) {
        let Some(id) = self.hub.open() else {
            self.hub.counters.refused.add(1);
            if let Some(suppressed) = self.logs.refused.permit(clock::now()) {
                let clients = limits::BROKER_CLIENTS_MAX;
                warn!(clients, suppressed, "the broker refused a client: it has too many");
            }
            // What can't be sent at once is not worth waiting for.
            let _ = socket::send(&socket, b"-ERR max number of clients reached\r\n");
            return;
        };
        let data = EventData::new_u64(id.to_token());
        if let Err(error) = epoll::add(&self.epoll, &socket, data, EventFlags::IN) {
            if let Some(suppressed) = self.logs.accept.permit(clock::now()) {
                warn!(%error, suppressed, "the broker can't watch a connection; it is closed");
            }
            return self.hub.close(id);
        }
        let slot = id.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(vacant) = self.connections.get_mut(slot) {
            let input = Vec::new();
            *vacant = Some(Connection { id, socket, peer, input, needed: 1, phase: Phase::Open });
        }
    }

    /// Handles what epoll tells of a client.
    fn ready(&mut self, id: ClientId, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.write(id);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(id);
        }
    }

    fn read(&mut self, id: ClientId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        let count = match socket::receive(&connection.socket, &mut self.read_buffer) {
            Received::Bytes(count) => count,
            Received::Empty => return,
            Received::Closed => return self.close(id),
        };
        if self.hub.client(id).is_none_or(|client| client.state != State::Open) {
            return;
        }
        let arrived = self.read_buffer.get(..count).unwrap_or_default();
        if connection.input.is_empty() {
            let taken = self.hub.receive(id, arrived);
            connection.needed = taken.needed;
            connection.input = arrived.get(taken.consumed..).unwrap_or_default().to_vec();
            return;
        }
        connection.input.extend_from_slice(arrived);
        if connection.input.len() < connection.needed {
            return;
        }
        let taken = self.hub.receive(id, &connection.input);
        connection.needed = taken.needed;
        // A new vector, so that the memory of a large command is given back.
        connection.input = connection.input.get(taken.consumed..).unwrap_or_default().to_vec();
    }

    /// Writes all new output.
    fn write_all(&mut self) {
        for slot in self.hub.take_unwritten() {
            let Some(id) = self.hub.id_of(slot) else { continue };
            let phase = find(&mut self.connections, id).map(|connection| connection.phase);
            let overflowed = self.hub.client(id).is_some_and(|client| {
                client.output.has_overflowed() || matches!(client.state, State::Closing(_))
            });
            if phase == Some(Phase::Open) || overflowed {
                self.write(id);
            }
        }
    }

    /// Writes a client's output as far as the kernel takes it.
    fn write(&mut self, id: ClientId) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        let Some(client) = self.hub.client(id) else { return };
        if client.output.has_overflowed() {
            return self.abandon(id, CloseReason::OutputOverflow);
        }
        if let State::Closing(reason) = client.state {
            return self.abandon(id, reason);
        }
        for _ in 0..WRITES_PER_TURN_MAX {
            if client.output.is_empty() {
                break;
            }
            let (slices, used) = client.output.slices();
            let slices = slices.get(..used).unwrap_or_default();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let ancillary = &mut SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&connection.socket, slices, ancillary, flags) {
                Ok(sent) => client.output.advance(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.close(id),
            }
        }
        let phase = match (client.output.is_empty(), client.state) {
            (false, _) => Phase::Blocked,
            (true, State::Finishing) => Phase::Lingering,
            (true, _) => Phase::Open,
        };
        self.enter(id, phase);
    }

    fn enter(&mut self, id: ClientId, phase: Phase) {
        let Some(connection) = find(&mut self.connections, id) else { return };
        if connection.phase == phase {
            return;
        }
        if phase == Phase::Lingering {
            connection.input = Vec::new();
            socket::finish(&connection.socket);
            self.lingering.push_back((clock::now() + limits::LINGERING_CLOSE, id));
        }
        connection.phase = phase;
        let flags = match phase {
            Phase::Blocked => EventFlags::IN | EventFlags::OUT,
            Phase::Open | Phase::Lingering => EventFlags::IN,
        };
        let data = EventData::new_u64(id.to_token());
        if epoll::modify(&self.epoll, &connection.socket, data, flags).is_err() {
            self.close(id);
        }
    }

    /// Closes a connection for a reason of ours.
    fn abandon(&mut self, id: ClientId, reason: CloseReason) {
        let now = clock::now();
        let peer = find(&mut self.connections, id).and_then(|connection| connection.peer);
        let peer = peer.map_or_else(|| "unix socket".to_owned(), |peer| peer.to_string());
        let client = self.hub.client(id).map_or(0, |client| client.number);
        match reason {
            CloseReason::OutputOverflow => {
                self.hub.counters.overflows.add(1);
                if let Some(suppressed) = self.logs.overflow.permit(now) {
                    let bytes = limits::BROKER_OUTPUT_BYTES_MAX;
                    warn!(client, peer, bytes, suppressed, "closed a client that reads too slowly");
                }
            }
            CloseReason::CrossProtocol => {
                if let Some(suppressed) = self.logs.cross_protocol.permit(now) {
                    warn!(
                        client,
                        peer, suppressed, "closed a client that speaks HTTP to the broker"
                    );
                }
            }
        }
        self.close(id);
    }

    fn close(&mut self, id: ClientId) {
        if find(&mut self.connections, id).is_some()
            && let Some(entry) = self.connections.get_mut(id.slot as usize)
        {
            // Closing a socket takes it out of the epoll set (epoll(7)).
            *entry = None;
            self.hub.close(id);
        }
    }
}

fn find(connections: &mut [Option<Connection>], id: ClientId) -> Option<&mut Connection> {
    let connection = connections.get_mut(id.slot as usize)?.as_mut()?;
    (connection.id == id).then_some(connection)
}
