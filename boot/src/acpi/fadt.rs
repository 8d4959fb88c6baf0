//! The fixed registers (FADT, 5.2.9): power button, switching off, reset; and what a PC has that this one
//! lacks.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use wire::pc::{INTERRUPT_SCI, PORT_PM1_CONTROL, PORT_PM1_EVENT, PORT_RESET, RESET_VALUE};

use super::header::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};

/// Bytes of the PM1 event registers.
const EVENT_BYTES: u8 = 4;
/// Bytes of the PM1 control register.
const CONTROL_BYTES: u8 = 2;

/// Table 5.10: there are devices at a PC's ports (bit 0, the serial port), no keyboard controller (bit 1
/// clear), no VGA (bit 2), and no clock in CMOS (bit 5).
const PC_ARCHITECTURE: u16 = 1 << 0 | 1 << 2 | 1 << 5;

/// "Worst-case hardware latency" of sleep states that a machine does not have (5.2.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

pub(super) fn table(dsdt: u64, facs: u64) -> Vec<u8> {
    let port = |bytes: u8, access, port: u16| GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, port.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        // Below 1 MiB.
        .firmware_ctrl_32(facs as u32)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        // Set where the button is not a fixed one: there is no sleep button. The power button's is clear.
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    fadt.sci_int = (INTERRUPT_SCI as u16).into();
    fadt.pm1a_evt_blk = u32::from(PORT_PM1_EVENT).into();
    fadt.pm1a_cnt_blk = u32::from(PORT_PM1_CONTROL).into();
    fadt.pm1_evt_len = EVENT_BYTES;
    fadt.pm1_cnt_len = CONTROL_BYTES;
    fadt.x_pm1a_evt_blk = port(EVENT_BYTES, AccessSize::WordAccess, PORT_PM1_EVENT);
    fadt.x_pm1a_cnt_blk = port(CONTROL_BYTES, AccessSize::WordAccess, PORT_PM1_CONTROL);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.iapc_boot_arch = PC_ARCHITECTURE.into();
    fadt.reset_reg = port(1, AccessSize::ByteAccess, PORT_RESET);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE).into();
    bytes_of(&fadt.finalize())
}
