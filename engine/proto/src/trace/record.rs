//! One event as bytes.

use hybster_tss::Digest;

use super::TraceEvent;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::time::Time;
use crate::wire::{CheckpointId, Put, Reader, WireError};

/// Bytes of a record before its fields: kind and flag, pillar, time.
const HEAD: usize = 8;
/// The flag in the kind byte.
const FLAG: u8 = 0x80;
/// The largest time that a record holds, in microseconds: nine years.
const MAX_TIME: u64 = (1 << 48) - 1;

/// Kind bytes of records.
mod kind {
    pub(super) const VIEW_LEFT: u8 = 1;
    pub(super) const VIEW_ENTERED: u8 = 2;
    pub(super) const NEW_VIEW_ACKNOWLEDGED: u8 = 3;
    pub(super) const PROPOSED: u8 = 4;
    pub(super) const ACKNOWLEDGED: u8 = 5;
    pub(super) const COMMITTED: u8 = 6;
    pub(super) const EXECUTED: u8 = 7;
    pub(super) const CHECKPOINT_TAKEN: u8 = 8;
    pub(super) const CHECKPOINT_STABLE: u8 = 9;
    pub(super) const DIVERGED: u8 = 10;
    pub(super) const STATE_INSTALLED: u8 = 11;
    pub(super) const NEW_VIEW_ACCEPTED: u8 = 12;
    pub(super) const REISSUED: u8 = 13;
}

/// What is wrong with the bytes of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Not a trace at all.
    #[error("this is no trace of Hybster: it does not begin with \"HYBTRACE\"")]
    NotATrace,
    /// A trace, but of another format.
    #[error(
        "the trace has format version {found}, this program reads version {}; use the release \
         that wrote it",
        super::file::VERSION
    )]
    Version {
        /// Its version.
        found: u16,
    },
    /// The file header is cut off or holds impossible values.
    #[error("the trace's header is damaged: {0}")]
    Header(WireError),
    /// A block does not hold what it says.
    #[error("the block at byte {offset} is damaged: {error}")]
    Block {
        /// Where it begins.
        offset: u64,
        /// What is wrong with it.
        error: WireError,
    },
}

/// Appends a record.
pub(super) fn append(out: &mut Vec<u8>, time: Time, event: &TraceEvent) {
    let pillar = event.pillar().map_or(0, |p| p.0);
    debug_assert!(pillar < 256, "a group has 256 pillars at most");
    let head = |kind: u8| {
        let mut head = time.0.min(MAX_TIME).to_le_bytes();
        head.rotate_right(2);
        (head[0], head[1]) = (kind, pillar as u8);
        head
    };
    let mut put = |kind: u8, numbers: &[u64], digest: Option<&Digest>| {
        out.bytes(&head(kind));
        numbers.iter().for_each(|number| out.put_u64(*number));
        if let Some(digest) = digest {
            out.bytes(&digest.0);
        }
    };
    match event {
        TraceEvent::ViewLeft { from, to } => put(kind::VIEW_LEFT, &[from.0, to.0], None),
        TraceEvent::ViewEntered { view, current, leader } => {
            put(flagged(kind::VIEW_ENTERED, *leader), &[view.0, current.0], None);
        }
        TraceEvent::NewViewAcknowledged { view } => {
            put(kind::NEW_VIEW_ACKNOWLEDGED, &[view.0], None);
        }
        TraceEvent::Proposed { view, first, last, batch, noop, .. } => {
            put(flagged(kind::PROPOSED, *noop), &[view.0, first.0, last.0], Some(batch));
        }
        TraceEvent::Reissued { view, first, last, batch, noop, .. } => {
            put(flagged(kind::REISSUED, *noop), &[view.0, first.0, last.0], Some(batch));
        }
        TraceEvent::Acknowledged { view, first, last, .. } => {
            put(kind::ACKNOWLEDGED, &[view.0, first.0, last.0], None);
        }
        TraceEvent::Committed { view, first, last, batch, .. } => {
            put(kind::COMMITTED, &[view.0, first.0, last.0], Some(batch));
        }
        TraceEvent::Executed { order, requests, ran } => {
            let counts = u64::from(*requests) | u64::from(*ran) << 32;
            put(kind::EXECUTED, &[order.0, counts], None);
        }
        TraceEvent::CheckpointTaken(id) => {
            put(kind::CHECKPOINT_TAKEN, &[id.order.0], Some(&id.digest));
        }
        TraceEvent::CheckpointStable(id) => {
            put(kind::CHECKPOINT_STABLE, &[id.order.0], Some(&id.digest));
        }
        TraceEvent::Diverged(id) => put(kind::DIVERGED, &[id.order.0], Some(&id.digest)),
        TraceEvent::StateInstalled(id) => {
            put(kind::STATE_INSTALLED, &[id.order.0], Some(&id.digest));
        }
        TraceEvent::NewViewAccepted { view, leader, checkpoint, members, vouchers, reissued } => {
            put(kind::NEW_VIEW_ACCEPTED, &[view.0, checkpoint.order.0], Some(&checkpoint.digest));
            out.put_u16(leader.0);
            out.put_u16(members.len() as u16);
            out.put_u16(vouchers.len() as u16);
            out.put_u16(reissued.len() as u16);
            for (member, from) in members {
                out.put_u16(member.0);
                out.put_u64(from.0);
            }
            vouchers.iter().for_each(|voucher| out.put_u16(voucher.0));
            reissued.iter().for_each(|last| out.put_u64(last.0));
        }
    }
}

fn flagged(kind: u8, flag: bool) -> u8 {
    if flag { kind | FLAG } else { kind }
}

/// Reads a record.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Time, TraceEvent), WireError> {
    let head: [u8; HEAD] = reader.take(HEAD)?.try_into().expect("as long as asked for");
    let time = u64::from_le_bytes([head[2], head[3], head[4], head[5], head[6], head[7], 0, 0]);
    let (kind, flag) = (head[0] & !FLAG, head[0] & FLAG != 0);
    let pillar = PillarId(head[1].into());
    let may_be_flagged = matches!(kind, kind::VIEW_ENTERED | kind::PROPOSED | kind::REISSUED);
    let has_pillar =
        matches!(kind, kind::PROPOSED | kind::REISSUED | kind::ACKNOWLEDGED | kind::COMMITTED);
    if flag && !may_be_flagged {
        return Err(WireError::Field("kind"));
    }
    if pillar.0 != 0 && !has_pillar {
        return Err(WireError::Field("pillar"));
    }
    let event = match kind {
        kind::VIEW_LEFT => TraceEvent::ViewLeft { from: reader.view()?, to: reader.view()? },
        kind::VIEW_ENTERED => {
            TraceEvent::ViewEntered { view: reader.view()?, current: reader.view()?, leader: flag }
        }
        kind::NEW_VIEW_ACKNOWLEDGED => TraceEvent::NewViewAcknowledged { view: reader.view()? },
        kind::PROPOSED => {
            let (view, first, last) = orders(reader)?;
            let batch = reader.digest()?;
            TraceEvent::Proposed { pillar, view, first, last, batch, noop: flag }
        }
        kind::REISSUED => {
            let (view, first, last) = orders(reader)?;
            let batch = reader.digest()?;
            TraceEvent::Reissued { pillar, view, first, last, batch, noop: flag }
        }
        kind::ACKNOWLEDGED => {
            let (view, first, last) = orders(reader)?;
            TraceEvent::Acknowledged { pillar, view, first, last }
        }
        kind::COMMITTED => {
            let (view, first, last) = orders(reader)?;
            TraceEvent::Committed { pillar, view, first, last, batch: reader.digest()? }
        }
        kind::EXECUTED => TraceEvent::Executed {
            order: reader.order()?,
            requests: reader.u32()?,
            ran: reader.u32()?,
        },
        kind::CHECKPOINT_TAKEN => TraceEvent::CheckpointTaken(checkpoint(reader)?),
        kind::CHECKPOINT_STABLE => TraceEvent::CheckpointStable(checkpoint(reader)?),
        kind::DIVERGED => TraceEvent::Diverged(checkpoint(reader)?),
        kind::STATE_INSTALLED => TraceEvent::StateInstalled(checkpoint(reader)?),
        kind::NEW_VIEW_ACCEPTED => accepted(reader)?,
        _ => return Err(WireError::Field("kind")),
    };
    Ok((Time(time), event))
}

fn orders(reader: &mut Reader<'_>) -> Result<(View, OrderNumber, OrderNumber), WireError> {
    Ok((reader.view()?, reader.order()?, reader.order()?))
}

fn checkpoint(reader: &mut Reader<'_>) -> Result<CheckpointId, WireError> {
    Ok(CheckpointId { order: reader.order()?, digest: reader.digest()? })
}

fn accepted(reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let view = reader.view()?;
    let checkpoint = checkpoint(reader)?;
    let leader = reader.replica()?;
    let counts = [reader.u16()?, reader.u16()?, reader.u16()?].map(usize::from);
    // Nothing is allocated for what the bytes do not pay for.
    if counts[0] * 10 + counts[1] * 2 + counts[2] * 8 > reader.left() {
        return Err(WireError::Short);
    }
    let mut members = Vec::with_capacity(counts[0]);
    for _ in 0..counts[0] {
        members.push((ReplicaId(reader.u16()?), reader.view()?));
    }
    let vouchers = (0..counts[1]).map(|_| reader.replica()).collect::<Result<_, _>>()?;
    let reissued = (0..counts[2]).map(|_| reader.order()).collect::<Result<_, _>>()?;
    Ok(TraceEvent::NewViewAccepted { view, leader, checkpoint, members, vouchers, reissued })
}
