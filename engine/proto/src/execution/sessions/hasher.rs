//! A fast hasher for the identifiers in the session table.
//!
//! Clients choose the identifiers of their sessions, but a client fills the table with its own share
//! of sessions at most, so crafted collisions slow down a bounded number of entries. The
//! identifiers of clients are assigned by the group.

use crate::mix::mix;

/// A hasher without a secret.
#[derive(Default, Clone, Copy)]
pub(super) struct BuildMix;

impl std::hash::BuildHasher for BuildMix {
    type Hasher = Mix;

    fn build_hasher(&self) -> Mix {
        Mix(0)
    }
}

pub(super) struct Mix(u64);

impl Mix {
    fn add(&mut self, value: u64) {
        self.0 = mix(self.0, value);
    }
}

impl std::hash::Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }
}
