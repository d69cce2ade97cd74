//! A second core on the same host: both use the same TrInX instances, or a clone of them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{
    ClientLink, Input, Network, Output, route_client_message, route_peer_message,
};
use hybster_proto::replica::Stages;

use super::{Departure, Host, Scene};
use crate::keys::Keys;
use crate::ordering;
use crate::replica::Core;
use crate::store::Store;
use crate::watched::{Record, Recorded, Watched};
use crate::workload::Simulated;

/// What behaviours are built from.
pub(crate) struct Workshop<'a> {
    pub id: ReplicaId,
    pub config: &'a Arc<GroupConfig>,
    pub keys: &'a Keys,
    pub trinx: &'a [Watched],
}

/// To whom the second core speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    First,
    Second,
    Both,
}

pub(super) struct Twin {
    core: Box<Core>,
    out: Output,
    inputs: VecDeque<Input>,
    sides: Vec<Side>,
    drawn: bool,
}

impl Twin {
    pub(super) fn new(workshop: &Workshop<'_>, trinx: Vec<Watched>) -> Self {
        let Workshop { id, config, keys, .. } = workshop;
        let service = Recorded::new(Simulated(Box::new(Store::default())), Record::default());
        let agreement = ordering::agreement(config, *id, trinx, keys);
        let randomness = keys.randomness(config);
        let core = Stages::new(Arc::clone(config), *id, agreement, service, randomness);
        Self {
            core: Box::new(core),
            out: Output::default(),
            inputs: VecDeque::new(),
            sides: vec![Side::Both; usize::from(config.replicas)],
            drawn: false,
        }
    }

    /// Peers are divided up once and change sides now and then.
    fn draw(&mut self, scene: &mut Scene<'_>) {
        if self.drawn && !scene.random.chance(500) {
            return;
        }
        self.drawn = true;
        for (peer, side) in self.sides.iter_mut().enumerate() {
            *side = match scene.random.below(5) {
                0 => Side::Both,
                1 | 2 if peer % 2 == 0 => Side::First,
                1 | 2 => Side::Second,
                3 => Side::First,
                _ => Side::Second,
            };
        }
        // If one side is empty, there is only one core.
        let own = usize::from(scene.replica.0);
        let others: Vec<usize> = (0..self.sides.len()).filter(|p| *p != own).collect();
        self.sides[others[0]] = Side::First;
        self.sides[others[others.len() - 1]] = Side::Second;
    }

    fn side(&self, peer: ReplicaId) -> Side {
        self.sides[usize::from(peer.0)]
    }

    fn run(&mut self, scene: &mut Scene<'_>) {
        self.core.set_wall_clock(scene.clock);
        for _ in 0..400 {
            match self.inputs.pop_front() {
                Some(input) => self.core.handle(input, scene.now, &mut self.out),
                None => {
                    self.core.flush(scene.now, &mut self.out);
                    self.core.state.work(scene.now, 8, &mut self.out);
                    if self.out.is_empty() {
                        break;
                    }
                }
            }
            self.inputs.extend(self.out.inputs.drain(..));
            for effect in self.out.network.drain(..) {
                if let Network::Send { to, message, .. } = effect {
                    let peers: Vec<ReplicaId> =
                        scene.peers().filter(|peer| to.reaches(scene.replica, *peer)).collect();
                    for peer in peers {
                        if self.sides[usize::from(peer.0)] != Side::First {
                            scene.send(peer, message.clone());
                        }
                    }
                }
            }
            // Clients hear of the first core only. Refusals of TrInX stop a correct replica.
            self.out.replies.clear();
            self.out.rejections.clear();
            self.out.fatal = None;
        }
    }
}

impl Host for Twin {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        self.draw(scene);
        if self.side(leaving.to) != Side::Second {
            send.push(leaving);
        }
    }

    fn incoming(
        &mut self,
        scene: &mut Scene<'_>,
        from: ReplicaId,
        message: Bytes,
    ) -> Option<Bytes> {
        self.draw(scene);
        let side = self.side(from);
        if side != Side::First
            && let Some(input) = route_peer_message(from, message.clone(), scene.group)
        {
            self.inputs.push_back(input);
            self.run(scene);
        }
        (side != Side::Second).then_some(message)
    }

    fn request(
        &mut self,
        scene: &mut Scene<'_>,
        link: ClientLink,
        message: Bytes,
    ) -> Option<Bytes> {
        let lot = scene.random.below(3);
        if lot > 0
            && let Some(input) = route_client_message(link, message.clone())
        {
            self.inputs.push_back(input);
            self.run(scene);
        }
        (lot < 2).then_some(message)
    }

    fn ticks(&self) -> bool {
        true
    }

    fn tick(&mut self, scene: &mut Scene<'_>) {
        self.core.set_wall_clock(scene.clock);
        if self.core.deadline().is_some_and(|at| at <= scene.now) {
            self.core.tick(scene.now, &mut self.out);
        }
        self.run(scene);
    }
}
