//! A tap of the kernel's as a link: frames go to and come from an interface of the host, or a bridge that it
//! is in.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use wire::net::HEADER_BYTES;

use crate::link::{Link, Offloads};
use crate::sys::{self, NAME_BYTES};

/// `TUN_F_CSUM` and those that build on it.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;

/// Why there is no tap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// Not a name that an interface can have.
    #[error("tap {name:?}: a name has from 1 to 15 bytes")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such interface.
    #[error("tap {name}: there is none; make it with `ip tuntap add dev {name} mode tap` and `ip link set {name} up`")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Somebody has it open.
    #[error("tap {name} is in use")]
    InUse {
        /// Its name.
        name: String,
    },
    /// It is another kind of interface.
    #[error("{name} is not a tap with one queue")]
    NotATap {
        /// Its name.
        name: String,
    },
    /// It cannot be opened.
    #[error("tap {name}: {doing}: {source}")]
    System {
        /// Its name.
        name: String,
        /// What was asked of the kernel.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// A descriptor is not a tap's.
    #[error("descriptor is not a tap's with headers: {doing}: {source}")]
    Descriptor {
        /// What was asked of the kernel.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

/// A tap.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Opens the tap `name`, which must exist: who makes it decides what it is connected to, and who may open
    /// it.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn open(name: &str) -> Result<Tap, TapError> {
        let owned = || name.to_owned();
        let mut padded = [0; NAME_BYTES];
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
            return Err(TapError::Name { name: owned() });
        }
        padded[..name.len()].copy_from_slice(name.as_bytes());
        // The kernel would make one.
        if if_nametoindex(name).is_err() {
            return Err(TapError::Missing { name: owned() });
        }
        let system = |doing| move |source: io::Error| TapError::System { name: owned(), doing, source };
        let tun =
            OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(system("open /dev/net/tun"))?;
        match sys::attach(&tun, padded) {
            Ok(()) => Tap::new(tun),
            Err(nix::Error::EBUSY) => Err(TapError::InUse { name: owned() }),
            Err(nix::Error::EINVAL) => Err(TapError::NotATap { name: owned() }),
            Err(error) => Err(system("attach to it")(error.into())),
        }
    }

    /// The tap behind `file`, opened and attached elsewhere, with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`.
    ///
    /// # Errors
    /// It is not such a one.
    pub fn new(file: File) -> Result<Tap, TapError> {
        let failed = |doing| move |error: nix::Error| TapError::Descriptor { doing, source: error.into() };
        sys::set_header_bytes(&file, HEADER_BYTES).map_err(failed("set the length of headers"))?;
        sys::set_offloads(&file, 0).map_err(failed("set offloads"))?;
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(failed("get flags"))?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).map_err(failed("set O_NONBLOCK"))?;
        Ok(Tap(file))
    }

    /// The descriptor, to hand it to a process of its own.
    pub fn into_file(self) -> File {
        self.0
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Tap {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        // A tap takes a packet as a whole or not at all.
        (&self.0).write(packet).map(drop)
    }

    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(into)
    }

    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let flags = [
            (offloads.checksum, TUN_F_CSUM),
            (offloads.tcp4, TUN_F_TSO4),
            (offloads.tcp6, TUN_F_TSO6),
            (offloads.ecn, TUN_F_TSO_ECN),
        ];
        let flags = flags.into_iter().filter(|&(wanted, _)| wanted).fold(0, |flags, (_, flag)| flags | flag);
        Ok(sys::set_offloads(&self.0, flags)?)
    }
}
