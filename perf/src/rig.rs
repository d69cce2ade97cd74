//! A group and its client on one thread.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hybster_proto::client::{ClientCore, ClientOutput, Outcome, RequestKind};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::{Network, Output, route_client_message, route_peer_message};
use hybster_proto::service::Service;
use hybster_proto::time::Time;
use hybster_proto::wire::ReplyEntry;
use hybster_proto::wire::reply::{append, begin};

use crate::fixture::{Fixture, LINK};
use crate::host::{Host, Place, Probe};

/// Time that passes with each round.
const ROUND_US: u64 = 10;

/// All replicas of a group and one client with many sessions, joined by queues.
pub struct Rig<S: Service> {
    config: Arc<GroupConfig>,
    hosts: Vec<Host<S>>,
    client: ClientCore,
    client_out: ClientOutput,
    wire: VecDeque<(usize, usize, Bytes)>,
    /// Where the client's messages are received into.
    block: BytesMut,
    /// Per replica the REPLIES message under construction.
    replies: Vec<Vec<u8>>,
    now: Time,
}

impl<S: Service> Rig<S> {
    /// A group at rest, and a client with this many sessions.
    #[must_use]
    pub fn new(fixture: &Fixture, sessions: u32, mut service: impl FnMut() -> S) -> Self {
        let config = fixture.config.clone();
        let replicas = config.all_replicas();
        let hosts = replicas
            .map(|r| Host::new(usize::from(r.0), fixture.stages(r, service())))
            .collect::<Vec<_>>();
        let key = fixture.request_key();
        Self {
            client: ClientCore::new(
                config.clone(),
                LINK.client,
                key,
                LINK.incarnation,
                sessions,
                1,
            ),
            client_out: ClientOutput::new(config.replicas),
            wire: VecDeque::new(),
            block: BytesMut::with_capacity(1 << 20),
            replies: hosts.iter().map(|_| Vec::new()).collect(),
            hosts,
            config,
            now: Time(1),
        }
    }

    /// The replicas.
    #[must_use]
    pub fn hosts(&self) -> &[Host<S>] {
        &self.hosts
    }

    /// Submits one operation in each of the first `sessions` sessions, and delivers messages until
    /// all are answered. Returns the number of completed operations.
    ///
    /// # Panics
    /// If an operation fails, or none can be submitted.
    pub fn round(&mut self, sessions: u32, operation: &[u8], probe: &mut impl Probe) -> usize {
        self.now = self.now.after_us(ROUND_US);
        for session in 0..sessions {
            probe.enter(Place::Submit);
            let submitted = self.client.submit(
                session,
                operation,
                RequestKind::Ordered,
                self.now,
                &mut self.client_out,
            );
            probe.leave();
            submitted.expect("the session is idle");
        }
        self.send_requests(probe);
        while let Some((from, to, message)) = self.wire.pop_front() {
            let from = ReplicaId(from as u16);
            let input = route_peer_message(from, message, &self.config);
            self.hosts[to].take(input.expect("a known kind"), self.now, probe);
            self.deliver(to);
        }
        self.take_replies(probe);
        let completions = &self.client_out.completions;
        assert!(completions.iter().all(|c| c.outcome == Outcome::Done), "an operation failed");
        let count = completions.len();
        self.client_out.completions.clear();
        count
    }

    fn send_requests(&mut self, probe: &mut impl Probe) {
        probe.enter(Place::Submit);
        let outgoing = self.client.outgoing(&mut self.client_out);
        probe.leave();
        let mut inputs = Vec::new();
        for (replica, message) in outgoing {
            self.block.extend_from_slice(message);
            let input = route_client_message(LINK, self.block.split().freeze());
            inputs.push((usize::from(replica.0), input.expect("a known kind")));
        }
        for (replica, input) in inputs {
            self.hosts[replica].take(input, self.now, probe);
            self.deliver(replica);
        }
        self.client_out.clear_messages();
    }

    /// Puts what a replica sends on the wire.
    fn deliver(&mut self, replica: usize) {
        let Output { network, replies, rejections, .. } = &mut self.hosts[replica].out;
        rejections.clear();
        for effect in network.drain(..) {
            let Network::Send { to, message, .. } = effect else { continue };
            for peer in 0..self.replies.len() {
                if to.reaches(ReplicaId(replica as u16), ReplicaId(peer as u16)) {
                    self.wire.push_back((replica, peer, message.clone()));
                }
            }
        }
        let message = &mut self.replies[replica];
        for reply in replies.iter() {
            if message.is_empty() {
                begin(message, ReplicaId(replica as u16), reply.view);
            }
            let (index, tag, number) = (reply.session.index(), reply.tag, reply.number);
            let (status, result) = (reply.status, reply.result);
            append(message, &ReplyEntry { index, tag, number, status, result });
        }
        replies.clear();
    }

    fn take_replies(&mut self, probe: &mut impl Probe) {
        for (replica, message) in self.replies.iter_mut().enumerate() {
            if !message.is_empty() {
                let from = ReplicaId(replica as u16);
                probe.enter(Place::Accept);
                self.client.handle(from, message, self.now, &mut self.client_out);
                probe.leave();
                message.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hybster::services::NullService;

    use super::*;

    #[test]
    fn every_round_completes_and_all_replicas_execute_the_same() {
        for pillars in [1, 2, 4] {
            let fixture = Fixture::of_three(pillars, 16);
            let mut rig = Rig::new(&fixture, 40, || NullService::new(0));
            for round in 0..400 {
                assert_eq!(rig.round(1 + round % 40, b"op", &mut ()), 1 + round as usize % 40);
            }
            let status = rig.hosts().iter().map(|h| h.stages.execution.status());
            let requests: Vec<_> = status.map(|s| (s.requests, s.executed)).collect();
            assert_eq!(requests[0].0, (0..400u64).map(|r| 1 + r % 40).sum::<u64>());
            assert!(requests.iter().all(|r| *r == requests[0]), "{requests:?}");
        }
    }
}
