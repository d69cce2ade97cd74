//! Catching up: with a stable checkpoint that this replica did not reach, with a view that it missed,
//! and helping peers to do so (TR listings 18 and 20).

use bytes::Bytes;
use hybster_tss::Verifier;

use super::Control;
use crate::hybster::record;
use crate::hybster::verify::verify_checkpoint_certificate;
use crate::hybster::wire::checkpoint::{CheckpointCertificate, encode_state};
use crate::ids::{OrderNumber, Peers, ReplicaId};
use crate::output::{Destination, LogRecord, Output, Reject, SendTag};
use crate::shared::catch_up::Evidence;
use crate::time::Time;
use crate::wire::CheckpointId;
use crate::wire::state::StateRequest;

/// f+1 CHECKPOINTs with transferable proofs.
impl Evidence for CheckpointCertificate {
    fn id(&self) -> CheckpointId {
        self.id
    }

    fn voters(&self) -> Peers {
        self.votes.iter().map(|(voter, _)| *voter).collect()
    }

    fn record(&self) -> LogRecord {
        record::stable(self)
    }

    fn message(&self) -> Option<Bytes> {
        Some(encode_state(self))
    }

    fn boundary(&self) -> Option<OrderNumber> {
        Self::boundary(self)
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
        if certificate.id.order <= self.catch_up.stable().id.order {
            return Err(Reject::Irrelevant);
        }
        verify_checkpoint_certificate(&self.verifier, &self.config, &certificate)?;
        self.learn_stable(certificate, false, now, out);
        Ok(())
    }

    /// A verified certificate: move the window now if this replica's execution is there or `jump`
    /// says so, else wait a little for it.
    pub(super) fn learn_stable(
        &mut self,
        certificate: CheckpointCertificate,
        jump: bool,
        now: Time,
        out: &mut Output,
    ) {
        self.catch_up.learn(certificate, jump, self.stable_view, now, out);
    }

    // ------------------------------------------------------------------ asking and helping

    fn own_request(&self) -> StateRequest {
        StateRequest {
            latest: self.stable_view,
            current: self.current,
            stable: self.catch_up.stable().id.order,
        }
    }

    /// TR listing 20, requestState, at a limited rate.
    pub(super) fn ask_state(&mut self, now: Time, out: &mut Output) {
        if self.catch_up.may_ask(now) {
            let message = self.own_request().encode();
            out.send(Destination::AllPeers, message, SendTag::Transient);
            self.catch_up.renew_transfer(out);
        }
    }

    /// After entering a view: peers may have gone on already.
    pub(super) fn ask_if_behind(&mut self, now: Time, out: &mut Output) {
        if self.catch_up.is_behind() || !self.is_stable() {
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
        if request.latest > self.stable_view || request.stable > self.catch_up.stable().id.order {
            self.ask_state(now, out);
        }
        let behind = request.latest < self.stable_view
            || request.stable < self.catch_up.stable().id.order
            || (!self.is_stable() && request.current <= self.current);
        if behind {
            self.help(from, now, out);
        }
    }

    /// Sends a peer what it seems to lack, at a limited rate (TR listing 20, obtainState; there
    /// they are one message, here each is sent by itself: DEVIATIONS 10).
    pub(super) fn help(&mut self, peer: ReplicaId, now: Time, out: &mut Output) {
        if !self.catch_up.may_help(peer, now) {
            return;
        }
        let to = Destination::Peer(peer);
        let certificate = self.catch_up.highest();
        if !certificate.votes.is_empty() {
            out.send(to, encode_state(certificate), SendTag::Transient);
        }
        if let Some(new_view) = &self.established {
            out.send(to, new_view.encode(), SendTag::NewView(new_view.view));
        }
        self.send_own_view_messages(to, out);
        self.relay_changes(peer, out);
    }

    /// VIEW-CHANGEs of others for the current view or later ones: the peer may lack those that
    /// brought this replica here, and would stay behind for ever (Byzantine seed 5313).
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

    /// This replica's VIEW-CHANGE and NEW-VIEW-ACK while a view change is under way.
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
