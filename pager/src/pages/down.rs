//! Down the tiers, and from one place to another within them.
//!
//! ```text
//!   Private ---- read, compresses, and there is a kernel tier ------> Private, lent          (lend)
//!   Private --protect, read--+-- as it was loaded from the image ----> Clean
//!                            +-- one pattern -----------------------> Zero, or Filled with it
//!                            +-- compresses by lz4, or else by zstd,
//!                            |   and the pool has room -------------> Pooled
//!                            +-- noise, and to be spared -----------> Private, incompressible, with lives
//!                            +-- staged --- written ----------------> Swapped
//!                            +-- no file, file full, write failed --> Private, incompressible
//!
//!   Pooled --decompress, staged --- written ------------------------> Swapped              (write_back)
//!   Pooled, by lz4 ------- decompress, zstd ------------------------> Pooled, by zstd, or a patch (tidy)
//! ```

pub(super) mod evict;
mod lend;
mod patch;
pub(super) mod staging;
mod store;
mod tidy;
mod write_back;
