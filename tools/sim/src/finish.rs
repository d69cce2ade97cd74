//! The end of a run: checks that everything is done and the history is linearizable, and reports.

use hybster_proto::egress::EgressCounters;
use hybster_proto::trace::file::Recording;

use crate::agenda::Event;
use crate::client::Client;
use crate::linear::{self, Verdict};
use crate::replica::Replica;
use crate::report::Report;
use crate::world::World;

impl World {
    /// After the faults: ends the run once all is answered and no view changed for a while.
    pub(crate) fn check_end(&mut self) {
        let left: Vec<String> = self
            .clients
            .iter()
            .flat_map(|c| c.calls.values().map(|pending| pending.submitted.call.caller.clone()))
            .collect();
        let all_done = self.clients.iter().all(Client::is_done);
        // Where all have a service of their own, all are looked at.
        let none_honest = !self.replicas.iter().any(Replica::honest);
        let live = self.replicas.iter().filter(|r| !r.crashed && (r.honest() || none_honest));
        let seen: Vec<_> = live.map(|r| &self.oracles.seen[usize::from(r.id.0)]).collect();
        let view = seen.iter().filter(|s| s.in_view).map(|s| s.view).max().unwrap_or_default();
        // A replica that left a view alone cannot come back to it: its leader, if it is not faulty,
        // sees to it that there is a next one (DEVIATIONS 27).
        let inside = seen.iter().filter(|s| s.in_view && s.view == view).count();
        let behind = seen.iter().any(|s| s.in_view && s.view < view);
        let leader = &self.replicas[usize::from(self.config.leader(view).0)];
        let may_be_alone = leader.crashed || !leader.honest();
        let is_replaced = self.scenario.replacement.is_none()
            || seen.iter().all(|s| s.epoch > self.config.epoch)
                && self.replicas.iter().all(|r| r.joins_as.is_none());
        let stable = is_replaced && inside > 0 && !behind && (may_be_alone || inside == seen.len());
        self.counters.alone_at_end = (seen.len() - inside) as u64;
        if all_done && stable && self.calm_view == Some(view.0) {
            self.done = true;
            return;
        }
        self.calm_view = (all_done && stable).then_some(view.0);
        let since_us = self.now_us - self.healed_at_us.unwrap_or(self.now_us);
        if since_us < self.scenario.patience_us {
            return self.schedule(self.now_us + self.calm_us(), Event::Check);
        }
        let views: Vec<String> = seen
            .iter()
            .map(|s| format!("{}{}", s.view, if s.in_view { "" } else { "?" }))
            .collect();
        let some = left.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let story = format!(
            "{since_us} us after the last fault {} calls have no answer ({some}), the live replicas \
             are in {}",
            left.len(),
            views.join(" "),
        );
        let live = self.replicas.iter().filter(|r| !r.crashed).map(|r| r.id.0).collect();
        self.violate(("liveness", story, live));
    }

    pub(crate) fn report(mut self) -> Report {
        match self.violation {
            Some(_) => {}
            None if self.is_registers => self.check_history(),
            None => self.check_results(),
        }
        let n = self.replicas.len();
        let mut last_events = Vec::new();
        if let Some(violation) = &self.violation {
            let mut concerned: Vec<usize> =
                violation.replicas.iter().map(|r| usize::from(*r)).collect();
            if concerned.is_empty() {
                concerned = (0..n).collect();
            }
            let mut events: Vec<_> = concerned
                .iter()
                .flat_map(|r| self.recent[*r].iter().map(move |e| (e.1, *r, e)))
                .collect();
            events.sort_by_key(|(step, r, _)| (*step, *r));
            last_events = events.iter().map(|(_, r, e)| self.line(*r, e.0, e.1, &e.2)).collect();
        }
        let live = self.replicas.iter().filter(|r| !r.crashed && r.honest());
        let lowest = live.map(|r| self.oracles.seen[usize::from(r.id.0)].frontier).min();
        self.counters.lag_at_end =
            self.oracles.highest() - lowest.unwrap_or(0).min(self.oracles.highest());
        self.counters.steps = self.step;
        self.counters.orders = self.oracles.highest();
        self.counters.peak_held = self.network.peak_held as u64;
        for egress in self.replicas.iter().filter_map(|r| r.egress.as_ref()) {
            let EgressCounters { withdrawn, duplicates, paced, .. } = *egress.counters();
            self.counters.withdrawn += withdrawn;
            self.counters.duplicates += duplicates;
            self.counters.paced += paced;
        }
        let peaks = self.replicas.iter().map(|r| r.peak_waiting as u64);
        self.counters.peak_inputs = peaks.max().unwrap_or(0);
        self.counters.results_gone = self.clients.iter().map(|c| c.results_gone).sum();
        self.counters.refused_by_disks = self.clients.iter().map(|c| c.refused_by_disks).sum();
        self.counters.states_differ = self.clients.iter().map(|c| c.states_differ).sum();
        self.counters.numbers_taken = self.clients.iter().map(|c| c.numbers_taken).sum();
        Report {
            name: self.scenario.name,
            seed: self.scenario.seed,
            violation: self.violation,
            last_events,
            trace: self.trace,
            recording: self.recording.map(Recording::finish),
            counters: self.counters,
            new_views: self.new_views.into_iter().map(|(_, seen)| seen).collect(),
            ended_us: self.now_us,
            hash: self.hash,
            sent_bytes: self.network.sent_bytes,
            installed_us: self.installed_us,
            latencies_us: self.clients.iter().flat_map(|c| c.latencies_us.clone()).collect(),
            times: self.oracles.times(),
            frontiers: self.oracles.seen.iter().map(|s| s.frontier).collect(),
        }
    }

    /// Each ordered operation that was answered was executed, with the result of the answer. That
    /// nothing was executed twice, or with other results elsewhere, was checked when it was executed.
    fn check_results(&mut self) {
        let answered = self.clients.iter().flat_map(|client| &client.answered);
        let wrong = answered.map(|(submitted, told)| {
            let name = &submitted.call.caller;
            match (self.oracles.result_of(submitted), told) {
                (None, _) => Some(format!("{name} was answered, and nobody executed it")),
                (Some(result), Some(told)) if result != *told => {
                    Some(format!("{name} was answered with another result than it had"))
                }
                _ => None,
            }
        });
        if let Some(story) = wrong.flatten().next() {
            self.violate(("answers are results", story, vec![]));
        }
    }

    fn check_history(&mut self) {
        let mut history = Vec::new();
        for client in &self.clients {
            history.extend(client.history.iter().cloned());
            history.extend(client.calls.values().map(|pending| pending.submitted.call.clone()));
            let ran = client.unsure.iter().filter(|submitted| self.oracles.has_run(submitted));
            history.extend(ran.map(|submitted| submitted.call.clone()));
        }
        match linear::check(&history) {
            Verdict::Linearizable => {}
            Verdict::Contradiction { key, stuck } => {
                let story = format!("no order explains register {key}; stuck at {stuck:#?}");
                self.violate(("linearizability", story, vec![]));
            }
            Verdict::Undecided { key } => {
                let story = format!("the search gave up on register {key}: make the run shorter");
                self.violate(("linearizability", story, vec![]));
            }
        }
    }
}
