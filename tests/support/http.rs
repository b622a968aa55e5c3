//! HTTP as bytes: requests written by hand, responses taken apart as strictly as a client may.

use std::io::{self, Read, Write};

use super::address::{Address, Socket};
use super::clock::{Deadline, PATIENCE};

/// A raw connection to a listener.
pub(crate) struct Connection {
    socket: Socket,
    unread: Vec<u8>,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

/// A response with a body of known length.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl Head {
    /// The only value of a field, by its name in lower case; `None` where it is missing.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|field| field.0 == name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value.map(|field| field.1.as_str())
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1.1 "), "status line: {status_line:?}");
        let status = status_line[9..12].parse().unwrap();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self { status, fields }
    }
}

impl Connection {
    pub(crate) fn open(address: &Address) -> Self {
        Self::over(address.connect().unwrap())
    }

    /// Speaks over a socket that was connected, and had its options set, elsewhere.
    pub(crate) fn over(socket: Socket) -> Self {
        Self { socket, unread: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    pub(crate) fn finish_sending(&self) {
        self.socket.finish_sending().unwrap();
    }

    pub(crate) fn head(&mut self) -> Head {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            let so_far = String::from_utf8_lossy(&self.unread).into_owned();
            let length = self.fill(Deadline::after(PATIENCE)).unwrap_or_else(|error| {
                panic!("no response head: {error}, after {so_far:?}");
            });
            assert!(length > 0, "the connection ended inside the response head {so_far:?}");
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        Head::parse(std::str::from_utf8(&head[..end]).unwrap())
    }

    /// A whole response, its length told by Content-Length (or none for 204 and the like).
    pub(crate) fn response(&mut self) -> Response {
        let head = self.head();
        let length = head.field("content-length").map_or(0, |length| length.parse().unwrap());
        self.body(head, length)
    }

    /// The response to HEAD: Content-Length speaks of a body that is not sent.
    pub(crate) fn response_to_head(&mut self) -> Response {
        let head = self.head();
        self.body(head, 0)
    }

    fn body(&mut self, head: Head, length: usize) -> Response {
        while self.unread.len() < length {
            let filled = self.fill(Deadline::after(PATIENCE)).unwrap();
            assert!(filled > 0, "the connection ended inside the body of {head:?}");
        }
        let body = self.unread.drain(..length).collect();
        Response { head, body: String::from_utf8(body).unwrap() }
    }

    /// What has arrived and was not read.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// Everything until the peer ends the connection; a reset is an end like any other.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.fill(deadline) {
                Ok(0) => return self.take_unread(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return self.take_unread();
                }
                Err(error) => panic!("the peer did not end the connection: {error}"),
            }
        }
    }

    /// Reads once; 0 at the end of the connection, an error once the deadline has passed.
    pub(crate) fn fill(&mut self, deadline: Deadline) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let left = deadline.left().ok_or(io::ErrorKind::TimedOut)?;
        self.socket.set_read_timeout(left)?;
        let length = self.socket.read(&mut buffer)?;
        self.unread.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

/// One GET on a connection of its own.
pub(crate) fn get(address: &Address, target: &str) -> Response {
    let mut connection = Connection::open(address);
    connection
        .send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    let head = connection.head();
    let body = String::from_utf8(connection.read_to_end()).unwrap();
    if let Some(length) = head.field("content-length") {
        assert_eq!(length, body.len().to_string(), "Content-Length of {target}");
    }
    Response { head, body }
}
