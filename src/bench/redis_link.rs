//! A connection to Redis or the broker, for who publishes and for the floor.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::bytes::resp::encode_command;
use crate::ground::config::{RedisAddress, RedisEndpoint};
use crate::ground::limits::{LINK_DEADLINE, RESP_LINE_BYTES_MAX};

/// Connects and authenticates; the socket then does not block.
///
/// # Errors
/// What the kernel or the resolver answers, or what the server says to AUTH.
pub(super) fn connect(server: &RedisAddress) -> io::Result<Socket> {
    let mut socket = match &server.endpoint {
        RedisEndpoint::Tcp { host, port } => connect_tcp((host.as_str(), *port))?,
        RedisEndpoint::Sentinel(_) => return Err(io::ErrorKind::Unsupported.into()),
        RedisEndpoint::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
            socket.connect(&SockAddr::unix(path)?)?;
            socket
        }
    };
    if let Some(password) = server.password.as_deref() {
        let user = server.username.as_deref().map(str::as_bytes);
        authenticate(&mut socket, user, password.as_bytes())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connects to the first address that answers.
///
/// # Errors
/// What the last address answered.
pub(super) fn connect_tcp(addresses: impl ToSocketAddrs) -> io::Result<Socket> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.to_socket_addrs()? {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
        match socket.connect_timeout(&address.into(), LINK_DEADLINE) {
            Ok(()) => {
                socket.set_tcp_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn authenticate(socket: &mut Socket, user: Option<&[u8]>, password: &[u8]) -> io::Result<()> {
    socket.set_read_timeout(Some(LINK_DEADLINE))?;
    let mut command = Vec::new();
    match user {
        Some(user) => encode_command(&[b"AUTH", user, password], &mut command),
        None => encode_command(&[b"AUTH", password], &mut command),
    }
    socket.write_all(&command)?;
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") && line.len() < RESP_LINE_BYTES_MAX {
        socket.read_exact(&mut byte)?;
        line.extend_from_slice(&byte);
    }
    socket.set_read_timeout(None::<Duration>)?;
    match line.strip_prefix(b"-") {
        Some(error) => Err(io::Error::other(String::from_utf8_lossy(error).trim_end().to_owned())),
        None => Ok(()),
    }
}
