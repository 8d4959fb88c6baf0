//! What `--guest` says of one guest: `NUMBER:KEY=VALUE,...`, where everything that is left out is as for all
//! guests.

use std::fmt;
use std::str::FromStr;

use control::Dedup;
use wire::machine::Workload;

use crate::bytes::ByteCount;
use crate::request::disks::DiskRequest;
use crate::request::taps::TapRequest;

/// One guest's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestSettings {
    /// Its number, from 0.
    pub guest: u32,
    /// Weight against the others when memory is short.
    pub shares: Option<u32>,
    /// Host memory it is certain of, overhead included, bytes.
    pub reservation_bytes: Option<u64>,
    /// Host memory it never gets more of, overhead included, bytes.
    pub limit_bytes: Option<u64>,
    /// What it does.
    pub workload: Option<Workload>,
    /// Parts of its RAM that its workload uses, before and after it changes, in thousandths: for `tide` and
    /// `zipf`.
    pub active_permille: Option<[u16; 2]>,
    /// What is done about its equal pages.
    pub dedup: Option<Dedup>,
    /// Whether it has a balloon.
    pub balloon: Option<bool>,
    /// Whether it has a swap file.
    pub swap: Option<bool>,
    /// Disks besides those that all guests have.
    pub disks: Vec<DiskRequest>,
    /// Taps besides those that all guests have.
    pub taps: Vec<TapRequest>,
}

impl FromStr for GuestSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = |what: &str| {
            format!(
                "{text:?}: {what}; give NUMBER:KEY=VALUE,... with shares=1000, reservation=64MiB, limit=256MiB, workload=NAME, \
                 active=30% or active=10%-90%, dedup=on, dedup=zero-pages-only or dedup=off, balloon=off, swap=off, disk=FILE or disk=FILE:ro, tap=NAME"
            )
        };
        let (guest, settings) = text.split_once(':').ok_or_else(|| malformed("no settings"))?;
        let guest = guest.parse().map_err(|_| malformed(&format!("{guest:?} is no guest's number")))?;
        let mut read = GuestSettings { guest, ..GuestSettings::default() };
        for setting in settings.split(',') {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| malformed(&format!("{setting:?} has no value")))?;
            let wrong = || malformed(&format!("{value:?} is wrong for {key}"));
            let bytes = || value.parse().map(|ByteCount(bytes)| bytes).map_err(|_| wrong());
            let given_before = match key {
                "shares" => read.shares.replace(value.parse().map_err(|_| wrong())?).is_some(),
                "reservation" => read.reservation_bytes.replace(bytes()?).is_some(),
                "limit" => read.limit_bytes.replace(bytes()?).is_some(),
                "workload" => {
                    let named = Workload::NAMES.iter().find(|(name, _)| *name == value).ok_or_else(wrong)?.1;
                    read.workload.replace(named).is_some()
                }
                "active" => read.active_permille.replace(active(value).ok_or_else(wrong)?).is_some(),
                "dedup" => read.dedup.replace(dedup_named(value).ok_or_else(wrong)?).is_some(),
                "balloon" => read.balloon.replace(switch(value).ok_or_else(wrong)?).is_some(),
                "swap" => read.swap.replace(switch(value).ok_or_else(wrong)?).is_some(),
                // There may be any number of these.
                "disk" => {
                    read.disks.push(value.parse().map_err(|_| wrong())?);
                    false
                }
                "tap" => {
                    read.taps.push(setting.parse().map_err(|_| wrong())?);
                    false
                }
                _ => return Err(malformed(&format!("there is no {key:?}"))),
            };
            if given_before {
                return Err(malformed(&format!("{key} is given twice")));
            }
        }
        Ok(read)
    }
}

/// `30%`, or `10%-90%`.
fn active(text: &str) -> Option<[u16; 2]> {
    let permille = |text: &str| {
        let percent: u16 = text.strip_suffix('%')?.parse().ok()?;
        (percent <= 100).then_some(percent * 10)
    };
    let (before, after) = text.split_once('-').unwrap_or((text, text));
    Some([permille(before)?, permille(after)?])
}

fn switch(text: &str) -> Option<bool> {
    [("on", true), ("off", false)].into_iter().find(|(name, _)| *name == text).map(|(_, on)| on)
}

/// As in `--dedup`.
pub(crate) fn dedup_name(dedup: Dedup) -> &'static str {
    match dedup {
        Dedup::Off => "off",
        Dedup::ZeroPagesOnly => "zero-pages-only",
        Dedup::On => "on",
    }
}

/// The opposite of [`dedup_name`].
pub(crate) fn dedup_named(name: &str) -> Option<Dedup> {
    [Dedup::Off, Dedup::ZeroPagesOnly, Dedup::On].into_iter().find(|&dedup| dedup_name(dedup) == name)
}

impl fmt::Display for GuestSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switched = |on| if on { "on" } else { "off" };
        let name =
            |workload| Workload::NAMES.iter().find(|(_, named)| *named == workload).map_or("image", |(name, _)| name);
        let settings = [
            self.shares.map(|shares| format!("shares={shares}")),
            self.reservation_bytes.map(|bytes| format!("reservation={bytes}")),
            self.limit_bytes.map(|bytes| format!("limit={bytes}")),
            self.workload.map(|workload| format!("workload={}", name(workload))),
            self.active_permille.map(|[before, after]| format!("active={}%-{}%", before / 10, after / 10)),
            self.dedup.map(|dedup| format!("dedup={}", dedup_name(dedup))),
            self.balloon.map(|on| format!("balloon={}", switched(on))),
            self.swap.map(|on| format!("swap={}", switched(on))),
        ];
        let disks = self.disks.iter().map(|disk| format!("disk={disk}"));
        let devices = disks.chain(self.taps.iter().map(TapRequest::to_string));
        write!(f, "{}:{}", self.guest, settings.into_iter().flatten().chain(devices).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let read: GuestSettings =
            "3:shares=2000,reservation=64MiB,limit=1G,workload=tide,active=10%-90%,dedup=zero-pages-only,balloon=off,swap=on,\
             disk=/a,disk=/b:ro,tap=vm0"
                .parse()
                .unwrap();
        let expected = GuestSettings {
            guest: 3,
            shares: Some(2000),
            reservation_bytes: Some(64 << 20),
            limit_bytes: Some(1 << 30),
            workload: Some(Workload::Tide),
            active_permille: Some([100, 900]),
            dedup: Some(Dedup::ZeroPagesOnly),
            balloon: Some(false),
            swap: Some(true),
            disks: ["/a", "/b:ro"].map(|disk| disk.parse().unwrap()).to_vec(),
            taps: vec!["tap=vm0".parse().unwrap()],
        };
        assert_eq!(read, expected);
        assert_eq!(read.to_string().parse(), Ok(expected));
        assert_eq!("0:active=30%".parse::<GuestSettings>().unwrap().active_permille, Some([300, 300]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "no settings"),
            ("x:shares=1", "\"x\" is no guest's number"),
            ("0:", "has no value"),
            ("0:shares", "\"shares\" has no value"),
            ("0:shares=-1", "\"-1\" is wrong for shares"),
            ("0:limit=1.5G", "\"1.5G\" is wrong for limit"),
            ("0:workload=nope", "is wrong for workload"),
            ("0:active=101%", "is wrong for active"),
            ("0:dedup=some", "\"some\" is wrong for dedup"),
            ("0:balloon=yes", "\"yes\" is wrong for balloon"),
            ("0:weight=3", "there is no \"weight\""),
            ("0:shares=1,shares=2", "shares is given twice"),
        ] {
            let refusal = text.parse::<GuestSettings>().unwrap_err();
            assert!(refusal.contains(words) && refusal.contains("NUMBER:KEY=VALUE"), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = text.parse::<GuestSettings>();
        }
    }
}
