//! Drivers of the devices with requests, over the register file: what they agree on is what their rings do.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ::block::{Access, Block, FileDisk};
use ::net::{Link, Net, Offloads};
use ::rng::Rng;
use chains::driver::{DATA, Driver, QUEUE_SIZE, WRITE};
use vm_memory::GuestMemoryMmap;
use wire::mmio::{QUEUE_SIZE as QUEUE_SIZE_REGISTER, *};
use wire::virtio::*;

use super::*;

/// Counts what it is told.
#[derive(Default)]
struct Interrupts(AtomicU32);

impl Wires for Arc<Interrupts> {
    fn set_interrupt(&self, asserted: bool) {
        self.0.fetch_add(u32::from(asserted), Ordering::Relaxed);
    }
    fn notify(&self, _: usize) {}
}

/// A device with a driver that has started, on queue `index` of it.
struct Machine<D> {
    mmio: VirtioMmio<D, Arc<GuestMemoryMmap<()>>, Arc<Interrupts>>,
    interrupts: Arc<Interrupts>,
    driver: Driver,
    index: usize,
}

impl<D: VirtioDevice> Machine<D> {
    fn new(device: D, index: usize, without: u64) -> Self {
        let (driver, interrupts) = (Driver::new(), Arc::new(Interrupts::default()));
        let mmio = VirtioMmio::new(device, Arc::new(driver.memory.clone()), interrupts.clone());
        let set = |register, value: u32| mmio.write(register, &value.to_le_bytes());
        let features = mmio.device().features() & !without;
        set(STATUS, STATUS_ACKNOWLEDGE);
        set(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            set(DRIVER_FEATURES_SEL, select);
            set(DRIVER_FEATURES, half);
        }
        let agreed = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        set(STATUS, agreed);
        set(QUEUE_SEL, index as u32);
        set(QUEUE_SIZE_REGISTER, QUEUE_SIZE.into());
        set(QUEUE_DESC_LOW, driver.queue.desc_table() as u32);
        set(QUEUE_DRIVER_LOW, driver.queue.avail_ring() as u32);
        set(QUEUE_DEVICE_LOW, driver.queue.used_ring() as u32);
        set(QUEUE_READY, 1);
        set(STATUS, agreed | STATUS_DRIVER_OK);
        assert_eq!(mmio.refused_total(), 0);
        Machine { mmio, interrupts, driver, index }
    }

    fn process(&self) {
        while self.mmio.process(self.index) == TurnEnd::More {}
    }

    fn interrupts(&self) -> u32 {
        self.interrupts.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_disk_is_read_through_the_registers() {
    let file = tempfile();
    file.write_all_at(&[0x42; 4096], 0).unwrap();
    let disk = FileDisk::new(file, Access::ReadOnly, 512).unwrap();
    let mut machine = Machine::new(BlockDevice::new(Block::new(disk, "")), 0, 0);
    let mut capacity = [0; 4];
    machine.mmio.read(CONFIG, &mut capacity);
    assert_eq!(capacity, 8u32.to_le_bytes());
    let header = [&wire::block::T_IN.to_le_bytes()[..], &[0; 4], &7u64.to_le_bytes()].concat();
    machine.driver.write(DATA, &header);
    let head = machine.driver.offer(&[(DATA, 16, 0), (DATA + 64, 513, WRITE)]);
    machine.process();
    assert_eq!(machine.driver.take_used(), [(head, 513)]);
    assert_eq!(machine.driver.read(DATA + 64, 513), [vec![0x42; 512], vec![0]].concat());
    assert_eq!(machine.interrupts(), 1);
}

#[test]
fn notifications_are_held_back_where_the_driver_agreed_to_it() {
    for (without, expected) in [(0, [0, 1, 1]), (1 << F_EVENT_IDX, [1, 2, 3])] {
        let device = RngDevice::new(Rng::new(File::open("/dev/urandom").unwrap()));
        let mut machine = Machine::new(device, 0, without);
        // used_event, behind the available ring (2.7.6): tell me of the second.
        let used_event = machine.driver.queue.avail_ring() + 4 + 2 * u64::from(QUEUE_SIZE);
        machine.driver.write(used_event, &1u16.to_le_bytes());
        let told = [0; 3].map(|_: u8| {
            machine.driver.offer(&[(DATA, 8, WRITE)]);
            machine.process();
            machine.mmio.write(INTERRUPT_ACK, &INTERRUPT_USED_BUFFER.to_le_bytes());
            machine.interrupts()
        });
        assert_eq!(told, expected);
        assert_ne!(machine.driver.read(DATA, 8), [0; 8]);
    }
}

/// A link that has one frame after the other.
struct Endless;

impl Link for Endless {
    fn send(&self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn receive(&self, into: &mut [u8]) -> std::io::Result<usize> {
        into[..72].fill(0);
        Ok(72)
    }
    fn set_offloads(&self, _: Offloads) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn frames_are_received_until_there_are_no_buffers() {
    let device = NetDevice::new(Net::new(Endless, [2; 6], None));
    let mut machine = Machine::new(device, wire::net::RECEIVE_QUEUE, 0);
    (0..100).for_each(|_| _ = machine.driver.offer(&[(DATA, 100, WRITE)]));
    machine.process();
    assert_eq!(machine.driver.take_used().len(), 100);
    assert!(machine.interrupts() > 0 && machine.mmio.device().net().holds_frame());
    machine.mmio.write(STATUS, &[0; 4]);
    assert!(!machine.mmio.device().net().holds_frame());
}

fn tempfile() -> File {
    let path = std::env::temp_dir().join(format!("ballast-disk-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}
