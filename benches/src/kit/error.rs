//! Why something could not be measured.

use std::{io, path::PathBuf};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// a file cannot be read or written
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// an image that cannot be guest memory
    #[error(
        "{}: {bytes} bytes are no memory image: it must hold whole pages of 4096 bytes, at least one and at most 64 \
         GiB",
        path.display()
    )]
    ImageSize {
        /// Which.
        path: PathBuf,
        /// Its size, bytes.
        bytes: u64,
    },
    /// images of different sizes
    #[error("{} and {}: memory images of one run must have the same size", first.display(), other.display())]
    ImagesDiffer {
        /// The first image.
        first: PathBuf,
        /// One with another size.
        other: PathBuf,
    },
    /// a scenario that needs more images
    #[error("{scenario} needs {needed} memory images, and {given} were given: add --image FILE for each")]
    TooFewImages {
        /// Its name.
        scenario: String,
        /// Images it takes.
        needed: usize,
        /// Images there are.
        given: usize,
    },
    /// the kernel has no KSM
    #[error(
        "this kernel has no ksmd (/sys/kernel/mm/ksm): it was built without CONFIG_KSM; --side ballast measures \
         without it"
    )]
    NoKsm,
    /// the kernel has no zram
    #[error("zram: {source}: this kernel has no /sys/class/zram-control (CONFIG_ZRAM; modprobe zram)")]
    NoZram {
        /// What it said.
        source: io::Error,
    },
    /// the kernel refused
    #[error("{doing}: {source}")]
    System {
        /// What was asked of it.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// guest memory failed
    #[error(transparent)]
    Memory(#[from] pager::Failure),
    /// the frame store failed
    #[error(transparent)]
    Store(#[from] dedup::Error),
    /// the store refused a scanner's message
    #[error(transparent)]
    Protocol(#[from] dedup::ProtocolError),
    /// a part of a benchmark failed, as was said
    #[error("{count} measurements failed: the lines with \"not measured\" say why")]
    NotMeasured {
        /// How many.
        count: u32,
    },
    /// a guest's process is gone
    #[error("the process of a guest ended early: {0}")]
    GuestEnded(std::process::ExitStatus),
    /// guest memory failed while it was scanned
    #[error("guest memory: {0}")]
    Guest(String),
}

impl Error {
    /// For `map_err`.
    pub fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::System { doing, source: source.into() }
    }
}
