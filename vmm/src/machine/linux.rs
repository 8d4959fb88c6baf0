//! What a Linux guest is built of: a PC, and a kernel that is loaded into it.
//!
//! ```text
//!   descriptors --> Kernel (its files, read) --boot::prepare--> registers --> Vm, vCPUs
//!                        `--> Loading --boot::prepare--> pages --populate--> guest memory
//! ```
//!
//! The files' bytes are this process's own memory until they are loaded, counted as overhead, and gone then.

use std::{fs::File, io::Read, os::fd::OwnedFd, sync::Arc};

use boot::VirtioMmio;
use control::{GuestConfig, LinuxConfig};
use pager::{Gfn, GuestMemory};
use wire::pc::INTERRUPT_COM1;

use super::{Around, build::Assembled};
use crate::{
    Error,
    board::{Bus, End, Gate, PcBoard, Wish},
    devices::{self, Console, Devices, Parts},
    kvm::Vm,
    memory::Layout,
    sys::ram::Ram,
    vcpus::Vcpus,
};

/// What is started, and what it is told.
pub(super) struct Kernel {
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    command_line: String,
    ram_bytes: u64,
    vcpus: u32,
    devices: Vec<VirtioMmio>,
}

impl Kernel {
    /// Reads what `files` are.
    pub fn read(config: &GuestConfig, linux: &LinuxConfig, files: Vec<OwnedFd>) -> Result<Kernel, Error> {
        let mut files = files.into_iter();
        let mut read = |what| {
            let mut bytes = Vec::new();
            let file = files.next().ok_or_else(|| Error::Control(format!("no descriptor for the {what}")))?;
            File::from(file).read_to_end(&mut bytes).map_err(Error::system("reading what is to be started"))?;
            Ok::<_, Error>(bytes)
        };
        Ok(Kernel {
            kernel: read("kernel")?,
            initrd: linux.initrd.then(|| read("initial RAM disk")).transpose()?,
            command_line: linux.command_line.clone(),
            ram_bytes: config.memory_bytes,
            vcpus: config.vcpus,
            devices: (0..usize::from(config.levers.balloon)).map_while(VirtioMmio::place).collect(),
        })
    }

    fn prepare(&self) -> Result<boot::Boot<'_>, Error> {
        let config = boot::Config {
            kernel: &self.kernel,
            initrd: self.initrd.as_deref(),
            command_line: &self.command_line,
            ram_bytes: self.ram_bytes,
            vcpus: self.vcpus,
            devices: &self.devices,
            prefer: boot::Protocol::default(),
        };
        Ok(boot::prepare(&config)?)
    }
}

/// A kernel on its way into guest memory.
pub(super) struct Loading {
    kernel: Kernel,
    layout: Layout,
}

impl Loading {
    /// Puts it there.
    pub fn load(self, memory: &GuestMemory) -> Result<(), Error> {
        for (gpa, bytes) in self.kernel.prepare()?.pages() {
            memory.populate(Gfn(self.layout.page(gpa)), &bytes).map_err(Error::Memory)?;
        }
        Ok(())
    }
}

/// The guest that `config` describes, in `ram`.
pub(super) fn assemble(
    config: &GuestConfig,
    kernel: Kernel,
    ram: Ram,
    layout: &Layout,
    parts: &Parts,
) -> Result<Assembled, Error> {
    let vm = Vm::pc(ram, layout, kernel.prepare()?.start, config.vcpus)?;
    let mut bus = Bus::default();
    let devices = Devices::pc(&mut bus, &vm, &kernel.devices, parts)?;
    let line = devices::interrupt(&vm, INTERRUPT_COM1)?;
    let console = Arc::new(Console::to_log(config.name.clone(), Some(line)));
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
