//! The table of requirements (`docs/balloon-requirements.md`) names tests that exist: a name that nobody
//! answers to shows nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where tests are, from this package.
const FOLDERS: [&str; 6] = ["balloon", "guest-driver", "pager", "tests", "vhost-user-balloon", "vmm"];

/// All Rust files below `folder`.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Words in backquotes that look like a test's name: `file: name`, or the name alone. Names of tests are
/// sentences.
fn named(document: &str) -> BTreeSet<&str> {
    let quoted = document.split('`').skip(1).step_by(2);
    let last_words = quoted.filter_map(|words| words.rsplit([' ', ':']).next());
    let is_sentence = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    last_words.filter(is_sentence).collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(workspace.join("docs/balloon-requirements.md")).unwrap();
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| sources(&workspace.join(folder), &mut files));

    // Fields of the device's configuration space are words of that kind, too, and no functions.
    let fields = ["free_page_hint_cmd_id"];
    let named: Vec<_> = named(&document).into_iter().filter(|name| !fields.contains(name)).collect();
    let missing: Vec<_> =
        named.iter().filter(|name| !files.iter().any(|file| file.contains(&format!("fn {name}(")))).collect();

    assert!(named.len() > 30, "the table names {} tests", named.len());
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_of_the_table_says_what_shows_it() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/balloon-requirements.md"));
    let document = document.unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| 5.5")).collect::<Vec<_>>();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}
