//! Real parts for the tests: the binary, a Redis, streams, and other people's clients.
#![allow(dead_code, reason = "each test binary uses its own share of these parts")]

pub(crate) mod address;
pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod channels;
pub(crate) mod chaos;
pub(crate) mod clients;
pub(crate) mod clock;
pub(crate) mod crowd;
pub(crate) mod event_source;
pub(crate) mod fault_proxy;
pub(crate) mod follower;
pub(crate) mod http;
pub(crate) mod intruder;
pub(crate) mod judge;
pub(crate) mod kept;
pub(crate) mod ledger;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod publishing;
pub(crate) mod redis;
pub(crate) mod resumption;
pub(crate) mod sentinel;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod stream;
pub(crate) mod wanderers;
