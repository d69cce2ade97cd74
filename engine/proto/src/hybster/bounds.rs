//! What Hybster's pillars and its control stage may hold at most: their part of [`crate::bounds`].

use crate::bounds::FilledBy::{Clients, Leader, Peers};
use crate::bounds::{Buffer, buffer, prepare_bytes, product};
use crate::config::GroupConfig;
use crate::hybster::control::MAX_CHANGES;
use crate::hybster::pillar::{SEEN_BYTES, SLOT_BYTES, VOTE_BYTES};
use crate::hybster::wire::checkpoint::CHECKPOINT_BYTES;
use crate::hybster::wire::ordering::PREPARE_HEAD;
use crate::hybster::wire::view::{LINK_BYTES, MAX_LINKS};
use crate::intake::CREDIT;
use crate::shared::answers::ANSWERS_BYTES;
use crate::shared::later::SENDER_BYTES;
use crate::shared::log::LOG_WINDOWS;
use crate::shared::votes::claims_per_sender;

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
    let changes = n * MAX_CHANGES as u64;
    Some(vec![
        // A peer that moved its window first may be one window ahead: what it sends is kept.
        buffer(
            "log: PREPAREs",
            "engine/proto/src/shared/log.rs",
            Leader,
            product(&[LOG_WINDOWS, window, prepare])?,
            "refused: its order number lies outside the log",
        ),
        // One COMMIT per slot and replica, and the slots themselves.
        buffer(
            "log: slots and COMMITs",
            "engine/proto/src/hybster/pillar/slots.rs",
            Peers,
            product(&[LOG_WINDOWS, window, SLOT_BYTES + n * VOTE_BYTES])?,
            "refused: outside the log, or there already",
        ),
        buffer(
            "certificates that peers are told of",
            "engine/proto/src/hybster/pillar/last_seen.rs",
            Peers,
            product(&[n, pillars, SEEN_BYTES])?,
            "the highest takes the place of the one before",
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
        // One message names a window of batches at most; most of them are in the log as well.
        buffer(
            "batches that view changes name",
            "engine/proto/src/shared/bodies.rs",
            Peers,
            product(&[changes + 2 * n + 1, window, prepare])?,
            "the message that names them is dropped, and they with it",
        ),
        // Certified again for the view that this replica is to lead, and copied when it enters.
        buffer(
            "PREPAREs of the view to be entered",
            "engine/proto/src/hybster/pillar/abort.rs",
            Peers,
            product(&[2, window, prepare])?,
            "a NEW-VIEW that has more is refused",
        ),
        buffer(
            "CHECKPOINTs",
            "engine/proto/src/shared/votes.rs",
            Peers,
            product(&[pillars, n, claims_per_sender(config), 2 * CHECKPOINT_BYTES as u64])?,
            "the sender's oldest gives way",
        ),
        buffer(
            "answers to BATCH-REQUEST",
            "engine/proto/src/hybster/pillar/abort.rs",
            Peers,
            product(&[peers, pillars, ANSWERS_BYTES as u64 + prepare])?,
            "answered when those before have left; dropped with the link",
        ),
    ])
}

fn of_control(config: &GroupConfig) -> Option<Vec<Buffer>> {
    let (n, pillars) = (u64::from(config.replicas), u64::from(config.pillars));
    let certificate = 64 + n * 34;
    // Headers of one window, over all pillars.
    let headers = config.window.checked_mul(PREPARE_HEAD as u64)?.checked_add(certificate)?;
    // With a link for each view left since the last stable one.
    let links = (MAX_LINKS * LINK_BYTES) as u64;
    let change = pillars.checked_mul(links)?.checked_add(headers)?;
    let new_view = n.checked_mul(change.checked_add(headers)?)?.checked_add(headers)?;
    let changes = n * MAX_CHANGES as u64;
    Some(vec![
        buffer(
            "VIEW-CHANGEs",
            "engine/proto/src/hybster/control/messages.rs",
            Peers,
            product(&[changes, change])?,
            "only a sender's for the current view and its highest one are kept",
        ),
        // This replica's own once more while it waits for its MAC.
        buffer(
            "NEW-VIEW-ACKs",
            "engine/proto/src/hybster/control/messages.rs",
            Peers,
            product(&[n + 1, headers])?,
            "only a sender's last one is kept",
        ),
        // One per peer, that of the stable view, and the one being made.
        buffer(
            "NEW-VIEWs",
            "engine/proto/src/hybster/control/mod.rs",
            Peers,
            product(&[n + 1, new_view])?,
            "only a sender's last one is kept",
        ),
    ])
}
