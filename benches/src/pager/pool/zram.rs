//! What zram makes of some pages: a device of our own, written to once, never a swap device.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use pager::{PAGE_BYTES, PageBytes};

use crate::kit::{
    clocks,
    error::Error,
    settings::{Step, Undo},
};

const CONTROL: &str = "/sys/class/zram-control";

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
    let control = Path::new(CONTROL);
    // Reading it makes a device.
    let number = read(&control.join("hot_add"))?;
    let undo = Undo::register(vec![
        Step::Write(PathBuf::from(format!("/sys/block/zram{number}/reset")), "1".into()),
        Step::Write(control.join("hot_remove"), number.clone()),
    ]);
    let device = PathBuf::from(format!("/sys/block/zram{number}"));
    write(&device.join("comp_algorithm"), "lz4")?;
    write(&device.join("disksize"), &(pages.len() * PAGE_BYTES).to_string())?;
    let node = PathBuf::from(format!("/dev/zram{number}"));
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
    let stat = device.join("mm_stat");
    let text = read(&stat)?;
    let bytes = text.split_whitespace().nth(2).and_then(|used| used.parse().ok());
    drop(undo);
    let bytes = bytes.ok_or_else(|| Error::Guest(format!("{}: {text:?} is no mm_stat", stat.display())))?;
    Ok(ZramCost { bytes, cpu })
}

fn read(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File { path: path.into(), source })
}
