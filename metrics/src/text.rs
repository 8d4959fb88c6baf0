//! From figures to exposition text: the only place that knows the `prometheus` crate.

use control::status::{GuestStatus, LATENCY_BUCKETS, latency_bound_ns};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::families::{DOMAIN, Family, GUEST, HOST, Kind, Values};
use crate::{Domain, Error, GuestFigures, Snapshot};

/// Every second bound of the status' histogram: powers of two from 1 µs to 1 s, 21 series a guest.
const BUCKET_STRIDE: usize = 2;

/// Times by bucket, and all of them together, ns.
type Times<'a> = (&'a [u64], u64);
type TimesOf = fn(&GuestStatus) -> Times<'_>;

/// Histograms of how long something took a guest, or its pager.
static LATENCIES: [(&str, &str, TimesOf); 5] = [
    ("ballast_guest_fault_seconds", "Service time of page faults served in user space.", |guest| {
        (&guest.pager.fault_latency, guest.pager.fault_ns_total)
    }),
    ("ballast_guest_stall_seconds", "Time of single waits of vCPUs in page faults, those that are over.", |guest| {
        (&guest.pager.stall_latency.buckets, guest.pager.stall_latency.ns_total)
    }),
    ("ballast_guest_swap_write_seconds", "Time of writes to the swap file, each of up to 32 pages.", |guest| {
        (&guest.pager.swap.write_latency.buckets, guest.pager.swap.write_latency.ns_total)
    }),
    ("ballast_guest_swap_read_seconds", "Time of reads from the swap file.", |guest| {
        (&guest.pager.swap.read_latency.buckets, guest.pager.swap.read_latency.ns_total)
    }),
    ("ballast_guest_timed_seconds", "What the workload has timed by itself.", |guest| {
        (&guest.workload.timed.buckets, guest.workload.timed.ns_total)
    }),
];

/// The snapshot as Prometheus text, format 0.0.4.
pub fn encode(snapshot: &Snapshot) -> Result<String, Error> {
    let info = metric(Kind::Gauge, 1.0, vec![label("version", snapshot.version)]);
    let mut families = vec![described("ballast_build_info", "Version of this program.", MetricType::GAUGE, vec![info])];
    for family in &HOST {
        families.push(collected(family, series(family, &snapshot.host, None)));
    }
    for family in &DOMAIN {
        let of_domain = |domain: &Domain| series(family, domain, Some(("domain", &domain.name)));
        families.push(collected(family, snapshot.domains.iter().flat_map(of_domain).collect()));
    }
    for family in &GUEST {
        let of_guest = |guest: &GuestFigures| series(family, guest, Some(("guest", &guest.name)));
        families.push(collected(family, snapshot.guests.iter().flat_map(of_guest).collect()));
    }
    for &(name, help, figure) in &LATENCIES {
        let of_guest = |guest: &GuestFigures| latency(&guest.name, figure(&guest.status));
        families.push(described(name, help, MetricType::HISTOGRAM, snapshot.guests.iter().map(of_guest).collect()));
    }
    families.retain(|family| !family.get_metric().is_empty());
    Ok(TextEncoder::new().encode_to_string(&families)?)
}

fn series<T>(family: &Family<T>, figures: &T, owner: Option<(&str, &str)>) -> Vec<Metric> {
    let owner: Vec<LabelPair> = owner.into_iter().map(|(kind, name)| label(kind, name)).collect();
    let labelled = |name, value| owner.iter().cloned().chain([label(name, value)]).collect();
    match family.values {
        Values::One(figure) => vec![metric(family.kind, figure(figures), owner)],
        Values::Known(figure) => figure(figures).map(|value| metric(family.kind, value, owner)).into_iter().collect(),
        Values::By(name, values) => {
            values.iter().map(|(value, figure)| metric(family.kind, figure(figures), labelled(name, value))).collect()
        }
        Values::Listed(name, list) => list(figures)
            .iter()
            .map(|&(value, figure)| metric(family.kind, figure as f64, labelled(name, value)))
            .collect(),
        Values::ListedNs(name, list) => list(figures)
            .iter()
            .map(|&(value, ns)| metric(family.kind, ns as f64 * 1e-9, labelled(name, value)))
            .collect(),
        Values::Crossed([first, second], list) => {
            let pair = |&([one, other], figure): &([&str; 2], u64)| {
                let labels = owner.iter().cloned().chain([label(first, one), label(second, other)]).collect();
                metric(family.kind, figure as f64, labels)
            };
            list(figures).iter().map(pair).collect()
        }
    }
}

fn collected<T>(family: &Family<T>, series: Vec<Metric>) -> MetricFamily {
    let kind = match family.kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
    };
    described(family.name, family.help, kind, series)
}

fn described(name: &str, help: &str, kind: MetricType, series: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

fn metric(kind: Kind, value: f64, labels: Vec<LabelPair>) -> Metric {
    let mut metric = Metric::from_label(labels);
    match kind {
        Kind::Gauge => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
    }
    metric
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// A guest's times as a cumulative histogram; the bucket without a bound is the encoder's.
fn latency(guest: &str, (times, ns_total): Times<'_>) -> Metric {
    let counted = |buckets: usize| times.iter().take(buckets).sum::<u64>();
    let buckets = (0..LATENCY_BUCKETS - 1).step_by(BUCKET_STRIDE).map(|last| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(latency_bound_ns(last) as f64 / 1e9);
        bucket.set_cumulative_count(counted(last + 1));
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counted(LATENCY_BUCKETS));
    histogram.set_sample_sum(ns_total as f64 / 1e9);
    let mut metric = Metric::from_label(vec![label("guest", guest)]);
    metric.set_histogram(histogram);
    metric
}
