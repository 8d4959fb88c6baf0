//! The network device (VIRTIO 1.3, 5.1).

/// Virtio device id of the network device (5.1.1).
pub const DEVICE_ID: u32 = 1;

/// Number of the queue that receives (5.1.2).
pub const RECEIVE_QUEUE: usize = 0;
/// Number of the queue that transmits.
pub const TRANSMIT_QUEUE: usize = 1;

/// Feature (5.1.3): the device completes checksums.
pub const F_CSUM: u32 = 0;
/// Feature: the driver takes frames whose checksum is incomplete.
pub const F_GUEST_CSUM: u32 = 1;
/// Feature: the largest frame the driver may send is in `mtu`.
pub const F_MTU: u32 = 3;
/// Feature: the address is in `mac`.
pub const F_MAC: u32 = 5;
/// Feature: the driver takes TCP over IPv4 in large pieces.
pub const F_GUEST_TSO4: u32 = 7;
/// Feature: the driver takes TCP over IPv6 in large pieces.
pub const F_GUEST_TSO6: u32 = 8;
/// Feature: the driver takes large pieces with explicit congestion notification.
pub const F_GUEST_ECN: u32 = 9;
/// Feature: the device takes TCP over IPv4 in large pieces.
pub const F_HOST_TSO4: u32 = 11;
/// Feature: the device takes TCP over IPv6 in large pieces.
pub const F_HOST_TSO6: u32 = 12;
/// Feature: the device takes large pieces with explicit congestion notification.
pub const F_HOST_ECN: u32 = 13;
/// Feature: a frame may be received into several buffers.
pub const F_MRG_RXBUF: u32 = 15;

/// Offset in the configuration space (5.1.4): the address, six bytes.
pub const CONFIG_MAC: u64 = 0;
/// Offset: the largest payload of a frame, `le16`.
pub const CONFIG_MTU: u64 = 10;
/// Bytes of the configuration space as far as its fields are used here.
pub const CONFIG_BYTES: u64 = 12;

/// Bytes of the header before each frame (5.1.6).
pub const HEADER_BYTES: usize = 12;
/// Offset in the header: flags, one byte.
pub const HEADER_FLAGS: usize = 0;
/// Offset in the header: kind of segmentation, one byte.
pub const HEADER_GSO_TYPE: usize = 1;
/// Offset in the header: payload of one segment, bytes, `le16`.
pub const HEADER_GSO_SIZE: usize = 4;
/// Offset in the header: where the checksum starts to count, `le16`.
pub const HEADER_CSUM_START: usize = 6;
/// Offset in the header: where the checksum goes, from there, `le16`.
pub const HEADER_CSUM_OFFSET: usize = 8;
/// Offset in the header: buffers that the frame is received into, `le16`.
pub const HEADER_NUM_BUFFERS: usize = 10;

/// Flag of the header: the checksum is to be completed.
pub const HDR_F_NEEDS_CSUM: u8 = 1;
/// Flag of the header: the checksum was found right.
pub const HDR_F_DATA_VALID: u8 = 2;

/// Kind of segmentation: none.
pub const GSO_NONE: u8 = 0;
/// Kind of segmentation: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Kind of segmentation: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Bit of the kind: explicit congestion notification.
pub const GSO_ECN: u8 = 0x80;
