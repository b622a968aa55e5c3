//! Where streams to a loopback address come from: many addresses, each with ports of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::observer;

/// A block of loopback addresses, all of which are this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    first: Ipv4Addr,
    /// The first port used of each.
    port: u16,
    /// Ports used of each.
    ///
    /// Invariant: at least 1.
    ports: u16,
}

impl Sources {
    /// `None` where the kernel has to choose: elsewhere this host has few addresses.
    ///
    /// Ports are named, because the kernel's own search takes milliseconds once hundreds of
    /// thousands are in use. Each test takes a block of its own, for the next may begin before the
    /// last one's ports are free, and another may be running.
    pub(super) fn of_streams_to(address: IpAddr) -> Option<Self> {
        let IpAddr::V4(address) = address else { return None };
        let (first_port, last_port) = observer::client_ports();
        let ports = (last_port - first_port).clamp(1, PORTS_MAX);
        let first = Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), 2);
        address.is_loopback().then_some(Self { first, port: first_port, ports })
    }

    /// Where a stream comes from, by its number.
    pub(super) fn of(self, stream: u32) -> SocketAddr {
        let ports = u32::from(self.ports);
        let address = Ipv4Addr::from_bits(self.first.to_bits() + stream / ports);
        let offset = u16::try_from(stream % ports).unwrap_or(0);
        SocketAddr::new(address.into(), self.port + offset)
    }
}

/// Leaves some of the usual range to others.
const PORTS_MAX: u16 = 20_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_stream_has_a_place_of_its_own_on_loopback() {
        let sources = Sources::of_streams_to("127.0.0.1".parse().unwrap()).unwrap();
        let places: HashSet<SocketAddr> = (0..1_000_000).map(|n| sources.of(n)).collect();
        assert_eq!(places.len(), 1_000_000);
        let (first, last) = observer::client_ports();
        assert!(places.iter().all(|place| place.ip().is_loopback()));
        assert!(places.iter().all(|place| (first..=last).contains(&place.port())));
    }

    #[test]
    fn elsewhere_the_kernel_chooses() {
        for address in ["10.0.0.1", "::1", "2001:db8::1"] {
            assert_eq!(Sources::of_streams_to(address.parse().unwrap()), None);
        }
    }
}
