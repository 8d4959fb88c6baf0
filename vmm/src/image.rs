//! Guests that start from a raw memory image: RAM is filled from the file, and compared with it at the end.

use std::{fs::File, io::Read, path::Path};

use pager::{Gfn, GuestMemory, PAGE_BYTES, PageBytes};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::Error;

/// Calls `page` with every whole page of the file, in order, at most `most` of them. How many there were.
fn each_page(path: &Path, most: u32, mut page: impl FnMut(u32, &PageBytes) -> Result<(), Error>) -> Result<u32, Error> {
    let failed = |source| Error::Ram { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let in_file = file.metadata().map_err(failed)?.len() / PAGE_BYTES as u64;
    let pages = u32::try_from(in_file).unwrap_or(u32::MAX).min(most);
    let mut bytes = [0; PAGE_BYTES];
    for number in 0..pages {
        file.read_exact(&mut bytes).map_err(failed)?;
        page(number, &bytes)?;
    }
    Ok(pages)
}

/// Fills RAM from the image; pages of zeros stay untouched.
pub fn load(path: &Path, memory: &GuestMemory, pages: u32) -> Result<(), Error> {
    each_page(path, pages, |number, bytes| {
        if *bytes == [0; PAGE_BYTES] { Ok(()) } else { memory.populate(Gfn(number), bytes).map_err(Error::Memory) }
    })
    .map(drop)
}

/// Reads all of RAM as the guest would, and compares it with the image. How many pages there were.
pub fn compare(path: &Path, memory: &GuestMemoryMmap<()>) -> Result<u64, String> {
    let mut different = Vec::new();
    let compared = each_page(path, u32::MAX, |number, expected| {
        let mut found = [0; PAGE_BYTES];
        let gpa = GuestAddress(u64::from(number) * PAGE_BYTES as u64);
        memory.read_slice(&mut found, gpa).map_err(Error::Address)?;
        if found != *expected {
            different.push(gpa.0);
        }
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    match different.first() {
        None => Ok(u64::from(compared)),
        Some(first) => {
            Err(format!("{} pages differ from {}, the first at {first:#x}", different.len(), path.display()))
        }
    }
}
