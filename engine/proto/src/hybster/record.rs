//! What the log of a replica keeps of Hybster: enough to be the same replica again.
//!
//! A replica that comes back must have each counter where it was, and must be able to show again
//! what it has certified; it certifies nothing a second time. All of it is in these records:
//!
//! | record | by | what may not leave before it is durable |
//! |---|---|---|
//! | [`LogEntry::Prepare`], [`LogEntry::Commit`] | a pillar that certified | the PREPARE or COMMIT; any reply |
//! | [`LogEntry::Committed`] | a pillar that commits | a CHECKPOINT beyond the slot, which must be reproduced from the log |
//! | [`LogEntry::Body`] | a pillar that holds what a view change names | what rests on that message |
//! | [`LogEntry::Forwarded`], [`LogEntry::Entered`] | a pillar | what it certifies after that |
//! | [`LogEntry::Stable`] | control | the first certificate beyond the old window |
//! | [`LogEntry::Left`] | control | the VIEW-CHANGE |
//! | [`LogEntry::NewView`] | control | what is certified in that view; a leader's NEW-VIEW |
//! | [`LogEntry::Acknowledged`] | control | the NEW-VIEW-ACK (a trusted MAC, which no counter protects) |
//! | [`LogEntry::ControlSummary`], [`LogEntry::Summary`], [`LogEntry::Kept`] | control, then each pillar | nothing: they say again what the log has |
//!
//! A record has the certificate in it and is made right after that. This suffices while the counters
//! are in the replica's own process: they are lost with what is not in the log, so a certificate
//! without a record has left no trace, neither in a counter nor at a peer. A subsystem that outlives
//! the replica needs to be asked for its counters besides.
//!
//! For the same reason there is no record of a part of a VIEW-CHANGE, nor of PREPAREs re-issued for a
//! NEW-VIEW that is not certified: these leave the host in one message only, and its record has them
//! all. A replica that stops before has not begun.
//!
//! **Summaries.** So that a log need not be kept from its beginning, each stage says now and then in one
//! place all that a reader would know of it: control first, and the pillars when they hear of that. So a
//! reader that begins in front of such a round, anywhere, knows a stage from its summary on, and what it
//! needs of control before it needs it. A stage has a summary only while it is in its view and has
//! nothing under way with others, so that it is small. A reader that knows a stage already compares.
//!
//! Formats are little-endian. A record begins with its kind byte.

use bytes::Bytes;
use hybster_tss::{Counter, CounterValue};

use super::wire::checkpoint::CheckpointCertificate;
use super::wire::ordering::{COMMIT_BYTES, Commit};
use super::wire::view::{NewView, NewViewAck, ViewChange};
use crate::config::GroupConfig;
use crate::ids::{PillarId, View};
use crate::output::LogRecord;
use crate::wire::{Put, Reader, WireError};

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LogEntry {
    /// A PREPARE with its batch, and the COMMIT with which this replica acknowledged it. Without one it
    /// is the leader's own, or was committed or inherited without this replica's vote.
    Prepare {
        /// The PREPARE.
        message: Bytes,
        /// This replica's COMMIT.
        own: Option<Commit>,
    },
    /// This replica's COMMIT for a PREPARE that the log has.
    Commit(Commit),
    /// A batch that a message of a view change names.
    Body {
        /// The pillar.
        pillar: PillarId,
        /// The last slot for which it is named: it is needed while the window is not beyond.
        slot: u64,
        /// Its records.
        batch: Bytes,
    },
    /// The next slots are committed, those of one PREPARE.
    Committed {
        /// The pillar.
        pillar: PillarId,
        /// The view of the PREPARE.
        view: View,
        /// The last slot.
        through: u64,
    },
    /// The window of a pillar moved.
    Forwarded {
        /// The pillar.
        pillar: PillarId,
        /// Its first slot.
        base: u64,
    },
    /// A pillar entered a view, whose NEW-VIEW the log has.
    Entered {
        /// The pillar.
        pillar: PillarId,
        /// The view.
        view: View,
        /// The view that the replica was on its way to.
        current: View,
    },
    /// A checkpoint is stable.
    Stable(CheckpointCertificate),
    /// This replica's VIEW-CHANGE.
    Left(ViewChange),
    /// The NEW-VIEW of a view that is entered.
    NewView {
        /// The view that the replica was on its way to.
        current: View,
        /// The NEW-VIEW.
        new_view: Box<NewView>,
    },
    /// This replica's NEW-VIEW-ACK.
    Acknowledged(NewViewAck),
    /// What control is, in the view that it has entered.
    ControlSummary {
        /// The view.
        view: View,
        /// The stable checkpoint.
        stable: CheckpointCertificate,
        /// The NEW-VIEW of the view.
        new_view: Option<Box<NewView>>,
        /// This replica's NEW-VIEW-ACK.
        ack: Option<NewViewAck>,
    },
    /// What a pillar is, in the view that it has entered; its slots follow.
    Summary(PillarSummary),
    /// A slot of the pillar whose summary came last.
    Kept {
        /// The PREPARE.
        message: Bytes,
        /// This replica's COMMIT.
        own: Option<Commit>,
    },
}

/// A pillar without its slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PillarSummary {
    /// The pillar.
    pub(crate) pillar: PillarId,
    /// The view that it is in.
    pub(crate) view: View,
    /// The first slot of its window.
    pub(crate) base: u64,
    /// The slot to certify next.
    pub(crate) prepared: u64,
    /// The slot to commit, and to hand to the execution stage, next.
    pub(crate) committed: u64,
    /// The latest time of a batch.
    pub(crate) last_ms: u64,
    /// The first slot behind those that a NEW-VIEW had.
    pub(crate) inherited: u64,
    /// The values of its counters.
    pub(crate) counters: [CounterValue; Counter::ALL.len()],
}

mod kind {
    pub(super) const PREPARE: u8 = 1;
    pub(super) const ACKNOWLEDGED_PREPARE: u8 = 2;
    pub(super) const COMMIT: u8 = 3;
    pub(super) const BODY: u8 = 4;
    pub(super) const COMMITTED: u8 = 5;
    pub(super) const FORWARDED: u8 = 6;
    pub(super) const ENTERED: u8 = 7;
    pub(super) const STABLE: u8 = 8;
    pub(super) const LEFT: u8 = 9;
    pub(super) const NEW_VIEW: u8 = 10;
    pub(super) const ACKNOWLEDGED: u8 = 11;
    pub(super) const CONTROL_SUMMARY: u8 = 12;
    pub(super) const SUMMARY: u8 = 13;
    pub(super) const KEPT: u8 = 14;
    pub(super) const KEPT_ACKNOWLEDGED: u8 = 15;
}

/// A PREPARE that is logged with this replica's COMMIT, if it made one.
pub(crate) fn prepare(message: &Bytes, own: Option<&Commit>) -> LogRecord {
    proposal(kind::PREPARE, kind::ACKNOWLEDGED_PREPARE, message, own)
}

/// A slot of a summary.
pub(crate) fn kept(message: &Bytes, own: Option<&Commit>) -> LogRecord {
    proposal(kind::KEPT, kind::KEPT_ACKNOWLEDGED, message, own)
}

fn proposal(plain: u8, acknowledged: u8, message: &Bytes, own: Option<&Commit>) -> LogRecord {
    match own {
        None => LogRecord::new(&[plain], message.clone()).with_batch(),
        Some(own) => {
            let mut head = [0; 1 + COMMIT_BYTES];
            head[0] = acknowledged;
            head[1..].copy_from_slice(&own.encoded());
            LogRecord::new(&head, message.clone()).with_batch()
        }
    }
}

/// A pillar without its slots.
pub(crate) fn summary(it: &PillarSummary) -> LogRecord {
    let PillarSummary { pillar, view, base, prepared, committed, last_ms, inherited, counters } =
        *it;
    let mut head = Vec::with_capacity(83);
    head.put_u8(kind::SUMMARY);
    head.put_u16(pillar.0);
    for number in [view.0, base, prepared, committed, last_ms, inherited] {
        head.put_u64(number);
    }
    for counter in counters {
        head.put_u64(counter.view());
        head.put_u64(counter.order());
    }
    LogRecord::new(&head, Bytes::new())
}

/// What control is.
pub(crate) fn control_summary(
    view: View,
    stable: &CheckpointCertificate,
    new_view: Option<&NewView>,
    ack: Option<Bytes>,
) -> LogRecord {
    let mut body = Vec::new();
    body.put_u64(view.0);
    stable.put(&mut body);
    for part in [new_view.map(NewView::encode), ack] {
        let part = part.unwrap_or_default();
        body.put_u32(part.len() as u32);
        body.bytes(&part);
    }
    LogRecord::new(&[kind::CONTROL_SUMMARY], body.into())
}

/// A COMMIT for a PREPARE that is logged.
pub(crate) fn commit(own: &Commit) -> LogRecord {
    let mut head = [0; 1 + COMMIT_BYTES];
    head[0] = kind::COMMIT;
    head[1..].copy_from_slice(&own.encoded());
    LogRecord::new(&head, Bytes::new())
}

/// A batch named by a message of a view change.
pub(crate) fn body(pillar: PillarId, slot: u64, batch: Bytes) -> LogRecord {
    LogRecord::new(&pillar_head::<11>(kind::BODY, pillar, &[slot]), batch).with_batch()
}

/// Slots that are committed.
pub(crate) fn committed(pillar: PillarId, view: View, through: u64) -> LogRecord {
    LogRecord::new(&pillar_head::<19>(kind::COMMITTED, pillar, &[view.0, through]), Bytes::new())
}

/// A window that moved.
pub(crate) fn forwarded(pillar: PillarId, base: u64) -> LogRecord {
    LogRecord::new(&pillar_head::<11>(kind::FORWARDED, pillar, &[base]), Bytes::new())
}

/// A view that a pillar entered.
pub(crate) fn entered(pillar: PillarId, view: View, current: View) -> LogRecord {
    LogRecord::new(&pillar_head::<19>(kind::ENTERED, pillar, &[view.0, current.0]), Bytes::new())
}

/// A stable checkpoint.
pub(crate) fn stable(certificate: &CheckpointCertificate) -> LogRecord {
    let mut body = Vec::new();
    certificate.put(&mut body);
    LogRecord::new(&[kind::STABLE], body.into())
}

/// This replica's VIEW-CHANGE.
pub(crate) fn left(encoded: &Bytes) -> LogRecord {
    LogRecord::new(&[kind::LEFT], encoded.clone())
}

/// A NEW-VIEW that is entered.
pub(crate) fn new_view(current: View, new_view: &NewView) -> LogRecord {
    let mut head = [0; 9];
    head[0] = kind::NEW_VIEW;
    head[1..].copy_from_slice(&current.0.to_le_bytes());
    LogRecord::new(&head, new_view.encode())
}

/// This replica's NEW-VIEW-ACK.
pub(crate) fn acknowledged(encoded: &Bytes) -> LogRecord {
    LogRecord::new(&[kind::ACKNOWLEDGED], encoded.clone())
}

/// `N` bytes: the kind, the pillar, and numbers.
fn pillar_head<const N: usize>(kind: u8, pillar: PillarId, numbers: &[u64]) -> [u8; N] {
    let mut head = Vec::with_capacity(N);
    head.put_u8(kind);
    head.put_u16(pillar.0);
    numbers.iter().for_each(|number| head.put_u64(*number));
    head.try_into().expect("the length is that of the fields")
}

impl LogEntry {
    /// Reads a record from its bytes, which stay shared.
    ///
    /// # Errors
    /// If it is none of this version of the format.
    pub(crate) fn parse(bytes: &Bytes, config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let rest = |reader: &Reader<'_>| bytes.slice(bytes.len() - reader.left()..);
        Ok(match reader.u8()? {
            kind::PREPARE => Self::Prepare { message: rest(&reader), own: None },
            kind::ACKNOWLEDGED_PREPARE => {
                let own = Some(Commit::parse(reader.take(COMMIT_BYTES)?)?);
                Self::Prepare { message: rest(&reader), own }
            }
            kind::COMMIT => Self::Commit(Commit::parse(rest(&reader).as_ref())?),
            kind::BODY => {
                let (pillar, slot) = (reader.pillar()?, reader.u64()?);
                Self::Body { pillar, slot, batch: rest(&reader) }
            }
            kind::COMMITTED => {
                let (pillar, view, through) = (reader.pillar()?, reader.view()?, reader.u64()?);
                reader.end()?;
                Self::Committed { pillar, view, through }
            }
            kind::FORWARDED => {
                let (pillar, base) = (reader.pillar()?, reader.u64()?);
                reader.end()?;
                Self::Forwarded { pillar, base }
            }
            kind::ENTERED => {
                let (pillar, view, current) = (reader.pillar()?, reader.view()?, reader.view()?);
                reader.end()?;
                Self::Entered { pillar, view, current }
            }
            kind::STABLE => {
                let certificate = CheckpointCertificate::read(&mut reader, config)?;
                reader.end()?;
                Self::Stable(certificate)
            }
            kind::LEFT => Self::Left(ViewChange::parse(&rest(&reader), config)?),
            kind::NEW_VIEW => {
                let current = reader.view()?;
                let new_view = Box::new(NewView::parse(&rest(&reader), config)?);
                Self::NewView { current, new_view }
            }
            kind::CONTROL_SUMMARY => {
                let view = reader.view()?;
                let stable = CheckpointCertificate::read(&mut reader, config)?;
                let mut part = || {
                    let length = reader.u32()? as usize;
                    reader.take(length).map(Bytes::copy_from_slice)
                };
                let (new_view, ack) = (part()?, part()?);
                reader.end()?;
                let is_there = |part: &&Bytes| !part.is_empty();
                let new_view = Some(&new_view).filter(is_there);
                let new_view = new_view.map(|it| NewView::parse(it, config)).transpose()?;
                let ack = Some(&ack).filter(is_there);
                let ack = ack.map(|it| NewViewAck::parse(it, config)).transpose()?;
                Self::ControlSummary { view, stable, new_view: new_view.map(Box::new), ack }
            }
            kind::SUMMARY => {
                let (pillar, view) = (reader.pillar()?, reader.view()?);
                let mut number = || reader.u64();
                let (base, prepared, committed) = (number()?, number()?, number()?);
                let (last_ms, inherited) = (number()?, number()?);
                let mut counters = [CounterValue::ZERO; Counter::ALL.len()];
                for counter in &mut counters {
                    *counter = CounterValue::new(number()?, number()?);
                }
                reader.end()?;
                Self::Summary(PillarSummary {
                    pillar,
                    view,
                    base,
                    prepared,
                    committed,
                    last_ms,
                    inherited,
                    counters,
                })
            }
            kind::KEPT => Self::Kept { message: rest(&reader), own: None },
            kind::KEPT_ACKNOWLEDGED => {
                let own = Some(Commit::parse(reader.take(COMMIT_BYTES)?)?);
                Self::Kept { message: rest(&reader), own }
            }
            kind::ACKNOWLEDGED => Self::Acknowledged(NewViewAck::parse(&rest(&reader), config)?),
            _ => return Err(WireError::Field("kind of record")),
        })
    }
}
