//! The stable checkpoint, and catching up: with a stable checkpoint that this replica did not
//! reach, with a view that it missed, and helping peers to do so (TR listings 18 and 20).
//!
//! A certificate of f+1 CHECKPOINTs suffices to move the window: at least one correct replica
//! holds the state. As long as the own execution stage is about to get there by itself, it is
//! given the time; otherwise the window jumps and the state is transferred.

use hybster_tss::{Digest, Verifier};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Control;
use crate::config::GroupConfig;
use crate::hybster::verify::verify_checkpoint_certificate;
use crate::ids::{OrderNumber, ReplicaId};
use crate::output::{
    Destination, Network, Output, Reject, SendTag, ToExecution, ToPillar, ToState, Watermark,
};
use crate::time::{Time, earliest};
use crate::trace::TraceEvent;
use crate::wire::state::{StateRequest, encode_state};
use crate::wire::{CheckpointCertificate, CheckpointId};

/// Waits for the own execution, in resend periods, before a state is transferred.
const PATIENCE: u64 = 4;

pub(super) struct CatchUp {
    stable: Arc<CheckpointCertificate>,
    /// The checkpoint that the parts of the last VIEW-CHANGE start from.
    left_with: Arc<CheckpointCertificate>,
    /// Own checkpoints from the stable one on.
    taken: BTreeMap<OrderNumber, Digest>,
    /// A stable checkpoint that was not reached yet, and since when nothing moved.
    ahead: Option<(CheckpointCertificate, Time)>,
    transferring: Option<CheckpointId>,
    diverged: bool,
    asked: Option<Time>,
    helped: Vec<Option<Time>>,
}

impl CatchUp {
    pub fn new(config: &GroupConfig) -> CatchUp {
        CatchUp {
            stable: Arc::default(),
            left_with: Arc::default(),
            taken: BTreeMap::new(),
            ahead: None,
            transferring: None,
            diverged: false,
            asked: None,
            helped: vec![None; usize::from(config.replicas)],
        }
    }

    pub fn stable(&self) -> &CheckpointCertificate {
        &self.stable
    }

    /// The stable checkpoint, remembered as the one that a VIEW-CHANGE's parts start from.
    pub fn shared_stable(&mut self) -> Arc<CheckpointCertificate> {
        self.left_with = Arc::clone(&self.stable);
        Arc::clone(&self.stable)
    }

    pub fn left_with(&self) -> &CheckpointCertificate {
        &self.left_with
    }

    pub fn is_transferring(&self) -> bool {
        self.transferring.is_some()
    }

    pub fn is_diverged(&self) -> bool {
        self.diverged
    }

    pub fn deadline(&self, config: &GroupConfig) -> Option<Time> {
        let patience = PATIENCE * config.resend_us;
        earliest(self.ahead.as_ref().map(|(_, since)| since.after_us(patience)), None)
    }
}

#[cfg(feature = "model")]
impl CatchUp {
    pub fn fingerprint(&self, into: &mut crate::fingerprint::Fingerprint) {
        use super::fingerprint::certificate_into;
        let CatchUp {
            stable,
            left_with,
            taken,
            ahead,
            transferring,
            diverged,
            asked: _,
            helped: _,
        } = self;
        certificate_into(stable, into);
        certificate_into(left_with, into);
        into.number(taken.len() as u64);
        for (order, digest) in taken {
            into.number(order.0);
            into.bytes(&digest.0);
        }
        into.flag(ahead.is_some());
        if let Some((certificate, _)) = ahead {
            certificate_into(certificate, into);
        }
        into.number(transferring.map_or(0, |id| id.order.0));
        into.flag(*diverged);
    }
}

impl<V: Verifier> Control<V> {
    /// A certificate that came in a STATE message.
    pub(super) fn learn_certificate(
        &mut self,
        certificate: CheckpointCertificate,
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        if certificate.id.order <= self.catch_up.stable.id.order {
            return Err(Reject::Irrelevant);
        }
        verify_checkpoint_certificate(&self.verifier, &self.config, &certificate)?;
        self.learn_stable(certificate, false, now, out);
        Ok(())
    }

    /// A verified certificate: move the window now if the own execution is there or `jump` says
    /// so, else wait a little for the own execution.
    pub(super) fn learn_stable(
        &mut self,
        certificate: CheckpointCertificate,
        jump: bool,
        now: Time,
        out: &mut Output,
    ) {
        let order = certificate.id.order;
        if order <= self.catch_up.stable.id.order {
            return;
        }
        match self.catch_up.taken.get(&order) {
            Some(own) if *own == certificate.id.digest => self.forward(certificate, now, out),
            Some(_) => self.diverge(certificate, now, out),
            None if jump || self.catch_up.diverged => self.jump(certificate, now, out),
            None => {
                let ahead = &mut self.catch_up.ahead;
                if ahead.as_ref().is_none_or(|(known, _)| known.id.order < order) {
                    let since = ahead.as_ref().map_or(now, |(_, since)| *since);
                    *ahead = Some((certificate, since));
                }
            }
        }
    }

    /// TR listing 18, forwardWindow.
    fn forward(&mut self, certificate: CheckpointCertificate, now: Time, out: &mut Output) {
        let id = certificate.id;
        let catch_up = &mut self.catch_up;
        catch_up.stable = Arc::new(certificate);
        catch_up.taken = catch_up.taken.split_off(&id.order);
        catch_up.ahead.take_if(|(known, _)| known.id.order <= id.order);
        if let Some((_, since)) = &mut catch_up.ahead {
            *since = now;
        }
        out.trace(|| TraceEvent::CheckpointStable(id));
        for pillar in self.config.all_pillars() {
            out.pillar(pillar, ToPillar::ForwardWindow { to: id.order });
        }
        out.state(ToState::Stable(id));
        let mark = Watermark { order: id.order, view: self.stable_view };
        out.network.push(Network::Withdraw(mark));
    }

    /// The window moves to a checkpoint that the own execution did not reach.
    fn jump(&mut self, certificate: CheckpointCertificate, now: Time, out: &mut Output) {
        let id = certificate.id;
        self.forward(certificate, now, out);
        self.transfer(id, out);
    }

    fn transfer(&mut self, id: CheckpointId, out: &mut Output) {
        self.catch_up.transferring = Some(id);
        let whole = self.catch_up.diverged;
        out.state(ToState::Transfer { id, whole });
    }

    /// The own state differs from what f+1 replicas vouch for: it is replaced.
    fn diverge(&mut self, certificate: CheckpointCertificate, now: Time, out: &mut Output) {
        let id = certificate.id;
        out.trace(|| TraceEvent::Diverged(id));
        self.catch_up.diverged = true;
        self.catch_up.taken.clear();
        out.execution(ToExecution::Halt);
        self.jump(certificate, now, out);
    }

    /// The own execution digested a checkpoint.
    pub(super) fn checkpoint_taken(&mut self, id: CheckpointId, now: Time, out: &mut Output) {
        let stable = self.catch_up.stable.id;
        if self.catch_up.diverged {
            return;
        }
        self.catch_up.transferring.take_if(|target| target.order <= id.order);
        if id.order < stable.order {
            return;
        }
        if id.order == stable.order {
            if id.digest != stable.digest {
                let certificate = CheckpointCertificate::clone(&self.catch_up.stable);
                self.diverge(certificate, now, out);
            }
            self.catch_up.taken.insert(id.order, id.digest);
            return;
        }
        self.catch_up.taken.insert(id.order, id.digest);
        let Some((known, since)) = &mut self.catch_up.ahead else {
            return;
        };
        if known.id.order > id.order {
            // Execution moves on: give it more time.
            *since = now;
        } else if let Some((certificate, _)) = self.catch_up.ahead.take() {
            self.learn_stable(certificate, false, now, out);
        }
    }

    /// A transferred state runs now.
    pub(super) fn installed(&mut self, id: CheckpointId, _now: Time, out: &mut Output) {
        self.catch_up.diverged = false;
        self.catch_up.transferring = None;
        let stable = self.catch_up.stable.id;
        if stable.order > id.order {
            // Meanwhile the group moved on; what differs is less than before.
            self.transfer(stable, out);
        }
    }

    pub(super) fn tick_catch_up(&mut self, now: Time, out: &mut Output) {
        let patience = PATIENCE * self.config.resend_us;
        let due = |(_, since): &mut (CheckpointCertificate, Time)| now.since_us(*since) >= patience;
        if let Some((certificate, _)) = self.catch_up.ahead.take_if(due) {
            self.jump(certificate, now, out);
        }
    }

    // ------------------------------------------------------------------ asking and helping

    fn own_request(&self) -> StateRequest {
        StateRequest {
            latest: self.stable_view,
            current: self.current,
            stable: self.catch_up.stable.id.order,
        }
    }

    /// TR listing 20, requestState, at a limited rate.
    pub(super) fn ask_state(&mut self, now: Time, out: &mut Output) {
        let due = |at: Time| now.since_us(at) >= self.config.resend_us;
        if self.catch_up.asked.is_none_or(due) {
            self.catch_up.asked = Some(now);
            let message = self.own_request().encode();
            out.send(Destination::AllPeers, message, SendTag::Transient);
            // A transfer whose holders have moved on is started again.
            if let Some(id) = self.catch_up.transferring {
                let stable = self.catch_up.stable.id;
                let target = if stable.order > id.order { stable } else { id };
                self.transfer(target, out);
            }
        }
    }

    /// After entering a view: peers may have gone on already.
    pub(super) fn ask_if_behind(&mut self, now: Time, out: &mut Output) {
        if self.catch_up.ahead.is_some() || !self.is_stable() {
            self.ask_state(now, out);
        }
    }

    /// TR listing 20, receive(STATE-REQUEST).
    pub(super) fn state_request(
        &mut self,
        from: ReplicaId,
        request: &StateRequest,
        now: Time,
        out: &mut Output,
    ) {
        if request.latest > self.stable_view || request.stable > self.catch_up.stable.id.order {
            self.ask_state(now, out);
        }
        let behind = request.latest < self.stable_view
            || request.stable < self.catch_up.stable.id.order
            || (!self.is_stable() && request.current <= self.current);
        if behind {
            self.help(from, now, out);
        }
    }

    /// Sends a peer what it seems to lack, at a limited rate (TR listing 20, obtainState; the
    /// messages travel on their own).
    pub(super) fn help(&mut self, peer: ReplicaId, now: Time, out: &mut Output) {
        let Some(helped) = self.catch_up.helped.get_mut(usize::from(peer.0)) else {
            return;
        };
        if helped.is_some_and(|at| now.since_us(at) < self.config.resend_us / 2) {
            return;
        }
        *helped = Some(now);
        let to = Destination::Peer(peer);
        let ahead = self.catch_up.ahead.as_ref().map(|(certificate, _)| certificate);
        let certificate = ahead.unwrap_or(&self.catch_up.stable);
        if certificate.id.order > OrderNumber(0) {
            out.send(to, encode_state(certificate), SendTag::Transient);
        }
        if let Some(new_view) = &self.established {
            out.send(to, new_view.encode(), SendTag::NewView(new_view.view));
        }
        self.send_own_view_messages(to, out);
        self.relay_changes(peer, out);
    }

    /// VIEW-CHANGEs of others for the current view or later ones: the peer may lack those that
    /// brought this replica here, and would follow for ever (Byzantine seed 5313).
    fn relay_changes(&self, peer: ReplicaId, out: &mut Output) {
        if self.is_stable() {
            return;
        }
        for change in self.messages.changes_from(self.current) {
            if change.sender != peer && change.sender != self.id {
                let tag = SendTag::ViewChange(change.to);
                out.send(Destination::Peer(peer), change.encode(), tag);
            }
        }
    }

    /// The own VIEW-CHANGE and NEW-VIEW-ACK while a view change is under way.
    fn send_own_view_messages(&self, to: Destination, out: &mut Output) {
        if self.is_stable() {
            return;
        }
        if let Some(change) = self.messages.change(self.id, self.current) {
            out.send(to, change.encode(), SendTag::ViewChange(self.current));
        }
        if let Some(ack) = &self.own_ack {
            out.send(to, ack.encode(), SendTag::NewView(ack.view));
        }
    }

    /// TR listings 9 and 20: while no view is stable, everything is sent again periodically.
    pub(super) fn resend(&mut self, now: Time, out: &mut Output) {
        self.send_own_view_messages(Destination::AllPeers, out);
        self.ask_state(now, out);
    }

    /// The link to a peer is up (again): tell it what this replica has.
    pub(super) fn peer_up(&mut self, peer: ReplicaId, out: &mut Output) {
        let to = Destination::Peer(peer);
        out.send(to, self.own_request().encode(), SendTag::Transient);
        self.send_own_view_messages(to, out);
    }
}
