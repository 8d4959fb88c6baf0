//! What a link is to the device.

use std::io;

use wire::net::{F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6};

/// Where frames go and come from, each behind a header (5.1.6). Calls do not block.
pub trait Link: Send + Sync {
    /// Sends a packet, all of it or nothing. `WouldBlock` if there is no room for it.
    fn send(&self, packet: &[u8]) -> io::Result<()>;
    /// Receives one packet; `WouldBlock` if there is none.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize>;
    /// What received frames may leave to their receiver, from now on.
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()>;
}

/// What one side leaves to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Completing checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub tcp4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub tcp6: bool,
    /// Doing so with explicit congestion notification.
    pub ecn: bool,
}

impl Offloads {
    /// What the link may leave to the driver. 5.1.3.1: without the checksum there is nothing else.
    pub(crate) fn of_driver(features: u64) -> Self {
        Self::of(features, F_GUEST_CSUM, [F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN])
    }

    /// What the driver may leave to the link.
    pub(crate) fn of_device(features: u64) -> Self {
        Self::of(features, wire::net::F_CSUM, [F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN])
    }

    fn of(features: u64, checksum: u32, segmentation: [u32; 3]) -> Self {
        let has = |feature: u32| features >> feature & 1 == 1;
        let [tcp4, tcp6, ecn] = segmentation.map(|feature| has(checksum) && has(feature));
        Offloads { checksum: has(checksum), tcp4, tcp6, ecn: ecn && (tcp4 || tcp6) }
    }
}
