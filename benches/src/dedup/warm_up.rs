//! Waiting until a side has shared what there is to share.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{dedup::sides::sharer::Sharer, kit::error::Error};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The longest it may take; the advisor needs it.
const LIMIT: Duration = Duration::from_secs(90);
/// It is over when nothing was gained for so long.
const BARREN: Duration = Duration::from_secs(30);
/// Part of the limit that is all there is to gain, but for a few pages that come passes later.
const ENOUGH: f64 = 0.995;

/// Waits until nearly `limit_pages` are saved, or no more is gained; says how many are.
pub fn until_saved(sharer: &dyn Sharer, limit_pages: u64) -> Result<u64, Error> {
    let begun = Instant::now();
    let (mut most, mut gained) = (0, begun);
    while begun.elapsed() < LIMIT && gained.elapsed() < BARREN && (most as f64) < limit_pages as f64 * ENOUGH {
        thread::sleep(LOOK);
        let saved = sharer.saved_pages()?;
        if saved > most {
            (most, gained) = (saved, Instant::now());
        }
    }
    Ok(most)
}
