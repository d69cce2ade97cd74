//! PBFT's liars. They hold no trusted counter, so they can say one thing to one peer and another to
//! the next; but they can speak for nobody else, as links say who speaks.

use bytes::Bytes;
use hybster_proto::ids::{OrderNumber, ReplicaId, View};
use hybster_proto::internals::pbft::help::{encode_stable, parse_stable};
use hybster_proto::internals::pbft::kind;
use hybster_proto::internals::pbft::ordering::{
    Body, NULL, PRE_PREPARE_HEAD, PrePrepare, Vote, encode_checkpoint, parse_checkpoint,
};
use hybster_proto::internals::pbft::view::{Known, NewView, Pair, ViewChange, ViewChangeAck};
use hybster_proto::wire::{self, CheckpointId, kind_of};
use hybster_tss::Digest;

use super::{Departure, Host, Scene};

/// What PBFT's liars lie about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PbftLie {
    /// Two proposals for one order number, each with the votes for it, to different halves.
    Proposals,
    /// PREPAREs, COMMITs and COMMITTEDs for what nobody proposed, or somebody else.
    Votes,
    /// P and Q that hide what was done, or claim what was not.
    Sets,
    /// Acknowledgements of VIEW-CHANGEs that never were.
    Acks,
    /// NEW-VIEWs that rest on other VIEW-CHANGEs than were sent, or on too few.
    NewViews,
    /// CHECKPOINTs and STABLEs for other states, another one for each peer.
    Checkpoints,
}

impl PbftLie {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Proposals, Self::Votes, Self::Sets, Self::Acks, Self::NewViews, Self::Checkpoints];
}

/// Tells one lie, or a proposal of its own.
pub(super) struct PbftLiar {
    pub lie: PbftLie,
    pub ppm: u32,
}

/// Peers of the other half get the other story, the same ones from all liars.
fn is_other_half(scene: &Scene<'_>, to: ReplicaId) -> bool {
    to.0 > scene.group.replicas / 2
}

/// The same records at another time: another digest, as good as the first.
fn other_proposal(message: &Bytes) -> Option<Bytes> {
    let proposal = PrePrepare::parse(message, true).ok()?;
    if proposal.body.is_null() {
        return None;
    }
    let mut other = message.to_vec();
    other.truncate(PRE_PREPARE_HEAD);
    other.extend_from_slice(proposal.body.records());
    let place = (proposal.pillar, proposal.view, proposal.first);
    let Body { requests, time_ms, .. } = proposal.body;
    PrePrepare::write_head(&mut other, place, requests, time_ms + 1);
    Some(other.into())
}

/// What somebody proposed for about these order numbers.
fn some_digest(scene: &mut Scene<'_>) -> Digest {
    let any = match scene.random.below(4) {
        0 => None,
        1 => return NULL,
        _ => scene.archive.any(kind::PRE_PREPARE, scene.random),
    };
    let proposal = any.and_then(|(_, message)| PrePrepare::parse(&message, false).ok());
    proposal.map_or(Digest([scene.random.below(3) as u8 + 1; 32]), |it| it.body.digest)
}

impl PbftLiar {
    fn proposals(&self, scene: &mut Scene<'_>, leaving: &Departure) -> Option<Bytes> {
        if !is_other_half(scene, leaving.to) {
            return None;
        }
        if kind_of(&leaving.message) == kind::PRE_PREPARE {
            return other_proposal(&leaving.message);
        }
        // Its votes are for what that half was told.
        let vote = Vote::parse(&leaving.message).ok()?;
        let proposals = scene.archive.of(kind::PRE_PREPARE).rev().take(64);
        let mut others = proposals.filter_map(|(_, message)| {
            let PrePrepare { view, first, body, .. } = PrePrepare::parse(message, false).ok()?;
            let is_here = view == vote.view && first == vote.first;
            (is_here && body.digest != vote.digest).then_some(body.digest)
        });
        let digest = others.next()?;
        Some(Vote { digest, last: vote.first, ..vote }.encode())
    }

    fn votes(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        let mut vote = Vote::parse(message).ok()?;
        vote.digest = some_digest(scene);
        if vote.digest != NULL {
            vote.last = vote.first;
        }
        if scene.random.chance(200_000) {
            (vote.kind, vote.view) = (kind::COMMITTED, View(0));
        } else if scene.random.chance(200_000) && vote.kind != kind::COMMITTED {
            vote.view = View(vote.view.0 + scene.random.below(3));
        }
        Some(vote.encode())
    }

    fn pair(scene: &mut Scene<'_>, to: View) -> Pair {
        (some_digest(scene), View(to.0.saturating_sub(1 + scene.random.below(3))))
    }

    /// P and Q that are not what the replica did.
    fn changed(scene: &mut Scene<'_>, change: &mut ViewChange) {
        let to = change.to;
        match scene.random.below(9) {
            0 => change.parts.iter_mut().for_each(Vec::clear),
            1 => change.parts.iter_mut().flatten().for_each(|known| known.prepared = None),
            2 => change.parts.iter_mut().flatten().for_each(|known| known.pre_prepared.clear()),
            3 => {
                // A window's worth of inventions.
                let base = change.stable.order.0;
                for order in (base + 1..=base + scene.group.window.min(64)).map(OrderNumber) {
                    let (p, q) = (Self::pair(scene, to), Self::pair(scene, to));
                    let part = &mut change.parts[usize::from(scene.group.pillar_of(order).0)];
                    let known = part.binary_search_by_key(&order, |known| known.order);
                    let claim = Known { order, prepared: Some(p), pre_prepared: vec![q] };
                    match known {
                        Ok(at) => part[at] = claim,
                        Err(at) => part.insert(at, claim),
                    }
                }
            }
            4 => {
                // What is prepared is another's, of the latest view.
                for part in &mut change.parts {
                    for known in part {
                        let pair = Self::pair(scene, to);
                        known.prepared = Some(pair);
                        known.pre_prepared = vec![pair];
                    }
                }
            }
            5 => {
                for known in change.parts.iter_mut().flatten() {
                    if let Some((_, view)) = &mut known.prepared {
                        *view = View(to.0 - 1);
                    }
                }
            }
            6 => {
                // Everything that others may have committed was prepared as null since.
                let null = (NULL, View(to.0 - 1));
                for known in change.parts.iter_mut().flatten() {
                    (known.prepared, known.pre_prepared) = (Some(null), vec![null]);
                }
            }
            7 => {
                let next = change.stable.order.0 + scene.group.checkpoint_interval;
                let digest = Digest([scene.random.below(3) as u8; 32]);
                change.stable = CheckpointId { order: OrderNumber(next), digest };
                change.taken = vec![change.stable];
                change.parts.iter_mut().flatten().for_each(|known| known.prepared = None);
                let base = OrderNumber(next);
                change.parts.iter_mut().for_each(|part| part.retain(|known| known.order > base));
            }
            _ => {
                let next = change.stable.order.0 + scene.group.checkpoint_interval;
                let digest = Digest([scene.random.below(3) as u8; 32]);
                change.taken.truncate(1);
                change.taken.push(CheckpointId { order: OrderNumber(next), digest });
            }
        }
    }

    fn sets(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        let mut change = ViewChange::parse(message, scene.group).ok()?;
        Self::changed(scene, &mut change);
        Some(change.encode())
    }

    fn acks(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        let mut ack = ViewChangeAck::parse(message, scene.group).ok()?;
        if scene.random.chance(300_000) {
            // For one that it makes up itself, of any replica.
            let (_, other) = scene.archive.any(kind::VIEW_CHANGE, scene.random)?;
            let mut change = ViewChange::parse(&other, scene.group).ok()?;
            Self::changed(scene, &mut change);
            ack.got = vec![(change.sender, wire::digest(&change.encode()))];
        } else {
            for (_, digest) in &mut ack.got {
                digest.0[0] ^= 1;
            }
        }
        Some(ack.encode())
    }

    fn new_views(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        let mut new_view = NewView::parse(message, scene.group).ok()?;
        match scene.random.below(4) {
            0 => {
                new_view.changes.pop();
            }
            1 => {
                let at = scene.random.index(new_view.changes.len());
                new_view.changes.remove(at);
            }
            2 => {
                // One of another: it says what the liar likes.
                let at = scene.random.index(new_view.changes.len());
                let (digest, change) = &mut new_view.changes[at];
                Self::changed(scene, change);
                *digest = wire::digest(&change.encode());
            }
            _ => {
                // All that agree with nobody.
                for (digest, change) in &mut new_view.changes {
                    change.parts.iter_mut().for_each(Vec::clear);
                    *digest = wire::digest(&change.encode());
                }
            }
        }
        Some(new_view.encode())
    }

    fn checkpoints(scene: &mut Scene<'_>, message: &Bytes) -> Option<Bytes> {
        let (group, is_stable) = (scene.group, kind_of(message) == kind::STABLE);
        let parsed =
            if is_stable { parse_stable(message, group) } else { parse_checkpoint(message, group) };
        let mut id = parsed.ok()?;
        // Another one for each peer.
        id.digest.0[0] = scene.random.below(4) as u8;
        if is_stable && scene.random.chance(300_000) {
            id.order.0 += group.checkpoint_interval * scene.random.between(1, 4);
        }
        Some(if is_stable { encode_stable(&id) } else { encode_checkpoint(&id, group) })
    }
}

impl Host for PbftLiar {
    fn outgoing(&mut self, scene: &mut Scene<'_>, leaving: Departure, send: &mut Vec<Departure>) {
        let kind = kind_of(&leaving.message);
        let votes = [kind::PREPARE, kind::COMMIT, kind::COMMITTED].contains(&kind);
        // Two stories must be told consistently.
        let lies = self.lie == PbftLie::Proposals || scene.random.chance(self.ppm);
        let message = &leaving.message;
        let lie = match self.lie {
            _ if !lies => None,
            PbftLie::Proposals if votes || kind == kind::PRE_PREPARE => {
                self.proposals(scene, &leaving)
            }
            PbftLie::Votes if votes => Self::votes(scene, message),
            PbftLie::Sets if kind == kind::VIEW_CHANGE => Self::sets(scene, message),
            PbftLie::Acks if kind == kind::VIEW_CHANGE_ACK => Self::acks(scene, message),
            PbftLie::NewViews if kind == kind::NEW_VIEW => Self::new_views(scene, message),
            PbftLie::Checkpoints if [kind::CHECKPOINT, kind::STABLE].contains(&kind) => {
                Self::checkpoints(scene, message)
            }
            _ => None,
        };
        match lie {
            Some(message) => send.push(Departure { message, ..leaving }),
            None => send.push(leaving),
        }
    }

    fn ticks(&self) -> bool {
        true
    }

    /// Now and then something out of turn.
    fn tick(&mut self, scene: &mut Scene<'_>) {
        if !scene.random.chance(self.ppm / 4) {
            return;
        }
        let message = match self.lie {
            PbftLie::Proposals | PbftLie::Votes => {
                let some = [kind::PREPARE, kind::COMMIT, kind::COMMITTED];
                let of = *scene.random.pick(&some);
                let any = scene.archive.any(of, scene.random);
                any.and_then(|(_, message)| Self::votes(scene, &message))
            }
            PbftLie::Sets | PbftLie::Acks | PbftLie::NewViews => {
                // A view that nobody else wants, rarely.
                let any = scene.archive.any(kind::VIEW_CHANGE, scene.random);
                let parsed = any.and_then(|(_, it)| ViewChange::parse(&it, scene.group).ok());
                parsed.filter(|_| scene.random.chance(100_000)).map(|mut change| {
                    change.sender = scene.replica;
                    change.to = change.to.next();
                    Self::changed(scene, &mut change);
                    change.encode()
                })
            }
            PbftLie::Checkpoints => {
                let any = scene.archive.any(kind::CHECKPOINT, scene.random);
                any.and_then(|(_, message)| Self::checkpoints(scene, &message))
            }
        };
        if let Some(message) = message {
            scene.send_some(&message);
        }
    }
}
