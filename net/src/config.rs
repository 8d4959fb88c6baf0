//! The configuration space (5.1.4): all of it is the device's.

use wire::net::{CONFIG_BYTES, CONFIG_MAC, CONFIG_MTU};

/// Fills `data` from `offset` on; what lies behind the fields reads 0.
pub(crate) fn read(mac: [u8; 6], mtu: Option<u16>, offset: u64, data: &mut [u8]) {
    let mut config = [0; CONFIG_BYTES as usize];
    config[CONFIG_MAC as usize..][..mac.len()].copy_from_slice(&mac);
    config[CONFIG_MTU as usize..][..2].copy_from_slice(&mtu.unwrap_or(0).to_le_bytes());
    let rest = usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or_default();
    let present = rest.len().min(data.len());
    data.fill(0);
    data[..present].copy_from_slice(&rest[..present]);
}
