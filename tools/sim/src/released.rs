//! What correct replicas have bound to the values of their counters, as others see it: a value is used
//! once, however often the replica is started again. One that was started from an older copy of its log certifies
//! nothing where it had been: the same message this time is another one the next.

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
pub(crate) struct Released {
    used: BTreeMap<(Account, CounterValue), Digest>,
    /// Of replicas that were started from a copy of their log: the values that the copy lacks, from behind the first to
    /// the second.
    lacking: BTreeMap<Account, (CounterValue, CounterValue)>,
}

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
                        self.follows((by, pillar), link.previous)?;
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

    /// A replica is started from a copy of its log, which puts O of a pillar here.
    pub(crate) fn copied(&mut self, replica: ReplicaId, pillar: PillarId, at: CounterValue) {
        let of = (replica, Some(pillar));
        let all = (of, CounterValue::ZERO)..=(of, CounterValue::MAX);
        let last = self.used.range(all).next_back().map_or(CounterValue::ZERO, |((_, at), _)| *at);
        self.lacking.insert(of, (at, last));
    }

    /// Who leaves a view discloses what it has certified before: with a copy, too little.
    fn follows(&self, (by, pillar): (ReplicaId, PillarId), previous: CounterValue) -> Checked {
        let lacking = self.lacking.get(&(by, Some(pillar)));
        if lacking.is_some_and(|(from, to)| previous >= *from && previous < *to) {
            let story = format!("{by} disclosed {previous} of {pillar}, and had been beyond it");
            return Err(("an older copy certifies nothing", story, vec![by.0]));
        }
        Ok(())
    }

    fn note(&mut self, of: Account, value: CounterValue, digest: Digest) -> Checked {
        let (replica, pillar) = of;
        if self.lacking.get(&of).is_some_and(|(from, to)| value > *from && value <= *to) {
            let story = format!("{replica} used {value} of {pillar:?}, where it had been before");
            return Err(("an older copy certifies nothing", story, vec![replica.0]));
        }
        let known = *self.used.entry((of, value)).or_insert(digest);
        if known == digest {
            return Ok(());
        }
        let story = format!("{replica} used {value} of {pillar:?} for two messages");
        Err(("a counter value is used once", story, vec![replica.0]))
    }
}
