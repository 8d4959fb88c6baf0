//! Guests' memory that somebody shares: what a comparison asks of each side.

use std::time::Duration;

use serde::Serialize;

use crate::kit::{error::Error, ram::GuestRam};

/// Guests' memory that somebody shares in the background while it is used.
pub trait Sharer {
    /// Where it is. Not to be used after the sharer is dropped.
    fn rams(&self) -> Vec<GuestRam>;

    /// Begins to share, at the pace this side has by default.
    fn begin(&mut self) -> Result<(), Error>;

    /// Stops looking for pages to share. What is shared stays so.
    fn halt(&mut self) -> Result<(), Error>;

    /// CPU time so far of everybody who has part in sharing, the guests themselves excepted.
    fn cpu(&self) -> Result<Duration, Error>;

    /// Pages saved, as this side counts them: cheap, but pages that were written to since may still be
    /// counted.
    fn saved_pages(&self) -> Result<u64, Error>;

    /// What the guests cost now, all that is kept for sharing included, bytes; by the kernel's books.
    fn cost_bytes(&self) -> Result<u64, Error>;

    /// What of it is maintenance.
    fn metadata(&self) -> Result<Metadata, Error>;
}

/// Memory that sharing costs, measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Metadata {
    /// Tables, index, buffers, stacks: anonymous memory that is no guest's page.
    pub process_bytes: u64,
    /// Address-space areas, in the kernel.
    pub area_bytes: u64,
    /// Page tables that scanning added.
    pub page_table_bytes: u64,
    /// KSM's items and nodes.
    pub ksm_bytes: u64,
}

impl Metadata {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.process_bytes + self.area_bytes + self.page_table_bytes + self.ksm_bytes
    }
}
