//! The house rules that a machine can check: layers, the code map, module docs, sizes, words.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test of files, that stops loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on: the table of ARCHITECTURE.md.
const LAYERS: [(&str, &[&str]); 15] = [
    ("env", &[]),
    ("schema", &[]),
    ("aggregate", &["schema"]),
    ("facts", &["env", "schema"]),
    ("features", &["env", "schema", "aggregate"]),
    ("models", &["env", "schema"]),
    (
        "stream",
        &["env", "schema", "aggregate", "facts", "features"],
    ),
    (
        "batch",
        &["env", "schema", "aggregate", "facts", "features", "models"],
    ),
    ("serve", &["env", "schema", "facts", "features", "models"]),
    (
        "edge",
        &[
            "env",
            "schema",
            "aggregate",
            "facts",
            "features",
            "models",
            "stream",
            "serve",
        ],
    ),
    ("edge-c", &["schema", "edge"]),
    (
        "api",
        &[
            "env",
            "schema",
            "aggregate",
            "facts",
            "features",
            "models",
            "stream",
            "batch",
            "serve",
        ],
    ),
    (
        "headwater",
        &[
            "env",
            "schema",
            "aggregate",
            "facts",
            "features",
            "models",
            "stream",
            "batch",
            "serve",
            "edge",
            "api",
        ],
    ),
    (
        "testkit",
        &[
            "env",
            "schema",
            "aggregate",
            "facts",
            "features",
            "models",
            "stream",
            "batch",
            "serve",
            "edge",
            "api",
            "headwater",
        ],
    ),
    (
        "bench",
        &[
            "env",
            "schema",
            "aggregate",
            "facts",
            "features",
            "models",
            "stream",
            "batch",
            "serve",
            "edge",
            "api",
            "headwater",
        ],
    ),
];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const INLINE_TEST_LINES_MAX: usize = 150;
/// Files and functions that are over, with the lines they have. May only shrink.
const EXCEPTIONS: &str = include_str!("tidy_exceptions.txt");
const BANNED: [&str; 5] = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "#[ignore"];
/// Licences that a dependency may have, one of them.
const LICENCES: [&str; 15] = [
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "MIT-0",
    "Unicode-3.0",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "MPL-2.0",
    "CDLA-Permissive-2.0",
    "bzip2-1.0.6",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// Rust files below `crates`, with their paths from the root.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join("crates"), "rs", &mut found);
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found
        .iter()
        .map(|p| (relative(p), std::fs::read_to_string(p).unwrap()))
        .collect()
}

fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).expect("cargo metadata")
}

fn short(package: &str) -> &str {
    package.strip_prefix("headwater-").unwrap_or(package)
}

#[test]
fn arrows_only_go_down() {
    let metadata = metadata(&["--no-deps"]);
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = short(package["name"].as_str().unwrap());
        let allowed = layers
            .get(name)
            .unwrap_or_else(|| panic!("`{name}` has no place in the layers"));
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let inside = used == "headwater" || used.starts_with("headwater-");
            if inside && dependency["kind"].is_null() {
                assert!(
                    allowed.contains(&short(used)),
                    "`{name}` may not depend on `{}`",
                    short(used)
                );
            }
        }
    }
    assert_eq!(seen.len(), LAYERS.len(), "a crate of the table is missing");
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (name, _) in LAYERS {
        assert!(
            page.contains(&format!("- `crates/{name}`: ")),
            "the code map lacks `crates/{name}`"
        );
        assert!(
            page.contains(&format!("| `{name}` |")),
            "the table of layers lacks `{name}`"
        );
    }
}

#[test]
fn licences_are_ones_we_may_use() {
    for package in metadata(&[])["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or_default();
        let one = licence
            .split([' ', '/', '(', ')'])
            .any(|part| LICENCES.contains(&part));
        assert!(one, "{} has the licence `{licence}`", package["name"]);
    }
}

#[test]
fn every_file_says_what_it_is_and_has_no_banned_words() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{path} doesn't begin with `//!`");
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            assert!(
                line.trim_end() == line,
                "{path}:{} ends in spaces",
                number + 1
            );
            let banned = BANNED.iter().find(|word| line.contains(*word));
            assert!(banned.is_none(), "{path}:{} has {banned:?}", number + 1);
        }
    }
}

/// (what, lines) of every file and function that is over its size.
fn oversized() -> BTreeMap<String, usize> {
    let mut over = BTreeMap::new();
    for (path, text) in sources() {
        let tests = path.contains("/tests/") || path.ends_with("tests.rs");
        let lines: Vec<&str> = text.lines().collect();
        let inline = lines
            .iter()
            .position(|l| *l == "#[cfg(test)]")
            .filter(|_| text.contains("mod tests {"));
        let code = inline.unwrap_or(lines.len());
        if !tests && code > FILE_LINES_MAX {
            over.insert(path.clone(), code);
        }
        if !tests && lines.len() - code > INLINE_TEST_LINES_MAX {
            over.insert(format!("{path} (inline tests)"), lines.len() - code);
        }
        for (name, length) in functions(&lines[..code]) {
            if !tests && length > FUNCTION_LINES_MAX {
                over.insert(format!("{path} fn {name}"), length);
            }
        }
    }
    over
}

/// Functions with their lengths: formatted code ends one with a brace as deep as its `fn`.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(at) = code.find("fn ") else { continue };
        let before = &code[..at];
        let head = before
            .split(' ')
            .all(|w| ["", "pub", "pub(crate)", "pub(super)", "async", "const"].contains(&w));
        if !head {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[start..].iter().position(|l| *l == end) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn sizes_only_shrink() {
    let over = oversized();
    let allowed: BTreeMap<String, usize> = EXCEPTIONS
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| {
            let (lines, what) = l.split_once(' ').expect("`LINES WHAT`");
            (what.to_owned(), lines.parse().expect("a number"))
        })
        .collect();
    for (what, lines) in &over {
        let most = allowed.get(what).copied().unwrap_or(0);
        assert!(
            *lines <= most,
            "{what} has {lines} lines: make it shorter\n{over:#?}"
        );
    }
    for what in allowed.keys() {
        assert!(
            over.contains_key(what),
            "{what} is no longer over: take it off the list"
        );
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = Vec::new();
    files(&root(), "md", &mut pages);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let path = page.parent().unwrap().join(target);
                assert!(path.exists(), "{}: {target} isn't there", page.display());
            }
        }
    }
}
