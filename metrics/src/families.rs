//! The tables: a family is a name, a help text, at most one label of its own, and for each of that label's
//! values a figure.

use crate::{Domain, GuestFigures, Host};

const PAGE_BYTES: f64 = 4096.0;
const NS: f64 = 1e-9;

/// A figure: this field, times what its unit is.
macro_rules! field {
    ($($field:ident).+ $(* $unit:ident)?) => { |of| of.$($field).+ as f64 $(* $unit)? };
}
/// The same of a field that is there while it is known.
macro_rules! known {
    ($($field:ident).+) => { |of| Some(of.$($field).+? as f64) };
}

/// How a family's values behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Grows as long as the guest lives.
    Counter,
}
use Kind::{Counter, Gauge};

/// One family of the metrics of a `T`.
pub(crate) struct Family<T: 'static> {
    pub kind: Kind,
    pub name: &'static str,
    pub help: &'static str,
    pub values: Values<T>,
}

type Figure<T> = fn(&T) -> f64;
type Pairs<T> = fn(&T) -> &[([&'static str; 2], u64)];

/// Where a family's values come from.
pub(crate) enum Values<T: 'static> {
    /// One.
    One(Figure<T>),
    /// One, or none while it is not known.
    Known(fn(&T) -> Option<f64>),
    /// One for each value of this label.
    By(&'static str, &'static [(&'static str, Figure<T>)]),
    /// As many as the figures have, by this label.
    Listed(&'static str, fn(&T) -> &[(&'static str, u64)]),
    /// The same of times, ns, that are shown in seconds.
    ListedNs(&'static str, fn(&T) -> &[(&'static str, u64)]),
    /// As many as the figures have, by these two labels.
    Crossed([&'static str; 2], Pairs<T>),
}
use Values::{By, Crossed, Known, Listed, ListedNs, One};

const fn family<T>(kind: Kind, name: &'static str, help: &'static str, values: Values<T>) -> Family<T> {
    Family { kind, name, help, values }
}

/// The host's.
#[rustfmt::skip] // A table reads as one.
pub(crate) static HOST: [Family<Host>; 14] = [
    family(Gauge, "ballast_host_budget_bytes", "Host memory that guests, frames and upkeep may take.", One(field!(budget_bytes))),
    family(Gauge, "ballast_host_used_bytes", "Host memory they take, measured from outside.", One(field!(used_bytes))),
    family(Gauge, "ballast_host_used_peak_bytes", "Most host memory they took.", One(field!(peak_used_bytes))),
    family(Gauge, "ballast_host_promised_bytes", "RAM of the guests that exist.", One(field!(promised_bytes))),
    family(Gauge, "ballast_host_frames_bytes", "Part of the memory in use that is shared frames.", One(field!(frames_bytes))),
    family(Gauge, "ballast_host_reclaimed_bytes", "Touched guest memory that costs no host memory, by what made it so.",
        Listed("mechanism", |host| &host.reclaimed_bytes)),
    family(Gauge, "ballast_host_kernel_tier_bytes", "Room of the kernel tier's device, by what it holds.",
        Listed("state", |host| &host.kernel_tier_bytes)),
    family(Gauge, "ballast_host_kernel_tier_memory_bytes", "Memory that pages in the kernel tier's device take, by whose they are.",
        Listed("kind", |host| &host.kernel_tier_memory_bytes)),
    family(Gauge, "ballast_host_guests", "Guests by state, those that are gone included.", Listed("state", |host| &host.guests)),
    family(Gauge, "ballast_host_state", "How short the host is: 1 for the state it is in, 0 for the others.", Listed("state", |host| &host.state)),
    family(Gauge, "ballast_host_usable_bytes", "What the world outside (control group, pressure, available memory) leaves of the budget.",
        One(field!(usable_bytes))),
    family(Gauge, "ballast_host_short_bytes", "What is in force above what can be used: guests cannot be squeezed into what was lowered, or not yet.",
        One(field!(short_bytes))),
    family(Counter, "ballast_policy_decisions_total", "Decisions about allocations that were new, by what they did and why.",
        Crossed(["action", "reason"], |host| &host.decisions)),
    family(Counter, "ballast_host_connections_total", "Connections to the endpoint, by what became of them.",
        Listed("kind", |host| &host.connections)),
];

/// A sharing domain's, all with the label `domain`.
#[rustfmt::skip] // A table reads as one.
pub(crate) static DOMAIN: [Family<Domain>; 7] = [
    family(Gauge, "ballast_domain_guests", "Guests in the sharing domain.", One(field!(guests))),
    family(Gauge, "ballast_domain_frames_bytes", "Memory of its shared frames.", One(field!(frames_bytes))),
    family(Gauge, "ballast_domain_idle_frames_bytes", "Part of it that no page shares.", One(field!(idle_frames_bytes))),
    family(Gauge, "ballast_domain_gain_bytes", "Memory that sharing saves, less the frames that are held, by where equal pages lie.", By("kind", &[
        ("zero", field!(gain_zero_bytes)),
        ("within_guest", field!(gain_within_bytes)),
        ("across_guests", field!(gain_across_bytes)),
    ])),
    family(Gauge, "ballast_domain_cow_full_bytes", "Memory that would be needed if every shared page were written to.", One(field!(cow_full_bytes))),
    family(Gauge, "ballast_domain_cow_expected_bytes", "Part of it that is expected to be needed before the host has reacted.",
        One(field!(cow_expected_bytes))),
    family(Counter, "ballast_domain_frames_total", "What became of frames.", By("kind", &[
        ("published", field!(published_total)),
        ("retired", field!(retired_total)),
        ("refused", field!(refused_total)),
        ("declined", field!(declined_total)),
    ])),
];

/// A guest's, all with the label `guest`.
#[rustfmt::skip] // A table reads as one.
pub(crate) static GUEST: [Family<GuestFigures>; 72] = [
    family(Gauge, "ballast_guest_unresponsive", "1 while the guest's VMM has said nothing for 5 s, else 0.", One(|guest| f64::from(u8::from(guest.unresponsive)))),
    family(Gauge, "ballast_guest_memory_bytes", "Guest RAM by what backs it; the states sum to the RAM.", By("state", &[
        ("private", field!(status.pager.pages.private * PAGE_BYTES)),
        ("shared", field!(status.pager.pages.shared * PAGE_BYTES)),
        ("zero", field!(status.pager.pages.zero * PAGE_BYTES)),
        ("ballooned", field!(status.pager.pages.ballooned * PAGE_BYTES)),
        ("compressed", field!(status.pager.pages.compressed * PAGE_BYTES)),
        ("swapped", field!(status.pager.pages.swapped * PAGE_BYTES)),
        ("clean", field!(status.pager.pages.clean * PAGE_BYTES)),
    ])),
    family(Gauge, "ballast_guest_kernel_pages", "Part of the private pages that is in the kernel's swap, by the VMM's count.",
        One(field!(status.pager.kernel_pages))),
    family(Gauge, "ballast_guest_kernel_tier_stored_bytes", "What the guest's VMM has in the kernel's swap, by the kernel's books.",
        Known(known!(kernel_tier_stored_bytes))),
    family(Gauge, "ballast_guest_kernel_tier_memory_bytes", "Memory that this takes.", Known(known!(kernel_tier_memory_bytes))),
    family(Gauge, "ballast_guest_limit_bytes", "The most that the kernel lets the guest's VMM have in memory.", Known(known!(limit_bytes))),
    family(Gauge, "ballast_guest_charged_bytes", "What the kernel charges it for, of that.", Known(known!(charged_bytes))),
    family(Counter, "ballast_guest_limit_meetings_total", "Times that the VMM met this limit, and the kernel made room; and ticks at which it waited, as there was none.",
        Listed("kind", |guest| &guest.limit_meetings)),
    family(Gauge, "ballast_guest_up", "1 if its VMM has said within two seconds how it is.", One(|guest| f64::from(u8::from(guest.up)))),
    family(Gauge, "ballast_guest_start_time_seconds", "When its VMM was started, since 1970.", Known(|guest| guest.start_time_seconds)),
    family(Counter, "ballast_guest_restarts_total", "Times the guest was started anew.", One(field!(restarts_total))),
    family(Gauge, "ballast_guest_status_age_seconds", "How old the guest's figures are: time since its VMM reported.",
        Known(|guest| guest.status_age_seconds)),
    family(Gauge, "ballast_guest_own_total_bytes", "RAM by the guest's own statistics.", Known(known!(own_total_bytes))),
    family(Gauge, "ballast_guest_own_free_bytes", "RAM that is not in use, by the guest's own statistics.", Known(known!(own_free_bytes))),
    family(Gauge, "ballast_guest_own_available_bytes", "RAM that it could use without swapping, by the guest's own statistics.",
        Known(known!(own_available_bytes))),
    family(Gauge, "ballast_guest_own_age_seconds", "How old the guest's own statistics are.", Known(|guest| guest.own_age_seconds)),
    family(Gauge, "ballast_guest_allocation_bytes", "Host memory the guest may keep.", One(field!(allocation_bytes))),
    family(Gauge, "ballast_guest_lever_page_seconds", "What each page costs that is won by a lever and stays away, as measured so far.",
        ListedNs("lever", |guest| &guest.lever_page_ns)),
    family(Gauge, "ballast_guest_lever_available_bytes", "What the levers among which policy chooses could win now.",
        Listed("lever", |guest| &guest.lever_available_bytes)),
    family(Counter, "ballast_guest_pages_taken_total", "Pages with something behind them that were taken.", By("lever", &[
        ("reported_free", field!(status.pager.reported.pages_total)),
        ("balloon", field!(status.pager.ballooned.pages_total)),
        ("zero", field!(status.pager.zeroed.pages_total)),
    ])),
    family(Counter, "ballast_guest_pages_back_soon_total", "Those of them that the guest touched again within eight seconds.", By("lever", &[
        ("reported_free", field!(status.pager.reported.back_soon_total)),
        ("balloon", field!(status.pager.ballooned.back_soon_total)),
        ("zero", field!(status.pager.zeroed.back_soon_total)),
    ])),
    family(Gauge, "ballast_guest_active_ratio", "Share of the last sample of its pages that the guest used within a period; 0 before the first.",
        One(|guest| f64::from(guest.status.pager.sampling.last.touched) / f64::from(guest.status.pager.sampling.last.pages.max(1)))),
    family(Counter, "ballast_guest_sampling_periods_total", "Periods in which the guest's active memory was sampled.",
        One(field!(status.pager.sampling.periods_total))),
    family(Counter, "ballast_guest_held_seconds_total", "Time the vCPUs were held back because the host was low and the guest above its allocation.",
        One(field!(status.held_ns_total * NS))),
    family(Gauge, "ballast_guest_resident_bytes", "Host memory of the guest alone: private pages, pool and overhead.",
        One(field!(status.pager.resident_bytes))),
    family(Gauge, "ballast_guest_floor_bytes", "What the guest cannot be squeezed below now: overhead, and what neither compresses nor has a swap file to go to.",
        One(field!(status.pager.floor_bytes))),
    family(Gauge, "ballast_guest_committed_bytes", "Host memory the guest may be using until the next check.",
        One(field!(status.pager.committed_bytes))),
    family(Gauge, "ballast_guest_pool_bytes", "Part of the resident memory that is the compressed pool.", One(field!(status.pager.pool_bytes))),
    family(Gauge, "ballast_guest_patched_pages", "Pages in the compressed pool that are kept as patches of shared frames.",
        One(field!(status.pager.patch_pages))),
    family(Gauge, "ballast_guest_patches_bytes", "What the patches are compressed to.", One(field!(status.pager.patch_bytes))),
    family(Gauge, "ballast_guest_overhead_bytes", "Part of the resident memory that is neither guest pages nor pool.",
        One(field!(status.pager.overhead_bytes))),
    family(Counter, "ballast_guest_faults_total", "Page faults served in user space.", By("kind", &[
        ("missing", field!(status.pager.faults_missing_total)),
        ("minor", field!(status.pager.faults_minor_total)),
        ("write_protect", field!(status.pager.faults_write_protect_total)),
    ])),
    family(Counter, "ballast_guest_faults_without_credit_total", "Page faults that had to wait for memory.",
        One(field!(status.pager.faults_without_credit_total))),
    family(Counter, "ballast_guest_stall_seconds_total", "Time vCPUs were blocked in page faults, by what they waited for.", By("kind", &[
        ("fresh", field!(status.pager.stall.fresh_ns * NS)),
        ("shared", field!(status.pager.stall.shared_ns * NS)),
        ("broken", field!(status.pager.stall.broken_ns * NS)),
        ("compressed", field!(status.pager.stall.compressed_ns * NS)),
        ("kernel", field!(status.pager.stall.kernel_ns * NS)),
        ("swapped", field!(status.pager.stall.swapped_ns * NS)),
        ("moving", field!(status.pager.stall.moving_ns * NS)),
        ("memory", field!(status.pager.stall.memory_ns * NS)),
    ])),
    family(Counter, "ballast_guest_evictions_total", "Pages evicted.", One(field!(status.pager.evictions_total))),
    family(Counter, "ballast_guest_evictions_proactive_total", "Pages evicted before memory was short.",
        One(field!(status.pager.evictions_proactive_total))),
    family(Counter, "ballast_guest_pool_moves_total", "Pages moved within the compressed pool.", By("kind", &[
        ("packed", field!(status.pager.pool_packed_total)),
        ("patched", field!(status.pager.pool_patched_total)),
        ("rejoined", field!(status.pager.pool_rejoined_total)),
        ("compacted", field!(status.pager.pool_moved_total)),
    ])),
    family(Counter, "ballast_guest_promotions_total", "Evicted pages brought back by a fault.", One(field!(status.pager.promotions_total))),
    family(Counter, "ballast_guest_read_ahead_total", "Evicted pages that came back along with others.", One(field!(status.pager.read_ahead_total))),
    family(Counter, "ballast_guest_prefetched_total", "Evicted pages that came back in bulk before they were asked for.",
        One(field!(status.pager.prefetched_total))),
    family(Counter, "ballast_guest_refaults_total", "Evicted pages brought back soon after their eviction.",
        One(field!(status.pager.refaults_total))),
    family(Counter, "ballast_guest_incompressible_total", "Pages that eviction found incompressible.",
        One(field!(status.pager.incompressible_total))),
    family(Counter, "ballast_guest_pager_cpu_seconds_total", "CPU time of the pager's threads.", By("kind", &[
        ("fault", field!(status.pager.fault_cpu_ns * NS)),
        ("evict", field!(status.pager.evict_cpu_ns * NS)),
    ])),
    family(Gauge, "ballast_guest_swap_file_bytes", "Length of the guest's swap file, by what it holds.", By("state", &[
        ("used", field!(status.pager.swap.used_bytes)),
        ("free", |guest| (guest.status.pager.swap.capacity_bytes.saturating_sub(guest.status.pager.swap.used_bytes)) as f64),
    ])),
    family(Gauge, "ballast_guest_swap_suspended", "1 while the swap file is left alone after a write that failed.",
        One(|guest| f64::from(u8::from(guest.status.pager.swap.suspended)))),
    family(Counter, "ballast_guest_swap_pages_total", "Pages written to the swap file and read back.", By("kind", &[
        ("out", field!(status.pager.swap.pages_out_total)),
        ("in", field!(status.pager.swap.pages_in_total)),
    ])),
    family(Counter, "ballast_guest_swap_errors_total", "Transfers with the swap file that failed.", By("kind", &[
        ("write", field!(status.pager.swap.write_errors_total)),
        ("read", field!(status.pager.swap.read_errors_total)),
    ])),
    family(Counter, "ballast_guest_swap_discarded_bytes_total", "Freed room of the swap file that was given back to the disk.",
        One(field!(status.pager.swap.discarded_bytes_total))),
    family(Counter, "ballast_guest_merges_total", "Pages merged.", By("kind", &[
        ("same_address", field!(status.dedup.merged_same_address_total)),
        ("alias", field!(status.dedup.merged_alias_total)),
        ("zero", field!(status.dedup.merged_zero_total)),
    ])),
    family(Counter, "ballast_guest_breaks_total", "Shared pages that were written to.", One(field!(status.pager.breaks_total))),
    family(Counter, "ballast_guest_merge_mismatches_total", "Merges given up because the contents differed.",
        One(field!(status.dedup.mismatches_total))),
    family(Counter, "ballast_guest_scanned_pages_total", "Pages hashed by the scanner.", One(field!(status.dedup.hashed_total))),
    family(Counter, "ballast_guest_scanner_cpu_seconds_total", "CPU time of the scanner.", One(field!(status.dedup.cpu_ns * NS))),
    family(Gauge, "ballast_dedup_unmerged_pages", "Pages that are neither shared nor zero, by why.", Listed("reason", |guest| &guest.unmerged_pages)),
    family(Counter, "ballast_guest_alias_vmas_won_back_total", "Address-space areas won back from aliases that shared nothing any more.",
        One(field!(status.dedup.vmas_won_back_total))),
    family(Gauge, "ballast_guest_alias_vmas_budget", "Address-space areas that aliases may cost.", One(field!(status.dedup.vma_budget))),
    family(Gauge, "ballast_guest_alias_vmas_wanted", "Address-space areas with which none would have been refused, at most.",
        One(field!(alias_vmas_wanted))),
    family(Gauge, "ballast_guest_alias_vmas", "Address-space areas that aliases cost.", One(field!(status.dedup.vmas))),
    family(Gauge, "ballast_guest_balloon_requested_bytes", "Memory the guest is asked to give up.", One(field!(status.balloon.requested_bytes))),
    family(Gauge, "ballast_guest_balloon_actual_bytes", "Memory the guest has given up.", One(field!(status.balloon.actual_bytes))),
    family(Counter, "ballast_guest_balloon_pages_total", "Pages that went through the balloon device.", By("kind", &[
        ("inflated", field!(status.balloon.inflated_pages_total)),
        ("deflated", field!(status.balloon.deflated_pages_total)),
        ("reported", field!(status.balloon.reported_pages_total)),
        ("hinted", field!(status.balloon.hinted_pages_total)),
        ("hint_dropped", field!(status.balloon.hint_dropped_pages_total)),
    ])),
    family(Counter, "ballast_guest_disk_requests_total", "Requests of a Linux guest to its disks, by what became of them.", By("kind", &[
        ("read", field!(status.disks.reads_total)),
        ("write", field!(status.disks.writes_total)),
        ("flush", field!(status.disks.flushes_total)),
        ("failed", field!(status.disks.failed_total)),
        ("refused", field!(status.disks.rejected_total)),
    ])),
    family(Counter, "ballast_guest_disk_bytes_total", "Bytes of them.", By("kind", &[
        ("read", field!(status.disks.read_bytes_total)),
        ("written", field!(status.disks.written_bytes_total)),
        ("discarded", field!(status.disks.discarded_bytes_total)),
    ])),
    family(Counter, "ballast_guest_network_frames_total", "Frames of a Linux guest, by what became of them.", By("kind", &[
        ("sent", field!(status.networks.sent_frames_total)),
        ("received", field!(status.networks.received_frames_total)),
        ("dropped", field!(status.networks.dropped_total)),
        ("refused", field!(status.networks.rejected_total)),
    ])),
    family(Counter, "ballast_guest_network_bytes_total", "Bytes of them.", By("kind", &[
        ("sent", field!(status.networks.sent_bytes_total)),
        ("received", field!(status.networks.received_bytes_total)),
    ])),
    family(Gauge, "ballast_guest_report_delay_seconds", "How long pages that it reports free are left alone at least.",
        One(|guest| match guest.status.balloon.report_delay_ms { u64::MAX => f64::INFINITY, ms => ms as f64 * 1e-3 })),
    family(Counter, "ballast_guest_reports_left_pages_total", "Pages it reported free that were left as they were.",
        One(field!(status.balloon.reports_left_pages_total))),
    family(Counter, "ballast_guest_balloon_rejected_total", "Malformed balloon requests of the guest.", One(field!(status.balloon.rejected_total))),
    family(Counter, "ballast_guest_operations_total", "Operations of the workload.", One(field!(status.workload.operations_total))),
    family(Gauge, "ballast_guest_timed_seconds_max", "The longest time that the workload has timed by itself.",
        One(|guest| guest.status.workload.timed.ns_max as f64 / 1e9)),
    family(Counter, "ballast_guest_pages_verified_total", "Pages the guest read whole and found right.",
        One(field!(status.workload.pages_verified_total))),
    family(Counter, "ballast_guest_pages_corrupt_total", "Pages the guest found wrong.", One(field!(status.workload.pages_corrupt_total))),
];
