//! Messages of the protocol: one that can be parsed is encoded as the same bytes.

use bytes::Bytes;
use hybster_proto::GroupConfig;
use hybster_proto::ids::{
    ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use hybster_proto::internals::{
    Checkpoint, CheckpointCertificate, Commit, LastSeen, Link, NewView, NewViewAck, PREPARE_HEAD,
    Part, PrepareHeader, ViewChange, encode_state, parse_state,
};
use hybster_proto::output::{ClientLink, route_client_message, route_peer_message};
use hybster_proto::wire::help::{
    OrderRequest, encode_batch, encode_batch_request, parse_batch_request,
};
use hybster_proto::wire::request::{REQUESTS_HEAD, append_request, requests_body, requests_head};
use hybster_proto::wire::state::{Fetch, Fetched, NodeId, StateRequest};
use hybster_proto::wire::{CheckpointId, RequestProof, RequestRef, Requests, kind, pillar_field};
use hybster_tss::{CounterValue, Digest, Proof};

fn config() -> GroupConfig {
    GroupConfig::default()
}

/// PREPARE, COMMIT, ORDER-REQUEST, LAST-SEEN, BATCH-REQUEST and the choice of the stage.
pub fn ordering(data: &[u8]) {
    if let Ok(header) = PrepareHeader::parse(data) {
        assert_eq!(header.encode(), data[..PREPARE_HEAD]);
        assert!(header.first.0 >= 1 && header.first <= header.last);
        assert!(if header.noop { header.time_ms == 0 } else { header.first == header.last });
    }
    if let Ok(commit) = Commit::parse(data) {
        assert_eq!(commit.encode(), data);
    }
    if let Ok(request) = OrderRequest::parse(data) {
        assert_eq!(request.encode(), data);
    }
    if let Ok(seen) = LastSeen::parse(data) {
        let pillar = pillar_field(data).expect("it parsed");
        assert_eq!(seen.encode(pillar), data);
    }
    if let Ok(digests) = parse_batch_request(data) {
        let pillar = pillar_field(data).expect("it parsed");
        assert_eq!(encode_batch_request(pillar, &digests), data);
    }
    let message = Bytes::copy_from_slice(data);
    let link = ClientLink { client: ClientId(1), incarnation: 2 };
    let _ = route_peer_message(ReplicaId(1), message.clone(), &GroupConfig::default());
    let _ = route_client_message(link, message);
}

fn header(noop: bool) -> PrepareHeader {
    PrepareHeader {
        pillar: PillarId(1),
        noop,
        requests: u32::from(!noop),
        view: View(3),
        first: OrderNumber(2),
        last: OrderNumber(if noop { 8 } else { 2 }),
        time_ms: if noop { 0 } else { 1_700_000_000_000 },
        batch: Digest([4; 32]),
        previous: if noop { CounterValue::new(3, 1) } else { CounterValue::ZERO },
        proof: Proof([5; 32]),
    }
}

pub fn ordering_seeds() -> Vec<Vec<u8>> {
    let commit = Commit {
        pillar: PillarId(1),
        sender: ReplicaId(2),
        view: View(3),
        first: OrderNumber(2),
        last: OrderNumber(2),
        prepare: Digest([6; 32]),
        proof: Proof([7; 32]),
    };
    let request = OrderRequest {
        pillar: PillarId(0),
        is_returning: true,
        view: View(1),
        from: OrderNumber(5),
        held: 3,
    };
    vec![
        LastSeen::Nothing.encode(PillarId(2)).to_vec(),
        LastSeen::Commit(commit).encode(PillarId(1)).to_vec(),
        LastSeen::Prepare(header(true)).encode(PillarId(1)).to_vec(),
        header(true).encode().to_vec(),
        [&header(false).encode()[..], &one_request()].concat(),
        commit.encode().to_vec(),
        request.encode().to_vec(),
        encode_batch_request(PillarId(1), &[Digest([8; 32]); 2]).to_vec(),
        encode_batch(PillarId(1), &one_request()).to_vec(),
    ]
}

/// VIEW-CHANGE, NEW-VIEW and NEW-VIEW-ACK.
pub fn view(data: &[u8]) {
    let config = config();
    if let Ok(message) = ViewChange::parse(data, &config) {
        assert_eq!(message.encode(), data);
        assert_eq!(message.parts.len(), usize::from(config.pillars));
    }
    if let Ok(message) = NewView::parse(data, &config) {
        assert_eq!(message.encode(), data);
        assert_eq!(message.prepares.len(), usize::from(config.pillars));
    }
    if let Ok(message) = NewViewAck::parse(data, &config) {
        assert_eq!(message.encode(), data);
    }
}

fn certificate() -> CheckpointCertificate {
    let id = CheckpointId { order: OrderNumber(256), digest: Digest([1; 32]) };
    let votes = vec![(ReplicaId(0), Proof([2; 32])), (ReplicaId(2), Proof([3; 32]))];
    CheckpointCertificate { id, ending: None, votes }
}

pub fn view_seeds() -> Vec<Vec<u8>> {
    let link = Link {
        to: View(4),
        previous: CounterValue::new(3, 8),
        digest: Digest([9; 32]),
        proof: Proof([8; 32]),
    };
    let part = Part { chain: vec![link], prepared: vec![header(false)] };
    let change = |sender| ViewChange {
        sender: ReplicaId(sender),
        from: View(3),
        to: View(4),
        checkpoint: certificate(),
        parts: vec![Part { prepared: Vec::new(), ..part.clone() }, part.clone()],
    };
    let ack = NewViewAck {
        sender: ReplicaId(2),
        view: View(3),
        checkpoint: CheckpointCertificate::default(),
        prepared: vec![Vec::new(), vec![header(true)]],
        proof: Proof([6; 32]),
    };
    let new_view = NewView {
        view: View(4),
        checkpoint: certificate(),
        view_changes: vec![change(0), change(1)],
        acks: vec![ack.clone()],
        prepares: vec![vec![header(true)], Vec::new()],
        proof: Proof([5; 32]),
    };
    vec![change(1).encode().to_vec(), ack.encode().to_vec(), new_view.encode().to_vec()]
}

/// CHECKPOINT, STATE, STATE-REQUEST, FETCH and FETCHED.
pub fn checkpoint(data: &[u8]) {
    let config = config();
    if let Ok(message) = Checkpoint::parse(data, &config) {
        assert_eq!(message.encode(&config), data);
    }
    if let Ok(certificate) = parse_state(data, &config) {
        assert_eq!(encode_state(&certificate), data);
    }
    if let Ok(message) = StateRequest::parse(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Fetch::parse(data) {
        assert_eq!(message.encode(), data);
    }
    if let Ok(message) = Fetched::parse(&Bytes::copy_from_slice(data)) {
        assert_eq!(message.encode(), data);
    }
}

pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let vote = Checkpoint {
        sender: ReplicaId(1),
        id: certificate().id,
        ending: None,
        proof: Proof([4; 32]),
    };
    let request = StateRequest { latest: View(1), current: View(2), stable: OrderNumber(256) };
    let node = NodeId { level: 0x81, index: 3 };
    let fetch = Fetch { order: OrderNumber(256), nodes: vec![node; 2] };
    let content = Some(Bytes::from_static(b"page"));
    let fetched = Fetched { order: OrderNumber(256), node, content };
    vec![
        vote.encode(&config()).to_vec(),
        encode_state(&certificate()).to_vec(),
        request.encode().to_vec(),
        fetch.encode().to_vec(),
        fetched.encode().to_vec(),
    ]
}

/// REQUESTS and QUERIES.
pub fn requests(data: &[u8]) {
    let body = requests_body(data).unwrap_or(data);
    let mut again = Vec::new();
    for request in Requests::new(body) {
        let Ok(request) = request else { return };
        let RequestRef { session, number, operation, covered, record } = request;
        let start = again.len();
        match request.proof() {
            RequestProof::Mac(mac) => {
                append_request(&mut again, session, number, operation, |bytes| {
                    assert_eq!(bytes, covered);
                    *mac
                });
            }
            RequestProof::Signature(signature) => {
                append_request(&mut again, session, number, operation, |bytes| {
                    assert_eq!(bytes, covered);
                    *signature
                });
            }
        }
        assert_eq!(&again[start..], record);
    }
    assert_eq!(again, body);
}

fn one_request() -> Vec<u8> {
    let mut out = Vec::new();
    let session = SessionId::new(ClientId(1), 2, 3);
    append_request(&mut out, session, RequestNumber(4), b"operation", |_| [5; 16]);
    out
}

fn signed_request() -> Vec<u8> {
    let mut out = Vec::new();
    let session = SessionId::new(ClientId(1), 2, 3);
    append_request(&mut out, session, RequestNumber(5), b"operation", |_| [6; 64]);
    out
}

pub fn request_seeds() -> Vec<Vec<u8>> {
    let message =
        |kind, records: &[Vec<u8>]| [&requests_head(kind)[..], &records.concat()].concat();
    assert_eq!(requests_head(kind::REQUESTS).len(), REQUESTS_HEAD);
    vec![
        message(kind::REQUESTS, &[one_request(), one_request()]),
        message(kind::QUERIES, &[one_request()]),
        one_request(),
        message(kind::REQUESTS, &[signed_request(), one_request(), signed_request()]),
    ]
}
