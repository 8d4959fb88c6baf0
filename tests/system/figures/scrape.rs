//! What Prometheus says to the endpoint of a running `ballast`.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::support::{Run, Turn, free_address, get, skipped, wait_until};

/// Ends Prometheus when the test does.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_a_running_endpoint() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return skipped("no promtool (Debian package `prometheus`)") };
    let run = Run::start("--guests 2 --memory 64MiB --budget 96MiB --duration 1h");
    run.wait_for(2, "running");
    promtool.stdin.take().unwrap().write_all(run.metrics().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn prometheus_scrapes_a_running_endpoint_without_a_warning() {
    let Some(_turn) = Turn::take_with_kvm() else { return };
    let run = Run::start("--guests 2 --memory 64MiB --budget 96MiB --duration 1h");
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (folder.path().join("prometheus.yml"), folder.path().join("log"));
    let target = run.address();
    let scrape = format!("scrape_configs: [{{job_name: ballast, static_configs: [{{targets: ['{target}']}}]}}]\n");
    fs::write(&config, format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{scrape}")).unwrap();
    run.wait_for(2, "running");

    let address = free_address();
    let server = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let Ok(server) = server else { return skipped("no prometheus (Debian package `prometheus`)") };
    let _server = Server(server);
    let scrapes = || {
        let answer = get(address, "/api/v1/query?query=count_over_time(ballast_host_used_bytes[5m])");
        let value = serde_json::from_str::<serde_json::Value>(&answer).ok()?;
        value.pointer("/data/result/0/value/1")?.as_str()?.parse::<u32>().ok()
    };
    wait_until("three scrapes", || scrapes() >= Some(3));
    let log = fs::read_to_string(&log).unwrap();
    let complaints: Vec<_> = log.lines().filter(|line| is_complaint(line)).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

/// About our series; a small machine gives Prometheus other reasons to complain.
fn is_complaint(line: &str) -> bool {
    (line.contains("level=warn") || line.contains("level=error") || line.contains("level=WARN"))
        && line.to_lowercase().contains("scrape")
}
