//! A small group on a perfect network, message by message: what the simulator cannot steer to.

use bytes::Bytes;
use hybster_proto::hybster::Hybster;
use hybster_proto::ids::{
    ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use hybster_proto::internals::{Commit, LastSeen, PillarInput, PrepareHeader};
use hybster_proto::output::{
    Answerer, ClientLink, Destination, Input, Network, Output, SendTag, ToControl, ToIntake,
    ToPillar, route_client_message, route_peer_message,
};
use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::help::OrderRequest;
use hybster_proto::wire::request::{
    REQUESTS_HEAD, append_proved, requests_head, retransmission_head,
};
use hybster_proto::wire::{ReplyStatus, Requests, kind, kind_of};
use hybster_proto::{GroupConfig, Stages, Time};
use hybster_tss::{
    ClientPublicKeys, ClientSigningKey, CounterValue, Digest, GroupKey, InProcessTrInX,
    InProcessVerifier, Proof, RandomnessKey, RequestAuthenticator, RequestKey,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Appends what it executes to its state, and replies with the number of operations.
#[derive(Default)]
struct Journal(Vec<u8>);

impl Service for Journal {
    fn execute(&mut self, _: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        self.0.extend_from_slice(operation);
        reply.extend_from_slice(&(self.0.len() as u64).to_le_bytes());
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages(vec![self.0.clone().into()]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.0 = source.page(0).to_vec();
        Ok(())
    }
}

type Core = Hybster<InProcessTrInX, InProcessVerifier>;

struct Group {
    config: Arc<GroupConfig>,
    replicas: Vec<Stages<Core, Journal>>,
    client: RequestKey,
    network: VecDeque<(usize, usize, Bytes)>,
    replies: Vec<(usize, RequestNumber, ReplyStatus)>,
    trace: Vec<(usize, TraceEvent)>,
    /// Clients whose links replicas closed.
    closed: Vec<(usize, ClientLink)>,
    /// To whom PREPAREs went.
    prepares_to: Vec<Destination>,
    /// Pillars that were told whom to ask first.
    told: Vec<PillarId>,
    /// Peers that messages neither reach nor leave.
    cut_off: Vec<usize>,
    now: Time,
}

const LINK: ClientLink = ClientLink { client: ClientId(3), incarnation: 77 };

impl Group {
    fn new(pillars: u16) -> Self {
        Self::proving(pillars, RequestAuthenticator::Mac)
    }

    fn proving(pillars: u16, request_authenticator: RequestAuthenticator) -> Self {
        let config = Arc::new(GroupConfig {
            pillars,
            request_authenticator,
            window: 8 * u64::from(pillars),
            checkpoint_interval: 4 * u64::from(pillars),
            batch_max_requests: 4,
            ..GroupConfig::default()
        });
        config.validate().unwrap();
        let key = GroupKey::from_bytes([9; 32]);
        let (digest, mac) = (config.digest(), config.mac);
        let client: RequestKey = match request_authenticator {
            RequestAuthenticator::Ed25519 => ClientSigningKey::from_bytes([8; 32]).into(),
            _ => key.client_key(mac, LINK.client.0).into(),
        };
        let replicas = config
            .all_replicas()
            .map(|r| {
                let trinx = config.all_pillars().map(|p| {
                    let instance = config.instance(r, p);
                    InProcessTrInX::new(&key, mac, digest, instance)
                });
                let verifier = || {
                    let verifier = InProcessVerifier::new(&key, mac, digest);
                    match client.public() {
                        Some(public) => {
                            let signers = ClientPublicKeys::new([(LINK.client.0, public)]);
                            verifier.with_signers(Arc::new(signers))
                        }
                        None => verifier,
                    }
                };
                let agreement = Hybster::agreement(&config, r, trinx.collect(), verifier);
                let randomness = RandomnessKey::new(&key, &digest);
                Stages::new(config.clone(), r, agreement, Journal::default(), randomness)
            })
            .collect();
        Self {
            client,
            config,
            replicas,
            network: VecDeque::new(),
            replies: Vec::new(),
            trace: Vec::new(),
            closed: Vec::new(),
            prepares_to: Vec::new(),
            told: Vec::new(),
            cut_off: Vec::new(),
            now: Time(1),
        }
    }

    /// A REQUESTS message with one request per number; forged ones carry a wrong proof.
    fn requests(&self, numbers: std::ops::Range<u64>, forged: bool) -> Bytes {
        let mut message = requests_head(kind::REQUESTS).to_vec();
        for number in numbers {
            let session = SessionId::new(LINK.client, LINK.incarnation, number as u32);
            let operation = [number as u8];
            append_proved(&mut message, session, RequestNumber(number), &operation, &self.client);
            let last = message.len() - 1;
            message[last] ^= u8::from(forged);
        }
        message.into()
    }

    fn client_sends(&mut self, replica: usize, message: Bytes) {
        let input = route_client_message(LINK, message).unwrap();
        self.run(replica, input);
    }

    /// Handles an input and all that follow from it inside the replica.
    fn run(&mut self, replica: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut out = Output { tracing: true, ..Output::default() };
        loop {
            let flushing = inputs.is_empty();
            match inputs.pop_front() {
                Some(input) => self.replicas[replica].handle(input, self.now, &mut out),
                None => self.replicas[replica].flush(self.now, &mut out),
            }
            self.replicas[replica].state.work(self.now, usize::MAX, &mut out);
            assert_eq!(out.fatal, None, "replica {replica}");
            for input in out.inputs.drain(..) {
                if let Input::Pillar(pillar, ToPillar::Hybster(PillarInput::AskFirst { .. })) =
                    input
                {
                    self.told.push(pillar);
                }
                inputs.push_back(input);
            }
            for effect in out.network.drain(..) {
                if let Network::CloseClient(link) = effect {
                    self.closed.push((replica, link));
                }
                let Network::Send { to, message, .. } = effect else { continue };
                if kind_of(&message) == kind::PREPARE {
                    self.prepares_to.push(to);
                }
                for peer in 0..self.replicas.len() {
                    if to.reaches(ReplicaId(replica as u16), ReplicaId(peer as u16)) {
                        self.network.push_back((replica, peer, message.clone()));
                    }
                }
            }
            self.replies.extend(out.replies.iter().map(|r| (replica, r.number, r.status)));
            out.replies.clear();
            self.trace.extend(out.trace.drain(..).map(|event| (replica, event)));
            if inputs.is_empty() && flushing {
                break;
            }
        }
    }

    /// Delivers messages until none is left.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some((from, to, message)) = self.network.pop_front() else { return };
            if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
                continue;
            }
            let from = ReplicaId(from as u16);
            let input = route_peer_message(from, message, &self.config).unwrap();
            self.run(to, input);
        }
        panic!("the group does not come to rest");
    }

    fn executed(&self, replica: usize) -> (OrderNumber, &[u8]) {
        let execution = &self.replicas[replica].execution;
        (execution.status().executed, &execution.service().0)
    }

    fn noops(&self) -> usize {
        let noop = |event: &TraceEvent| matches!(event, TraceEvent::Proposed { proposal, .. } if proposal.noop);
        self.trace.iter().filter(|(_, event)| noop(event)).count()
    }
}

#[test]
fn pillars_take_turns_and_need_no_noops() {
    for pillars in [1, 2, 4] {
        let mut group = Group::new(pillars);
        for number in 1..60 {
            group.client_sends(0, group.requests(number..number + 1, false));
            group.settle();
        }
        let expected: Vec<u8> = (1..60).collect();
        for replica in 0..3 {
            assert_eq!(group.executed(replica), (OrderNumber(59), &expected[..]), "P = {pillars}");
        }
        assert_eq!(group.noops(), 0);
        assert_eq!(group.replies.len(), 3 * 59);
    }
}

/// A forged request is cut out of the batch that it shares with others, in either form of proof, and
/// so is one with a right proof of the form that is not the group's.
#[test]
fn a_forged_request_does_no_harm_to_those_beside_it() {
    for form in RequestAuthenticator::ALL {
        let mut group = Group::proving(1, form);
        let mut message = group.requests(1..3, false).to_vec();
        message.extend_from_slice(&group.requests(3..4, true)[REQUESTS_HEAD..]);
        message.extend_from_slice(&group.requests(4..5, false)[REQUESTS_HEAD..]);
        group.client_sends(0, message.into());

        let other = RequestAuthenticator::ALL.into_iter().find(|other| *other != form).unwrap();
        group.client_sends(0, Group::proving(1, other).requests(5..6, false));
        group.settle();
        for replica in 0..3 {
            assert_eq!(group.executed(replica).1, [1, 2, 4], "{form}, replica {replica}");
        }
        // A follower looks before it keeps and forwards, too.
        group.client_sends(1, Group::proving(1, other).requests(6..7, false));
        group.client_sends(1, group.requests(7..8, true));
        group.client_sends(1, group.requests(8..9, false));
        assert_eq!(group.replicas[1].intake.stored(), 1);
    }
}

/// Who brings a forged request over its own link loses the link, at the leader and at a follower.
/// What peers forward in a client's name costs the client nothing, nor what others send.
#[test]
fn a_forged_request_costs_the_link_that_brought_it_and_no_other() {
    let mut group = Group::new(1);
    group.client_sends(0, group.requests(1..3, false));
    let forged = group.requests(3..6, true);
    assert!(group.closed.is_empty());
    group.client_sends(0, forged.clone());
    assert_eq!(group.closed, [(0, LINK)], "once for a batch");
    let mut again = forged.to_vec();
    again[..REQUESTS_HEAD].copy_from_slice(&retransmission_head());
    group.client_sends(0, again.into());
    group.client_sends(2, forged.clone());
    assert_eq!(group.closed, [(0, LINK), (0, LINK), (2, LINK)]);
    group.closed.clear();
    // A liar forwards it, to the leader and to a follower.
    for to in [0, 1] {
        let forwarded = route_peer_message(ReplicaId(2), forged.clone(), &group.config).unwrap();
        group.run(to, forwarded);
        group.settle();
    }
    // Another client sends it, and loses its own link.
    let other = ClientLink { client: ClientId(4), incarnation: 5 };
    group.run(0, route_client_message(other, forged.clone()).unwrap());
    // And so it does for what is no request.
    let garbage = Bytes::copy_from_slice(&forged[..forged.len() - 1]);
    group.run(1, route_client_message(other, garbage).unwrap());
    assert_eq!(group.closed, [(0, other), (1, other)]);
    assert_eq!(group.executed(0).1, [1, 2]);
}

/// A batch of forged requests gives its pillar nothing to propose; the pillar covers the gap with
/// one no-op, and what the others proposed meanwhile is executed.
#[test]
fn a_pillar_with_nothing_to_propose_covers_the_gap() {
    let mut group = Group::new(4);
    // Each call is a batch, in turn at pillars 0, 1, 2, 3, …; those at pillar 1 are forged. All are
    // handed out before the group comes to rest, so later turns do not make up for it.
    let mut expected = Vec::new();
    for turn in 0..4u64 {
        let forged = turn == 1;
        group.client_sends(0, group.requests(10 + turn..11 + turn, forged));
        if !forged {
            expected.push(10 + turn as u8);
        }
    }
    group.settle();
    for replica in 0..3 {
        let (order, journal) = group.executed(replica);
        assert_eq!(journal, expected, "replica {replica} is at {order}");
    }
    assert!(group.replies.iter().all(|(_, number, _)| *number != RequestNumber(11)));
}

/// The leader prepared in one pillar alone: the new leader re-issues that, and covers the gap in
/// the other pillar, or nothing after it would ever be executed.
#[test]
fn a_new_leader_covers_the_gaps_that_its_predecessor_left() {
    let mut group = Group::new(2);
    for number in 1..3 {
        group.client_sends(0, group.requests(number..number + 1, false));
    }
    // Of the two PREPAREs only the one of pillar 1 (order 2) leaves the host.
    group.network.retain(|(_, _, message)| message[0] != kind::PREPARE || message[2] == 1);
    group.settle();
    assert_eq!(group.executed(1).0, OrderNumber(0), "order 1 is missing");
    group.cut_off = vec![0];
    for replica in [1, 2] {
        group.run(replica, Input::Control(ToControl::Suspect { view: View(0) }));
    }
    group.settle();
    for replica in [1, 2] {
        assert_eq!(group.replicas[replica].control.status().stable_view, View(1));
        assert_eq!(group.executed(replica), (OrderNumber(2), &[2][..]));
    }
    assert_eq!(group.noops(), 1);
}

/// One session that never stops asking fills batches, not the order: a request of another one is
/// executed after those that came before it, and not later.
#[test]
fn a_hot_session_does_not_stall_the_others() {
    let mut group = Group::new(2);
    let mut hot = requests_head(kind::REQUESTS).to_vec();
    let session = SessionId::new(LINK.client, LINK.incarnation, 9000);
    for number in 1..1000 {
        append_proved(&mut hot, session, RequestNumber(number), &[0], &group.client);
    }
    let hot = Bytes::from(hot);
    group.client_sends(0, hot.clone());
    group.client_sends(0, group.requests(7..8, false));
    group.client_sends(0, hot);
    for _ in 0..100 {
        group.settle();
        if group.executed(1).1.contains(&7) {
            break;
        }
    }
    let (_, journal) = group.executed(1);
    let at = journal.iter().position(|operation| *operation == 7).expect("it was executed");
    assert_eq!(at, 999, "after the hot session's first message, before its second");
}

/// A leader that withholds a request, and keeps the followers busy with copies of it: the last question
/// to the execution stage is answered, however many came after it.
#[test]
fn copies_of_a_withheld_request_do_not_hold_back_the_suspicion() {
    let mut group = Group::new(1);
    let message = group.requests(7..8, false);
    let from_leader = || route_peer_message(ReplicaId(0), message.clone(), &group.config).unwrap();
    let follower = &mut group.replicas[1];
    let mut questions = VecDeque::new();
    let mut is_suspected = false;
    let mut now = group.now;
    for _ in 0..40 {
        now = now.after_us(group.config.request_timeout_us / 8);
        let mut out = Output::default();
        // The answers to what was asked before come only when more was asked.
        let before = questions.len();
        follower.handle(from_leader(), now, &mut out);
        follower.intake.tick(now, &mut out);
        questions.extend(out.inputs.extract_if(.., |input| matches!(input, Input::Execution(_))));
        for question in questions.drain(..before) {
            follower.handle(question, now, &mut out);
        }
        for input in std::mem::take(&mut out.inputs) {
            is_suspected |= matches!(input, Input::Control(ToControl::Suspect { .. }));
            if matches!(input, Input::Intake(_) | Input::Pillar(..)) {
                follower.handle(input, now, &mut out);
            }
        }
        // Pillars say what they have committed.
        for input in std::mem::take(&mut out.inputs) {
            is_suspected |= matches!(input, Input::Control(ToControl::Suspect { .. }));
            if matches!(input, Input::Intake(_)) {
                follower.handle(input, now, &mut out);
            }
        }
        follower.intake.flush(now, &mut out);
        for effect in out.network.drain(..) {
            if let Network::Send { tag: SendTag::Answer(Answerer::Intake), .. } = effect {
                let left = ToIntake::ForwardsLeft { peer: ReplicaId(0), messages: 1 };
                follower.intake.handle(left, now, &mut Output::default());
            }
        }
        for input in out.inputs {
            is_suspected |= matches!(input, Input::Control(ToControl::Suspect { .. }));
            if matches!(input, Input::Execution(_)) {
                questions.push_back(input);
            }
        }
    }
    assert!(is_suspected);
}

/// Requests of one session by descending numbers displace nothing and are not kept.
#[test]
fn a_session_has_a_window_of_requests_stored_in_whatever_order_they_come() {
    let mut group = Group::new(1);
    group.cut_off = vec![0, 2];
    let session = SessionId::new(LINK.client, LINK.incarnation, 9000);
    let numbers = (1..200).rev().chain(100..300);
    for number in numbers {
        let mut message = requests_head(kind::REQUESTS).to_vec();
        append_proved(&mut message, session, RequestNumber(number), &[0], &group.client);
        group.client_sends(1, message.into());
        assert_eq!(group.replicas[1].intake.stored(), group.config.session_window as usize);
    }
}

/// A leader that withholds a request sends a follower others of the same client, old ones, without end: the
/// client's own request is stored all the same.
#[test]
fn what_peers_send_does_not_use_up_a_clients_share() {
    let mut group = Group::new(1);
    let mut message = requests_head(kind::REQUESTS).to_vec();
    for session in 1..2_000 {
        let session = SessionId { client: LINK.client, session };
        append_proved(&mut message, session, RequestNumber(1), &[0], &group.client);
    }
    let mut out = Output::default();
    let input = route_peer_message(ReplicaId(0), message.into(), &group.config).unwrap();
    group.replicas[1].handle(input, group.now, &mut out);
    assert_eq!(group.replicas[1].intake.stored(), 1_999);
    // None of the questions has been answered.
    let input = route_client_message(LINK, group.requests(1..2, false)).unwrap();
    group.replicas[1].handle(input, group.now, &mut out);
    assert_eq!(group.replicas[1].intake.stored(), 2_000);
}

/// A follower may suspect the leader for whatever it forwards, so the leader refuses none of it, however
/// much one client sent.
#[test]
fn a_leader_refuses_nothing_that_a_follower_forwards() {
    let mut group = Group::new(1);
    group.cut_off = vec![1, 2];
    let (chunk, chunks) = (64, 1_100);
    for first in (0..chunks).map(|at| 1 + at * chunk) {
        let mut message = requests_head(kind::REQUESTS).to_vec();
        for session in first..first + chunk {
            let session = SessionId { client: LINK.client, session };
            append_proved(&mut message, session, RequestNumber(1), &[0], &group.client);
        }
        let input = route_peer_message(ReplicaId(1), message.into(), &group.config).unwrap();
        group.run(0, input);
    }
    // More than are stored. Eight batches fill the window, and two are under way.
    let least = (chunk * chunks - 100) as usize * 41;
    assert!(group.replicas[0].intake.pending_bytes() > least);
    group.replicas[0].check_all_invariants();
}

/// Requests in messages that replica 1 has for replica 0.
fn forwarded(group: &mut Group) -> usize {
    let messages = std::mem::take(&mut group.network);
    let to_leader = messages.into_iter().filter(|(from, to, _)| (*from, *to) == (1, 0));
    let bodies = to_leader.filter(|(.., message)| kind_of(message) == kind::REQUESTS);
    bodies.map(|(.., message)| Requests::new(&message[REQUESTS_HEAD..]).count()).sum()
}

/// Whether replica 1 suspects its leader within ten times as long as a request may take.
fn suspects(group: &mut Group) -> bool {
    suspects_within(10, group)
}

/// The same, within so many timeouts.
fn suspects_within(timeouts: u64, group: &mut Group) -> bool {
    let is_suspicion =
        |input: &Input| matches!(input, Input::Control(ToControl::Suspect { view: View(0) }));
    for _ in 0..2 * timeouts {
        group.now = group.now.after_us(group.config.request_timeout_us / 2);
        let mut out = Output::default();
        group.replicas[1].intake.tick(group.now, &mut out);
        // Pillars say what they have committed, and the execution stage that it was not executed.
        while !out.inputs.is_empty() {
            for input in std::mem::take(&mut out.inputs) {
                if is_suspicion(&input) {
                    return true;
                }
                if !matches!(input, Input::Control(_)) {
                    group.replicas[1].handle(input, group.now, &mut out);
                }
            }
        }
    }
    false
}

/// A follower forwards what it was brought a window at a time, and its leader is not suspected for what
/// it was not told.
#[test]
fn a_leader_is_watched_for_what_has_left() {
    let mut group = Group::new(1);
    for first in [1, 401, 801] {
        group.client_sends(1, group.requests(first..first + 200, false));
    }
    assert_eq!(group.replicas[1].intake.stored(), 600);
    let window = forwarded(&mut group);
    assert!((200..=256).contains(&window), "{window}");
    assert!(!suspects_within(4, &mut group), "nothing has left");
    let left = ToIntake::ForwardsLeft { peer: ReplicaId(0), messages: 1 };
    group.run(1, Input::Intake(left));
    assert!(suspects(&mut group));
    // What has waited for so long makes room for others.
    group.replicas[1].intake.check_all_invariants();
    group.run(1, Input::Intake(ToIntake::ForwardsLeft { peer: ReplicaId(2), messages: 1 }));
    assert!((1..=64).contains(&forwarded(&mut group)));
}

/// A link that is up and takes nothing, as one to a host that stands still, saves no leader for ever.
#[test]
fn a_leader_whose_link_takes_nothing_is_suspected_later() {
    let mut group = Group::new(1);
    group.client_sends(1, group.requests(1..201, false));
    assert!(forwarded(&mut group) > 0);
    assert!(!suspects_within(4, &mut group));
    assert!(suspects_within(60, &mut group));
}

/// A batch that waits for the window is still the request intake's business: it does not take in
/// more and more while the window is full.
#[test]
fn a_full_window_holds_the_client_stage_back() {
    let mut group = Group::new(1);
    group.cut_off = vec![1, 2];
    for number in 1..200 {
        group.client_sends(0, group.requests(number..number + 1, false));
        group.settle();
    }
    // Eight slots, two batches under way: the rest is counted as pending.
    assert!(group.replicas[0].intake.pending_bytes() > 150 * 41);
    // With the peers back, everything is ordered.
    group.cut_off.clear();
    for _ in 0..10 {
        group.now = group.now.after_us(60_000);
        for replica in 0..3 {
            let mut out = Output::default();
            group.replicas[replica].tick(group.now, &mut out);
            for input in std::mem::take(&mut out.inputs) {
                group.run(replica, input);
            }
            for effect in out.network.drain(..) {
                let Network::Send { to, message, .. } = effect else { continue };
                for peer in 0..3 {
                    if to.reaches(ReplicaId(replica as u16), ReplicaId(peer as u16)) {
                        group.network.push_back((replica, peer, message.clone()));
                    }
                }
            }
        }
        group.settle();
    }
    assert!(group.executed(1).1.len() >= 190, "{:?}", group.executed(1).0);
}

/// One request at a time: the follower that commits is asked first, and all at the end of each
/// interval (four slots).
#[test]
fn the_nearest_follower_is_asked_first() {
    let mut group = Group::new(1);
    let ask = |group: &mut Group, number: u64| {
        group.client_sends(0, group.requests(number..number + 1, false));
        group.settle();
        assert_eq!(group.replies.iter().filter(|(_, n, _)| n.0 == number).count(), 3);
        *group.prepares_to.last().unwrap()
    };
    let all = Destination::AllPeers;
    let destinations: Vec<Destination> = (0..8).map(|n| ask(&mut group, n)).collect();
    let Destination::Thrifty(nearest) = destinations[1] else { panic!("{destinations:?}") };
    let first = destinations[1];
    assert_eq!(destinations, [all, first, first, all, first, first, first, all]);
    let is_near = |replica: &usize| nearest.contains(ReplicaId(*replica as u16));
    let near: Vec<usize> = (0..3).filter(is_near).collect();
    assert_eq!(near.len(), 1);
    // The others get it as well, and commit it without the preferred.
    group.cut_off = near;
    group.client_sends(0, group.requests(8..9, false));
    group.settle();
    assert_eq!(group.prepares_to[8], first);
    assert_eq!(group.replies.iter().filter(|(_, n, _)| n.0 == 8).count(), 2);
}

/// Pillar 0 decides for all pillars who is asked first: the others can then sleep.
#[test]
fn all_pillars_ask_the_same_followers_first() {
    let mut group = Group::new(2);
    let all = Destination::AllPeers;
    let mut near = None;
    // The last slot of each interval (eight order numbers, two slots in each pillar) goes to all.
    for number in 0..1000 {
        group.client_sends(0, group.requests(number..number + 1, false));
        group.settle();
        let to = *group.prepares_to.last().unwrap();
        if near.is_none() && to != all {
            near = Some(to);
            let Destination::Thrifty(first) = to else { panic!("{to:?}") };
            let is_near = |replica: &usize| first.contains(ReplicaId(*replica as u16));
            group.cut_off = (0..3).filter(is_near).collect();
        }
        if !group.told.is_empty() {
            break;
        }
    }
    assert_eq!(group.told, [PillarId(0), PillarId(1)]);
    let before = group.prepares_to.len();
    for number in 1000..1040 {
        group.client_sends(0, group.requests(number..number + 1, false));
        group.settle();
    }
    let after = &group.prepares_to[before..];
    let other = after.iter().find(|to| **to != all).unwrap();
    assert!(near != Some(*other) && after.iter().all(|to| to == other || *to == all), "{after:?}");
    assert_eq!(group.told.len(), 2);
}

/// Whoever asks for slots says which PREPAREs it holds: these do not go over the wire again.
#[test]
fn what_an_asker_holds_is_not_sent_again() {
    let mut group = Group::new(1);
    // Before the first checkpoint.
    for number in 1..4 {
        group.client_sends(0, group.requests(number..number + 1, false));
        group.settle();
    }
    for (held, missing) in [(0, vec![1, 2, 3]), (0b010, vec![1, 3]), (0b111, vec![])] {
        group.now = group.now.after_us(group.config.resend_us);
        let (pillar, view, from) = (PillarId(0), View(0), OrderNumber(1));
        let request = OrderRequest { pillar, is_returning: false, view, from, held }.encode();
        group.run(0, route_peer_message(ReplicaId(1), request, &group.config).unwrap());
        let prepares = group.network.drain(..).filter(|(_, _, it)| kind_of(it) == kind::PREPARE);
        let first = |(_, _, it): (_, _, Bytes)| PrepareHeader::parse(&it).unwrap().first.0;
        assert_eq!(prepares.map(first).collect::<Vec<_>>(), missing, "{held:b}");
    }
}

/// Nobody stops a replica by telling it of certificates beyond its counter that it has not made.
#[test]
fn what_a_replica_has_not_certified_does_not_stop_it() {
    let mut group = Group::new(1);
    group.client_sends(0, group.requests(1..2, false));
    let (_, _, others) = loop {
        // The COMMIT of replica 2, before replica 1 has anything.
        let (from, to, message) = group.network.pop_front().unwrap();
        if from == 2 && kind_of(&message) == kind::COMMIT {
            break (from, to, message);
        }
        if to == 2 {
            let input = route_peer_message(ReplicaId(from as u16), message, &group.config);
            group.run(2, input.unwrap());
        }
    };
    let others = Commit::parse(&others).unwrap();
    let renamed = Commit { sender: ReplicaId(1), ..others };
    let forged = Commit { last: OrderNumber(9), first: OrderNumber(9), ..renamed };
    let header = PrepareHeader {
        pillar: PillarId(0),
        noop: true,
        requests: 0,
        view: View(1),
        first: OrderNumber(1),
        last: OrderNumber(4),
        time_ms: 0,
        batch: Digest([0; 32]),
        previous: CounterValue::ZERO,
        proof: Proof([3; 32]),
    };
    let told = [others, renamed, forged].map(LastSeen::Commit);
    for seen in told.into_iter().chain([LastSeen::Prepare(header), LastSeen::Nothing]) {
        let message = seen.encode(PillarId(0));
        let input = route_peer_message(ReplicaId(2), message, &group.config);
        // It panics if the replica is to stop.
        group.run(1, input.unwrap());
    }
}

/// A full disk is no reason to refuse what a peer forwards, nor the result of what was executed.
#[test]
fn a_replica_whose_disk_is_full_refuses_its_clients_only() {
    let mut group = Group::new(1);
    let full = |is_full| Input::Intake(ToIntake::DiskFull { is_full });
    let again = |group: &Group, number: u64| {
        let fresh = group.requests(number..number + 1, false);
        Bytes::from([&retransmission_head()[..], &fresh[REQUESTS_HEAD..]].concat())
    };
    group.client_sends(0, group.requests(1..2, false));
    group.settle();
    group.replies.clear();
    group.run(0, full(true));
    group.client_sends(0, group.requests(2..3, false));
    group.client_sends(0, again(&group, 3));
    group.client_sends(0, again(&group, 1));
    group.settle();
    let (refused, done) = (ReplyStatus::DiskFull, ReplyStatus::Done);
    let said = [(2, refused), (3, refused), (1, done)].map(|(n, it)| (0, RequestNumber(n), it));
    let mut replies = std::mem::take(&mut group.replies);
    replies.sort_by_key(|(_, number, _)| number.0);
    assert_eq!(replies, [said[2], said[0], said[1]]);
    assert_eq!(group.executed(0).0, OrderNumber(1));
    let forwarded = group.requests(4..5, false);
    group.run(0, route_peer_message(ReplicaId(1), forwarded, &group.config).unwrap());
    group.settle();
    assert_eq!(group.executed(0).0, OrderNumber(2));
    group.run(0, full(false));
    group.client_sends(0, again(&group, 2));
    group.settle();
    assert_eq!(group.executed(0).0, OrderNumber(3));
}
