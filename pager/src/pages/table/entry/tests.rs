//! That no part of a word disturbs another.

use super::*;

fn lives(entry: Entry) -> Option<u8> {
    if let Page::Private { lives, .. } = entry.decode() { Some(lives) } else { None }
}

fn unseen(entry: Entry) -> bool {
    matches!(entry.decode(), Page::Private { unseen: true, .. })
}

fn incompressible(entry: Entry) -> bool {
    matches!(entry.decode(), Page::Private { incompressible: true, .. })
}

#[test]
fn payload_and_flags_do_not_touch_each_other() {
    let slot = PAYLOAD_MAX & !COMPRESSED_FILLED;
    let entry = Entry::pooled(slot, Left { era: 7, evictions: 4097 });
    assert_eq!((entry.state(), entry.decode()), (State::Compressed, Page::Pooled { slot, packed: false }));
    assert_eq!(entry.left(), Left { era: 3, evictions: 1 });
    assert!(entry.touched() && !entry.open() && !entry.locked() && !entry.watched());
    let locked = entry.with_lock().with_waiters();
    assert!(locked.locked() && locked.waiters());
    assert_eq!(locked.decode(), entry.decode());
    assert_eq!(Entry::swapped(PAYLOAD_MAX, Left::default()).decode(), Page::Swapped { slot: PAYLOAD_MAX });
}

#[test]
fn a_bit_with_two_meanings_is_read_as_the_one_of_its_state() {
    let left = Left { era: 0b11, evictions: 0xfff };
    assert_eq!(Entry::pooled(7, left).into_packed().decode(), Page::Pooled { slot: 7, packed: true });
    assert_eq!(
        Entry::fresh().into_incompressible().decode(),
        Page::Private { lives: 0, incompressible: true, unseen: true, lent: None }
    );
    assert_eq!(Entry::filled(u32::MAX, left).decode(), Page::Filled { pattern: u32::MAX });
    assert!(!Entry::filled(0, left).is_pooled() && Entry::filled(0, left).is_away());
    assert_eq!(Entry::shared_open(Frame(9)).decode(), Page::Shared { frame: Frame(9), open: true });
    assert_eq!(Entry::clean(left).decode(), Page::Clean);
}

#[test]
fn who_took_a_page_is_known_for_hours_and_across_a_deflation() {
    let taken = Entry::private().into_ballooned().taken_by(Taker::Balloon, 0x12345);
    assert_eq!((taken.state(), taken.taken(), taken.touched()), (State::Ballooned, Some(Taker::Balloon), true));
    let deflated = taken.into_zero();
    assert_eq!((deflated.state(), deflated.taken()), (State::Zero, Some(Taker::Balloon)));
    assert_eq!([0x12345, 0x12347, 0x12345 + 9000].map(|era| deflated.eras_since_taken(era)), [0, 2, 9000]);
    assert_eq!([Entry::UNTOUCHED, Entry::zero_open(), Entry::shared(Frame(3))].map(Entry::taken), [None; 3]);
    assert_eq!(Entry::shared(Frame(2)).into_zero().taken(), None, "a frame's number is nobody's name");
}

#[test]
fn a_page_loses_a_life_at_each_pass_and_nothing_else() {
    let page = Entry::private_with(2).into_watched().into_incompressible();
    let passed = page.cooled();
    let all = [page, passed, passed.cooled(), passed.cooled().cooled()];
    assert_eq!(all.map(lives), [2, 1, 0, 0].map(Some));
    assert!(passed.cooled().watched() && incompressible(passed.cooled()));
}

#[test]
fn a_fresh_page_is_unseen_until_it_is_seen_and_nothing_else_changes_that() {
    let page = Entry::fresh().into_watched().into_incompressible().cooled();
    assert!(unseen(page) && page.watched() && lives(page) == Some(0) && page.credits() == 1);
    let seen = page.into_seen();
    assert!(!unseen(seen) && seen.watched() && incompressible(seen));
    assert!(!unseen(Entry::pooled(7, Left { era: 0b11, evictions: 0 })) && !unseen(Entry::private_with(LIVES_MAX)));
}

#[test]
fn what_passed_since_a_page_left_is_known_across_the_wrap() {
    let left = Entry::swapped(1, Left { era: 6, evictions: 4095 }).left();
    assert_eq!(left.until(Left { era: 9, evictions: 4100 }), Left { era: 3, evictions: 5 });
}

#[test]
fn only_private_and_open_pages_carry_a_credit() {
    let carrying = [Entry::private(), Entry::private_with(3), Entry::zero_open(), Entry::shared_open(Frame(7))];
    let free = [Entry::UNTOUCHED, Entry::zero_touched(), Entry::shared(Frame(7)), Entry::pooled(1, Left::default())];
    assert!(carrying.iter().all(|entry| entry.credits() == 1));
    assert!(free.iter().all(|entry| entry.credits() == 0));
    assert_eq!(Entry::private().into_ballooned().credits(), 0);
    assert_eq!(Entry::shared_open(Frame(7)).closed(), Entry::shared(Frame(7)));
}
