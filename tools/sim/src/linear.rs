//! Is a history of client calls linearizable? The search of Wing and Gong with Lowe's memory, one
//! register at a time (calls on different registers are independent).

use std::collections::{BTreeMap, HashSet};

use crate::store::Operation;

/// A call of a client, with stamps that order all beginnings and ends of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who called, for reports.
    pub caller: String,
    /// The operation.
    pub operation: Operation,
    /// When it asked.
    pub begin: u64,
    /// When it was answered and what; `None` if it never was: then it may have run or not, at any
    /// time after it began.
    pub end: Option<(u64, Option<u64>)>,
}

/// What the checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none for this register.
    Contradiction {
        /// The register.
        key: u16,
        /// The calls on it that could not be explained after the longest explained run.
        stuck: Vec<Call>,
    },
    /// The search took more steps than it was given.
    Undecided {
        /// The register.
        key: u16,
    },
}

/// Steps per register before the search gives up.
pub const SEARCH_LIMIT: usize = 2_000_000;

/// Checks a whole history.
#[must_use]
pub fn check(history: &[Call]) -> Verdict {
    let mut registers: BTreeMap<u16, Vec<&Call>> = BTreeMap::new();
    for call in history {
        registers.entry(call.operation.key).or_default().push(call);
    }
    for (key, mut calls) in registers {
        calls.sort_by_key(|call| call.begin);
        match Search::new(calls).run() {
            Found::Order => {}
            Found::Nothing(stuck) => return Verdict::Contradiction { key, stuck },
            Found::TooMuch => return Verdict::Undecided { key },
        }
    }
    Verdict::Linearizable
}

enum Found {
    Order,
    Nothing(Vec<Call>),
    TooMuch,
}

/// A call that was put next.
struct Choice {
    index: usize,
    /// The register before.
    register: Option<u64>,
    /// Nothing else needs to be tried in its place.
    forced: bool,
}

/// A set of calls, as bits.
type CallSet = Box<[u64]>;

struct Search<'a> {
    calls: Vec<&'a Call>,
    done: CallSet,
    register: Option<u64>,
    /// Answered calls that are not in `done`.
    answered_left: usize,
    /// All calls before this one are done.
    first_left: usize,
    seen: HashSet<(CallSet, Option<u64>)>,
    /// Chosen calls.
    path: Vec<Choice>,
    deepest: usize,
    deepest_done: CallSet,
}

impl<'a> Search<'a> {
    fn new(calls: Vec<&'a Call>) -> Self {
        let words = calls.len().div_ceil(64);
        let done = vec![0; words].into_boxed_slice();
        Search {
            answered_left: calls.iter().filter(|c| c.end.is_some()).count(),
            calls,
            deepest_done: done.clone(),
            done,
            register: None,
            first_left: 0,
            seen: HashSet::new(),
            path: Vec::new(),
            deepest: 0,
        }
    }

    fn run(mut self) -> Found {
        let mut from = 0;
        let mut steps = 0;
        while self.answered_left > 0 {
            steps += 1;
            if steps > SEARCH_LIMIT {
                return Found::TooMuch;
            }
            if let Some((next, forced)) = self.next_candidate(from) {
                self.choose(next, forced);
                if self.seen.insert((self.done.clone(), self.register)) {
                    from = 0;
                    continue;
                }
            }
            // Back to the last choice that leaves another one.
            loop {
                match self.undo() {
                    None => return Found::Nothing(self.stuck()),
                    Some(choice) if choice.forced => {}
                    Some(choice) => {
                        from = choice.index + 1;
                        break;
                    }
                }
            }
        }
        Found::Order
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    /// The next call from `from` on that may stand first among those not done: it began before any
    /// of them ended, and its answer is the register. With it, whether no other one needs to be
    /// tried: an answered call that leaves the register as it is can always stand first.
    fn next_candidate(&self, from: usize) -> Option<(usize, bool)> {
        let mut first_end = u64::MAX;
        let mut candidates = Vec::new();
        for (index, call) in self.calls.iter().enumerate().skip(self.first_left) {
            if call.begin > first_end {
                break;
            }
            if self.is_done(index) {
                continue;
            }
            let fits = call.end.is_none_or(|(_, answer)| answer == self.register);
            let keeps = call.operation.action.apply(self.register) == self.register;
            // A call without an answer that changes nothing need not be placed.
            if index >= from && fits && (call.end.is_some() || !keeps) {
                candidates.push((index, call.begin, keeps));
            }
            if let Some((end, _)) = call.end {
                first_end = first_end.min(end);
            }
        }
        candidates.retain(|(_, begin, _)| *begin < first_end);
        let forced = candidates.iter().find(|(_, _, keeps)| *keeps && from == 0);
        if let Some((index, ..)) = forced {
            return Some((*index, true));
        }
        candidates.first().map(|(index, ..)| (*index, false))
    }

    fn choose(&mut self, index: usize, forced: bool) {
        self.path.push(Choice { index, register: self.register, forced });
        self.done[index / 64] |= 1 << (index % 64);
        while self.first_left < self.calls.len() && self.is_done(self.first_left) {
            self.first_left += 1;
        }
        self.register = self.calls[index].operation.action.apply(self.register);
        if self.calls[index].end.is_some() {
            self.answered_left -= 1;
        }
        if self.path.len() > self.deepest {
            self.deepest = self.path.len();
            self.deepest_done.clone_from(&self.done);
        }
    }

    fn undo(&mut self) -> Option<Choice> {
        let choice = self.path.pop()?;
        let index = choice.index;
        self.done[index / 64] &= !(1 << (index % 64));
        self.first_left = self.first_left.min(index);
        self.register = choice.register;
        if self.calls[index].end.is_some() {
            self.answered_left += 1;
        }
        Some(choice)
    }

    fn stuck(&self) -> Vec<Call> {
        let left = |i: &usize| self.deepest_done[i / 64] >> (i % 64) & 1 == 0;
        (0..self.calls.len()).filter(left).take(6).map(|i| self.calls[i].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::store::Action;

    fn call(action: Action, begin: u64, end: Option<(u64, Option<u64>)>) -> Call {
        Call { caller: "test".into(), operation: Operation { key: 1, action }, begin, end }
    }

    fn good(history: &[Call]) -> bool {
        check(history) == Verdict::Linearizable
    }

    #[test]
    fn one_after_the_other() {
        let history = [
            call(Action::Put(1), 0, Some((1, None))),
            call(Action::Get, 2, Some((3, Some(1)))),
            call(Action::Cas { expected: Some(1), new: 2 }, 4, Some((5, Some(1)))),
            call(Action::Delete, 6, Some((7, Some(2)))),
            call(Action::Get, 8, Some((9, None))),
        ];
        assert!(good(&history));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [
            call(Action::Put(1), 0, Some((1, None))),
            call(Action::Put(2), 2, Some((3, Some(1)))),
            call(Action::Get, 4, Some((5, Some(1)))),
        ];
        assert!(matches!(check(&history), Verdict::Contradiction { key: 1, .. }));
    }

    #[test]
    fn overlapping_calls_may_take_either_order() {
        let history = [
            call(Action::Put(1), 0, Some((10, Some(2)))),
            call(Action::Put(2), 1, Some((9, None))),
            call(Action::Get, 11, Some((12, Some(1)))),
        ];
        assert!(good(&history));
        let mut bad = history.to_vec();
        bad[2].end = Some((12, Some(2)));
        assert!(!good(&bad));
    }

    #[test]
    fn a_new_value_read_once_cannot_vanish() {
        let history = [
            call(Action::Put(1), 0, Some((20, None))),
            call(Action::Get, 1, Some((2, Some(1)))),
            call(Action::Get, 3, Some((4, None))),
        ];
        assert!(!good(&history));
    }

    #[test]
    fn an_unanswered_call_may_have_run_or_not() {
        let ran = [
            call(Action::Put(1), 0, None),
            call(Action::Get, 5, Some((6, None))),
            call(Action::Get, 7, Some((8, Some(1)))),
        ];
        assert!(good(&ran));
        let not = [call(Action::Put(1), 0, None), call(Action::Get, 5, Some((6, None)))];
        assert!(good(&not));
        let twice = [
            call(Action::Put(1), 0, None),
            call(Action::Get, 5, Some((6, Some(1)))),
            call(Action::Delete, 7, Some((8, Some(1)))),
            call(Action::Get, 9, Some((10, Some(1)))),
        ];
        assert!(!good(&twice));
        let early = [call(Action::Get, 0, Some((1, Some(1)))), call(Action::Put(1), 2, None)];
        assert!(!good(&early));
    }

    #[test]
    fn an_operation_that_ran_twice_is_found() {
        let history = [
            call(Action::Put(1), 0, Some((1, None))),
            call(Action::Put(2), 2, Some((3, Some(1)))),
            call(Action::Put(3), 4, Some((5, Some(1)))),
        ];
        assert!(!good(&history));
    }

    /// Histories made from a real order are accepted, and refused with one answer changed.
    #[test]
    fn random_histories_of_a_real_register() {
        let mut refused = 0;
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut register = None;
            let mut history = Vec::new();
            for i in 0..60u64 {
                // The call takes effect at 10·i and overlaps with some neighbours.
                let action = match random.below(4) {
                    0 => Action::Get,
                    1 => Action::Delete,
                    2 => Action::Cas { expected: register, new: i },
                    _ => Action::Put(i),
                };
                let begin = (1000 + 10 * i) - random.below(60);
                let end = 1000 + 10 * i + 1 + random.below(60);
                let answered = !random.chance(50_000);
                history.push(call(action, begin, answered.then_some((end, register))));
                register = action.apply(register);
            }
            assert!(good(&history), "seed {seed}");
            let index = random.index(history.len());
            if let Some((end, _)) = history[index].end {
                history[index].end = Some((end, Some(9999)));
                assert!(!good(&history), "seed {seed}");
                refused += 1;
            }
        }
        assert!(refused > 100);
    }
}
