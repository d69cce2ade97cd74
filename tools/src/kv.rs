//! `hybster kv`: the key-value store from the command line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use hybster::duration::{DurationError, DurationRange};
use hybster::services::kv::{KvOperation, KvReply};

use crate::{Done, Failure};

/// Options of `hybster kv`.
#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// Whose key to use: client-N.key of the group directory.
    #[arg(long, default_value_t = 0, value_name = "N")]
    client: u32,
    /// How long to wait for an answer, such as 5s or 500ms; a plain number means seconds.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = timeout)]
    timeout: Duration,
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Debug, Subcommand)]
enum KvCommand {
    /// Print the value of a key.
    Get {
        /// The key.
        key: OsString,
    },
    /// Store a value under a key.
    Put {
        /// The key.
        key: OsString,
        /// The value; `-` reads it from standard input.
        value: OsString,
    },
    /// Remove a key.
    Del {
        /// The key.
        key: OsString,
    },
    /// Store a value if the key holds the expected one.
    #[command(group(ArgGroup::new("expected").required(true).args(["expect", "absent"])))]
    Cas {
        /// The key.
        key: OsString,
        /// The new value; `-` reads it from standard input.
        value: OsString,
        /// The value that the key must have.
        #[arg(long, value_name = "VALUE")]
        expect: Option<OsString>,
        /// The key must be absent.
        #[arg(long)]
        absent: bool,
    },
    /// Print keys and values in the order of the keys, an entry a line, separated by a tab. In
    /// them, a tab is written as \\t, the end of a line as \\n, a backslash as \\\\, and other
    /// bytes that are no text as \\xNN.
    Scan {
        /// The first key; by default the first in the store.
        #[arg(default_value = "")]
        start: OsString,
        /// The first key after the range; by default the range has no end.
        #[arg(long)]
        end: Option<OsString>,
        /// Print at most this many entries.
        #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
        limit: u32,
    },
}

/// Runs the command against the group.
pub(crate) fn kv(args: &KvArgs) -> Result<Done, Failure> {
    let client = crate::client::connect(&args.group, args.client, args.timeout)?;
    execute(&args.command, &mut |operation, read_only| {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes)?;
        if read_only { client.query(&bytes) } else { client.call(&bytes) }
    })
}

/// Sends an operation (read-only or not) and returns the encoded reply.
type Call<'a> = &'a mut dyn FnMut(KvOperation<'_>, bool) -> Result<Vec<u8>, Failure>;

fn execute(command: &KvCommand, call: Call<'_>) -> Result<Done, Failure> {
    match command {
        KvCommand::Get { key } => {
            let reply = call(KvOperation::Get { key: key.as_bytes() }, true)?;
            match decode(&reply)? {
                KvReply::Value(value) => print_line(&[value]),
                KvReply::Absent => not_there("absent"),
                other => Err(unexpected(&other)),
            }
        }
        KvCommand::Put { key, value } => {
            let value = value_or_input(value)?;
            let reply = call(KvOperation::Put { key: key.as_bytes(), value: &value }, false)?;
            match decode(&reply)? {
                KvReply::Stored { .. } => Ok(Done::Yes),
                other => Err(unexpected(&other)),
            }
        }
        KvCommand::Del { key } => {
            let reply = call(KvOperation::Delete { key: key.as_bytes() }, false)?;
            match decode(&reply)? {
                KvReply::Deleted { existed: true } => Ok(Done::Yes),
                KvReply::Deleted { existed: false } => not_there("absent"),
                other => Err(unexpected(&other)),
            }
        }
        KvCommand::Cas { key, value, expect, absent: _ } => {
            let value = value_or_input(value)?;
            let expected = expect.as_deref().map(OsStrExt::as_bytes);
            let key = key.as_bytes();
            let operation = KvOperation::CompareAndSwap { key, expected, value: &value };
            let reply = call(operation, false)?;
            match decode(&reply)? {
                KvReply::Swapped => Ok(Done::Yes),
                KvReply::Mismatch { current: None } => not_there("absent"),
                KvReply::Mismatch { current: Some(value) } => {
                    eprintln!("another value is there:");
                    print_line(&[value]).map(|_| Done::NotThere)
                }
                other => Err(unexpected(&other)),
            }
        }
        KvCommand::Scan { start, end, limit } => {
            scan(start.as_bytes(), end.as_deref().map(OsStrExt::as_bytes), *limit, call)
        }
    }
}

/// One scan is several operations if the range is large; each is linearizable, the whole is not.
fn scan(start: &[u8], end: Option<&[u8]>, mut limit: u32, call: Call<'_>) -> Result<Done, Failure> {
    let mut start = start.to_vec();
    loop {
        let reply = call(KvOperation::Scan { start: &start, end, limit }, true)?;
        let entries = match decode(&reply)? {
            KvReply::Entries(entries) => entries,
            other => return Err(unexpected(&other)),
        };
        let more = entries.more();
        let mut last = None;
        for (key, value) in entries {
            if print_line(&[&escaped(key), b"\t", &escaped(value)]).is_err() {
                // The reader of the pipe has closed it.
                return Ok(Done::Yes);
            }
            limit -= 1;
            last = Some(key);
        }
        let Some(last) = last.filter(|_| more && limit > 0) else {
            return Ok(Done::Yes);
        };
        // The smallest key after the last one.
        start.clear();
        start.extend_from_slice(last);
        start.push(0);
    }
}

fn decode(reply: &[u8]) -> Result<KvReply<'_>, Failure> {
    match KvReply::decode(reply)? {
        KvReply::Refused(refusal) => Err(refusal.into()),
        reply => Ok(reply),
    }
}

fn unexpected(reply: &KvReply<'_>) -> Failure {
    Failure::new(format!("the group answered something else than was asked: {reply:?}"))
}

fn not_there(what: &str) -> Result<Done, Failure> {
    eprintln!("{what}");
    Ok(Done::NotThere)
}

fn print_line(parts: &[&[u8]]) -> Result<Done, Failure> {
    let mut out = std::io::stdout().lock();
    for part in parts {
        out.write_all(part)?;
    }
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(Done::Yes)
}

/// Bytes as text of one line without tabs, from which the bytes can be had again: what is in the store
/// cannot look like another entry, nor speak to the terminal.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    hexadecimal(&mut text, c.encode_utf8(&mut buffer).as_bytes());
                }
                c => text.push(c),
            }
        }
        hexadecimal(&mut text, chunk.invalid());
    }
    text.into_bytes()
}

fn hexadecimal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

fn value_or_input(value: &OsString) -> Result<Vec<u8>, Failure> {
    if value != "-" {
        return Ok(value.as_bytes().to_vec());
    }
    let mut input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("type the value and end it with Ctrl-D");
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Parses a time to wait.
pub(crate) fn timeout(text: &str) -> Result<Duration, DurationError> {
    DurationRange::seconds(Duration::from_millis(1), Duration::from_secs(86_400)).parse(text)
}

#[cfg(test)]
mod tests {
    use hybster::services::KvService;
    use hybster::{Context, OrderNumber, RequestNumber, Service, SessionId};

    use super::*;

    #[test]
    fn a_scan_goes_on_where_the_last_reply_ended() {
        let mut store = KvService::new();
        for key in ["a", "ab", "b", "c", "d"] {
            answer(&mut store, &KvOperation::Put { key: key.as_bytes(), value: b"v" }, false);
        }
        let mut starts = Vec::new();
        let done = scan(b"ab", Some(b"d"), 10, &mut |operation, read_only| {
            assert!(read_only);
            let KvOperation::Scan { start, end, limit } = operation else { panic!("no scan") };
            starts.push((start.to_vec(), limit));
            // One entry per reply.
            let operation = KvOperation::Scan { start, end, limit: 1 };
            Ok(answer(&mut store, &operation, true))
        });
        assert_eq!(done.unwrap(), Done::Yes);
        let expected = [(&b"ab"[..], 10), (b"ab\0", 9), (b"b\0", 8)];
        let expected: Vec<_> = expected.iter().map(|(s, l)| (s.to_vec(), *l)).collect();
        assert_eq!(starts[..3], expected);
    }

    fn answer(store: &mut KvService, operation: &KvOperation<'_>, read_only: bool) -> Vec<u8> {
        let (mut bytes, mut reply) = (Vec::new(), Vec::new());
        operation.encode(&mut bytes).unwrap();
        if read_only {
            assert!(store.query(&bytes, &mut reply));
        } else {
            let session = SessionId::default();
            let (number, order) = (RequestNumber(1), OrderNumber(1));
            store.execute(&Context::new(session, number, order), &bytes, &mut reply);
        }
        reply
    }

    #[test]
    fn what_a_scan_prints_is_a_line_per_entry_whatever_the_bytes() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            (b"a\tb\nc\rd", "a\\tb\\nc\\rd"),
            (b"\\t", "\\\\t"),
            ("\u{e4}\u{85}".as_bytes(), "\u{e4}\\xc2\\x85"),
            (b"\x1b[2J\xff", "\\x1b[2J\\xff"),
        ] {
            assert_eq!(escaped(bytes), text.as_bytes());
        }
    }

    #[test]
    fn refusals_are_failures_and_absence_is_not() {
        let get = KvCommand::Get { key: "k".into() };
        let absent = execute(&get, &mut |_, _| {
            let mut reply = Vec::new();
            KvReply::Absent.encode(&mut reply);
            Ok(reply)
        });
        assert_eq!(absent.unwrap(), Done::NotThere);
        let other_service = execute(&get, &mut |_, _| Ok(vec![0; 9]));
        assert!(other_service.unwrap_err().to_string().contains("another service"));
    }
}
