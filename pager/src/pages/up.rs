//! Back from the tiers.
//!
//! ```text
//!   Filled, Pooled --- fault: credit, decompress, COPY ---> Private
//!
//!   Swapped --- fault: credit ---> SwapIn, locked --- swap_in: read, check, COPY ---> Private
//!               on the fault thread                   on a thread that may wait for a disk
//!
//!   Pooled --- rejoin: equal to the frame at its address ---> Shared
//! ```

mod ahead;
mod bring;
mod prefetch;
mod promote;
mod rejoin;
