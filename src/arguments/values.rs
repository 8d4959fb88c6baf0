//! How values are written: durations, shares, names. Each refusal says what would be right.

use std::time::Duration;

use wire::machine::Workload;

/// Where metrics are served, and asked for.
pub const METRICS_DEFAULT: &str = "127.0.0.1:9464";

pub(super) fn workload(name: &str) -> Result<Workload, String> {
    let found = Workload::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|&(_, workload)| workload).ok_or_else(|| {
        let names = Workload::NAMES.map(|(known, _)| known);
        format!("there are {}", names.join(", "))
    })
}

/// A share: `5%` and `5` are a twentieth.
pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok().filter(|number| number.is_finite());
    number.map(|percent| percent / 100.0).ok_or_else(|| "give per cent of one CPU: 5%, 0.5%".into())
}

/// `75%` and `75` are 75.
pub(super) fn whole_percent(text: &str) -> Result<u8, String> {
    text.strip_suffix('%').unwrap_or(text).parse().map_err(|_| "give whole per cent: 75%".into())
}

pub(super) fn part_of_budget(text: &str) -> Result<f64, String> {
    let number =
        text.strip_suffix('%').unwrap_or(text).parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.map(|percent| percent / 100.0).ok_or_else(|| "give per cent of the budget, 0% to 100%: 50%".into())
}

/// A duration; nothing of it needs no unit.
pub(super) fn hold(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).filter(|_| unit_ms > 0);
    ms.map(Duration::from_millis).ok_or_else(|| "give a whole number with its unit: 20s, 5m, 1h".into())
}

/// A name as it stands in a URL, without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let sound = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if text.len() <= 253 && text.split('.').all(sound) {
        return Ok(text.to_owned());
    }
    Err("give a name without scheme and port: ballast.example".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "20", "s", "1.5s", "-1s", "99999999999999999h", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_given_in_per_cent() {
        assert_eq!((percent("5%"), percent("50"), percent("0.5%")), (Ok(0.05), Ok(0.5), Ok(0.005)));
        for text in ["", "%", "five", "NaN", "inf%", "5 %"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_name_has_neither_scheme_nor_port() {
        assert_eq!(host_name("vm-host1.example"), Ok("vm-host1.example".into()));
        for text in ["", "*", "http://a", "a:9464", "a..b", "a/b", "a b"] {
            assert!(host_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_workload_is_answered_with_the_known_ones() {
        let refusal = workload("nope").unwrap_err();
        assert!(Workload::NAMES.iter().all(|(name, _)| refusal.contains(name)), "{refusal}");
    }
}
