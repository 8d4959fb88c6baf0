//! What the swap tier promises of each fault of its file.

use super::{
    fake::{Faults, FaultyFile},
    *,
};
use crate::sync::run_once;

const EIO: i32 = libc::EIO;
const SLOTS: usize = 600;

fn swap() -> (FaultyFile, Swap) {
    let file = FaultyFile::new(SLOTS);
    let swap = Swap::new(Box::new(file.clone()));
    (file, swap)
}

/// `count` pages from `first` on, each full of its own number.
fn pages(first: u32, count: u32) -> (Vec<Gfn>, PageBuffer) {
    let mut buffer = PageBuffer::new(count as usize).unwrap();
    for page in 0..count {
        buffer
            .page_mut(page as usize)
            .chunks_exact_mut(4)
            .for_each(|word| word.copy_from_slice(&(first + page).to_le_bytes()));
    }
    ((first..first + count).map(Gfn).collect(), buffer)
}

/// Writes pages; the slots they got, in order.
fn write(swap: &Swap, first: u32, count: u32, now_ms: u64) -> Vec<u64> {
    let (gfns, buffer) = pages(first, count);
    let mut slots = Vec::new();
    swap.write(&gfns, &buffer, now_ms, |index, slot| {
        assert_eq!(index, slots.len());
        slots.push(slot);
    });
    slots
}

fn reads_back(swap: &Swap, slots: &[u64], first: u32) {
    let mut buffer = PageBuffer::new(1).unwrap();
    for (&slot, page) in slots.iter().zip(first..) {
        swap.read(slot, Gfn(page), 1, &mut buffer).unwrap();
        assert_eq!(buffer.page(0), pages(page, 1).1.page(0), "page {page}");
    }
}

fn read_error(swap: &Swap, slot: u64, gfn: u32) -> ReadError {
    swap.read(slot, Gfn(gfn), 1, &mut PageBuffer::new(1).unwrap()).unwrap_err()
}

#[test]
fn what_was_written_is_read_back_and_pages_that_leave_together_lie_together() {
    run_once(|| {
        let (_, swap) = swap();
        let slots = write(&swap, 40, 32, 0);
        assert_eq!(slots, (slots[0]..slots[0] + 32).collect::<Vec<_>>());
        reads_back(&swap, &slots, 40);
        let status = swap.status(0);
        assert_eq!((status.pages_out_total, status.pages_in_total, status.used_bytes), (32, 32, 32 * 4096));
        assert_eq!((status.write_latency.buckets.iter().sum::<u64>(), status.read_errors_total), (1, 0));
    });
}

#[test]
fn short_and_interrupted_transfers_are_completed() {
    run_once(|| {
        for most in [PAGE_BYTES, PAGE_BYTES + 512, 3 * PAGE_BYTES + 1] {
            let (file, swap) = swap();
            file.set(Faults { most_bytes: Some(most), interrupted: true, ..Faults::default() });
            let slots = write(&swap, 7, 20, 0);
            assert_eq!(slots.len(), 20);
            reads_back(&swap, &slots, 7);
            assert_eq!(swap.status(0).write_errors_total, 0);
        }
    });
}

#[test]
fn a_write_that_fails_takes_no_slot_and_the_file_is_left_alone_for_longer_and_longer() {
    run_once(|| {
        let (file, swap) = swap();
        let kept = write(&swap, 0, 10, 0);
        for (errno, now_ms, next_ms) in [(libc::ENOSPC, 0, 1_000), (EIO, 1_000, 3_000), (EIO, 3_000, 7_000)] {
            assert!(swap.usable(now_ms));
            file.set(Faults { write_error: Some(errno), ..Faults::default() });
            assert_eq!(write(&swap, 50, 10, now_ms), []);
            assert!(!swap.usable(now_ms) && !swap.usable(next_ms - 1) && swap.usable(next_ms));
            assert!(swap.take_trouble().unwrap().contains("no page was lost"));
        }
        let status = swap.status(6_999);
        assert_eq!((status.write_errors_total, status.used_bytes, status.suspended), (3, 10 * 4096, true));
        file.set(Faults::default());
        let after = write(&swap, 50, 10, 7_000);
        reads_back(&swap, &after, 50);
        reads_back(&swap, &kept, 0);
        assert!(swap.usable(7_000) && swap.take_trouble().is_none());
    });
}

#[test]
fn a_write_that_makes_no_progress_is_an_error() {
    run_once(|| {
        let (file, swap) = swap();
        file.set(Faults { most_bytes: Some(512), ..Faults::default() });
        assert_eq!(write(&swap, 0, 4, 0), []);
        assert_eq!(swap.status(0).used_bytes, 0);
    });
}

#[test]
fn a_full_file_takes_what_fits_and_the_rest_is_not_lost() {
    run_once(|| {
        let (_, swap) = swap();
        let most: Vec<_> = (0..18).flat_map(|batch| write(&swap, batch * 32, 32, 0)).collect();
        assert_eq!(most.len(), 576);
        let last = write(&swap, 576, 32, 0);
        assert_eq!(last.len(), SLOTS - 576);
        assert!(!swap.usable(0));
        assert!(swap.take_trouble().is_none(), "being full is no trouble");
        reads_back(&swap, &most, 0);
        swap.free(most[5]);
        assert!(swap.usable(0));
        reads_back(&swap, &write(&swap, 900, 1, 0), 900);
    });
}

#[test]
fn a_read_that_fails_once_is_tried_again() {
    run_once(|| {
        let (file, swap) = swap();
        let slots = write(&swap, 0, 4, 0);
        file.set(Faults { read_error: Some(EIO), failing_reads: Some(1), ..Faults::default() });
        reads_back(&swap, &slots[..1], 0);
        file.set(Faults { flipped_byte: Some(99), failing_reads: Some(2), ..Faults::default() });
        reads_back(&swap, &slots[1..2], 1);
        assert_eq!(swap.status(0).read_errors_total, 3);
    });
}

#[test]
fn a_read_that_keeps_failing_says_why() {
    run_once(|| {
        let (file, swap) = swap();
        let slots = write(&swap, 0, 4, 0);
        file.set(Faults { read_error: Some(EIO), ..Faults::default() });
        assert!(matches!(read_error(&swap, slots[0], 0), ReadError::Io(error) if error.raw_os_error() == Some(EIO)));
        file.set(Faults { truncated_to: Some(3 * 4096 + 100), ..Faults::default() });
        reads_back(&swap, &slots[..3], 0);
        let error = read_error(&swap, slots[3], 3);
        assert!(error.to_string().contains("truncated"), "{error}");
    });
}

#[test]
fn a_flipped_bit_anywhere_in_a_slot_is_found() {
    run_once(|| {
        let (file, swap) = swap();
        let slots = write(&swap, 0, 4, 0);
        for byte in [0, 1, 2047, 4095] {
            file.damage(|content| content[slots[2] as usize * PAGE_BYTES + byte] ^= 0x10);
            assert!(matches!(read_error(&swap, slots[2], 2), ReadError::Checksum { .. }));
            file.damage(|content| content[slots[2] as usize * PAGE_BYTES + byte] ^= 0x10);
        }
        reads_back(&swap, &slots, 0);
    });
}

#[test]
fn pages_side_by_side_are_one_read_and_what_is_wrong_with_one_that_comes_along_is_not_the_first_ones_trouble() {
    run_once(|| {
        let (file, swap) = swap();
        let slots = write(&swap, 40, 8, 0);
        let mut buffer = PageBuffer::new(8).unwrap();
        let mut read = |file: &FaultyFile, faults| {
            file.set(faults);
            swap.read(slots[0], Gfn(40), 8, &mut buffer).unwrap()
        };
        assert_eq!(read(&file, Faults::default()), 8);
        // The file ends in the fifth page: only the first can be had, alone.
        let cut = (slots[0] + 4) * 4096 + 100;
        assert_eq!(read(&file, Faults { truncated_to: Some(cut), ..Faults::default() }), 1);
        file.damage(|bytes| bytes[slots[3] as usize * 4096 + 1] ^= 1);
        assert_eq!(read(&file, Faults::default()), 3);
        assert!(matches!(read_error(&swap, slots[3], 43), ReadError::Checksum { .. }));
        reads_back(&swap, &slots[4..], 44);
    });
}

#[test]
fn a_write_that_never_reached_the_disk_and_a_page_in_anothers_slot_are_found() {
    run_once(|| {
        let (file, swap) = swap();
        let slots = write(&swap, 0, 2, 0);
        // Equal pages: only their places differ.
        let (gfns, mut buffer) = pages(10, 2);
        (0..2).for_each(|page| buffer.page_mut(page).fill(3));
        let mut equal = Vec::new();
        swap.write(&gfns, &buffer, 0, |_, slot| equal.push(slot));
        assert!(matches!(read_error(&swap, equal[0], 11), ReadError::Checksum { .. }));
        assert!(matches!(read_error(&swap, slots[0], 1), ReadError::Checksum { .. }));
        slots.iter().for_each(|&slot| swap.free(slot));
        file.set(Faults { lost_writes: true, ..Faults::default() });
        let lost = write(&swap, 20, (SLOTS - 2) as u32, 0);
        assert!(matches!(read_error(&swap, lost[0], 20), ReadError::Checksum { .. }));
    });
}

#[test]
fn freed_clusters_are_discarded_in_one_piece_and_what_is_in_use_is_not_touched() {
    run_once(|| {
        let (file, swap) = swap();
        let slots: Vec<_> = (0..18).flat_map(|batch| write(&swap, batch * 32, 32, 0)).collect();
        swap.discard_freed();
        assert_eq!(file.discarded(), []);
        slots[..512].iter().for_each(|&slot| swap.free(slot));
        swap.discard_freed();
        swap.discard_freed();
        assert_eq!(file.discarded(), [(0, 2 << 20)]);
        assert_eq!(swap.status(0).discarded_bytes_total, 2 << 20);
        reads_back(&swap, &slots[512..], 512);
        reads_back(&swap, &write(&swap, 1000, 32, 0), 1000);
    });
}
