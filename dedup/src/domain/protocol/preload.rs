//! What guests are about to load, and which of it is published before they do: a kernel, its initial RAM
//! disk. Each guest adopts what it finds at home while it loads, and none has a copy of its own.
//!
//! ```text
//!   preload ──► frames at home, published, without a holder ──► loaded ──► those that nobody adopted retire
//!                          no frame of the domain ages meanwhile
//! ```

use wire::{Gfn, PageBytes};

use crate::VmmId;
use crate::domain::frames::FrameState;
use crate::domain::index::Found;
use crate::domain::protocol::Protocol;

impl Protocol {
    /// `vmm` is about to load contents, among them these, which have these hashes: they are published at
    /// home, as far as there is room.
    pub(crate) fn preload(&mut self, vmm: VmmId, contents: &[(Gfn, PageBytes)], hashes: &[u64]) {
        self.waiting.loading.insert(vmm);
        for (&(gfn, ref content), &hash) in contents.iter().zip(hashes) {
            let known = self.index.find(hash, |frame| self.frames.hash(frame) == hash);
            let is_free = self.frames.check(gfn.home()).is_ok() && self.frames.state(gfn.home()) == FrameState::Free;
            let within = u64::from(self.frames.in_use()) < self.budget_frames;
            if within
                && is_free
                && !matches!(known, Some(Found::Frame(_)))
                && let Some(frame) = self.frames.place(gfn, gfn, None, hash)
            {
                self.index.put_frame(hash, frame);
                // Nobody waits for it yet.
                self.publish(frame, std::slice::from_ref(content), vmm);
            }
        }
    }

    /// It has loaded what it was to load, or never will.
    pub(crate) fn loaded(&mut self, vmm: VmmId) {
        self.waiting.loading.remove(&vmm);
    }
}
