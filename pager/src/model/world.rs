//! One guest, set up anew for each execution, and the threads that serve it.

use std::{
    io,
    sync::{Arc, Mutex as StdMutex},
};

use shuttle::sync::{Condvar, Mutex};

use super::{
    chance::{below, coin},
    content::Content,
    kernel::Kernel,
    size::{FRAMES, PAGES},
};
use wire::{Frame, Gfn, PAGE_BYTES, Run};

use crate::{
    accounts::{
        counters::Counters,
        credit::{Credits, EVICTOR_RESERVE},
        references::References,
    },
    pages::{Noise, Pages, Served, Staging, SwapIn, table::PageTable},
    rules::{
        reach::{AHEAD_MAX, Reach},
        working_set::WorkingSet,
    },
    sync::{lock, pause},
    sys::PageBuffer,
    tiers::{
        image::{Image, ImageFile},
        kernel::KernelTier,
        library::Library,
        pool::{Pool, SLAB_PAGES, tests::HeapArena},
        swap::{
            Swap,
            fake::{Faults, FaultyFile},
        },
    },
};

/// All of RAM.
pub(super) const RAM: Run = Run { first: Gfn(0), count: PAGES };

/// Faults that found no credit.
#[derive(Default)]
struct WaitingRoom {
    faults: Vec<(Gfn, bool)>,
    closed: bool,
}

/// Pages to be read from the swap file.
#[derive(Default)]
struct Reads {
    pages: Vec<SwapIn>,
    closed: bool,
}

/// A guest and its threads' common state.
pub(super) struct World {
    pub pages: Pages<Kernel>,
    pub credits: i64,
    contents: u8,
    room: Mutex<WaitingRoom>,
    starving: Condvar,
    reads: Mutex<Reads>,
    posted: Condvar,
    /// What is below the swap file, where there is one.
    pub disk: Option<FaultyFile>,
    image: Arc<StdMutex<Vec<Content>>>,
}

/// The image: what each page was loaded with.
struct Started(Arc<StdMutex<Vec<Content>>>);

impl ImageFile for Started {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let page = offset as usize / PAGE_BYTES;
        into[..PAGE_BYTES].copy_from_slice(self.0.lock().expect("nobody panicked")[page].bytes());
        Ok(PAGE_BYTES)
    }

    fn name(&self) -> String {
        "image".into()
    }
}

impl World {
    /// A guest with room for everything, for one page beside a pool, or for one page and no pool, with a swap
    /// file or without, started from an image or not; the contents are chosen so that its evictor can always
    /// win a page.
    pub fn new() -> World {
        let disk = coin().then(|| FaultyFile::new(PAGES as usize));
        let (credits, contents) = match (below(3), &disk) {
            (0, _) => (100, Content::COUNT),
            (1, None) => (1 + SLAB_PAGES, Content::COMPRESSIBLE),
            (1, Some(_)) => (1 + SLAB_PAGES, Content::COUNT),
            _ => (1, Content::FILLED),
        };
        // With a swap file, the pool may find no memory at all.
        let arena = if disk.is_some() && coin() { HeapArena::short_of_memory(4, 0) } else { HeapArena::new(4) };
        World::with(credits, contents, disk, arena, coin())
    }

    pub fn with(credits: i64, contents: u8, disk: Option<FaultyFile>, arena: HeapArena, from_image: bool) -> World {
        let image = Arc::new(StdMutex::new(vec![Content::ZERO; PAGES as usize]));
        let kernel_tier = coin();
        let kernel = KernelTier::new(kernel_tier);
        if kernel_tier {
            kernel.set_price(1);
        }
        let pages = Pages {
            table: PageTable::new(PAGES),
            credits: Credits::new((credits + EVICTOR_RESERVE) as u64 * PAGE_BYTES as u64, 0),
            references: References::new(FRAMES),
            pool: crate::sync::Mutex::new(Pool::new(Box::new(arena)).expect("memory")),
            swap: disk.clone().map(|disk| Swap::new(Box::new(disk))),
            image: from_image.then(|| Image::new(Box::new(Started(image.clone())), PAGES, 1)),
            reach: Reach::of_fresh_memory(),
            ahead: crate::rules::reach::Reach::of_returns(),
            mapping: Kernel::new(credits as usize, kernel_tier),
            kernel,
            counters: Counters::default(),
            // Now and then, no alias is allowed.
            vma_budget: 100 * below(8).min(1),
            // Half of the guests share openly.
            open_credits: 1000 * i64::from(below(2)),
        };
        World {
            pages,
            credits,
            contents,
            room: Mutex::default(),
            starving: Condvar::new(),
            reads: Mutex::default(),
            posted: Condvar::new(),
            disk,
            image,
        }
    }

    /// Brings each frame and page into one of the states it can be in.
    pub fn set_up(&self) {
        let (pages, kernel) = (&self.pages, &self.pages.mapping);
        for frame in (0..FRAMES).map(Frame).filter(|_| below(4) > 0) {
            kernel.publish(frame, Content(1 + below(u32::from(self.contents) - 1) as u8));
        }
        let mut buffer = PageBuffer::new(AHEAD_MAX).expect("memory");
        // From the last on, because a first touch opens untouched pages after it, and only untouched pages
        // are loaded.
        for gfn in (0..PAGES).rev().map(Gfn) {
            let frame = Frame(gfn.0 + below(2));
            let content = kernel.stored(frame).filter(|_| coin()).unwrap_or_else(|| self.any_content(frame));
            let way = below(10);
            self.image.lock().expect("nobody panicked")[gfn.index()] = content;
            if (2..10).contains(&way) && pages.populate(gfn, content.bytes()).expect("loading") {
                kernel.loaded(gfn, content);
            }
            match way {
                0 => _ = pages.fault(gfn, coin(), &mut buffer).expect("a first touch"),
                2 => self.evict(&[gfn]),
                8 => {
                    self.evict(&[gfn]);
                    self.pack(&[gfn]);
                }
                7 => {
                    self.evict(&[gfn]);
                    self.write_back(&[gfn]);
                }
                3 => _ = pages.drop_zero(gfn.run()).expect("dropping"),
                4 => kernel.giving_up(gfn.run(), Content::ZERO, || pages.inflate(gfn.run()).expect("inflating")),
                5 | 6 => self.share(gfn.run(), frame),
                _ => {}
            }
        }
    }

    /// A content this guest can hold; half the time that of `frame`.
    pub fn any_content(&self, frame: Frame) -> Content {
        let any = Content(below(u32::from(self.contents)) as u8);
        self.pages.mapping.stored(frame).filter(|_| coin()).unwrap_or(any)
    }

    /// Shares the pages with `frame` and those behind it.
    pub fn share(&self, run: Run, frame: Frame) {
        let pairs: Vec<_> = run.gfns().zip((frame.0..).map(Frame)).collect();
        self.pages.share(&pairs, &mut |_, _| {}).expect("sharing");
    }

    /// The host's half of the handshake drawn in [`crate::accounts::references`]; a frame it got back it may
    /// fill again.
    pub fn release(&self, frame: Frame) {
        let kernel = &self.pages.mapping;
        if kernel.stored(frame).is_none() {
            return kernel.publish(frame, self.any_content(frame));
        }
        kernel.set_published(frame, false);
        if self.pages.references().answer(frame) {
            return kernel.set_published(frame, true);
        }
        kernel.punch(frame);
        if coin() {
            kernel.publish(frame, self.any_content(frame));
        }
    }

    pub fn evict(&self, gfns: &[Gfn]) {
        self.pages.evict(gfns, Noise::Written, &mut Staging::new(PAGES as usize).expect("memory")).expect("evicting");
    }

    /// What is measured of the kernel's swap.
    pub fn note_relief(&self) {
        let swapped = self.pages.mapping.swapped();
        if self.pages.kernel.exists() {
            self.pages.credits.set_relief(self.pages.kernel.relief(swapped));
        }
    }

    pub fn write_back(&self, gfns: &[Gfn]) {
        self.pages.write_back(gfns, &mut Staging::new(PAGES as usize).expect("memory")).expect("writing back");
    }

    pub fn pack(&self, gfns: &[Gfn]) {
        self.pages.pack_lent(gfns, &mut Staging::new(PAGES as usize).expect("memory")).expect("packing");
        let mut library = Library::new(PAGES * 8);
        self.pages.read_frames(Frame(0), &mut library);
        self.pages.undo_lonely(&mut Staging::new(1).expect("memory")).expect("undoing patches");
        self.pages.rejoin(gfns).expect("sharing");
        self.pages.recompress(gfns, &mut Staging::new(PAGES as usize).expect("memory"), &mut library).expect("packing");
        self.pages.compact();
    }

    /// Everything comes back that there are credits for.
    pub fn prefetch(&self) {
        let (all, mut buffer, mut at) =
            (WorkingSet::new(0, u64::MAX), PageBuffer::new(PAGES as usize).expect("memory"), Some(Gfn(0)));
        while let Some(from) = at {
            at = self.pages.prefetch(all, from, PAGES, &mut buffer).expect("prefetching");
        }
    }

    /// The disk begins to fail, or ceases to.
    pub fn set_disk_failing(&self, failing: bool) {
        let write_error = failing.then_some(libc::EIO);
        self.disk.iter().for_each(|disk| disk.set(Faults { write_error, ..Faults::default() }));
        // Longer than any suspension.
        self.pages.counters.advance(100_000);
    }

    /// The fault thread of [`crate::memory`].
    pub fn serve_faults(&self) {
        let mut buffer = PageBuffer::new(AHEAD_MAX).expect("memory");
        while let Some((gfn, write)) = self.pages.mapping.next_fault() {
            match self.pages.fault(gfn, write, &mut buffer).expect("serving a fault") {
                Served::NoCredit => {
                    lock(&self.room).faults.push((gfn, write));
                    self.starving.notify_one();
                }
                Served::Read(page) => self.post(page),
                Served::Done | Served::Moving => {}
            }
        }
        lock(&self.room).closed = true;
        self.starving.notify_one();
    }

    fn post(&self, page: SwapIn) {
        lock(&self.reads).pages.push(page);
        self.posted.notify_one();
    }

    /// Nothing more is read.
    pub fn close_reads(&self) {
        lock(&self.reads).closed = true;
        self.posted.notify_one();
    }

    /// A swap thread of [`crate::memory`].
    pub fn read_swap(&self) {
        let mut buffer = PageBuffer::new(AHEAD_MAX).expect("memory");
        let mut reads = lock(&self.reads);
        loop {
            let Some(page) = reads.pages.pop() else {
                if reads.closed {
                    return;
                }
                reads = self.posted.wait(reads).expect("no thread panicked");
                continue;
            };
            drop(reads);
            // Now and then nobody has room for it, and the fault is served again.
            if below(8) == 0 {
                self.pages.put_back(page);
            } else {
                self.pages.swap_in(page, &mut buffer).expect("swapping in");
            }
            reads = lock(&self.reads);
        }
    }

    /// The evictor thread of [`crate::memory`], as far as faults wait for it.
    pub fn make_room(&self) {
        let mut buffer = PageBuffer::new(AHEAD_MAX).expect("memory");
        let mut room = lock(&self.room);
        loop {
            let Some(&(gfn, write)) = room.faults.first() else {
                if room.closed {
                    return;
                }
                room = self.starving.wait(room).expect("no thread panicked");
                continue;
            };
            drop(room);
            self.pages.close_open(i64::MAX).expect("closing");
            let all: Vec<_> = RAM.gfns().collect();
            self.pages.note_returned().expect("looking");
            self.evict(&all);
            if coin() {
                self.pages.pack_lent(&all, &mut Staging::new(PAGES as usize).expect("memory")).expect("packing");
            }
            self.note_relief();
            self.write_back(&all);
            let served = match self.pages.fault(gfn, write, &mut buffer).expect("serving a fault") {
                Served::NoCredit => false,
                Served::Done | Served::Moving => true,
                Served::Read(page) => {
                    self.post(page);
                    true
                }
            };
            if !served {
                pause();
            }
            room = lock(&self.room);
            if served {
                room.faults.remove(0);
            }
        }
    }
}
