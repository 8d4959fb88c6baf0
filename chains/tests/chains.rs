//! A driver that breaks the rules of descriptor chains is told so, whatever the device.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use chains::driver::{DATA, Driver, INDIRECT, NEXT, QUEUE_SIZE, RAM_BYTES, WRITE, descriptor};
use chains::{Bounds, Chain, Error, Served, add_used_together, turn};
use virtio_queue::QueueT;

const BOUNDS: Bounds = Bounds { chains: 300, work: u64::MAX };

/// A request that is not refused.
fn fine(served: Served) -> (Served, Option<Error>) {
    (served, None)
}

/// Checks all chains that are available.
fn check(driver: &mut Driver) -> Vec<Result<Chain, Error>> {
    let mut checked = Vec::new();
    let memory = driver.memory.clone();
    let progress = turn(&mut driver.queue, &memory, BOUNDS, |chain, size| {
        checked.push(Chain::check(chain, &memory, size));
        fine(Served::default())
    });
    let progress = progress.unwrap();
    assert!(progress.used && !progress.more);
    assert_eq!(driver.take_used().len(), checked.len(), "every chain goes back");
    checked
}

fn check_one(buffers: &[(u64, u32, u16)]) -> Result<Chain, Error> {
    let mut driver = Driver::new();
    driver.offer(buffers);
    check(&mut driver).remove(0)
}

#[test]
fn an_honest_chain_is_sorted_by_direction() {
    let chain = check_one(&[(DATA, 16, 0), (DATA, 0, 0), (DATA + 100, 512, WRITE), (DATA + 700, 1, WRITE)]).unwrap();
    assert_eq!((chain.readable.bytes(), chain.writable.bytes()), (16, 513));
    assert_eq!(chain.writable.parts().map(|part| part.bytes).collect::<Vec<_>>(), [512, 1]);
}

#[test]
fn buffers_of_the_wrong_shape_are_errors() {
    assert!(matches!(check_one(&[(DATA, 1, WRITE), (DATA, 1, 0)]), Err(Error::Order { .. })));
    for (address, bytes) in [(RAM_BYTES, 1), (RAM_BYTES - 1, 2), (u64::MAX, 1), (u64::MAX - 2, 9), (0, u32::MAX)] {
        for flags in [0, WRITE] {
            assert!(matches!(check_one(&[(address, bytes, flags)]), Err(Error::Outside { .. })), "{address:#x}");
        }
    }
    assert!(check_one(&[(RAM_BYTES - 1, 1, 0)]).is_ok());
}

#[test]
fn chains_that_loop_or_lead_nowhere_are_errors() {
    let mut driver = Driver::new();
    driver.set_descriptor(0, DATA, 4, NEXT, 0);
    driver.set_descriptor(1, DATA, 4, NEXT, 0x7fff);
    driver.set_descriptor(2, u64::MAX, 16, INDIRECT, 0);
    driver.set_descriptor(3, DATA, 15, INDIRECT, 0);
    (0..4).for_each(|head| driver.make_available(head));
    let checked = check(&mut driver);
    assert_eq!(checked.len(), 4);
    assert!(checked.iter().all(|chain| matches!(chain, Err(Error::Broken { .. }))), "{checked:?}");
}

#[test]
fn an_indirect_chain_is_as_long_as_the_queue_and_no_longer() {
    for (entries, fits) in [(QUEUE_SIZE, true), (QUEUE_SIZE + 1, false), (4096, false)] {
        let mut driver = Driver::new();
        for nth in 0..entries {
            let next = if nth + 1 < entries { NEXT } else { 0 };
            driver.write(DATA + u64::from(nth) * 16, &descriptor(DATA, 4, next, nth + 1));
        }
        driver.offer(&[(DATA, u32::from(entries) * 16, INDIRECT)]);
        match check(&mut driver).remove(0) {
            Ok(chain) => assert!(fits && chain.readable.bytes() == 4 * u64::from(QUEUE_SIZE)),
            Err(error) => assert!(!fits && matches!(error, Error::Long { .. }), "{error}"),
        }
    }
}

#[test]
fn a_turn_ends_after_its_bounds_and_says_that_there_is_more() {
    let mut driver = Driver::new();
    (0..QUEUE_SIZE).for_each(|_| _ = driver.offer(&[(DATA, 1, 0)]));
    let memory = driver.memory.clone();
    let work = Served { written_bytes: 0, work: 10 };
    for (bounds, expected) in [(Bounds { chains: 7, work: 1000 }, 7), (Bounds { chains: 100, work: 31 }, 4)] {
        let progress = turn(&mut driver.queue, &memory, bounds, |_, _| fine(work)).unwrap();
        assert!(progress.more && progress.used);
        assert_eq!(driver.take_used().len(), expected);
    }
    assert!(!turn(&mut driver.queue, &memory, BOUNDS, |_, _| fine(work)).unwrap().more);
}

#[test]
fn a_ring_that_lies_about_itself_is_an_error_of_the_ring() {
    let mut driver = Driver::new();
    driver.set_available_index(QUEUE_SIZE + 1);
    let memory = driver.memory.clone();
    assert!(
        turn(&mut driver.queue, &memory, BOUNDS, |_, _| -> (Served, Option<Error>) { panic!("nothing to serve") })
            .is_err()
    );
    let mut driver = Driver::new();
    driver.make_available(QUEUE_SIZE);
    let memory = driver.memory.clone();
    assert!(
        turn(&mut driver.queue, &memory, BOUNDS, |_, _| fine(Served::default())).is_err(),
        "a head outside the table"
    );
}

#[test]
fn with_event_idx_the_driver_is_told_when_it_wants_to_be() {
    let mut driver = Driver::new();
    driver.queue.set_event_idx(true);
    let memory = driver.memory.clone();
    // used_event, behind the available ring (2.7.6): tell me of the second.
    driver.write(0x2000 + 4 + 2 * u64::from(QUEUE_SIZE), &1u16.to_le_bytes());
    let mut told = Vec::new();
    for _ in 0..3 {
        driver.offer(&[(DATA, 1, 0)]);
        told.push(turn(&mut driver.queue, &memory, BOUNDS, |_, _| fine(Served::default())).unwrap().used);
    }
    assert_eq!(told, [false, true, false]);
}

#[test]
fn chains_that_are_given_back_together_appear_at_once_and_across_the_rings_end() {
    let mut driver = Driver::new();
    let memory = driver.memory.clone();
    // As if all but two entries of the ring had been used.
    let start = QUEUE_SIZE - 2;
    driver.queue.set_next_used(start);
    driver.write(0x3002, &start.to_le_bytes());
    driver.skip_used(start);
    add_used_together(&mut driver.queue, &memory, &[(1, 10), (2, 20), (3, 30)]).unwrap();
    assert_eq!(driver.take_used(), [(1, 10), (2, 20), (3, 30)]);
    add_used_together(&mut driver.queue, &memory, &[]).unwrap();
    assert!(add_used_together(&mut driver.queue, &memory, &[(QUEUE_SIZE, 0), (1, 0)]).is_err());
    assert!(add_used_together(&mut driver.queue, &memory, &[(1, 0), (QUEUE_SIZE, 0)]).is_err());
    assert!(add_used_together(&mut driver.queue, &memory, &[(1, 0); QUEUE_SIZE as usize + 1]).is_err());
}
