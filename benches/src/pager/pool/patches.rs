//! Patches as the pager makes them: pages of a guest against the frames that its sharing domain has
//! published.
//!
//! The domain's frames are one copy of each content that some image has twice, or several have. Each guest
//! reads all of them into a library of its own, then packs its unique pages, as the pager does.

use std::{ops::Range, time::Duration};

use pager::{
    Frame, Gfn, PAGE_BYTES, PageBytes,
    tiers::{
        library::Library,
        pool::{Codec, Pool, is_smaller},
        squeeze::Squeeze,
    },
};

use crate::kit::{clocks, error::Error};

/// What became of some pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patched {
    /// Pages that a frame was found for.
    pub tried: usize,
    /// Those that are patches now.
    pub patches: usize,
    /// Memory of the libraries, while there are such.
    pub library_bytes: u64,
    /// CPU time of reading the frames.
    pub reading: Duration,
    /// CPU time of looking frames up, compressing and trying out.
    pub packing: Duration,
    /// CPU time of decompressing what became patches, once each.
    pub returning: Duration,
}

/// Makes patches of pages of one guest of `ram_pages`, `numbers` of `pages`, where that takes less room in
/// the pool. `slots` are where the pages are.
pub fn make(
    ram_pages: u32,
    pages: &[&PageBytes],
    numbers: Range<usize>,
    frames: &[&PageBytes],
    (pool, slots): (&mut Pool, &mut [Option<u64>]),
    patched: &mut Patched,
) -> Result<(), Error> {
    let mut library = Library::new(ram_pages);
    let before = clocks::process()?;
    for (number, page) in frames.iter().enumerate() {
        library.add(Frame(number as u32), page);
    }
    patched.library_bytes += library.bytes();
    let read = clocks::process()?;
    patched.reading += read.saturating_sub(before);
    let mut squeeze = Squeeze::new().map_err(Error::system("making a compressor"))?;
    let mut made = Vec::new();
    for number in numbers {
        let (Some(slot), page) = (slots[number], pages[number]) else { continue };
        let Some(frame) = library.similar(page) else { continue };
        patched.tried += 1;
        let (codec, reference) = (Codec::Patch(frame), frames[frame.index()]);
        let patch = squeeze.against(page, reference).filter(|patch| {
            is_smaller(codec.length(patch.len()), pool.length(slot)) && pool.gives(patch, reference, page)
        });
        if let Some(new) = patch.and_then(|patch| pool.store(Gfn(number as u32), codec, patch).ok()) {
            pool.free(slot);
            slots[number] = Some(new);
            made.push((number, new));
        }
    }
    let packed = clocks::process()?;
    patched.packing += packed.saturating_sub(read);
    patched.patches += made.len();
    let mut found = [0; PAGE_BYTES];
    for (number, slot) in made {
        let back = pool.decompress(slot, &mut found, |frame, into| *into = *frames[frame.index()]);
        if !back || found != *pages[number] {
            return Err(Error::Guest(format!("page {number} came back as another")));
        }
    }
    patched.returning += clocks::process()?.saturating_sub(packed);
    Ok(())
}
