//! A replica is lost, and another one takes its place: the change is ordered, the epoch ends, and all begin the next one
//! (`engine/proto/EPOCHS.md`).

use std::sync::Arc;

use bytes::Bytes;

use hybster_proto::epochs::{EpochMessage, encode_epoch_request, parse_epoch_request};
use hybster_proto::hybster::next_epoch;
use hybster_proto::ids::{PillarId, ReplicaId, RequestNumber, SessionId};
use hybster_proto::membership::{NextConfiguration, reconfig};
use hybster_proto::output::{ClientLink, Input, ToControl, ToPillar, route_client_message};
use hybster_proto::wire::request::{append_proved, requests_head};
use hybster_proto::wire::{kind, kind_of};
use hybster_tss::Life;

use crate::agenda::Event;
use crate::keys::{administrator, administrators_key};
use crate::replica::Stage;
use crate::scenario::Replacement;
use crate::world::{What, World};

impl World {
    /// The host of the replica that is replaced is lost: its memory, its disk and its trusted counters. Later another one is
    /// started in its place.
    pub(crate) fn lose(&mut self) {
        let Some(plan) = self.scenario.replacement else { return };
        let index = usize::from(plan.replica);
        self.remember(index, || What::Suffered("its host is lost".into()));
        let replica = &mut self.replicas[index];
        replica.crashed = true;
        replica.joins_as = Some(Life(plan.life));
        self.schedule(self.now_us + self.config.resend_us, Event::Join(index));
    }

    /// The administrator sends the change to all replicas, and again until all live ones have gone on.
    pub(crate) fn order_change(&mut self, which: usize) {
        let Some(plan) = self.scenario.replacement else { return };
        let is_over = |index: &usize| {
            let replica = &self.replicas[*index];
            replica.crashed || replica.config.epoch > self.config.epoch
        };
        if (0..self.replicas.len()).all(|index| is_over(&index)) {
            return;
        }
        let link = ClientLink { client: administrator(&self.config).client, incarnation: 1 };
        let Some(life) = [Some(plan.life), plan.other_life][which] else { return };
        let message = self.change(&plan, life, which as u32, link);
        for index in 0..self.replicas.len() {
            let replica = &self.replicas[index];
            if !replica.crashed && !replica.paused {
                let input = route_client_message(link, message.clone());
                self.take_in(index, input);
            }
        }
        self.schedule(self.now_us + 4 * self.config.resend_us, Event::Order(which));
    }

    /// A message with a change that the administrator has signed.
    fn change(&self, plan: &Replacement, life: u64, session: u32, link: ClientLink) -> Bytes {
        let next = NextConfiguration::replacing(
            &self.config,
            ReplicaId(plan.replica),
            Life(life),
            Bytes::from_static(b"elsewhere"),
        );
        let operation = reconfig(&self.config, &next, &administrators_key());
        let mut message = Vec::from(requests_head(kind::REQUESTS));
        let session = SessionId::new(link.client, link.incarnation, session);
        let key = self.keys.client(&self.config, link.client.0);
        append_proved(&mut message, session, RequestNumber(1), &operation, &key);
        message.into()
    }

    /// A replica that waits for the next epoch asks for it.
    pub(crate) fn join(&mut self, index: usize) {
        let replica = &self.replicas[index];
        let waits = replica.joins_as.is_some() || (replica.ended.is_some() && !replica.crashed);
        if !waits {
            return;
        }
        let question = encode_epoch_request(replica.config.epoch);
        for peer in (0..self.replicas.len()).filter(|peer| *peer != index) {
            self.transmit(index, peer, question.clone());
        }
        self.schedule(self.now_us + self.config.resend_us, Event::Join(index));
    }

    /// Whether a message that arrives at a replica is about epochs, or of another one: then no stage gets it.
    pub(crate) fn is_of_another_epoch(
        &mut self,
        from: usize,
        to: usize,
        epoch: u32,
        message: &Bytes,
    ) -> bool {
        if from >= self.replicas.len() {
            return false;
        }
        let peer = ReplicaId(from as u16);
        let now = self.replicas[to].clock.local(self.now_us);
        let replica = &mut self.replicas[to];
        let own = replica.config.epoch;
        if kind_of(message) == kind::EPOCH {
            if !replica.crashed || replica.joins_as.is_some() {
                self.learn_end(to, message);
            }
            return true;
        }
        if replica.crashed {
            return true;
        }
        let asked = match kind_of(message) {
            kind::EPOCH_REQUEST => parse_epoch_request(message).ok(),
            _ => (epoch != own).then_some(epoch),
        };
        let Some(of) = asked else { return false };
        if of < own {
            if let Some(answer) = replica.epochs.tell(peer, of, now) {
                self.counters.epochs_told += 1;
                self.transmit(to, from, answer);
            }
        } else if of > own && replica.epochs.may_ask(peer, now) {
            self.transmit(to, from, encode_epoch_request(own));
        }
        true
    }

    /// A peer says that this replica's epoch is over.
    fn learn_end(&mut self, index: usize, message: &Bytes) {
        let Ok(end) = EpochMessage::parse(message) else { return };
        if end.epoch == self.replicas[index].config.epoch {
            self.go_on(index, &end);
        }
    }

    /// A replica's epoch is over, as it has found out by itself: it goes on if it has the next configuration, else
    /// it asks for that.
    pub(crate) fn end_epoch(&mut self, index: usize) {
        let replica = &self.replicas[index];
        let Some(ended) = &replica.ended else { return };
        if replica.is_asking {
            return;
        }
        match replica.core.execution.next_configuration() {
            Some((_, next)) => {
                let (epoch, certificate) = (replica.config.epoch, ended.certificate.clone());
                self.go_on(index, &EpochMessage { epoch, certificate, next });
            }
            None => {
                self.replicas[index].is_asking = true;
                self.schedule(self.now_us, Event::Join(index));
            }
        }
    }

    /// Begins the next epoch, if this proves that the present one is over.
    fn go_on(&mut self, index: usize, end: &EpochMessage) {
        let replica = &self.replicas[index];
        let verifier = self.keys.verifier(&replica.config);
        let next = next_epoch(&verifier, &replica.config, &end.certificate, &end.next);
        let Ok(next) = next else { return };
        let of_next = next.life_of(replica.id);
        let other_life = self.scenario.replacement.and_then(|plan| plan.other_life).map(Life);
        match replica.joins_as {
            Some(life) if of_next != life && Some(of_next) != other_life => return,
            Some(_) => {}
            // It is not a member any more. A correct one stops; another one may go on, in no epoch that counts.
            None if of_next != replica.config.life_of(replica.id) => {
                let replica = &mut self.replicas[index];
                (replica.ended, replica.crashed) = (None, replica.crashed || replica.honest());
                return;
            }
            None => {}
        }
        let (next, before) = (Arc::new(next), replica.config.epoch);
        self.remember(index, || What::Suffered(format!("it begins epoch {}", next.epoch)));
        self.counters.epochs_begun += 1;
        let at = ReplicaId(index as u16);
        let now = self.replicas[index].clock.local(self.now_us);
        let Self { scenario, keys, ledger, replicas, .. } = self;
        replicas[index].epochs.ended(end);
        replicas[index].is_asking = false;
        let begun = replicas[index].begin(next.clone(), scenario, keys, ledger, now);
        let seen = match begun {
            Ok(seen) => seen,
            Err(story) => return self.violate(("epochs", story, vec![index as u16])),
        };
        if self.replicas[index].honest()
            && let Err(breach) = self.oracles.begun(at, before, &next, seen)
        {
            return self.violate(breach);
        }
        self.drain(index, Stage::Execution);
        let replica = &mut self.replicas[index];
        replica.core.resume_control(now, &mut replica.out);
        self.drain(index, Stage::Control);
        for pillar in next.all_pillars() {
            let replica = &mut self.replicas[index];
            replica.core.resume_pillar(pillar, now, &mut replica.out);
            self.drain(index, Stage::Pillar(pillar));
        }
        self.link_epoch(index);
    }

    /// Links of a replica are made again: with peers that are in its epoch, both sides say what they have.
    fn link_epoch(&mut self, index: usize) {
        let n = self.replicas.len();
        for end in (0..n + self.clients.len() + self.rogues.len()).filter(|end| *end != index) {
            self.egress_up(index, end);
        }
        let epoch = self.replicas[index].config.epoch;
        for peer in (0..n).filter(|peer| *peer != index) {
            let other = &self.replicas[peer];
            if other.crashed || other.config.epoch != epoch {
                continue;
            }
            for (at, of) in [(index, peer), (peer, index)] {
                let of = ReplicaId(of as u16);
                for pillar in 0..self.config.pillars {
                    let input = Input::Pillar(PillarId(pillar), ToPillar::PeerUp(of));
                    self.replicas[at].post(Stage::Network, input);
                }
                let input = Input::Control(ToControl::PeerUp(of));
                self.replicas[at].post(Stage::Network, input);
                self.schedule_run(at, self.now_us);
            }
        }
        if self.replicas[index].hosts.iter().any(|host| host.ticks()) {
            self.schedule(self.now_us + self.config.resend_us, Event::Host(index));
        }
        self.schedule_run(index, self.now_us);
    }
}
