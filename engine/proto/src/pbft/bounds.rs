//! What PBFT's pillars and its control stage may hold at most: their part of [`crate::bounds`].

use super::control::{MAX_VIEWS, STABLE_CLAIMS};
use super::pillar::{MISSING_BYTES, NAMED_BYTES, PAIR_BYTES, SLOT_BYTES};
use super::wire::ordering::CHECKPOINT_BYTES;
use super::wire::view::{PAIRS, SLOT_BYTES as KNOWN_BYTES, SLOT_MEMORY};
use crate::bounds::FilledBy::{Clients, Leader, Peers};
use crate::bounds::{Buffer, buffer, prepare_bytes, product};
use crate::config::GroupConfig;
use crate::intake::CREDIT;
use crate::shared::answers::ANSWERS_BYTES;
use crate::shared::later::SENDER_BYTES;
use crate::shared::log::LOG_WINDOWS;
use crate::shared::votes::claims_per_sender;
use hybster_tss::Digest;

/// A B-tree's nodes are half full at least, but for the first, which has room for so many entries.
const TREE_FACTOR: u64 = 3;
const TREE_LEAF: u64 = 11;
/// What an acknowledgement takes in one: a view, two replicas and a digest.
const ACK_MEMORY: u64 = 48;
/// And a STABLE message: an order number twice, and a digest.
const STABLE_MEMORY: u64 = 56;
const _: () = assert!(STABLE_CLAIMS < TREE_LEAF as usize, "those of a peer are in one node");

/// What a VIEW-CHANGE has beside P and Q, for a few checkpoints.
const CHANGE_HEAD: u64 = 128;

/// A VIEW-CHANGE with a full window of P and Q, and a checkpoint for each interval of it.
fn change_bytes(config: &GroupConfig) -> Option<u64> {
    let checkpoints = 40 * (config.window / config.checkpoint_interval.max(1) + 2);
    let parts = 4 * u64::from(config.pillars);
    let known = config.window.checked_mul(KNOWN_BYTES as u64)?;
    known.checked_add(CHANGE_HEAD + checkpoints + parts)
}

/// The same once it was read.
fn read_bytes(config: &GroupConfig) -> Option<u64> {
    let known = config.window.checked_mul((SLOT_MEMORY - KNOWN_BYTES) as u64)?;
    change_bytes(config)?.checked_add(known)
}

/// What a view begins with: digests, in vectors that have grown.
fn decision_bytes(config: &GroupConfig) -> Option<u64> {
    config.window.checked_mul(2 * size_of::<Digest>() as u64)
}

/// A NEW-VIEW with a VIEW-CHANGE of each replica.
pub(super) fn longest_message(config: &GroupConfig) -> u64 {
    let change = change_bytes(config).unwrap_or(u64::MAX);
    change.saturating_mul(config.replicas.into()).saturating_add(64 << 10)
}

/// The buffers; `None` if a bound does not fit 64 bits.
pub(super) fn of_stages(config: &GroupConfig) -> Option<Vec<Buffer>> {
    let mut buffers = of_pillars(config)?;
    buffers.extend(of_control(config)?);
    Some(buffers)
}

fn of_pillars(config: &GroupConfig) -> Option<Vec<Buffer>> {
    let n = u64::from(config.replicas);
    let (peers, pillars, window) = (n.saturating_sub(1), u64::from(config.pillars), config.window);
    let prepare = prepare_bytes(config);
    Some(vec![
        // That of the view, that of P, those of Q, and what was committed.
        buffer(
            "log: bodies of proposals",
            "engine/proto/src/pbft/pillar/slots.rs",
            Leader,
            product(&[LOG_WINDOWS, window, 4 + PAIRS as u64, prepare])?,
            "refused: outside the log; of Q the oldest gives way",
        ),
        // A PREPARE, a COMMIT and a COMMITTED per slot and replica, in vectors that have grown, what heads the
        // bodies of Q, and the slots themselves.
        buffer(
            "log: slots and votes",
            "engine/proto/src/pbft/pillar/slots.rs",
            Peers,
            product(&[
                LOG_WINDOWS,
                window,
                SLOT_BYTES + 3 * grown(n) * NAMED_BYTES + PAIRS as u64 * PAIR_BYTES,
            ])?,
            "refused: outside the log, or there already",
        ),
        // What the NEW-VIEW names, what is committed, and what a view to be led waits for.
        buffer(
            "digests of missing bodies",
            "engine/proto/src/pbft/pillar/catch_up.rs",
            Peers,
            product(&[LOG_WINDOWS, window, 4 * MISSING_BYTES])?,
            "three per slot of the log, and those of a view to be led once more",
        ),
        // What arrives before the NEW-VIEW that it belongs to, not checked yet.
        buffer(
            "ordering messages of later views",
            "engine/proto/src/shared/later.rs",
            Peers,
            product(&[peers, pillars, SENDER_BYTES as u64])?,
            "the sender's for the farthest view give way; asked for again in that view",
        ),
        buffer(
            "batches to be proposed",
            "engine/proto/src/shared/proposals.rs",
            Clients,
            product(&[pillars, CREDIT.into(), prepare])?,
            "the request intake holds them back",
        ),
        buffer(
            "CHECKPOINTs",
            "engine/proto/src/shared/votes.rs",
            Peers,
            product(&[pillars, n, claims_per_sender(config), 2 * CHECKPOINT_BYTES as u64])?,
            "the sender's oldest gives way",
        ),
        buffer(
            "answers to BODY-REQUEST",
            "engine/proto/src/pbft/pillar/catch_up.rs",
            Peers,
            product(&[peers, pillars, ANSWERS_BYTES as u64 + prepare])?,
            "answered when those before have left; dropped with the link",
        ),
    ])
}

/// The room that a vector takes for so many, having grown.
fn grown(count: u64) -> u64 {
    count.next_power_of_two().max(4)
}

fn of_control(config: &GroupConfig) -> Option<Vec<Buffer>> {
    let n = u64::from(config.replicas);
    let (change, decision) = (read_bytes(config)?, decision_bytes(config)?);
    let new_view = change.checked_mul(n)?.checked_add(decision)?;
    let new_view = new_view.checked_add(longest_message(config))?;
    Some(vec![
        buffer(
            "VIEW-CHANGEs",
            "engine/proto/src/pbft/control/messages.rs",
            Peers,
            // This replica's own parts too, while they come.
            product(&[MAX_VIEWS as u64 * n + 1, change])?,
            "only a sender's for the current view and its highest one are kept",
        ),
        buffer(
            "VIEW-CHANGE-ACKs",
            "engine/proto/src/pbft/control/messages.rs",
            Peers,
            product(&[MAX_VIEWS as u64, n, n, TREE_FACTOR * ACK_MEMORY])?,
            "a sender's first word for a view counts",
        ),
        // One per peer as it came and as it was read, with what it decides; that of the stable view, and the one
        // being made.
        buffer(
            "NEW-VIEWs",
            "engine/proto/src/pbft/control/mod.rs",
            Peers,
            product(&[n + 1, new_view])?,
            "only a sender's last one is kept",
        ),
        buffer(
            "STABLE messages",
            "engine/proto/src/pbft/control/catch_up.rs",
            Peers,
            product(&[n, TREE_LEAF, STABLE_MEMORY])?,
            "the sender's oldest gives way",
        ),
    ])
}
