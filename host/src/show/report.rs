//! What a run came to: the verdict, and the JSON that `--report` writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use control::VcpuKind;
use control::status::{DiskStatus, NetworkStatus};
use serde::Serialize;

use crate::bytes::ByteCount;
use crate::error::Error;
use crate::fleet::guest::View;
use crate::fleet::phase::{End, Phase};
use crate::show::gain::{DomainGain, areas_wanted, unmerged_pages};
use crate::show::totals::{FaultSeconds, Reclaimed, sum};

/// Version of [`Report`]'s layout.
const SCHEMA_VERSION: u32 = 1;

/// A run that is over.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the guests were to fit into at the end, bytes.
    pub budget_bytes: u64,
    /// The worst sample that was above the budget it is judged by, with that budget, bytes.
    pub excess: Option<(u64, u64)>,
    /// RAM of all guests, bytes.
    pub promised_bytes: u64,
    /// Most that was used at any sample, bytes, measured from outside.
    pub peak_used_bytes: u64,
    /// What executed the guests.
    pub vcpu: VcpuKind,
    /// Whether the guests were Linux guests, which verify nothing: they switch themselves off.
    pub linux: bool,
    /// What the levers had won when the run ended, before the guests were told to verify all they held.
    pub reclaimed: Reclaimed,
    /// The guests at that moment.
    pub before: Vec<View>,
    /// The sharing domains at that moment.
    pub domains: Vec<DomainGain>,
    /// The guests' ends and last words.
    pub after: Vec<View>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
}

impl Outcome {
    /// Why the run failed, most important first; empty when every guest verified everything, or
    /// switched itself off, and use kept to the budget.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for view in &self.after {
            match &view.phase {
                Phase::Ended(End::Verified) => {}
                Phase::Ended(end) => failures.push(format!("{} {end}", view.name)),
                phase => failures.push(format!("{} never ended: {phase}", view.name)),
            }
        }
        if let Some((used, budget)) = self.excess {
            failures.push(format!("{} were used of a budget of {}", ByteCount(used), ByteCount(budget)));
        }
        failures
    }

    /// Promised memory over the budget.
    pub fn overcommit_ratio(&self) -> f64 {
        self.promised_bytes as f64 / self.budget_bytes as f64
    }

    /// The report of this run.
    pub fn report(&self) -> Report<'_> {
        let total = |figure: fn(&control::GuestStatus) -> u64| sum(&self.after, figure);
        let guests = self.before.iter().zip(&self.after).map(|(before, after)| GuestReport {
            name: &after.name,
            domain: &after.domain,
            pid: after.pid,
            restarts_total: after.past.restarts,
            operations_total: after.operations(),
            pages_verified_total: after.pages_verified(),
            pages_corrupt_total: after.status.workload.pages_corrupt_total,
            stall_seconds: after.status.pager.stall_ns_total as f64 / 1e9,
            memory_bytes: after.status.memory_bytes,
            allocation_bytes: before.grant.allocation_bytes,
            resident_bytes: before.status.pager.resident_bytes,
            unmerged_pages: unmerged_pages(before).into_iter().collect(),
            alias_vmas: before.status.dedup.vmas,
            alias_vmas_wanted: areas_wanted(before),
            disks: after.status.disks,
            networks: after.status.networks,
            exit: match &after.phase {
                Phase::Ended(end) => end.to_string(),
                phase => phase.to_string(),
            },
        });
        Report {
            schema_version: SCHEMA_VERSION,
            host: HostReport {
                budget_bytes: self.budget_bytes,
                promised_bytes: self.promised_bytes,
                peak_used_bytes: self.peak_used_bytes,
                overcommit_ratio: self.overcommit_ratio(),
                vcpu: self.vcpu,
            },
            reclaimed_bytes: self.reclaimed,
            dedup: DedupReport {
                pages_merged_total: total(|status| {
                    let dedup = &status.dedup;
                    dedup.merged_same_address_total + dedup.merged_alias_total + dedup.merged_zero_total
                }),
                same_address_total: total(|status| status.dedup.merged_same_address_total),
                alias_total: total(|status| status.dedup.merged_alias_total),
                cow_breaks_total: total(|status| status.pager.breaks_total),
                cpu_seconds: total(|status| status.dedup.cpu_ns) as f64 / 1e9,
                domains: &self.domains,
            },
            pager: PagerReport {
                faults_total: total(|status| {
                    let pager = &status.pager;
                    pager.faults_missing_total + pager.faults_minor_total + pager.faults_write_protect_total
                }),
                fault_seconds: FaultSeconds::of(&self.after),
                evictions_total: total(|status| status.pager.evictions_total),
                promotions_total: total(|status| status.pager.promotions_total),
                patched_total: total(|status| status.pager.pool_patched_total),
            },
            guests: guests.collect(),
        }
    }

    /// Writes the report as JSON.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(&self.report()).map_err(std::io::Error::from);
        let written = json.and_then(|json| fs::write(path, json));
        written.map_err(|source| Error::Report { path: path.to_path_buf(), source })
    }
}

/// The JSON of `--report`.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    schema_version: u32,
    host: HostReport,
    reclaimed_bytes: Reclaimed,
    dedup: DedupReport<'a>,
    pager: PagerReport,
    guests: Vec<GuestReport<'a>>,
}

#[derive(Debug, Serialize)]
struct HostReport {
    budget_bytes: u64,
    promised_bytes: u64,
    peak_used_bytes: u64,
    overcommit_ratio: f64,
    vcpu: VcpuKind,
}

#[derive(Debug, Serialize)]
struct DedupReport<'a> {
    pages_merged_total: u64,
    same_address_total: u64,
    alias_total: u64,
    cow_breaks_total: u64,
    cpu_seconds: f64,
    domains: &'a [DomainGain],
}

#[derive(Debug, Serialize)]
struct PagerReport {
    faults_total: u64,
    fault_seconds: FaultSeconds,
    evictions_total: u64,
    promotions_total: u64,
    patched_total: u64,
}

#[derive(Debug, Serialize)]
struct GuestReport<'a> {
    name: &'a str,
    domain: &'a str,
    pid: u32,
    restarts_total: u64,
    operations_total: u64,
    pages_verified_total: u64,
    pages_corrupt_total: u64,
    stall_seconds: f64,
    memory_bytes: u64,
    allocation_bytes: u64,
    resident_bytes: u64,
    unmerged_pages: BTreeMap<&'static str, u64>,
    alias_vmas: u64,
    alias_vmas_wanted: u64,
    disks: DiskStatus,
    networks: NetworkStatus,
    exit: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::domains::DomainView;
    use control::GuestStatus;

    fn outcome(end: End, peak_used_bytes: u64) -> Outcome {
        let status = GuestStatus { memory_bytes: 256 << 20, ..GuestStatus::default() };
        let view = View { pid: 7, ..View::running("guest0", status) };
        let after = View { phase: Phase::Ended(end), ..view.clone() };
        Outcome {
            budget_bytes: 64 << 20,
            excess: (peak_used_bytes > 64 << 20).then_some((peak_used_bytes, 64 << 20)),
            promised_bytes: 256 << 20,
            peak_used_bytes,
            vcpu: VcpuKind::Kvm,
            linux: false,
            reclaimed: Reclaimed::default(),
            before: vec![view],
            domains: vec![DomainGain::of(&[], &[DomainView::default()]).remove(0)],
            after: vec![after],
            interrupted: false,
        }
    }

    #[test]
    fn a_verified_run_within_its_budget_has_no_failures() {
        assert!(outcome(End::Verified, 64 << 20).failures().is_empty());
    }

    #[test]
    fn one_byte_above_the_budget_fails_the_run() {
        assert_eq!(outcome(End::Verified, (64 << 20) + 1).failures().len(), 1);
    }

    #[test]
    fn a_lost_guest_is_named_in_failures_and_report() {
        let outcome = outcome(End::Lost("killed by signal 9 (SIGKILL)".into()), 0);
        assert_eq!(outcome.failures(), ["guest0 lost: killed by signal 9 (SIGKILL)"]);
        let json = serde_json::to_value(outcome.report()).unwrap();
        assert_eq!(json["guests"][0]["exit"], "lost: killed by signal 9 (SIGKILL)");
    }

    #[test]
    fn the_report_has_every_field_of_its_schema() {
        let json = serde_json::to_value(outcome(End::Verified, 0).report()).unwrap();
        let keys = |value: &serde_json::Value| {
            value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["host"]["vcpu"], "kvm");
        assert_eq!(json["host"]["overcommit_ratio"], 4.0);
        assert_eq!(keys(&json["host"]).len(), 5);
        assert_eq!(keys(&json["reclaimed_bytes"]).len(), 7);
        assert_eq!(keys(&json["dedup"]).len(), 6);
        assert_eq!(keys(&json["dedup"]["domains"][0]).len(), 7);
        assert_eq!(keys(&json["dedup"]["domains"][0]["gain_bytes"]), ["across_guests", "within_guest", "zero"]);
        assert_eq!(keys(&json["guests"][0]["unmerged_pages"]).len(), control::explain::REASONS.len());
        assert_eq!(keys(&json["pager"]).len(), 5);
        assert_eq!(keys(&json["pager"]["fault_seconds"]), ["max", "p50", "p99"]);
        assert_eq!(keys(&json["guests"][0]).len(), 17);
    }
}
