//! The fuzz target's corpus, replayed: conversations that once found something, or that a fuzzer would not
//! come upon.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

#[path = "support/messages.rs"]
mod messages;

use std::fs;
use std::path::Path;

use messages::{Played, play};
use proptest::prelude::*;

fn corpus() -> Vec<(String, Played)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/merge_messages");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), play(&fs::read(&path).unwrap()))).collect()
}

#[test]
fn the_corpus_leaves_nothing_behind_and_reaches_every_stage_of_a_frame() {
    let played = corpus();
    let reaches = |stage: fn(&Played) -> bool| played.iter().any(|(_, played)| stage(played));
    assert!(played.len() >= 8, "{played:?}");
    assert!(reaches(|played| played.published > 1) && reaches(|played| played.retired > 0), "{played:?}");
    assert!(reaches(|played| played.dropped > 0) && reaches(|played| played.dropped == 0), "{played:?}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_leave_nothing_behind(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        play(&bytes);
    }

    #[test]
    fn a_corpus_with_some_bytes_changed_leaves_nothing_behind(
        which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/merge_messages");
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let mut bytes = fs::read(which.get(&files)).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        play(&bytes);
    }
}
