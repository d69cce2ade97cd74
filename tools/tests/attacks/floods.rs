//! What attackers send: every kind of message that costs its receiver something.

use bytes::Bytes;
use hybster::{ClientKeys, GroupConfig};
use hybster_proto::ids::{
    ClientLink, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId, View,
};
use hybster_proto::internals::{Checkpoint, Commit, PREPARE_HEAD, PrepareHeader};
use hybster_proto::wire::help::{OrderRequest, encode_batch, encode_batch_request};
use hybster_proto::wire::kind_of;
use hybster_proto::wire::relay::{RELAY_ENVELOPE_MAX, RELAY_HEAD, begin_relay};
use hybster_proto::wire::request::{
    append_proved, append_request, requests_head, retransmission_head,
};
use hybster_proto::wire::state::{CheckpointId, Fetch, MAX_FETCH, NodeId, StateRequest};
use hybster_proto::wire::{REQUEST_MAC, kind};
use hybster_tss::{Digest, Proof};

/// What the attacker has learned from what it was sent.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    checkpoint: Option<CheckpointId>,
    prepare: Option<(PrepareHeader, Bytes)>,
    commit: Option<Bytes>,
}

impl Seen {
    pub(crate) fn note(&mut self, message: &[u8], config: &GroupConfig) {
        match kind_of(message) {
            kind::CHECKPOINT => {
                if let Ok(checkpoint) = Checkpoint::parse(message, config) {
                    self.checkpoint = Some(checkpoint.id);
                }
            }
            kind::PREPARE => {
                if let Ok(header) = PrepareHeader::parse(message) {
                    self.prepare = Some((header, Bytes::copy_from_slice(message)));
                }
            }
            kind::COMMIT => self.commit = Some(Bytes::copy_from_slice(message)),
            _ => {}
        }
    }
}

/// What a liar with a replica's link key sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerFlood {
    /// What correct replicas send, too: COMMITs of others that came long ago. The measure for the rest.
    OldCommits,
    /// BATCH-REQUESTs for batches that there are not.
    UnknownBatches,
    /// BATCH-REQUESTs for a batch that there is.
    KnownBatches,
    /// ORDER-REQUESTs from the beginning on.
    OrderRequests,
    /// STATE-REQUESTs of one who has nothing.
    StateRequests,
    /// FETCHes of as many nodes as fit, of a checkpoint that there is.
    Fetches,
    /// PREPAREs of a leader that it is not, with proofs that it made up.
    ForgedPrepares,
    /// The same of a view that there is not yet.
    LaterPrepares,
    /// COMMITs with proofs that it made up.
    ForgedCommits,
    /// CHECKPOINTs with proofs that it made up.
    ForgedCheckpoints,
    /// VIEW-CHANGEs, NEW-VIEWs and NEW-VIEW-ACKs that are nonsense.
    ViewNonsense,
    /// BATCHes that nobody asked for.
    UnaskedBatches,
    /// Clients' requests that it made up, to the leader.
    ForgedRequests,
    /// Replies to pass on to a client that there is not.
    Relays,
    /// Messages of every kind whose content is noise.
    Noise,
}

impl PeerFlood {
    pub(crate) const ALL: [Self; 15] = [
        Self::OldCommits,
        Self::UnknownBatches,
        Self::KnownBatches,
        Self::OrderRequests,
        Self::StateRequests,
        Self::Fetches,
        Self::ForgedPrepares,
        Self::LaterPrepares,
        Self::ForgedCommits,
        Self::ForgedCheckpoints,
        Self::ViewNonsense,
        Self::UnaskedBatches,
        Self::ForgedRequests,
        Self::Relays,
        Self::Noise,
    ];

    /// The next message, if what was seen is enough to make it. `count` tells it from others.
    pub(crate) fn message(
        self,
        seen: &Seen,
        liar: ReplicaId,
        count: u64,
        config: &GroupConfig,
    ) -> Option<Bytes> {
        let pillar = PillarId((count % u64::from(config.pillars)) as u16);
        let noise = |at: u64| count.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at) as u8;
        let digest = Digest(std::array::from_fn(|at| noise(at as u64)));
        let proof = Proof(std::array::from_fn(|at| noise(at as u64)));
        Some(match self {
            Self::OldCommits => seen.commit.clone()?,
            Self::UnknownBatches => encode_batch_request(pillar, &[digest; 8]),
            Self::KnownBatches => {
                let (header, _) = seen.prepare.as_ref()?;
                encode_batch_request(header.pillar, &[header.batch])
            }
            Self::OrderRequests => {
                let from = OrderNumber(1 + u64::from(pillar.0));
                OrderRequest { pillar, is_returning: true, view: View(0), from, held: 0 }.encode()
            }
            Self::StateRequests => {
                let (latest, current) = (View(0), View(0));
                StateRequest { latest, current, stable: OrderNumber(0) }.encode()
            }
            Self::Fetches => {
                let node = |index| NodeId { level: 0, index };
                let nodes = (0..MAX_FETCH as u64).map(node).collect();
                Fetch { order: seen.checkpoint?.order, nodes }.encode()
            }
            Self::ForgedPrepares => {
                let (_, message) = seen.prepare.as_ref()?;
                let mut message = message.to_vec();
                // In the proof, which ends the head.
                message[PREPARE_HEAD - 1] ^= 1 + noise(0) % 255;
                message.into()
            }
            Self::LaterPrepares => {
                let (mut header, message) = seen.prepare.clone()?;
                header.view.0 += 1 + count % 9;
                [&header.encode(), &message[PREPARE_HEAD..]].concat().into()
            }
            Self::ForgedCommits => {
                let (header, _) = seen.prepare.as_ref()?;
                let (first, last) = (header.first, header.last);
                let (pillar, view, prepare) = (header.pillar, header.view, digest);
                Commit { pillar, sender: liar, view, first, last, prepare, proof }.encode()
            }
            Self::ForgedCheckpoints => {
                let mut id = seen.checkpoint?;
                id.order.0 += config.checkpoint_interval;
                Checkpoint { sender: liar, id, ending: None, proof }.encode(config)
            }
            Self::ViewNonsense => {
                let kinds = [kind::VIEW_CHANGE, kind::NEW_VIEW, kind::NEW_VIEW_ACK];
                let mut message: Vec<u8> = (0..600).map(noise).collect();
                message[0] = kinds[count as usize % kinds.len()];
                message.into()
            }
            Self::UnaskedBatches => {
                let batch: Vec<u8> = (0..4096).map(noise).collect();
                encode_batch(pillar, &batch)
            }
            Self::ForgedRequests => {
                let session = SessionId::new(hybster::ClientId(0), 77, (count % 1024) as u32);
                let mut message = retransmission_head().to_vec();
                let number = RequestNumber(1 << 48 | count);
                append_request(&mut message, session, number, &[1; 64], |_| [2; REQUEST_MAC]);
                message.into()
            }
            Self::Relays => {
                let client = ClientLink { client: hybster::ClientId(0), incarnation: count };
                let mut message = Vec::with_capacity(RELAY_HEAD + RELAY_ENVELOPE_MAX);
                begin_relay(&mut message, client);
                message.resize(RELAY_HEAD + RELAY_ENVELOPE_MAX, noise(0));
                message.into()
            }
            Self::Noise => {
                let mut message: Vec<u8> = (0..64 + count % 300).map(noise).collect();
                message[0] = 1 + (count % 20) as u8;
                message.into()
            }
        })
    }
}

/// What somebody with a client's keys sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientFlood {
    /// Ordinary requests, each once: the measure for the rest.
    Requests,
    /// One request, again and again, as one that was sent before.
    Retransmissions,
    /// New requests that say that they were sent before.
    FalseRetransmissions,
    /// Each request from a session that has sent none.
    Sessions,
    /// Queries.
    Queries,
    /// Questions for the replica's counters.
    StatusRequests,
    /// Long messages of a kind that no client sends.
    Nonsense,
}

impl ClientFlood {
    pub(crate) const ALL: [Self; 7] = [
        Self::Requests,
        Self::Retransmissions,
        Self::FalseRetransmissions,
        Self::Sessions,
        Self::Queries,
        Self::StatusRequests,
        Self::Nonsense,
    ];

    /// The next message; `count` tells it from others.
    pub(crate) fn message(
        self,
        keys: &ClientKeys,
        incarnation: u64,
        operation: &[u8],
        count: u64,
    ) -> Bytes {
        let session = |index: u64| SessionId::new(keys.id, incarnation, index as u32);
        let first = 1 << 48;
        let (head, session, number) = match self {
            Self::StatusRequests => return vec![kind::STATUS_REQUEST].into(),
            Self::Nonsense => return vec![kind::PREPARE; 64 << 10].into(),
            Self::Requests => {
                (requests_head(kind::REQUESTS), session(count % 256), first + count / 256)
            }
            Self::Retransmissions => (retransmission_head(), session(0), first),
            Self::FalseRetransmissions => {
                (retransmission_head(), session(count % 256), first + count / 256)
            }
            Self::Sessions => (requests_head(kind::REQUESTS), session(count % 16_384), first),
            Self::Queries => {
                let mut message = requests_head(kind::QUERIES).to_vec();
                let number = RequestNumber(1 + count);
                let zeros = |_: &[u8]| [0; REQUEST_MAC];
                append_request(&mut message, session(count % 256), number, operation, zeros);
                return message.into();
            }
        };
        let mut message = head.to_vec();
        append_proved(&mut message, session, RequestNumber(number), operation, &keys.requests);
        message.into()
    }
}
