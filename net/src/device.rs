//! The device: its features, its configuration space, and what it has counted. Its turns of work are in
//! [`crate::transmit`] and [`crate::receive`].
//!
//! [`Net::transmit`] and [`Net::receive`] are called by one device thread at a time; everything else by any
//! thread. The state's lock is a leaf: never held over guest memory, a queue or the link.

use std::sync::{Mutex, MutexGuard, PoisonError};

use wire::net::{
    F_CSUM, F_GUEST_CSUM, F_GUEST_ECN, F_GUEST_TSO4, F_GUEST_TSO6, F_HOST_ECN, F_HOST_TSO4, F_HOST_TSO6, F_MAC,
    F_MRG_RXBUF, F_MTU,
};
use wire::virtio::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};

use crate::link::{Link, Offloads};
use crate::{Error, config};

/// Features offered, besides `F_MTU` where one was given.
pub const FEATURES: u64 = 1 << F_VERSION_1
    | 1 << F_INDIRECT_DESC
    | 1 << F_EVENT_IDX
    | 1 << F_MAC
    | 1 << F_MRG_RXBUF
    | 1 << F_CSUM
    | 1 << F_HOST_TSO4
    | 1 << F_HOST_TSO6
    | 1 << F_HOST_ECN
    | 1 << F_GUEST_CSUM
    | 1 << F_GUEST_TSO4
    | 1 << F_GUEST_TSO6
    | 1 << F_GUEST_ECN;

/// The device. Frames go to the [`Link`].
#[derive(Debug)]
pub struct Net<L> {
    pub(crate) link: L,
    mac: [u8; 6],
    mtu: Option<u16>,
    state: Mutex<NetState>,
}

#[derive(Debug, Default)]
pub(crate) struct NetState {
    pub(crate) counts: Counts,
    /// What the driver may leave to us.
    pub(crate) sends: Offloads,
    /// What may be left to the driver.
    pub(crate) takes: Offloads,
    /// A received frame may go into several buffers.
    pub(crate) merges: bool,
    /// Taken by a turn, and put back.
    pub(crate) transmitted: Vec<u8>,
    pub(crate) received: Received,
}

/// The frame that was received last.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) packet: Vec<u8>,
    /// It waits for buffers, and is this long.
    pub(crate) held_bytes: Option<usize>,
}

/// What has happened since the device was made. Resets do not touch it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames sent.
    pub sent_frames: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Frames that the link did not take.
    pub send_dropped: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames that were too long for the driver's buffers, or for the driver.
    pub receive_dropped: u64,
    /// Requests refused, and writes to the configuration space.
    pub rejected: u64,
}

/// What a turn did, and the last request or frame that was refused or dropped.
pub type Progress = chains::Progress<Error>;

impl<L: Link> Net<L> {
    /// A device on `link` with this address. Frames' payload is at most `mtu`, if the link says so.
    pub fn new(link: L, mac: [u8; 6], mtu: Option<u16>) -> Self {
        Net { link, mac, mtu, state: Mutex::default() }
    }

    /// The link.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Features offered.
    pub fn features(&self) -> u64 {
        FEATURES | u64::from(self.mtu.is_some()) << F_MTU
    }

    /// Driver and device have agreed on `features`.
    ///
    /// # Errors
    /// The link cannot be told; then the driver gets only what it can take, and frames that it cannot take
    /// are dropped.
    pub fn set_features(&self, features: u64) -> Result<(), Error> {
        let takes = Offloads::of_driver(features);
        {
            let mut state = self.state();
            (state.sends, state.takes) = (Offloads::of_device(features), takes);
            state.merges = features >> F_MRG_RXBUF & 1 == 1;
        }
        self.link.set_offloads(takes).map_err(|source| Error::Link { doing: "set offloads", source })
    }

    /// The driver is gone, its buffers with it, and the frame that waited for them.
    pub fn reset(&self) {
        let mut state = self.state();
        (state.sends, state.takes, state.merges) = (Offloads::default(), Offloads::default(), false);
        state.received.held_bytes = None;
    }

    /// Whether a frame waits for buffers: until the driver notifies, the link need not be looked at.
    pub fn holds_frame(&self) -> bool {
        self.state().received.held_bytes.is_some()
    }

    /// Reads the configuration space (5.1.4); what lies behind it reads 0.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        config::read(self.mac, self.mtu, offset, data);
    }

    /// "The driver MUST NOT write to any of the device configuration fields" (5.1.4.2): it is counted.
    pub fn write_config(&self, _offset: u64, _data: &[u8]) {
        self.state().counts.rejected += 1;
    }

    /// Every change of the state is whole, so a panic elsewhere leaves nothing half done in it.
    pub(crate) fn state(&self) -> MutexGuard<'_, NetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
