//! The text is what Prometheus expects, adds up, and is what the documentation, alerts and dashboard speak
//! of.

#![allow(clippy::unwrap_used, reason = "a test's helper may fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::{Command, Stdio};

use control::GuestStatus;
use control::status::{LATENCY_BUCKETS, LatencyStatus, PageCounts, latency_bucket};
use metrics::{Domain, GuestFigures, Host, Snapshot, encode};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const RULES: &str = include_str!("../alerts/ballast.rules.yml");
const DASHBOARD: &str = include_str!("../dashboards/ballast.json");

fn guest(name: &str) -> GuestFigures {
    let mut status = GuestStatus { memory_bytes: 28 * 4096, ..GuestStatus::default() };
    status.pager.pages =
        PageCounts { private: 1, shared: 2, zero: 3, ballooned: 4, compressed: 5, swapped: 6, clean: 7 };
    status.pager.fault_latency = vec![0; LATENCY_BUCKETS];
    for ns in [700, 1_300, 65_000, 65_000, 5_000_000_000] {
        status.pager.fault_latency[latency_bucket(ns)] += 1;
        status.pager.fault_ns_total += ns;
    }
    status.pager.stall_latency = LatencyStatus { buckets: vec![0; LATENCY_BUCKETS], ns_total: 70_000, ns_max: 70_000 };
    status.pager.stall_latency.buckets[latency_bucket(70_000)] = 1;
    let unmerged_pages = control::explain::unmerged(&status).to_vec();
    GuestFigures {
        name: name.to_owned(),
        allocation_bytes: 96 << 20,
        unresponsive: false,
        unmerged_pages,
        alias_vmas_wanted: 7,
        lever_page_ns: vec![("balloon", 3_000)],
        lever_available_bytes: vec![("balloon", 64 << 20)],
        kernel_tier_stored_bytes: Some(8 << 20),
        kernel_tier_memory_bytes: Some(2 << 20),
        limit_bytes: Some(97 << 20),
        charged_bytes: Some(90 << 20),
        limit_meetings: vec![("made_room", 2), ("waited", 0)],
        up: true,
        start_time_seconds: Some(1.75e9),
        restarts_total: 3,
        status_age_seconds: Some(0.1),
        own_total_bytes: Some(28 * 4096),
        own_free_bytes: Some(4096),
        own_available_bytes: Some(2 * 4096),
        own_age_seconds: Some(0.5),
        status,
    }
}

fn snapshot() -> Snapshot {
    let host = Host {
        budget_bytes: 768 << 20,
        reclaimed_bytes: vec![("balloon", 1), ("shared", 2)],
        kernel_tier_bytes: vec![("used", 1 << 20), ("free", 1 << 20)],
        kernel_tier_memory_bytes: vec![("guests", 4096), ("others", 0)],
        guests: vec![("running", 2), ("lost", 0)],
        state: vec![("high", 0), ("hard", 1)],
        connections: vec![("served", 7), ("refused", 0)],
        decisions: vec![(["grow", "stalls"], 3), (["shrink", "yields"], 2)],
        ..Host::default()
    };
    let domains = vec![Domain { name: "own:guest1".into(), gain_across_bytes: 4096, ..Domain::default() }];
    Snapshot { version: "0.1.0", host, domains, guests: vec![guest("web1"), guest("od\"d\\\nname")] }
}

/// Parses exposition text as strictly as Prometheus does, and then some: every family is described before its
/// series, every series belongs to the family last described and occurs once. Answers the series by name and
/// labels, and the families' types.
fn parse(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
    let (mut helped, mut family) = (String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            assert!(help.ends_with('.'), "{line}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(name, helped, "{line}");
            family = name.to_owned();
            assert!(types.insert(family.clone(), kind.to_owned()).is_none(), "described twice: {line}");
        } else {
            let (id, value) = line.rsplit_once(' ').expect(line);
            let name = id.split('{').next().expect(line);
            let suffix = name.strip_prefix(&family).expect(line);
            let histogram = types[&family] == "histogram";
            assert!(
                if histogram { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() },
                "{line}"
            );
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{line}"
            );
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(series.insert(id.to_owned(), value).is_none(), "occurs twice: {line}");
        }
    }
    (series, types)
}

/// Every word of a text that looks like one of our metrics, less the suffixes of histograms.
fn metrics_named_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    let prefixes =
        ["ballast_host_", "ballast_domain_", "ballast_guest_", "ballast_dedup_", "ballast_policy_", "ballast_build_"];
    let ours = words
        .filter(|word| prefixes.iter().any(|prefix| word.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty())));
    ours.map(|word| ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word))
        .collect()
}

#[test]
fn the_text_parses_and_names_keep_the_conventions() {
    let (series, types) = parse(&encode(&snapshot()).unwrap());
    for (name, kind) in &types {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(name.starts_with("ballast_"));
    }
    assert_eq!(series["ballast_host_budget_bytes"], 805_306_368.0);
    assert_eq!(series["ballast_build_info{version=\"0.1.0\"}"], 1.0);
    assert_eq!(series["ballast_guest_allocation_bytes{guest=\"od\\\"d\\\\\\nname\"}"], f64::from(96 << 20));
}

#[test]
fn memory_by_state_sums_to_the_guests_ram() {
    let (series, _) = parse(&encode(&snapshot()).unwrap());
    let of_web1 = |id: &str| id.starts_with("ballast_guest_memory_bytes{") && id.contains("\"web1\"");
    let sum: f64 = series.iter().filter(|(id, _)| of_web1(id)).map(|(_, bytes)| bytes).sum();
    assert_eq!(sum, 28.0 * 4096.0);
}

#[test]
fn unmerged_pages_by_reason_sum_to_what_is_neither_shared_nor_zero() {
    let (series, _) = parse(&encode(&snapshot()).unwrap());
    let of_web1 = |id: &str| id.starts_with("ballast_dedup_unmerged_pages{") && id.contains("\"web1\"");
    let sum: f64 = series.iter().filter(|(id, _)| of_web1(id)).map(|(_, pages)| pages).sum();
    assert_eq!(sum, 23.0);
    assert_eq!(series["ballast_domain_gain_bytes{domain=\"own:guest1\",kind=\"across_guests\"}"], 4096.0);
}

#[test]
fn what_a_guest_has_not_said_yet_is_absent_and_not_zero() {
    let silent = GuestFigures { name: "silent".into(), up: false, ..GuestFigures::default() };
    let (series, _) = parse(&encode(&Snapshot { guests: vec![guest("web1"), silent], ..Snapshot::default() }).unwrap());
    let figure = |name: &str, guest: &str| series.get(&format!("ballast_guest_{name}{{guest=\"{guest}\"}}")).copied();
    assert_eq!((figure("up", "web1"), figure("up", "silent")), (Some(1.0), Some(0.0)));
    for name in ["status_age_seconds", "own_total_bytes", "own_free_bytes", "own_available_bytes", "own_age_seconds"] {
        assert!(figure(name, "web1").is_some() && figure(name, "silent").is_none(), "{name}");
    }
}

#[test]
fn the_latency_histogram_is_cumulative_and_complete() {
    let (series, _) = parse(&encode(&snapshot()).unwrap());
    let bucket = |le: &str| series[&format!("ballast_guest_fault_seconds_bucket{{guest=\"web1\",le=\"{le}\"}}")];
    assert_eq!([bucket("0.000001"), bucket("0.000002"), bucket("0.000064"), bucket("0.000128")], [1.0, 2.0, 2.0, 4.0]);
    assert_eq!([bucket("1.048576"), bucket("+Inf")], [4.0, 5.0]);
    assert_eq!(series["ballast_guest_fault_seconds_count{guest=\"web1\"}"], 5.0);
    assert!((series["ballast_guest_fault_seconds_sum{guest=\"web1\"}"] - 5.000132).abs() < 1e-9);
    let stall = |rest: &str| series[&format!("ballast_guest_stall_seconds_{rest}")];
    let buckets = ["0.000064", "0.000128"].map(|le| stall(&format!("bucket{{guest=\"web1\",le=\"{le}\"}}")));
    assert_eq!((buckets, stall("count{guest=\"web1\"}"), stall("sum{guest=\"web1\"}")), ([0.0, 1.0], 1.0, 0.000_07));
}

#[test]
fn a_host_without_guests_has_text_and_guests_that_went_leave_nothing() {
    let (series, _) = parse(&encode(&Snapshot::default()).unwrap());
    assert!(series.keys().all(|id| !id.contains("guest=")) && series.contains_key("ballast_host_used_bytes"));
}

#[test]
fn documentation_alerts_and_dashboard_name_metrics_that_exist_and_the_documentation_all() {
    let text = encode(&snapshot()).unwrap();
    let exist: BTreeSet<&str> = parse(&text).1.into_keys().map(|name| &*name.leak()).collect();
    assert_eq!(metrics_named_in(OPERATIONS), exist);
    for text in [RULES, DASHBOARD] {
        let named = metrics_named_in(text);
        assert!(named.len() > 4 && named.is_subset(&exist), "{:?}", named.difference(&exist));
    }
    let alerts: Vec<&str> = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 4 && alerts.iter().all(|alert| OPERATIONS.contains(&format!("`{alert}`"))), "{alerts:?}");
}

#[test]
fn the_dashboard_takes_its_data_source_from_a_variable() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut sources = panels.iter().chain(targets).map(|value| &value["datasource"]["uid"]);
    assert!(sources.all(|uid| uid == "${datasource}"));
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
}

/// Runs promtool, or says that it could not. Its lint answers with words on stderr and a nonzero status.
fn promtool(arguments: &[&str], input: &str) {
    let spawned = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            // Past the test harness's capture, or nobody would see it.
            let _ =
                writeln!(io::stderr(), "SKIPPED: promtool {arguments:?}: {error} (Debian package `prometheus` has it)");
            return;
        }
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}{said}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_text() {
    promtool(&["check", "metrics"], &encode(&snapshot()).unwrap());
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    promtool(&["check", "rules", concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/ballast.rules.yml")], "");
}
