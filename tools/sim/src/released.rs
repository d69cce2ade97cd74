//! What correct replicas have bound to the values of their counters, as others see it: a value is used
//! once, however often the replica is started again.

use std::collections::BTreeMap;

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{PillarId, ReplicaId};
use hybster_proto::internals::{Commit, NewView, PrepareHeader, ViewChange};
use hybster_proto::wire::{kind, kind_of};
use hybster_tss::{CounterValue, Digest};

use crate::oracle::Checked;

/// A counter: O of a pillar, or N.
type Account = (ReplicaId, Option<PillarId>);

/// Messages that left correct replicas, by the counter value that they used.
#[derive(Default)]
pub(crate) struct Released(BTreeMap<(Account, CounterValue), Digest>);

impl Released {
    /// A message leaves a correct replica.
    pub(crate) fn check(&mut self, by: ReplicaId, message: &[u8], config: &GroupConfig) -> Checked {
        match kind_of(message) {
            kind::PREPARE => {
                let Ok(header) = PrepareHeader::parse(message) else { return Ok(()) };
                let leader = config.leader(header.view);
                if leader == by {
                    self.note((by, Some(header.pillar)), header.value(), header.digest())?;
                }
            }
            kind::COMMIT => {
                let Ok(commit) = Commit::parse(message) else { return Ok(()) };
                if commit.sender == by {
                    let value = CounterValue::new(commit.view.0, commit.last.0);
                    self.note((by, Some(commit.pillar)), value, commit.digest())?;
                }
            }
            kind::VIEW_CHANGE => {
                let Ok(change) = ViewChange::parse(message, config) else { return Ok(()) };
                if change.sender != by {
                    return Ok(());
                }
                for (pillar, part) in config.all_pillars().zip(&change.parts) {
                    for link in &part.chain {
                        let value = CounterValue::new(link.to.0, 0);
                        self.note((by, Some(pillar)), value, link.digest)?;
                    }
                }
            }
            kind::NEW_VIEW => {
                let Ok(new_view) = NewView::parse(message, config) else { return Ok(()) };
                if config.leader(new_view.view) == by {
                    let value = CounterValue::new(new_view.view.0, 0);
                    self.note((by, None), value, new_view.digest())?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, of: Account, value: CounterValue, digest: Digest) -> Checked {
        let known = *self.0.entry((of, value)).or_insert(digest);
        if known == digest {
            return Ok(());
        }
        let (replica, pillar) = of;
        let story = format!("{replica} used {value} of {pillar:?} for two messages");
        Err(("a counter value is used once", story, vec![replica.0]))
    }
}
