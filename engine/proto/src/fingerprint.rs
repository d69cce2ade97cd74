//! Canonical bytes of the protocol state of stages, for model checkers (feature `model`).
//!
//! Two replicas of one identity with equal fingerprints behave the same from then on, as far as the
//! safety of the protocol is concerned. Left out are fields that only pace work, or that serve
//! peers which missed a message: points in time, timeouts, rate limits, counters for display, and
//! the NEW-VIEW and NEW-VIEW-ACK that are sent to single peers again.
//!
//! The stages list all their fields by name, so that a new field does not compile until its author
//! has decided about it.

/// Bytes that grow field by field.
#[derive(Default, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub Vec<u8>);

impl Fingerprint {
    /// Appends a number.
    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends a truth value.
    pub fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    /// Appends bytes and their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Appends a number of 128 bits.
    pub fn wide(&mut self, number: u128) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends items and their number, sorted, since they may come from an unordered collection.
    pub fn sorted(&mut self, mut items: Vec<Self>) {
        items.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.number(items.len() as u64);
        for item in items {
            self.bytes(&item.0);
        }
    }
}
