//! How a PC is switched off and reset: ACPI's fixed registers (ACPI 6.5, 4.8.3) and the reset register
//! (4.8.3.6).
//!
//! ```text
//!   0x600  PM1 status    16 bits   what has happened; writing 1 clears
//!   0x602  PM1 enable    16 bits   what of it interrupts
//!   0x604  PM1 control   16 bits   sleep type and "go"; ACPI is always enabled
//!   0xcf9  reset          8 bits
//!
//!   press --> status: power button --- & enable ---> interrupt line, until the guest clears the status
//! ```
//!
//! A guest may access any byte of them by itself, and writes what it likes: all bits are kept or ignored,
//! none is believed.

use std::sync::Mutex;

use wire::pc::{
    PM1_POWER_BUTTON, PM1_SCI_ENABLED, PM1_SLEEP_ENABLE, PM1_SLEEP_TYPE_SHIFT, PORT_PM1_EVENT, PORT_RESET, RESET_VALUE,
    SLEEP_TYPE_OFF,
};

use crate::sync::lock;

/// Bytes of the three PM1 registers, which lie side by side.
const BYTES: usize = 6;
/// The control register's place among them.
const CONTROL: usize = 4;
const _: () = assert!(wire::pc::PORT_PM1_CONTROL == PORT_PM1_EVENT + CONTROL as u16);

/// What the guest wants of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To be switched off.
    PowerOff,
    /// To start again.
    Reset,
}

/// The registers.
#[derive(Debug, Default)]
pub struct Power {
    state: Mutex<PowerRegisters>,
}

#[derive(Debug, Default)]
struct PowerRegisters {
    status: u16,
    enable: u16,
    control: u16,
}

impl PowerRegisters {
    fn bytes(&self) -> [u8; BYTES] {
        let [s0, s1] = self.status.to_le_bytes();
        let [e0, e1] = self.enable.to_le_bytes();
        let [c0, c1] = (self.control | PM1_SCI_ENABLED).to_le_bytes();
        [s0, s1, e0, e1, c0, c1]
    }
}

impl Power {
    /// Whether this port is one of them.
    pub fn has(port: u16) -> bool {
        port == PORT_RESET || place(port).is_some()
    }

    /// A vCPU reads `data.len()` ports from `port` on. What is not there reads as ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let bytes = lock(&self.state).bytes();
        for (byte, port) in data.iter_mut().zip(ports(port)) {
            *byte = place(port).map_or(0xff, |place| bytes[place]);
        }
    }

    /// A vCPU writes `data` to the ports from `port` on.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Wish> {
        if port == PORT_RESET {
            return (data.first() == Some(&RESET_VALUE)).then_some(Wish::Reset);
        }
        let mut state = lock(&self.state);
        let mut controlled = false;
        for (&byte, port) in data.iter().zip(ports(port)) {
            let Some(place) = place(port) else { continue };
            let shift = 8 * (place as u32 % 2);
            let (bits, mask) = (u16::from(byte) << shift, 0xff << shift);
            match place {
                0 | 1 => state.status &= !bits,
                2 | 3 => state.enable = state.enable & !mask | bits,
                _ => {
                    state.control = state.control & !mask | bits;
                    controlled = true;
                }
            }
        }
        // "Go" is an order, not a state: it reads as 0 (4.8.3.2.1).
        let go = controlled && state.control & PM1_SLEEP_ENABLE != 0;
        state.control &= !PM1_SLEEP_ENABLE;
        let kind = state.control >> PM1_SLEEP_TYPE_SHIFT & 7;
        (go && kind == u16::from(SLEEP_TYPE_OFF)).then_some(Wish::PowerOff)
    }

    /// Presses the power button: a guest that listens shuts down in order.
    pub fn press(&self) {
        lock(&self.state).status |= PM1_POWER_BUTTON;
    }

    /// Whether ACPI's interrupt is wanted; to be asked after each [`Power::write`] and [`Power::press`].
    pub fn interrupts(&self) -> bool {
        let state = lock(&self.state);
        state.status & state.enable != 0
    }
}

/// The ports from this one on; behind the last one is the first.
fn ports(port: u16) -> impl Iterator<Item = u16> {
    (0..).map(move |nth| port.wrapping_add(nth))
}

/// Which of the PM1 registers' bytes this port is.
fn place(port: u16) -> Option<usize> {
    port.checked_sub(PORT_PM1_EVENT).map(usize::from).filter(|&place| place < BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(power: &Power, port: u16) -> u16 {
        let mut data = [0; 2];
        power.read(port, &mut data);
        u16::from_le_bytes(data)
    }

    #[test]
    fn linux_switches_off_as_it_does() {
        let power = Power::default();
        assert_eq!(read(&power, 0x604), 1, "ACPI is on");
        // First the type, then the type and "go" (acpi_hw_legacy_sleep).
        assert_eq!(power.write(0x604, &0x1401u16.to_le_bytes()), None);
        assert_eq!(power.write(0x604, &0x3401u16.to_le_bytes()), Some(Wish::PowerOff));
        assert_eq!(read(&power, 0x604), 0x1401);
        assert_eq!(power.write(0x604, &0x2001u16.to_le_bytes()), None, "no such sleep");
        assert_eq!(power.write(0x604, &[1]), None);
        assert_eq!((power.write(0xcf9, &[2]), power.write(0xcf9, &[6])), (None, Some(Wish::Reset)));
    }

    #[test]
    fn the_button_interrupts_whoever_listens_until_it_is_heard() {
        let power = Power::default();
        power.press();
        assert!(!power.interrupts());
        // Linux reads back what it has enabled, and complains if it does not find it.
        power.write(0x602, &0x0120u16.to_le_bytes());
        assert_eq!(read(&power, 0x602), 0x0120);
        assert!(power.interrupts() && read(&power, 0x600) == 0x0100);
        power.write(0x600, &0x0020u16.to_le_bytes());
        assert!(power.interrupts(), "another event's bit");
        power.write(0x601, &[1]);
        assert!(!power.interrupts() && read(&power, 0x600) == 0);
    }

    proptest! {
        #[test]
        fn any_access_is_harmless(
            accesses in prop::collection::vec((prop_oneof![0x5feu16..0x608, Just(0xffff), any::<u16>()], any::<[u8; 4]>(), 0usize..5), 0..50),
        ) {
            let power = Power::default();
            for (port, mut data, bytes) in accesses {
                power.write(port, &data[..bytes]);
                power.read(port, &mut data[..bytes]);
                prop_assert_eq!(read(&power, 0x604) & (PM1_SCI_ENABLED | PM1_SLEEP_ENABLE), PM1_SCI_ENABLED);
            }
        }
    }
}
