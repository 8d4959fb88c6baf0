//! What a guest says.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Lines collected by a thread, until the other end closes.
#[derive(Debug)]
pub(crate) struct Console(Arc<Mutex<String>>);

impl Console {
    /// Starts a process that has its console on its standard input and output.
    pub(crate) fn start(command: &mut Command) -> (Child, ChildStdin, Console) {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", command.get_program().display()));
        let keyboard = process.stdin.take().expect("a pipe was asked for");
        let console = Console::of(process.stdout.take().expect("a pipe was asked for"));
        (process, keyboard, console)
    }

    /// Begins to read.
    fn of(output: impl Read + Send + 'static) -> Console {
        let said = Arc::<Mutex<String>>::default();
        let hears = said.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let mut said = hears.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_str(String::from_utf8_lossy(&line).trim_end());
                said.push('\n');
            }
        });
        Console(said)
    }

    /// Everything so far.
    pub(crate) fn said(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
