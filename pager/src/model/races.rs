//! What is run over and over, and what must hold in the end.

use std::sync::Arc;

use shuttle::thread;
use wire::{Frame, Gfn};

use super::{
    actors::Actor,
    content::Content,
    size::PAGES,
    world::{RAM, World},
};
use crate::{pages::Served, sys::PageBuffer, tiers::pool::tests::HeapArena};

/// Runs `actors` against each other, with a guest thread that reads and writes and the threads that serve
/// faults.
pub(super) fn run(actors: &[Actor]) {
    let world = Arc::new(World::new());
    world.set_up();
    let spawn = |body: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || body(&world))
    };
    let servants = [spawn(World::serve_faults), spawn(World::make_room)];
    let reader = spawn(World::read_swap);
    let mut racing = vec![spawn(use_memory)];
    for &actor in actors {
        let world = world.clone();
        racing.push(thread::spawn(move || actor.run(&world)));
    }
    racing.into_iter().for_each(|thread| thread.join().expect("an actor failed"));
    RAM.gfns().for_each(|gfn| world.pages.mapping.access(gfn, None));
    world.pages.mapping.close();
    servants.into_iter().for_each(|thread| thread.join().expect("a servant failed"));
    world.close_reads();
    reader.join().expect("the swap thread failed");
    world.check();
    world.pages.report_free(RAM, 0).expect("giving everything up");
    world.check();
    assert_eq!(world.pages.table.counts().zero, u64::from(PAGES));
}

/// A page becomes a patch of a frame that the host takes back at the same time, and comes back to the
/// guest.
pub(super) fn patch_or_release() {
    pack_or_release(Frame(2), Content(Content::COMPRESSIBLE));
}

/// The same with the frame at the page's own address, which is equal to it: the page is to share it.
pub(super) fn rejoin_or_release() {
    pack_or_release(Frame(0), Content(Content::COMPRESSIBLE + 1));
}

fn pack_or_release(frame: Frame, published: Content) {
    let page = Gfn(0);
    let world = Arc::new(World::with(100, Content::COUNT, None, HeapArena::new(4), false));
    let kernel = &world.pages.mapping;
    kernel.publish(frame, published);
    assert!(world.pages.populate(page, Content(Content::COMPRESSIBLE + 1).bytes()).expect("loading"));
    kernel.loaded(page, Content(Content::COMPRESSIBLE + 1));
    world.evict(&[page]);
    let host = thread::spawn({
        let world = world.clone();
        move || world.release(frame)
    });
    world.pack(&[page]);
    let promoted = world.pages.fault(page, false, &mut PageBuffer::new(1).expect("memory")).expect("bringing back");
    assert_eq!(promoted, Served::Done);
    host.join().expect("the host failed");
    kernel.access(page, None);
    world.check();
}

fn use_memory(world: &World) {
    for _ in 0..2 {
        Actor::Write.run(world);
        Actor::Fault.run(world);
    }
}
