//! `ballast vhost-user-balloon`, and what it says over HTTP.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{PATIENCE, wait_for};

/// A running device.
#[derive(Debug)]
pub struct Device {
    process: Child,
    folder: TempDir,
}

impl Device {
    /// Starts `program vhost-user-balloon` with these further arguments.
    pub fn start(program: &Path, arguments: &[&str]) -> Device {
        let folder = tempfile::tempdir().expect("a folder for sockets");
        let process = Command::new(program)
            .arg("vhost-user-balloon")
            .arg("--socket")
            .arg(folder.path().join("device"))
            .arg("--api")
            .arg(folder.path().join("api"))
            .args(arguments)
            .spawn()
            .expect("starting the device");
        let device = Device { process, folder };
        wait_for("the device's sockets", || (device.socket().exists() && device.api().exists()).then_some(()));
        device
    }

    /// Where a front end connects.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("device")
    }

    fn api(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// One request; the status code, and the body if it is JSON.
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.api()).expect("the API's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: balloon\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("sending a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reading an answer");
        let code = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).expect("a status code");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (code, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Everything about the balloon.
    pub fn balloon(&self) -> Value {
        self.request("GET", "/v1/balloon", "").1
    }

    /// A number of [`Device::balloon`] by its JSON pointer.
    pub fn number(&self, pointer: &str) -> Option<u64> {
        self.balloon().pointer(pointer).and_then(Value::as_u64)
    }

    /// Changes what is wished for.
    pub fn change(&self, what: &Value) {
        let (code, answer) = self.request("PATCH", "/v1/balloon", &what.to_string());
        assert_eq!(code, 204, "{what}: {answer}");
    }

    /// Asks for so much, and waits until the guest has given, or taken back, just that.
    pub fn settle(&self, bytes: u64) {
        self.change(&json!({"requested_bytes": bytes}));
        self.wait(&format!("a balloon of {bytes} bytes"), |balloon| balloon["actual_bytes"] == bytes);
    }

    /// Waits for a state of the balloon.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("{what}, last {}", self.balloon()), || {
            last = self.balloon();
            wanted(&last).then_some(())
        });
        last
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
