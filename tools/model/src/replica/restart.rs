//! A replica that stops, at any record of its log, and is started again.
//!
//! What left it waited for the log, so a stop between two records takes back what was done behind
//! them and nothing that anybody has seen. What was free to leave counts as sent, although it may not
//! have left: it need never arrive.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex};

use hybster_proto::execution::Beginning;
use hybster_proto::hybster::{Hybster, Recovered};
use hybster_proto::ids::OrderNumber;
use hybster_proto::internals::fingerprint::Fingerprint;
use hybster_proto::internals::mutants::{self, Mutant};
use hybster_proto::output::Output;
use hybster_proto::replica::{Stages, Start};

use super::{Automaton, Effects, Life, NOW, Recorder, Seen, Stimulus, facts};
use crate::group::Group;

/// The output of a replica, with its records if it may be started again.
pub(super) fn output(logging: bool) -> Output {
    Output { tracing: true, logging, ..Output::default() }
}

impl Automaton {
    /// Something happens, but the log ends `kept` records later, and the replica comes back with that.
    pub(super) fn cut(&mut self, cause: Stimulus, kept: usize) -> Effects {
        let (mut seen, begin) = (self.seen.clone(), self.log.len());
        let mut effects = self.step(cause);
        if self.seen.breach.is_some() || self.life != Life::First {
            return effects;
        }
        let end = (begin + kept).min(self.log.len());
        if end < self.log.len() {
            effects.facts |= facts::CUT;
        }
        self.log.truncate(end);
        let is_gated = !mutants::active(Mutant::MessagesUngated);
        let left: Vec<bool> = effects.sent_at.iter().map(|at| *at <= end || !is_gated).collect();
        let mut left = left.into_iter();
        effects.sent.retain(|_| left.next().unwrap_or(false));
        for (at, order, batch) in mem::take(&mut self.committed) {
            if at <= end {
                seen.commits.insert(order, batch);
            }
        }
        self.restart(seen, &mut effects);
        effects
    }

    /// The replica comes back with what its log has. `before` is what was seen of it when that ended:
    /// what ran until then has run afterwards as well.
    pub(super) fn restart(&mut self, before: Seen, effects: &mut Effects) {
        if let Err(story) = self.come_back(before, effects) {
            self.seen.breach.get_or_insert(format!("{} {story}", self.id));
        }
    }

    fn come_back(&mut self, before: Seen, effects: &mut Effects) -> Result<(), String> {
        let (group, id) = (Arc::clone(&self.group), self.id);
        let (config, no_checkpoint) = (Arc::clone(&group.config), OrderNumber(0));
        let records = mem::take(&mut self.log);
        let views = self.views();
        let read = Recovered::read(Arc::clone(&config), id, no_checkpoint, true, records);
        let mut recovered = read.map_err(|error| format!("refuses its log: {error}"))?;
        let replay = recovered.take_replay();
        let stable = recovered.stable_checkpoint();
        let trinx =
            config.all_pillars().map(|p| group.restored(id, p, recovered.counters(p))).collect();
        let agreement = Hybster::recover(&config, id, trinx, || group.verifier(), &mut recovered);
        self.handed.fill(Fingerprint::default());
        self.others = Fingerprint::default();
        replay.iter().for_each(|input| self.note_handed(input));
        self.record = Arc::new(Mutex::new(Vec::new()));
        self.seen = Seen { commits: before.commits, ..Seen::default() };
        (self.out, self.life) = (output(true), Life::Returning);
        let service = Recorder(Arc::clone(&self.record));
        let randomness = Group::randomness();
        let start = Start { config: Arc::clone(&config), id, agreement, service, randomness };
        let beginning = Beginning { checkpoint: None, replay, stable };
        self.stages = Stages::recover(start, beginning, NOW, &mut self.out)
            .map_err(|error| format!("cannot begin: {error}"))?;
        let mut line = VecDeque::new();
        self.settle(&mut line, effects);
        self.stages.resume_control(NOW, &mut self.out);
        self.settle(&mut line, effects);
        for pillar in config.all_pillars() {
            self.stages.resume_pillar(pillar, NOW, &mut self.out);
            self.settle(&mut line, effects);
        }
        self.run(line, effects);
        if !self.seen.ran.starts_with(&before.ran) {
            return Err("has lost what it had run and logged".into());
        }
        if effects.facts & facts::CUT == 0 && self.views() != views {
            return Err(format!("was in {views:?} and comes back in {:?}", self.views()));
        }
        Ok(())
    }
}
