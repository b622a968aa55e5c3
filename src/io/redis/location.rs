//! Where a Redis is now: names are resolved, Sentinels asked. All of it waits, with bounds.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::Redis;
use super::client::{Client, ClientError};
use crate::bytes::resp::{Reply, Value};
use crate::ground::config::{RedisEndpoint, Sentinels};

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    Unix(PathBuf),
    Tcp {
        /// The name that its certificate is for.
        host: String,
        /// Never empty.
        addresses: Vec<SocketAddr>,
    },
}

/// Why nobody knows where it is.
#[derive(Debug)]
pub enum LocateError {
    Resolve {
        host: String,
        error: io::Error,
    },
    /// No Sentinel said where the master is; each with what it said instead.
    NoSentinel(String),
}

/// How long each of several Sentinels may take: the next one may know.
const SENTINEL_TIME: Duration = Duration::from_secs(1);

/// Finds out where a Redis is. Waits for name servers and Sentinels: not for a worker.
///
/// # Errors
/// Whom it asked, and what they said.
pub fn locate(redis: &Redis) -> Result<Location, LocateError> {
    match &redis.address.endpoint {
        RedisEndpoint::Unix(path) => Ok(Location::Unix(path.clone())),
        RedisEndpoint::Tcp { host, port } => resolve(host, *port),
        RedisEndpoint::Sentinel(sentinels) => {
            let (host, port) = ask(sentinels, redis)?;
            resolve(&host, port)
        }
    }
}

fn resolve(host: &str, port: u16) -> Result<Location, LocateError> {
    let failed = |error| LocateError::Resolve { host: host.to_owned(), error };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(Location::Tcp { host: host.to_owned(), addresses })
}

/// Asks one Sentinel after the other for the master.
fn ask(sentinels: &Sentinels, redis: &Redis) -> Result<(String, u16), LocateError> {
    let mut answers = Vec::new();
    for (host, port) in &sentinels.hosts {
        let answer = resolve(host, *port)
            .map_err(|error| error.to_string())
            .and_then(|place| ask_one(&place, sentinels, redis).map_err(|error| error.to_string()));
        match answer {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => answers.push(format!("{host}:{port}: knows no such master")),
            Err(error) => answers.push(format!("{host}:{port}: {error}")),
        }
    }
    Err(LocateError::NoSentinel(format!("{}: {}", sentinels.master, answers.join("; "))))
}

fn ask_one(
    place: &Location,
    sentinels: &Sentinels,
    redis: &Redis,
) -> Result<Option<(String, u16)>, ClientError> {
    let mut sentinel = Client::connect(place, redis.tls.as_ref(), SENTINEL_TIME)?;
    if let Some(password) = &sentinels.password {
        sentinel.authenticate(None, password)?;
    }
    let question: [&[u8]; 3] =
        [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", sentinels.master.as_bytes()];
    sentinel.command(&question, |reply| match reply {
        Reply::Other(Value::Array(parts)) => match parts.as_slice() {
            [Value::String(host), Value::String(port)] => {
                let port = std::str::from_utf8(port).ok()?.parse().ok()?;
                Some((String::from_utf8_lossy(host).into_owned(), port))
            }
            _ => None,
        },
        _ => None,
    })
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, error } => write!(f, "{host:?} can't be resolved: {error}"),
            Self::NoSentinel(answers) => write!(f, "no Sentinel knows the master {answers}"),
        }
    }
}

impl std::error::Error for LocateError {}
