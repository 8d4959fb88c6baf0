//! What several VMMs say to one domain, made from bytes: for the fuzz target `merge_messages`, and for
//! replaying its corpus.
//!
//! ```text
//!   byte      meaning                                          followed by
//!   0         time goes by                                     seconds (1 byte)
//!   1, vmm    this VMM dies, and another takes its place
//!   2         the store's budget                               frames (1 byte)
//!   3 to 5    VMM 0 to 2 sends a frame of the control socket   length (2 bytes, LE), that long: a `ToHost`
//!   other     nothing
//! ```

use std::time::{Duration, Instant};

use control::{MergeAnswer, ToHost};
use dedup::{Domain, VmmId};

/// Pages of each guest, and home frames of the store.
pub const HOME: u32 = 16;
/// Keys the domain's hashes.
pub const SECRET: u64 = 5;
pub const VMMS: u32 = 3;
const PAGE: u64 = 4096;

struct Script<'a> {
    bytes: &'a [u8],
}

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn message(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(u16::from_le_bytes([self.byte()?, self.byte()?])).min(self.bytes.len());
        let (message, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        Some(message)
    }
}

/// How far a script came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Messages the domain took.
    pub accepted: u32,
    /// VMMs that were dropped for one.
    pub dropped: u32,
    /// Frames published.
    pub published: u64,
    /// Frames released before the end.
    pub retired: u64,
}

/// Plays a script, and checks that the store's books agree with the kernel's all along, and that nothing is
/// left at the end.
pub fn play(bytes: &[u8]) -> Played {
    let domain = Domain::new(HOME, SECRET).expect("a store of a few frames");
    let mut ids: Vec<VmmId> = (0..VMMS).map(VmmId::first).collect();
    let (mut next_id, mut now) = (VMMS, Instant::now());
    let mut played = Played::default();
    ids.iter().for_each(|&vmm| domain.vmm_joined(vmm, HOME).expect("new"));
    let mut script = Script { bytes };
    let mut replace = |ids: &mut Vec<VmmId>, at: usize| {
        check_answers(&domain.vmm_gone(ids[at]), ids);
        ids[at] = VmmId::first(next_id);
        next_id += 1;
        domain.vmm_joined(ids[at], HOME).expect("new");
    };
    while let Some(step) = script.byte() {
        match step {
            0 => {
                now += Duration::from_secs(script.byte().unwrap_or(0).into());
                check_answers(&domain.sweep(now), &ids);
            }
            1 => replace(&mut ids, usize::from(script.byte().unwrap_or(0)) % VMMS as usize),
            2 => domain.set_store_budget_bytes(u64::from(script.byte().unwrap_or(0)) * PAGE),
            3..=5 => {
                let Some(message) = script.message() else { break };
                let at = usize::from(step - 3);
                // As in the host: what cannot be read, or breaks the protocol, ends its sender.
                let answers = match control::decode::<ToHost>(message) {
                    Ok(ToHost::Merge(request)) => domain.handle(ids[at], request).ok(),
                    Ok(_) => Some(Vec::new()),
                    Err(_) => None,
                };
                match answers {
                    Some(answers) => {
                        played.accepted += 1;
                        check_answers(&answers, &ids);
                    }
                    None => {
                        played.dropped += 1;
                        replace(&mut ids, at);
                    }
                }
            }
            _ => {}
        }
        let figures = domain.figures();
        assert!(figures.allocated_bytes <= figures.frames_in_use * PAGE, "memory without a frame: {figures:?}");
        assert!(figures.frames_held <= figures.frames_in_use && figures.holds <= figures.frames_held * u64::from(VMMS));
        (played.published, played.retired) = (figures.published_total, figures.retired_total);
    }
    ids.iter().for_each(|&vmm| drop(domain.vmm_gone(vmm)));
    for _ in 0..3 {
        now += Duration::from_secs(10);
        assert_eq!(domain.sweep(now), [], "nobody is left to be told anything");
    }
    let figures = domain.figures();
    assert_eq!((figures.frames_in_use, figures.allocated_bytes), (0, 0), "{figures:?}");
    assert_eq!((figures.frames_held, figures.holds), (0, 0), "{figures:?}");
    played
}

fn check_answers(answers: &[(VmmId, MergeAnswer)], ids: &[VmmId]) {
    assert!(answers.iter().all(|(to, _)| ids.contains(to)), "an answer to somebody who is gone");
    for (_, answer) in answers {
        let encoded = control::encode(&control::ToVmm::Merge(answer.clone()));
        assert!(encoded.is_ok(), "an answer that does not fit a frame");
    }
}
