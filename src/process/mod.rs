//! Floor 6: the process: command line, threads, signals, exit code.

pub mod cli;
pub mod log;
pub mod publish;
