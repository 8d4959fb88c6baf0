//! Why a budget is not reached: in words, for whoever lowered it.

use control::status::{PagerStatus, SwapStatus};

use crate::bytes::ByteCount;
use crate::control::situation::Situation;
use crate::fleet::guest::View;

/// Guests that are named, those with the highest floors first.
const NAMED_MAX: usize = 4;

/// Why more is in force than can be used; nothing if it is not.
pub(crate) fn why(situation: &Situation, views: &[View]) -> Option<String> {
    let short_bytes = situation.short_bytes();
    if short_bytes == 0 {
        return None;
    }
    if situation.floor_bytes <= situation.usable_bytes {
        return Some(format!("guests are giving way, {} are still to go", ByteCount::rounded(short_bytes)));
    }
    let mut stuck: Vec<_> =
        views.iter().filter(|view| !view.has_ended() && stuck_bytes(&view.status.pager) > 0).collect();
    stuck.sort_by_key(|view| std::cmp::Reverse(view.status.pager.floor_bytes));
    let named = stuck.iter().take(NAMED_MAX).map(|view| {
        let pager = &view.status.pager;
        format!("{} not below {} ({})", view.name, ByteCount::rounded(pager.floor_bytes), no_way_out(&pager.swap))
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match stuck.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("memory that does not compress and has nowhere to go: {named}{more}"))
}

fn stuck_bytes(pager: &PagerStatus) -> u64 {
    pager.floor_bytes.saturating_sub(pager.overhead_bytes)
}

fn no_way_out(swap: &SwapStatus) -> &'static str {
    match swap {
        SwapStatus { capacity_bytes: 0, .. } => "no swap file",
        SwapStatus { suspended: true, .. } => "its swap file fails",
        _ => "its swap file is full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::GuestStatus;

    const MIB: u64 = 1 << 20;

    fn view(number: u64, floor_mib: u64, swap: SwapStatus) -> View {
        let pager =
            PagerStatus { floor_bytes: floor_mib * MIB, overhead_bytes: 3 * MIB, swap, ..PagerStatus::default() };
        View::running(&format!("guest{number}"), GuestStatus { pager, ..GuestStatus::default() })
    }

    fn situation(floor_mib: u64) -> Situation {
        let mib = |mib: u64| mib * MIB;
        let (usable_bytes, in_force_bytes, floor_bytes) = (mib(450), mib(600), mib(floor_mib));
        Situation { usable_bytes, in_force_bytes, floor_bytes, ..Situation::default() }
    }

    #[test]
    fn a_shortfall_names_the_guests_that_cannot_be_squeezed_and_why_not() {
        let full = SwapStatus { capacity_bytes: MIB, used_bytes: MIB, ..SwapStatus::default() };
        let failing = SwapStatus { capacity_bytes: MIB, suspended: true, ..SwapStatus::default() };
        let views = [view(0, 100, SwapStatus::default()), view(1, 300, full), view(2, 3, SwapStatus::default())];
        assert_eq!(
            why(&situation(500), &views).unwrap(),
            "memory that does not compress and has nowhere to go: guest1 not below 300 MiB (its swap file is full), guest0 not below 100 MiB \
             (no swap file)"
        );
        let many: Vec<_> = (0..7).map(|number| view(number, 80, failing.clone())).collect();
        let said = why(&situation(560), &many).unwrap();
        assert!(said.contains("(its swap file fails)") && said.ends_with(", and 3 more"), "{said}");
    }

    #[test]
    fn what_is_still_under_way_is_called_that_and_a_budget_that_is_reached_needs_no_words() {
        assert_eq!(why(&situation(400), &[]).unwrap(), "guests are giving way, 150 MiB are still to go");
        assert_eq!(why(&Situation { usable_bytes: 600 * MIB, ..situation(400) }, &[]), None);
    }
}
