//! Guests that start from a raw memory image: RAM is filled from the file, and compared with it at the end.

use std::{fs::File, io::Read, path::Path};

use pager::{Gfn, GuestMemory, PAGE_BYTES, PageBytes};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::Error;

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Ram { path: path.to_owned(), source })
}

/// Calls `page` with every page of the file, in order, at most `pages` of them.
fn each_page<E: From<Error>>(
    path: &Path,
    pages: u32,
    mut page: impl FnMut(u32, &PageBytes) -> Result<(), E>,
) -> Result<u32, E> {
    let mut file = open(path)?;
    let mut bytes = [0; PAGE_BYTES];
    for number in 0..pages {
        file.read_exact(&mut bytes).map_err(|source| Error::Ram { path: path.to_owned(), source })?;
        page(number, &bytes)?;
    }
    Ok(pages)
}

/// Fills RAM from the image; pages of zeros stay untouched.
pub fn load(path: &Path, memory: &GuestMemory, pages: u32) -> Result<(), Error> {
    let in_file = open(path)?.metadata().map_err(|source| Error::Ram { path: path.to_owned(), source })?.len()
        / PAGE_BYTES as u64;
    each_page(path, pages.min(in_file as u32), |number, bytes| {
        if *bytes == [0; PAGE_BYTES] { Ok(()) } else { memory.populate(Gfn(number), bytes).map_err(Error::Memory) }
    })
    .map(drop)
}

/// Reads all of RAM as the guest would, and compares it with the image. How many pages there were.
pub fn compare(path: &Path, memory: &GuestMemoryMmap<()>) -> Result<u64, String> {
    let in_file =
        open(path).and_then(|file| file.metadata().map_err(|source| Error::Ram { path: path.to_owned(), source }));
    let pages = in_file.map_err(|error| error.to_string())?.len() / PAGE_BYTES as u64;
    let mut different = Vec::new();
    let compared = each_page(path, pages as u32, |number, expected| {
        let mut found = [0; PAGE_BYTES];
        let gpa = GuestAddress(u64::from(number) * PAGE_BYTES as u64);
        memory.read_slice(&mut found, gpa).map_err(Error::Address)?;
        if found != *expected {
            different.push(gpa.0);
        }
        Ok::<_, Error>(())
    })
    .map_err(|error| error.to_string())?;
    match different.first() {
        None => Ok(u64::from(compared)),
        Some(first) => {
            Err(format!("{} pages differ from {}, the first at {first:#x}", different.len(), path.display()))
        }
    }
}
