//! What VMMs say is hearsay. Whatever some of them send, in whatever order, a frame that an honest VMM holds
//! keeps its bytes, an honest VMM is never blamed, and when all are gone nothing stays allocated.

#![allow(clippy::unwrap_used, reason = "a failure is a failed test")]

mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use control::merge::{Answer, BATCH_MAX, MergeAnswer, MergeRequest, Pages};
use dedup::{Domain, PublishedView, VmmId, content_hash};
use proptest::prelude::*;
use support::{PAGE, content};
use wire::{Frame, Gfn, PageBytes};

const HOME: u32 = 8;
const SECRET: u64 = 5;
const HONEST: [VmmId; 3] = [VmmId::first(1), VmmId::first(2), VmmId::first(3)];
const LIAR: VmmId = VmmId::first(4);
const LIARS: [VmmId; 2] = [LIAR, VmmId::first(5)];
/// What a VMM may owe an answer for in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A VMM that keeps the protocol, but takes its time: reports and answers wait in queues until their step
/// comes.
#[derive(Default)]
struct Honest {
    /// What arrived and was not looked at yet.
    inbox: VecDeque<MergeAnswer>,
    /// Frames held, and the bytes they had when they were adopted.
    held: BTreeMap<Frame, PageBytes>,
    /// Frames whose holding changed since the last report.
    changed: BTreeSet<Frame>,
}

#[derive(Clone, Debug)]
enum Step {
    /// An honest VMM asks about content at a gfn.
    Tell { vmm: usize, gfn: Gfn, number: u64 },
    /// It reads its next message, sending what is asked for (`true`) or declining.
    Read { vmm: usize, send: bool },
    /// It adopts a frame it sees published.
    Adopt { vmm: usize, frame: Frame },
    /// It lets go of a frame.
    Drop { vmm: usize, frame: Frame },
    /// It reports its changes.
    Report { vmm: usize },
    /// It dies, and another takes its place.
    Die { vmm: usize },
    /// A liar says anything.
    Lie { liar: usize, request: MergeRequest },
    /// It asks about more contents than there are pages.
    Flood { liar: usize, first: u64 },
    /// Whoever has owed an answer for too long is dropped.
    LosePatience,
    /// The store sweeps, some time later.
    Sweep { seconds: u64 },
    /// The budget changes.
    Budget { frames: u64 },
}

fn lie() -> impl Strategy<Value = MergeRequest> {
    let frame = (0..HOME * 2 + 2).prop_map(Frame);
    let gfn = (0..HOME + 1).prop_map(Gfn);
    let place = (gfn.clone(), frame.clone());
    let bytes = prop_oneof![1 => Just(vec![1; 9]), 9 => (0..4u64).prop_map(|n| content(n).into())];
    let pages = prop::collection::vec((place.clone(), bytes), 0..3).prop_map(|pages| {
        let (places, contents): (Vec<_>, Vec<Vec<u8>>) = pages.into_iter().unzip();
        Pages { places, bytes: contents.concat() }
    });
    let hash = (0..4u64).prop_map(|number| content_hash(SECRET, &content(number)));
    prop_oneof![
        4 => prop::collection::vec((gfn, hash), 0..4).prop_map(MergeRequest::Hashes),
        1 => pages.prop_map(MergeRequest::Pages),
        1 => prop::collection::vec(place, 0..3).prop_map(MergeRequest::Declined),
        2 => prop::collection::vec(frame.clone(), 0..4).prop_map(MergeRequest::Adopted),
        2 => prop::collection::vec(frame.clone(), 0..4).prop_map(MergeRequest::Dropped),
        4 => prop::collection::vec((frame, any::<bool>()), 0..4).prop_map(MergeRequest::Retired),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let (vmm, frame) = (0..HONEST.len(), (0..HOME * 2).prop_map(Frame));
    prop_oneof![
        6 => (vmm.clone(), (0..HOME).prop_map(Gfn), 0..4u64).prop_map(|(vmm, gfn, number)| Step::Tell { vmm, gfn, number }),
        8 => (vmm.clone(), prop::bool::weighted(0.9)).prop_map(|(vmm, send)| Step::Read { vmm, send }),
        8 => (vmm.clone(), frame.clone()).prop_map(|(vmm, frame)| Step::Adopt { vmm, frame }),
        6 => (vmm.clone(), frame).prop_map(|(vmm, frame)| Step::Drop { vmm, frame }),
        4 => vmm.clone().prop_map(|vmm| Step::Report { vmm }),
        1 => vmm.prop_map(|vmm| Step::Die { vmm }),
        4 => (0..LIARS.len(), lie()).prop_map(|(liar, request)| Step::Lie { liar, request }),
        1 => (0..LIARS.len(), 4..1u64 << 40).prop_map(|(liar, first)| Step::Flood { liar, first }),
        1 => Just(Step::LosePatience),
        3 => (0..4u64).prop_map(|seconds| Step::Sweep { seconds }),
        1 => (0..20u64).prop_map(|frames| Step::Budget { frames }),
    ]
}

struct Stage {
    domain: Domain,
    view: PublishedView,
    store: File,
    honest: Vec<Honest>,
    /// Ids of the honest, which change when they die.
    ids: Vec<VmmId>,
    next_id: u32,
    now: Instant,
    /// Content an honest VMM has at a place, so that it can send it.
    told: BTreeMap<(VmmId, Gfn), u64>,
    adoptions: usize,
}

impl Stage {
    fn new() -> Self {
        let domain = Domain::new(HOME, SECRET).unwrap();
        let descriptors = domain.descriptors().unwrap();
        for vmm in HONEST.into_iter().chain(LIARS) {
            domain.vmm_joined(vmm, HOME).unwrap();
        }
        Self {
            view: PublishedView::map(descriptors.published, domain.store_frames()).unwrap(),
            store: descriptors.store.into(),
            honest: HONEST.map(|_| Honest::default()).into(),
            ids: HONEST.into(),
            next_id: 10,
            now: Instant::now(),
            told: BTreeMap::new(),
            adoptions: 0,
            domain,
        }
    }

    fn bytes(&self, frame: Frame) -> PageBytes {
        let mut page = [0; PAGE as usize];
        self.store.read_exact_at(&mut page, u64::from(frame.0) * PAGE).unwrap();
        page
    }

    fn deliver(&mut self, answers: Vec<(VmmId, MergeAnswer)>) {
        for (to, answer) in answers {
            if let Some(at) = self.ids.iter().position(|&id| id == to) {
                self.honest[at].inbox.push_back(answer);
            }
        }
    }

    fn send(&mut self, vmm: usize, request: MergeRequest) {
        let answers = self.domain.handle(self.ids[vmm], request).expect("the honest are never blamed");
        self.deliver(answers);
    }

    fn read(&mut self, vmm: usize, send: bool) {
        match self.honest[vmm].inbox.pop_front() {
            Some(MergeAnswer::Answers(answers)) => {
                for (gfn, answer) in answers {
                    match answer {
                        Answer::Share(frame) => self.adopt(vmm, frame),
                        Answer::NoRoom => {}
                        Answer::Publish(frame) => {
                            let number = self.told.get(&(self.ids[vmm], gfn)).filter(|_| send);
                            let request = match number {
                                Some(&number) => page(gfn, frame, content(number).into()),
                                None => MergeRequest::Declined(vec![(gfn, frame)]),
                            };
                            self.send(vmm, request);
                        }
                    }
                }
            }
            Some(MergeAnswer::Retire(frames)) => {
                let held = &self.honest[vmm].held;
                let answers = frames.into_iter().map(|frame| (frame, held.contains_key(&frame))).collect();
                self.send(vmm, MergeRequest::Retired(answers));
            }
            None => {}
        }
    }

    fn adopt(&mut self, vmm: usize, frame: Frame) {
        if self.view.is_published(frame) {
            let bytes = self.bytes(frame);
            self.adoptions += 1;
            self.honest[vmm].held.entry(frame).or_insert(bytes);
            self.honest[vmm].changed.insert(frame);
        }
    }

    fn report(&mut self, vmm: usize) {
        let honest = &mut self.honest[vmm];
        let changed = std::mem::take(&mut honest.changed);
        let (adopted, dropped) = changed.into_iter().partition(|frame| honest.held.contains_key(frame));
        self.send(vmm, MergeRequest::Adopted(adopted));
        self.send(vmm, MergeRequest::Dropped(dropped));
    }

    fn gone(&mut self, vmm: VmmId) {
        let answers = self.domain.vmm_gone(vmm);
        self.deliver(answers);
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Tell { vmm, gfn, number } => {
                self.told.insert((self.ids[vmm], gfn), number);
                self.send(vmm, MergeRequest::Hashes(vec![(gfn, content_hash(SECRET, &content(number)))]));
            }
            Step::Read { vmm, send } => self.read(vmm, send),
            Step::Adopt { vmm, frame } => self.adopt(vmm, frame),
            Step::Drop { vmm, frame } => {
                self.honest[vmm].held.remove(&frame);
                self.honest[vmm].changed.insert(frame);
            }
            Step::Report { vmm } => self.report(vmm),
            Step::Die { vmm } => {
                self.honest[vmm] = Honest::default();
                let dead = std::mem::replace(&mut self.ids[vmm], VmmId::first(self.next_id));
                self.gone(dead);
                self.domain.vmm_joined(VmmId::first(self.next_id), HOME).unwrap();
                self.next_id += 1;
            }
            Step::Lie { liar, request } => self.lie(LIARS[liar], request),
            Step::Flood { liar, first } => {
                let hashes = (0..BATCH_MAX as u64).map(|at| (Gfn((at % u64::from(HOME)) as u32), first + at)).collect();
                self.lie(LIARS[liar], MergeRequest::Hashes(hashes));
            }
            Step::LosePatience => {
                for vmm in self.domain.overdue(self.now, PATIENCE) {
                    match self.ids.iter().position(|&id| id == vmm) {
                        Some(vmm) => self.act(Step::Die { vmm }),
                        None => self.drop_liar(vmm),
                    }
                }
            }
            Step::Sweep { seconds } => {
                self.now += Duration::from_secs(seconds);
                let answers = self.domain.sweep(self.now);
                self.deliver(answers);
            }
            Step::Budget { frames } => self.domain.set_store_budget_bytes(frames * PAGE),
        }
    }

    fn lie(&mut self, liar: VmmId, request: MergeRequest) {
        match self.domain.handle(liar, request) {
            Ok(answers) => self.deliver(answers),
            Err(_) => self.drop_liar(liar),
        }
    }

    /// As the host does. It comes back, for more.
    fn drop_liar(&mut self, liar: VmmId) {
        self.gone(liar);
        self.domain.vmm_joined(liar, HOME).unwrap();
    }

    fn check(&self) {
        for honest in &self.honest {
            for (&frame, bytes) in &honest.held {
                assert!(self.bytes(frame) == *bytes, "frame {} changed while an honest VMM held it", frame.0);
            }
        }
        let figures = self.domain.figures();
        assert!(figures.allocated_bytes <= figures.frames_in_use * PAGE);
        let pages = u64::from(HOME) * (HONEST.len() + LIARS.len()) as u64;
        assert!(figures.candidates <= 2 * pages, "{} candidates of {pages} pages", figures.candidates);
    }

    /// The honest let go of everything and answer what they are asked; the liars fall silent, holding what
    /// they said they hold. Nothing but what liars hold stays, and that goes when they do.
    fn settle(&mut self) {
        for _ in 0..64 {
            for vmm in 0..HONEST.len() {
                while !self.honest[vmm].inbox.is_empty() {
                    self.read(vmm, false);
                }
                let held: Vec<Frame> = self.honest[vmm].held.keys().copied().collect();
                held.into_iter().for_each(|frame| self.act(Step::Drop { vmm, frame }));
                self.report(vmm);
            }
            self.act(Step::Sweep { seconds: 3 });
            self.act(Step::LosePatience);
        }
        for liar in LIARS {
            self.gone(liar);
        }
        for _ in 0..4 {
            self.act(Step::Sweep { seconds: 3 });
            for vmm in 0..HONEST.len() {
                while !self.honest[vmm].inbox.is_empty() {
                    self.read(vmm, false);
                }
            }
        }
        let figures = self.domain.figures();
        assert_eq!((figures.frames_in_use, figures.allocated_bytes), (0, 0), "with the honest alive: {figures:?}");
    }

    fn end(mut self) {
        for vmm in self.ids.clone().into_iter().chain(LIARS) {
            self.gone(vmm);
        }
        for _ in 0..3 {
            self.now += Duration::from_secs(10);
            assert_eq!(self.domain.sweep(self.now), []);
        }
        let figures = self.domain.figures();
        assert_eq!((figures.frames_in_use, figures.allocated_bytes), (0, 0));
        assert_eq!((figures.frames_held, figures.holds), (0, 0));
        assert!((0..self.view.frames()).all(|frame| !self.view.is_published(Frame(frame))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_messages_touches_a_frame_that_an_honest_vmm_holds(steps in prop::collection::vec(step(), 1..200)) {
        let mut stage = Stage::new();
        for step in steps {
            stage.act(step);
            stage.check();
        }
        stage.end();
    }

    #[test]
    fn with_silent_liars_dropped_the_living_get_all_frames_back(steps in prop::collection::vec(step(), 1..100)) {
        let mut stage = Stage::new();
        steps.into_iter().for_each(|step| stage.act(step));
        stage.settle();
        stage.end();
    }
}

#[test]
fn the_property_is_not_empty_frames_are_adopted_retired_and_used_again() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let (mut runner, mut adoptions, mut retired) = (TestRunner::deterministic(), 0, 0);
    for _ in 0..64 {
        let mut stage = Stage::new();
        let steps = prop::collection::vec(step(), 199).new_tree(&mut runner).unwrap().current();
        steps.into_iter().for_each(|step| stage.act(step));
        adoptions += stage.adoptions;
        retired += stage.domain.figures().retired_total;
    }
    assert!(adoptions > 64 && retired > 10, "{adoptions} adoptions, {retired} retired");
}

/// One page, for a frame.
fn page(gfn: Gfn, frame: Frame, bytes: Vec<u8>) -> MergeRequest {
    MergeRequest::Pages(Pages { places: vec![(gfn, frame)], bytes })
}
