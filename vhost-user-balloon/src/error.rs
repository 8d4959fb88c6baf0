//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket cannot be made.
    #[error("listening on {path}: {source}; give the path of a directory that you may write to")]
    Listen {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The vhost-user machinery fails, not a front end.
    #[error("serving vhost-user: {0}")]
    Serve(String),
    /// The system does not give what is needed.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's word.
        source: io::Error,
    },
}
