//! A result as a session keeps it, and what it counts against the group's bound
//! ([`GroupConfig::kept_result_bytes`](crate::config::GroupConfig::kept_result_bytes)).

use std::sync::Arc;

/// Results up to this length, in bytes, are counted with their session and never given up.
pub(in crate::execution) const SMALL: usize = 64;
/// Longer results are shared with the snapshots that hold them, in bytes; shorter ones are copied.
const COPIED: usize = 4096;

/// What a result counts against the bound, in bytes.
#[inline]
pub(super) fn counted(length: usize) -> u64 {
    if length > SMALL { length as u64 } else { 0 }
}

/// A result.
#[derive(Debug)]
pub(super) enum Kept {
    /// In memory that is used again.
    Own(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Kept {
    pub(super) const EMPTY: Self = Self::Own(Vec::new());

    pub(super) fn new(result: &[u8]) -> Self {
        if result.len() <= COPIED {
            Self::Own(result.to_vec())
        } else {
            Self::Shared(result.into())
        }
    }

    #[inline]
    pub(super) fn set(&mut self, result: &[u8]) {
        match self {
            // Nothing in place of little: the most frequent case, which needs no copy.
            Self::Own(own) if result.is_empty() && own.capacity() <= most_held(result) => {
                own.clear();
            }
            _ => self.replace(result),
        }
    }

    fn replace(&mut self, result: &[u8]) {
        match self {
            // What is held is at most twice what is counted.
            Self::Own(own) if result.len() <= COPIED && own.capacity() <= most_held(result) => {
                own.clear();
                own.extend_from_slice(result);
            }
            _ => *self = Self::new(result),
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(own) => own,
            Self::Shared(shared) => shared,
        }
    }
}

#[inline]
fn most_held(result: &[u8]) -> usize {
    2 * result.len().max(SMALL)
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Kept {}

impl Clone for Kept {
    fn clone(&self) -> Self {
        match self {
            Self::Own(own) => Self::Own(own.clone()),
            Self::Shared(shared) => Self::Shared(Arc::clone(shared)),
        }
    }

    /// Keeps the memory of a short one.
    fn clone_from(&mut self, source: &Self) {
        match source {
            Self::Own(own) => self.set(own),
            Self::Shared(shared) => *self = Self::Shared(Arc::clone(shared)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_follows_what_is_kept() {
        let mut kept = Kept::EMPTY;
        for length in [0, 10, 4096, 70, 5000, 0, 1 << 20, 64] {
            kept.set(&vec![7; length]);
            assert_eq!(kept.bytes(), vec![7; length]);
            let copy = kept.clone();
            if let (Kept::Own(own), Kept::Own(copied)) = (&kept, &copy) {
                assert!(own.capacity() <= 2 * length.max(SMALL));
                assert!(copied.capacity() <= 2 * length.max(SMALL));
            }
            assert_eq!(copy, kept);
        }
    }
}
