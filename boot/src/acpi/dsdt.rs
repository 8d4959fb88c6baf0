//! The devices, as AML: a serial port, virtio-mmio windows, and how to switch off.

use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path, ResourceTemplate, Scope};
use acpi_tables::sdt::Sdt;
use wire::mmio::WINDOW_BYTES;
use wire::pc::{INTERRUPT_COM1, PORT_COM1, SLEEP_TYPE_OFF};

use super::header::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};
use crate::VirtioMmio;

/// Numbers in AML have 64 bits from this revision on (20.1.1).
const REVISION: u8 = 2;
const HEADER_BYTES: u32 = 36;

/// What a virtio-mmio device is called; Linux has the name in its driver.
const VIRTIO_MMIO_ID: &str = "LNRO0005";

pub(super) fn table(devices: &[VirtioMmio]) -> Vec<u8> {
    let mut sdt = Sdt::new(*b"DSDT", HEADER_BYTES, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    let (sleep, zero) = (SLEEP_TYPE_OFF, 0u8);
    // 7.4.2: what to write to the two control registers, of which we have one.
    let off = Name::new(Path::new("\\_S5_"), &Package::new(vec![&sleep, &sleep, &zero, &zero]));
    sdt.append_slice(&bytes_of(&off));
    let devices: Vec<Vec<u8>> =
        devices.iter().enumerate().map(|(nth, device)| virtio_mmio(nth, device)).chain([serial_port()]).collect();
    sdt.append_slice(&Scope::raw(Path::new("\\_SB_"), devices.concat()));
    sdt.as_slice().to_vec()
}

fn virtio_mmio(nth: usize, device: &VirtioMmio) -> Vec<u8> {
    // Below 4 GiB, and no more devices than interrupts.
    let (name, number) = (format!("VR{nth:02}"), nth as u32);
    let window = Memory32Fixed::new(true, device.base as u32, WINDOW_BYTES as u32);
    // Consumer, edge, active high, not shared.
    let interrupt = Interrupt::new(true, true, false, false, device.interrupt);
    bytes_of(&Device::new(
        Path::new(&name),
        vec![
            &Name::new(Path::new("_HID"), &VIRTIO_MMIO_ID),
            &Name::new(Path::new("_UID"), &number),
            // No page of its own in the caches of other devices: DMA is coherent, which Linux asks for on
            // some machines (6.2.17).
            &Name::new(Path::new("_CCA"), &1u8),
            &Name::new(Path::new("_CRS"), &ResourceTemplate::new(vec![&window, &interrupt])),
        ],
    ))
}

fn serial_port() -> Vec<u8> {
    let interrupt = Interrupt::new(true, true, false, false, INTERRUPT_COM1);
    bytes_of(&Device::new(
        Path::new("COM1"),
        vec![
            // A 16550.
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &0u8),
            &Name::new(
                Path::new("_CRS"),
                &ResourceTemplate::new(vec![&IO::new(PORT_COM1, PORT_COM1, 1, 8), &interrupt]),
            ),
        ],
    ))
}
