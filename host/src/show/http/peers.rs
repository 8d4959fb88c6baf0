//! Who may have how many connections to the endpoint, and what of the CPU.
//!
//! ```text
//!   accepted --> room for its peer, and in its class? --> served
//!                   |  its peer has all it may: its own oldest connection that waits for a request goes
//!                   |  its class has all it may: the oldest one of the peer with the most goes
//!                   '- neither helps --> refused
//! ```
//!
//! Peers of this machine and peers elsewhere are two classes with bounds of their own, so that no network can
//! shut out who runs the host, and nobody's connections are more than the descriptors that are kept for them.
//! What is shared is shared by peers, not by connections: one with a hundred of them gains nothing over one
//! with one.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::fleet::throttle::Throttle;
use crate::sync::lock;

/// Connections of one peer: a scraper, a dashboard and a dozen commands at once.
const PEER_MAX: usize = 16;
/// Connections of all peers of a class: those of two greedy peers.
const CLASS_MAX: usize = 2 * PEER_MAX;
/// Descriptors that the endpoint may come to use: all connections, one that is being refused, and what
/// listens.
pub(crate) const DESCRIPTORS_MAX: u64 = 2 * CLASS_MAX as u64 + 8;
/// How long a connection may wait for its request before another of the same peer may take its place. An
/// estimate: who connects asks.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Share of one CPU that answering a class may take. A scrape of eight guests takes a millisecond.
const CPU_SHARE: f64 = 0.1;

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its request was answered.
    Served,
    /// There was no room for it.
    Refused,
    /// It gave its place to another.
    Displaced,
    /// Its request, or taking the answer, took too long.
    Expired,
    /// It was no HTTP, or it broke off.
    Broken,
}

impl Ending {
    const ALL: [(Ending, &str); 5] = [
        (Ending::Served, "served"),
        (Ending::Refused, "refused"),
        (Ending::Displaced, "displaced"),
        (Ending::Expired, "expired"),
        (Ending::Broken, "broken"),
    ];
}

/// The connections there are.
#[derive(Debug)]
pub(super) struct Peers {
    table: Mutex<Table>,
    /// CPU time of the two classes.
    accounts: [Account; 2],
    endings: [AtomicU64; Ending::ALL.len()],
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Oldest first.
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    id: u64,
    peer: IpAddr,
    since: Instant,
    /// Its request has come.
    asked: bool,
    /// What serves it, once it is being served.
    task: Option<AbortHandle>,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    peers: Arc<Peers>,
    id: u64,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Local,
    Remote,
}

impl Class {
    fn of(peer: IpAddr) -> Class {
        if peer.is_loopback() { Class::Local } else { Class::Remote }
    }
}

impl Peers {
    pub(super) fn new() -> Arc<Peers> {
        let accounts = [Account::new(CPU_SHARE), Account::new(CPU_SHARE)];
        Arc::new(Peers { table: Mutex::default(), accounts, endings: Default::default() })
    }

    /// A place for a connection from this address, if there is room or can be made.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Place> {
        let peer = peer_of(address);
        let class = Class::of(peer);
        // Requests that wait for CPU time of their class look as if they had not come.
        let patient = self.accounts[class as usize].owed(now).is_some();
        let mut table = self.table();
        let Table { next, connections } = &mut *table;
        let of_peer = |peer: IpAddr, all: &[Connection]| all.iter().filter(|one| one.peer == peer).count();
        let mine = of_peer(peer, connections);
        let displaced = if mine >= PEER_MAX {
            let idle = |one: &Connection| one.peer == peer && !one.asked && now - one.since >= WAIT_MIN;
            Some(connections.iter().position(idle).filter(|_| !patient))
        } else if connections.iter().filter(|one| Class::of(one.peer) == class).count() >= CLASS_MAX {
            let rivals = connections.iter().filter(|one| Class::of(one.peer) == class);
            let largest = rivals.map(|one| (of_peer(one.peer, connections), one.peer)).max();
            // Not from one who would then have less than the newcomer.
            let greedy = largest.filter(|&(theirs, _)| theirs >= mine + 2);
            Some(greedy.and_then(|(_, largest)| connections.iter().position(|one| one.peer == largest)))
        } else {
            None
        };
        match displaced {
            None => {}
            Some(Some(at)) => {
                connections.remove(at).task.iter().for_each(AbortHandle::abort);
                self.count(Ending::Displaced);
            }
            Some(None) => {
                self.count(Ending::Refused);
                return None;
            }
        }
        let id = *next;
        *next += 1;
        connections.push(Connection { id, peer, since: now, asked: false, task: None });
        drop(table);
        Some(Place { peers: Arc::clone(self), id, class })
    }

    pub(super) fn count(&self, ending: Ending) {
        // A figure by itself.
        self.endings[ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections ended how.
    pub(super) fn endings(&self) -> Vec<(&'static str, u64)> {
        let count = |(ending, name): (Ending, _)| (name, self.endings[ending as usize].load(Ordering::Relaxed));
        Ending::ALL.map(count).to_vec()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every critical section leaves the table whole.
        lock(&self.table)
    }
}

impl Place {
    /// Whose CPU time serving it is.
    pub(super) fn account(&self) -> &Account {
        &self.peers.accounts[self.class as usize]
    }

    /// Its request has come: it is not idle any more.
    pub(super) fn asked(&self) {
        let mut table = self.peers.table();
        table.connections.iter_mut().filter(|one| one.id == self.id).for_each(|one| one.asked = true);
    }

    /// What is to be ended when the place is another's.
    pub(super) fn served_by(peers: &Peers, id: u64, task: AbortHandle) {
        match peers.table().connections.iter_mut().find(|one| one.id == id) {
            Some(connection) => connection.task = Some(task),
            // Another's already, or done.
            None => task.abort(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.peers.table().connections.retain(|one| one.id != self.id);
    }
}

/// CPU time that may be spent on something.
#[derive(Debug)]
pub(super) struct Account(Mutex<Throttle>);

impl Account {
    pub(super) fn new(share: f64) -> Account {
        Account(Mutex::new(Throttle::new(share, Instant::now())))
    }

    /// How long nothing may be spent from now on.
    pub(super) fn owed(&self, now: Instant) -> Option<Duration> {
        self.spend(Duration::ZERO, now)
    }

    /// So much was spent.
    pub(super) fn spend(&self, cpu: Duration, now: Instant) -> Option<Duration> {
        lock(&self.0).spent(cpu, now)
    }
}

/// Whom an address counts as: a network of one owner has one IPv4 address, or 2^64 of IPv6.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(peers: &Peers, name: &str) -> u64 {
        peers.endings().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn of(peers: &Peers, address: &str) -> usize {
        let peer = peer_of(address.parse().unwrap());
        peers.table().connections.iter().filter(|one| one.peer == peer).count()
    }

    #[test]
    fn a_peer_that_says_nothing_keeps_nobody_out_and_its_own_newcomers_take_its_places() {
        let (peers, start) = (Peers::new(), Instant::now());
        let mut places: Vec<_> = (0..40).filter_map(|_| peers.admit("10.0.0.1".parse().unwrap(), start)).collect();
        assert_eq!((places.len(), ended(&peers, "refused")), (PEER_MAX, 24));
        places[0].asked();
        places.extend((0..5).filter_map(|_| peers.admit("10.0.0.1".parse().unwrap(), start + WAIT_MIN)));
        assert_eq!((of(&peers, "10.0.0.1"), ended(&peers, "displaced")), (PEER_MAX, 5));
        assert!(peers.table().connections.iter().any(|one| one.id == places[0].id), "a request under way stays");
        drop(places);
        assert_eq!(of(&peers, "10.0.0.1"), 0);
    }

    #[test]
    fn what_is_short_is_shared_by_peers() {
        let (peers, now) = (Peers::new(), Instant::now());
        let greedy = ["10.0.0.1", "10.0.0.2"].map(|peer| [peer; PEER_MAX]).concat();
        let mut places: Vec<_> = greedy.iter().filter_map(|peer| peers.admit(peer.parse().unwrap(), now)).collect();
        assert_eq!(places.len(), CLASS_MAX);
        places.extend(peers.admit("10.0.0.3".parse().unwrap(), now));
        assert_eq!((of(&peers, "10.0.0.3"), ended(&peers, "displaced")), (1, 1));
        places.extend((0..100).filter_map(|_| peers.admit("10.0.0.3".parse().unwrap(), now)));
        let shares = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|peer| of(&peers, peer));
        assert!(
            shares.iter().sum::<usize>() == CLASS_MAX && shares.iter().all(|share| (9..=12).contains(share)),
            "{shares:?}"
        );
        assert!(peers.admit("127.0.0.1".parse().unwrap(), now).is_some(), "this machine has places of its own");
        assert_eq!(of(&peers, "10.0.0.1"), shares[0]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let peer = |address: &str| peer_of(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!((peer("::1"), peer("::ffff:10.0.0.1")), ("::1".parse().unwrap(), "10.0.0.1".parse().unwrap()));
    }
}
