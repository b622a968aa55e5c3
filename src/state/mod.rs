//! Floor 2: the tables of a worker and their rules. No socket, no clock, no runtime: sockets stand
//! behind [`sockets::Sockets`], and the time is an argument.

pub mod backlog;
pub mod catch_up;
pub mod channels;
pub mod connections;
pub mod counters;
pub mod deadlines;
pub mod history_page;
pub mod pages;
pub mod recent;
pub mod sockets;
pub mod streams;
