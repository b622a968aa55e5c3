//! Sockets: how they are made, their options with the reason of each, and the calls on them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::ground::limits::{LISTEN_BACKLOG, SEND_BUFFER_BYTES};
use crate::state::sockets::{Broken, Cold, Outcome, Sockets, Subscriber};
use crate::sys::raw;

/// What keepalive assumes where the kernel's own time for dead peers is to count.
const DEAD_PEER_USUAL: Duration = Duration::from_secs(60);

/// Resolution of the times of keepalive (tcp(7), TCP_KEEPIDLE).
const KEEPALIVE_STEP: Duration = Duration::from_secs(1);

/// Silence after which the kernel gives a link to Redis up when what we sent is not acknowledged.
const LINK_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// What may wait in the kernel while a link's worker does not get a processor: it is then read at
/// once, while Redis hands out little at a time of what it had to keep.
const LINK_RECEIVE_BYTES: i32 = 8 * 1024 * 1024;

/// Silence after which the kernel asks the other end of a link whether it is there, three times, a
/// third of that time apart.
const LINK_KEEPALIVE: Duration = Duration::from_secs(15);

/// A listener of one worker. All workers' listeners share the address by SO_REUSEPORT, and accepted
/// sockets inherit every option set here.
///
/// # Errors
/// What the kernel answers, for instance that the address is in use.
pub fn listen_tcp(
    address: SocketAddr,
    dead_peer_timeout: Option<Duration>,
    heartbeat: Option<Duration>,
) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // An event must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    let timeout = dead_peer_timeout.unwrap_or(DEAD_PEER_USUAL);
    if heartbeat.is_none_or(|interval| interval > timeout.saturating_mul(2)) {
        // Heartbeats are retransmitted until the time for dead peers is over; where they are rare,
        // keepalive has to find who is gone. The kernel ends a connection that has not answered
        // a single probe by then (tcp(7), TCP_USER_TIMEOUT), so there must be several before.
        let keepalive = TcpKeepalive::new()
            .with_time(timeout.max(KEEPALIVE_STEP * 8) / 2)
            .with_interval(timeout.max(KEEPALIVE_STEP * 8) / 8)
            .with_retries(4);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(dead_peer_timeout)?;
    // Without a bound, a stalled reader could pin megabytes of kernel memory.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Binds an address for the whole process: fails if anybody listens there, a second server of our
/// own included, and finds the port if 0 was asked for. The socket returned holds the port, and
/// workers' listeners may join it.
///
/// # Errors
/// What the kernel answers, for instance that the address is in use.
pub fn reserve_tcp(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let exclusive = tcp(address)?;
    // Only lets us bind while connections of an earlier server are in TIME_WAIT (socket(7)).
    exclusive.set_reuse_address(true)?;
    exclusive.bind(&address.into())?;
    let found = exclusive.local_addr()?.as_socket().unwrap_or(address);
    drop(exclusive);
    let holder = tcp(found)?;
    holder.set_reuse_address(true)?;
    holder.set_reuse_port(true)?;
    holder.bind(&found.into())?;
    Ok((holder.into(), found))
}

/// A listener that nobody shares.
///
/// # Errors
/// What the kernel answers.
pub fn listen_tcp_alone(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = tcp(address)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// A unix listener. A socket file that nobody listens on any more is replaced; one that somebody
/// does is an error.
///
/// # Errors
/// What the kernel answers.
pub fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Errno::ADDRINUSE.into());
    }
    match rustix::fs::lstat(path) {
        Ok(file) if rustix::fs::FileType::from_raw_mode(file.st_mode).is_socket() => {
            std::fs::remove_file(path)?;
        }
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// Starts to connect to a TCP address. The socket becomes writable when that is done; then
/// [`connect_result`] tells how it went.
///
/// # Errors
/// What the kernel answers at once.
pub fn connect_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(LINK_KEEPALIVE)
        .with_interval(LINK_KEEPALIVE / 3)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(LINK_USER_TIMEOUT))?;
    raw::widen_receive_buffer(socket.as_fd(), LINK_RECEIVE_BYTES)?;
    start_connecting(socket, &address.into())
}

/// As [`connect_tcp`], from a source address if one is given, and with no options: the client's end
/// of a stream. Port 0 lets the kernel search for one, which takes it milliseconds once hundreds of
/// thousands are in use, whatever their addresses.
///
/// # Errors
/// What the kernel answers at once.
pub fn connect_stream(source: Option<SocketAddr>, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = tcp(address)?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    start_connecting(socket, &address.into())
}

/// As [`connect_tcp`], to a unix socket.
///
/// # Errors
/// What the kernel answers at once.
pub fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    start_connecting(socket, &SockAddr::unix(path)?)
}

/// How an attempt to connect went, once the socket is writable.
///
/// # Errors
/// Why the connection was not made (socket(7), SO_ERROR).
pub fn connect_result(socket: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(socket)?.map_err(io::Error::from)
}

/// Takes the next connection from a listener's queue, or none if it is empty.
///
/// # Errors
/// What accept(2) answers; [`is_exhausted`] tells whether waiting may help.
pub fn accept(listener: impl AsFd) -> io::Result<Option<RawFd>> {
    match rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok(socket) => Ok(Some(socket.into_raw_fd())),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether accept(2) failed for want of descriptors or memory.
#[must_use]
pub fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What a read from a socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    /// Nothing for now.
    Empty,
    /// The peer has closed, or the connection is broken.
    Closed,
}

/// Reads what has arrived.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Received {
    loop {
        match rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Received::Closed,
            Ok((count, _)) => return Received::Bytes(count),
            Err(Errno::AGAIN) => return Received::Empty,
            Err(Errno::INTR) => {}
            Err(_) => return Received::Closed,
        }
    }
}

/// Reads what has arrived behind what the buffer holds, as far as it has room.
pub fn receive_more(socket: impl AsFd, buffer: &mut Vec<u8>) -> Received {
    let before = buffer.len();
    loop {
        let room = rustix::buffer::spare_capacity(buffer);
        match rustix::net::recv(&socket, room, RecvFlags::DONTWAIT) {
            Ok(_) if buffer.len() == before => return Received::Closed,
            Ok(_) => return Received::Bytes(buffer.len() - before),
            Err(Errno::AGAIN) => return Received::Empty,
            Err(Errno::INTR) => {}
            Err(_) => return Received::Closed,
        }
    }
}

/// Sends what the socket takes; 0 if its buffer is full.
///
/// # Errors
/// [`Broken`] if the connection is.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Broken> {
    loop {
        match rustix::net::send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(sent),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => {}
            Err(_) => return Err(Broken),
        }
    }
}

/// Tells the peer that nothing more will be sent.
pub fn finish(socket: impl AsFd) {
    // Fails only if the peer is gone already, which the next read tells.
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}

/// Lets the close of a socket be a reset: its port is free at once, and not in TIME_WAIT for a
/// minute (socket(7), SO_LINGER).
pub fn reset_on_close(socket: impl AsFd) {
    // Fails only for what is no socket; then the port stays taken for a while.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Client sockets by their numbers in the connection slab.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientSockets;

impl Sockets for ClientSockets {
    fn send_to_all(&mut self, subscribers: &[Subscriber], bytes: &[u8], cold: &mut Vec<Cold>) {
        for (index, subscriber) in subscribers.iter().enumerate() {
            if subscriber.is_rare() {
                cold.push(Cold { index, outcome: Outcome::Skipped });
                continue;
            }
            match send(raw::borrow(subscriber.fd), bytes) {
                Ok(sent) if sent == bytes.len() => {}
                Ok(sent) => cold.push(Cold { index, outcome: Outcome::Partial(sent) }),
                Err(Broken) => cold.push(Cold { index, outcome: Outcome::Failed }),
            }
        }
    }

    fn send(&mut self, fd: RawFd, bytes: &[u8]) -> Result<usize, Broken> {
        send(raw::borrow(fd), bytes)
    }

    fn send_vectored(&mut self, fd: RawFd, buffers: &[IoSlice<'_>]) -> Result<usize, Broken> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let mut control = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(raw::borrow(fd), buffers, &mut control, flags) {
                Ok(sent) => return Ok(sent),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Broken),
            }
        }
    }

    fn close(&mut self, fd: RawFd, peer_lives: bool) {
        if peer_lives {
            // Unread input would turn the close into a reset, which may overtake what was just
            // sent.
            let mut junk = [0_u8; 1024];
            let _ = receive(raw::borrow(fd), &mut junk);
        }
        raw::close(fd);
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` must not take the IPv4 address that another option may name (ipv6(7)).
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn start_connecting(socket: Socket, address: &SockAddr) -> io::Result<OwnedFd> {
    match socket.connect(address) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            Ok(socket.into())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keepalive of a listener: whether, and its idle time and interval in seconds.
    fn keepalive(dead_peer_s: Option<u64>, heartbeat_s: Option<u64>) -> (bool, u64, u64) {
        let seconds = |s: Option<u64>| s.map(Duration::from_secs);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = listen_tcp(address, seconds(dead_peer_s), seconds(heartbeat_s)).unwrap();
        let socket = socket2::SockRef::from(&listener);
        let (idle, interval) = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        (socket.keepalive().unwrap(), idle.unwrap().as_secs(), interval.unwrap().as_secs())
    }

    #[test]
    fn keepalive_stands_in_for_heartbeats_and_probes_more_than_once() {
        assert!(!keepalive(Some(30), Some(15)).0);
        assert!(!keepalive(Some(30), Some(60)).0);
        assert_eq!(keepalive(Some(30), None), (true, 15, 3));
        assert_eq!(keepalive(Some(30), Some(3600)), (true, 15, 3));
        assert_eq!(keepalive(Some(1), None), (true, 4, 1));
        assert_eq!(keepalive(None, None), (true, 30, 7));
    }
}
