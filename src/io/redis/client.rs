//! A connection that waits for its answers, with a bound on every wait.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::StreamOwned;

use super::{LocateError, Location, Redis, locate};
use crate::bytes::resp::{Incoming, Parsed, Reply, Value, encode_command, parse};
use crate::ground::limits::LINK_DEADLINE;
use crate::io::tls::{Tls, explain};

/// Why a client is of no more use.
#[derive(Debug)]
pub enum ClientError {
    Locate(LocateError),
    Unreachable(io::Error),
    Tls(String),
    Lost(io::Error),
    Closed,
    /// The server's answer, an error.
    Refused(String),
    /// The server's answer, which is none of Redis.
    NotRedis,
    /// What Sentinels call the master says that it is none.
    NotMaster,
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A connection that speaks RESP2, in which every server answers.
pub struct Client {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// Bytes at the start of `input` that were answers already taken.
    taken: usize,
}

const READ_BYTES: usize = 16 * 1024;

impl Client {
    /// Finds the Redis, connects, and authenticates.
    ///
    /// # Errors
    /// How far it came.
    pub fn open(redis: &Redis) -> Result<Self, ClientError> {
        let location = locate(redis).map_err(ClientError::Locate)?;
        Self::open_at(redis, &location)
    }

    /// [`Self::open`], at a place that is known.
    ///
    /// # Errors
    /// How far it came.
    pub fn open_at(redis: &Redis, location: &Location) -> Result<Self, ClientError> {
        let mut client = Self::connect(location, redis.tls.as_ref(), LINK_DEADLINE)?;
        if let Some(password) = &redis.address.password {
            client.authenticate(redis.address.username.as_deref(), password)?;
        }
        if redis.address.database != 0 {
            let database = redis.address.database.to_string();
            client.command(&[b"SELECT", database.as_bytes()], |_| ())?;
        }
        if redis.must_be_master() {
            let is_master = client.command(&[b"ROLE"], |reply| match reply {
                Reply::Other(Value::Array(parts)) => {
                    matches!(parts.first(), Some(Value::String(b"master")))
                }
                _ => false,
            })?;
            if !is_master {
                return Err(ClientError::NotMaster);
            }
        }
        Ok(client)
    }

    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// What the last one answered.
    pub fn connect(
        location: &Location,
        tls: Option<&Tls>,
        time: Duration,
    ) -> Result<Self, ClientError> {
        let stream: Box<dyn Stream> = match location {
            Location::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(ClientError::Unreachable)?;
                stream.set_read_timeout(Some(time)).map_err(ClientError::Unreachable)?;
                stream.set_write_timeout(Some(time)).map_err(ClientError::Unreachable)?;
                Box::new(stream)
            }
            Location::Tcp { host, addresses } => {
                let stream = connect_tcp(addresses, time).map_err(ClientError::Unreachable)?;
                match tls {
                    None => Box::new(stream),
                    Some(tls) => {
                        let client =
                            tls.client(host).map_err(|error| ClientError::Tls(explain(&error)))?;
                        let mut stream = StreamOwned::new(client, stream);
                        // Here, so that what it says is not taken for an answer to a command.
                        stream.conn.complete_io(&mut stream.sock).map_err(broken)?;
                        Box::new(stream)
                    }
                }
            }
        };
        Ok(Self { stream, input: Vec::new(), taken: 0 })
    }

    /// # Errors
    /// What the server says to it.
    pub fn authenticate(
        &mut self,
        username: Option<&str>,
        password: &str,
    ) -> Result<(), ClientError> {
        let mut auth: Vec<&[u8]> = vec![b"AUTH"];
        auth.extend(username.map(str::as_bytes));
        auth.push(password.as_bytes());
        self.command(&auth, |_| ())
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// An answer that is an error, or that there is none.
    pub fn command<T>(
        &mut self,
        arguments: &[&[u8]],
        read: impl FnOnce(Reply<'_>) -> T,
    ) -> Result<T, ClientError> {
        let mut command = Vec::new();
        encode_command(arguments, &mut command);
        self.send(&command)?;
        self.reply(read)
    }

    /// Sends commands.
    ///
    /// # Errors
    /// That the connection is lost.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(commands).map_err(broken)?;
        self.stream.flush().map_err(broken)
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// An answer that is an error, or that there is none.
    pub fn reply<T>(&mut self, read: impl FnOnce(Reply<'_>) -> T) -> Result<T, ClientError> {
        let mut needed = 1;
        loop {
            let rest = self.input.get(self.taken..).unwrap_or_default();
            if rest.len() >= needed {
                match parse(rest, 0).map_err(|_| ClientError::NotRedis)? {
                    Parsed::Complete { incoming: Incoming::Reply(reply), consumed } => {
                        self.taken += consumed;
                        return match reply {
                            Reply::Error(error) => Err(ClientError::Refused(
                                String::from_utf8_lossy(error).into_owned(),
                            )),
                            reply => Ok(read(reply)),
                        };
                    }
                    Parsed::Partial { needed: more } => needed = more,
                    Parsed::Complete { .. } | Parsed::Oversize { .. } | Parsed::Overlong { .. } => {
                        return Err(ClientError::NotRedis);
                    }
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), ClientError> {
        self.input.drain(..std::mem::take(&mut self.taken));
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let read = self.stream.read(self.input.get_mut(before..).unwrap_or_default());
        self.input.truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) if before == 0 => Err(ClientError::Closed),
            // In the middle of an answer, which is none of Redis then.
            Ok(0) => Err(ClientError::NotRedis),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(broken(error)),
        }
    }
}

fn connect_tcp(addresses: &[SocketAddr], time: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(address, time) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(time))?;
                stream.set_write_timeout(Some(time))?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What an error of the stream means: TLS hands over its own as one of the stream.
fn broken(error: io::Error) -> ClientError {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(error) => ClientError::Tls(explain(error)),
        None => ClientError::Lost(error),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locate(error) => write!(f, "{error}"),
            Self::Unreachable(error) => write!(f, "it can't be reached: {error}"),
            Self::Tls(error) => write!(f, "no TLS with it: {error}"),
            Self::Lost(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                f.write_str("it does not answer")
            }
            Self::Lost(error) => write!(f, "the connection is lost: {error}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Refused(reply) => write!(f, "it answered: {reply}"),
            Self::NotRedis => f.write_str("it does not speak the Redis protocol"),
            Self::NotMaster => f.write_str("it is no master any more"),
        }
    }
}

impl std::error::Error for ClientError {}
