//! Counts what memory images have in common, page by page and byte by byte: the yardstick for what a run on
//! them merges.
//!
//! ```text
//!   pages      = zero + non-zero
//!   non-zero   = distinct contents + duplicates          duplicates: pages that need not exist
//!   duplicates = at the same address + elsewhere         same address: each for itself, over all images
//! ```
//!
//! `cargo run --release -p dedup --example count-duplicates -- guest-1.mem guest-2.mem guest-3.mem`
//!
//! A run on the same images comes to the same figures from the other side: its `reclaimed_bytes.shared` is at
//! most 4096 times the duplicates of all images. (Its `zero` counts zero pages that the guest had touched;
//! zeros of an image are not.)

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use dedup::is_zero;
use wire::{PAGE_BYTES, PageBytes};

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        eprintln!("usage: count-duplicates IMAGE...");
        return ExitCode::from(2);
    }
    let mut images = Vec::new();
    for path in &paths {
        match read(path) {
            Ok(image) => images.push(image),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    for (path, image) in paths.iter().zip(&images) {
        print(&path.display().to_string(), &Count::of(std::slice::from_ref(image)));
    }
    print("all", &Count::of(&images));
    ExitCode::SUCCESS
}

/// What some images hold, in pages.
#[derive(Debug, Default)]
struct Count {
    pages: usize,
    zero: usize,
    distinct: usize,
    same_address: usize,
}

impl Count {
    fn of(images: &[Vec<PageBytes>]) -> Count {
        let mut count = Count::default();
        let mut seen = HashSet::<&PageBytes>::new();
        for gfn in 0..images.iter().map(Vec::len).max().unwrap_or(0) {
            let mut here = HashSet::<&PageBytes>::new();
            for page in images.iter().filter_map(|image| image.get(gfn)) {
                count.pages += 1;
                if is_zero(page) {
                    count.zero += 1;
                } else {
                    count.distinct += usize::from(seen.insert(page));
                    count.same_address += usize::from(!here.insert(page));
                }
            }
        }
        count
    }

    fn non_zero(&self) -> usize {
        self.pages - self.zero
    }

    fn duplicates(&self) -> usize {
        self.non_zero() - self.distinct
    }
}

fn read(path: &Path) -> io::Result<Vec<PageBytes>> {
    let bytes = fs::read(path)?;
    let (pages, rest) = bytes.as_chunks::<PAGE_BYTES>();
    if !rest.is_empty() {
        let message = format!("{} bytes are no whole number of {PAGE_BYTES}-byte pages", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(pages.to_vec())
}

fn print(name: &str, count: &Count) {
    let of_non_zero = |pages: usize| 100.0 * pages as f64 / count.non_zero().max(1) as f64;
    println!("{name}");
    println!("  pages         {:>9}", count.pages);
    println!("  zero          {:>9}", count.zero);
    println!("  non-zero      {:>9}", count.non_zero());
    println!("  distinct      {:>9}", count.distinct);
    println!("  duplicates    {:>9}  {:>5.1} % of non-zero", count.duplicates(), of_non_zero(count.duplicates()));
    println!("  same address  {:>9}  {:>5.1} % of non-zero", count.same_address, of_non_zero(count.same_address));
}
