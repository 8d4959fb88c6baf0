//! Finding equal pages in different guests, and keeping one copy of them.
//!
//! ```text
//!   VMM process                                host process
//!   ┌───────────────────────────┐              ┌──────────────────────────────┐
//!   │ guest memory (ScanMemory) │              │ Domain    one per tenant     │
//!   │        ▲                  │   control    │  Protocol                    │
//!   │     Scanner ──────────────┼── ::merge ───┼─   Sessions   who holds what │
//!   │        │                  │              │    Index      hash → frame   │
//!   │        │                  │              │    Store      frames (memfd) │
//!   │  PublishedView (read-only)┼──────────────┼─   Published  bits   (memfd) │
//!   └───────────────────────────┘              └──────────────────────────────┘
//! ```
//!
//! The [`Scanner`] walks its guest's private pages. A page whose own offset in the store is published is
//! compared with that frame right away: no hash, no message. The others are sampled; what was sampled alike
//! twice is hashed, and hashes go to the [`Domain`], which answers once it has seen the same one twice. What
//! is shared in the end was compared byte by byte by the VMM that shares it.
//!
//! Invariants:
//! * A frame's bytes never change between publication and release, and only the host process writes them.
//! * A frame is never punched before every living VMM of the domain has answered, after its published bit was
//!   cleared, that it does not hold it.
//! * Nothing crosses domains: each [`Domain`] has its own store, index and hash secret, and no function here
//!   takes two of them.
//! * No number from a VMM indexes anything before it was checked; a VMM that breaks the protocol gets a
//!   [`ProtocolError`] and is to be dropped, nothing more.

#![deny(unsafe_code)]

mod domain;
mod error;
mod hash;
mod published;
mod scanner;
mod sys;

pub use domain::figures::Figures;
pub use domain::vmm_id::VmmId;
pub use domain::{Descriptors, Domain};
pub use error::{Error, ProtocolError};
pub use hash::{content_hash, is_zero};
pub use published::PublishedView;
pub use scanner::Scanner;
pub use scanner::config::ScannerConfig;
pub use scanner::inbox::ScannerHandle;
pub use scanner::memory::{Backing, ScanMemory};
pub use scanner::notes::NOTES_BYTES_PER_PAGE;
