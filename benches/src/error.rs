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
    /// the kernel has no KSM
    #[error("this kernel has no /sys/kernel/mm/ksm: it was built without CONFIG_KSM")]
    NoKsm,
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
