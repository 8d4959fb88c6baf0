//! Who moves pages, and a few steps of each.

use super::{
    chance::{below, coin},
    content::Content,
    size::{FRAMES, PAGES},
    world::World,
};
use crate::mapping::Mapping;
use wire::{Frame, Gfn, PAGE_BYTES, Run};

/// What fills a page of [`Content::POISON`].
const POISON: u32 = u32::from_ne_bytes([Content::POISON.0; 4]);

/// Steps an actor takes in one execution: enough to come back to what the others did to its first.
const STEPS: u32 = 2;

/// One of those that race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Actor {
    /// A thread of the guest, writing.
    Write,
    /// A thread of the guest, reading.
    Fault,
    /// The scanner, sharing pages at home.
    Merge,
    /// The scanner, sharing pages with frames placed elsewhere.
    Alias,
    /// The scanner, dropping pages that are zero.
    DropZero,
    /// The evictor.
    Evict,
    /// The evictor, stretching the protection of its victims over a page that was away a moment ago.
    Stretch,
    /// The evictor, sampling what the guest uses.
    Sample,
    /// The evictor, moving pages from the pool to the swap file.
    WriteBack,
    /// The evictor, packing the pool.
    Pack,
    /// The prefetch thread.
    Prefetch,
    /// The kernel, which swaps pages out and in.
    Swap,
    /// A disk that fails and works again.
    Disk,
    /// The evictor, short of credits.
    CloseOpen,
    /// The accountant, and whoever only looks.
    Note,
    /// The balloon device.
    Inflate,
    /// The balloon device.
    Deflate,
    /// The balloon device.
    ReportFree,
    /// The balloon device, for a guest that poisons what it frees.
    ReportPoison,
    /// The balloon device: the beginning of a round of hinting, a hint, and sometimes the end.
    Hint,
    /// The host, which takes frames back and reuses them.
    Release,
}

impl Actor {
    /// Races for [`STEPS`] steps.
    pub fn run(self, world: &World) {
        (0..STEPS).for_each(|_| self.step(world));
    }

    fn step(self, world: &World) {
        let (pages, kernel) = (&world.pages, &world.pages.mapping);
        let (gfn, run) = (Gfn(below(PAGES)), any_run());
        match self {
            Actor::Write => kernel.access(gfn, Some(world.any_content(Frame(gfn.0 + below(2))))),
            Actor::Fault => kernel.access(gfn, None),
            Actor::Merge => world.share(run, Frame(run.first.0)),
            Actor::Alias => {
                let frame = if run.count == PAGES { 1 } else { below(FRAMES) };
                world.share(run, Frame(frame));
            }
            Actor::DropZero => _ = pages.drop_zero(run).expect("dropping"),
            Actor::Evict => world.evict(&run.gfns().collect::<Vec<_>>()),
            // Whatever the page has become since. Where a mapping is being replaced it fails, and victims are
            // protected one by one.
            Actor::Stretch => _ = kernel.protect(gfn.run()),
            Actor::Sample => {
                let probe = pages.probe(gfn, &mut [0; PAGE_BYTES]).expect("sampling");
                pages.touched_since(gfn, probe).expect("looking at a sample");
            }
            Actor::WriteBack => world.write_back(&run.gfns().collect::<Vec<_>>()),
            Actor::Pack => world.pack(&run.gfns().collect::<Vec<_>>()),
            Actor::Prefetch => world.prefetch(),
            Actor::Swap => kernel.swap(gfn),
            Actor::Disk => {
                world.set_disk_failing(true);
                world.evict(&[gfn]);
                world.set_disk_failing(false);
            }
            Actor::CloseOpen => _ = pages.close_open(i64::MAX).expect("closing"),
            Actor::Note => {
                pages.note_written().expect("noting");
                pages.note_returned().expect("looking");
                pages.reclaim_areas(PAGES).expect("bringing home");
                pages.sample_private(run, &mut |_, _| {});
                let mut page = *Content::ZERO.bytes();
                if pages.read_held(gfn, &mut page) {
                    _ = Content::of(&page);
                }
                pages.cool(gfn);
            }
            Actor::Inflate => kernel.giving_up(run, Content::ZERO, || pages.inflate(run).expect("inflating")),
            Actor::ReportFree => kernel.giving_up(run, Content::ZERO, || pages.report_free(run, 0).expect("reporting")),
            Actor::ReportPoison => {
                kernel.giving_up(run, Content::POISON, || pages.report_free(run, POISON).expect("reporting"));
            }
            Actor::Hint => {
                pages.watch(run).expect("watching");
                // The guest says that it does not need the pages; it may change its mind at any moment from
                // here on.
                kernel.hinting(run, || _ = pages.drop_hinted(run, 0).expect("dropping what was hinted"));
                if coin() {
                    pages.unwatch(run).expect("unwatching");
                    assert_eq!(pages.drop_hinted(run, 0).expect("dropping after the end"), 0);
                }
            }
            Actor::Deflate => pages.deflate(run),
            Actor::Release => world.release(Frame(below(FRAMES))),
        }
    }
}

fn any_run() -> Run {
    match below(3) {
        0 => Run { first: Gfn(0), count: PAGES },
        page => Gfn(page - 1).run(),
    }
}
