//! `--replay FILE`: the operations of the key-value store that a file lists, a line each.
//!
//! ```text
//! # Comments and empty lines do not count.
//! put KEY VALUE
//! put KEY @1000        a value of so many bytes
//! get KEY
//! delete KEY
//! scan KEY 10          from this key on, so many entries at most
//! ```
//! Words are separated by blanks; `%20` in a key or value is a byte, as in URLs (`%25` is a percent sign, `%40` an @).
//!
//! Connection i of n takes every n-th line from the i-th on, and begins again at the end of the file. The order is
//! that in which its clients ask: those of several clients are under way at the same time.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use hybster::services::kv::{KvOperation, KvReply};

use crate::Error;
use crate::load::{Access, Answer, Workload};

/// Most bytes of the operations of a file.
const MOST_BYTES: usize = 1 << 30;
/// Most bytes of a line, comments among them.
const LONGEST_LINE: u64 = 4 << 20;
const FORMS: &str = "write get KEY, put KEY VALUE, put KEY @BYTES, delete KEY or scan KEY ENTRIES";

/// The operations of a file.
#[derive(Debug, Default)]
pub struct Operations {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Operations {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read; with the number of the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let told = |what: String| Error::new(format!("--replay {}{what}", path.display()));
        let file = std::fs::File::open(path).map_err(|e| told(format!(": {e}")))?;
        let all = Self::parse(BufReader::new(file)).map_err(|(line, why)| match line {
            0 => told(format!(": {why}")),
            line => told(format!(":{line}: {why}")),
        })?;
        if all.ends.is_empty() {
            return Err(told(format!(": there is no operation in it: {FORMS}")));
        }
        Ok(all)
    }

    fn parse(mut input: impl BufRead) -> Result<Self, (u64, String)> {
        let mut all = Self::default();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut limited = std::io::Read::take(&mut input, LONGEST_LINE);
            let read = limited.read_until(b'\n', &mut line).map_err(|e| (number, e.to_string()))?;
            if read == 0 {
                break;
            }
            if read as u64 == LONGEST_LINE {
                return Err((number, format!("a line has at most {LONGEST_LINE} bytes")));
            }
            let text = str::from_utf8(&line)
                .map_err(|_| (number, "it is no UTF-8: write other bytes as %XX".to_owned()))?;
            all.line(text).map_err(|why| (number, why))?;
            if all.bytes.len() > MOST_BYTES {
                return Err((number, format!("more than {MOST_BYTES} bytes of operations")));
            }
        }
        Ok(all)
    }

    fn line(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let operation = match words[..] {
            [] => return Ok(()),
            [first, ..] if first.starts_with('#') => return Ok(()),
            ["get", key] => (bytes_of(key)?, Vec::new()),
            ["put", key, value] => (bytes_of(key)?, value_of(value)?),
            ["delete", key] | ["scan", key, _] => (bytes_of(key)?, Vec::new()),
            _ => return Err(format!("{:?} is no operation: {FORMS}", short(text.trim()))),
        };
        let (key, value) = (&operation.0[..], &operation.1[..]);
        let operation = match words[..] {
            ["get", _] => KvOperation::Get { key },
            ["put", ..] => KvOperation::Put { key, value },
            ["delete", _] => KvOperation::Delete { key },
            [_, _, limit, ..] => {
                let limit = limit.parse::<u32>().ok().filter(|limit| *limit > 0);
                let limit =
                    limit.ok_or_else(|| format!("a scan needs a number of entries: {FORMS}"))?;
                KvOperation::Scan { start: key, end: None, limit }
            }
            _ => return Err(FORMS.to_owned()),
        };
        operation.encode(&mut self.bytes).map_err(|refusal| refusal.to_string())?;
        self.ends.push(self.bytes.len());
        Ok(())
    }

    fn at(&self, number: usize) -> &[u8] {
        let begin = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[number]]
    }
}

/// The beginning of a text, for an error.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

fn value_of(word: &str) -> Result<Vec<u8>, String> {
    match word.strip_prefix('@') {
        Some(size) => {
            let size = size.parse::<u32>().ok().filter(|size| *size <= super::LARGEST_VALUE);
            let most = super::LARGEST_VALUE;
            let size =
                size.ok_or_else(|| format!("{word:?} is no size of a value, at most @{most}"))?;
            Ok(vec![b'v'; size as usize])
        }
        None => bytes_of(word),
    }
}

/// The bytes of a word, `%XX` as one.
fn bytes_of(word: &str) -> Result<Vec<u8>, String> {
    let mut parts = word.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        let wrong = || format!("%{} is no byte: write %20 or %ff, and %25 for %", short(part));
        bytes.push(code.filter(|_| !part.starts_with('+')).ok_or_else(wrong)?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Ok(bytes)
}

/// The part of a file's operations that one load thread takes.
#[derive(Debug)]
pub struct Replay {
    operations: Arc<Operations>,
    next: usize,
    index: usize,
    threads: usize,
    /// By session, the kind of what is under way.
    doing: Vec<u8>,
}

/// The first bytes of operations, as the store has them.
const GET: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const SCAN: u8 = 5;

impl Replay {
    /// Of thread `index` of `threads`. With fewer lines than threads, some take the same.
    #[must_use]
    pub fn new(operations: Arc<Operations>, index: u32, threads: u32) -> Self {
        let index = index as usize % operations.ends.len().max(1);
        Self { next: index, index, threads: threads as usize, operations, doing: Vec::new() }
    }
}

impl Workload for Replay {
    fn next(&mut self, session: u32, operation: &mut Vec<u8>) -> Access {
        let session = session as usize;
        if session >= self.doing.len() {
            self.doing.resize((session + 1).next_power_of_two(), 0);
        }
        let bytes = self.operations.at(self.next);
        operation.extend_from_slice(bytes);
        let kind = bytes.first().copied().unwrap_or(0);
        self.doing[session] = kind;
        self.next += self.threads;
        if self.next >= self.operations.ends.len() {
            self.next = self.index;
        }
        if matches!(kind, GET | SCAN) { Access::Query } else { Access::Order }
    }

    fn acknowledged(&mut self, session: u32, result: &[u8]) -> Answer {
        let is_right = matches!(
            (self.doing[session as usize], KvReply::decode(result)),
            (GET, Ok(KvReply::Value(_) | KvReply::Absent))
                | (PUT, Ok(KvReply::Stored { .. }))
                | (DELETE, Ok(KvReply::Deleted { .. }))
                | (SCAN, Ok(KvReply::Entries(_)))
        );
        if is_right { Answer::Right } else { Answer::Wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Operations, (u64, String)> {
        Operations::parse(text.as_bytes())
    }

    #[test]
    fn lines_become_operations_that_threads_share() {
        let text = "# a file\n\nput a%20b v%25\nget a%20b\n  put k @3\ndelete k\nscan k 7\n";
        let all = Arc::new(parse(text).unwrap());
        let decoded: Vec<_> = (0..5).map(|n| KvOperation::decode(all.at(n)).unwrap()).collect();
        let key = &b"k"[..];
        let wanted = [
            KvOperation::Put { key: b"a b", value: b"v%" },
            KvOperation::Get { key: b"a b" },
            KvOperation::Put { key, value: b"vvv" },
            KvOperation::Delete { key },
            KvOperation::Scan { start: key, end: None, limit: 7 },
        ];
        assert_eq!(decoded, wanted);
        let mut second = Replay::new(Arc::clone(&all), 1, 2);
        let mut taken = Vec::new();
        for _ in 0..4 {
            let mut operation = Vec::new();
            let access = second.next(9, &mut operation);
            taken.push((operation, access));
        }
        let of = |n, access| (all.at(n).to_vec(), access);
        let (get, delete) = (of(1, Access::Query), of(3, Access::Order));
        assert_eq!(taken, [get.clone(), delete.clone(), get, delete]);
        let mut reply = Vec::new();
        KvReply::Deleted { existed: false }.encode(&mut reply);
        assert_eq!(second.acknowledged(9, &reply), Answer::Right);
        assert_eq!(second.acknowledged(9, b"\x02"), Answer::Wrong);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, told) in [
            ("get a\nfetch b\n", 2, "\"fetch b\" is no operation: write get KEY"),
            ("get\n", 1, "no operation"),
            ("\n\nget a%2\n", 3, "%2 is no byte"),
            ("put a %zz", 1, "%zz is no byte"),
            ("put a @9999999", 1, "at most @"),
            ("scan a 0", 1, "a number of entries"),
            ("put a b c", 1, "no operation"),
        ] {
            let (number, why) = parse(text).unwrap_err();
            assert!(number == line && why.contains(told), "{text:?}: {number}: {why}");
        }
        let long = format!("get {}\n", "k".repeat(2000));
        assert!(parse(&long).unwrap_err().1.contains("key is too long"));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("operations");
        for (text, told) in [("# nothing\n", "no operation in it"), ("get a\nx", "operations:2: ")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Operations::read(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(Operations::read(&directory.path().join("none")).is_err());
    }
}
