//! Why a run could not start. Each message is one line that names the value and the way out.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::bytes::ByteCount;

/// Why a run did not start, or could not be reported on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// a number outside its allowed range
    #[error("{option} {value}: allowed are {allowed}")]
    OutOfRange {
        /// The option, as typed.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        allowed: String,
    },
    /// an image that cannot be opened
    #[error("--image {path:?}: {source}; give a readable file with a guest's RAM, from guest-physical address 0")]
    ImageUnreadable {
        /// The image.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// an image that cannot be a guest's RAM
    #[error("--image {path:?} has {bytes} bytes: {wanted}")]
    ImageSize {
        /// The image.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What its size must be.
        wanted: String,
    },
    /// a file that is to be started cannot be read
    #[error("{option} {path:?}: {source}; give a readable file")]
    Unreadable {
        /// The option, as typed.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// a kernel that could not be started, or not with what it is to find
    #[error("--kernel {path:?}: {source}")]
    Kernel {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        source: boot::Error,
    },
    /// a disk that a guest cannot have
    #[error("--disk {disk}: {why}")]
    Disk {
        /// As it was given.
        disk: String,
        /// What is wrong, and what would do.
        why: String,
    },
    /// a tap that a guest cannot have
    #[error("--net {0}")]
    Tap(#[from] net::TapError),
    /// the guests' guaranteed memory does not fit
    #[error("--budget {}: {refusal}", ByteCount(*.budget_bytes))]
    BudgetTooSmall {
        /// The budget.
        budget_bytes: u64,
        /// What would fit.
        refusal: String,
    },
    /// other runs have promised the machine's memory
    #[error("--budget {}: {refusal}", ByteCount(*.budget_bytes))]
    OverPromised {
        /// The budget.
        budget_bytes: u64,
        /// Who has promised what, and what is left.
        refusal: String,
    },
    /// somebody else listens there
    #[error("--metrics {address}: {source}; choose another address, port 0 takes any free one")]
    MetricsAddress {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// two ways to treat equal pages in one sharing domain
    #[error("--domain {domain}: given with and without zero-pages-only; a domain has one or the other")]
    DomainMode {
        /// Its name.
        domain: String,
    },
    /// two options that want different things
    #[error("{one} contradicts {other}: {way_out}")]
    Contradiction {
        /// As it could be typed.
        one: String,
        /// The other.
        other: String,
        /// What would do.
        way_out: String,
    },
    /// there can be no swap files
    #[error("--swap {0}")]
    Swap(#[from] pager::SwapFileError),
    /// there can be no kernel tier
    #[error("--kernel-tier {0}")]
    KernelTier(String),
    /// something of the machine is missing
    #[error("{0}")]
    Prerequisite(String),
    /// the report's file cannot be written
    #[error("--report {path:?}: {source}; give a file in a writable folder")]
    Report {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// a VMM process could not be started
    #[error("starting the VMM of {guest}: {source}")]
    Spawn {
        /// The guest.
        guest: String,
        /// What the system said.
        source: io::Error,
    },
    /// the frame store could not be made
    #[error("frame store: {0}")]
    FrameStore(#[from] dedup::Error),
    /// something else of the system failed
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// 2 where the command line is at fault, 1 where the machine is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::OutOfRange { .. }
            | Error::ImageUnreadable { .. }
            | Error::ImageSize { .. }
            | Error::Unreadable { .. }
            | Error::Kernel { .. }
            | Error::Disk { .. }
            | Error::Tap(_)
            | Error::BudgetTooSmall { .. }
            | Error::OverPromised { .. }
            | Error::DomainMode { .. }
            | Error::Contradiction { .. }
            | Error::MetricsAddress { .. }
            | Error::Swap(_)
            | Error::KernelTier(_)
            | Error::Report { .. } => 2,
            Error::Prerequisite(_) | Error::Spawn { .. } | Error::FrameStore(_) | Error::System { .. } => 1,
        }
    }
}
