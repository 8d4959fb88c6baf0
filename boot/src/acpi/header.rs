//! What all tables begin with, and how one becomes bytes.

use acpi_tables::Aml;

pub(super) const OEM: [u8; 6] = *b"BALLST";
pub(super) const OEM_TABLE: [u8; 8] = *b"BALLAST ";
pub(super) const OEM_REVISION: u32 = 1;

pub(super) fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}
