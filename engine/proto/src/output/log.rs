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
    has_batch: bool,
    body: Bytes,
}

impl LogRecord {
    /// A record of these parts.
    ///
    /// # Panics
    /// If the head is longer than 110 bytes.
    pub(crate) fn new(head: &[u8], body: Bytes) -> Self {
        assert!(head.len() <= HEAD_BYTES, "heads of records are short");
        let head_bytes = head.len() as u8;
        let mut record = Self { head: [0; HEAD_BYTES], head_bytes, has_batch: false, body };
        record.head[..head.len()].copy_from_slice(head);
        record
    }

    /// The same record, whose body is a batch or has one.
    pub(crate) fn with_batch(self) -> Self {
        Self { has_batch: true, ..self }
    }

    /// How long it is, if it has a batch: there may be as many more as the window has order numbers.
    #[must_use]
    pub fn batch_bytes(&self) -> Option<u64> {
        let bytes = || u64::from(self.head_bytes) + self.body.len() as u64;
        self.has_batch.then(bytes)
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
