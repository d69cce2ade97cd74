//! The operations and replies of the key-value store.
//!
//! # Format
//! All numbers are little-endian. Nothing may follow the last field.
//! ```text
//! key        length u16 | bytes
//! value      length u32 | bytes
//! option     00, or 01 and the field
//! entry      key length u16 | value length u32 | key bytes | value bytes
//!
//! operation  get               01 | key
//!            put               02 | key | value
//!            delete            03 | key
//!            compare-and-swap  04 | key | option of the expected value | new value
//!            scan              05 | start key | option of the end key | limit u32
//!
//! reply      value             01 | value
//!            absent            02
//!            stored            03 | replaced u8
//!            deleted           04 | existed u8
//!            swapped           05
//!            mismatch          06 | option of the present value
//!            entries           07 | more u8 | count u32 | count × entry
//!            malformed         80
//!            key too long      81
//!            value too long    82
//!            full              83
//! ```

use std::fmt;

use super::reader::Reader;

/// The longest key.
pub const MAX_KEY_BYTES: usize = 1 << 10;

/// The longest value: 1 MiB less 4 KiB, so that a put, and every reply, stays below 1 MiB.
pub const MAX_VALUE_BYTES: usize = (1 << 20) - (4 << 10);

/// The longest reply to a scan. It has room for any one entry, so every scan makes progress.
pub const MAX_SCAN_REPLY_BYTES: usize = 1 << 20;

/// The longest bound of a scan: a key and one byte, as in the bound "just after this key".
pub const MAX_BOUND_BYTES: usize = MAX_KEY_BYTES + 1;

/// Bytes of an entry before its key.
pub(super) const ENTRY_HEADER_BYTES: usize = 6;

/// Bytes of a scan's reply before its entries.
pub(super) const ENTRIES_HEADER_BYTES: usize = 6;

const _: () = assert!(
    ENTRIES_HEADER_BYTES + ENTRY_HEADER_BYTES + MAX_KEY_BYTES + MAX_VALUE_BYTES
        <= MAX_SCAN_REPLY_BYTES
);

/// An operation of the key-value store, as [`KvService`](super::KvService) executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOperation<'a> {
    /// Answers the value of a key: [`KvReply::Value`] or [`KvReply::Absent`]. Read-only.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Sets the value of a key: [`KvReply::Stored`].
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key and its value: [`KvReply::Deleted`].
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Sets the value of a key if its present one is as expected: [`KvReply::Swapped`] or
    /// [`KvReply::Mismatch`].
    CompareAndSwap {
        /// The key.
        key: &'a [u8],
        /// The value that must be there, or `None` if the key must be absent.
        expected: Option<&'a [u8]>,
        /// Its new value.
        value: &'a [u8],
    },
    /// Answers the entries from `start` to before `end` in the order of their keys:
    /// [`KvReply::Entries`]. Read-only.
    ///
    /// It ends early, and says so, at `limit` entries or [`MAX_SCAN_REPLY_BYTES`]. To go on,
    /// start at the last key followed by a zero byte.
    Scan {
        /// The first key of the range, at most [`MAX_BOUND_BYTES`] long.
        start: &'a [u8],
        /// The first key after the range, as long as `start`; `None` scans to the end.
        end: Option<&'a [u8]>,
        /// The largest number of entries to answer.
        limit: u32,
    },
}

impl<'a> KvOperation<'a> {
    /// Appends the encoded operation to `out`; nothing if a key or value is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), KvRefusal> {
        match *self {
            KvOperation::Get { key } => {
                check_key(key)?;
                out.push(1);
                put_key(out, key);
            }
            KvOperation::Put { key, value } => {
                check_key(key)?;
                check_value(value)?;
                out.push(2);
                put_key(out, key);
                put_value(out, value);
            }
            KvOperation::Delete { key } => {
                check_key(key)?;
                out.push(3);
                put_key(out, key);
            }
            KvOperation::CompareAndSwap { key, expected, value } => {
                check_key(key)?;
                check_value(expected.unwrap_or_default())?;
                check_value(value)?;
                out.push(4);
                put_key(out, key);
                put_option(out, expected, put_value);
                put_value(out, value);
            }
            KvOperation::Scan { start, end, limit } => {
                check_bound(start)?;
                check_bound(end.unwrap_or_default())?;
                out.push(5);
                put_key(out, start);
                put_option(out, end, put_key);
                out.extend_from_slice(&limit.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Reads an encoded operation. An error is the refusal that the service replies with.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, KvRefusal> {
        let mut reader = Reader(bytes);
        let operation = match reader.u8()? {
            1 => KvOperation::Get { key: reader.key()? },
            2 => KvOperation::Put { key: reader.key()?, value: reader.value()? },
            3 => KvOperation::Delete { key: reader.key()? },
            4 => KvOperation::CompareAndSwap {
                key: reader.key()?,
                expected: reader.option(Reader::value)?,
                value: reader.value()?,
            },
            5 => KvOperation::Scan {
                start: reader.bound()?,
                end: reader.option(Reader::bound)?,
                limit: reader.u32()?,
            },
            _ => return Err(KvRefusal::Malformed),
        };
        reader.end()?;
        Ok(operation)
    }
}

/// Why the store does not execute an operation. The state is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvRefusal {
    /// The bytes are not an encoded operation.
    Malformed,
    /// A key is longer than [`MAX_KEY_BYTES`], or a scan's bound than [`MAX_BOUND_BYTES`].
    KeyTooLong,
    /// A value is longer than [`MAX_VALUE_BYTES`].
    ValueTooLong,
    /// The store has reached its limit; see
    /// [`KvService::with_limit`](super::KvService::with_limit).
    Full,
}

impl fmt::Display for KvRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the operation is malformed"),
            Self::KeyTooLong => {
                write!(f, "the key is too long: at most {MAX_KEY_BYTES} bytes are allowed")
            }
            Self::ValueTooLong => {
                write!(f, "the value is too long: at most {MAX_VALUE_BYTES} bytes are allowed")
            }
            Self::Full => f.write_str("the store is full: delete something first"),
        }
    }
}

impl std::error::Error for KvRefusal {}

/// A reply of the key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvReply<'a> {
    /// The value of the key.
    Value(&'a [u8]),
    /// The key is not there.
    Absent,
    /// The value is stored.
    Stored {
        /// Whether the key had a value before.
        replaced: bool,
    },
    /// The key is not there any more.
    Deleted {
        /// Whether the key was there before.
        existed: bool,
    },
    /// The value was as expected and is replaced.
    Swapped,
    /// The value was not as expected and remains.
    Mismatch {
        /// The present value, or `None` if the key is absent.
        current: Option<&'a [u8]>,
    },
    /// The entries of a range.
    Entries(KvEntries<'a>),
    /// The operation was not executed.
    Refused(KvRefusal),
}

impl<'a> KvReply<'a> {
    /// Appends the encoded reply to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            KvReply::Value(value) => {
                out.push(1);
                put_value(out, value);
            }
            KvReply::Absent => out.push(2),
            KvReply::Stored { replaced } => out.extend_from_slice(&[3, replaced.into()]),
            KvReply::Deleted { existed } => out.extend_from_slice(&[4, existed.into()]),
            KvReply::Swapped => out.push(5),
            KvReply::Mismatch { current } => {
                out.push(6);
                put_option(out, current, put_value);
            }
            KvReply::Entries(entries) => {
                out.extend_from_slice(&entries_header(entries.more, entries.count));
                out.extend_from_slice(entries.bytes);
            }
            KvReply::Refused(KvRefusal::Malformed) => out.push(0x80),
            KvReply::Refused(KvRefusal::KeyTooLong) => out.push(0x81),
            KvReply::Refused(KvRefusal::ValueTooLong) => out.push(0x82),
            KvReply::Refused(KvRefusal::Full) => out.push(0x83),
        }
    }

    /// Reads an encoded reply.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadKvReply> {
        KvReply::read(bytes).map_err(|_| BadKvReply)
    }

    fn read(bytes: &'a [u8]) -> Result<Self, KvRefusal> {
        let mut reader = Reader(bytes);
        let reply = match reader.u8()? {
            1 => KvReply::Value(reader.value()?),
            2 => KvReply::Absent,
            3 => KvReply::Stored { replaced: reader.flag()? },
            4 => KvReply::Deleted { existed: reader.flag()? },
            5 => KvReply::Swapped,
            6 => KvReply::Mismatch { current: reader.option(Reader::value)? },
            7 => KvReply::Entries(reader.entries()?),
            0x80 => KvReply::Refused(KvRefusal::Malformed),
            0x81 => KvReply::Refused(KvRefusal::KeyTooLong),
            0x82 => KvReply::Refused(KvRefusal::ValueTooLong),
            0x83 => KvReply::Refused(KvRefusal::Full),
            _ => return Err(KvRefusal::Malformed),
        };
        reader.end()?;
        Ok(reply)
    }
}

/// The bytes are not a reply of the key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKvReply;

impl fmt::Display for BadKvReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this is no reply of the key-value store: does the group run another service, or \
             another version?",
        )
    }
}

impl std::error::Error for BadKvReply {}

/// The entries of a scan, an iterator of key and value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KvEntries<'a> {
    pub(super) more: bool,
    pub(super) count: u32,
    pub(super) bytes: &'a [u8],
}

impl KvEntries<'_> {
    /// Whether the scan ended before its range did.
    #[must_use]
    pub fn more(&self) -> bool {
        self.more
    }
}

impl<'a> Iterator for KvEntries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = Reader(self.bytes);
        let entry = reader.entry().ok()?;
        self.count -= 1;
        self.bytes = reader.0;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for KvEntries<'_> {}

impl fmt::Debug for KvEntries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more: {}, ", self.more)?;
        f.debug_map().entries(*self).finish()
    }
}

/// The part of the reply to a scan before the entries.
pub(super) fn entries_header(more: bool, count: u32) -> [u8; ENTRIES_HEADER_BYTES] {
    let [a, b, c, d] = count.to_le_bytes();
    [7, more.into(), a, b, c, d]
}

/// The part of an entry before the key. Key and value must be within their limits.
pub(super) fn entry_header(key: &[u8], value: &[u8]) -> [u8; ENTRY_HEADER_BYTES] {
    debug_assert!(key.len() <= MAX_KEY_BYTES && value.len() <= MAX_VALUE_BYTES);
    let [a, b] = (key.len() as u16).to_le_bytes();
    let [c, d, e, f] = (value.len() as u32).to_le_bytes();
    [a, b, c, d, e, f]
}

fn check_key(key: &[u8]) -> Result<(), KvRefusal> {
    if key.len() > MAX_KEY_BYTES { Err(KvRefusal::KeyTooLong) } else { Ok(()) }
}

fn check_bound(key: &[u8]) -> Result<(), KvRefusal> {
    if key.len() > MAX_BOUND_BYTES { Err(KvRefusal::KeyTooLong) } else { Ok(()) }
}

fn check_value(value: &[u8]) -> Result<(), KvRefusal> {
    if value.len() > MAX_VALUE_BYTES { Err(KvRefusal::ValueTooLong) } else { Ok(()) }
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(key);
}

fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>, put: fn(&mut Vec<u8>, &[u8])) {
    out.push(bytes.is_some().into());
    if let Some(bytes) = bytes {
        put(out, bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn operations_have_the_documented_bytes() {
        let cases: [(KvOperation<'_>, &[u8]); 6] = [
            (KvOperation::Get { key: b"k" }, b"\x01\x01\x00k"),
            (KvOperation::Put { key: b"", value: b"vw" }, b"\x02\x00\x00\x02\x00\x00\x00vw"),
            (KvOperation::Delete { key: b"k" }, b"\x03\x01\x00k"),
            (
                KvOperation::CompareAndSwap { key: b"k", expected: None, value: b"v" },
                b"\x04\x01\x00k\x00\x01\x00\x00\x00v",
            ),
            (
                KvOperation::CompareAndSwap { key: b"k", expected: Some(b"w"), value: b"" },
                b"\x04\x01\x00k\x01\x01\x00\x00\x00w\x00\x00\x00\x00",
            ),
            (
                KvOperation::Scan { start: b"a", end: Some(b"b"), limit: 258 },
                b"\x05\x01\x00a\x01\x01\x00b\x02\x01\x00\x00",
            ),
        ];
        for (operation, bytes) in cases {
            let mut out = Vec::new();
            operation.encode(&mut out).unwrap();
            assert_eq!(out, bytes);
            assert_eq!(KvOperation::decode(bytes), Ok(operation));
            for end in 0..bytes.len() {
                assert_eq!(KvOperation::decode(&bytes[..end]), Err(KvRefusal::Malformed));
            }
            out.push(0);
            assert_eq!(KvOperation::decode(&out), Err(KvRefusal::Malformed));
        }
    }

    #[test]
    fn replies_have_the_documented_bytes() {
        let entries = KvEntries { more: true, count: 1, bytes: b"\x01\x00\x01\x00\x00\x00kv" };
        let cases: [(KvReply<'_>, &[u8]); 12] = [
            (KvReply::Value(b"v"), b"\x01\x01\x00\x00\x00v"),
            (KvReply::Absent, b"\x02"),
            (KvReply::Stored { replaced: true }, b"\x03\x01"),
            (KvReply::Deleted { existed: false }, b"\x04\x00"),
            (KvReply::Swapped, b"\x05"),
            (KvReply::Mismatch { current: None }, b"\x06\x00"),
            (KvReply::Mismatch { current: Some(b"") }, b"\x06\x01\x00\x00\x00\x00"),
            (KvReply::Entries(entries), b"\x07\x01\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00kv"),
            (KvReply::Refused(KvRefusal::Malformed), b"\x80"),
            (KvReply::Refused(KvRefusal::KeyTooLong), b"\x81"),
            (KvReply::Refused(KvRefusal::ValueTooLong), b"\x82"),
            (KvReply::Refused(KvRefusal::Full), b"\x83"),
        ];
        for (reply, bytes) in cases {
            let mut out = Vec::new();
            reply.encode(&mut out);
            assert_eq!(out, bytes);
            assert_eq!(KvReply::decode(bytes), Ok(reply));
            for end in 0..bytes.len() {
                assert_eq!(KvReply::decode(&bytes[..end]), Err(BadKvReply));
            }
        }
        assert_eq!(entries.collect::<Vec<_>>(), [(&b"k"[..], &b"v"[..])]);
    }

    #[test]
    fn limits_hold_on_both_sides() {
        let key = [0; MAX_BOUND_BYTES + 1];
        let value = vec![0; MAX_VALUE_BYTES + 1];
        let mut out = Vec::new();
        let long_key = KvOperation::Get { key: &key[..MAX_KEY_BYTES + 1] };
        assert_eq!(long_key.encode(&mut out), Err(KvRefusal::KeyTooLong));
        let long_bound = KvOperation::Scan { start: &key, end: None, limit: 1 };
        assert_eq!(long_bound.encode(&mut out), Err(KvRefusal::KeyTooLong));
        let long_value = KvOperation::Put { key: b"", value: &value };
        assert_eq!(long_value.encode(&mut out), Err(KvRefusal::ValueTooLong));
        assert!(out.is_empty());
        assert_eq!(KvOperation::decode(&[1, 1, 4]), Err(KvRefusal::KeyTooLong));
        assert_eq!(
            KvOperation::decode(&[2, 0, 0, 255, 255, 255, 255]),
            Err(KvRefusal::ValueTooLong)
        );
        let longest =
            KvOperation::Put { key: &key[..MAX_KEY_BYTES], value: &value[..MAX_VALUE_BYTES] };
        longest.encode(&mut out).unwrap();
        assert!(out.len() <= 1 << 20);
        assert_eq!(KvOperation::decode(&out), Ok(longest));
    }

    proptest! {
        /// Whatever decodes is the one encoding of what it decodes to.
        #[test]
        fn bytes_never_panic_and_encodings_are_unique(
            mut bytes in proptest::collection::vec(0..4u8, 0..40),
            kind in 0..10u8,
        ) {
            bytes.insert(0, kind);
            let mut out = Vec::new();
            if let Ok(operation) = KvOperation::decode(&bytes) {
                operation.encode(&mut out).unwrap();
                prop_assert_eq!(&out, &bytes);
            }
            out.clear();
            if let Ok(reply) = KvReply::decode(&bytes) {
                reply.encode(&mut out);
                prop_assert_eq!(&out, &bytes);
            }
        }
    }
}
