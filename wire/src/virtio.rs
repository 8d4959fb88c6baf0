//! Device status, transport features and split-ring layout (VIRTIO 1.3, 2.1, 2.7 and 6).

/// Device status: the guest has found the device.
pub const STATUS_ACKNOWLEDGE: u32 = 1;
/// Device status: the guest has a driver for it.
pub const STATUS_DRIVER: u32 = 2;
/// Device status: the driver is set up.
pub const STATUS_DRIVER_OK: u32 = 4;
/// Device status: features are agreed on.
pub const STATUS_FEATURES_OK: u32 = 8;
/// Device status: the device met an error it cannot go on from.
pub const STATUS_NEEDS_RESET: u32 = 64;
/// Device status: the driver gave the device up.
pub const STATUS_FAILED: u32 = 128;

/// Feature: descriptors may point to tables of descriptors.
pub const F_INDIRECT_DESC: u32 = 28;
/// Feature: `used_event` and `avail_event` hold back notifications.
pub const F_EVENT_IDX: u32 = 29;
/// Feature: the device obeys VIRTIO 1.0 or later.
pub const F_VERSION_1: u32 = 32;

/// Descriptor flag: another follows in `next`.
pub const DESC_F_NEXT: u16 = 1;
/// Descriptor flag: the device writes this buffer.
pub const DESC_F_WRITE: u16 = 2;

/// One entry of the descriptor table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub addr: u64,
    /// Bytes of the buffer.
    pub len: u32,
    /// `DESC_F_*`.
    pub flags: u16,
    /// Next descriptor's index, if [`DESC_F_NEXT`].
    pub next: u16,
}

/// One entry of the used ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct UsedElement {
    /// Head of the chain that was used.
    pub id: u32,
    /// Bytes the device wrote.
    pub len: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && size_of::<UsedElement>() == 8);
