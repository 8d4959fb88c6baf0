//! What a Linux guest is built of: a PC, and a kernel that is loaded into it.
//!
//! ```text
//!   descriptors --> Kernel (its files, mapped) --boot::prepare--> registers --> Vm, vCPUs
//!                        `--> Loading --boot::prepare--> pages --populate--> guest memory
//! ```
//!
//! The files are mapped, so that a guest's allocation need not hold them twice.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};

use block::{Access, Block, FileDisk};
use boot::VirtioMmio;
use control::{GuestConfig, LinuxConfig};
use net::{Net, Tap};
use wire::{block::SECTOR_BYTES, pc::INTERRUPT_COM1};

use super::{
    assembled::{Around, Assembled},
    kernel::{Kernel, Loading},
};
use crate::{
    Error,
    board::{Bus, End, Gate, PcBoard, Wish},
    devices::{self, Console, Devices, Files, Parts},
    kvm::Vm,
    memory::Layout,
    sys::{file::FileBytes, ram::Ram},
    vcpus::Vcpus,
};

/// What a guest has besides.
pub(super) struct Belongings {
    devices: Files,
    console: Option<UnixStream>,
}

/// Reads and takes what `files` are, in the order of `linux`.
pub(super) fn take(
    config: &GuestConfig,
    linux: &LinuxConfig,
    files: Vec<OwnedFd>,
) -> Result<(Kernel, Belongings), Error> {
    let mut files = files.into_iter();
    let mut next = |what: &str| files.next().ok_or_else(|| Error::Control(format!("no descriptor for the {what}")));
    let kernel = map(next("kernel")?)?;
    let initrd = linux.initrd.then(|| map(next("initial RAM disk")?)).transpose()?;
    let random = File::from(next("random numbers")?);
    let console = linux.console.then(|| next("console")).transpose()?.map(UnixStream::from);
    let mut devices = Files { random, disks: Vec::new(), taps: Vec::new() };
    for (number, &read_only) in linux.read_only_disks.iter().enumerate() {
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        let disk = FileDisk::new(next("disk")?.into(), access, SECTOR_BYTES as u32);
        let disk = disk.map_err(|error| Error::Device(format!("disk {number}"), error.to_string()))?;
        devices.disks.push(Block::new(disk, &format!("{}-disk{number}", config.name)));
    }
    for (number, &mac) in linux.macs.iter().enumerate() {
        let tap = Tap::new(next("tap")?.into());
        let tap = tap.map_err(|error| Error::Device(format!("network {number}"), error.to_string()))?;
        devices.taps.push(Net::new(tap, mac, None));
    }
    let places = devices.places() + usize::from(config.levers.balloon);
    let kernel = Kernel {
        kernel,
        initrd,
        command_line: linux.command_line.clone(),
        ram_bytes: config.memory_bytes,
        vcpus: config.vcpus,
        places: (0..places).map_while(VirtioMmio::place).collect(),
    };
    Ok((kernel, Belongings { devices, console }))
}

fn map(file: OwnedFd) -> Result<FileBytes, Error> {
    FileBytes::map(&file.into()).map_err(Error::system("mapping what is to be started"))
}

/// The guest that `config` describes, in `ram`.
pub(super) fn assemble(
    config: &GuestConfig,
    (kernel, belongings): (Kernel, Belongings),
    ram: Ram,
    layout: &Layout,
    parts: &Parts,
) -> Result<Assembled, Error> {
    let vm = Vm::pc(ram, layout, kernel.prepare()?.start, config.vcpus)?;
    let mut bus = Bus::default();
    let devices = Devices::pc(&mut bus, &vm, &kernel.places, parts, belongings.devices)?;
    let line = devices::interrupt(&vm, INTERRUPT_COM1)?;
    let console = Console::attach(config.name.clone(), line, belongings.console)?;
    let board = Arc::new(PcBoard::new(bus, Arc::new(Gate::default()), console, vm.sci()));
    let vcpus = Vcpus::kvm(&vm, board.clone())?;
    let kernel = Some(Loading { kernel, layout: layout.clone() });
    Ok(Assembled { around: Around::Pc(board), devices, kernel, vm: Some(vm), vcpus })
}

/// What a guest's end means, with what its vCPUs came to if not to that. Its last lines go to the log if it
/// was not as it should be.
pub(super) fn verdict(board: &PcBoard, error: Option<Error>) -> Result<(), String> {
    let panic = board.console().panic().map(|reason| format!("kernel panic: {reason}"));
    let why = match board.end() {
        Some(End::Wished(Wish::PowerOff)) => return Ok(()),
        Some(End::Wished(Wish::Reset)) => panic,
        Some(End::Shutdown) => Some(panic.unwrap_or_else(|| "triple fault: an exception found no handler".into())),
        None => Some(error.map_or_else(|| "its vCPUs ended".into(), |error| error.to_string())),
    };
    let Some(why) = why else { return Ok(()) };
    board.console().last_lines().iter().for_each(|line| tracing::error!("console: {line}"));
    Err(why)
}
