//! Guests that start from a raw memory image. RAM is filled from the file, pages that are still as loaded are
//! read from it again, and all of RAM is compared with it at the end.
//!
//! The file is opened once: another one in its place changes nothing for a guest that runs.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use pager::{Gfn, GuestMemory, ImageFile, PAGE_BYTES, PageBytes};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::Error;

/// A guest's image; clones are the same one.
#[derive(Clone, Debug)]
pub struct Image(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    /// Whole pages that belong to RAM.
    pages: u32,
}

impl Image {
    /// Opens the image of a guest of at most `most` pages.
    pub fn open(path: &Path, most: u32) -> Result<Image, Error> {
        let failed = |source| Error::Ram { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let in_file = file.metadata().map_err(failed)?.len() / PAGE_BYTES as u64;
        let pages = u32::try_from(in_file).unwrap_or(u32::MAX).min(most);
        Ok(Image(Arc::new(Opened { file, path: path.to_owned(), pages })))
    }

    /// Fills RAM from the image; pages of zeros stay untouched.
    pub fn load(&self, memory: &GuestMemory) -> Result<(), Error> {
        self.each_page(|number, bytes| {
            if *bytes == [0; PAGE_BYTES] { Ok(()) } else { memory.populate(Gfn(number), bytes).map_err(Error::Memory) }
        })
    }

    /// Reads all of RAM as the guest would, and compares it with the image. How many pages there were.
    pub fn compare(&self, memory: &GuestMemoryMmap<()>) -> Result<u64, String> {
        let mut different = Vec::new();
        let compared = self.each_page(|number, expected| {
            let mut found = [0; PAGE_BYTES];
            let gpa = GuestAddress(u64::from(number) * PAGE_BYTES as u64);
            memory.read_slice(&mut found, gpa).map_err(Error::Address)?;
            if found != *expected {
                different.push(gpa.0);
            }
            Ok(())
        });
        compared.map_err(|error| error.to_string())?;
        match different.first() {
            None => Ok(u64::from(self.0.pages)),
            Some(first) => {
                let path = self.0.path.display();
                Err(format!("{} pages differ from {path}, the first at {first:#x}", different.len()))
            }
        }
    }

    /// Calls `page` with every page, in order.
    fn each_page(&self, mut page: impl FnMut(u32, &PageBytes) -> Result<(), Error>) -> Result<(), Error> {
        let mut bytes = [0; PAGE_BYTES];
        for number in 0..self.0.pages {
            let read = self.0.file.read_exact_at(&mut bytes, u64::from(number) * PAGE_BYTES as u64);
            read.map_err(|source| Error::Ram { path: self.0.path.clone(), source })?;
            page(number, &bytes)?;
        }
        Ok(())
    }
}

impl ImageFile for Image {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.file.read_at(into, offset)
    }

    fn name(&self) -> String {
        self.0.path.display().to_string()
    }
}
