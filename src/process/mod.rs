//! Floor 6: the process: command line, threads, signals, exit code.

mod banner;
pub mod cli;
mod error;
pub mod log;
pub mod publish;
pub mod server;
mod supervisor;

pub use error::ServeError;
pub use supervisor::Ending;
