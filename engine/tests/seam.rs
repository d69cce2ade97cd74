//! The border between the ordering protocols and everything else, read from the text of the
//! sources: what is general names nothing that only one protocol has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What serves every ordering protocol, below the workspace's root.
const GENERAL: [&str; 36] = [
    "engine/proto/src/admission.rs",
    "engine/proto/src/bounds.rs",
    "engine/proto/src/client",
    "engine/proto/src/config.rs",
    "engine/proto/src/egress",
    "engine/proto/src/execution",
    "engine/proto/src/fingerprint.rs",
    "engine/proto/src/ids.rs",
    "engine/proto/src/intake",
    "engine/proto/src/intake.rs",
    "engine/proto/src/mix.rs",
    "engine/proto/src/notice.rs",
    "engine/proto/src/output",
    "engine/proto/src/replica.rs",
    "engine/proto/src/service.rs",
    "engine/proto/src/shared",
    "engine/proto/src/state",
    "engine/proto/src/time.rs",
    "engine/proto/src/timeouts.rs",
    "engine/proto/src/trace",
    "engine/proto/src/trace.rs",
    "engine/proto/src/transferred.rs",
    "engine/proto/src/unreplicated.rs",
    "engine/proto/src/wire",
    "engine/src/client",
    "engine/src/duration.rs",
    "engine/src/heap.rs",
    "engine/src/lib.rs",
    "engine/src/logging.rs",
    "engine/src/memory.rs",
    "engine/src/paged",
    "engine/src/runtime",
    "engine/src/services",
    "engine/src/testing",
    "engine/src/testing.rs",
    "engine/src/typed",
];

/// Names of the protocols' types that are also variants of general ones, such as `Input::Pillar`,
/// `SendTag::NewView`, `Phase::Commit` and `ToState::Stable`, or private names of general code. Code that
/// wants the types needs a path, which is looked for as well.
const ALSO_WORDS: [&str; 9] = [
    "Body",
    "COMMITTED",
    "Checkpoint",
    "Commit",
    "Control",
    "NewView",
    "Pillar",
    "Stable",
    "ViewChange",
];

/// The only file of the engine that names a protocol: it makes the stages.
const CONSTRUCTOR: &str = "engine/src/replica/stages.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files at or below a path, but those of unit tests.
fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.file_stem().is_some_and(|name| name == "tests") {
        return;
    }
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| sources(entry, into));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        into.push(path.to_owned());
    }
}

/// The words of a file's code, with their line numbers: no comments, no texts, no unit tests.
fn words(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let mut words = Vec::new();
    let mut begins_in_text = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for code in code.split('"').skip(usize::from(begins_in_text)).step_by(2) {
            let split = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.extend(split.filter(|w| !w.is_empty()).map(|word| (index + 1, word.to_owned())));
        }
        begins_in_text = line.ends_with('\\');
    }
    words
}

/// What the files at or below a path declare for others, be it for the crate only.
fn declared(dir: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(dir, &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let mut words: Vec<String> = words(&file).into_iter().map(|(_, word)| word).collect();
        words.retain(|word| word != "crate");
        for three in words.windows(3) {
            if three[0] == "pub"
                && ["struct", "enum", "trait", "const"].contains(&three[1].as_str())
            {
                names.insert(three[2].clone());
            }
        }
    }
    names
}

#[test]
fn what_is_general_names_no_protocol() {
    let root = root();
    let mut general = Vec::new();
    GENERAL.iter().for_each(|path| sources(&root.join(path), &mut general));
    assert!(general.len() > 30, "the list of general sources is out of date");
    let mut own = declared(&root.join("engine/proto/src/hybster"));
    own.extend(declared(&root.join("engine/proto/src/pbft")));
    for name in ["PrepareHeader", "NewView", "MAX_CHANGES", "PrePrepare", "ViewChangeAck"] {
        assert!(own.contains(name), "{name} is not among {own:?}");
    }
    let shared: BTreeSet<String> =
        GENERAL.iter().flat_map(|path| declared(&root.join(path))).collect();
    // Certificates of trusted counters are what only Hybster has.
    let trusted =
        ["TrInX", "Verifier", "CounterValue", "IndependentCertificate", "Proof", "TrustedMac"];
    let mut found = Vec::new();
    for file in &general {
        let mut before = String::new();
        for (line, word) in words(file) {
            let is_own = own.contains(&word) && !shared.contains(&word);
            // A protocol is chosen by its name: `match` makes each place decide about a further one.
            let is_name = before == "Protocol" && ["Hybster", "Pbft"].contains(&word.as_str());
            let is_word = is_name || ALSO_WORDS.contains(&word.as_str());
            before.clone_from(&word);
            if ["hybster", "pbft"].contains(&&*word)
                || trusted.contains(&&*word)
                || (is_own && !is_word)
            {
                found.push(format!("{}:{line}: {word}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "names of one protocol in general code:\n{}", found.join("\n"));
}

#[test]
fn the_engine_names_a_protocol_where_it_makes_the_stages() {
    let root = root();
    let mut files = Vec::new();
    sources(&root.join("engine/src"), &mut files);
    let names_it = |file: &PathBuf| {
        let words: Vec<String> = words(file).into_iter().map(|(_, word)| word).collect();
        let name = |word: &String| ["hybster", "pbft"].contains(&word.to_lowercase().as_str());
        let path = |pair: &[String]| pair[0] == "hybster_proto" && name(&pair[1]);
        let variant = |pair: &[String]| pair[0] == "Protocol" && name(&pair[1]);
        words.windows(2).any(|pair| path(pair) || variant(pair))
    };
    let found: Vec<PathBuf> = files.into_iter().filter(names_it).collect();
    assert_eq!(found, [root.join(CONSTRUCTOR)]);
}
