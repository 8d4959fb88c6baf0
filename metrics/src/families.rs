//! The tables: a family is a name, a help text, at most one label of its own, and for each of that label's
//! values a figure.

use crate::{Domain, GuestFigures, Host};

const PAGE_BYTES: f64 = 4096.0;
const NS: f64 = 1e-9;

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
    family(Gauge, "ballast_host_budget_bytes", "Host memory that guests, frames and upkeep may take.", One(|host| host.budget_bytes as f64)),
    family(Gauge, "ballast_host_used_bytes", "Host memory they take, measured from outside.", One(|host| host.used_bytes as f64)),
    family(Gauge, "ballast_host_used_peak_bytes", "Most host memory they took.", One(|host| host.peak_used_bytes as f64)),
    family(Gauge, "ballast_host_promised_bytes", "RAM of the guests that exist.", One(|host| host.promised_bytes as f64)),
    family(Gauge, "ballast_host_frames_bytes", "Part of the memory in use that is shared frames.", One(|host| host.frames_bytes as f64)),
    family(Gauge, "ballast_host_reclaimed_bytes", "Touched guest memory that costs no host memory, by what made it so.",
        Listed("mechanism", |host| &host.reclaimed_bytes)),
    family(Gauge, "ballast_host_kernel_tier_bytes", "Room of the kernel tier's device, by what it holds.",
        Listed("state", |host| &host.kernel_tier_bytes)),
    family(Gauge, "ballast_host_kernel_tier_memory_bytes", "Memory that pages in the kernel tier's device take, by whose they are.",
        Listed("kind", |host| &host.kernel_tier_memory_bytes)),
    family(Gauge, "ballast_host_guests", "Guests by state, those that are gone included.", Listed("state", |host| &host.guests)),
    family(Gauge, "ballast_host_state", "How short the host is: 1 for the state it is in, 0 for the others.", Listed("state", |host| &host.state)),
    family(Gauge, "ballast_host_usable_bytes", "What the world outside (control group, pressure, available memory) leaves of the budget.",
        One(|host| host.usable_bytes as f64)),
    family(Gauge, "ballast_host_short_bytes", "What is in force above what can be used: guests cannot be squeezed into what was lowered, or not yet.",
        One(|host| host.short_bytes as f64)),
    family(Counter, "ballast_policy_decisions_total", "Decisions about allocations that were new, by what they did and why.",
        Crossed(["action", "reason"], |host| &host.decisions)),
    family(Counter, "ballast_host_connections_total", "Connections to the endpoint, by what became of them.",
        Listed("kind", |host| &host.connections)),
];

/// A sharing domain's, all with the label `domain`.
#[rustfmt::skip] // A table reads as one.
pub(crate) static DOMAIN: [Family<Domain>; 7] = [
    family(Gauge, "ballast_domain_guests", "Guests in the sharing domain.", One(|domain| domain.guests as f64)),
    family(Gauge, "ballast_domain_frames_bytes", "Memory of its shared frames.", One(|domain| domain.frames_bytes as f64)),
    family(Gauge, "ballast_domain_idle_frames_bytes", "Part of it that no page shares.", One(|domain| domain.idle_frames_bytes as f64)),
    family(Gauge, "ballast_domain_gain_bytes", "Memory that sharing saves, less the frames that are held, by where equal pages lie.", By("kind", &[
        ("zero", |domain| domain.gain_zero_bytes as f64),
        ("within_guest", |domain| domain.gain_within_bytes as f64),
        ("across_guests", |domain| domain.gain_across_bytes as f64),
    ])),
    family(Gauge, "ballast_domain_cow_full_bytes", "Memory that would be needed if every shared page were written to.",
        One(|domain| domain.cow_full_bytes as f64)),
    family(Gauge, "ballast_domain_cow_expected_bytes", "Part of it that is expected to be needed before the host has reacted.",
        One(|domain| domain.cow_expected_bytes as f64)),
    family(Counter, "ballast_domain_frames_total", "What became of frames.", By("kind", &[
        ("published", |domain| domain.published_total as f64),
        ("retired", |domain| domain.retired_total as f64),
        ("refused", |domain| domain.refused_total as f64),
        ("declined", |domain| domain.declined_total as f64),
    ])),
];

/// A guest's, all with the label `guest`.
#[rustfmt::skip] // A table reads as one.
pub(crate) static GUEST: [Family<GuestFigures>; 72] = [
    family(Gauge, "ballast_guest_unresponsive", "1 while the guest's VMM has said nothing for 5 s, else 0.",
        One(|guest| f64::from(u8::from(guest.unresponsive)))),
    family(Gauge, "ballast_guest_memory_bytes", "Guest RAM by what backs it; the states sum to the RAM.", By("state", &[
        ("private", |guest| guest.status.pager.pages.private as f64 * PAGE_BYTES),
        ("shared", |guest| guest.status.pager.pages.shared as f64 * PAGE_BYTES),
        ("zero", |guest| guest.status.pager.pages.zero as f64 * PAGE_BYTES),
        ("ballooned", |guest| guest.status.pager.pages.ballooned as f64 * PAGE_BYTES),
        ("compressed", |guest| guest.status.pager.pages.compressed as f64 * PAGE_BYTES),
        ("swapped", |guest| guest.status.pager.pages.swapped as f64 * PAGE_BYTES),
        ("clean", |guest| guest.status.pager.pages.clean as f64 * PAGE_BYTES),
    ])),
    family(Gauge, "ballast_guest_kernel_pages", "Part of the private pages that is in the kernel's swap, by the VMM's count.",
        One(|guest| guest.status.pager.kernel_pages as f64)),
    family(Gauge, "ballast_guest_kernel_tier_stored_bytes", "What the guest's VMM has in the kernel's swap, by the kernel's books.",
        Known(|guest| Some(guest.kernel_tier_stored_bytes? as f64))),
    family(Gauge, "ballast_guest_kernel_tier_memory_bytes", "Memory that this takes.",
        Known(|guest| Some(guest.kernel_tier_memory_bytes? as f64))),
    family(Gauge, "ballast_guest_limit_bytes", "The most that the kernel lets the guest's VMM have in memory.",
        Known(|guest| Some(guest.limit_bytes? as f64))),
    family(Gauge, "ballast_guest_charged_bytes", "What the kernel charges it for, of that.",
        Known(|guest| Some(guest.charged_bytes? as f64))),
    family(Counter, "ballast_guest_limit_meetings_total", "Times that the VMM met this limit, and the kernel made room; and ticks at which it waited, as there was none.",
        Listed("kind", |guest| &guest.limit_meetings)),
    family(Gauge, "ballast_guest_up", "1 if its VMM has said within two seconds how it is.", One(|guest| f64::from(u8::from(guest.up)))),
    family(Gauge, "ballast_guest_start_time_seconds", "When its VMM was started, since 1970.", Known(|guest| guest.start_time_seconds)),
    family(Counter, "ballast_guest_restarts_total", "Times the guest was started anew.", One(|guest| guest.restarts_total as f64)),
    family(Gauge, "ballast_guest_status_age_seconds", "How old the guest's figures are: time since its VMM reported.",
        Known(|guest| guest.status_age_seconds)),
    family(Gauge, "ballast_guest_own_total_bytes", "RAM by the guest's own statistics.",
        Known(|guest| Some(guest.own_total_bytes? as f64))),
    family(Gauge, "ballast_guest_own_free_bytes", "RAM that is not in use, by the guest's own statistics.",
        Known(|guest| Some(guest.own_free_bytes? as f64))),
    family(Gauge, "ballast_guest_own_available_bytes", "RAM that it could use without swapping, by the guest's own statistics.",
        Known(|guest| Some(guest.own_available_bytes? as f64))),
    family(Gauge, "ballast_guest_own_age_seconds", "How old the guest's own statistics are.", Known(|guest| guest.own_age_seconds)),
    family(Gauge, "ballast_guest_allocation_bytes", "Host memory the guest may keep.", One(|guest| guest.allocation_bytes as f64)),
    family(Gauge, "ballast_guest_lever_page_seconds", "What each page costs that is won by a lever and stays away, as measured so far.",
        ListedNs("lever", |guest| &guest.lever_page_ns)),
    family(Gauge, "ballast_guest_lever_available_bytes", "What the levers among which policy chooses could win now.",
        Listed("lever", |guest| &guest.lever_available_bytes)),
    family(Counter, "ballast_guest_pages_taken_total", "Pages with something behind them that were taken.", By("lever", &[
        ("reported_free", |guest| guest.status.pager.reported.pages_total as f64),
        ("balloon", |guest| guest.status.pager.ballooned.pages_total as f64),
        ("zero", |guest| guest.status.pager.zeroed.pages_total as f64),
    ])),
    family(Counter, "ballast_guest_pages_back_soon_total", "Those of them that the guest touched again within eight seconds.", By("lever", &[
        ("reported_free", |guest| guest.status.pager.reported.back_soon_total as f64),
        ("balloon", |guest| guest.status.pager.ballooned.back_soon_total as f64),
        ("zero", |guest| guest.status.pager.zeroed.back_soon_total as f64),
    ])),
    family(Gauge, "ballast_guest_active_ratio", "Share of the last sample of its pages that the guest used within a period; 0 before the first.",
        One(|guest| f64::from(guest.status.pager.sampling.last.touched) / f64::from(guest.status.pager.sampling.last.pages.max(1)))),
    family(Counter, "ballast_guest_sampling_periods_total", "Periods in which the guest's active memory was sampled.",
        One(|guest| guest.status.pager.sampling.periods_total as f64)),
    family(Counter, "ballast_guest_held_seconds_total", "Time the vCPUs were held back because the host was low and the guest above its allocation.",
        One(|guest| guest.status.held_ns_total as f64 * NS)),
    family(Gauge, "ballast_guest_resident_bytes", "Host memory of the guest alone: private pages, pool and overhead.",
        One(|guest| guest.status.pager.resident_bytes as f64)),
    family(Gauge, "ballast_guest_floor_bytes", "What the guest cannot be squeezed below now: overhead, and what neither compresses nor has a swap file to go to.",
        One(|guest| guest.status.pager.floor_bytes as f64)),
    family(Gauge, "ballast_guest_committed_bytes", "Host memory the guest may be using until the next check.",
        One(|guest| guest.status.pager.committed_bytes as f64)),
    family(Gauge, "ballast_guest_pool_bytes", "Part of the resident memory that is the compressed pool.",
        One(|guest| guest.status.pager.pool_bytes as f64)),
    family(Gauge, "ballast_guest_patched_pages", "Pages in the compressed pool that are kept as patches of shared frames.",
        One(|guest| guest.status.pager.patch_pages as f64)),
    family(Gauge, "ballast_guest_patches_bytes", "What the patches are compressed to.",
        One(|guest| guest.status.pager.patch_bytes as f64)),
    family(Gauge, "ballast_guest_overhead_bytes", "Part of the resident memory that is neither guest pages nor pool.",
        One(|guest| guest.status.pager.overhead_bytes as f64)),
    family(Counter, "ballast_guest_faults_total", "Page faults served in user space.", By("kind", &[
        ("missing", |guest| guest.status.pager.faults_missing_total as f64),
        ("minor", |guest| guest.status.pager.faults_minor_total as f64),
        ("write_protect", |guest| guest.status.pager.faults_write_protect_total as f64),
    ])),
    family(Counter, "ballast_guest_faults_without_credit_total", "Page faults that had to wait for memory.",
        One(|guest| guest.status.pager.faults_without_credit_total as f64)),
    family(Counter, "ballast_guest_stall_seconds_total", "Time vCPUs were blocked in page faults, by what they waited for.", By("kind", &[
        ("fresh", |guest| guest.status.pager.stall.fresh_ns as f64 * NS),
        ("shared", |guest| guest.status.pager.stall.shared_ns as f64 * NS),
        ("broken", |guest| guest.status.pager.stall.broken_ns as f64 * NS),
        ("compressed", |guest| guest.status.pager.stall.compressed_ns as f64 * NS),
        ("kernel", |guest| guest.status.pager.stall.kernel_ns as f64 * NS),
        ("swapped", |guest| guest.status.pager.stall.swapped_ns as f64 * NS),
        ("moving", |guest| guest.status.pager.stall.moving_ns as f64 * NS),
        ("memory", |guest| guest.status.pager.stall.memory_ns as f64 * NS),
    ])),
    family(Counter, "ballast_guest_evictions_total", "Pages evicted.", One(|guest| guest.status.pager.evictions_total as f64)),
    family(Counter, "ballast_guest_evictions_proactive_total", "Pages evicted before memory was short.",
        One(|guest| guest.status.pager.evictions_proactive_total as f64)),
    family(Counter, "ballast_guest_pool_moves_total", "Pages moved within the compressed pool.", By("kind", &[
        ("packed", |guest| guest.status.pager.pool_packed_total as f64),
        ("patched", |guest| guest.status.pager.pool_patched_total as f64),
        ("rejoined", |guest| guest.status.pager.pool_rejoined_total as f64),
        ("compacted", |guest| guest.status.pager.pool_moved_total as f64),
    ])),
    family(Counter, "ballast_guest_promotions_total", "Evicted pages brought back by a fault.",
        One(|guest| guest.status.pager.promotions_total as f64)),
    family(Counter, "ballast_guest_read_ahead_total", "Evicted pages that came back along with others.",
        One(|guest| guest.status.pager.read_ahead_total as f64)),
    family(Counter, "ballast_guest_prefetched_total", "Evicted pages that came back in bulk before they were asked for.",
        One(|guest| guest.status.pager.prefetched_total as f64)),
    family(Counter, "ballast_guest_refaults_total", "Evicted pages brought back soon after their eviction.",
        One(|guest| guest.status.pager.refaults_total as f64)),
    family(Counter, "ballast_guest_incompressible_total", "Pages that eviction found incompressible.",
        One(|guest| guest.status.pager.incompressible_total as f64)),
    family(Counter, "ballast_guest_pager_cpu_seconds_total", "CPU time of the pager's threads.", By("kind", &[
        ("fault", |guest| guest.status.pager.fault_cpu_ns as f64 * NS),
        ("evict", |guest| guest.status.pager.evict_cpu_ns as f64 * NS),
    ])),
    family(Gauge, "ballast_guest_swap_file_bytes", "Length of the guest's swap file, by what it holds.", By("state", &[
        ("used", |guest| guest.status.pager.swap.used_bytes as f64),
        ("free", |guest| (guest.status.pager.swap.capacity_bytes.saturating_sub(guest.status.pager.swap.used_bytes)) as f64),
    ])),
    family(Gauge, "ballast_guest_swap_suspended", "1 while the swap file is left alone after a write that failed.",
        One(|guest| f64::from(u8::from(guest.status.pager.swap.suspended)))),
    family(Counter, "ballast_guest_swap_pages_total", "Pages written to the swap file and read back.", By("kind", &[
        ("out", |guest| guest.status.pager.swap.pages_out_total as f64),
        ("in", |guest| guest.status.pager.swap.pages_in_total as f64),
    ])),
    family(Counter, "ballast_guest_swap_errors_total", "Transfers with the swap file that failed.", By("kind", &[
        ("write", |guest| guest.status.pager.swap.write_errors_total as f64),
        ("read", |guest| guest.status.pager.swap.read_errors_total as f64),
    ])),
    family(Counter, "ballast_guest_swap_discarded_bytes_total", "Freed room of the swap file that was given back to the disk.",
        One(|guest| guest.status.pager.swap.discarded_bytes_total as f64)),
    family(Counter, "ballast_guest_merges_total", "Pages merged.", By("kind", &[
        ("same_address", |guest| guest.status.dedup.merged_same_address_total as f64),
        ("alias", |guest| guest.status.dedup.merged_alias_total as f64),
        ("zero", |guest| guest.status.dedup.merged_zero_total as f64),
    ])),
    family(Counter, "ballast_guest_breaks_total", "Shared pages that were written to.",
        One(|guest| guest.status.pager.breaks_total as f64)),
    family(Counter, "ballast_guest_merge_mismatches_total", "Merges given up because the contents differed.",
        One(|guest| guest.status.dedup.mismatches_total as f64)),
    family(Counter, "ballast_guest_scanned_pages_total", "Pages hashed by the scanner.",
        One(|guest| guest.status.dedup.hashed_total as f64)),
    family(Counter, "ballast_guest_scanner_cpu_seconds_total", "CPU time of the scanner.",
        One(|guest| guest.status.dedup.cpu_ns as f64 * NS)),
    family(Gauge, "ballast_dedup_unmerged_pages", "Pages that are neither shared nor zero, by why.",
        Listed("reason", |guest| &guest.unmerged_pages)),
    family(Counter, "ballast_guest_alias_vmas_won_back_total", "Address-space areas won back from aliases that shared nothing any more.",
        One(|guest| guest.status.dedup.vmas_won_back_total as f64)),
    family(Gauge, "ballast_guest_alias_vmas_budget", "Address-space areas that aliases may cost.",
        One(|guest| guest.status.dedup.vma_budget as f64)),
    family(Gauge, "ballast_guest_alias_vmas_wanted", "Address-space areas with which none would have been refused, at most.",
        One(|guest| guest.alias_vmas_wanted as f64)),
    family(Gauge, "ballast_guest_alias_vmas", "Address-space areas that aliases cost.", One(|guest| guest.status.dedup.vmas as f64)),
    family(Gauge, "ballast_guest_balloon_requested_bytes", "Memory the guest is asked to give up.",
        One(|guest| guest.status.balloon.requested_bytes as f64)),
    family(Gauge, "ballast_guest_balloon_actual_bytes", "Memory the guest has given up.",
        One(|guest| guest.status.balloon.actual_bytes as f64)),
    family(Counter, "ballast_guest_balloon_pages_total", "Pages that went through the balloon device.", By("kind", &[
        ("inflated", |guest| guest.status.balloon.inflated_pages_total as f64),
        ("deflated", |guest| guest.status.balloon.deflated_pages_total as f64),
        ("reported", |guest| guest.status.balloon.reported_pages_total as f64),
        ("hinted", |guest| guest.status.balloon.hinted_pages_total as f64),
        ("hint_dropped", |guest| guest.status.balloon.hint_dropped_pages_total as f64),
    ])),
    family(Counter, "ballast_guest_disk_requests_total", "Requests of a Linux guest to its disks, by what became of them.", By("kind", &[
        ("read", |guest| guest.status.disks.reads_total as f64),
        ("write", |guest| guest.status.disks.writes_total as f64),
        ("flush", |guest| guest.status.disks.flushes_total as f64),
        ("failed", |guest| guest.status.disks.failed_total as f64),
        ("refused", |guest| guest.status.disks.rejected_total as f64),
    ])),
    family(Counter, "ballast_guest_disk_bytes_total", "Bytes of them.", By("kind", &[
        ("read", |guest| guest.status.disks.read_bytes_total as f64),
        ("written", |guest| guest.status.disks.written_bytes_total as f64),
        ("discarded", |guest| guest.status.disks.discarded_bytes_total as f64),
    ])),
    family(Counter, "ballast_guest_network_frames_total", "Frames of a Linux guest, by what became of them.", By("kind", &[
        ("sent", |guest| guest.status.networks.sent_frames_total as f64),
        ("received", |guest| guest.status.networks.received_frames_total as f64),
        ("dropped", |guest| guest.status.networks.dropped_total as f64),
        ("refused", |guest| guest.status.networks.rejected_total as f64),
    ])),
    family(Counter, "ballast_guest_network_bytes_total", "Bytes of them.", By("kind", &[
        ("sent", |guest| guest.status.networks.sent_bytes_total as f64),
        ("received", |guest| guest.status.networks.received_bytes_total as f64),
    ])),
    family(Gauge, "ballast_guest_report_delay_seconds", "How long pages that it reports free are left alone at least.",
        One(|guest| match guest.status.balloon.report_delay_ms { u64::MAX => f64::INFINITY, ms => ms as f64 * 1e-3 })),
    family(Counter, "ballast_guest_reports_left_pages_total", "Pages it reported free that were left as they were.",
        One(|guest| guest.status.balloon.reports_left_pages_total as f64)),
    family(Counter, "ballast_guest_balloon_rejected_total", "Malformed balloon requests of the guest.",
        One(|guest| guest.status.balloon.rejected_total as f64)),
    family(Counter, "ballast_guest_operations_total", "Operations of the workload.",
        One(|guest| guest.status.workload.operations_total as f64)),
    family(Gauge, "ballast_guest_timed_seconds_max", "The longest time that the workload has timed by itself.",
        One(|guest| guest.status.workload.timed.ns_max as f64 / 1e9)),
    family(Counter, "ballast_guest_pages_verified_total", "Pages the guest read whole and found right.",
        One(|guest| guest.status.workload.pages_verified_total as f64)),
    family(Counter, "ballast_guest_pages_corrupt_total", "Pages the guest found wrong.",
        One(|guest| guest.status.workload.pages_corrupt_total as f64)),
];
