//! The stable checkpoint, and help for who lacks it or the view: to this replica and from it.

use super::{Control, STABLE_CLAIMS};
use crate::ids::{OrderNumber, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::{Destination, Output, Reject, SendTag};
use crate::pbft::stable::Stable;
use crate::pbft::wire::help::{encode_stable, parse_stable};
use crate::pbft::wire::kind;
use crate::time::Time;
use crate::wire::state::StateRequest;

impl Control {
    /// A checkpoint is stable. The window moves now if execution is there or `jump` says so.
    pub(super) fn learn_stable(&mut self, stable: Stable, jump: bool, now: Time, out: &mut Output) {
        self.catch_up.learn(stable, jump, self.stable_view, now, out);
        let order = self.catch_up.highest().id.order;
        for claims in &mut self.claims {
            claims.retain(|of, _| *of > order);
        }
    }

    /// A STABLE message. What f+1 peers say is stable is, as one of them is correct.
    pub(super) fn stable_claim(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        now: Time,
        out: &mut Output,
    ) -> Result<(), Reject> {
        let id = parse_stable(message, &self.config)?;
        if id.order <= self.catch_up.highest().id.order {
            return Err(Reject::Irrelevant);
        }
        let claims = self.claims.get_mut(usize::from(from.0)).ok_or(Reject::WrongSender)?;
        claims.entry(id.order).or_insert(id);
        while claims.len() > STABLE_CLAIMS {
            claims.pop_first();
        }
        let by = self.config.all_replicas().zip(&self.claims);
        let by = by.filter(|(_, claims)| claims.get(&id.order) == Some(&id));
        let voters: crate::ids::Peers = by.map(|(replica, _)| replica).collect();
        let weak =
            if mutants::active(Mutant::PbftStableByOne) { 1 } else { self.config.acknowledging() };
        if voters.len() >= weak {
            self.learn_stable(Stable { id, voters }, false, now, out);
        }
        Ok(())
    }

    // ------------------------------------------------------------------ asking and helping

    fn own_request(&self) -> StateRequest {
        StateRequest {
            latest: self.stable_view,
            current: self.current,
            stable: self.catch_up.stable().id.order,
        }
    }

    /// Asks all peers for what this replica lacks, at a limited rate.
    pub(super) fn ask_state(&mut self, now: Time, out: &mut Output) {
        if self.catch_up.may_ask(now) {
            let message = self.own_request().encode_as(kind::STATE_REQUEST);
            out.send(Destination::AllPeers, message, SendTag::Transient);
            self.catch_up.renew_transfer(out);
        }
    }

    /// After entering a view: peers may have gone on already.
    pub(super) fn ask_if_behind(&mut self, now: Time, out: &mut Output) {
        if self.catch_up.is_behind() {
            self.ask_state(now, out);
        }
    }

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

    /// Sends a peer what it seems to lack, at a limited rate.
    pub(super) fn help(&mut self, peer: ReplicaId, now: Time, out: &mut Output) {
        if !self.catch_up.may_help(peer, now) {
            return;
        }
        let to = Destination::Peer(peer);
        let stable = self.catch_up.stable().id;
        if stable.order > OrderNumber(0) {
            out.send(to, encode_stable(&stable), SendTag::Transient);
        }
        if let Some(new_view) = &self.established {
            out.send(to, new_view.clone(), SendTag::NewView(self.stable_view));
        }
        // Its NEW-VIEW may be there already, and lack the word of others for what it rests on.
        if let Some(ack) = self.messages.own_ack(self.id, self.stable_view) {
            out.send(to, ack.encode(), SendTag::NewView(self.stable_view));
        }
        self.send_own_view_messages(to, out);
    }

    /// This replica's VIEW-CHANGE and acknowledgements while a view change is under way.
    fn send_own_view_messages(&self, to: Destination, out: &mut Output) {
        if self.is_stable() {
            return;
        }
        let tag = SendTag::ViewChange(self.current);
        if let Some(kept) = self.messages.change(self.id, self.current) {
            out.send(to, kept.change.encode(), tag);
        }
        if let Some(ack) = self.messages.own_ack(self.id, self.current) {
            out.send(to, ack.encode(), tag);
        }
    }

    /// While no view is stable, everything is sent again periodically.
    pub(super) fn resend(&mut self, now: Time, out: &mut Output) {
        self.send_own_view_messages(Destination::AllPeers, out);
        self.ask_state(now, out);
    }

    /// The link to a peer is up (again): tell it what this replica has.
    pub(super) fn peer_up(&mut self, peer: ReplicaId, out: &mut Output) {
        let to = Destination::Peer(peer);
        out.send(to, self.own_request().encode_as(kind::STATE_REQUEST), SendTag::Transient);
        self.send_own_view_messages(to, out);
    }
}
