//! One turn of work on the queue of buffers to receive into.
//!
//! ```text
//!   link --receive--> packet --+--> enough buffers: written, all of them used at once
//!                       ^      |--> too few:        held, until the driver notifies
//!                       |      `--> can never fit:  dropped
//!                       `-- held from the last turn
//! ```
//!
//! Buffers are gathered before a byte is written; if there are too few, they stay available, as if they had
//! not been looked at.

use std::{io, mem};

use chains::{BrokenRing, Buffers, Chain, add_used_together};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemory;
use wire::net::HEADER_BYTES;

use crate::device::{Net, Progress, Received};
use crate::header::{self, From};
use crate::link::{Link, Offloads};
use crate::{BYTES_PER_TURN, Error, FRAMES_PER_TURN, PACKET_BYTES_MAX, PACKET_BYTES_MIN, QUEUE_SIZE_MAX};

/// Buffers used after which a turn takes no further frame: as many as one frame can take.
const BUFFERS_PER_TURN: usize = QUEUE_SIZE_MAX as usize;

/// What became of a frame.
enum Placed {
    /// It is in this many buffers.
    In(usize),
    /// There are too few buffers at the moment.
    Held,
    /// It can never be placed.
    Dropped,
    /// A buffer was wrong; it went back, and the frame with it.
    Refused(Error),
}

impl<L: Link> Net<L> {
    /// Hands frames to the driver, as long as there are frames and buffers.
    ///
    /// # Errors
    /// The device needs a reset. What was refused or dropped is no error, see [`Progress::refused`].
    pub fn receive<M: GuestMemory>(&self, queue: &mut Queue, memory: &M) -> Result<Progress, BrokenRing> {
        let (mut received, takes, merges) = {
            let mut state = self.state();
            (mem::take(&mut state.received), state.takes, state.merges)
        };
        received.packet.resize(PACKET_BYTES_MAX, 0);
        let turn = self.receive_turn(queue, memory, &mut received, takes, merges);
        self.state().received = received;
        turn.map_err(BrokenRing::of("receive"))
    }

    fn receive_turn<M: GuestMemory>(
        &self,
        queue: &mut Queue,
        memory: &M,
        received: &mut Received,
        takes: Offloads,
        merges: bool,
    ) -> Result<Progress, virtio_queue::Error> {
        let mut progress = Progress { used: false, more: true, refused: None };
        let (mut any, mut merged, mut bytes, mut buffers) = (false, false, 0, 0);
        queue.disable_notification(memory)?;
        for _ in 0..FRAMES_PER_TURN {
            if bytes >= BYTES_PER_TURN || buffers >= BUFFERS_PER_TURN {
                break;
            }
            let packet_bytes = match received.held_bytes {
                Some(held_bytes) => held_bytes,
                None => match self.next_frame(&mut received.packet, takes) {
                    Ok(Some(packet_bytes)) => packet_bytes,
                    // The driver may fill the queue in silence: it is looked at when there is a frame.
                    Ok(None) => {
                        progress.more = false;
                        break;
                    }
                    Err(error) => {
                        self.state().counts.receive_dropped += 1;
                        // A link that fails fails again: it says when it has frames.
                        progress.more = !matches!(error, Error::Link { .. });
                        progress.refused = Some(error);
                        if progress.more {
                            continue;
                        }
                        break;
                    }
                },
            };
            received.held_bytes = None;
            let placed = place(&mut received.packet[..packet_bytes], merges, queue, memory)?;
            bytes += packet_bytes as u64;
            let counts = &mut self.state().counts;
            match placed {
                Placed::In(used) => {
                    (any, merged, buffers) = (true, merged || used > 1, buffers + used);
                    counts.received_frames += 1;
                    counts.received_bytes += (packet_bytes - HEADER_BYTES) as u64;
                }
                Placed::Dropped => counts.receive_dropped += 1,
                Placed::Refused(error) => {
                    (any, merged) = (true, true);
                    counts.rejected += 1;
                    counts.receive_dropped += 1;
                    progress.refused = Some(error);
                }
                Placed::Held => {
                    received.held_bytes = Some(packet_bytes);
                    progress.more = false;
                    break;
                }
            }
        }
        // `virtio-queue` knows of one buffer of each group: where there was a group, it cannot know what the
        // driver wants to be told of.
        progress.used = any && (queue.needs_notification(memory)? || merged);
        Ok(progress)
    }

    /// The length of the next packet of the link, if there is one that the driver can take.
    fn next_frame(&self, packet: &mut [u8], takes: Offloads) -> Result<Option<usize>, Error> {
        let bytes = loop {
            match self.link.receive(packet) {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(source) => return Err(Error::Link { doing: "receive", source }),
            }
        };
        match packet.split_first_chunk_mut::<HEADER_BYTES>() {
            Some((head, _)) if (PACKET_BYTES_MIN..=PACKET_BYTES_MAX).contains(&bytes) => {
                *head = header::check(*head, bytes - HEADER_BYTES, takes, From::Link)?;
                Ok(Some(bytes))
            }
            _ => Err(Error::PacketLength { bytes: bytes as u64 }),
        }
    }
}

/// Puts a packet, whose header was checked, into buffers of the driver's.
fn place<M: GuestMemory>(
    packet: &mut [u8],
    merges: bool,
    queue: &mut Queue,
    memory: &M,
) -> Result<Placed, virtio_queue::Error> {
    let (start, size) = (queue.next_avail(), queue.size());
    let mut gathered: Vec<(u16, Buffers)> = Vec::new();
    let mut room_bytes = 0;
    while room_bytes < packet.len() as u64 {
        // All there can be, or all that is allowed.
        if gathered.len() == if merges { size.into() } else { 1 } {
            queue.set_next_avail(start);
            return Ok(Placed::Dropped);
        }
        let Some(chain) = queue.iter(memory)?.next() else {
            // Asked for here, where the last buffer was seen: the driver notifies of the next one.
            if queue.enable_notification(memory)? {
                continue;
            }
            queue.set_next_avail(start);
            return Ok(Placed::Held);
        };
        let head = chain.head_index();
        match Chain::check(chain, memory, size).map_err(Error::from).and_then(receivable) {
            Ok(buffers) => {
                room_bytes += buffers.bytes();
                gathered.push((head, buffers));
            }
            Err(error) => {
                let back: Vec<_> = gathered.iter().map(|&(head, _)| head).chain([head]).map(|head| (head, 0)).collect();
                add_used_together(queue, memory, &back)?;
                return Ok(Placed::Refused(error));
            }
        }
    }
    header::set_buffers(packet, gathered.len() as u16);
    let mut used = Vec::with_capacity(gathered.len());
    let mut left = &*packet;
    for (head, mut buffers) in gathered {
        let piece;
        (piece, left) = left.split_at(left.len().min(usize::try_from(buffers.bytes()).unwrap_or(usize::MAX)));
        if let Err(error) = buffers.write(memory, piece) {
            // Memory went away since the buffer was checked, and the driver with it.
            queue.set_next_avail(start);
            return Ok(Placed::Refused(error.into()));
        }
        used.push((head, piece.len() as u32));
    }
    add_used_together(queue, memory, &used)?;
    Ok(Placed::In(used.len()))
}

/// A buffer to receive into: "each buffer MUST be at least size of struct virtio_net_hdr" (5.1.6.3.1).
fn receivable(chain: Chain) -> Result<Buffers, Error> {
    let Chain { readable, writable } = chain;
    if readable.bytes() > 0 {
        return Err(Error::Direction { bytes: readable.bytes() });
    }
    if writable.bytes() < HEADER_BYTES as u64 {
        return Err(Error::ShortBuffer { bytes: writable.bytes() });
    }
    Ok(writable)
}
