//! Where content is kept that is not in a guest page: below memory, tier by tier. None of it knows a page's
//! state.
//!
//! ```text
//!   image      the file that the guest started from: a page that equals it need not be kept
//!   kernel     its own swap, on a compressed device: the page stays private, and comes back without us
//!   pool       compressed pages; `squeeze` compresses them, `library` finds frames that they resemble
//!   swap       a file, for what does not compress and what nobody has asked for in a long time
//! ```

pub mod image;
pub(crate) mod kernel;
pub mod library;
pub mod pool;
pub mod squeeze;
pub mod swap;
