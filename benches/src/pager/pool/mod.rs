//! `pool`: what the compressed pool makes of real memory, against zram.
//!
//! ```text
//!   all pages     every page of the images that is not filled with one word
//!                   zram, lz4 | the pool as eviction fills it | the pool after it was packed and compacted
//!   unique pages  those without an equal in any of the images: what is left where pages are shared
//!                   the same, and with patches of pages that have equals, each guest with its own library
//! ```
//!
//! A page that does not fit the pool counts as a whole page on our side; zram counts its own.

mod patches;
mod zram;

use std::{
    collections::HashMap,
    fs,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use pager::{
    Gfn, MmapArena, PAGE_BYTES, PageBytes,
    tiers::{
        pool::{Codec, Pool, is_smaller},
        squeeze::{QUICK_BYTES, Squeeze, is_noise, quickly},
    },
};
use serde::Serialize;

use self::patches::Patched;
use crate::kit::{clocks, error::Error, report::Report, target::Target};

/// What the compressed pool makes of memory images, against zram. Needs root: it makes a zram device and
/// removes it.
#[derive(Args)]
#[command(after_help = "\
Example:
  cargo run --release -p ballast-bench -- pool --image a.mem --image b.mem --image c.mem")]
pub struct Arguments {
    /// Raw memory image of a guest; repeatable
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    pages: &'static str,
    side: &'static str,
    /// Bytes kept for a byte of the pages.
    kept: f64,
    cpu_us_a_page: f64,
}

#[derive(Serialize)]
struct Figures<'a> {
    rows: &'a [Row],
    targets: &'a [Target],
}

/// Runs it; prints a table and targets.
pub fn run(arguments: Arguments, report: &Report) -> Result<(), Error> {
    let images = arguments.images.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    report.measured("pool", measure(&images, &mut rows, report));
    print_table(&rows);
    let targets = judge(&rows);
    report.conclude(&targets, &Figures { rows: &rows, targets: &targets })
}

/// Adds a row for each side, as far as it comes.
fn measure(images: &[Vec<PageBytes>], rows: &mut Vec<Row>, report: &Report) -> Result<(), Error> {
    let filled = |page: &PageBytes| page.chunks_exact(8).all(|word| *word == page[..8]);
    let of_image = images.iter().map(|image| image.iter().filter(|page| !filled(page)).collect::<Vec<_>>());
    let of_image: Vec<Vec<&PageBytes>> = of_image.collect();
    let all: Vec<&PageBytes> = of_image.iter().flatten().copied().collect();
    let mut times = HashMap::<&PageBytes, u32>::new();
    all.iter().for_each(|&page| *times.entry(page).or_default() += 1);
    // In the order of their addresses, for what a run repeats.
    let unique: Vec<&PageBytes> = all.iter().copied().filter(|&page| times[page] == 1).collect();
    let mut seen = HashMap::<&PageBytes, ()>::new();
    let with_equals = all.iter().copied().filter(|&page| times[page] > 1);
    let shared: Vec<&PageBytes> = with_equals.filter(|&page| seen.insert(page, ()).is_none()).collect();
    println!("pool: {} pages, {} of them unique, {} contents with equals\n", all.len(), unique.len(), shared.len());
    for (name, pages) in [("all", &all), ("unique", &unique)] {
        if let Some(zram) = report.measured("pool: zram", zram::measure(pages)) {
            rows.push(row(name, "zram, lz4", zram.bytes as f64, zram.cpu, pages.len()));
        }
        let mut filled = Filled::new(pages)?;
        rows.push(row(name, "pool, as evicted", filled.bytes(), filled.cpu, pages.len()));
        filled.pack()?;
        rows.push(row(name, "pool, packed", filled.bytes(), filled.cpu, pages.len()));
        if name == "unique" {
            let mut patched = Patched::default();
            let mut first = 0;
            for (image, of_image) in images.iter().zip(&of_image) {
                let count = of_image.iter().filter(|&&page| times[page] == 1).count();
                filled.patch(image.len() as u32, first..first + count, &shared, &mut patched)?;
                first += count;
            }
            filled.compact();
            print(&patched, images.len() * shared.len());
            let cpu = filled.cpu + patched.reading + patched.packing;
            let bytes = filled.bytes() + patched.library_bytes as f64;
            rows.push(row(name, "pool, packed, with patches and libraries", bytes, cpu, pages.len()));
        }
    }
    Ok(())
}

fn row(pages: &'static str, side: &'static str, bytes: f64, cpu: Duration, count: usize) -> Row {
    let count = count.max(1) as f64;
    Row { pages, side, kept: bytes / count / PAGE_BYTES as f64, cpu_us_a_page: cpu.as_secs_f64() * 1e6 / count }
}

fn judge(rows: &[Row]) -> Vec<Target> {
    let saved = |pages: &str, side: &str| {
        let row = rows.iter().find(|row| row.pages == pages && row.side == side);
        row.map_or(f64::NAN, |row| 1.0 - row.kept)
    };
    let patches = saved("unique", "pool, packed, with patches and libraries") / saved("unique", "pool, packed");
    let over_zram = |side: &str| saved("all", side) / saved("all", "zram, lz4");
    vec![
        Target::at_least("pool-evicted-saving-over-zram".into(), over_zram("pool, as evicted"), 1.0),
        Target::at_least("pool-packed-saving-over-zram".into(), over_zram("pool, packed"), 1.0),
        // Of the unique pages, with what the libraries take while pages are packed deducted.
        Target::at_least("pool-patches-saving-over-packed".into(), patches, 1.0),
    ]
}

fn print_table(rows: &[Row]) {
    println!("\n| pages | side | bytes kept a byte | CPU a page |\n|---|---|---|---|");
    for Row { pages, side, kept, cpu_us_a_page } in rows {
        println!("| {pages} | {side} | {kept:.3} | {cpu_us_a_page:.1} µs |");
    }
    println!();
}

fn print(patched: &Patched, frames_read: usize) {
    let us = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    let Patched { tried, patches, library_bytes, reading, packing, returning } = *patched;
    println!(
        "pool: {tried} pages have a similar frame, {patches} are patches; libraries of {} KiB",
        library_bytes >> 10
    );
    println!(
        "pool: CPU: {:.1} µs a frame read, {:.1} µs a page that has a similar frame, {:.1} µs a patch brought back",
        us(reading, frames_read),
        us(packing, tried),
        us(returning, patches)
    );
}

fn read(path: &Path) -> Result<Vec<PageBytes>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
    let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
    if pages.is_empty() || !rest.is_empty() {
        return Err(Error::ImageSize { path: path.into(), bytes: bytes.len() as u64 });
    }
    Ok(pages.to_vec())
}

/// A pool with pages in it, as the pager fills and packs it.
struct Filled<'a> {
    pages: &'a [&'a PageBytes],
    pool: Pool,
    squeeze: Squeeze,
    /// By page: its slot, and whether it came in by zstd.
    slots: Vec<Option<u64>>,
    dense: Vec<bool>,
    cpu: Duration,
}

impl<'a> Filled<'a> {
    fn empty(pages: &'a [&'a PageBytes]) -> Result<Filled<'a>, Error> {
        let bytes = NonZeroUsize::new(pages.len().max(4) * 2 * PAGE_BYTES).unwrap_or(NonZeroUsize::MIN);
        let arena = MmapArena::new(bytes).map_err(Error::system("mapping memory"))?;
        let pool = Pool::new(Box::new(arena)).map_err(Error::system("making a pool"))?;
        let squeeze = Squeeze::new().map_err(Error::system("making a compressor"))?;
        Ok(Filled {
            pages,
            pool,
            squeeze,
            slots: Vec::with_capacity(pages.len()),
            dense: Vec::new(),
            cpu: Duration::ZERO,
        })
    }

    /// Evicts the pages.
    fn new(pages: &'a [&'a PageBytes]) -> Result<Filled<'a>, Error> {
        let mut filled = Filled::empty(pages)?;
        let mut buffer = [0; QUICK_BYTES];
        let before = clocks::process()?;
        for (number, page) in pages.iter().enumerate() {
            let owner = Gfn(number as u32);
            let (slot, dense) = match quickly(page, &mut buffer) {
                Some(bytes) => (filled.pool.store(owner, Codec::Lz4, bytes).ok(), false),
                None if is_noise(page) => (None, true),
                None => {
                    let bytes = filled.squeeze.densely(page);
                    (bytes.and_then(|bytes| filled.pool.store(owner, Codec::Zstd, bytes).ok()), true)
                }
            };
            filled.slots.push(slot);
            filled.dense.push(dense);
        }
        filled.cpu = clocks::process()?.saturating_sub(before);
        Ok(filled)
    }

    /// What the pager does to pages that stay.
    fn pack(&mut self) -> Result<(), Error> {
        let before = clocks::process()?;
        for number in 0..self.pages.len() {
            let Some(slot) = self.slots[number].filter(|_| !self.dense[number]) else { continue };
            let old = self.pool.length(slot);
            let bytes = self.squeeze.densely(self.pages[number]).filter(|bytes| is_smaller(bytes.len(), old));
            let packed = bytes.and_then(|bytes| self.pool.store(Gfn(number as u32), Codec::Zstd, bytes).ok());
            if let Some(packed) = packed {
                self.pool.free(slot);
                self.slots[number] = Some(packed);
            }
        }
        self.compact();
        self.cpu += clocks::process()?.saturating_sub(before);
        Ok(())
    }

    fn compact(&mut self) {
        while let Some((slab, owners)) = self.pool.sparse_slab() {
            for owner in owners {
                let at = &mut self.slots[owner.index()];
                let moved = at.and_then(|slot| Some(self.pool.relocate(slot, slab)?.0));
                *at = moved.or(*at);
            }
        }
    }

    /// What the pager does to those of one guest that resemble a frame.
    fn patch(
        &mut self,
        ram_pages: u32,
        numbers: Range<usize>,
        frames: &[&PageBytes],
        patched: &mut Patched,
    ) -> Result<(), Error> {
        patches::make(ram_pages, self.pages, numbers, frames, (&mut self.pool, &mut self.slots), patched)
    }

    /// Memory that all the pages take.
    fn bytes(&self) -> f64 {
        let whole = self.slots.iter().filter(|slot| slot.is_none()).count();
        self.pool.bytes() as f64 + (whole * PAGE_BYTES) as f64
    }
}
