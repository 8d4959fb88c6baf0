//! One turn of work on the queue of frames to send.

use std::{io, mem};

use chains::{Bounds, BrokenRing, Chain, Served};
use virtio_queue::{DescriptorChain, Queue};
use vm_memory::GuestMemory;
use wire::net::HEADER_BYTES;

use crate::device::{Net, Progress};
use crate::header::{self, From};
use crate::link::{Link, Offloads};
use crate::{BYTES_PER_TURN, Error, FRAMES_PER_TURN, PACKET_BYTES_MAX, PACKET_BYTES_MIN};

impl<L: Link> Net<L> {
    /// Sends what the driver made available.
    ///
    /// # Errors
    /// The device needs a reset. What was refused or dropped is no error, see [`Progress::refused`].
    pub fn transmit<M: GuestMemory>(&self, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let bounds = Bounds { chains: FRAMES_PER_TURN, work: BYTES_PER_TURN };
        let (mut packet, offloads) = {
            let mut state = self.state();
            (mem::take(&mut state.transmitted), state.sends)
        };
        let turn = chains::turn(queue, memory, bounds, |chain, size| {
            let result = self.send(chain, size, memory, offloads, &mut packet);
            let counts = &mut self.state().counts;
            match result {
                Ok(()) => {
                    counts.sent_frames += 1;
                    counts.sent_bytes += (packet.len() - HEADER_BYTES) as u64;
                }
                Err(Error::Link { .. }) => counts.send_dropped += 1,
                Err(_) => counts.rejected += 1,
            }
            (Served { written_bytes: 0, work: packet.len() as u64 }, result.err())
        });
        self.state().transmitted = packet;
        turn.map_err(BrokenRing::of("transmit"))
    }

    fn send<M: GuestMemory>(
        &self,
        chain: DescriptorChain<&M>,
        queue_size: u16,
        memory: &M,
        offloads: Offloads,
        packet: &mut Vec<u8>,
    ) -> Result<(), Error> {
        packet.clear();
        let Chain { mut readable, writable } = Chain::check(chain, memory, queue_size)?;
        if writable.bytes() > 0 {
            return Err(Error::Direction { bytes: writable.bytes() });
        }
        let bytes = readable.bytes();
        if !(PACKET_BYTES_MIN as u64..=PACKET_BYTES_MAX as u64).contains(&bytes) {
            return Err(Error::PacketLength { bytes });
        }
        packet.resize(bytes as usize, 0);
        readable.read(memory, packet)?;
        if let Some((head, frame)) = packet.split_first_chunk_mut::<HEADER_BYTES>() {
            *head = header::check(*head, frame.len(), offloads, From::Driver)?;
        }
        loop {
            match self.link.send(packet) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|source| Error::Link { doing: "send", source }),
            }
        }
    }
}
