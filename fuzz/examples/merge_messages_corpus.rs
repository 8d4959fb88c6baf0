//! Writes the first inputs of `merge_messages` into the folder given: whole conversations, which a fuzzer
//! would take years to guess.
//!
//!     cargo +nightly run --example merge-messages-corpus -- corpus/merge_messages

use std::path::Path;

use control::merge::{MergeRequest, Pages};
use control::{ToHost, encode};
use wire::{Frame, Gfn};

#[path = "../../dedup/tests/support/messages.rs"]
#[allow(dead_code, reason = "the corpus needs its constants only")]
mod messages;

fn hash(fill: u8) -> u64 {
    dedup::content_hash(messages::SECRET, &[fill; 4096])
}

/// VMM `vmm` sends a request.
fn says(vmm: u8, request: MergeRequest) -> Vec<u8> {
    let frame = encode(&ToHost::Merge(request)).expect("a small message");
    let body = &frame[4..];
    let mut step = vec![3 + vmm];
    step.extend_from_slice(&(body.len() as u16).to_le_bytes());
    step.extend_from_slice(body);
    step
}

/// Content `fill` is found at `gfn` of VMMs 0 and 1, and published in frame `gfn`.
fn published(gfn: u32, fill: u8) -> Vec<u8> {
    let pages = Pages { places: vec![(Gfn(gfn), Frame(gfn))], bytes: vec![fill; 4096] };
    [
        says(0, MergeRequest::Hashes(vec![(Gfn(gfn), hash(fill))])),
        says(1, MergeRequest::Hashes(vec![(Gfn(gfn), hash(fill))])),
        says(1, MergeRequest::Pages(pages)),
    ]
    .concat()
}

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).expect("give the folder of the corpus");
    let adopted = |vmm, frame| says(vmm, MergeRequest::Adopted(vec![Frame(frame)]));
    let dropped = |vmm, frame| says(vmm, MergeRequest::Dropped(vec![Frame(frame)]));
    let retired = |vmm, frame, held| says(vmm, MergeRequest::Retired(vec![(Frame(frame), held)]));
    let (late, dies) = (|seconds| vec![0, seconds], |vmm| vec![1, vmm]);
    let corpus: [(&str, Vec<Vec<u8>>); 8] = [
        ("published", vec![published(3, 1)]),
        (
            "retired",
            vec![published(3, 1), late(0), late(5), retired(0, 3, false), retired(1, 3, false), retired(2, 3, false)],
        ),
        (
            "held",
            vec![
                published(3, 1),
                adopted(0, 3),
                late(0),
                late(5),
                dropped(0, 3),
                late(0),
                late(5),
                retired(0, 3, true),
            ],
        ),
        (
            "declined",
            vec![
                says(0, MergeRequest::Hashes(vec![(Gfn(3), hash(1))])),
                says(1, MergeRequest::Hashes(vec![(Gfn(4), hash(1))])),
                says(1, MergeRequest::Declined(vec![(Gfn(4), Frame(3))])),
            ],
        ),
        ("death-in-a-round", vec![published(3, 1), late(0), late(5), retired(0, 3, false), dies(1), dies(2)]),
        ("no-room", vec![vec![2, 1], published(3, 1), published(4, 2), vec![2, 9], published(4, 2)]),
        ("lies", vec![published(3, 1), adopted(2, 9), adopted(2, 200), retired(2, 3, true), published(3, 2)]),
        (
            "waiters",
            vec![
                says(0, MergeRequest::Hashes((0..16).map(|gfn| (Gfn(gfn), hash(1))).collect())),
                says(2, MergeRequest::Hashes(vec![(Gfn(7), hash(1)), (Gfn(8), hash(2))])),
                dies(0),
                published(8, 2),
            ],
        ),
    ];
    for (name, steps) in corpus {
        std::fs::write(Path::new(&folder).join(name), steps.concat())?;
    }
    Ok(())
}
