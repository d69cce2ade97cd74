//! Model checking of the protocol core in small bounds, with [stateright].
//!
//! Not a model of the core is checked but the core itself: a local state of a correct replica is
//! its real stages ([`hybster_proto::Stages`]) with real messages, real certificates and an honest
//! TrInX. Between two events all inputs between the stages are delivered, so an event is one step.
//!
//! # States
//! A correct replica is a deterministic automaton. What an event does to it in a state is found
//! out once, on the real stages, and remembered ([`world`]). States are told apart by a digest
//! over every field that decides about safety (`fingerprint` in `hybster-proto`, feature `model`),
//! so a global state is one number per replica and the set of messages that exist. Messages never
//! vanish: loss, duplication and reordering need no actions. Random walks that are also walked by
//! replicas without a memory (`tests/memory.rs`) check that nothing is missing in the digest.
//!
//! # Actions
//! The arrival of a message at a correct replica; a leader's request intake handing out any request
//! or no-op to any pillar; any replica giving up its view or the wait for a NEW-VIEW, at any time;
//! the faulty host certifying anything that its counters allow ([`faulty`]); and, if the bounds say so,
//! one stop of one correct replica at any record of its log, after which it comes back with that
//! ([`Bounds::restarts`]). What was free to leave before the stop may arrive or not; what ran must have
//! run afterwards as well. A peer may tell the replica what it has seen of it at any time, and say less than
//! it has seen.
//!
//! # What is left out
//! - Client stage and replies, retransmission, requests for help and answers to them: in a network
//!   that forgets nothing they add nothing.
//! - State transfer: FETCH is never answered, so a replica that needs it stops.
//! - Batches of several requests; forged requests. Requests are alike, so of those that nobody has
//!   used yet only one is tried.
//! - More than three replicas, and everything beyond [`Bounds`].
//! - Restarts from a checkpoint on disk, logs that were truncated, more than one restart.
//! - Liveness: see the simulator.
//!
//! Ordering messages do not arrive before their view is entered, and batches that are asked for
//! arrive at once, unless [`Bounds::early`] and [`Bounds::slow_batches`] say otherwise. Messages
//! whose view is behind all correct replicas are dropped from the state.
//!
//! # What was explored to the end
//! n = 3, f = 1, two requests where nothing else is said; "slots" are per pillar. States by the
//! faulty replica, 0 (leader of view 0), 1 (leader of view 1) and 2:
//!
//! | bounds | faulty 0 | faulty 1 | faulty 2 | test |
//! |---|---|---|---|---|
//! | P = 1, 1 slot, views 0..1 | 1,218 | 4,732 | 1,337 | `small` |
//! | … with no-ops | 2,202 | 8,166 | 2,600 | `small` |
//! | … with early ordering messages and slow batches | 4,352 | 13,472 | 3,128 | `small` |
//! | P = 1, 2 slots, views 0..1, no-ops | 136,210 | 324,096 | 149,788 | `exhaustive` |
//! | P = 1, 1 slot, views 0..1, a checkpoint per slot | 172,438 | 2,704,743 | 212,276 | `exhaustive` |
//! | P = 2, 1 slot, views 0..1, no-ops | 280,270 | 703,278 | 286,696 | `exhaustive` |
//! | P = 2, 1 slot, views 0..1, a checkpoint at 2, one request | 1,411,046 | – | 1,632,232 | `exhaustive` |
//! | P = 2, 2 slots, views 0..1, one request | 5,246,306 | – | 8,172,924 | `exhaustive`, `long` |
//! | P = 1, 1 slot, views 0..2 | 1,609,525 | 3,250,744 | 13,102,751 | `exhaustive`, `long` |
//!
//! With one restart, of the replica that the second number names:
//!
//! | bounds | faulty, restarted: states | test |
//! |---|---|---|
//! | P = 1, 1 slot, views 0..1 | none, 0: 19,748; 0, 1: 6,711; 0, 2: 6,855; 1, 0: 21,828; 1, 2: 26,960; 2, 0: 6,090 | `small` |
//! | … with early ordering messages and slow batches | 0, 1: 26,247; 1, 0: 62,635 | `exhaustive` |
//! | P = 1, 2 slots, views 0..1 | 0, 2: 352,578; 2, 0: 326,655 | `exhaustive` |
//! | P = 2, 1 slot, views 0..1, one request | 0, 1: 327,347; 2, 0: 449,366 | `exhaustive` |
//! | P = 1, 1 slot, views 0..1, a checkpoint per slot | 0, 1 (one request): 1,454,454; 2, 0: 1,433,236 | `exhaustive`, `long` |
//!
//! Not finished: P = 2 with views 0..2 (one request, faulty 0: 6,491,401 states before depth 12, no
//! end in sight), P = 1 with 2 slots and a checkpoint each (over 2,000,000 states at depth 12), and
//! what has a dash. All properties hold in all of these, and everything that should be possible
//! happens. stateright tells states apart by 64 bits, so a state may be overlooked with a
//! probability of about 10⁻⁵ in the largest of these.
//!
//! # Broken rules
//! Eleven broken rules of the protocol (`tests/mutants.rs`) lead to counterexamples of pinned length;
//! each is turned into a [`Schedule`] and replayed on the stages outside of the checker, where it
//! breaks the same rule; with the rule in force the same schedule is safe.
#![forbid(unsafe_code)]

pub mod checker;
pub mod explore;
pub mod faulty;
pub mod group;
pub mod replica;
pub mod schedule;
pub mod world;

pub use checker::{Action, CoreModel, State};
pub use explore::{Outcome, explore};
pub use group::Bounds;
pub use schedule::Schedule;
