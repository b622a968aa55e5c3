//! What keeps the server from starting or from going on, in words for whoever started it.

use std::fmt;
use std::io;

use crate::bytes::target::RouteError;
use crate::io::tls::TlsError;

/// Why the server did not start, or could not go on.
#[derive(Debug)]
pub enum ServeError {
    Listen {
        option: &'static str,
        address: String,
        error: io::Error,
    },
    Route(RouteError),
    Tls(TlsError),
    /// `--driver uring` where the kernel refuses it.
    NoUring,
    /// A worker could not start at all.
    Worker(io::Error),
    /// A thread that the server can't do without has ended.
    Thread(&'static str),
    System(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { option, address, error } => {
                write!(f, "{option} {address}: {error}")?;
                if error.kind() == io::ErrorKind::AddrInUse {
                    f.write_str("; end what listens there, or choose another address")?;
                }
                Ok(())
            }
            Self::Route(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::NoUring => f.write_str(
                "--driver uring: the kernel refuses io_uring to this process; allow it \
                 (sysctl kernel.io_uring_disabled, seccomp) or use auto or epoll",
            ),
            Self::Worker(error) => write!(f, "a worker can't start: {error}"),
            Self::Thread(name) => write!(f, "the {name} thread has ended"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<TlsError> for ServeError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<RouteError> for ServeError {
    fn from(error: RouteError) -> Self {
        Self::Route(error)
    }
}
