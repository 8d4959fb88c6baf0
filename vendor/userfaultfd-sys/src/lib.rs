//! The kernel's userfaultfd interface, transcribed by hand from `include/uapi/linux/userfaultfd.h` of Linux 6.18.
//!
//! It stands in for crates.io's `userfaultfd-sys`, whose build needs libclang and which takes its constants from the
//! headers of the build host (a Debian 12 host would lose everything after 6.1). Every structure's size and every
//! ioctl's number is asserted at compile time.

#![no_std]
#![allow(non_camel_case_types, non_upper_case_globals)]

/// `UFFD_API`: the one version of the interface.
pub const UFFD_API: u64 = 0xAA;
/// Magic of the ioctls on a userfaultfd.
pub const UFFDIO: u8 = 0xAA;
/// Magic of the ioctls on `/dev/userfaultfd`.
pub const USERFAULTFD_IOC: u8 = 0xAA;
/// Flag of `userfaultfd(2)`: serve user-mode faults only.
pub const UFFD_USER_MODE_ONLY: u32 = 1;

pub const _UFFDIO_REGISTER: u8 = 0x00;
pub const _UFFDIO_UNREGISTER: u8 = 0x01;
pub const _UFFDIO_WAKE: u8 = 0x02;
pub const _UFFDIO_COPY: u8 = 0x03;
pub const _UFFDIO_ZEROPAGE: u8 = 0x04;
pub const _UFFDIO_MOVE: u8 = 0x05;
pub const _UFFDIO_WRITEPROTECT: u8 = 0x06;
pub const _UFFDIO_CONTINUE: u8 = 0x07;
pub const _UFFDIO_POISON: u8 = 0x08;
pub const _UFFDIO_API: u8 = 0x3F;

pub const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
pub const UFFD_EVENT_FORK: u8 = 0x13;
pub const UFFD_EVENT_REMAP: u8 = 0x14;
pub const UFFD_EVENT_REMOVE: u8 = 0x15;
pub const UFFD_EVENT_UNMAP: u8 = 0x16;

pub const UFFD_PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;
pub const UFFD_PAGEFAULT_FLAG_WP: u64 = 1 << 1;
pub const UFFD_PAGEFAULT_FLAG_MINOR: u64 = 1 << 2;

pub const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
pub const UFFD_FEATURE_EVENT_FORK: u64 = 1 << 1;
pub const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;
pub const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
pub const UFFD_FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
pub const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
pub const UFFD_FEATURE_EVENT_UNMAP: u64 = 1 << 6;
pub const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
pub const UFFD_FEATURE_THREAD_ID: u64 = 1 << 8;
pub const UFFD_FEATURE_MINOR_HUGETLBFS: u64 = 1 << 9;
pub const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
pub const UFFD_FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
pub const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
pub const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
pub const UFFD_FEATURE_POISON: u64 = 1 << 14;
pub const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
pub const UFFD_FEATURE_MOVE: u64 = 1 << 16;

pub const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
pub const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
pub const UFFDIO_REGISTER_MODE_MINOR: u64 = 1 << 2;
pub const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1 << 0;
pub const UFFDIO_COPY_MODE_WP: u64 = 1 << 1;
pub const UFFDIO_ZEROPAGE_MODE_DONTWAKE: u64 = 1 << 0;
pub const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
pub const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;
pub const UFFDIO_CONTINUE_MODE_DONTWAKE: u64 = 1 << 0;
pub const UFFDIO_CONTINUE_MODE_WP: u64 = 1 << 1;

/// What `read(2)` on a userfaultfd returns, one per event.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct uffd_msg {
    pub event: u8,
    pub reserved1: u8,
    pub reserved2: u16,
    pub reserved3: u32,
    pub arg: uffd_msg_arg,
}

/// The event's own part of [`uffd_msg`].
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub union uffd_msg_arg {
    pub pagefault: uffd_msg_pagefault,
    pub fork: uffd_msg_fork,
    pub remap: uffd_msg_remap,
    pub remove: uffd_msg_remove,
    pub reserved: [u64; 3],
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct uffd_msg_pagefault {
    pub flags: u64,
    pub address: u64,
    pub feat: uffd_msg_feat,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub union uffd_msg_feat {
    pub ptid: u32,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct uffd_msg_fork {
    pub ufd: u32,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct uffd_msg_remap {
    pub from: u64,
    pub to: u64,
    pub len: u64,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct uffd_msg_remove {
    pub start: u64,
    pub end: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_api {
    pub api: u64,
    pub features: u64,
    pub ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_range {
    pub start: u64,
    pub len: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_register {
    pub range: uffdio_range,
    pub mode: u64,
    pub ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_copy {
    pub dst: u64,
    pub src: u64,
    pub len: u64,
    pub mode: u64,
    pub copy: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_zeropage {
    pub range: uffdio_range,
    pub mode: u64,
    pub zeropage: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_writeprotect {
    pub range: uffdio_range,
    pub mode: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct uffdio_continue {
    pub range: uffdio_range,
    pub mode: u64,
    pub mapped: i64,
}

/// `_IOC(direction, UFFDIO, number, size)` as `include/uapi/asm-generic/ioctl.h` packs it.
const fn ioc(direction: u64, number: u8, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (UFFDIO as u64) << 8 | number as u64
}

const _: () = {
    assert!(size_of::<uffd_msg>() == 32);
    assert!(ioc(3, _UFFDIO_API, size_of::<uffdio_api>()) == 0xC018_AA3F);
    assert!(ioc(3, _UFFDIO_REGISTER, size_of::<uffdio_register>()) == 0xC020_AA00);
    assert!(ioc(2, _UFFDIO_UNREGISTER, size_of::<uffdio_range>()) == 0x8010_AA01);
    assert!(ioc(2, _UFFDIO_WAKE, size_of::<uffdio_range>()) == 0x8010_AA02);
    assert!(ioc(3, _UFFDIO_COPY, size_of::<uffdio_copy>()) == 0xC028_AA03);
    assert!(ioc(3, _UFFDIO_ZEROPAGE, size_of::<uffdio_zeropage>()) == 0xC020_AA04);
    assert!(ioc(3, _UFFDIO_WRITEPROTECT, size_of::<uffdio_writeprotect>()) == 0xC018_AA06);
    assert!(ioc(3, _UFFDIO_CONTINUE, size_of::<uffdio_continue>()) == 0xC020_AA07);
    assert!(core::mem::offset_of!(uffd_msg, arg) == 8);
    assert!(core::mem::offset_of!(uffd_msg_pagefault, address) == 8);
    assert!(core::mem::offset_of!(uffd_msg_pagefault, feat) == 16);
};
