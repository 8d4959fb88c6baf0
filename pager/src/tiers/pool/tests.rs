//! What the pool promises, and an arena to try it on.

use super::*;
use crate::tiers::squeeze::Squeeze;
use proptest::prelude::*;
use std::collections::HashMap;

/// An arena on the heap, whose bytes beyond `committed_max` the kernel has no memory for.
pub(crate) struct HeapArena {
    bytes: Vec<u8>,
    committed_max: usize,
}

impl HeapArena {
    pub fn new(slabs: usize) -> HeapArena {
        HeapArena { bytes: vec![0; slabs * SLAB_BYTES], committed_max: usize::MAX }
    }

    pub fn short_of_memory(slabs: usize, backed_slabs: usize) -> HeapArena {
        HeapArena { committed_max: backed_slabs * SLAB_BYTES, ..HeapArena::new(slabs) }
    }
}

impl Arena for HeapArena {
    fn bytes(&self) -> usize {
        self.bytes.len()
    }
    fn commit(&mut self, start: usize, length: usize) -> io::Result<()> {
        if start + length > self.committed_max { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }
    fn slice(&self, start: usize, length: usize) -> &[u8] {
        &self.bytes[start..start + length]
    }
    fn slice_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
        &mut self.bytes[start..start + length]
    }
    fn release(&mut self, start: usize, length: usize) {
        self.bytes[start..start + length].fill(0xdd);
    }
}

pub(crate) fn pool(arena: HeapArena) -> Pool {
    Pool::new(Box::new(arena)).unwrap()
}

/// A page whose first `noise` bytes do not compress.
fn page(noise: usize, seed: u8) -> PageBytes {
    let mut state = u64::from(seed) + 1;
    std::array::from_fn(|i| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if i < noise { (state >> 56) as u8 } else { seed }
    })
}

/// The frames of these tests: the pages of their numbers' seeds, all noise.
fn read_frame(frame: Frame, into: &mut PageBytes) {
    *into = page(PAGE_BYTES, frame.0 as u8);
}

fn compress(page: &PageBytes, seed: u8) -> (Codec, Vec<u8>) {
    match seed % 3 {
        0 => {
            let mut bytes = vec![0; 2 * PAGE_BYTES];
            let length = lz4_flex::block::compress_into(page, &mut bytes).unwrap();
            bytes.truncate(length);
            (Codec::Lz4, bytes)
        }
        1 => (Codec::Zstd, zstd::bulk::compress(page, 1).unwrap()),
        _ => {
            let mut reference = [0; PAGE_BYTES];
            read_frame(Frame(u32::from(seed)), &mut reference);
            let against = Squeeze::new().unwrap().against(page, &reference).map(<[u8]>::to_vec);
            // Nothing a patch of noise cannot do: it has the noise of the page.
            (Codec::Patch(Frame(u32::from(seed))), against.unwrap())
        }
    }
}

proptest! {
    #[test]
    fn every_slot_keeps_its_page_until_it_is_freed_and_compaction_bounds_what_is_wasted(
        steps in proptest::collection::vec((any::<u8>(), 0usize..=PAGE_BYTES), 1..400),
    ) {
        let mut pool = pool(HeapArena::new(64));
        let mut kept: HashMap<u64, PageBytes> = HashMap::new();
        let mut stored = 0;
        for (seed, noise) in steps {
            if seed < 100 && let Some(&slot) = kept.keys().next() {
                pool.free(slot);
                kept.remove(&slot);
                continue;
            }
            let page = page(noise, seed);
            let (codec, bytes) = compress(&page, seed);
            if bytes.len() > COMPRESSED_BYTES_MAX {
                continue;
            }
            match pool.store(Gfn(stored), codec, &bytes) {
                Ok(slot) => prop_assert!(kept.insert(slot, page).is_none()),
                Err(Full) => prop_assert!(pool.bytes() as usize == 64 * SLAB_BYTES),
            }
            stored += 1;
        }
        while let Some((slab, owners)) = pool.sparse_slab() {
            let before = pool.bytes();
            let slots: Vec<u64> = kept.keys().copied().filter(|slot| slot >> 8 == u64::from(slab)).collect();
            prop_assert_eq!(slots.len(), owners.len());
            for slot in slots {
                let (new, _) = pool.relocate(slot, slab).unwrap();
                let page = kept.remove(&slot).unwrap();
                prop_assert!(kept.insert(new, page).is_none());
            }
            prop_assert_eq!(pool.bytes() as usize, before as usize - SLAB_BYTES);
        }
        for (class, pieces) in PIECES.into_iter().enumerate() {
            prop_assert!(pool.of_class[class] * pieces < pool.used[class] + pieces);
        }
        let mut found = [0; PAGE_BYTES];
        for (&slot, page) in &kept {
            prop_assert!(pool.decompress(slot, &mut found, read_frame));
            prop_assert!(found == *page);
        }
        let patches: Vec<u64> = kept.keys().copied().filter(|&slot| pool.frame(slot).is_some()).collect();
        let bytes = patches.iter().map(|&slot| pool.length(slot) as u64).sum();
        prop_assert_eq!(pool.patches(), Patches { pages: patches.len() as u64, bytes });
        for slot in kept.into_keys() {
            pool.free(slot);
        }
        prop_assert_eq!((pool.bytes(), pool.patches()), (0, Patches::default()));
    }

    #[test]
    fn any_page_comes_back_from_a_patch_of_any_frame(
        bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES),
        copied in (0..PAGE_BYTES, 0..=PAGE_BYTES),
        dictionary in any::<bool>(),
    ) {
        let mut reference: PageBytes = bytes.try_into().unwrap();
        if dictionary {
            // Zstandard takes bytes that begin so for a dictionary of its own making, and refuses them.
            reference[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
        }
        let mut page = page(PAGE_BYTES, 9);
        let (start, end) = (copied.0.min(copied.1), copied.0.max(copied.1));
        page[start..end].copy_from_slice(&reference[start..end]);
        let mut squeeze = Squeeze::new().unwrap();
        let mut pool = pool(HeapArena::new(1));
        let Some(patch) = squeeze.against(&page, &reference).filter(|patch| pool.gives(patch, &reference, &page)) else {
            prop_assert!(dictionary || end - start < 1500, "{start} to {end}");
            return Ok(());
        };
        let slot = pool.store(Gfn(1), Codec::Patch(Frame(3)), patch).unwrap();
        prop_assert_eq!(pool.frame(slot), Some(Frame(3)));
        let mut found = [0; PAGE_BYTES];
        prop_assert!(pool.decompress(slot, &mut found, |_, into| *into = reference));
        prop_assert!(found == page);
    }
}

fn bytes(pool: &Pool, slot: u64) -> &[u8] {
    pool.arena.slice(pool.start(slot) + HEADER_BYTES, pool.length(slot))
}

#[test]
fn a_damaged_page_is_found_out() {
    let mut pool = pool(HeapArena::new(1));
    let page = page(1000, 3);
    for seed in [0, 1, 2] {
        let (codec, bytes) = compress(&page, seed);
        let slot = pool.store(Gfn(1), codec, &bytes[..bytes.len() / 2]).unwrap();
        assert!(!pool.decompress(slot, &mut [0; PAGE_BYTES], read_frame));
    }
}

#[test]
fn a_full_arena_refuses_and_loses_nothing() {
    let mut pool = pool(HeapArena::new(1));
    let slots: Vec<_> = (0..5u8).map(|i| pool.store(Gfn(0), Codec::Lz4, &[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
    assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; COMPRESSED_BYTES_MAX]), Err(Full));
    assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]), Err(Full));
    assert!((0..5u8).all(|i| bytes(&pool, slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
}

#[test]
fn without_memory_for_another_slab_the_pool_refuses_keeps_what_it_has_and_goes_on_when_slots_are_freed() {
    let mut pool = pool(HeapArena::short_of_memory(64, 1));
    let slots: Vec<_> = (0..5u8).map(|i| pool.store(Gfn(0), Codec::Lz4, &[i; COMPRESSED_BYTES_MAX]).unwrap()).collect();
    assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; COMPRESSED_BYTES_MAX]), Err(Full));
    assert_eq!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]), Err(Full));
    assert_eq!(pool.bytes() as usize, SLAB_BYTES, "a refused slab costs nothing");
    assert!((0..5u8).all(|i| bytes(&pool, slots[usize::from(i)]) == [i; COMPRESSED_BYTES_MAX]));
    slots.into_iter().for_each(|slot| _ = pool.free(slot));
    assert!(pool.store(Gfn(0), Codec::Lz4, &[9; 10]).is_ok());
}
