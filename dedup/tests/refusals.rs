//! What a VMM gets that breaks the protocol: an error that names what was wrong, and nothing of it is
//! believed.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::time::{Duration, Instant};

use control::merge::{Answer, BATCH_MAX, MergeAnswer, MergeRequest, PAGES_MAX, Pages};
use dedup::{Domain, ProtocolError, VmmId, content_hash};
use support::content;
use wire::{Frame, Gfn};

const HOME: u32 = 8;
const SECRET: u64 = 5;
const LIAR: VmmId = VmmId::first(4);

/// One page, for a frame.
fn page(gfn: Gfn, frame: Frame, bytes: Vec<u8>) -> MergeRequest {
    MergeRequest::Pages(Pages { places: vec![(gfn, frame)], bytes })
}

fn joined() -> Domain {
    let domain = Domain::new(HOME, SECRET).unwrap();
    domain.vmm_joined(LIAR, HOME).unwrap();
    domain
}

fn refusal(request: MergeRequest) -> ProtocolError {
    joined().handle(LIAR, request).unwrap_err()
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    assert_eq!(refusal(MergeRequest::Hashes(vec![(Gfn(HOME), 1)])), ProtocolError::Gfn { gfn: Gfn(HOME), pages: HOME });
    assert_eq!(refusal(MergeRequest::Adopted(vec![Frame(HOME * 2)])), ProtocolError::Frame(Frame(HOME * 2)));
    assert_eq!(refusal(MergeRequest::Dropped(vec![Frame(u32::MAX)])), ProtocolError::Frame(Frame(u32::MAX)));
    assert_eq!(refusal(MergeRequest::Adopted(vec![Frame(0)])), ProtocolError::NotPublished(Frame(0)));
    assert_eq!(refusal(MergeRequest::Retired(vec![(Frame(0), true)])), ProtocolError::NotRetiring(Frame(0)));
    assert_eq!(refusal(page(Gfn(1), Frame(1), vec![0; 4097])), ProtocolError::PagesLength { bytes: 4097, pages: 1 });
    assert_eq!(refusal(page(Gfn(1), Frame(1), vec![])), ProtocolError::PagesLength { bytes: 0, pages: 1 });
    assert_eq!(
        refusal(MergeRequest::Declined(vec![(Gfn(1), Frame(1))])),
        ProtocolError::NotAsked { gfn: Gfn(1), frame: Frame(1) }
    );
    assert_eq!(
        refusal(page(Gfn(1), Frame(1), vec![0; 4096])),
        ProtocolError::NotAsked { gfn: Gfn(1), frame: Frame(1) }
    );
}

#[test]
fn batches_too_long_and_strangers_are_refused() {
    assert_eq!(
        refusal(MergeRequest::Dropped(vec![Frame(0); BATCH_MAX + 1])),
        ProtocolError::BatchTooLong(BATCH_MAX + 1)
    );
    let pages = Pages { places: vec![(Gfn(0), Frame(0)); PAGES_MAX + 1], bytes: vec![] };
    assert_eq!(refusal(MergeRequest::Pages(pages)), ProtocolError::BatchTooLong(PAGES_MAX + 1));
    let stranger = joined().handle(VmmId::first(77), MergeRequest::Hashes(vec![]));
    assert_eq!(stranger, Err(ProtocolError::Unknown(VmmId::first(77))));
}

#[test]
fn content_other_than_announced_is_not_published() {
    let domain = joined();
    domain.vmm_joined(VmmId::first(1), HOME).unwrap();
    let hash = content_hash(SECRET, &content(1));
    assert_eq!(domain.handle(VmmId::first(1), MergeRequest::Hashes(vec![(Gfn(2), hash)])), Ok(vec![]));
    let asked = domain.handle(LIAR, MergeRequest::Hashes(vec![(Gfn(3), hash)])).unwrap();
    assert_eq!(asked, [(LIAR, MergeAnswer::Answers(vec![(Gfn(3), Answer::Publish(Frame(2)))]))]);
    assert_eq!(domain.handle(LIAR, page(Gfn(3), Frame(2), content(9).into())), Ok(vec![]));
    let figures = domain.figures();
    assert_eq!((figures.frames_in_use, figures.declined_total, figures.candidates), (0, 1, 1));
}

#[test]
fn an_answer_of_an_earlier_round_is_no_answer() {
    let domain = joined();
    domain.vmm_joined(VmmId::first(1), HOME).unwrap();
    let hash = content_hash(SECRET, &content(1));
    domain.handle(VmmId::first(1), MergeRequest::Hashes(vec![(Gfn(2), hash)])).unwrap();
    domain.handle(LIAR, MergeRequest::Hashes(vec![(Gfn(3), hash)])).unwrap();
    domain.handle(LIAR, page(Gfn(3), Frame(2), content(1).into())).unwrap();
    let start = Instant::now();
    domain.sweep(start);
    let asked = domain.sweep(start + Duration::from_secs(5));
    assert_eq!(asked, [VmmId::first(1), LIAR].map(|vmm| (vmm, MergeAnswer::Retire(vec![Frame(2)]))));
    let retired = |held| MergeRequest::Retired(vec![(Frame(2), held)]);
    assert_eq!(domain.handle(VmmId::first(1), retired(true)), Ok(vec![]));
    assert_eq!(domain.figures().frames_retiring, 1, "the other has not answered");
    assert_eq!(domain.handle(VmmId::first(1), retired(false)), Err(ProtocolError::NotRetiring(Frame(2))));
    assert_eq!(domain.handle(LIAR, retired(false)), Ok(vec![]));
    let figures = domain.figures();
    assert_eq!((figures.frames_published, figures.retired_total), (1, 0), "held, so it stays");
}
