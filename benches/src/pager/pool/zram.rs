//! What zram makes of some pages: a device of our own, written to once, never a swap device.

use std::{fs::OpenOptions, io::Write, time::Duration};

use pager::{PAGE_BYTES, PageBytes};
use peers::zram::Zram;

use crate::{
    kit::{
        clocks,
        error::Error,
        settings::{self, Step, Undo},
    },
    pager::paging::swap::zram_bytes,
};

/// What zram took for some pages.
#[derive(Clone, Copy, Debug)]
pub struct ZramCost {
    /// Memory it uses, bytes: `mem_used_total` of `mm_stat`.
    pub bytes: u64,
    /// CPU time of writing the pages.
    pub cpu: Duration,
}

/// Writes the pages to a new zram device with lz4, and removes it. None of them should be filled with one
/// word: zram keeps such pages nowhere.
pub fn measure(pages: &[&PageBytes]) -> Result<ZramCost, Error> {
    let zram = Zram::add().map_err(|source| Error::NoZram { source })?;
    let undo = Undo::register(zram.removal().map(|(path, value)| Step::Write(path, value)).to_vec());
    let sizing = zram.sizing((pages.len() * PAGE_BYTES) as u64);
    sizing.iter().try_for_each(|(path, value)| settings::change(path, value))?;
    let node = zram.node();
    let failed = |source| Error::File { path: node.clone(), source };
    let before = clocks::process()?;
    let mut file = OpenOptions::new().write(true).open(&node).map_err(failed)?;
    for page in pages {
        file.write_all(page.as_slice()).map_err(failed)?;
    }
    // The device is written to here, by this thread or by the kernel's own, which nobody accounts to us.
    file.sync_all().map_err(failed)?;
    let cpu = clocks::process()?.saturating_sub(before);
    drop(file);
    let stat = zram.statistics();
    let figures = zram_bytes(&stat);
    drop(undo);
    let (_, bytes) = figures.ok_or_else(|| Error::Guest(format!("{} says nothing", stat.display())))?;
    Ok(ZramCost { bytes, cpu })
}
