//! The ioctls of a tap (`linux/if_tun.h`).

use std::fs::File;
use std::os::fd::AsRawFd;

use libc::{c_int, c_short, c_uint};
use nix::request_code_write;

/// Bytes of an interface's name, the zero behind it included.
pub(crate) const NAME_BYTES: usize = libc::IFNAMSIZ;

/// `struct ifreq`, as `TUNSETIFF` uses it.
#[repr(C)]
struct IfReq {
    name: [u8; NAME_BYTES],
    flags: c_short,
    unused: [u8; 22],
}

const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>() && NAME_BYTES == 16);
const _: () = assert!(std::mem::offset_of!(IfReq, flags) == std::mem::offset_of!(libc::ifreq, ifr_ifru));

const SET_IFF: libc::c_ulong = request_code_write!(b'T', 202, size_of::<c_int>());
const SET_OFFLOAD: libc::c_ulong = request_code_write!(b'T', 208, size_of::<c_uint>());
const SET_VNET_HDR_SZ: libc::c_ulong = request_code_write!(b'T', 216, size_of::<c_int>());
const _: () = assert!(SET_IFF == 0x4004_54ca && SET_OFFLOAD == 0x4004_54d0 && SET_VNET_HDR_SZ == 0x4004_54d8);

nix::ioctl_write_ptr_bad!(set_iff, SET_IFF, IfReq);
nix::ioctl_write_int_bad!(set_offload, SET_OFFLOAD);
nix::ioctl_write_ptr_bad!(set_vnet_hdr_sz, SET_VNET_HDR_SZ, c_int);

/// Makes `tun`, a descriptor of `/dev/net/tun`, one of the interface `name`.
pub(crate) fn attach(tun: &File, name: [u8; NAME_BYTES]) -> nix::Result<()> {
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as c_short;
    let request = IfReq { name, flags, unused: [0; 22] };
    // SAFETY: the descriptor is open, and the kernel reads and writes no more than a `struct ifreq`, which
    // `request` is as long as. It writes the name and flags back; nobody looks at them, and the bytes are
    // valid whatever they are.
    unsafe { set_iff(tun.as_raw_fd(), &raw const request) }.map(drop)
}

/// What received frames may leave to their receiver: `TUN_F_*`.
pub(crate) fn set_offloads(tap: &File, offloads: c_uint) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and the argument is a number.
    unsafe { set_offload(tap.as_raw_fd(), offloads as c_int) }.map(drop)
}

/// How long the header before each frame is.
pub(crate) fn set_header_bytes(tap: &File, bytes: usize) -> nix::Result<()> {
    let bytes = bytes as c_int;
    // SAFETY: the descriptor is open, and the kernel reads one `int` from a pointer to one.
    unsafe { set_vnet_hdr_sz(tap.as_raw_fd(), &raw const bytes) }.map(drop)
}
