//! What replicas send to a client.

use std::sync::Arc;

use hybster_proto::GroupConfig;
use hybster_proto::client::{ClientCore, ClientOutput, Outcome, RequestKind};
use hybster_proto::ids::{ClientId, ReplicaId, RequestNumber, View};
use hybster_proto::time::Time;
use hybster_proto::wire::relay::{begin_relay, parse_relay, parse_relayed, relayed_head};
use hybster_proto::wire::reply::{self, Replies, ReplyEntry, ReplyStatus};
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{RequestTag, Requests, kind, kind_of};
use hybster_tss::{ClientKey, MacAlgorithm};

use super::{Choices, joined};

/// A reply: the session's index, tag, number, status and result.
type Told = (u32, RequestTag, RequestNumber, ReplyStatus, Vec<u8>);

/// A client that waits for four requests.
fn asking() -> (ClientCore, ClientOutput) {
    let config =
        Arc::new(GroupConfig { session_window: 4, resend_us: 1000, ..GroupConfig::default() });
    let key = ClientKey::from_bytes(MacAlgorithm::default(), [3; 32]);
    let mut out = ClientOutput::new(config.replicas);
    let mut core = ClientCore::new(config, ClientId(1), key, 7, 2, 0);
    for session in [0, 0, 1] {
        let _ = core.submit(session, b"op", RequestKind::Ordered, Time(1), &mut out);
    }
    let _ = core.submit(1, b"query", RequestKind::ReadOnly, Time(1), &mut out);
    // Its requests get their tags.
    let _ = core.outgoing(&mut out).count();
    (core, out)
}

/// A client's core gets messages from three replicas, one of them faulty: no request ends with a
/// result that only the faulty one gave.
pub fn replies(data: &[u8]) {
    let (mut core, mut out) = asking();
    let mut now = Time(1);
    let mut honest: Vec<Told> = Vec::new();
    for piece in Choices(data).pieces() {
        let mut choices = Choices(piece);
        let (replica, step) = (ReplicaId(choices.below(4) as u16), choices.below(8));
        now = Time(now.0 + 700 * step as u64);
        parsed(choices.0);
        match replica.0 {
            // Replica 2 is the faulty one.
            0 | 1 => remember(choices.0, &mut honest),
            2 => {}
            _ => {
                core.tick(now, &mut out);
                continue;
            }
        }
        core.handle(replica, choices.0, now, &mut out);
        let _ = core.deadline();
    }
    for done in out.completions.iter() {
        if let Outcome::Done = done.outcome {
            let known = honest.iter().any(|(index, _, number, status, result)| {
                *index == done.session
                    && *number == done.number
                    && *status == ReplyStatus::Done
                    && result == done.result
            });
            assert!(known, "a result that no correct replica gave");
        }
    }
}

fn parsed(message: &[u8]) {
    if let Ok((link, envelope)) = parse_relay(message) {
        let mut again = Vec::new();
        begin_relay(&mut again, link);
        assert_eq!([&again, envelope].concat(), message);
    }
    if let Ok((from, envelope)) = parse_relayed(message) {
        assert_eq!([&relayed_head(from), envelope].concat(), message);
    }
    let Ok(replies) = Replies::parse(message) else { return };
    let mut again = Vec::new();
    reply::begin(&mut again, replies.replica, replies.view);
    for entry in replies {
        let Ok(entry) = entry else { return };
        reply::append(&mut again, &entry);
    }
    assert_eq!(again, message);
}

fn remember(message: &[u8], into: &mut Vec<Told>) {
    let Ok(replies) = Replies::parse(message) else { return };
    for entry in replies.map_while(Result::ok) {
        into.push((entry.index, entry.tag, entry.number, entry.status, entry.result.to_vec()));
    }
}

pub fn reply_seeds() -> Vec<Vec<u8>> {
    let first = hybster_proto::client::FIRST_NUMBER_MIN;
    let (mut core, mut out) = asking();
    let requests = core.outgoing(&mut out).find(|(_, m)| kind_of(m) == kind::REQUESTS);
    let (_, requests) = requests.expect("it sends its requests");
    let body = requests_body(requests).expect("its own message");
    let tags: Vec<_> = Requests::new(body).flatten().map(|request| request.tag()).collect();
    let message = |replica: u8, result: &[u8], number| {
        let mut out = vec![replica, 1];
        reply::begin(&mut out, ReplicaId(replica.into()), View(0));
        let (index, tag, status) = (0, tags[(number - first) as usize], ReplyStatus::Done);
        let number = RequestNumber(number);
        reply::append(&mut out, &ReplyEntry { index, tag, number, status, result });
        out
    };
    let (a, b) = (message(0, b"result", first), message(2, b"result", first));
    let c = message(1, b"other", first + 1);
    let relay = [&[0, 1, 19, 0, 0, 0, 1, 0, 0, 0][..], &7_u64.to_le_bytes(), b"envelope"].concat();
    let relayed = [&[0, 1][..], &relayed_head(ReplicaId(2)), b"envelope"].concat();
    vec![
        joined(&[&relay, &relayed]),
        joined(&[&a, &b]),
        joined(&[&c, &[3, 7], &b, &a]),
        joined(&[&a[..20], &b]),
    ]
}
