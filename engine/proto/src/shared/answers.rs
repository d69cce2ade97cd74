//! What peers have asked a stage for, and which answers wait for room.
//!
//! An answer can be a million times as long as the question, so questions wait here and not their
//! answers: one is made when there is room for it. Each peer has its own share, which
//! bounds what it can make this replica keep, however much it asks and however little it reads.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};

/// Bytes of answers of one stage that wait for one peer: another answer is made while fewer wait,
/// so that none is too long. As much as a link takes at a time, so that a peer that reads never
/// waits.
pub(crate) const ANSWERS_BYTES: usize = 1 << 20;

/// The questions of each peer, by what is asked for.
pub(crate) struct Answers<K> {
    peers: Vec<Asked<K>>,
    /// Questions of one peer, those whose answers wait included.
    most: usize,
}

struct Asked<K> {
    /// Not answered yet.
    wanted: VecDeque<K>,
    /// Answers that wait for the peer's link, and their bytes.
    waiting: VecDeque<(K, usize)>,
    bytes: usize,
    /// All of both, so that nothing is answered twice at a time.
    known: BTreeSet<K>,
}

impl<K: Copy + Ord> Answers<K> {
    /// Nobody has asked yet.
    pub(crate) fn new(replicas: u16, most: usize) -> Self {
        let asked = || Asked {
            wanted: VecDeque::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            known: BTreeSet::new(),
        };
        Self { peers: (0..replicas).map(|_| asked()).collect(), most }
    }

    /// Notes a question. False if the peer has too many, or if there is no such peer.
    pub(crate) fn ask(&mut self, peer: ReplicaId, key: K) -> bool {
        let Some(asked) = self.peers.get_mut(usize::from(peer.0)) else {
            return false;
        };
        if asked.known.contains(&key) && !mutants::active(Mutant::AnswersUnlimited) {
            // The answer is on its way.
            return true;
        }
        if asked.known.len() >= self.most {
            return false;
        }
        asked.known.insert(key);
        asked.wanted.push_back(key);
        true
    }

    /// Forgets the questions of a peer that are not answered yet, except those that stay.
    pub(crate) fn forget(&mut self, peer: ReplicaId, stays: impl Fn(&K) -> bool) {
        let Some(asked) = self.peers.get_mut(usize::from(peer.0)) else { return };
        let Asked { wanted, known, .. } = asked;
        wanted.retain(|key| {
            let stays = stays(key);
            if !stays {
                known.remove(key);
            }
            stays
        });
    }

    /// The next question to answer, if there is room. [`Answers::answered`] must follow.
    pub(crate) fn next(&mut self, peer: ReplicaId) -> Option<K> {
        let asked = self.peers.get_mut(usize::from(peer.0))?;
        if asked.bytes >= ANSWERS_BYTES && !mutants::active(Mutant::AnswersUnlimited) {
            return None;
        }
        asked.wanted.pop_front()
    }

    /// A question was answered, with this many bytes or with nothing.
    pub(crate) fn answered(&mut self, peer: ReplicaId, key: K, bytes: usize) {
        let Some(asked) = self.peers.get_mut(usize::from(peer.0)) else { return };
        if bytes == 0 || mutants::active(Mutant::AnswersUnlimited) {
            asked.known.remove(&key);
        } else {
            asked.waiting.push_back((key, bytes));
            asked.bytes += bytes;
        }
    }

    /// This many answers, the oldest ones, have left or were dropped.
    pub(crate) fn left(&mut self, peer: ReplicaId, answers: u32) {
        let Some(asked) = self.peers.get_mut(usize::from(peer.0)) else { return };
        let count = asked.waiting.len().min(answers as usize);
        for (key, bytes) in asked.waiting.drain(..count) {
            asked.bytes -= bytes;
            asked.known.remove(&key);
        }
    }

    /// Stops the process if a peer has more than its share.
    #[inline]
    pub(crate) fn check_invariants(&self) {
        for asked in &self.peers {
            assert!(asked.known.len() <= self.most, "what a peer asks for is bounded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    /// Gives answers of this many bytes each while there is room; returns how many.
    fn serve(answers: &mut Answers<u64>, peer: ReplicaId, bytes: usize) -> u32 {
        let mut count = 0;
        while let Some(key) = answers.next(peer) {
            answers.answered(peer, key, bytes);
            count += 1;
        }
        count
    }

    #[test]
    fn answers_are_made_when_there_is_room_for_them() {
        let mut answers = Answers::new(3, 8);
        for key in 0..8 {
            assert!(answers.ask(PEER, key) && answers.ask(PEER, key));
        }
        assert!(!answers.ask(PEER, 8), "it has asked for enough");
        assert_eq!(serve(&mut answers, PEER, ANSWERS_BYTES / 2), 2);
        // It has asked before: one answer is on its way, and will do.
        assert!(answers.ask(PEER, 0));
        assert_eq!(serve(&mut answers, PEER, 1), 0);
        // Another one does not notice.
        assert!(answers.ask(OTHER, 0));
        assert_eq!(serve(&mut answers, OTHER, 1), 1);
        answers.left(PEER, 1);
        assert_eq!(serve(&mut answers, PEER, 2 * ANSWERS_BYTES), 1);
        answers.left(PEER, 7);
        assert!(answers.ask(PEER, 0));
        assert_eq!(serve(&mut answers, PEER, 1), 6);
        answers.check_invariants();
    }

    #[test]
    fn what_is_not_held_or_not_wanted_any_more_makes_room() {
        let mut answers = Answers::new(3, 2);
        assert!(answers.ask(PEER, 1) && answers.ask(PEER, 2) && !answers.ask(PEER, 3));
        assert_eq!(serve(&mut answers, PEER, 0), 2);
        assert!(answers.ask(PEER, 1) && answers.ask(PEER, 2));
        answers.forget(PEER, |key| *key == 2);
        assert!(answers.ask(PEER, 3));
        assert_eq!(serve(&mut answers, PEER, 1), 2);
        assert!(!answers.ask(ReplicaId(3), 1), "nobody has that number");
    }
}
