//! A zram device of our own, in use as swap before all other swap.
//!
//! ```text
//!   made        hot_add -> record -> algorithm, size -> header with our label -> swapon
//!   taken down  swapoff -> reset -> hot_remove -> record removed
//! ```
//!
//! A *record* is the file `/run/ballast/zram-N` with its owner. It is removed last, so whatever a killed host
//! left has one, and the next start takes that down: if the owner is dead, and the device has its header, or
//! nothing at all. No device without a record is touched, not even read. (Between `hot_add` and the record a
//! device of no size may be left.)

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use wire::PAGE_BYTES;

use super::header::{self, Header};
use super::owner::Owner;
use super::programs;
use super::statistics::Statistics;
use crate::lock_file::{self, Locked};

const CONTROL: &str = "/sys/class/zram-control";
const RECORDS: &str = "/run/ballast";
/// The highest priority that swap can have (`swapon(2)`).
const PRIORITY_MAX: i32 = 32767;
/// How long others may keep a device open that is being taken down: udev looks at each that changes.
const BUSY_MAX: Duration = Duration::from_secs(5);
const BUSY_INTERVAL: Duration = Duration::from_millis(20);

/// See the module's description. Taken down when it goes.
#[derive(Debug)]
pub(super) struct Device {
    number: u32,
    bytes: u64,
}

/// Where a device came from, and so what is done with it in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// We added it, and remove it.
    Added,
    /// The operator gave it to us, without a size, and gets it back so.
    Given,
}

impl Device {
    /// Makes one that takes so many bytes of pages; of `given`, if that is a zram device nobody uses.
    pub(super) fn make(bytes: u64, given: Option<&Path>, owner: Owner) -> Result<Device, String> {
        let _turn = turn()?;
        take_down_leftovers();
        let (number, origin) = match given {
            Some(path) => (unused(path)?, Origin::Given),
            None => (add()?, Origin::Added),
        };
        let device = Device { number, bytes };
        // From here on it is taken down, by this value or by whoever starts next.
        write_record(number, owner, origin)?;
        device.prepare(owner)?;
        Ok(device)
    }

    fn prepare(&self, owner: Owner) -> Result<(), String> {
        let sys = sys(self.number);
        let algorithms = read(&sys.join("comp_algorithm"))?;
        // Without it, what the kernel takes by itself.
        if algorithms.split([' ', '[', ']']).any(|name| name == "lz4") {
            write(&sys.join("comp_algorithm"), "lz4")?;
        }
        write(&sys.join("disksize"), &self.bytes.to_string())?;
        let node = node(self.number);
        let written = OpenOptions::new().write(true).open(&node).and_then(|file| {
            file.write_all_at(&header::compose(self.bytes, owner), 0)?;
            file.sync_all()
        });
        written.map_err(|error| format!("{}: {error}", node.display()))?;
        let highest = swaps()?.into_iter().map(|(_, priority)| priority).max().unwrap_or(0);
        let priority = highest.max(0).saturating_add(1).min(PRIORITY_MAX);
        programs::run("swapon", &["-p", &priority.to_string(), &node.display().to_string()])
    }

    /// Where it is.
    pub(super) fn node(&self) -> PathBuf {
        node(self.number)
    }

    /// The pages that it takes, bytes.
    pub(super) fn capacity_bytes(&self) -> u64 {
        self.bytes
    }

    /// What it says of itself.
    pub(super) fn statistics(&self) -> Result<Statistics, String> {
        let path = sys(self.number).join("mm_stat");
        let text = read(&path)?;
        Statistics::parse(&text).ok_or_else(|| format!("{}: {text:?} is no mm_stat", path.display()))
    }

    /// Has its allocator move what is left together, so that pages it has in part become free.
    pub(super) fn compact(&self) -> Result<(), String> {
        write(&sys(self.number).join("compact"), "1")
    }

    /// Whether the kernel still swaps to it: an operator may have said `swapoff`.
    pub(super) fn is_in_use(&self) -> Result<bool, String> {
        is_swap(self.number)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = take_down(self.number, origin(self.number)) {
            tracing::warn!("{} is left, the next start tries again: {error}", self.node().display());
        }
    }
}

/// Whether one can be made here, or why not.
pub(super) fn probe() -> Result<(), String> {
    let add = Path::new(CONTROL).join("hot_add");
    fs::metadata(&add).map_err(|error| format!("{}: {error}; modprobe zram", add.display()))?;
    programs::require("swapon").and_then(|()| programs::require("swapoff"))
}

/// Takes down what killed hosts left. To be called in one's turn.
fn take_down_leftovers() {
    for entry in fs::read_dir(RECORDS).into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("zram-")?.parse().ok());
        let Some(number) = number else { continue };
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let owner = text.split(' ').next().and_then(|owner| owner.parse::<Owner>().ok());
        if owner.is_some_and(Owner::is_alive) {
            continue;
        }
        let taken = match owner {
            Some(owner) if is_theirs(number, owner) => take_down(number, origin(number)),
            // The number is somebody else's device by now, or nobody's.
            _ => remove_record(number),
        };
        match taken {
            Ok(()) => tracing::info!("{}: of a run that was killed; removed", node(number).display()),
            Err(error) => tracing::warn!("{}: of a run that was killed, and left: {error}", node(number).display()),
        }
    }
}

/// Whether a device is what this owner made of it, or would have: without a size, or with nothing in it.
fn is_theirs(number: u32, owner: Owner) -> bool {
    let size = read(&sys(number).join("disksize")).unwrap_or_default();
    if size.is_empty() || size == "0" {
        return !size.is_empty();
    }
    let mut page = [0; PAGE_BYTES];
    let found = File::open(node(number)).and_then(|file| file.read_exact_at(&mut page, 0));
    match found.map(|()| header::read(&page, owner)) {
        Ok(Header::Ours) => true,
        Ok(Header::Empty) => !is_swap(number).unwrap_or(true),
        Ok(Header::Foreign) | Err(_) => false,
    }
}

fn take_down(number: u32, origin: Origin) -> Result<(), String> {
    if is_swap(number)? {
        programs::run("swapoff", &[&node(number).display().to_string()])?;
    }
    if sys(number).exists() {
        patiently(&sys(number).join("reset"), "1")?;
        if origin == Origin::Added {
            patiently(&Path::new(CONTROL).join("hot_remove"), &number.to_string())?;
        }
    }
    remove_record(number)
}

/// Adds a device; its number.
fn add() -> Result<u32, String> {
    // Reading it makes one.
    let path = Path::new(CONTROL).join("hot_add");
    let number = read(&path).map_err(|error| format!("{error}; modprobe zram"))?;
    number.parse().map_err(|_| format!("{}: {number:?} is no number", path.display()))
}

/// The number of a zram device that nobody uses.
fn unused(path: &Path) -> Result<u32, String> {
    let shown = path.display();
    let number = path.to_str().and_then(|path| path.strip_prefix("/dev/zram")?.parse().ok());
    let number = number.ok_or_else(|| format!("{shown} is no zram device: give one like /dev/zram1, auto or off"))?;
    match read(&sys(number).join("disksize"))?.as_str() {
        "0" => Ok(number),
        size => Err(format!("{shown} has a size, {size}, so somebody uses it: give one without, or auto")),
    }
}

/// Devices and files that the kernel swaps to, with their priorities.
fn swaps() -> Result<Vec<(String, i32)>, String> {
    read(Path::new("/proc/swaps")).map(|text| parse_swaps(&text))
}

fn parse_swaps(text: &str) -> Vec<(String, i32)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(3)?.parse().ok()?))
    };
    text.lines().skip(1).filter_map(parse).collect()
}

fn is_swap(number: u32) -> Result<bool, String> {
    let node = node(number).display().to_string();
    Ok(swaps()?.iter().any(|(name, _)| *name == node))
}

/// Waits until no other host makes devices or takes them down.
fn turn() -> Result<Locked, String> {
    let path = Path::new(RECORDS).join("zram.lock");
    let turn = fs::create_dir_all(RECORDS).and_then(|()| lock_file::turn(&path, BUSY_MAX));
    turn.map_err(|error| format!("{}: {error}", path.display()))
}

fn record(number: u32) -> PathBuf {
    Path::new(RECORDS).join(format!("zram-{number}"))
}

fn write_record(number: u32, owner: Owner, origin: Origin) -> Result<(), String> {
    let path = record(number);
    let word = if origin == Origin::Given { "given" } else { "added" };
    fs::write(&path, format!("{owner} {word}")).map_err(|error| format!("{}: {error}", path.display()))
}

/// As the record says. What has none yet was added.
fn origin(number: u32) -> Origin {
    let text = fs::read_to_string(record(number)).unwrap_or_default();
    if text.ends_with("given") { Origin::Given } else { Origin::Added }
}

fn remove_record(number: u32) -> Result<(), String> {
    match fs::remove_file(record(number)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("{}: {error}", record(number).display())),
        _ => Ok(()),
    }
}

/// Writes to a file of sysfs as soon as nobody has the device open any more.
fn patiently(path: &Path, text: &str) -> Result<(), String> {
    let deadline = Instant::now() + BUSY_MAX;
    loop {
        match OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(BUSY_INTERVAL);
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
}

fn node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/zram{number}"))
}

fn sys(number: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/zram{number}"))
}

fn read(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_read_with_its_priorities() {
        let text = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram1 partition\t65532\t\t0\t\t101\n\
                    /swap\\040file file 1024 12 -2\n";
        assert_eq!(parse_swaps(text), [("/dev/zram1".to_owned(), 101), ("/swap\\040file".to_owned(), -2)]);
        assert_eq!(parse_swaps("Filename Type Size Used Priority\n"), []);
    }

    #[test]
    fn only_a_zram_device_that_nobody_uses_is_taken() {
        for path in ["/dev/sda", "zram1", "/dev/zram", "/dev/zram-1"] {
            assert!(unused(Path::new(path)).unwrap_err().contains("is no zram device"), "{path}");
        }
        assert!(unused(Path::new("/dev/zram4000000")).unwrap_err().contains("/sys/block/zram4000000"));
    }
}
