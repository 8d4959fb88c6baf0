//! A balloon device for tests: serves the register file over the same RAM, and takes nothing on trust.
//!
//! What a host does to pages it is given, the fake does too: it overwrites them, so that a guest that touches
//! one is found out.

use core::ops::Range;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

use wire::balloon::{
    CONFIG_ACTUAL, CONFIG_FREE_PAGE_HINT_CMD_ID, CONFIG_NUM_PAGES, CONFIG_POISON_VAL, DEVICE_ID, F_FREE_PAGE_HINT,
    F_REPORTING, F_STATS_VQ, STAT_BYTES,
};
use wire::mmio;
use wire::virtio::{DESC_F_NEXT, DESC_F_WRITE, STATUS_DRIVER_OK, STATUS_FEATURES_OK};

use crate::memory::{PAGE_WORDS, Ram, Span};
use crate::virtio::transport::Transport;

const QUEUES: usize = 5;

/// What a queue number means to the fake: numbers are counted, as Linux and QEMU do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inflate,
    Deflate,
    Statistics,
    Hinting,
    Reporting,
}

/// One queue as the driver set it up.
#[derive(Debug, Default, Clone, Copy)]
struct FakeQueue {
    size: u32,
    ready: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
    seen: u16,
    used: u16,
}

/// What the device knows and was told.
#[derive(Debug, Default)]
pub struct FakeState {
    pub offered: u64,
    pub accepted: u64,
    pub status: u32,
    pub refuse_features: bool,
    pub requested: u32,
    pub actual: u32,
    pub ballooned: BTreeSet<u32>,
    pub reported: Vec<Range<u32>>,
    pub hint_command: u32,
    /// Commands of the driver, and pages named after each.
    pub hints: Vec<(u32, u32)>,
    pub poison: Option<u32>,
    pub statistics: Vec<(u16, u64)>,
    /// Buffers are left alone until this is false again.
    pub hold: bool,
    pub interrupt: u32,
    statistics_buffer: Option<u16>,
    feature_half: [u32; 2],
    selected: usize,
    queues: [FakeQueue; QUEUES],
}

/// The device.
#[derive(Debug)]
pub struct FakeBalloon {
    ram: Ram,
    state: Mutex<FakeState>,
}

impl FakeBalloon {
    pub fn new(ram: Ram, features: &[u32]) -> Self {
        let offered = features.iter().fold(0, |all, feature| all | 1 << feature);
        FakeBalloon { ram, state: Mutex::new(FakeState { offered, ..FakeState::default() }) }
    }

    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }

    pub fn request(&self, pages: u32) {
        let mut state = self.state();
        state.requested = pages;
        state.interrupt |= mmio::INTERRUPT_CONFIG_CHANGE;
    }

    /// A new word on hinting.
    pub fn command_hints(&self, command: u32) {
        let mut state = self.state();
        state.hint_command = command;
        state.interrupt |= mmio::INTERRUPT_CONFIG_CHANGE;
    }

    /// Gives the statistics buffer back, which asks for new ones.
    pub fn ask_for_statistics(&self) {
        let mut state = self.state();
        let head = state.statistics_buffer.take().expect("the driver supplied a statistics buffer");
        self.complete(&mut state.queues[2], head);
        state.interrupt |= mmio::INTERRUPT_USED_BUFFER;
    }

    /// Serves all that was held back.
    pub fn release(&self) {
        self.state().hold = false;
        (0..QUEUES).for_each(|queue| self.serve(queue));
    }

    fn at(&self, gpa: u64, bytes: usize) -> Span {
        let offset = (gpa % 4096) as usize;
        self.ram.page((gpa / 4096) as u32).part(offset, bytes)
    }

    fn complete(&self, queue: &mut FakeQueue, head: u16) {
        let ring = self.at(queue.device, 4 + 8 * queue.size as usize + 4);
        ring.set_u32(1 + 2 * (u32::from(queue.used) % queue.size) as usize, u32::from(head));
        queue.used = queue.used.wrapping_add(1);
        ring.set_u16(1, queue.used);
    }

    fn serve(&self, number: usize) {
        let state = &mut *self.state();
        let mut queue = state.queues[number];
        if !queue.ready || state.hold {
            return;
        }
        assert!(state.status & STATUS_DRIVER_OK != 0, "notified before DRIVER_OK");
        let kind = kind(number, state.accepted);
        let available = self.at(queue.driver, 8 + 2 * queue.size as usize);
        while queue.seen != available.u16(1) {
            let mut index = available.u16(2 + (u32::from(queue.seen) % queue.size) as usize);
            queue.seen = queue.seen.wrapping_add(1);
            let head = index;
            let table = self.at(queue.descriptors, 16 * queue.size as usize);
            loop {
                let at = usize::from(index);
                let (gpa, bytes) = (table.u64(2 * at), table.u32(4 * at + 2) as usize);
                let (flags, next) = (table.u16(8 * at + 6), table.u16(8 * at + 7));
                self.take(state, kind, gpa, bytes, flags & DESC_F_WRITE != 0);
                if flags & DESC_F_NEXT == 0 {
                    break;
                }
                index = next;
            }
            if kind == Kind::Statistics {
                assert!(state.statistics_buffer.replace(head).is_none(), "two statistics buffers");
            } else {
                self.complete(&mut queue, head);
            }
        }
        state.queues[number] = queue;
        state.interrupt |= mmio::INTERRUPT_USED_BUFFER;
    }

    fn take(&self, state: &mut FakeState, kind: Kind, gpa: u64, bytes: usize, writable: bool) {
        let expected = kind == Kind::Reporting || kind == Kind::Hinting && bytes > 4;
        assert_eq!(writable, expected, "buffer access of {kind:?}");
        match kind {
            Kind::Inflate | Kind::Deflate => {
                let list = self.at(gpa, bytes);
                for gfn in (0..bytes / 4).map(|index| list.u32(index)) {
                    if kind == Kind::Inflate {
                        assert!(state.ballooned.insert(gfn), "page {gfn} inflated twice");
                        self.overwrite(gfn);
                    } else {
                        assert!(state.ballooned.remove(&gfn), "page {gfn} deflated but not ballooned");
                    }
                }
            }
            Kind::Hinting if !writable => {
                assert_eq!(bytes, 4, "bytes of a command");
                state.hints.push((self.at(gpa, 4).u32(0), 0));
            }
            Kind::Hinting => {
                let (start, pages) = ((gpa / 4096) as u32, (bytes / 4096) as u32);
                // Only what the current round has: and a device may drop it at any time until it is written
                // to.
                let (command, named) = state.hints.last_mut().expect("pages before any command");
                assert_eq!(*command, state.hint_command, "pages named in another round");
                *named += pages;
                (start..start + pages).for_each(|gfn| self.overwrite(gfn));
            }
            Kind::Statistics => {
                let buffer = self.at(gpa, bytes.next_multiple_of(8));
                let value =
                    |half: usize| (0..4).fold(0, |all, i| all | u64::from(buffer.u16(half + 1 + i)) << (16 * i));
                state.statistics = (0..bytes / STAT_BYTES).map(|i| (buffer.u16(5 * i), value(5 * i))).collect();
            }
            Kind::Reporting => {
                let start = (gpa / 4096) as u32;
                let range = start..start + (bytes / 4096) as u32;
                range.clone().for_each(|gfn| self.overwrite(gfn));
                state.reported.push(range);
            }
        }
    }

    fn overwrite(&self, gfn: u32) {
        let page = self.ram.page(gfn);
        (0..PAGE_WORDS).for_each(|word| page.set_u64(word, 0xdead_dead_dead_dead));
    }
}

fn kind(number: usize, accepted: u64) -> Kind {
    let optional = [(F_STATS_VQ, Kind::Statistics), (F_FREE_PAGE_HINT, Kind::Hinting), (F_REPORTING, Kind::Reporting)];
    let there = optional.into_iter().filter(|(feature, _)| accepted >> feature & 1 == 1).map(|(_, kind)| kind);
    [Kind::Inflate, Kind::Deflate].into_iter().chain(there).nth(number).expect("a queue that exists")
}

impl Transport for &FakeBalloon {
    fn read(&self, offset: u64) -> u32 {
        let state = self.state();
        match offset {
            mmio::MAGIC_VALUE => mmio::MAGIC,
            mmio::VERSION => mmio::VERSION_2,
            mmio::DEVICE_ID => DEVICE_ID,
            mmio::DEVICE_FEATURES => (state.offered >> (32 * state.feature_half[0])) as u32,
            mmio::QUEUE_SIZE_MAX => {
                let optional = [F_STATS_VQ, F_FREE_PAGE_HINT, F_REPORTING]
                    .map(|one| state.accepted >> one & 1)
                    .iter()
                    .sum::<u64>();
                if (state.selected as u64) < 2 + optional { 128 } else { 0 }
            }
            mmio::STATUS => state.status,
            mmio::INTERRUPT_STATUS => state.interrupt,
            _ if offset == mmio::CONFIG + CONFIG_NUM_PAGES => state.requested,
            _ if offset == mmio::CONFIG + CONFIG_ACTUAL => state.actual,
            _ if offset == mmio::CONFIG + CONFIG_FREE_PAGE_HINT_CMD_ID => state.hint_command,
            _ => 0,
        }
    }

    fn write(&self, offset: u64, value: u32) {
        if offset == mmio::QUEUE_NOTIFY {
            return self.serve(value as usize);
        }
        let state = &mut *self.state();
        let high = |address: &mut u64| *address |= u64::from(value) << 32;
        match offset {
            mmio::DEVICE_FEATURES_SEL => state.feature_half[0] = value,
            mmio::DRIVER_FEATURES_SEL => state.feature_half[1] = value,
            mmio::DRIVER_FEATURES => state.accepted |= u64::from(value) << (32 * state.feature_half[1]),
            mmio::STATUS if value & STATUS_FEATURES_OK != 0 && state.refuse_features => {
                state.status = value & !STATUS_FEATURES_OK;
            }
            mmio::STATUS => state.status = value,
            mmio::INTERRUPT_ACK => state.interrupt &= !value,
            mmio::QUEUE_SEL => state.selected = value as usize,
            mmio::QUEUE_SIZE => state.queues[state.selected].size = value,
            mmio::QUEUE_DESC_LOW => state.queues[state.selected].descriptors = u64::from(value),
            mmio::QUEUE_DESC_HIGH => high(&mut state.queues[state.selected].descriptors),
            mmio::QUEUE_DRIVER_LOW => state.queues[state.selected].driver = u64::from(value),
            mmio::QUEUE_DRIVER_HIGH => high(&mut state.queues[state.selected].driver),
            mmio::QUEUE_DEVICE_LOW => state.queues[state.selected].device = u64::from(value),
            mmio::QUEUE_DEVICE_HIGH => high(&mut state.queues[state.selected].device),
            mmio::QUEUE_READY => state.queues[state.selected].ready = value == 1,
            _ if offset == mmio::CONFIG + CONFIG_ACTUAL => state.actual = value,
            _ if offset == mmio::CONFIG + CONFIG_POISON_VAL => {
                assert!(state.status & STATUS_DRIVER_OK == 0, "the poison value is settled before DRIVER_OK");
                state.poison = Some(value);
            }
            _ => panic!("write of {value:#x} to register {offset:#x}"),
        }
    }
}
