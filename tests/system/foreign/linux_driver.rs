//! Linux's own balloon driver against our device: user-mode Linux over vhost-user, whose memory is a file
//! that everybody can look at.

use std::path::Path;

use peers::device::Device;
use peers::uml::Uml;
use peers::wait_for;
use serde_json::{Value, json};

use crate::support::{Turn, skipped};

const MEMORY_MIB: u32 = 128;
const MIB: u64 = 1 << 20;
/// Times the balloon goes up and down beside a guest that works.
const REPEATS: usize = 100;

/// A guest whose driver has started, and its device; `None`, loudly, where user-mode Linux is not installed.
fn guest(memory_mib: u32, options: &[&str]) -> Option<(Uml, Device)> {
    let device = Device::start(Path::new(env!("CARGO_BIN_EXE_ballast")), &["--statistics-interval", "100ms"]);
    let mut uml = Uml::boot(memory_mib, &device.socket(), options).map_err(|why| skipped(&why)).ok()?;
    uml.run("insmod /lib/virtio_balloon.ko");
    device.wait("a driver", |balloon| balloon["driver"] == "running");
    Some((uml, device))
}

/// Makes the host give the guest this much memory, and the guest free it again.
fn use_memory(uml: &mut Uml, mib: u64) {
    uml.run(&format!("dd if=/dev/zero of=/tmp/used bs=1M count={mib} 2>/dev/null; rm /tmp/used"));
}

#[track_caller]
fn assert_nothing_was_refused(uml: &mut Uml, device: &Device) {
    let balloon = device.balloon();
    for count in ["rejected", "broken", "release_failures"] {
        assert_eq!(balloon["counts"][count], 0, "{balloon}");
    }
    let log = uml.run("dmesg");
    assert!(!["WARNING:", "BUG:", "Oops", "virtio_balloon: probe"].iter().any(|word| log.contains(word)), "{log}");
}

#[test]
fn linux_gives_memory_and_takes_it_back_and_the_host_has_it_meanwhile() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(MEMORY_MIB, &[]) else { return };
    use_memory(&mut uml, 48);
    let (resident, free) = (uml.resident_bytes(), uml.meminfo_bytes("MemFree"));

    device.settle(64 * MIB);

    let taken = free.saturating_sub(uml.meminfo_bytes("MemFree"));
    assert!(taken.abs_diff(64 * MIB) < 8 * MIB, "{taken} bytes by the guest's own account");
    let released = device.number("/counts/released_bytes").unwrap();
    assert!(released >= 64 * MIB, "{released} bytes released");
    let now = uml.resident_bytes();
    assert!(now + 16 * MIB < resident, "{now} of {resident} bytes still there");

    device.settle(0);
    assert!(uml.meminfo_bytes("MemFree").abs_diff(free) < 8 * MIB);
    use_memory(&mut uml, 48);
    assert!(uml.resident_bytes() > now, "memory that came back is memory");
    assert_nothing_was_refused(&mut uml, &device);
}

#[test]
fn linux_answers_for_statistics_as_often_as_it_is_asked() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(MEMORY_MIB, &[]) else { return };
    let balloon = device.wait("statistics", |balloon| balloon["statistics"]["total_memory"].is_u64());
    let value = |balloon: &Value, name: &str| balloon["statistics"][name].as_u64();
    assert_eq!(value(&balloon, "total_memory"), Some(uml.meminfo_bytes("MemTotal")));
    for name in ["free_memory", "available_memory", "disk_caches", "minor_faults", "swap_in", "swap_out"] {
        assert!(value(&balloon, name) < Some(u64::from(MEMORY_MIB) * MIB), "{name} in {balloon}");
        assert!(value(&balloon, name).is_some(), "{name} in {balloon}");
    }
    let answers = || device.number("/counts/statistics").unwrap();

    device.change(&json!({"statistics_interval_ms": 10}));
    let before = answers();
    wait_for("ten more answers", || (answers() >= before + 10).then_some(()));

    device.change(&json!({"statistics_interval_ms": 0}));
    // One question may be under way.
    let quiet = wait_for("silence", || {
        let before = answers();
        uml.run("sleep 0.2");
        (answers() == before).then_some(before)
    });
    uml.run("sleep 0.5");
    assert_eq!(answers(), quiet);
    assert_nothing_was_refused(&mut uml, &device);
}

/// Linux reports while 32 of its largest blocks, 128 MiB, are free (`page_reporting_cycle`).
const REPORTING_MEMORY_MIB: u32 = 320;

#[test]
fn linux_reports_free_pages_and_the_host_has_them() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(REPORTING_MEMORY_MIB, &[]) else { return };
    use_memory(&mut uml, 200);
    let resident = uml.resident_bytes();
    device.wait("reports", |balloon| balloon["counts"]["reported_pages"].as_u64() >= Some(128 * MIB / 4096));
    let now = uml.resident_bytes();
    assert!(now + 100 * MIB < resident, "{now} of {resident} bytes still there");
    assert_eq!(device.balloon()["poison"], Value::Null);
    assert_nothing_was_refused(&mut uml, &device);
}

#[test]
fn linux_that_zeroes_what_it_frees_says_so_and_finds_zeros() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(REPORTING_MEMORY_MIB, &["init_on_free=1"]) else { return };
    assert_eq!(device.balloon()["poison"], 0);
    use_memory(&mut uml, 200);
    device.wait("reports", |balloon| balloon["counts"]["reported_pages"].as_u64() >= Some(128 * MIB / 4096));
    use_memory(&mut uml, 200);
    assert_nothing_was_refused(&mut uml, &device);
}

/// Rounds in which Linux is asked for hints, at least; mostly they are enough for all that is free.
const HINTING_ROUNDS: u64 = 3;
/// The most until all that is free must have been hinted at.
const HINTING_ROUNDS_MAX: u64 = 8;

#[test]
fn linux_hints_at_free_pages_and_gets_them_back() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(MEMORY_MIB, &[]) else { return };
    let free = uml.meminfo_bytes("MemFree");
    let hinted = || device.number("/counts/hinted_pages").unwrap() * 4096;
    // Linux names what it can allocate in blocks of 4 MiB: how much that is of what is free depends on what
    // booting has left in between, and on what else is going on.
    for round in 1.. {
        let (code, answer) = device.request("POST", "/v1/balloon/hinting", r#"{"round":"begin"}"#);
        assert_eq!(code, 204, "{answer}");
        device.wait("the end of a round", |balloon| balloon["counts"]["hint_rounds"] == round);
        if round >= HINTING_ROUNDS && hinted() > free {
            break;
        }
        assert!(round < HINTING_ROUNDS_MAX, "{} bytes hinted at in {round} rounds, of {free} free", hinted());
    }
    assert_eq!(device.number("/counts/hint_ignored_pages"), Some(0));
    wait_for("the guest's memory", || (uml.meminfo_bytes("MemFree") + 4 * MIB > free).then_some(()));
    assert_eq!(
        device.request("POST", "/v1/balloon/hinting", r#"{"round":"end"}"#).0,
        204,
        "nothing to end is no error"
    );
    assert_nothing_was_refused(&mut uml, &device);
}

#[test]
fn linux_comes_and_goes_and_the_balloon_is_as_it_was_wished() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(MEMORY_MIB, &[]) else { return };
    let free = uml.meminfo_bytes("MemFree");
    device.settle(16 * MIB);
    for _ in 0..5 {
        uml.run("echo virtio0 > /sys/bus/virtio/drivers/virtio_balloon/unbind");
        let back = uml.meminfo_bytes("MemFree");
        assert!(back.abs_diff(free) < 8 * MIB, "{back} of {free} bytes free: whoever leaves takes its memory along");
        uml.run("echo virtio0 > /sys/bus/virtio/drivers/virtio_balloon/bind");
        device.wait("the balloon again", |balloon| balloon["actual_bytes"] == 16 * MIB);
    }
    uml.run("rmmod virtio_balloon");
    uml.run("insmod /lib/virtio_balloon.ko");
    device.wait("the balloon again", |balloon| balloon["actual_bytes"] == 16 * MIB);
    assert_nothing_was_refused(&mut uml, &device);
}

#[test]
fn a_working_linux_loses_nothing_while_its_balloon_goes_up_and_down() {
    let _turn = Turn::take();
    let Some((mut uml, device)) = guest(MEMORY_MIB, &[]) else { return };
    uml.run("dd if=/dev/urandom of=/tmp/data bs=64k count=64 2>/dev/null; md5sum < /tmp/data > /tmp/sum");
    uml.run(
        "(while [ ! -e /tmp/stop ]; do cp /tmp/data /tmp/copy; md5sum < /tmp/copy | cmp -s - /tmp/sum \
         && echo right >> /tmp/verdicts || echo wrong >> /tmp/verdicts; done; touch /tmp/stopped) &",
    );
    for repeat in 0..REPEATS {
        device.settle(if repeat % 2 == 0 { 40 * MIB } else { 4 * MIB });
    }
    uml.run("touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.1; done");
    let verdicts = uml.run("sort /tmp/verdicts | uniq -c");
    assert!(verdicts.contains("right") && !verdicts.contains("wrong"), "{verdicts}");
    assert_nothing_was_refused(&mut uml, &device);
}

#[test]
fn the_interface_refuses_nonsense_and_says_what_is_right() {
    let device = Device::start(Path::new(env!("CARGO_BIN_EXE_ballast")), &[]);
    let refused = |method: &str, path: &str, body: &str| {
        let (code, answer) = device.request(method, path, body);
        (code, answer["error"]["code"].as_str().unwrap_or_default().to_owned(), answer.to_string())
    };
    let (code, name, text) = refused("PATCH", "/v1/balloon", r#"{"requested_bytes": 4097}"#);
    assert_eq!((code, name.as_str()), (400, "bad_input"), "{text}");
    assert!(text.contains("4097") && text.contains("4096"), "{text}");
    assert_eq!(refused("PATCH", "/v1/balloon", r#"{"requested": 4096}"#).0, 400, "unknown fields");
    assert_eq!(refused("PATCH", "/v1/balloon", r#"{"requested_bytes": -1}"#).0, 400);
    assert_eq!(refused("PATCH", "/v1/balloon", "nonsense").0, 400);
    assert_eq!(refused("POST", "/v1/balloon/hinting", r#"{"round": "maybe"}"#).0, 400);
    assert_eq!(refused("POST", "/v1/balloon/hinting", r#"{"round": "begin"}"#).0, 409, "nobody is there to hint");
    assert_eq!(device.request("GET", "/v1/nothing", "").0, 404);
    assert_eq!(device.balloon()["statistics"], json!({}), "what nobody reported is absent");
}
