//! What is remembered about a replica's state is what the replica does: random walks through the
//! model are walked by replicas that were never put together from a memory.

use std::sync::Arc;

use hybster_model::replica::Automaton;
use hybster_model::{Action, Bounds, CoreModel};
use hybster_proto::ids::ReplicaId;
use stateright::Model;

/// A small generator of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn walk(model: &CoreModel, random: &mut Random) -> usize {
    let group = model.group();
    let mut replicas: Vec<Automaton> =
        (0..3).map(|r| Automaton::new(Arc::clone(group), ReplicaId(r))).collect();
    let mut state = model.init_states().remove(0);
    for length in 0.. {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        actions.retain(|action| model.next_state(&state, *action).is_some());
        if actions.is_empty() {
            return length;
        }
        let action = actions[random.below(actions.len())];
        if let Action::At(replica, event) = action {
            let (digest, mut sent) = model.local_step(&state, replica, event);
            let stimulus = model.stimulus(event);
            let automaton = &mut replicas[usize::from(replica)];
            let mut really = automaton.step(stimulus).sent;
            really.sort();
            really.dedup();
            sent.sort();
            assert_eq!(automaton.digest(), digest, "{}", model.format_action(&action));
            assert_eq!(really, sent, "{}", model.format_action(&action));
        }
        state = model.next_state(&state, action).expect("it was possible");
    }
    unreachable!("every walk ends")
}

#[test]
fn remembered_states_do_what_replicas_do() {
    for faulty in [None, Some(0), Some(1), Some(2)] {
        let small = Bounds::small(faulty);
        for bounds in [
            Bounds { early: true, slow_batches: true, ..small.clone() },
            Bounds { slots: 2, views: 2, noops: true, ..small.clone() },
            Bounds { pillars: 2, views: 2, early: true, ..small.clone() },
            Bounds { slots: 2, checkpoints: true, ..small.clone() },
            Bounds { slots: 2, restarts: Some(u16::from(faulty == Some(0))), ..small.clone() },
            Bounds { views: 2, restarts: Some(1 + u16::from(faulty == Some(1))), ..small.clone() },
        ] {
            let model = CoreModel::new(bounds);
            let mut random = Random(7);
            let steps: usize = (0..100).map(|_| walk(&model, &mut random)).sum();
            assert!(steps > 100 * 10, "{steps} steps");
        }
    }
}
