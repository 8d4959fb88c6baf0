//! The programs of util-linux that take a swap area into use and out of it.

use std::io;
use std::process::{Command, Stdio};

/// Where they are, for users whose `PATH` has no place for administrators' programs.
const PLACES: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];

/// Runs a program to its end; an error is what it complained of, in one line.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let typed = || format!("{program} {}", arguments.join(" "));
    for place in PLACES {
        let output = Command::new(format!("{place}{program}")).args(arguments).stdin(Stdio::null()).output();
        return match output {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(format!("{}: {error}", typed())),
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
                Err(format!("{}: {}", typed(), if words.is_empty() { output.status.to_string() } else { words }))
            }
        };
    }
    Err(format!("no program {program}: install util-linux"))
}

/// Whether a program is there, or why not.
pub(super) fn require(program: &str) -> Result<(), String> {
    run(program, &["--version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_complains_of_is_one_line_and_a_missing_one_is_named() {
        assert_eq!(run("true", &[]), Ok(()));
        let refused = run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"]).unwrap_err();
        assert!(refused.ends_with("exit 3: one two"), "{refused}");
        assert_eq!(require("no-such-program").unwrap_err(), "no program no-such-program: install util-linux");
    }
}
