//! The doorbell: how a guest without interrupts or `hlt` says that it has nothing to do, or is done.
//!
//! Two registers, 32 bits, write-only. They need no device: parking concerns the vCPU that writes, so
//! [`super::Board`] asks here first, and waits itself.

use std::time::Duration;

use wire::machine::{DOORBELL_BASE, DOORBELL_EXIT, DOORBELL_PARK, MMIO_END};

/// Longest park, whatever the guest asks for: it keeps a guest alive that missed a wake-up.
pub const PARK_MAX: Duration = Duration::from_secs(1);

/// What a guest wants of its doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Wait until there is something to do, or this long; at most [`PARK_MAX`].
    Park(Duration),
    /// This vCPU is done, with this code.
    Exit(u32),
    /// Something the doorbell does not know.
    Nothing,
}

impl Ring {
    /// The meaning of a write, if it is to the doorbell.
    pub fn decode(gpa: u64, data: &[u8]) -> Option<Ring> {
        if !(DOORBELL_BASE..MMIO_END).contains(&gpa) {
            return None;
        }
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else {
            return Some(Ring::Nothing);
        };
        Some(match gpa - DOORBELL_BASE {
            DOORBELL_PARK => Ring::Park(Duration::from_millis(u64::from(value)).min(PARK_MAX)),
            DOORBELL_EXIT => Ring::Exit(value),
            _ => Ring::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_park_is_never_longer_than_its_bound() {
        let park = |ms: u32| Ring::decode(DOORBELL_BASE + DOORBELL_PARK, &ms.to_le_bytes());
        assert_eq!(park(5), Some(Ring::Park(Duration::from_millis(5))));
        assert_eq!(park(u32::MAX), Some(Ring::Park(PARK_MAX)));
    }

    #[test]
    fn an_exit_carries_its_code() {
        assert_eq!(Ring::decode(DOORBELL_BASE + DOORBELL_EXIT, &101u32.to_le_bytes()), Some(Ring::Exit(101)));
    }

    #[test]
    fn writes_of_other_sizes_or_registers_do_nothing() {
        for (offset, data) in [(0, &[1u8][..]), (0, &[0; 8]), (2, &[0; 4]), (8, &[0; 4]), (0xffc, &[0; 4])] {
            assert_eq!(Ring::decode(DOORBELL_BASE + offset, data), Some(Ring::Nothing));
        }
    }

    #[test]
    fn other_addresses_are_not_the_doorbell() {
        assert_eq!(Ring::decode(DOORBELL_BASE - 4, &[0; 4]), None);
        assert_eq!(Ring::decode(MMIO_END, &[0; 4]), None);
    }
}
