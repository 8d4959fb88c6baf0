//! The sharing domains there are: each with its own frame store, index and hash secret, as long as it has
//! guests.
//!
//! ```text
//!   join("web", vmm) ─► the first? make the domain ─► Membership ─► leave(membership): the last one?
//!                                                 (not to be copied)     the domain goes, and its store
//! ```
//!
//! **Architecture Invariant:** a guest is in one domain from its start to its end. A [`Membership`] is made
//! by [`Domains::join`] and used up by [`Domains::leave`]; nothing else takes a VMM into a domain, or from
//! one into another.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use control::{Dedup, MergeAnswer, MergeRequest};
use dedup::{Domain, Figures, ProtocolError, VmmId};
use wire::{Gfn, PAGE_BYTES, PageBytes};

use crate::error::Error;
use crate::sync::lock;

/// What a domain that the store's budget held back since the last time gets of it, against one that it did
/// not.
const HUNGRY_WEIGHT: u64 = 16;

/// All domains that have guests.
#[derive(Debug, Default)]
pub struct Domains {
    living: Mutex<BTreeMap<String, Living>>,
}

/// A VMM's place in its domain.
#[derive(Debug)]
pub struct Membership {
    name: String,
    domain: Arc<Domain>,
    vmm: VmmId,
}

/// A domain at one moment.
#[derive(Clone, Debug, Default)]
pub struct DomainView {
    /// Unique among the domains that exist.
    pub name: String,
    /// VMMs in it.
    pub guests: u64,
    /// Its store.
    pub figures: Figures,
}

#[derive(Debug)]
struct Living {
    domain: Arc<Domain>,
    dedup: Dedup,
    members: u64,
    /// At the last division of the stores' budget.
    refused_total: u64,
}

impl Domains {
    /// Takes a VMM whose guest has so many pages into the domain of this name. The first one makes the
    /// domain, for guests of at most `home_frames` pages.
    pub fn join(
        &self,
        name: &str,
        dedup: Dedup,
        home_frames: u32,
        vmm: VmmId,
        pages: u32,
    ) -> Result<Membership, Error> {
        let living = &mut *self.living();
        if !living.contains_key(name) {
            living.insert(name.to_owned(), Living::new(dedup, home_frames)?);
        }
        let Some(found) = living.get_mut(name).filter(|found| found.dedup == dedup) else {
            return Err(Error::DomainMode { domain: name.to_owned() });
        };
        found.domain.vmm_joined(vmm, pages)?;
        found.members += 1;
        Ok(Membership { name: name.to_owned(), domain: Arc::clone(&found.domain), vmm })
    }

    /// The VMM's process has ended: its holds are dropped, and with its last guest the domain.
    pub fn leave(&self, membership: Membership) -> Vec<(VmmId, MergeAnswer)> {
        let answers = membership.domain.vmm_gone(membership.vmm);
        let living = &mut *self.living();
        if let Some(found) = living.get_mut(&membership.name) {
            found.members -= 1;
            if found.members == 0 {
                living.remove(&membership.name);
            }
        }
        answers
    }

    /// Lets every domain release frames that nobody holds.
    pub fn sweep(&self, now: Instant) -> Vec<(VmmId, MergeAnswer)> {
        self.living().values().flat_map(|living| living.domain.sweep(now)).collect()
    }

    /// VMMs that have left their domain without an answer for so long.
    pub fn overdue(&self, now: Instant, patience: Duration) -> Vec<VmmId> {
        self.living().values().flat_map(|living| living.domain.overdue(now, patience)).collect()
    }

    /// The domains as they are now.
    pub fn views(&self) -> Vec<DomainView> {
        let view = |(name, living): (&String, &Living)| DomainView {
            name: name.clone(),
            guests: living.members,
            figures: living.domain.figures(),
        };
        self.living().iter().map(view).collect()
    }

    /// Memory of all frame stores, bytes.
    pub fn allocated_bytes(&self) -> u64 {
        // `fstat` on a descriptor of our own fails only where we have a bug; frames that cannot be counted
        // count as used up.
        let bytes = |living: &Living| living.domain.allocated_bytes().unwrap_or(u64::MAX / 2);
        self.living().values().map(bytes).fold(0, u64::saturating_add)
    }

    /// Divides what all stores together may take: each keeps what it has, those that were held back get most
    /// of the rest. Whether any was, since the last time.
    pub fn set_store_budget_bytes(&self, budget_bytes: u64) -> bool {
        let living = &mut *self.living();
        let figures: Vec<Figures> = living.values().map(|living| living.domain.figures()).collect();
        let hungry: Vec<bool> =
            living.values().zip(&figures).map(|(living, now)| now.refused_total > living.refused_total).collect();
        let allocated: Vec<u64> = figures.iter().map(|figures| figures.allocated_bytes).collect();
        let budgets = divide(budget_bytes, &allocated, &hungry);
        for ((living, figures), budget_bytes) in living.values_mut().zip(&figures).zip(budgets) {
            living.refused_total = figures.refused_total;
            living.domain.set_store_budget_bytes(budget_bytes);
        }
        hungry.contains(&true)
    }

    fn living(&self) -> MutexGuard<'_, BTreeMap<String, Living>> {
        // Every critical section leaves the map whole.
        lock(&self.living)
    }
}

impl Living {
    fn new(dedup: Dedup, home_frames: u32) -> Result<Self, Error> {
        let domain = match dedup {
            Dedup::On => Domain::new(home_frames, random_secret()?)?,
            Dedup::ZeroPagesOnly | Dedup::Off => Domain::zero_pages_only(home_frames)?,
        };
        Ok(Self { domain: Arc::new(domain), dedup, members: 0, refused_total: 0 })
    }
}

impl Membership {
    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// This VMM is going to load these pages; see [`Domain::preload`].
    pub fn preload(&self, contents: &[(Gfn, PageBytes)]) {
        self.domain.preload(self.vmm, contents);
    }

    /// It has loaded what it was to load.
    pub fn loaded(&self) {
        self.domain.loaded(self.vmm);
    }

    /// One message of this VMM; see [`Domain::handle`].
    pub fn handle(&self, request: MergeRequest) -> Result<Vec<(VmmId, MergeAnswer)>, ProtocolError> {
        self.domain.handle(self.vmm, request)
    }
}

/// What each store may take in all, bytes: never less than it has, and together no more than the budget where
/// they fit it now.
fn divide(budget_bytes: u64, allocated_bytes: &[u64], hungry: &[bool]) -> Vec<u64> {
    let used_bytes = allocated_bytes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let free_frames = budget_bytes.saturating_sub(used_bytes) / PAGE_BYTES as u64;
    let weight = |hungry: &bool| if *hungry { HUNGRY_WEIGHT } else { 1 };
    let weights: u64 = hungry.iter().map(weight).sum();
    let growth = |hungry| u128::from(free_frames) * u128::from(weight(hungry)) / u128::from(weights);
    let budget = |(bytes, hungry): (&u64, _)| bytes.saturating_add(growth(hungry) as u64 * PAGE_BYTES as u64);
    allocated_bytes.iter().zip(hungry).map(budget).collect()
}

/// What keys a domain's content hashes: nobody inside a guest can know it.
fn random_secret() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|source| Error::System { doing: "reading /dev/urandom", source })?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use wire::Frame;

    use super::*;

    fn join(domains: &Domains, name: &str, vmm: u32) -> Membership {
        domains.join(name, Dedup::On, 64, VmmId::first(vmm), 64).unwrap()
    }

    #[test]
    fn a_domain_lives_from_its_first_guest_to_its_last() {
        let domains = Domains::default();
        let (web0, web1, db) = (join(&domains, "web", 0), join(&domains, "web", 1), join(&domains, "db", 2));
        assert_ne!(web0.domain().hash_secret(), db.domain().hash_secret());
        assert_eq!(web0.domain().hash_secret(), web1.domain().hash_secret());
        let names = || domains.views().into_iter().map(|view| (view.name, view.guests)).collect::<Vec<_>>();
        assert_eq!(names(), [("db".into(), 1), ("web".into(), 2)]);
        domains.leave(web0);
        domains.leave(db);
        assert_eq!(names(), [("web".into(), 1)]);
        let before = web1.domain().hash_secret();
        domains.leave(web1);
        assert_eq!(names(), []);
        assert_ne!(join(&domains, "web", 3).domain().hash_secret(), before, "a name used again is another domain");
    }

    #[test]
    fn a_domain_has_one_mode() {
        let domains = Domains::default();
        let _web = join(&domains, "web", 0);
        let refused = domains.join("web", Dedup::ZeroPagesOnly, 64, VmmId::first(1), 64);
        assert!(matches!(refused, Err(Error::DomainMode { .. })));
    }

    #[test]
    fn zero_pages_only_takes_no_request() {
        let domains = Domains::default();
        let member = domains.join("vault", Dedup::ZeroPagesOnly, 64, VmmId::first(0), 64).unwrap();
        for request in [
            MergeRequest::Hashes(vec![(Gfn(0), 1)]),
            MergeRequest::Adopted(vec![Frame(0)]),
            MergeRequest::Retired(vec![]),
        ] {
            assert_eq!(member.handle(request), Err(ProtocolError::NothingShared));
        }
    }

    #[test]
    fn stores_keep_what_they_have_and_never_exceed_their_budget_together() {
        const FRAME: u64 = PAGE_BYTES as u64;
        assert_eq!(divide(100 * FRAME, &[30 * FRAME, 19 * FRAME], &[false, true]), [33 * FRAME, 67 * FRAME]);
        assert_eq!(divide(10 * FRAME, &[30 * FRAME, 0], &[true, true]), [30 * FRAME, 0]);
        assert!(divide(u64::MAX, &[], &[]).is_empty());
        let budgets = divide(1000 * FRAME + 7, &[FRAME; 7], &[true, false, true, false, false, false, false]);
        assert!(budgets.iter().sum::<u64>() <= 1000 * FRAME && budgets[0] > 10 * budgets[1]);
    }
}
