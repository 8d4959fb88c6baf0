//! The life of a VMM process, from its first message to its last.
//!
//! ```text
//!   Start ─► build ─► (image read) ─► Ready ─► Run ─► ticks ─┬─► Stop, or the guest's own end ─► Finished
//!                                                     │      └─► a failure ─► Finished(why)
//!                                                     ├ clock, statistics, measure, status
//!                                                     └ Allocate, Reclaim, Hold, Pause, Resume, ...
//! ```
//!
//! One thread reads the socket, and hands the scanner what is for it; this one does everything else. The
//! scanner writes its requests itself.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    process::ExitCode,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use control::{
    CONTROL_FD, GuestConfig, LINUX_FD, LinuxConfig, MergeRequest, PROTOCOL_VERSION, PUBLISHED_FD, STATUS_INTERVAL,
    STORE_FD, SWAP_FD, ToHost, ToVmm, encode,
};
use dedup::ScannerHandle;

use crate::{
    Error, control_thread,
    failure::Failures,
    machine::{Inherited, Machine},
    shortage::Patient,
    sync::lock,
    sys::{self, inherited},
};

/// How often the guest's clock is set, and its end looked for, while any of its vCPUs runs.
const TICK: Duration = Duration::from_millis(10);

/// The write half of the control socket.
#[derive(Clone)]
struct Host(Arc<Mutex<Patient>>);

impl Host {
    fn send(&self, message: &ToHost) -> Result<(), Error> {
        let frame = encode(message).map_err(|error| Error::Control(error.to_string()))?;
        let mut stream = lock(&self.0);
        stream.write_all(&frame).map_err(|error| Error::Control(error.to_string()))
    }
}

/// Runs the guest that the host process describes on the inherited control socket.
pub fn run_process() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ballast vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    sys::die_with_parent().map_err(Error::system("asking to end with the host process"))?;
    sys::ignore_interrupts().map_err(Error::system("ignoring interrupts"))?;
    let inherit =
        |fd| inherited::take(fd).map_err(Error::system("taking over a descriptor (this command is the host's to run)"));
    let (socket, store, published) = (inherit(CONTROL_FD)?, inherit(STORE_FD)?, inherit(PUBLISHED_FD)?);
    let socket = UnixStream::from(socket);
    let writing = socket.try_clone().map_err(Error::system("copying the control socket"))?;
    let host = Host(Arc::new(Mutex::new(Patient(writing))));
    let scanner = ScannerHandle::default();
    let messages = control_thread::spawn(socket, scanner.clone())?;
    let config = match messages.recv() {
        Ok(ToVmm::Start(config)) if config.protocol_version == PROTOCOL_VERSION => *config,
        Ok(ToVmm::Start(config)) => {
            let (theirs, ours) = (config.protocol_version, PROTOCOL_VERSION);
            return Err(Error::Control(format!("the host speaks version {theirs}, this VMM version {ours}")));
        }
        Ok(other) => return Err(Error::Control(format!("{other:?} came before Start"))),
        Err(_) => return Ok(()),
    };
    let swap = if config.swap { Some(inherit(SWAP_FD)?) } else { None };
    let files = config.linux.as_ref().map_or(0, LinuxConfig::files);
    let linux = (LINUX_FD..).take(files).map(inherit).collect::<Result<_, _>>()?;
    live(config, Inherited { store, published, swap, linux }, scanner, &host, &messages)
}

fn live(
    config: GuestConfig,
    inherited: Inherited,
    scanner: ScannerHandle,
    host: &Host,
    messages: &mpsc::Receiver<ToVmm>,
) -> Result<(), Error> {
    let failures = Failures::default();
    let (to_host, lost) = (host.clone(), failures.clone());
    let send = move |request: MergeRequest| {
        if let Err(error) = to_host.send(&ToHost::Merge(request)) {
            lost.report(error.to_string());
        }
    };
    let built = Machine::build(config, inherited, failures.clone(), scanner, send);
    let mut machine = match built {
        Ok(machine) => machine,
        Err(error) => {
            let result = Err(error.to_string());
            return host.send(&ToHost::Finished { result, status: Box::default() });
        }
    };
    let mut loading = machine.load()?;
    let mut ready = false;

    let mut next_status = Instant::now();
    let result = loop {
        let until_status = next_status.saturating_duration_since(Instant::now());
        match messages.recv_timeout(if machine.is_parked() { until_status } else { TICK }) {
            Ok(message) => obey(&machine, message)?,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // The host is gone: nobody will ask for this guest again.
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Error::Control("the host closed it".into())),
        }
        machine.tick();
        machine.end_hold();
        machine.poll_statistics();
        if let Some(reason) = failures.first() {
            machine.kill();
            break Err(reason);
        }
        if machine.has_ended() {
            break machine.verdict();
        }
        if let Some(loaded) = loading.take_if(|loading| loading.is_finished()).map(JoinHandle::join) {
            match loaded {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    machine.kill();
                    break Err(error.to_string());
                }
                Err(_) => {
                    machine.kill();
                    break Err("the loader panicked".into());
                }
            }
        }
        if !ready && loading.is_none() {
            ready = true;
            host.send(&ToHost::Ready)?;
        }
        let now = Instant::now();
        if now >= next_status {
            next_status = now + STATUS_INTERVAL;
            machine.measure();
            host.send(&ToHost::Status(Box::new(machine.status())))?;
        }
    };
    machine.measure();
    host.send(&ToHost::Finished { result, status: Box::new(machine.status()) })?;
    // A vCPU or device thread may wait for a page that will never come; the process takes them with it.
    if failures.first().is_some() {
        std::process::exit(1);
    }
    Ok(())
}

fn obey(machine: &Machine, message: ToVmm) -> Result<(), Error> {
    match message {
        ToVmm::Start(_) => return Err(Error::Control("Start came twice".into())),
        ToVmm::Run | ToVmm::Resume => machine.resume(),
        ToVmm::Allocate { allocation_bytes, balloon_bytes, kernel_page_price } => {
            machine.allocate(allocation_bytes, balloon_bytes, kernel_page_price);
        }
        ToVmm::Pause => machine.order_pause(),
        // These go to the scanner by themselves.
        ToVmm::Merge(_) | ToVmm::Hurry => {}
        ToVmm::Reclaim(when) => machine.set_reclaim(when),
        ToVmm::PollStatistics { interval_ms } => machine.set_statistics_interval_ms(interval_ms),
        ToVmm::Hold { ms } => machine.hold(Duration::from_millis(ms)),
        ToVmm::Starved(starved) => machine.set_starved(starved),
        ToVmm::Sample { period_ms } => machine.set_sample_period_ms(period_ms),
        ToVmm::TakeReports { delay_ms, pages_max } => machine.set_report_pace(delay_ms, pages_max),
        ToVmm::HintPages(round) => machine.hint_pages(round),
        ToVmm::Attend => machine.memory().attended(),
        ToVmm::Stop => machine.stop_guest(),
    }
    Ok(())
}
