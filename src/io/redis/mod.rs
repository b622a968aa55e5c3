//! Redis as a client sees it that may wait: who publishes, who probes, who asks a Sentinel.

mod client;
mod location;

use crate::ground::config::{RedisAddress, RedisEndpoint};
use crate::io::tls::{Tls, TlsError};

pub use client::{Client, ClientError};
pub use location::{LocateError, Location, locate};

/// A Redis, and all that is needed to reach it.
#[derive(Clone, Debug)]
pub struct Redis {
    pub address: RedisAddress,
    /// `None`: in the clear.
    pub tls: Option<Tls>,
}

impl Redis {
    /// # Errors
    /// What is wrong with the files of TLS.
    pub fn new(address: RedisAddress) -> Result<Self, TlsError> {
        let tls = address.tls.as_deref().map(Tls::new).transpose()?;
        Ok(Self { address, tls })
    }

    /// Whether it has to be a master: one that Sentinels have named may have been demoted since.
    #[must_use]
    pub fn must_be_master(&self) -> bool {
        matches!(self.address.endpoint, RedisEndpoint::Sentinel(_))
    }
}
