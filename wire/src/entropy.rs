//! The entropy device (VIRTIO 1.3, 5.4).

/// Virtio device id of the entropy device (5.4.1). It has one queue, no features and no configuration space.
pub const DEVICE_ID: u32 = 4;
