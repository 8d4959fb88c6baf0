//! One `ballast run` watched from outside: each guest's figures, twice a second, as its metrics have them.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::memfd::{MFdFlags, memfd_create},
    unistd::Pid,
};

use crate::{
    kit::{
        error::Error,
        scrape::{children, free_address, get, sum_of},
        settings::{Step, Undo, heed_signals},
    },
    policy::rules::Rule,
};

pub const MIB: f64 = 1024.0 * 1024.0;
/// In the place of a directory: guests have no swap files.
pub const NO_SWAP: &str = "off";
/// When the tide turns, seconds after the guests' start: `tide` in the guest's own words.
pub const TURN: f64 = 30.0;
/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What is told of a run that failed.
const LAST_LINES: usize = 3;
/// How long guests may take to verify all they hold.
const GRACE: Duration = Duration::from_secs(120);

/// What to run.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The `ballast` program.
    pub program: &'a Path,
    /// RAM of each guest, MiB.
    pub memory_mib: u32,
    /// Host memory for all, MiB.
    pub budget_mib: u32,
    /// How long guests run.
    pub seconds: u32,
    /// Where their swap files are, or [`NO_SWAP`]; without it, where `ballast run` has them by itself.
    pub swap: Option<&'a Path>,
    /// What is special about each guest: all but its number, one for each.
    pub guests: Vec<&'a str>,
    /// Other arguments.
    pub arguments: Vec<&'a str>,
    /// Who divides memory.
    pub rule: Rule,
}

/// One guest at one moment; counters since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Host memory it may keep, bytes.
    pub allocation_bytes: f64,
    /// Operations of its workload.
    pub operations: f64,
    /// Time its vCPUs waited for pages, s.
    pub stall_seconds: f64,
    /// Sampling periods that have ended, and the share of pages touched in the last.
    pub periods: f64,
    /// As above.
    pub active_ratio: f64,
    /// Pages written to its swap file.
    pub swapped_out_pages: f64,
    /// Bytes of its RAM that are in its swap file.
    pub swapped_bytes: f64,
    /// What its workload has timed, all together and the longest, s.
    pub timed_seconds: f64,
    /// As above.
    pub timed_seconds_max: f64,
    /// CPU time of its vCPU threads, s.
    pub vcpu_seconds: f64,
}

/// What a guest may keep.
pub fn allocation(figures: &Figures) -> f64 {
    figures.allocation_bytes
}

/// All guests at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// Since the guests began, s.
    pub second: f64,
    /// By number.
    pub guests: Vec<Figures>,
}

/// The looks at a run, in order.
#[derive(Clone, Debug)]
pub struct Course(pub Vec<Look>);

impl Run<'_> {
    /// Runs it to its end. An error if it fails: then there is nothing to measure.
    pub fn watch(&self) -> Result<Course, Error> {
        self.watch_with(|_| {})
    }

    /// The same, and at each look something is done with the processes, the host's first.
    pub fn watch_with(&self, each: impl Fn(&[u32])) -> Result<Course, Error> {
        let address = free_address()?;
        let mut host = self.start(address)?;
        let undo = Undo::register(vec![Step::Terminate(host.pid())]);
        let looks = self.look(&mut host, address, each);
        drop(undo);
        let ended = host.ended();
        let looks = looks?;
        ended?;
        Ok(Course(looks))
    }

    /// Starts it, with its metrics at `address`.
    pub fn start(&self, address: SocketAddr) -> Result<Host, Error> {
        let mut command = self.command()?;
        command.args(["--guests", &self.guests.len().to_string()]);
        command.args(["--memory", &format!("{}MiB", self.memory_mib), "--budget", &format!("{}MiB", self.budget_mib)]);
        command.args(["--duration", &format!("{}s", self.seconds), "--metrics", &address.to_string()]);
        if let Some(swap) = self.swap {
            command.arg("--swap").arg(swap);
        }
        for (number, settings) in self.guests.iter().enumerate() {
            command.args(["--guest", &format!("{number}:{settings}")]);
        }
        let errors = memfd_create(c"ballast-stderr", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from);
        let errors = File::from(errors.map_err(Error::system("making a memfd"))?);
        let stderr = errors.try_clone().map_err(Error::system("making a memfd"))?;
        command.args(&self.arguments).stdout(Stdio::null()).stderr(stderr);
        eprintln!("policy: {command:?}");
        let failed = |source| Error::File { path: self.program.to_path_buf(), source };
        let child = heed_signals(&mut command).spawn().map_err(failed)?;
        Ok(Host { child, errors })
    }

    /// The product for its own rule; for others', its host linked here.
    fn command(&self) -> Result<Command, Error> {
        if self.rule == Rule::Ballast {
            let mut command = Command::new(self.program);
            command.arg("run");
            return Ok(command);
        }
        let this = std::env::current_exe().map_err(Error::system("finding this program"))?;
        let mut command = Command::new(this);
        command.args(["policy-host", "--rule", self.rule.name(), "--ballast"]).arg(self.program);
        Ok(command)
    }

    fn look(&self, host: &mut Host, address: SocketAddr, each: impl Fn(&[u32])) -> Result<Vec<Look>, Error> {
        let limit = Duration::from_secs(self.seconds.into()) + GRACE;
        let (begun, mut running) = (Instant::now(), None);
        let mut looks = Vec::new();
        while host.is_running()? {
            if begun.elapsed() > limit {
                return Err(Error::Guest(format!("ballast has not ended {} s after its time", GRACE.as_secs())));
            }
            thread::sleep(LOOK);
            let metrics = get(address).unwrap_or_default();
            if sum_of(&metrics, "ballast_host_guests", "state=\"running\"") < self.guests.len() as f64 {
                continue;
            }
            let second = running.get_or_insert_with(Instant::now).elapsed().as_secs_f64();
            let vmms = children(&PathBuf::from(format!("/proc/{}", host.pid())));
            let processes: Vec<u32> = std::iter::once(host.child.id()).chain(vmms.iter().copied()).collect();
            each(&processes);
            // VMMs are started in the order of their guests.
            let of = |(number, vmm): (usize, &u32)| Figures {
                vcpu_seconds: vcpu_seconds(*vmm),
                ..figures(&metrics, number)
            };
            let guests: Vec<_> = vmms.iter().enumerate().map(of).collect();
            if guests.len() != self.guests.len() {
                continue;
            }
            looks.push(Look { second, guests });
        }
        Ok(looks)
    }
}

/// A `ballast run` under way, and what it says on its standard error.
#[derive(Debug)]
pub struct Host {
    child: Child,
    errors: File,
}

impl Host {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool, Error> {
        Ok(self.child.try_wait().map_err(Error::system("waiting for ballast"))?.is_none())
    }

    /// Waits for its end. An error with the last it said if it failed.
    pub fn ended(&mut self) -> Result<(), Error> {
        let exit = self.child.wait().map_err(Error::system("waiting for ballast"))?;
        if exit.success() {
            return Ok(());
        }
        let mut said = String::new();
        let read = self.errors.rewind().and_then(|()| self.errors.read_to_string(&mut said));
        read.map_err(Error::system("reading what ballast said"))?;
        // Lines of progress begin with the time.
        let last: Vec<_> = said.lines().rev().filter(|line| !line.starts_with(' ')).take(LAST_LINES).collect();
        Err(Error::Guest(format!(
            "ballast ended with {exit}: {}",
            last.into_iter().rev().collect::<Vec<_>>().join("; ")
        )))
    }
}

fn figures(metrics: &str, number: usize) -> Figures {
    let label = format!("guest=\"guest{number}\"");
    let of = |family: &str| sum_of(metrics, family, &label);
    Figures {
        allocation_bytes: of("ballast_guest_allocation_bytes"),
        operations: of("ballast_guest_operations_total"),
        stall_seconds: of("ballast_guest_stall_seconds_total"),
        periods: of("ballast_guest_sampling_periods_total"),
        active_ratio: of("ballast_guest_active_ratio"),
        timed_seconds: of("ballast_guest_timed_seconds_sum"),
        timed_seconds_max: of("ballast_guest_timed_seconds_max"),
        vcpu_seconds: 0.0,
        swapped_bytes: sum_of(metrics, "ballast_guest_memory_bytes", &format!("{label},state=\"swapped\"")),
        swapped_out_pages: sum_of(metrics, "ballast_guest_swap_pages_total", &format!("{label},kind=\"out\"")),
    }
}

/// Threads of a process and their names; none once it is gone.
pub fn threads(pid: u32) -> Vec<(i32, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        Some((id, fs::read_to_string(task.path().join("comm")).ok()?))
    };
    tasks.filter_map(thread).collect()
}

/// CPU time of a process' vCPU threads, s; 0 once it is gone.
fn vcpu_seconds(pid: u32) -> f64 {
    let vcpus = threads(pid).into_iter().filter(|(_, name)| name.starts_with("vcpu"));
    let ns = |(thread, _): (i32, String)| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    vcpus.filter_map(ns).sum::<f64>() / 1e9
}

impl Course {
    /// Operations of a guest between two seconds for each second that its vCPUs ran or waited for pages: what
    /// it would do if nobody else wanted the CPU.
    pub fn pace(&self, guest: usize, from: f64, to: f64) -> f64 {
        let rate = |counter: fn(&Figures) -> f64| self.rate(guest, from, to, counter);
        rate(|figures| figures.operations)
            / (rate(|figures| figures.vcpu_seconds) + rate(|figures| figures.stall_seconds))
    }

    /// Looks between two seconds.
    pub fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &Look> {
        self.0.iter().filter(move |look| (from..=to).contains(&look.second))
    }

    /// Mean of a guest's figure between two seconds; not a number without a look.
    pub fn mean(&self, guest: usize, from: f64, to: f64, figure: fn(&Figures) -> f64) -> f64 {
        let (sum, count) = self
            .between(from, to)
            .fold((0.0, 0.0), |(sum, count), look| (sum + figure(&look.guests[guest]), count + 1.0));
        sum / count
    }

    /// The largest sum of all guests' figures between two seconds; not a number without a look.
    pub fn most(&self, from: f64, to: f64, figure: fn(&Figures) -> f64) -> f64 {
        self.between(from, to).map(|look| look.guests.iter().map(figure).sum()).fold(f64::NAN, f64::max)
    }

    /// How fast a guest's counter grew between two seconds, per second; not a number with less than two
    /// looks.
    pub fn rate(&self, guest: usize, from: f64, to: f64, counter: fn(&Figures) -> f64) -> f64 {
        let looks: Vec<_> = self.between(from, to).collect();
        let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return f64::NAN };
        (counter(&last.guests[guest]) - counter(&first.guests[guest])) / (last.second - first.second)
    }

    /// Seconds from `from` on until a guest's figure has come to stay at or above `bound`; not a number if it
    /// never does before `to`.
    pub fn settles(&self, guest: usize, from: f64, to: f64, bound: f64, figure: fn(&Figures) -> f64) -> f64 {
        let below = self.between(from, to).filter(|look| figure(&look.guests[guest]) < bound).map(|look| look.second);
        let last_below = below.fold(from, f64::max);
        let after = self.between(from, to).map(|look| look.second).find(|&second| second > last_below);
        after.map_or(f64::NAN, |second| second - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(allocations: &[f64]) -> Course {
        let look = |(number, &allocation_bytes): (usize, &f64)| Look {
            second: number as f64,
            guests: vec![Figures { allocation_bytes, operations: 10.0 * number as f64, ..Figures::default() }],
        };
        Course(allocations.iter().enumerate().map(look).collect())
    }

    #[test]
    fn means_rates_and_settling_are_of_the_seconds_asked_for() {
        let course = course(&[1.0, 2.0, 9.0, 5.0, 9.0, 9.0, 9.0]);
        let allocation = |figures: &Figures| figures.allocation_bytes;
        assert_eq!(course.mean(0, 0.0, 1.0, allocation), 1.5);
        assert_eq!(course.rate(0, 2.0, 6.0, |figures| figures.operations), 10.0);
        assert_eq!(course.settles(0, 1.0, 6.0, 8.0, allocation), 3.0, "a dip is not settled");
        assert!(course.settles(0, 0.0, 3.0, 8.0, allocation).is_nan());
        assert_eq!(course.most(3.0, 6.0, allocation), 9.0);
        assert!(course.most(50.0, 60.0, allocation).is_nan());
        assert!(course.mean(0, 50.0, 60.0, allocation).is_nan());
    }
}
