//! Operations of the service, and their replies, as bytes.
//!
//! One operation carries commands of several connections, so that a group that agrees on it agrees on all of
//! them at once. All numbers are little-endian.
//! ```text
//! operation  version 01 | reply limit u32 | part*
//! part       flags u8 | database u8 | watches u16 | watch* | commands u32 | command*
//! flags      bit 0 replies in RESP3, bit 1 all commands or none (MULTI)
//! watch      database u8 | version u64 | length u32 | key
//! command    arguments u32 | (length u32 | argument)*         the first is the command's name
//!
//! reply      00 | part reply*                one for each part
//!            01                              the operation is malformed; nothing was done
//! part reply executed u32 | length u32 | the replies of these commands in RESP
//! ```
//! The commands of a part are executed in their order. If the replies become longer than the limit, the
//! part ends early: *executed* says how many were. What is beyond it was not, and is sent again.

/// The version of the form.
const VERSION: u8 = 1;
const RESP3: u8 = 1;
const ATOMIC: u8 = 2;

/// What a reply begins with if its operation could be read.
pub(crate) const DONE: u8 = 0;
/// What it is if not.
pub(crate) const MALFORMED: u8 = 1;

/// Bytes in front of the parts.
pub(crate) const HEAD_BYTES: usize = 5;
/// Bytes in front of the watches and commands of a part, and of their count.
pub(crate) const PART_BYTES: usize = 8;

/// A key that must not have changed since it had a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) database: u8,
    pub(crate) version: u64,
    pub(crate) key: Vec<u8>,
}

impl Watch {
    /// What it takes in an operation, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        13 + self.key.len()
    }
}

/// Writes operations.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(reply_limit: u32) -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&reply_limit.to_le_bytes());
        Self { bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a part; returns where its count of commands is, for [`Self::end_part`].
    pub(crate) fn begin_part(
        &mut self,
        resp3: bool,
        is_atomic: bool,
        database: u8,
        watches: &[Watch],
    ) -> usize {
        let flags = if resp3 { RESP3 } else { 0 } | if is_atomic { ATOMIC } else { 0 };
        self.bytes.extend_from_slice(&[flags, database]);
        let count = u16::try_from(watches.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&count.to_le_bytes());
        for watch in &watches[..usize::from(count)] {
            self.bytes.push(watch.database);
            self.bytes.extend_from_slice(&watch.version.to_le_bytes());
            self.argument(&watch.key);
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        at
    }

    /// Appends a command that [`encode_command`] has written.
    pub(crate) fn command(&mut self, encoded: &[u8]) {
        self.bytes.extend_from_slice(encoded);
    }

    pub(crate) fn end_part(&mut self, at: usize, commands: u32) {
        self.bytes[at..at + 4].copy_from_slice(&commands.to_le_bytes());
    }

    fn argument(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Appends a command.
pub(crate) fn encode_command(arguments: &[&[u8]], into: &mut Vec<u8>) {
    into.extend_from_slice(&(arguments.len() as u32).to_le_bytes());
    for argument in arguments {
        into.extend_from_slice(&(argument.len() as u32).to_le_bytes());
        into.extend_from_slice(argument);
    }
}

/// Reads numbers and arguments from the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    /// Reads the arguments of a command.
    pub(crate) fn command(&mut self, arguments: &mut Vec<&'a [u8]>) -> Option<()> {
        arguments.clear();
        for _ in 0..self.u32()? {
            arguments.push(self.bytes()?);
        }
        (!arguments.is_empty()).then_some(())
    }
}

/// A part without its commands, which follow it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) resp3: bool,
    pub(crate) is_atomic: bool,
    pub(crate) database: u8,
    pub(crate) watches: Vec<Watch>,
    pub(crate) commands: u32,
}

/// Reads the head of an operation: the limit of its reply.
pub(crate) fn read_head(reader: &mut Reader<'_>) -> Option<u32> {
    (reader.u8()? == VERSION).then(|| reader.u32())?
}

/// Reads the head of a part.
pub(crate) fn read_part(reader: &mut Reader<'_>) -> Option<Part> {
    let flags = reader.u8().filter(|flags| *flags <= (RESP3 | ATOMIC))?;
    let database = reader.u8()?;
    let mut watches = Vec::new();
    for _ in 0..reader.u16()? {
        let (database, version) = (reader.u8()?, reader.u64()?);
        watches.push(Watch { database, version, key: reader.bytes()?.to_vec() });
    }
    let commands = reader.u32()?;
    let (resp3, is_atomic) = (flags & RESP3 != 0, flags & ATOMIC != 0);
    Some(Part { resp3, is_atomic, database, watches, commands })
}

/// Whether these are the bytes of an operation. A service looks before it does the first command, so that
/// one that is cut off does nothing.
pub(crate) fn is_well_formed(operation: &[u8]) -> bool {
    let walk = || {
        let mut reader = Reader(operation);
        read_head(&mut reader)?;
        while !reader.0.is_empty() {
            let part = read_part(&mut reader)?;
            for _ in 0..part.commands {
                let arguments = reader.u32().filter(|count| *count > 0)?;
                for _ in 0..arguments {
                    reader.bytes()?;
                }
            }
        }
        Some(())
    };
    walk().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_read_as_it_was_written_and_not_if_it_is_cut_off() {
        let mut writer = Writer::new(77);
        let watch = Watch { database: 3, version: 9, key: b"w".to_vec() };
        let at = writer.begin_part(true, true, 2, std::slice::from_ref(&watch));
        let mut command = Vec::new();
        encode_command(&[b"GET", b"k"], &mut command);
        writer.command(&command);
        writer.end_part(at, 1);
        let bytes = writer.bytes();
        assert!(is_well_formed(bytes));
        let mut reader = Reader(bytes);
        assert_eq!(read_head(&mut reader), Some(77));
        let part = read_part(&mut reader).unwrap();
        assert_eq!((part.resp3, part.is_atomic, part.database), (true, true, 2));
        assert_eq!((part.watches, part.commands), (vec![watch], 1));
        let mut arguments = Vec::new();
        reader.command(&mut arguments).unwrap();
        assert_eq!((&arguments[..], reader.0), (&[&b"GET"[..], b"k"][..], &b""[..]));
        // An operation may end after its head, which has no parts then.
        for length in (0..bytes.len()).filter(|length| *length != HEAD_BYTES) {
            assert!(!is_well_formed(&bytes[..length]), "{length}");
        }
    }
}
