//! What a leader has made batches of while its wires are slow, so that it proposes nothing twice.
//!
//! Over slow wires requests wait for long, and clients send them again. A copy that comes over a follower, or
//! again from the client, is then proposed beside the one that is in a batch already: it would run once all the same, but
//! cost its way to each follower again, when the wires have least to spare. On fast wires nothing is kept here.
//!
//! It is forgotten with the view: what was in batches may be lost with it. A request with a wrong proof is cut out
//! of its batch, and its client's right one is then taken for one that is in a batch, until another view; but nobody
//! else can send requests of that client's sessions.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | all clients | [`MAX_BATCHED`] requests | the oldest is forgotten, and may be proposed twice |

use std::collections::{BTreeSet, VecDeque};

use super::Key;
use crate::mutants::{self, Mutant};

/// Requests of batches that are kept in mind: more than a window of long batches on a slow wire has.
pub(crate) const MAX_BATCHED: usize = 16_384;
/// What one takes. A tree of such entries may be half empty.
pub(crate) const BATCHED_BYTES: u64 = 3 * size_of::<Key>() as u64;

/// Requests in batches, by key and by age.
#[derive(Debug, Default)]
pub(super) struct Batched {
    keys: BTreeSet<Key>,
    by_age: VecDeque<Key>,
}

impl Batched {
    /// A batch has this request.
    pub(super) fn insert(&mut self, key: Key) {
        if mutants::active(Mutant::ProposesTwice) || !self.keys.insert(key) {
            return;
        }
        self.by_age.push_back(key);
        if self.by_age.len() > MAX_BATCHED
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.by_age.clear();
    }

    pub(super) fn check(&self) {
        assert_eq!(self.keys.len(), self.by_age.len(), "each request in a batch has an age");
        assert!(self.keys.len() <= MAX_BATCHED, "requests in batches are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClientId, RequestNumber, SessionId};

    #[test]
    fn the_oldest_are_forgotten() {
        let key = |number| (SessionId { client: ClientId(1), session: 1 }, RequestNumber(number));
        let mut batched = Batched::default();
        (0..MAX_BATCHED as u64 + 2).for_each(|number| batched.insert(key(number)));
        batched.insert(key(5));
        assert!(!batched.contains(key(1)) && batched.contains(key(2)) && batched.contains(key(5)));
        batched.check();
        batched.clear();
        assert!(batched.is_empty());
        batched.check();
    }
}
