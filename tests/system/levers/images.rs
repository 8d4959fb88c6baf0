//! Guests that start from memory images share what the images share, and still equal them at the end.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::support::{Run, Turn};

const PAGES: usize = 8192;
const PAGE_BYTES: usize = 4096;

/// Page content that depends on every bit of its name.
fn page(name: u64) -> [u8; PAGE_BYTES] {
    let mut state = name.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
}

/// A quarter is zero, a quarter the same at the same place in all images, a quarter the same but elsewhere
/// (in runs of 16), a quarter the image's own.
fn image(number: usize) -> Vec<u8> {
    let quarter = PAGES / 4;
    let shifted = |at: usize| (at / 16 * 7 + number * 3) % (quarter / 16) * 16 + at % 16;
    let bytes = (0..PAGES).flat_map(|gfn| match (gfn / quarter, gfn % quarter) {
        (0, _) => [0; PAGE_BYTES],
        (1, at) => page(1 << 32 | at as u64),
        (2, at) => page(2 << 32 | shifted(at) as u64),
        (_, at) => page((10 + number as u64) << 32 | at as u64),
    });
    bytes.collect()
}

/// Non-zero pages that need not exist because an equal one does.
fn duplicates(images: &[Vec<u8>]) -> usize {
    let mut seen = HashMap::new();
    let pages = images
        .iter()
        .flat_map(|image| image.chunks_exact(PAGE_BYTES))
        .filter(|page| page.iter().any(|&byte| byte != 0));
    let count = pages
        .map(|page| *seen.entry(page).and_modify(|count| *count += 1).or_insert(1usize))
        .filter(|&count| count > 1);
    count.count()
}

fn write_images(folder: &Path) -> (Vec<String>, usize) {
    let images: Vec<_> = (0..3).map(image).collect();
    let write = |(number, image): (usize, &Vec<u8>)| {
        let path = folder.join(format!("{number}.mem"));
        fs::write(&path, image).unwrap();
        format!("--image {}", path.display())
    };
    (images.iter().enumerate().map(write).collect(), duplicates(&images))
}

#[test]
fn nine_tenths_of_the_duplicates_are_merged_and_no_image_changes() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (images, duplicates) = write_images(folder.path());
    assert_eq!(duplicates, PAGES);
    let run = Run::start(&format!("{} --budget 128MiB --duration 10s", images.join(" "))).finish();
    run.assert_kept_its_promise();
    let shared = run.reclaimed_bytes("shared") / PAGE_BYTES as f64;
    assert!(shared >= 0.9 * duplicates as f64, "{shared} of {duplicates} duplicates are shared");
}
