//! What would change the last decision about a guest, as it is told: [`policy::explanation::remedy`], with
//! names, and with the margin of a budget.

use policy::explanation::remedy::{Remedy, remedies};
use policy::{Config, GuestInput};
use serde_json::{Value, json};

use crate::control::situation::Situation;
use crate::request::admission::with_margin;

/// Others with idle memory that are named at most.
const IDLE_MAX: usize = 3;

/// For guest `number`, of those that `inputs` are known of.
pub(crate) fn of(
    config: &Config,
    situation: &Situation,
    inputs: &[Option<GuestInput>],
    names: &[String],
    number: usize,
) -> Value {
    let (numbers, guests): (Vec<_>, Vec<_>) =
        inputs.iter().enumerate().filter_map(|(number, guest)| Some((number, (*guest)?))).unzip();
    let Some(at) = numbers.iter().position(|&known| known == number) else { return json!([]) };
    let found = remedies(config, &situation.host, &guests, at);
    let (idle, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|remedy| matches!(remedy, Remedy::Idle { .. }));
    let told = others.into_iter().chain(idle.into_iter().take(IDLE_MAX));
    told.map(|remedy| describe(remedy, situation, |other| names[numbers[other]].as_str())).collect()
}

fn describe<'a>(remedy: Remedy, situation: &Situation, name: impl Fn(usize) -> &'a str) -> Value {
    let gets = |gains_bytes: u64| match gains_bytes {
        0 => "it keeps what it has".to_owned(),
        bytes => format!("it gets {} more", mib(bytes)),
    };
    match remedy {
        Remedy::Budget { bytes, gains_bytes } => {
            // A larger budget has a larger margin.
            let bytes = (with_margin(bytes.into()) as u64).next_multiple_of(1 << 20);
            let of_what = if situation.usable_bytes < situation.budget_bytes {
                format!(
                    "more memory that the machine can spare: it leaves {} of the budget of {}",
                    mib(situation.usable_bytes),
                    mib(situation.budget_bytes)
                )
            } else {
                "more budget".to_owned()
            };
            json!({
                "what": "budget", "bytes": bytes, "gains_bytes": gains_bytes,
                "text": format!("{} {of_what}: {}", mib(bytes), gets(gains_bytes)),
            })
        }
        Remedy::Limit { bytes, gains_bytes } => json!({
            "what": "limit", "bytes": bytes, "gains_bytes": gains_bytes,
            "text": format!("a limit {} higher: {}", mib(bytes), gets(gains_bytes)),
        }),
        Remedy::Uncapped { gains_bytes } => json!({
            "what": "reclaim", "gains_bytes": gains_bytes,
            "text": format!("the end of what is reclaimed from it: {}", gets(gains_bytes)),
        }),
        Remedy::Idle { guest, bytes } => json!({
            "what": "idle", "guest": name(guest), "bytes": bytes,
            "text": format!("{} idle in {} above its entitlement", mib(bytes), name(guest)),
        }),
    }
}

fn mib(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib.fract() == 0.0 { format!("{mib:.0} MiB") } else { format!("{mib:.1} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Host;

    const MIB: u64 = 1 << 20;

    fn guest(mib: u64, stall_ratio: f64) -> Option<GuestInput> {
        let mut guest = GuestInput::new(&Config::default(), 256 * MIB, 4 * MIB);
        let usage = &mut guest.usage;
        (usage.allocation_bytes, usage.resident_bytes, usage.committed_bytes) = (mib * MIB, mib * MIB, mib * MIB);
        (usage.active_bytes, usage.stall_ratio) = (Some(200 * MIB), stall_ratio);
        Some(guest)
    }

    #[test]
    fn a_budget_is_told_with_its_margin_and_with_what_the_machine_leaves_of_it() {
        let host = Host { budget_bytes: 200 * MIB, ..Host::default() };
        let mut situation =
            Situation { budget_bytes: 200 * MIB, usable_bytes: 200 * MIB, host, ..Situation::default() };
        let names = ["gone", "web", "db"].map(str::to_owned);
        let inputs = [None, guest(100, 0.2), guest(100, 0.2)];
        let told = |situation: &Situation| of(&Config::default(), situation, &inputs, &names, 2)[0].clone();
        // Two steps of 4 MiB, and their margin.
        assert_eq!(told(&situation)["text"], "9 MiB more budget: it gets 4 MiB more");
        situation.usable_bytes = 150 * MIB;
        let text = told(&situation)["text"].to_string();
        assert!(text.contains("the machine can spare: it leaves 150 MiB of the budget of 200 MiB"), "{text}");
        assert_eq!(of(&Config::default(), &situation, &inputs, &names, 0), json!([]));
    }
}
