//! VIEW-CHANGE, VIEW-CHANGE-ACK and NEW-VIEW (Castro 3.2.4).

use bytes::Bytes;
use hybster_tss::Digest;

use super::kind;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::wire::state::CheckpointId;
use crate::wire::{Put, Reader, WireError, digest};

/// Pairs of Q that are kept for an order number: those of the latest views (Castro 3.2.5, M).
pub const PAIRS: usize = 4;
/// Bytes of a digest and its view.
const PAIR_BYTES: usize = 40;
/// The most bytes that one order number takes in a VIEW-CHANGE.
pub const SLOT_BYTES: usize = 12 + (1 + PAIRS) * PAIR_BYTES;
/// The most bytes that the same takes once it was read.
pub const SLOT_MEMORY: usize = size_of::<Known>() + PAIRS * size_of::<Pair>();
/// Bytes of a checkpoint.
const ID_BYTES: usize = 40;
/// Bytes of one vote in a VIEW-CHANGE-ACK.
const ACK_BYTES: usize = 34;

/// A digest, and the latest view in which something was done with it.
pub type Pair = (Digest, View);

/// What a replica has done at one order number in the views that it has left (Castro 3.2.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The order number.
    pub order: OrderNumber,
    /// P: what it prepared in the latest view in which it prepared anything.
    pub prepared: Option<Pair>,
    /// Q: what it pre-prepared, each with the latest view.
    pub pre_prepared: Vec<Pair>,
}

/// A VIEW-CHANGE.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ViewChange {
    /// Who leaves its view.
    pub sender: ReplicaId,
    /// For which one.
    pub to: View,
    /// h: its stable checkpoint.
    pub stable: CheckpointId,
    /// C: the checkpoints that it has, the stable one first.
    pub taken: Vec<CheckpointId>,
    /// P and Q of each pillar, by rising order numbers.
    pub parts: Vec<Vec<Known>>,
}

impl ViewChange {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let known: usize = self.parts.iter().map(Vec::len).sum();
        let mut out = Vec::with_capacity(128 + ID_BYTES * self.taken.len() + SLOT_BYTES * known);
        out.extend_from_slice(&[kind::VIEW_CHANGE, 0]);
        out.put_u16(self.sender.0);
        out.put_u32(0);
        out.put_u64(self.to.0);
        put_id(&mut out, &self.stable);
        out.put_u32(self.taken.len() as u32);
        self.taken.iter().for_each(|id| put_id(&mut out, id));
        for part in &self.parts {
            out.put_u32(part.len() as u32);
            for known in part {
                out.put_u64(known.order.0);
                out.put_u16(known.prepared.is_some().into());
                out.put_u16(known.pre_prepared.len() as u16);
                for (digest, view) in known.prepared.iter().chain(&known.pre_prepared) {
                    out.bytes(&digest.0);
                    out.put_u64(view.0);
                }
            }
        }
        out.into()
    }

    /// Parses a message and checks what does not depend on who reads it: that all of it is of views
    /// before the one that it is for, and of the sender's window.
    ///
    /// # Errors
    /// If the layout or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::VIEW_CHANGE)?;
        reader.zeros(1)?;
        let sender = reader.replica()?;
        reader.zeros(4)?;
        let (to, stable) = (reader.view()?, read_id(&mut reader)?);
        if sender.0 >= config.replicas || to == View(0) {
            return Err(WireError::Field("sender"));
        }
        let is_initial = stable == CheckpointId::default();
        let beyond = stable.order.0.checked_add(config.window);
        let last = beyond.filter(|_| is_initial || config.is_checkpoint(stable.order));
        let last = last.ok_or(WireError::Field("checkpoint"))?;
        let count = reader.count(ID_BYTES, "checkpoints")?;
        let mut taken: Vec<CheckpointId> = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push(read_id(&mut reader)?);
        }
        let in_window = |id: &CheckpointId| {
            *id == stable
                || (config.is_checkpoint(id.order) && id.order > stable.order && id.order.0 <= last)
        };
        let rise = taken.is_sorted_by(|a, b| a.order < b.order);
        if taken.first() != Some(&stable) || !rise || !taken.iter().all(in_window) {
            return Err(WireError::Field("checkpoints"));
        }
        let window = (stable.order.0, last);
        let parts =
            config.all_pillars().map(|pillar| read_part(&mut reader, config, pillar, to, window));
        let parts = parts.collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { sender, to, stable, taken, parts })
    }
}

fn read_part(
    reader: &mut Reader<'_>,
    config: &GroupConfig,
    pillar: PillarId,
    to: View,
    (base, last): (u64, u64),
) -> Result<Vec<Known>, WireError> {
    let count = reader.count(12, "order numbers")?;
    if count as u64 > config.window_slots() {
        return Err(WireError::Field("order numbers"));
    }
    let mut part: Vec<Known> = Vec::with_capacity(count);
    for _ in 0..count {
        let (order, has_prepared, pairs) = (reader.order()?, reader.u16()?, reader.u16()?);
        let here = order.0 > base && order.0 <= last && config.pillar_of(order) == pillar;
        if !here || part.last().is_some_and(|before| before.order >= order) {
            return Err(WireError::Field("order"));
        }
        if has_prepared > 1 || usize::from(pairs) > PAIRS {
            return Err(WireError::Field("pairs"));
        }
        let mut pair = || {
            let pair = (reader.digest()?, reader.view()?);
            if pair.1 < to { Ok(pair) } else { Err(WireError::Field("view")) }
        };
        let prepared = if has_prepared == 1 { Some(pair()?) } else { None };
        let pre_prepared = (0..pairs).map(|_| pair()).collect::<Result<Vec<Pair>, _>>()?;
        for (at, (digest, _)) in pre_prepared.iter().enumerate() {
            if pre_prepared[..at].iter().any(|(other, _)| other == digest) {
                return Err(WireError::Field("pairs"));
            }
        }
        part.push(Known { order, prepared, pre_prepared });
    }
    Ok(part)
}

fn put_id(out: &mut Vec<u8>, id: &CheckpointId) {
    out.put_u64(id.order.0);
    out.bytes(&id.digest.0);
}

fn read_id(reader: &mut Reader<'_>) -> Result<CheckpointId, WireError> {
    Ok(CheckpointId { order: reader.order()?, digest: reader.digest()? })
}

/// A VIEW-CHANGE-ACK: the sender has got these VIEW-CHANGEs for a view, each from its own sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewChangeAck {
    /// The view.
    pub view: View,
    /// Whose VIEW-CHANGE, and its digest; rising.
    pub got: Vec<(ReplicaId, Digest)>,
}

impl ViewChangeAck {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::VIEW_CHANGE_ACK, 0, 0, 0];
        out.put_u32(self.got.len() as u32);
        out.put_u64(self.view.0);
        for (replica, digest) in &self.got {
            out.put_u16(replica.0);
            out.bytes(&digest.0);
        }
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::VIEW_CHANGE_ACK)?;
        reader.zeros(3)?;
        let count = reader.u32()? as usize;
        let view = reader.view()?;
        if count > usize::from(config.replicas) || reader.left() != count * ACK_BYTES {
            return Err(WireError::Field("votes"));
        }
        let mut got = Vec::with_capacity(count);
        for _ in 0..count {
            got.push((reader.replica()?, reader.digest()?));
        }
        reader.end()?;
        let rise = got.is_sorted_by(|a, b| a.0 < b.0);
        if !rise || got.last().is_some_and(|(replica, _)| replica.0 >= config.replicas) {
            return Err(WireError::Field("votes"));
        }
        Ok(Self { view, got })
    }
}

/// A NEW-VIEW: the VIEW-CHANGEs that decide what a view begins with.
///
/// Castro's has their digests, and what the leader has decided; a backup collects the messages and
/// decides again. Here it has the messages, and everybody decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewView {
    /// The view.
    pub view: View,
    /// The VIEW-CHANGEs, rising by sender, each with its digest.
    pub changes: Vec<(Digest, ViewChange)>,
}

impl NewView {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::NEW_VIEW, 0, 0, 0];
        out.put_u32(self.changes.len() as u32);
        out.put_u64(self.view.0);
        for (_, change) in &self.changes {
            let change = change.encode();
            out.put_u32(change.len() as u32);
            out.bytes(&change);
        }
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the layout or a field is wrong, a VIEW-CHANGE is for another view, or there are fewer than a
    /// quorum.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::NEW_VIEW)?;
        reader.zeros(3)?;
        let count = reader.u32()? as usize;
        let view = reader.view()?;
        if count > usize::from(config.replicas) {
            return Err(WireError::Field("view changes"));
        }
        let mut changes: Vec<(Digest, ViewChange)> = Vec::with_capacity(count);
        for _ in 0..count {
            let length = reader.u32()? as usize;
            let bytes = reader.take(length)?;
            let change = ViewChange::parse(bytes, config)?;
            let rises = changes.last().is_none_or(|(_, before)| before.sender < change.sender);
            if change.to != view || !rises {
                return Err(WireError::Field("view changes"));
            }
            changes.push((digest(bytes), change));
        }
        reader.end()?;
        Ok(Self { view, changes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn change(config: &GroupConfig, sender: u16) -> ViewChange {
        let known = |order, views: &[u64]| Known {
            order: OrderNumber(order),
            prepared: views.first().map(|view| (Digest([1; 32]), View(*view))),
            pre_prepared: views.iter().map(|v| (Digest([*v as u8; 32]), View(*v))).collect(),
        };
        let stable = CheckpointId { order: OrderNumber(256), digest: Digest([9; 32]) };
        let later = CheckpointId { order: OrderNumber(512), digest: Digest([8; 32]) };
        let mut parts = vec![Vec::new(); usize::from(config.pillars)];
        parts[0] = vec![known(257, &[3, 1]), known(261, &[])];
        let to = View(5);
        ViewChange { sender: ReplicaId(sender), to, stable, taken: vec![stable, later], parts }
    }

    #[test]
    fn view_changes_survive_the_round_trip() {
        let config = GroupConfig::default();
        let change = change(&config, 1);
        let bytes = change.encode();
        assert_eq!(ViewChange::parse(&bytes, &config), Ok(change.clone()));
        for length in 0..bytes.len() {
            assert!(ViewChange::parse(&bytes[..length], &config).is_err());
        }
        let got = vec![(ReplicaId(0), Digest([1; 32])), (ReplicaId(2), Digest([2; 32]))];
        let ack = ViewChangeAck { view: View(5), got };
        assert_eq!(ViewChangeAck::parse(&ack.encode(), &config), Ok(ack));
    }

    #[test]
    fn what_no_correct_replica_says_is_no_view_change() {
        let config = GroupConfig::default();
        let wrong = |spoil: fn(&mut ViewChange)| {
            let mut change = change(&config, 1);
            spoil(&mut change);
            assert!(ViewChange::parse(&change.encode(), &config).is_err());
        };
        // Of the view that it is for.
        wrong(|it| it.parts[0][0].prepared = Some((Digest([1; 32]), View(5))));
        wrong(|it| it.parts[0][0].pre_prepared[1].1 = View(5));
        // Twice, of another pillar, outside the window.
        wrong(|it| it.parts[0][1].order = OrderNumber(257));
        wrong(|it| it.parts[0][1].order = OrderNumber(262));
        wrong(|it| it.parts[0][0].order = OrderNumber(255));
        wrong(|it| it.parts[0][1].order = OrderNumber(256 + 1024 + 1));
        wrong(|it| it.parts[0][0].pre_prepared[1].0 = Digest([3; 32]));
        wrong(|it| it.taken.clear());
        wrong(|it| it.taken[1].order = OrderNumber(511));
        wrong(|it| it.stable.order = OrderNumber(u64::MAX));
        wrong(|it| it.sender = ReplicaId(3));
    }

    /// As much as a liar can put into them: what a group's constants are checked against holds.
    #[test]
    fn the_longest_messages_are_as_long_as_their_bound_says() {
        let protocol = Protocol::Pbft;
        let config = GroupConfig { protocol, replicas: 4, ..GroupConfig::default() };
        let to = View(99);
        let stable = CheckpointId { order: OrderNumber(256), digest: Digest([9; 32]) };
        let checkpoints = (0..=config.window / config.checkpoint_interval).map(|at| {
            let order = OrderNumber(stable.order.0 + at * config.checkpoint_interval);
            CheckpointId { order, ..stable }
        });
        let known = |pillar, slot| Known {
            order: config.order_at(pillar, config.slots_before(stable.order) + slot),
            prepared: Some((Digest([1; 32]), View(1))),
            pre_prepared: (0..PAIRS as u8).map(|it| (Digest([it; 32]), View(1))).collect(),
        };
        let part = |pillar| (0..config.window_slots()).map(|slot| known(pillar, slot)).collect();
        let parts: Vec<Vec<Known>> = config.all_pillars().map(part).collect();
        let change = |sender| {
            let (taken, parts) = (checkpoints.clone().collect(), parts.clone());
            ViewChange { sender: ReplicaId(sender), to, stable, taken, parts }
        };
        let longest = change(1);
        let bytes = longest.encode();
        let read = ViewChange::parse(&bytes, &config).unwrap();
        assert_eq!(read, longest);
        let kept: usize = read.parts.iter().flatten().map(|it| it.pre_prepared.capacity()).sum();
        let known: usize = read.parts.iter().map(Vec::capacity).sum();
        assert!(kept <= config.window as usize * PAIRS && known <= config.window as usize);
        // One more of anything, and it is refused.
        let refused = |spoil: fn(&mut ViewChange)| {
            let mut change = change(1);
            spoil(&mut change);
            assert!(ViewChange::parse(&change.encode(), &config).is_err());
        };
        refused(|it| it.parts[0][0].pre_prepared.push((Digest([9; 32]), View(1))));
        refused(|it| {
            let order = OrderNumber(it.parts[1].last().unwrap().order.0 + 2);
            it.parts[1].push(Known { order, ..Known::default() });
        });
        refused(|it| {
            let order = OrderNumber(it.taken.last().unwrap().order.0 + 256);
            it.taken.push(CheckpointId { order, ..it.stable });
        });
        let changes = (0..config.replicas).map(|sender| {
            let change = change(sender);
            (digest(&change.encode()), change)
        });
        let new_view = NewView { view: to, changes: changes.collect() };
        let bytes = new_view.encode();
        assert!(NewView::parse(&bytes, &config).is_ok());
        let bound = (config.rules().longest_message)(&config);
        assert!(bytes.len() as u64 <= bound, "{} of {bound}", bytes.len());
    }

    #[test]
    fn new_views_have_view_changes_for_their_view() {
        let config = GroupConfig::default();
        let changes = [0, 2].map(|sender| {
            let change = change(&config, sender);
            (digest(&change.encode()), change)
        });
        let new_view = NewView { view: View(5), changes: changes.to_vec() };
        assert_eq!(NewView::parse(&new_view.encode(), &config), Ok(new_view.clone()));
        let other = NewView { view: View(6), ..new_view.clone() };
        assert!(NewView::parse(&other.encode(), &config).is_err());
        let mut twice = new_view;
        twice.changes[1] = twice.changes[0].clone();
        assert!(NewView::parse(&twice.encode(), &config).is_err());
    }
}
