//! corecast: a thread-per-core event-stream server.

pub mod ground;

pub mod bytes;

pub mod state;

pub mod sys;

pub mod io;

pub mod worker;

pub mod process;
