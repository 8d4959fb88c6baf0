//! Guests that start from images larger than their memory: what is still as it was loaded is kept nowhere,
//! and nothing wrong is ever read for it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::{MIB, Run, Turn};

/// 64 MiB.
const PAGES: u64 = 16_384;
const PAGE_BYTES: usize = 4096;

/// An image in which no page has an equal, none is zero, and none compresses.
fn write_image(folder: &Path, number: u64) -> PathBuf {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..PAGES * PAGE_BYTES as u64 / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let path = folder.join(format!("{number}.mem"));
    fs::write(&path, words.collect::<Vec<_>>()).unwrap();
    path
}

fn start(images: &[PathBuf], seconds: u32) -> Run {
    let images: String = images.iter().map(|image| format!("--image {} ", image.display())).collect();
    Run::start(&format!("{images} --budget 96MiB --duration {seconds}s"))
}

const CLEAN: &str = "ballast_guest_memory_bytes";

fn has_clean_pages(run: &Run, guest: &str) -> bool {
    run.metric_where(CLEAN, |labels| labels.contains("clean") && labels.contains(&format!("\"{guest}\""))) > 0.0
}

#[test]
fn images_that_do_not_fit_are_read_all_the_time_and_found_unchanged() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let images = [write_image(folder.path(), 1), write_image(folder.path(), 2)];
    let run = start(&images, 6).finish();
    run.assert_kept_its_promise();
    // Neither pool nor swap file nor sharing could have taken any of it.
    let clean = run.reclaimed_bytes("clean");
    assert!(clean > 16.0 * MIB, "{clean} bytes are clean: {}", run.summary);
    assert!(run.summary.contains("the images have them"), "{}", run.summary);
}

/// Something happens to the image of guest1 while the guests run; that guest ends with these words, and the
/// other is well.
fn guest1_ends(happens: impl FnOnce(&File), words: &str) {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let images = [write_image(folder.path(), 1), write_image(folder.path(), 2)];
    let run = start(&images, 8);
    run.wait_for(2, "running");
    run.wait_until("guests with clean pages", || ["guest0", "guest1"].iter().all(|guest| has_clean_pages(&run, guest)));
    happens(&File::options().write(true).open(&images[1]).unwrap());
    let run = run.finish();
    assert_eq!(run.status.code(), Some(1));
    run.assert_lost_nothing();
    let first = run.summary.lines().next().unwrap();
    assert!(first.starts_with("FAILED: guest1 failed: page 0x"), "{first}");
    let path = images[1].display().to_string();
    assert!(["address 0x", "its image", &path, words].iter().all(|word| first.contains(word)), "{first}");
    assert_eq!(run.guests()[0]["exit"], "ok");
}

#[test]
fn an_image_that_is_cut_short_ends_its_guest_with_address_and_file() {
    guest1_ends(|file| file.set_len(0).unwrap(), "cut short while the guest ran");
}

#[test]
fn an_image_that_is_changed_ends_its_guest_with_address_and_file() {
    let change = |file: &File| {
        (0..PAGES).for_each(|page| file.write_all_at(b"x", page * PAGE_BYTES as u64 + 100).unwrap());
    };
    guest1_ends(change, "changed while the guest ran");
}
