//! What a stage wants its replica's log to keep.

use bytes::Bytes;

/// The longest head of a record, in bytes.
const HEAD_BYTES: usize = 110;

/// One record: a short head and a body, which follow one another in the log. The body shares its
/// memory with the message that the record is about, so that nothing is copied but into the log.
///
/// The driver appends the records of an [`Output`](super::Output) before it executes any other effect
/// in it. So a prefix of the log never lacks the cause of something that it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct LogRecord {
    head: [u8; HEAD_BYTES],
    head_bytes: u8,
    body: Bytes,
}

impl LogRecord {
    /// A record of these parts.
    ///
    /// # Panics
    /// If the head is longer than 110 bytes.
    pub(crate) fn new(head: &[u8], body: Bytes) -> Self {
        assert!(head.len() <= HEAD_BYTES, "heads of records are short");
        let mut record = Self { head: [0; HEAD_BYTES], head_bytes: head.len() as u8, body };
        record.head[..head.len()].copy_from_slice(head);
        record
    }

    /// Its bytes, in two parts.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head[..usize::from(self.head_bytes)], &self.body]
    }
}

impl std::fmt::Debug for LogRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [head, body] = self.parts();
        f.debug_struct("LogRecord").field("head", &head).field("body", &body.len()).finish()
    }
}
