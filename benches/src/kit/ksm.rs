//! KSM's switches: set for a measurement, always put back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::kit::{
    error::Error,
    settings::{self, Step, Undo},
};

/// KSM's switches and counters.
const DIRECTORY: &str = "/sys/kernel/mm/ksm";
/// What a measurement may change, in the order in which it is put back.
const SETTINGS: [&str; 6] = ["sleep_millisecs", "smart_scan", "use_zero_pages", "pages_to_scan", "advisor_mode", "run"];

/// How fast ksmd goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// Without ever sleeping.
    Unthrottled,
    /// As its scan-time advisor says, whose own settings are the kernel's defaults.
    Advisor,
}

/// KSM with settings for a measurement; dropping it unmerges everything and puts the owner's back.
pub struct Settings(#[expect(dead_code, reason = "dropping it is its use")] Undo);

impl Settings {
    /// Saves what is set, unmerges everything, and sets `mode`. ksmd does not run yet.
    ///
    /// Zero pages are mapped to the kernel's zero page (`use_zero_pages`): that saves all of them, and spares
    /// ksmd a tree.
    pub fn take(mode: Mode) -> Result<Settings, Error> {
        if !Path::new(DIRECTORY).exists() {
            return Err(Error::NoKsm);
        }
        let chosen = |text: String| match text.split_once('[') {
            Some((_, rest)) => rest.split(']').next().unwrap_or_default().to_owned(),
            None => text.trim().to_owned(),
        };
        // While the advisor is on, `pages_to_scan` cannot be written.
        let mut undo =
            vec![Step::Write(path("run"), "2".to_owned()), Step::Write(path("advisor_mode"), "none".to_owned())];
        for name in SETTINGS.into_iter().filter(|name| path(name).exists()) {
            undo.push(Step::Write(path(name), chosen(read(name)?)));
        }
        let settings = Settings(Undo::register(undo));
        write("run", "2")?;
        write("advisor_mode", "none")?;
        write("use_zero_pages", "1")?;
        if mode == Mode::Advisor {
            write("advisor_mode", "scan-time")?;
        } else {
            write("smart_scan", "0")?;
            write("sleep_millisecs", "0")?;
            write("pages_to_scan", "20000")?;
        }
        Ok(settings)
    }

    /// Has ksmd, which never slept, look at 50 000 pages a second at most: what is merged already is to stay
    /// so, not to cost the guests a CPU.
    pub fn calm(&self) -> Result<(), Error> {
        write("pages_to_scan", "1000")?;
        write("sleep_millisecs", "20")
    }

    /// Lets ksmd run, or stops it; what is merged stays so.
    pub fn run(&self, on: bool) -> Result<(), Error> {
        write("run", if on { "1" } else { "0" })
    }
}

/// One of KSM's counters.
pub fn counter(name: &str) -> Result<u64, Error> {
    Ok(read(name)?.trim().parse().unwrap_or(0))
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn read(name: &str) -> Result<String, Error> {
    fs::read_to_string(path(name)).map_err(|source| Error::File { path: path(name), source })
}

fn write(name: &str, value: &str) -> Result<(), Error> {
    settings::change(&path(name), value)
}
