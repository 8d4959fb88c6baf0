//! A `ballast run` seen from outside: an address for its metrics, what they say, and its processes.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};

use crate::kit::error::Error;

/// What an answer to a scrape may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An address that nobody listens on.
pub fn free_address() -> Result<SocketAddr, Error> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map_err(Error::system("finding a free port"))
}

/// The body of `/metrics`, if somebody answers.
pub fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Sum of a family's series, in Prometheus' text, that have `label` among their labels.
pub fn sum_of(metrics: &str, family: &str, label: &str) -> f64 {
    let series = metrics.lines().filter_map(|line| line.strip_prefix(family)?.rsplit_once(' '));
    let of_family = series.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
    of_family.filter(|(labels, _)| labels.contains(label)).filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

/// Processes that this one started, oldest first.
pub fn children(process: &Path) -> BTreeSet<u32> {
    let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_family_and_label() {
        let metrics =
            "a_total{guest=\"g0\",state=\"x\"} 1\na_total{guest=\"g1\",state=\"y\"} 2\na_total_other 4\na 8\n";
        assert_eq!(sum_of(metrics, "a_total", ""), 3.0);
        assert_eq!(sum_of(metrics, "a_total", "state=\"y\""), 2.0);
        assert_eq!(sum_of(metrics, "a", ""), 8.0);
    }
}
