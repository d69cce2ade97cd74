//! Documents with parts that are made from the code: a test compares them.

use std::fs;
use std::path::Path;

/// If this environment variable is set, the tests write the documents instead of comparing them.
const WRITE: &str = "HYBSTER_WRITE_DOCUMENTS";

/// Expects that a document of `tools` has this text between the marks of a part.
#[track_caller]
pub(crate) fn has_part(document: &str, part: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let found = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- begin {part} -->\n"), format!("<!-- end {part} -->\n"));
    let (before, rest) = found.split_once(&begin).unwrap_or_else(|| panic!("{document}: {begin}"));
    let (there, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{document}: {end}"));
    if there == text {
        return;
    }
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, [before, &begin, text, &end, after].concat()).unwrap();
        return;
    }
    panic!(
        "{document} is not what the code says. To write it: {WRITE}=1 cargo test -p hybster-tools; \
         the part {part} would be\n{text}"
    );
}
