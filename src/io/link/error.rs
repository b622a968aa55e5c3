//! Why a link is down.

use std::fmt;
use std::io;

use crate::bytes::resp::ProtocolError;
use crate::ground::limits::LINK_DEADLINE;

/// Why a link is down.
#[derive(Debug)]
pub enum LinkError {
    Resolve(io::Error),
    Connect(io::Error),
    /// Redis closed the connection, or it broke.
    Closed,
    Protocol(ProtocolError),
    /// An answer that no command of ours asked for.
    OutOfStep,
    /// Redis answered the greeting with this error.
    Refused(String),
    /// No answer in time to what is named here.
    Silent(&'static str),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "its name can't be resolved: {error}"),
            Self::Connect(error) => write!(f, "it can't be reached: {error}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Protocol(error) => write!(f, "it does not speak the Redis protocol: {error}"),
            Self::OutOfStep => f.write_str("it sent an answer that nothing had asked for"),
            Self::Refused(error) => write!(f, "it answered: {error}"),
            Self::Silent(what) => {
                write!(f, "no answer to {what} within {} s", LINK_DEADLINE.as_secs())
            }
        }
    }
}
