//! Starting a VMM: its process, what it inherits, and its first message.
//!
//! VMMs ask the kernel to be killed when the *thread* that started them dies; see `fleet` for which threads
//! may call [`start`].

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use control::{CONTROL_FD, GuestConfig, LINUX_FD, PROTOCOL_VERSION, PUBLISHED_FD, STORE_FD, SWAP_FD, ToVmm};
use dedup::{Descriptors, Domain, VmmId};
use pager::SwapFile;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::config::RunConfig;
use crate::error::Error;
use crate::fleet::console;
use crate::fleet::domains::{Domains, Membership};
use crate::fleet::link::{Link, OUTBOX_MAX};
use crate::fleet::orders::Grant;
use crate::fleet::socket;
use crate::plan::PlannedGuest;
use crate::request::overhead::tables_bytes;

/// Most CPU that all scanners together may use while they gain, in CPUs: dedup must leave the guests room to
/// run.
const SCANNERS_CPU_SHARE: f64 = 1.0;
/// Most CPU that one scanner may use, in CPUs: a pass over 256 MiB every 0.2 s at 0.6 µs a page.
const SCANNER_CPU_SHARE_MAX: f64 = 0.2;

/// What the task of a guest has to itself.
#[derive(Debug)]
pub(crate) struct Life {
    /// The process.
    pub(crate) child: Child,
    /// What it says.
    pub(crate) reader: OwnedReadHalf,
    /// Its place in its domain.
    pub(crate) membership: Membership,
}

/// Has a VMM join the domain of its guest and starts it. One that could not be started leaves its domain as
/// it was.
pub(crate) fn start(
    config: &RunConfig,
    plan: &PlannedGuest,
    domains: &Domains,
    home_frames: u32,
    id: VmmId,
) -> Result<(Link, Life), Error> {
    let membership = domains.join(&plan.domain, plan.levers.dedup, home_frames, id, plan.pages())?;
    let has_console = id.guest == 0 && config.has_console();
    match start_vmm(config, plan, membership.domain(), has_console) {
        Ok((pid, outbox, child, reader)) => Ok((Link::new(id, pid, outbox), Life { child, reader, membership })),
        Err(source) => {
            // It was told nothing and held nothing: there is nothing to tell anybody else.
            domains.leave(membership);
            Err(Error::Spawn { guest: plan.name.clone(), source })
        }
    }
}

/// What a VMM is told first: all of its guest `number` of `guests`.
pub(crate) fn start_message(
    config: &RunConfig,
    guests: usize,
    number: usize,
    plan: &PlannedGuest,
    grant: Grant,
    domain: &Domain,
    kernel_tier: bool,
) -> ToVmm {
    let scanner_idle_cpu_share = config.dedup_cpu_share / guests as f64;
    let scanner_cpu_share = (SCANNERS_CPU_SHARE / guests as f64).min(SCANNER_CPU_SHARE_MAX).max(scanner_idle_cpu_share);
    let start = GuestConfig {
        scanner_cpu_share,
        scanner_idle_cpu_share,
        kernel_tier,
        ..guest_config(config, number as u32, plan, grant, domain)
    };
    ToVmm::Start(Box::new(start))
}

/// The process, and the two ways of its control socket.
fn start_vmm(
    config: &RunConfig,
    plan: &PlannedGuest,
    domain: &Domain,
    has_console: bool,
) -> io::Result<(u32, mpsc::Sender<ToVmm>, Child, OwnedReadHalf)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let Descriptors { store, published } = domain.descriptors().map_err(io::Error::other)?;
    let mut inherited = vec![(CONTROL_FD, OwnedFd::from(theirs)), (STORE_FD, store), (PUBLISHED_FD, published)];
    if let Some(swap) = config.swap.files().filter(|_| plan.swap_bytes > 0) {
        let file = SwapFile::create(&swap.directory, plan.swap_bytes).map_err(io::Error::other)?;
        inherited.push((SWAP_FD, file.into_fd()));
    }
    if let Some(linux) = &plan.linux {
        let console = has_console.then(console::attach).transpose()?;
        inherited.extend((LINUX_FD..).zip(linux.open(console).map_err(io::Error::other)?));
    }
    let mappings = inherited.into_iter().map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    let child = Command::new(&config.vmm.program)
        .args(&config.vmm.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C at the terminal is for the host alone; it ends the guests in order.
        .process_group(0)
        .kill_on_drop(true)
        .fd_mappings(mappings)
        .map_err(io::Error::other)?
        .spawn()?;
    let (reader, writer) = UnixStream::from_std(ours)?.into_split();
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    tokio::spawn(socket::send_all(writer, messages));
    Ok((child.id().unwrap_or_default(), outbox, child, reader))
}

fn guest_config(config: &RunConfig, number: u32, plan: &PlannedGuest, grant: Grant, domain: &Domain) -> GuestConfig {
    GuestConfig {
        protocol_version: PROTOCOL_VERSION,
        name: plan.name.clone(),
        guest: number,
        memory_bytes: plan.memory_bytes,
        tables_bytes: tables_bytes(plan.memory_bytes),
        vcpus: config.vcpus,
        vcpu: config.vcpu,
        workload: plan.workload as u32,
        seed: config.seed,
        linux: plan.linux.as_ref().map(|linux| linux.config(number == 0 && config.has_console())),
        image: plan.image.clone(),
        levers: plan.levers,
        store_frames: domain.store_frames(),
        hash_secret: domain.hash_secret(),
        scanner_cpu_share: 0.0,
        scanner_idle_cpu_share: 0.0,
        allocation_bytes: grant.allocation_bytes,
        balloon_bytes: grant.balloon_bytes,
        floor_bytes: policy::default_floor(plan.memory_bytes),
        active_permille: plan.active_permille,
        vma_budget: plan.vma_budget,
        swap: plan.swap_bytes > 0,
        prefetch: config.prefetch,
        kernel_tier: false,
        kernel_page_price: grant.kernel_page_price,
    }
}
