//! What a guest costs beside its memory before it says so itself, and the least and the most it can cost.

use wire::PAGE_BYTES;

/// What a VMM costs before its first status says so, bytes: code, heap and stacks (an estimate), ...
const OVERHEAD_BASE_BYTES: u64 = 4 << 20;
/// ... and per guest page: the pager's tables and the scanner's notes.
const TABLE_BYTES_PER_PAGE: u64 = pager::TABLE_BYTES_PER_PAGE + dedup::NOTES_BYTES_PER_PAGE;

/// What a guest of this size costs in tables, at most. Its VMM is told, and goes by it until it has measured.
pub(crate) fn tables_bytes(memory_bytes: u64) -> u64 {
    memory_bytes / PAGE_BYTES as u64 * TABLE_BYTES_PER_PAGE
}

/// What a guest of this size costs beside its memory, until its VMM says so.
pub(crate) fn overhead_bytes(memory_bytes: u64) -> u64 {
    OVERHEAD_BASE_BYTES + tables_bytes(memory_bytes)
}

/// Least that a guest of this size can be limited to, or have reserved.
pub(crate) fn least_bytes(memory_bytes: u64) -> u64 {
    policy::RESERVATION_BYTES_MIN.min(memory_bytes) + overhead_bytes(memory_bytes)
}

/// More than the VMM of a guest of this size ever has of its own. An estimate: with four times what it costs
/// beside the guest's memory at first, and room for devices and what guests share.
pub(crate) fn ample_bytes(memory_bytes: u64) -> u64 {
    memory_bytes + memory_bytes / 16 + 4 * overhead_bytes(memory_bytes)
}

/// Most that a guest of this size can cost.
pub(crate) fn most_bytes(memory_bytes: u64) -> u64 {
    memory_bytes + overhead_bytes(memory_bytes)
}
