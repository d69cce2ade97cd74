//! One event as bytes.

use hybster_tss::Digest;

use super::{Counted, Held, Member, Phase, Proposal, Quorums, Step, TraceEvent};
use crate::ids::{Peers, PillarId, View};
use crate::time::Time;
use crate::wire::{CheckpointId, Put, Reader, WireError};

/// Bytes of a record before its fields: kind and flag, pillar, time.
const HEAD: usize = 8;
/// The flag in the kind byte.
const FLAG: u8 = 0x80;
/// The largest time that a record holds, in microseconds: nine years.
const MAX_TIME: u64 = (1 << 48) - 1;
/// Bytes of a proposal in a list.
const PROPOSAL_BYTES: usize = 57;
/// Bytes of a disclosed proposal.
const HELD_BYTES: usize = 65;
/// Bytes of a counter's step.
const STEP_BYTES: usize = 24;

/// Kind bytes of records. Numbers that are missing here were used by version 1.
pub(super) mod kind {
    pub(in crate::trace) const VIEW_LEFT: u8 = 1;
    pub(in crate::trace) const VIEW_ENTERED: u8 = 2;
    pub(in crate::trace) const CHECKPOINT_TAKEN: u8 = 8;
    pub(in crate::trace) const DIVERGED: u8 = 10;
    pub(in crate::trace) const STATE_INSTALLED: u8 = 11;
    pub(in crate::trace) const PROPOSED: u8 = 14;
    pub(in crate::trace) const REISSUED: u8 = 15;
    pub(in crate::trace) const VOUCHED_PREPARE: u8 = 16;
    pub(in crate::trace) const VOUCHED_COMMIT: u8 = 17;
    pub(in crate::trace) const CERTIFIED_PREPARE: u8 = 18;
    pub(in crate::trace) const CERTIFIED_COMMIT: u8 = 19;
    pub(in crate::trace) const EXECUTED: u8 = 20;
    pub(in crate::trace) const AGREED_TIME: u8 = 21;
    pub(in crate::trace) const CHECKPOINT_STABLE: u8 = 22;
    pub(in crate::trace) const ELECTED: u8 = 23;
    pub(in crate::trace) const ADOPTED: u8 = 24;
    pub(in crate::trace) const PART_LEFT: u8 = 25;
    pub(in crate::trace) const ENDORSED: u8 = 26;
    pub(in crate::trace) const CONFIGURED: u8 = 27;
    pub(in crate::trace) const LOST: u8 = 28;
}

/// What is wrong with the bytes of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It is not a trace.
    #[error("this is no trace of Hybster: it does not begin with \"HYBTRACE\"")]
    NotATrace,
    /// It is a trace of another format.
    #[error("the trace has format version {found}, but version {wanted} is needed here")]
    Version {
        /// Its version.
        found: u16,
        /// The version that can be read.
        wanted: u16,
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
    let mut record = Record::new(out, time, event.pillar());
    match event {
        TraceEvent::ViewLeft { from, to } => record.put(kind::VIEW_LEFT, &[from.0, to.0], None),
        TraceEvent::PartLeft { from, to, checkpoint, steps, held, .. } => {
            record.put(kind::PART_LEFT, &[from.0, to.0, checkpoint.0], None);
            put_part(record.out, steps, held);
        }
        TraceEvent::Elected { view, leader, checkpoint, members, vouchers } => {
            let CheckpointId { order, digest } = checkpoint;
            record.put(kind::ELECTED, &[view.0, order.0], Some(digest));
            record.out.put_u64(vouchers.bits());
            record.out.put_u16(leader.0);
            put_members(record.out, members);
        }
        TraceEvent::Adopted { view, proposals, .. } => {
            record.put(kind::ADOPTED, &[view.0], None);
            record.out.put_u32(proposals.len() as u32);
            proposals.iter().for_each(|proposal| put_proposal(record.out, 0, None, proposal));
        }
        TraceEvent::ViewEntered { view, current, leader } => {
            record.put(flagged(kind::VIEW_ENTERED, *leader), &[view.0, current.0], None);
        }
        TraceEvent::Endorsed { view, checkpoint: CheckpointId { order, digest } } => {
            record.put(kind::ENDORSED, &[view.0, order.0], Some(digest));
        }
        TraceEvent::Proposed { view, proposal, .. } => {
            record.put_step(kind::PROPOSED, &in_view(*view, proposal), proposal);
        }
        TraceEvent::Reissued { view, proposal, .. } => {
            record.put_step(kind::REISSUED, &in_view(*view, proposal), proposal);
        }
        TraceEvent::Vouched { phase, view, proposal, .. } => {
            let kind = by_phase(*phase, kind::VOUCHED_PREPARE, kind::VOUCHED_COMMIT);
            record.put_step(kind, &in_view(*view, proposal), proposal);
        }
        TraceEvent::Certified { phase, view, proposal, voters, .. } => {
            let kind = by_phase(*phase, kind::CERTIFIED_PREPARE, kind::CERTIFIED_COMMIT);
            let [view, first, last, time] = in_view(*view, proposal);
            record.put_step(kind, &[voters.bits(), view, first, last, time], proposal);
        }
        TraceEvent::Executed { order, requests, ran, results } => {
            let counts = u64::from(*requests) | u64::from(*ran) << 32;
            record.put(kind::EXECUTED, &[order.0, counts], Some(results));
        }
        TraceEvent::AgreedTime { order, unix_ms } => {
            record.put(kind::AGREED_TIME, &[order.0, *unix_ms], None);
        }
        TraceEvent::CheckpointTaken(id) => {
            record.put(kind::CHECKPOINT_TAKEN, &[id.order.0], Some(&id.digest));
        }
        TraceEvent::CheckpointStable { checkpoint: CheckpointId { order, digest }, voters } => {
            record.put(kind::CHECKPOINT_STABLE, &[voters.bits(), order.0], Some(digest));
        }
        TraceEvent::Diverged(id) => record.put(kind::DIVERGED, &[id.order.0], Some(&id.digest)),
        TraceEvent::StateInstalled(id) => {
            record.put(kind::STATE_INSTALLED, &[id.order.0], Some(&id.digest));
        }
        TraceEvent::Configured { after, epoch, members, faults, quorums, constants } => {
            record.put(kind::CONFIGURED, &[after.0, members.bits()], Some(constants));
            record.out.put_u32(*epoch);
            record.out.put_u16(*faults);
            put_quorums(record.out, quorums);
        }
        TraceEvent::Lost { events } => record.put(kind::LOST, &[u64::from(*events)], None),
    }
}

/// A record being appended.
struct Record<'a> {
    out: &'a mut Vec<u8>,
    /// Its head, but for the kind.
    head: [u8; HEAD],
}

impl Record<'_> {
    fn new(out: &mut Vec<u8>, time: Time, pillar: Option<PillarId>) -> Record<'_> {
        let pillar = pillar.map_or(0, |p| p.0);
        debug_assert!(pillar < 256, "a group has 256 pillars at most");
        let mut head = time.0.min(MAX_TIME).to_le_bytes();
        head.rotate_right(2);
        head[1] = pillar as u8;
        Record { out, head }
    }

    /// Appends the head and the fields that most kinds have.
    fn put(&mut self, kind: u8, numbers: &[u64], digest: Option<&Digest>) {
        self.head[0] = kind;
        self.out.bytes(&self.head);
        numbers.iter().for_each(|number| self.out.put_u64(*number));
        if let Some(digest) = digest {
            self.out.bytes(&digest.0);
        }
    }

    /// The same for a step of the agreement on a proposal.
    fn put_step(&mut self, kind: u8, numbers: &[u64], proposal: &Proposal) {
        self.put(flagged(kind, proposal.noop), numbers, Some(&proposal.batch));
    }
}

fn by_phase(phase: Phase, prepare: u8, commit: u8) -> u8 {
    match phase {
        Phase::Prepare => prepare,
        Phase::Commit => commit,
    }
}

fn put_part(out: &mut Vec<u8>, steps: &[Step], held: &[Held]) {
    out.put_u32(steps.len() as u32);
    out.put_u32(held.len() as u32);
    for Step { to, disclosed } in steps {
        out.put_u64(to.0);
        put_counted(out, *disclosed);
    }
    for Held { view, certified, proposal } in held {
        let mark = certified.map_or(0, |phase| 1 + phase as u8) << 1;
        put_proposal(out, mark, Some(*view), proposal);
    }
}

fn put_members(out: &mut Vec<u8>, members: &[Member]) {
    out.put_u16(members.len() as u16);
    for Member { replica, from, disclosed } in members {
        out.put_u16(replica.0);
        out.put_u16(disclosed.len() as u16);
        out.put_u64(from.0);
        disclosed.iter().for_each(|counted| put_counted(out, *counted));
    }
}

fn flagged(kind: u8, flag: bool) -> u8 {
    if flag { kind | FLAG } else { kind }
}

fn in_view(view: View, proposal: &Proposal) -> [u64; 4] {
    [view.0, proposal.first.0, proposal.last.0, proposal.time_ms]
}

fn put_counted(out: &mut Vec<u8>, Counted { view, order }: Counted) {
    out.put_u64(view.0);
    out.put_u64(order.0);
}

fn put_proposal(out: &mut Vec<u8>, mark: u8, view: Option<View>, proposal: &Proposal) {
    out.put_u8(mark | u8::from(proposal.noop));
    if let Some(view) = view {
        out.put_u64(view.0);
    }
    out.put_u64(proposal.first.0);
    out.put_u64(proposal.last.0);
    out.put_u64(proposal.time_ms);
    out.bytes(&proposal.batch.0);
}

/// Appends quorums: twelve bytes.
pub(super) fn put_quorums(out: &mut Vec<u8>, quorums: &Quorums) {
    let Quorums { elect, support, prepare, commit, stable, reply } = *quorums;
    [elect, support, prepare, commit, stable, reply].into_iter().for_each(|q| out.put_u16(q));
}

/// The head of a record.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flag: bool,
    pub(super) pillar: PillarId,
    pub(super) time: Time,
}

impl Head {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let head: [u8; HEAD] = reader.take(HEAD)?.try_into().expect("as long as asked for");
        let time = [head[2], head[3], head[4], head[5], head[6], head[7], 0, 0];
        Ok(Self {
            kind: head[0] & !FLAG,
            flag: head[0] & FLAG != 0,
            pillar: PillarId(head[1].into()),
            time: Time(u64::from_le_bytes(time)),
        })
    }

    /// Refuses a flag or a pillar that a kind does not have.
    pub(super) fn allow(self, flag: bool, pillar: bool) -> Result<(), WireError> {
        if self.flag && !flag {
            return Err(WireError::Field("kind"));
        }
        if self.pillar.0 != 0 && !pillar {
            return Err(WireError::Field("pillar"));
        }
        Ok(())
    }
}

/// Reads a record.
pub(super) fn decode(reader: &mut Reader<'_>) -> Result<(Time, TraceEvent), WireError> {
    let head = Head::read(reader)?;
    Ok((head.time, read(head, reader)?))
}

/// Reads the fields of a record.
pub(super) fn read(head: Head, reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let Head { pillar, flag, .. } = head;
    let of_slots = (kind::PROPOSED..=kind::CERTIFIED_COMMIT).contains(&head.kind);
    let in_pillar = of_slots || matches!(head.kind, kind::ADOPTED | kind::PART_LEFT);
    head.allow(of_slots || head.kind == kind::VIEW_ENTERED, in_pillar)?;
    Ok(match head.kind {
        kind::VIEW_LEFT => TraceEvent::ViewLeft { from: reader.view()?, to: reader.view()? },
        kind::VIEW_ENTERED => {
            TraceEvent::ViewEntered { view: reader.view()?, current: reader.view()?, leader: flag }
        }
        kind::PROPOSED => {
            let (view, proposal) = proposal(reader, flag)?;
            TraceEvent::Proposed { pillar, view, proposal }
        }
        kind::REISSUED => {
            let (view, proposal) = proposal(reader, flag)?;
            TraceEvent::Reissued { pillar, view, proposal }
        }
        kind::VOUCHED_PREPARE | kind::VOUCHED_COMMIT => {
            let (view, proposal) = proposal(reader, flag)?;
            let is_first = head.kind == kind::VOUCHED_PREPARE;
            let phase = if is_first { Phase::Prepare } else { Phase::Commit };
            TraceEvent::Vouched { phase, pillar, view, proposal }
        }
        kind::CERTIFIED_PREPARE | kind::CERTIFIED_COMMIT => {
            let voters = peers(reader)?;
            let (view, proposal) = proposal(reader, flag)?;
            let is_first = head.kind == kind::CERTIFIED_PREPARE;
            let phase = if is_first { Phase::Prepare } else { Phase::Commit };
            TraceEvent::Certified { phase, pillar, view, proposal, voters }
        }
        kind::EXECUTED => TraceEvent::Executed {
            order: reader.order()?,
            requests: reader.u32()?,
            ran: reader.u32()?,
            results: reader.digest()?,
        },
        kind::AGREED_TIME => {
            TraceEvent::AgreedTime { order: reader.order()?, unix_ms: reader.u64()? }
        }
        kind::CHECKPOINT_TAKEN => TraceEvent::CheckpointTaken(checkpoint(reader)?),
        kind::CHECKPOINT_STABLE => {
            let voters = peers(reader)?;
            TraceEvent::CheckpointStable { checkpoint: checkpoint(reader)?, voters }
        }
        kind::DIVERGED => TraceEvent::Diverged(checkpoint(reader)?),
        kind::STATE_INSTALLED => TraceEvent::StateInstalled(checkpoint(reader)?),
        kind::ELECTED => elected(reader)?,
        kind::ADOPTED => adopted(pillar, reader)?,
        kind::PART_LEFT => part_left(pillar, reader)?,
        kind::ENDORSED => {
            TraceEvent::Endorsed { view: reader.view()?, checkpoint: checkpoint(reader)? }
        }
        kind::CONFIGURED => configured(reader)?,
        kind::LOST => {
            let events = u32::try_from(reader.u64()?).map_err(|_| WireError::Field("lost"))?;
            TraceEvent::Lost { events }
        }
        _ => return Err(WireError::Field("kind")),
    })
}

fn proposal(reader: &mut Reader<'_>, noop: bool) -> Result<(View, Proposal), WireError> {
    Ok((reader.view()?, listed(reader, noop)?))
}

pub(super) fn checkpoint(reader: &mut Reader<'_>) -> Result<CheckpointId, WireError> {
    Ok(CheckpointId { order: reader.order()?, digest: reader.digest()? })
}

pub(super) fn peers(reader: &mut Reader<'_>) -> Result<Peers, WireError> {
    Ok(Peers::from_bits(reader.u64()?))
}

pub(super) fn quorums(reader: &mut Reader<'_>) -> Result<Quorums, WireError> {
    Ok(Quorums {
        elect: reader.u16()?,
        support: reader.u16()?,
        prepare: reader.u16()?,
        commit: reader.u16()?,
        stable: reader.u16()?,
        reply: reader.u16()?,
    })
}

fn counted(reader: &mut Reader<'_>) -> Result<Counted, WireError> {
    Ok(Counted { view: reader.view()?, order: reader.order()? })
}

fn elected(reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let view = reader.view()?;
    let checkpoint = checkpoint(reader)?;
    let vouchers = peers(reader)?;
    let leader = reader.replica()?;
    // A count of 16 bits: the room for the members themselves is small, and what each holds must be
    // there in bytes.
    let members = (0..reader.u16()?).map(|_| member(reader)).collect::<Result<_, _>>()?;
    Ok(TraceEvent::Elected { view, leader, checkpoint, members, vouchers })
}

fn member(reader: &mut Reader<'_>) -> Result<Member, WireError> {
    let (replica, counters) = (reader.replica()?, usize::from(reader.u16()?));
    let from = reader.view()?;
    if counters * 16 > reader.left() {
        return Err(WireError::Short);
    }
    let disclosed = (0..counters).map(|_| counted(reader)).collect::<Result<_, _>>()?;
    Ok(Member { replica, from, disclosed })
}

fn adopted(pillar: PillarId, reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let view = reader.view()?;
    let count = reader.count(PROPOSAL_BYTES, "proposals")?;
    let mut proposals = Vec::with_capacity(count);
    for _ in 0..count {
        match reader.u8()? {
            mark @ (0 | 1) => proposals.push(listed(reader, mark == 1)?),
            _ => return Err(WireError::Field("mark")),
        }
    }
    Ok(TraceEvent::Adopted { pillar, view, proposals })
}

fn part_left(pillar: PillarId, reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let (from, to, checkpoint) = (reader.view()?, reader.view()?, reader.order()?);
    let (steps, held) = (reader.u32()? as usize, reader.u32()? as usize);
    // No more is allocated than the bytes that are there can fill.
    if steps.saturating_mul(STEP_BYTES).saturating_add(held.saturating_mul(HELD_BYTES))
        > reader.left()
    {
        return Err(WireError::Short);
    }
    let step = |_| Ok(Step { to: reader.view()?, disclosed: counted(reader)? });
    let steps = (0..steps).map(step).collect::<Result<_, WireError>>()?;
    let held = (0..held).map(|_| held_proposal(reader)).collect::<Result<_, _>>()?;
    Ok(TraceEvent::PartLeft { pillar, from, to, checkpoint, steps, held })
}

fn held_proposal(reader: &mut Reader<'_>) -> Result<Held, WireError> {
    let mark = reader.u8()?;
    let certified = match mark >> 1 {
        0 => None,
        1 => Some(Phase::Prepare),
        2 => Some(Phase::Commit),
        _ => return Err(WireError::Field("mark")),
    };
    let view = reader.view()?;
    Ok(Held { view, certified, proposal: listed(reader, mark & 1 == 1)? })
}

fn listed(reader: &mut Reader<'_>, noop: bool) -> Result<Proposal, WireError> {
    let (first, last, time_ms) = (reader.order()?, reader.order()?, reader.u64()?);
    Ok(Proposal { first, last, batch: reader.digest()?, time_ms, noop })
}

fn configured(reader: &mut Reader<'_>) -> Result<TraceEvent, WireError> {
    let (after, members) = (reader.order()?, peers(reader)?);
    let constants = reader.digest()?;
    let (epoch, faults) = (reader.u32()?, reader.u16()?);
    let quorums = quorums(reader)?;
    Ok(TraceEvent::Configured { after, epoch, members, faults, quorums, constants })
}
