//! Documents and comments name what is there.
//!
//! - In the documents of [`CHECKED`], a code span that is a path (`engine/proto/src/lib.rs`) must exist,
//!   and one that adds a name (`tools/xtask/src/main.rs: CHECKS`) must name something in that file.
//! - `cargo xtask NAME` names a check.
//! - Relative links of all Markdown files lead to files.
//! - No file names a document that is not in the repository.
//! - "DEVIATIONS 7" names an item that `engine/proto/DEVIATIONS.md` has.
//! - Every kind of message is in the table of ARCHITECTURE.md that says what it can cost, and in
//!   `engine/proto/WIRE.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Outcome, output_of};
use crate::workspace::root;

/// Documents whose code spans are checked, and where their paths may start besides the root.
const CHECKED: [(&str, &[&str]); 7] = [
    ("ARCHITECTURE.md", &[]),
    ("CONTRIBUTING.md", &[]),
    ("CHANGELOG.md", &[]),
    ("SECURITY.md", &[]),
    ("README.md", &[]),
    ("engine/proto/DEVIATIONS.md", &["engine/proto/src", "engine/proto"]),
    ("engine/proto/PBFT.md", &["engine/proto/src", "engine/proto"]),
];

/// Names of documents that are no part of the repository.
const OUTSIDE: [&str; 3] = [concat!("DES", "IGN"), concat!("STY", "LE"), concat!("not", "es/")];

/// Endings of the files that a code span names; what else has a dot is no path.
const ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".sh", ".json", ".bin"];

pub(crate) fn check() -> Result<Outcome, String> {
    let root = root();
    let files = output_of(Command::new("git").args(["ls-files"]).current_dir(&root))?;
    let files: Vec<&str> = files.lines().filter(|file| root.join(file).is_file()).collect();
    let mut findings = Vec::new();
    for (document, bases) in CHECKED {
        let text = read(&root, document)?;
        spans(&root, document, &text, bases, &mut findings);
    }
    let mut kinds = Vec::new();
    let items = items(&read(&root, "engine/proto/DEVIATIONS.md")?);
    for file in files {
        // What is not text has no words.
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        if file.ends_with(".md") {
            links(&root, file, &text, &mut findings);
        }
        if !file.ends_with(".lock") {
            words(file, &text, items, &mut findings);
        }
        if file.starts_with("engine/proto/src/") {
            kinds.extend(kinds_of(&text));
        }
    }
    if kinds.is_empty() {
        return Err("no kinds of messages were found in engine/proto/src".to_owned());
    }
    missing_kinds(&kinds, "ARCHITECTURE.md", &read(&root, "ARCHITECTURE.md")?, &mut findings);
    let wire = read(&root, "engine/proto/WIRE.md")?.replace(" | ", " ");
    missing_kinds(&kinds, "engine/proto/WIRE.md", &wire, &mut findings);
    if findings.is_empty() { Ok(Outcome::Passed) } else { Err(findings.join("\n  ")) }
}

fn read(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"))
}

/// The text outside fenced blocks, with line numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((at + 1, line))
    })
}

fn spans(root: &Path, document: &str, text: &str, bases: &[&str], findings: &mut Vec<String>) {
    // A span may go over the end of a line.
    let mut lines = vec![""; text.lines().count()];
    prose(text).for_each(|(at, line)| lines[at - 1] = line);
    let text = lines.join("\n");
    let mut at = 1;
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            let span = part.split_whitespace().collect::<Vec<_>>().join(" ");
            if let Err(what) = span_holds(root, &span, bases) {
                findings.push(format!("{document}:{at}: {what}"));
            }
        }
        at += part.matches('\n').count();
    }
}

fn span_holds(root: &Path, span: &str, bases: &[&str]) -> Result<(), String> {
    let checks = span.strip_prefix("cargo xtask ").unwrap_or_default();
    let unknown = |name: &&str| !["NAME…", ""].contains(name) && !is_check(name);
    if let Some(name) = checks.split(' ').find(unknown) {
        return Err(format!("there is no check {name}"));
    }
    let (path, name) = match span.split_once(": ") {
        Some((path, name)) => (path, Some(name)),
        None => (span, None),
    };
    if !is_path(path) {
        return Ok(());
    }
    let mut places = [""].iter().chain(bases).map(|base| root.join(base).join(path));
    let place = places.find(|place| place.exists()).ok_or(format!("there is no {path}"))?;
    match name.filter(|name| !has_name(&place, name)) {
        Some(name) => Err(format!("{path} has no `{name}`")),
        None => Ok(()),
    }
}

fn is_check(name: &str) -> bool {
    crate::CHECKS.iter().any(|check| check.name == name)
}

fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let looks = span.contains('/') || ENDINGS.iter().any(|ending| span.ends_with(ending));
    // `/proc/stat` is of the system, `my-group/…` of an example, `--option` of a command.
    looks
        && span.chars().all(plain)
        && !span.starts_with(['/', '-'])
        && !span.starts_with("target/")
}

/// Whether a Rust file, or one below a folder, has this name, whose last part counts.
fn has_name(place: &Path, name: &str) -> bool {
    let word = name.rsplit("::").next().unwrap_or(name);
    if place.is_dir() {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        return entries.map(|entry| entry.path()).any(|entry| has_name(&entry, name));
    }
    let text = fs::read_to_string(place).unwrap_or_default();
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(part) && !after.starts_with(part)
    })
}

fn links(root: &Path, file: &str, text: &str, findings: &mut Vec<String>) {
    let folder = root.join(file).parent().map(PathBuf::from).unwrap_or_default();
    for (at, line) in prose(text) {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets {
            let path = target.split('#').next().unwrap_or(target);
            let is_local = !path.is_empty() && !path.contains(':');
            if is_local && !folder.join(path).exists() {
                findings.push(format!("{file}:{at}: the link to {target} leads nowhere"));
            }
        }
    }
}

fn words(file: &str, text: &str, items: usize, findings: &mut Vec<String>) {
    for (at, line) in text.lines().enumerate() {
        let at = at + 1;
        if let Some(name) = OUTSIDE.iter().find(|name| is_word(line, name)) {
            findings.push(format!("{file}:{at}: {name} is not in the repository"));
        }
        for rest in line.split("DEVIATIONS ").skip(1) {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if digits.parse().is_ok_and(|item: usize| item == 0 || item > items) {
                findings.push(format!("{file}:{at}: DEVIATIONS.md has no item {digits}"));
            }
        }
    }
}

/// The kinds of messages that a source file declares, as the documents write them: "11 ORDER-REQUEST".
fn kinds_of(text: &str) -> Vec<String> {
    let declared = text.lines().skip_while(|line| *line != "pub mod kind {");
    let declared = declared.take_while(|line| *line != "}");
    let kinds = declared.filter_map(|line| {
        let (name, number) = line.trim().strip_prefix("pub const ")?.split_once(": u8 = ")?;
        Some(format!("{} {}", number.trim_end_matches(';'), name.replace('_', "-")))
    });
    kinds.collect()
}

fn missing_kinds(kinds: &[String], document: &str, text: &str, findings: &mut Vec<String>) {
    for kind in kinds.iter().filter(|kind| !text.lines().any(|line| is_word(line, kind))) {
        findings.push(format!("{document}: the message {kind} is not in its table"));
    }
}

/// Whether a line has `name` with no letter before or after it.
fn is_word(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        let letter = |c: char| c.is_alphanumeric() || c == '_';
        !before.ends_with(letter) && (name.ends_with('/') || !after.starts_with(letter))
    })
}

/// The number of the last item of a numbered list.
fn items(text: &str) -> usize {
    let numbers = text.lines().filter_map(|line| line.split_once(". ")?.0.parse().ok());
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        spans(&root(), "x.md", text, &["engine"], &mut findings);
        findings
    }

    #[test]
    fn paths_and_names_in_code_spans_must_exist() {
        assert_eq!(found("`tools/xtask/src/main.rs`, `README.md`, `src/lib.rs`"), [""; 0]);
        assert_eq!(found("`tools/xtask/src/main.rs: Check`, `tools/xtask: CHECKS`"), [""; 0]);
        assert_eq!(found("`n = 2f+1`, `/proc/stat`, `--over pillars/batch`, `a.b`"), [""; 0]);
        assert_eq!(found("a `cargo xtask\n  model` b"), [""; 0]);
        assert_eq!(found("a\nb `no/such/file.rs:\n  x`"), ["x.md:2: there is no no/such/file.rs"]);
        assert_eq!(found("```\n`no/such/file.rs`\n```"), [""; 0]);
        assert_eq!(found("`cargo xtask fmt clippy`, `cargo xtask NAME…`, `cargo xtask`"), [""; 0]);
        assert_eq!(found("`cargo xtask no-such-check`").len(), 1);
        assert_eq!(found("`no/such/file.rs`").len(), 1);
        assert_eq!(found("`tools/xtask/src/main.rs: gone`").len(), 1);
    }

    #[test]
    fn links_must_lead_to_files() {
        let mut findings = Vec::new();
        let text = "[a](README.md) [b](README.md#top) [c](https://x.y) [d](#here) [e](gone.md)";
        links(&root(), "x.md", text, &mut findings);
        assert_eq!(findings, ["x.md:1: the link to gone.md leads nowhere"]);
    }

    #[test]
    fn every_kind_of_message_must_be_in_the_tables() {
        let text = "pub mod kind {\n    /// A.\n    pub const A_B: u8 = 1;\n    pub const C: u8 = 21;\n}\n\
                    pub const D: u8 = 3;\n";
        let kinds = kinds_of(text);
        assert_eq!(kinds, ["1 A-B", "21 C"]);
        let mut findings = Vec::new();
        missing_kinds(&kinds, "x.md", "| 1 A-B, again | client |\n| 21 CD |", &mut findings);
        assert_eq!(findings, ["x.md: the message 21 C is not in its table"]);
    }

    #[test]
    fn documents_outside_and_items_that_are_not_there_are_found() {
        let mut findings = Vec::new();
        let [outside, _, folder] = OUTSIDE;
        let text =
            format!("a RE{outside}\nsee {outside} 7\nfoot{folder}x\n../{folder}x\nDEVIATIONS 2\n");
        words("x", &text, 1, &mut findings);
        let lines: Vec<&str> = findings.iter().filter_map(|f| f.split(':').nth(1)).collect();
        assert_eq!(lines, ["2", "4", "5"]);
        assert_eq!(items("1. a\n\n12. b\n    3. c\n"), 12);
    }
}
