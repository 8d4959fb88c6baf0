//! The traditional memory balloon device (VIRTIO 1.3, 5.5).

/// Virtio device id of the balloon.
pub const DEVICE_ID: u32 = 5;

/// Feature (5.5.3): the host must be told before ballooned pages are used again.
pub const F_MUST_TELL_HOST: u32 = 0;
/// Feature: there is a statistics queue.
pub const F_STATS_VQ: u32 = 1;
/// Feature: the guest may take pages back when it is out of memory.
pub const F_DEFLATE_ON_OOM: u32 = 2;
/// Feature: there is a free page hinting queue.
pub const F_FREE_PAGE_HINT: u32 = 3;
/// Feature: the guest poisons free pages with `poison_val`.
pub const F_PAGE_POISON: u32 = 4;
/// Feature: there is a free page reporting queue.
pub const F_REPORTING: u32 = 5;

/// Units of a balloon page number: 2^12 bytes whatever the guest's page size.
pub const PFN_SHIFT: u32 = 12;

/// Offset in the configuration space (5.5.4): pages the host wants, `le32`.
pub const CONFIG_NUM_PAGES: u64 = 0;
/// Offset: pages the guest has given, `le32`, written by the driver.
pub const CONFIG_ACTUAL: u64 = 4;
/// Offset: command id of free page hinting, `le32`.
pub const CONFIG_FREE_PAGE_HINT_CMD_ID: u64 = 8;
/// Offset: poison value, `le32`, written by the driver.
pub const CONFIG_POISON_VAL: u64 = 12;
/// Bytes of the configuration space.
pub const CONFIG_BYTES: u64 = 16;

/// `free_page_hint_cmd_id`: no hinting, end what is under way.
pub const HINT_CMD_ID_STOP: u32 = 0;
/// `free_page_hint_cmd_id`: hinting is over, pages may be reused.
pub const HINT_CMD_ID_DONE: u32 = 1;
/// `free_page_hint_cmd_id`: smallest number that names a round of hinting.
pub const HINT_CMD_ID_FIRST: u32 = 2;

/// One statistic (5.5.6.3): `le16` tag, `le64` value, packed to ten bytes.
pub const STAT_BYTES: usize = 10;
/// Statistics tags, by their numbers in the specification and in Linux.
pub mod stat {
    /// Bytes swapped in.
    pub const SWAP_IN: u16 = 0;
    /// Bytes swapped out.
    pub const SWAP_OUT: u16 = 1;
    /// Major faults.
    pub const MAJFLT: u16 = 2;
    /// Minor faults.
    pub const MINFLT: u16 = 3;
    /// Bytes not in use.
    pub const MEMFREE: u16 = 4;
    /// Bytes in all.
    pub const MEMTOT: u16 = 5;
    /// Bytes that could be had without swapping.
    pub const AVAIL: u16 = 6;
    /// Bytes of caches that can be dropped.
    pub const CACHES: u16 = 7;
    /// Successful huge page allocations.
    pub const HTLB_PGALLOC: u16 = 8;
    /// Failed huge page allocations.
    pub const HTLB_PGFAIL: u16 = 9;
    /// Invocations of the OOM killer.
    pub const OOM_KILL: u16 = 10;
    /// Stalls in allocation.
    pub const ALLOC_STALL: u16 = 11;
    /// Pages scanned by background reclaim.
    pub const ASYNC_SCAN: u16 = 12;
    /// Pages scanned by direct reclaim.
    pub const DIRECT_SCAN: u16 = 13;
    /// Pages reclaimed in the background.
    pub const ASYNC_RECLAIM: u16 = 14;
    /// Pages reclaimed directly.
    pub const DIRECT_RECLAIM: u16 = 15;
    /// How many tags are known here.
    pub const COUNT: usize = 16;
    /// Their names, by tag, as Firecracker's API has them.
    pub const NAMES: [&str; COUNT] = [
        "swap_in",
        "swap_out",
        "major_faults",
        "minor_faults",
        "free_memory",
        "total_memory",
        "available_memory",
        "disk_caches",
        "hugetlb_allocations",
        "hugetlb_failures",
        "oom_kill",
        "alloc_stall",
        "async_scan",
        "direct_scan",
        "async_reclaim",
        "direct_reclaim",
    ];
}
