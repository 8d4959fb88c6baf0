//! `identical`: pages that every guest of a run has too, as guests of the same kernel and programs do.
//!
//! Of the pages, a half has the same content at the same address in every guest, a quarter the same content
//! at other addresses, in runs of 4 on average, and a quarter is the guest's own. All are read, and only the
//! guest's own ever written.

use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::page::Texture;
use crate::rng::{Rng, mix};
use crate::set::{Rule, Set};
use crate::workload::work::{STEP_PAGES, Work, space};

/// Two runs of displaced content have this many pages together, so that a run has half of it on average.
const RUN_PAIR: u32 = 8;

/// How a page is added: [`Set::push`] or one that waits for it.
type Push<M> = fn(&mut Set, &mut Cpu<'_, M>, u32) -> bool;

/// The three kinds of pages.
#[derive(Debug)]
pub struct Common {
    same: Set,
    elsewhere: Set,
    own: Set,
}

impl Common {
    /// Fills the sets, up to so many thousandths of RAM, by this way of adding a page.
    pub fn build<M: Machine>(cpu: &mut Cpu<'_, M>, permille: u32, push: Push<M>) -> Common {
        let quarter = cpu.share(permille / 4);
        let mut common = Common {
            same: Set::new(cpu, 2 * quarter, Rule::Common { space: space::COMMON_SAME }),
            elsewhere: Set::new(cpu, quarter, Rule::Common { space: space::COMMON_ELSEWHERE }),
            own: Set::new(cpu, quarter, Rule::Own { space: space::COMMON_OWN, generation: 0, texture: Texture::Half }),
        };
        // Equal addresses come from equal orders: this set is first, and grows from the bottom of RAM.
        for number in 1..=2 * quarter {
            if !grow(cpu, &mut common.same, number, push) {
                break;
            }
        }
        for number in displaced(cpu, quarter) {
            if !grow(cpu, &mut common.elsewhere, number, push) {
                break;
            }
        }
        while grow(cpu, &mut common.own, 1, push) {}
        common
    }
}

/// Adds a page, unless the stop or the end of memory is there.
fn grow<M: Machine>(cpu: &mut Cpu<'_, M>, set: &mut Set, tag: u32, push: Push<M>) -> bool {
    cpu.poll();
    !cpu.stopping() && push(set, cpu, tag)
}

/// The numbers `1..=pages`, cut into the same runs in every guest, the runs in this guest's own order.
fn displaced<M: Machine>(cpu: &Cpu<'_, M>, pages: u32) -> impl Iterator<Item = u32> + use<M> {
    let boot = cpu.boot();
    let (seed, runs) = (boot.seed, pages / RUN_PAIR * 2);
    let mut rng = Rng::new(seed ^ mix(u64::from(boot.guest) + 1));
    // `start + k * stride` visits every run once if the stride has no factor in common with their number.
    let start = rng.below(runs);
    let stride = (0..64).map(|_| rng.below(runs).max(1)).find(|&stride| gcd(stride, runs) == 1).unwrap_or(1);
    let order =
        (0..u64::from(runs)).map(move |k| ((u64::from(start) + k * u64::from(stride)) % u64::from(runs)) as u32);
    order.flat_map(move |run| {
        let pair = run / 2 * RUN_PAIR;
        let cut = 1 + (mix(seed ^ u64::from(pair)) % u64::from(RUN_PAIR - 1)) as u32;
        let part = if run.is_multiple_of(2) { 0..cut } else { cut..RUN_PAIR };
        part.map(move |page| 1 + pair + page)
    })
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl<M: Machine> Work<M> for Common {
    fn step(&mut self, cpu: &mut Cpu<'_, M>) {
        for _ in 0..STEP_PAGES {
            match cpu.rng.below(64) {
                0 if !self.own.is_empty() => {
                    let index = cpu.rng.zipf_below(self.own.len());
                    self.own.rewrite(cpu, index);
                }
                0..33 => self.same.verify_any(cpu),
                33..49 => self.elsewhere.verify_any(cpu),
                _ => self.own.verify_any(cpu),
            }
        }
        cpu.operated(u64::from(STEP_PAGES));
        if self.same.is_empty() {
            // No memory at all: wait for better days instead of spinning.
            cpu.park(5);
        }
    }

    fn verify_all(&mut self, cpu: &mut Cpu<'_, M>) {
        [&self.same, &self.elsewhere, &self.own].into_iter().for_each(|set| set.verify_all(cpu));
    }

    fn release(&mut self, cpu: &mut Cpu<'_, M>) {
        [&mut self.same, &mut self.elsewhere, &mut self.own].into_iter().for_each(|set| set.release(cpu));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestMachine, on_cpu};
    use std::collections::BTreeSet;
    use std::vec::Vec;
    use wire::machine::Workload;

    #[test]
    fn displaced_numbers_are_all_there_once_in_runs_and_in_another_order_in_each_guest() {
        let orders = [0, 1].map(|guest| {
            let machine = TestMachine::new(256, Workload::Idle).guest(guest);
            on_cpu(machine, |cpu| displaced(cpu, 800).collect::<Vec<_>>())
        });
        for order in &orders {
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), (1..=800).collect());
            let breaks = order.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
            assert!((150..=250).contains(&breaks), "{breaks} breaks in 800 pages");
        }
        let same = orders[0].iter().zip(&orders[1]).filter(|(a, b)| a == b).count();
        assert!(same < 80, "{same} of 800 pages at the same place");
    }
}
