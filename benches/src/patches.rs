//! Patches, as Difference Engine (Gupta et al., OSDI 2008) has them: a page compressed against one it resembles.
//!
//! A sketch of a page is the eight smallest hashes of its 32-byte blocks (min-wise sampling, Broder 1997): pages that share content share most of
//! it. The reference of a page is the shared page with most of its sketch in common; zstd takes it as prefix.

use std::{collections::HashMap, time::Duration};

use pager::PageBytes;
use xxhash_rust::xxh3::xxh3_64;
use zstd::zstd_safe::{CCtx, CParameter, ResetDirective};

use crate::{clocks, error::Error};

const BLOCK_BYTES: usize = 32;
const SKETCH_HASHES: usize = 8;

/// What patches make of some pages.
#[derive(Debug, Default)]
pub struct Patches {
    /// Bytes of each page that has a reference, by its number; less than it takes without one.
    pub bytes: HashMap<usize, usize>,
    /// Pages that have a reference, worth it or not.
    pub candidates: usize,
    /// CPU time of sketching references and pages, and of compressing those that have a reference.
    pub cpu: Duration,
}

/// Patches of `pages` against `references`; `alone` is what each takes without.
pub fn measure(pages: &[&PageBytes], references: &[&PageBytes], alone: &[usize]) -> Result<Patches, Error> {
    let before = clocks::process()?;
    let mut index = HashMap::<u64, usize>::new();
    for (number, page) in references.iter().enumerate() {
        for hash in sketch(page) {
            index.entry(hash).or_insert(number);
        }
    }
    let mut patches = Patches::default();
    let mut context = CCtx::create();
    let mut buffer = [0; 8192];
    let failed = |code| Error::Guest(format!("zstd: {}", zstd::zstd_safe::get_error_name(code)));
    for (number, page) in pages.iter().enumerate() {
        let mut votes = HashMap::<usize, u32>::new();
        for reference in sketch(page).iter().filter_map(|hash| index.get(hash)) {
            *votes.entry(*reference).or_default() += 1;
        }
        let Some((&reference, _)) = votes.iter().max_by_key(|&(&number, &votes)| (votes, number)) else { continue };
        patches.candidates += 1;
        context.reset(ResetDirective::SessionAndParameters).map_err(failed)?;
        context.set_parameter(CParameter::CompressionLevel(1)).map_err(failed)?;
        context.set_parameter(CParameter::ContentSizeFlag(false)).map_err(failed)?;
        context.ref_prefix(references[reference].as_slice()).map_err(failed)?;
        let bytes = context.compress2(&mut buffer[..], page.as_slice()).map_err(failed)?;
        if bytes < alone[number] {
            patches.bytes.insert(number, bytes);
        }
    }
    patches.cpu = clocks::process()?.saturating_sub(before);
    Ok(patches)
}

fn sketch(page: &PageBytes) -> Vec<u64> {
    let blocks = page.chunks_exact(BLOCK_BYTES).filter(|block| block.iter().any(|&byte| byte != 0));
    let mut hashes: Vec<u64> = blocks.map(xxh3_64).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.truncate(SKETCH_HASHES);
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;
    use pager::PAGE_BYTES;

    #[test]
    fn a_page_that_differs_from_another_in_a_word_is_a_patch_of_a_few_bytes() {
        let mut state = 1u64;
        let reference: PageBytes = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let mut page = reference;
        page[2000..2008].fill(7);
        let found = measure(&[&page, &[3; PAGE_BYTES]], &[&reference], &[PAGE_BYTES, 20]).unwrap();
        assert_eq!(found.candidates, 1);
        assert!(found.bytes[&0] < 100, "{:?}", found.bytes);
    }
}
