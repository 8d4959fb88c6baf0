//! A sharing domain: the guests of one tenant, the frames they share, and the host's part of the merge
//! protocol.
//!
//! [`Domain::handle`] is the protocol: one message of one VMM in, any number of messages to any VMMs out. It
//! never blocks on a VMM and needs no clock; [`Domain::sweep`] is told the time, and starts the release of
//! frames that nobody has held for a while.
//!
//! Here are the lock, and the checks that do not need it; what messages do is in `protocol`. Pages are hashed
//! before the lock is taken. The longest step under it is writing one batch of pages to the store.

pub mod entry;
pub mod figures;
pub mod frames;
pub mod index;
pub mod protocol;
pub mod refused;
pub mod retire;
pub mod segment;
pub mod session;
pub mod store;
pub mod vmm_id;
pub mod waiters;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use control::merge::{BATCH_MAX, MergeAnswer, MergeRequest, PAGES_MAX, Pages};
use control::sync::lock;
use wire::{Gfn, PageBytes};

use crate::domain::entry::PAGE_NUMBERS;
use crate::domain::frames::FrameTable;
use crate::domain::protocol::Protocol;
use crate::domain::store::{Store, reopen_read_only};
use crate::published::Published;
use crate::{Error, Figures, ProtocolError, VmmId, content_hash};

/// What a VMM process gets: both read-only.
#[derive(Debug)]
pub struct Descriptors {
    /// The frames.
    pub store: OwnedFd,
    /// The published bitmap, one bit a frame.
    pub published: OwnedFd,
}

/// One sharing domain.
#[derive(Debug)]
pub struct Domain {
    secret: u64,
    store_frames: u32,
    /// Whether anything but zero pages is shared.
    shares: bool,
    protocol: Mutex<Protocol>,
}

impl Domain {
    /// A domain for guests of at most `home_frames` pages, with its secret. The store has twice as many
    /// frames.
    pub fn new(home_frames: u32, secret: u64) -> Result<Self, Error> {
        let home_frames = home_frames.clamp(1, PAGE_NUMBERS / 2);
        Self::with_frames(home_frames, secret, FrameTable::new(home_frames))
    }

    /// A domain that shares nothing, for guests of which only the zero pages are dropped. Its store is what
    /// their RAM is a mapping of, and stays empty: every merge request is a protocol error.
    pub fn zero_pages_only(home_frames: u32) -> Result<Self, Error> {
        Self::with_frames(home_frames.clamp(1, PAGE_NUMBERS / 2), 0, FrameTable::new(0))
    }

    fn with_frames(home_frames: u32, secret: u64, frames: FrameTable) -> Result<Self, Error> {
        let store_frames = frames.count().max(home_frames);
        let shares = frames.count() > 0;
        let (store, published) = (Store::new(store_frames)?, Published::new(store_frames)?);
        let protocol = Mutex::new(Protocol::new(home_frames, frames, store, published));
        Ok(Self { secret, store_frames, shares, protocol })
    }

    /// Frames of the store: what `GuestConfig::store_frames` says.
    pub fn store_frames(&self) -> u32 {
        self.store_frames
    }

    /// The secret that keys this domain's hashes: what `GuestConfig::hash_secret` says.
    pub fn hash_secret(&self) -> u64 {
        self.secret
    }

    /// Read-only descriptors for one VMM.
    pub fn descriptors(&self) -> Result<Descriptors, Error> {
        let protocol = self.protocol();
        let store = reopen_read_only(protocol.store.memfd())?;
        Ok(Descriptors { store, published: reopen_read_only(protocol.published.memfd())? })
    }

    /// Memory of all frames, as the kernel counts it.
    pub fn allocated_bytes(&self) -> Result<u64, Error> {
        self.protocol().store.allocated_bytes()
    }

    /// Publishing stops when frames in use reach this. Frames that exist stay.
    pub fn set_store_budget_bytes(&self, budget_bytes: u64) {
        self.protocol().set_budget_frames(budget_bytes / wire::PAGE_BYTES as u64);
    }

    /// A VMM whose guest has so many pages comes in. It must hold nothing yet.
    pub fn vmm_joined(&self, vmm: VmmId, pages: u32) -> Result<(), Error> {
        self.protocol().join(vmm, pages)
    }

    /// A VMM is gone: it holds nothing, owes nothing and is asked no more. To be called when its process has
    /// ended, not before: until then its guest may read frames that would now be reused.
    pub fn vmm_gone(&self, vmm: VmmId) -> Vec<(VmmId, MergeAnswer)> {
        let protocol = &mut *self.protocol();
        protocol.leave(vmm);
        protocol.take_outbox()
    }

    /// A VMM that came in is going to load contents, and says so with [`Domain::loaded`]. Some of them, each
    /// where it will be: they are published, so that it and others share them from the start. Told of the
    /// host alone; what a VMM shares, it compares.
    pub fn preload(&self, vmm: VmmId, contents: &[(Gfn, PageBytes)]) {
        if self.shares {
            let hashes: Vec<_> = contents.iter().map(|(_, page)| content_hash(self.secret, page)).collect();
            self.protocol().preload(vmm, contents, &hashes);
        }
    }

    /// A VMM has loaded what it was to load.
    pub fn loaded(&self, vmm: VmmId) {
        self.protocol().loaded(vmm);
    }

    /// One message of one VMM. After an error the VMM is to be killed, and reported with [`Domain::vmm_gone`]
    /// once it has ended.
    pub fn handle(&self, vmm: VmmId, request: MergeRequest) -> Result<Vec<(VmmId, MergeAnswer)>, ProtocolError> {
        let (entries, most) = match &request {
            MergeRequest::Hashes(hashes) => (hashes.len(), BATCH_MAX),
            MergeRequest::Pages(pages) => (pages.places.len(), PAGES_MAX),
            MergeRequest::Declined(places) => (places.len(), BATCH_MAX),
            MergeRequest::Adopted(frames) | MergeRequest::Dropped(frames) => (frames.len(), BATCH_MAX),
            MergeRequest::Retired(answers) => (answers.len(), BATCH_MAX),
        };
        if entries > most {
            return Err(ProtocolError::BatchTooLong(entries));
        }
        if !self.shares {
            return Err(ProtocolError::NothingShared);
        }
        let hashes = match &request {
            MergeRequest::Pages(pages) => self.hash(pages)?,
            _ => Vec::new(),
        };
        let protocol = &mut *self.protocol();
        match request {
            MergeRequest::Hashes(hashes) => protocol.hashes(vmm, &hashes),
            MergeRequest::Pages(pages) => protocol.pages(vmm, &pages, &hashes),
            MergeRequest::Declined(places) => protocol.declined(vmm, &places),
            MergeRequest::Adopted(frames) => protocol.adopted(vmm, &frames),
            MergeRequest::Dropped(frames) => protocol.dropped(vmm, &frames),
            MergeRequest::Retired(answers) => protocol.retired(vmm, &answers),
        }?;
        Ok(protocol.take_outbox())
    }

    /// Retires frames that nobody has held for a while. To be called every few hundred milliseconds, with a
    /// clock that never goes back.
    pub fn sweep(&self, now: Instant) -> Vec<(VmmId, MergeAnswer)> {
        let protocol = &mut *self.protocol();
        protocol.sweep(now);
        protocol.take_outbox()
    }

    /// VMMs that were asked whether they hold a frame, or for a page, and have owed the answer since
    /// `patience` before `now`: while they live, those frames cannot be released, or that content not be
    /// shared. To be called as often as [`Domain::sweep`].
    pub fn overdue(&self, now: Instant, patience: Duration) -> BTreeSet<VmmId> {
        self.protocol().overdue(now, patience)
    }

    /// How the domain is.
    pub fn figures(&self) -> Figures {
        self.protocol().figures()
    }

    /// The hashes of contents, one for each place.
    fn hash(&self, pages: &Pages) -> Result<Vec<u64>, ProtocolError> {
        let (contents, rest): (&[PageBytes], _) = pages.bytes.as_chunks();
        if !rest.is_empty() || contents.len() != pages.places.len() {
            return Err(ProtocolError::PagesLength { bytes: pages.bytes.len(), pages: pages.places.len() });
        }
        Ok(contents.iter().map(|page| content_hash(self.secret, page)).collect())
    }

    fn protocol(&self) -> MutexGuard<'_, Protocol> {
        // A panic under the lock is a bug; the guests' memory does not depend on what is under it, so go on.
        lock(&self.protocol)
    }
}
