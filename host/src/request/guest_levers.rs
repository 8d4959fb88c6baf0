//! Which levers one guest has: those of the run, less what `--guest NUMBER:dedup=...,balloon=...,swap=...`
//! takes away.
//!
//! ```text
//!            the run                     a guest                              more than the run has
//!   dedup    --dedup, --domain           as much, or less, in a domain of     refused, naming both options
//!            NAME:zero-pages-only        its own: what shares nothing owes
//!                                        the others' store no answers
//!   balloon  --balloon; none with        as the run, or off                   refused
//!            --image
//!   swap     --swap                      its part by RAM, or none             refused
//! ```

use control::Dedup;

use crate::config::{RunConfig, SwapChoice};
use crate::error::Error;
use crate::plan::PlannedGuest;
use crate::request::domain_range::own_domain;
use crate::request::guest_settings::{GuestSettings, dedup_name};

/// Takes the levers away from the guest that its settings do not want.
pub(crate) fn settle(config: &RunConfig, settings: &GuestSettings, guest: &mut PlannedGuest) -> Result<(), Error> {
    let contradicts = |key: &str, value: &str, other: &str, way_out: &str| Error::Contradiction {
        one: format!("--guest {}:{key}={value}", settings.guest),
        other: other.to_owned(),
        way_out: way_out.to_owned(),
    };
    if let Some(dedup) = settings.dedup {
        if rank(dedup) > rank(config.levers.dedup) {
            let run = format!("--dedup {}", dedup_name(config.levers.dedup));
            return Err(contradicts(
                "dedup",
                dedup_name(dedup),
                &run,
                "give --dedup what the guest with most is to have",
            ));
        }
        if rank(dedup) > rank(guest.levers.dedup) {
            let domain = format!("--domain {}:zero-pages-only", guest.domain);
            return Err(contradicts("dedup", dedup_name(dedup), &domain, "give the guest another domain"));
        }
        if dedup != guest.levers.dedup {
            guest.domain = own_domain(settings.guest);
            guest.levers.dedup = dedup;
        }
    }
    if let Some(balloon) = settings.balloon {
        if balloon && !config.levers.balloon {
            return Err(contradicts(
                "balloon",
                "on",
                "--balloon off",
                "leave --balloon out, and turn off those of others",
            ));
        }
        if balloon && guest.image.is_some() {
            let why = "a balloon would take what is to be compared with the image: leave balloon=on out";
            return Err(contradicts("balloon", "on", "--image", why));
        }
        guest.levers.balloon = balloon;
    }
    match settings.swap {
        Some(true) if config.swap == SwapChoice::Off => {
            Err(contradicts("swap", "on", "--swap off", "leave one of them out"))
        }
        Some(true) if !config.levers.pager => {
            Err(contradicts("swap", "on", "--pager off", "nothing is evicted then: leave one of them out"))
        }
        _ => Ok(()),
    }
}

/// RAM of each guest that may go to a swap file, bytes.
pub(crate) fn swapped_bytes(config: &RunConfig, guests: &[PlannedGuest]) -> Vec<u64> {
    let of = |number: usize| config.guest_settings.iter().find(|one| one.guest as usize == number);
    let bytes = |(number, guest): (usize, &PlannedGuest)| match of(number).and_then(|one| one.swap) {
        Some(false) => 0,
        _ => guest.memory_bytes,
    };
    guests.iter().enumerate().map(bytes).collect()
}

/// Refuses a guest that is to have a swap file where `--swap auto` came to none, and says why it did.
pub(crate) fn check_swap(config: &RunConfig, swap: &SwapChoice, why: Option<&str>) -> Result<(), Error> {
    let wants = config.guest_settings.iter().find(|one| one.swap == Some(true));
    match wants.filter(|_| *swap == SwapChoice::Off) {
        None => Ok(()),
        Some(one) => Err(Error::Contradiction {
            one: format!("--guest {}:swap=on", one.guest),
            other: "--swap auto".into(),
            way_out: why.unwrap_or("give --swap DIR").into(),
        }),
    }
}

/// How much of it is done.
fn rank(dedup: Dedup) -> u8 {
    match dedup {
        Dedup::Off => 0,
        Dedup::ZeroPagesOnly => 1,
        Dedup::On => 2,
    }
}

#[cfg(test)]
mod tests {
    use control::Levers;

    use super::*;
    use crate::config::SwapConfig;

    fn config(dedup: Dedup, balloon: bool, swap: bool) -> RunConfig {
        let files = SwapConfig { directory: "/var/tmp".into(), bytes: None };
        let swap = if swap { SwapChoice::In(files) } else { SwapChoice::Off };
        RunConfig { swap, ..RunConfig::idle(1 << 30, Levers { dedup, balloon, pager: true }) }
    }

    fn settled(config: &RunConfig, settings: &str) -> Result<PlannedGuest, String> {
        let mut guest = PlannedGuest { levers: config.levers, ..PlannedGuest::idle("guest1".into(), 64 << 20) };
        settle(config, &settings.parse().unwrap(), &mut guest).map_err(|error| error.to_string())?;
        Ok(guest)
    }

    #[test]
    fn a_guest_may_have_less_than_the_run() {
        let all = config(Dedup::On, true, true);
        let guest = settled(&all, "1:dedup=zero-pages-only,balloon=off,swap=on").unwrap();
        assert_eq!((guest.levers.dedup, guest.levers.balloon), (Dedup::ZeroPagesOnly, false));
        assert_eq!(guest.domain, "own:guest1", "it owes the others no answers");
        let same = settled(&all, "1:dedup=on,balloon=on").unwrap();
        assert_eq!((same.levers, same.domain.as_str()), (all.levers, "default"));
    }

    #[test]
    fn more_than_the_run_has_is_refused_with_both_options() {
        for (config, settings, words) in [
            (config(Dedup::Off, true, true), "1:dedup=on", ["--guest 1:dedup=on", "--dedup off"]),
            (config(Dedup::ZeroPagesOnly, true, true), "1:dedup=on", ["--guest 1:dedup=on", "--dedup zero-pages-only"]),
            (config(Dedup::On, false, true), "1:balloon=on", ["--guest 1:balloon=on", "--balloon off"]),
            (config(Dedup::On, true, false), "1:swap=on", ["--guest 1:swap=on", "--swap off"]),
        ] {
            let refusal = settled(&config, settings).unwrap_err();
            assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
        }
        let all = config(Dedup::On, true, true);
        let mut guest = PlannedGuest::idle("guest1".into(), 64 << 20);
        (guest.domain, guest.levers.dedup) = ("web".into(), Dedup::ZeroPagesOnly);
        let refusal = settle(&all, &"1:dedup=on".parse().unwrap(), &mut guest).unwrap_err().to_string();
        assert!(
            refusal.contains("--guest 1:dedup=on") && refusal.contains("--domain web:zero-pages-only"),
            "{refusal}"
        );
        let mut guest = PlannedGuest { image: Some("a.mem".into()), ..PlannedGuest::idle("guest1".into(), 64 << 20) };
        let refusal = settle(&all, &"1:balloon=on".parse().unwrap(), &mut guest).unwrap_err().to_string();
        assert!(refusal.contains("--image"), "{refusal}");
    }
}
