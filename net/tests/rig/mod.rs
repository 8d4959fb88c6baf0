//! A device on a link that remembers, and drivers of its two queues.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use chains::{BrokenRing, driver::Driver};
use net::{Link, Net, Offloads, Progress};

pub const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 7];

/// A link whose other end is the test.
#[derive(Default)]
pub struct Wire {
    pub sent: Mutex<Vec<Vec<u8>>>,
    pub incoming: Mutex<VecDeque<Vec<u8>>>,
    pub offloads: Mutex<Offloads>,
    /// What every call fails with.
    pub failing: Mutex<Option<io::ErrorKind>>,
}

impl Wire {
    fn state(&self) -> io::Result<()> {
        self.failing.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Link for Wire {
    fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.state()?;
        self.sent.lock().unwrap().push(packet.to_vec());
        Ok(())
    }
    fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        self.state()?;
        let packet = self.incoming.lock().unwrap().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        into[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }
    fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        *self.offloads.lock().unwrap() = offloads;
        Ok(())
    }
}

pub struct Rig<L> {
    pub net: Net<L>,
    pub receive: Driver,
    pub transmit: Driver,
}

impl<L: Link> Rig<L> {
    pub fn with(link: L) -> Self {
        let net = Net::new(link, MAC, Some(1500));
        net.set_features(net.features()).unwrap();
        Rig { net, receive: Driver::new(), transmit: Driver::new() }
    }

    pub fn receive(&mut self) -> Result<Progress, BrokenRing> {
        self.net.receive(&mut self.receive.queue, &self.receive.memory)
    }

    pub fn transmit(&mut self) -> Result<Progress, BrokenRing> {
        self.net.transmit(&mut self.transmit.queue, &self.transmit.memory)
    }
}

impl Rig<Wire> {
    pub fn new() -> Self {
        Rig::with(Wire::default())
    }

    /// Puts a packet on the link.
    pub fn arrives(&self, packet: &[u8]) {
        self.net.link().incoming.lock().unwrap().push_back(packet.to_vec());
    }
}

/// A packet with a header of zeroes and a frame of this length that is easy to see.
pub fn packet(frame_bytes: usize) -> Vec<u8> {
    [vec![0; 12], (0..frame_bytes).map(|byte| (byte % 251) as u8 + 1).collect()].concat()
}
