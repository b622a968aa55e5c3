//! Why a link is down.

use std::fmt;
use std::io;

use crate::bytes::resp::ProtocolError;
use crate::ground::limits::LINK_DEADLINE;
use crate::io::redis::LocateError;
use crate::io::tls::explain;
use crate::state::counters::LossReason;

/// Why a link is down.
#[derive(Debug)]
pub enum LinkError {
    Locate(LocateError),
    Connect(io::Error),
    Tls(rustls::Error),
    /// Redis closed the connection, or it broke.
    Closed,
    /// The same while more had arrived than could be read: Redis ends who falls too far behind.
    Behind,
    Protocol(ProtocolError),
    /// An answer that no command of ours asked for.
    OutOfStep,
    /// Redis answered the greeting with this error.
    Refused(String),
    /// What Sentinels call the master says that it is none.
    NotMaster,
    /// What was published did not arrive.
    Undelivered,
    /// An event arrived, and one before it did not.
    Gap,
    /// Sentinels name another master.
    Moved,
    /// No answer in time to what is named here.
    Silent(&'static str),
}

impl LinkError {
    /// As what the loss of a link is counted.
    #[must_use]
    pub fn reason(&self) -> LossReason {
        match self {
            Self::Locate(_) | Self::Connect(_) => LossReason::Unreachable,
            Self::Tls(_) => LossReason::Tls,
            Self::Closed => LossReason::Closed,
            Self::Behind => LossReason::Behind,
            Self::Protocol(_) | Self::OutOfStep => LossReason::Protocol,
            Self::Refused(_) => LossReason::Refused,
            Self::NotMaster | Self::Moved => LossReason::Moved,
            Self::Undelivered | Self::Gap => LossReason::Undelivered,
            Self::Silent(_) => LossReason::Silent,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locate(error) => write!(f, "{error}"),
            Self::Connect(error) => write!(f, "it can't be reached: {error}"),
            Self::Tls(error) => write!(f, "no TLS with it: {}", explain(error)),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Behind => f.write_str(
                "it closed the connection, on which we were behind (client-output-buffer-limit)",
            ),
            Self::Protocol(error) => write!(f, "it does not speak the Redis protocol: {error}"),
            Self::OutOfStep => f.write_str("it sent an answer that nothing had asked for"),
            Self::Refused(error) => write!(f, "it answered: {error}"),
            Self::Undelivered => f.write_str("what is published does not arrive from it"),
            Self::Gap => f.write_str("an event did not arrive from it"),
            Self::Moved => f.write_str("another one is the master now"),
            Self::NotMaster => f.write_str("it is no master any more"),
            Self::Silent(what) => {
                write!(f, "no answer to {what} within {} s", LINK_DEADLINE.as_secs())
            }
        }
    }
}
