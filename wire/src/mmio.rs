//! The virtio-mmio register file, version 2 (VIRTIO 1.3, 4.2.2): byte offsets, all registers 32 bits wide.

/// "virt", little-endian: what [`MAGIC_VALUE`] reads.
pub const MAGIC: u32 = 0x7472_6976;
/// What [`VERSION`] reads: the non-legacy interface.
pub const VERSION_2: u32 = 2;
/// Bytes of one device's register window.
pub const WINDOW_BYTES: u64 = 0x1000;

/// R: magic value.
pub const MAGIC_VALUE: u64 = 0x000;
/// R: device version.
pub const VERSION: u64 = 0x004;
/// R: virtio device id, 0 for "no device".
pub const DEVICE_ID: u64 = 0x008;
/// R: vendor id.
pub const VENDOR_ID: u64 = 0x00c;
/// R: 32 device feature bits, chosen by [`DEVICE_FEATURES_SEL`].
pub const DEVICE_FEATURES: u64 = 0x010;
/// W: which 32 device feature bits to read.
pub const DEVICE_FEATURES_SEL: u64 = 0x014;
/// W: 32 driver feature bits, chosen by [`DRIVER_FEATURES_SEL`].
pub const DRIVER_FEATURES: u64 = 0x020;
/// W: which 32 driver feature bits to write.
pub const DRIVER_FEATURES_SEL: u64 = 0x024;
/// W: the queue that the queue registers speak of.
pub const QUEUE_SEL: u64 = 0x030;
/// R: largest size of the selected queue, 0 when there is none.
pub const QUEUE_SIZE_MAX: u64 = 0x034;
/// W: size of the selected queue.
pub const QUEUE_SIZE: u64 = 0x038;
/// RW: 1 while the selected queue is in use.
pub const QUEUE_READY: u64 = 0x044;
/// W: index of a queue with new buffers.
pub const QUEUE_NOTIFY: u64 = 0x050;
/// R: pending interrupt causes, see [`INTERRUPT_USED_BUFFER`] and [`INTERRUPT_CONFIG_CHANGE`].
pub const INTERRUPT_STATUS: u64 = 0x060;
/// W: interrupt causes handled.
pub const INTERRUPT_ACK: u64 = 0x064;
/// RW: device status, see [`crate::virtio`]; writing 0 resets the device.
pub const STATUS: u64 = 0x070;
/// W: low half of the descriptor area's address.
pub const QUEUE_DESC_LOW: u64 = 0x080;
/// W: high half of the descriptor area's address.
pub const QUEUE_DESC_HIGH: u64 = 0x084;
/// W: low half of the driver area's (available ring's) address.
pub const QUEUE_DRIVER_LOW: u64 = 0x090;
/// W: high half of the driver area's address.
pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
/// W: low half of the device area's (used ring's) address.
pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
/// W: high half of the device area's address.
pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
/// R: changes whenever the configuration space does.
pub const CONFIG_GENERATION: u64 = 0x0fc;
/// Start of the device's configuration space.
pub const CONFIG: u64 = 0x100;

/// Interrupt cause: a buffer was used.
pub const INTERRUPT_USED_BUFFER: u32 = 1 << 0;
/// Interrupt cause: the configuration changed.
pub const INTERRUPT_CONFIG_CHANGE: u32 = 1 << 1;
