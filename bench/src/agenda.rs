//! Events while measuring: replicas that are killed, stopped or started again at given times.

use std::time::{Duration, Instant};

use hybster::durable::Durability;

use crate::Error;
use crate::engine::Monitor;
use crate::launch::{Group, Namespaces};
use crate::load::BUCKET;
use crate::options::{Action, Event, Slow};
use crate::report::{EventReport, ProcessReport, Recovery};
use crate::spec::GroupSpec;
use crate::stop::Stop;

/// What is still to be done, and what was done.
#[derive(Debug, Default)]
pub struct Agenda {
    /// In the order of their times.
    todo: Vec<(Duration, Step)>,
    happened: Vec<Happened>,
    /// Replicas that were killed and stay away.
    dead: Vec<u16>,
    /// What processes had used that were killed.
    spent: Vec<ProcessReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin(Action),
    /// What lasts ends: of the event with this number, in the order in which they happened.
    End(usize),
}

/// An event that has happened.
#[derive(Clone, Copy, Debug)]
struct Happened {
    action: Action,
    replica: u16,
    at: Duration,
    over: Option<Duration>,
    /// Whether it lasts, and is to be ended.
    is_on: bool,
}

impl Agenda {
    /// These events, in a group like this, in an interval of this length.
    ///
    /// # Errors
    /// If the group cannot take part in them.
    pub fn new(events: &[Event], spec: &GroupSpec, length: Duration) -> Result<Self, Error> {
        let mut kills = 0;
        for event in events {
            let refuse = |why: String| Err(Error::new(format!("--event {event}: {why}")));
            if spec.unreplicated {
                return refuse("one server without replication does not survive it".into());
            }
            if let Some(replica) = event.action.replica().filter(|r| *r >= spec.replicas) {
                let last = spec.replicas - 1;
                return refuse(format!("there is no replica {replica}: they are 0 to {last}"));
            }
            if event.at >= length {
                let length = hybster::duration::Human(length);
                return refuse(format!("the measurement ends before it, after {length}"));
            }
            match event.action {
                Action::Kill(_) => kills += 1,
                Action::Restart(_) if spec.durability == Durability::None => {
                    return refuse(
                        "a replica that keeps nothing cannot start again: add --durability sync or \
                         async"
                            .into(),
                    );
                }
                Action::SlowLink(_, slow, _) => Namespaces::check(slow)?,
                Action::Restart(_) | Action::Pause(..) | Action::Partition(..) => {}
            }
            if kills > spec.faults {
                let faults = spec.faults;
                return refuse(format!(
                    "the group goes on after {faults} kills at most (f = {faults})"
                ));
            }
        }
        let mut todo: Vec<_> = events.iter().map(|e| (e.at, Step::Begin(e.action))).collect();
        todo.sort_by_key(|(at, _)| *at);
        Ok(Self { todo, ..Self::default() })
    }

    /// When there is something to do next, from the begin of the interval.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.todo.first().map(|(at, _)| *at)
    }

    /// Replicas that were killed and stay away.
    #[must_use]
    pub fn dead(&self) -> &[u16] {
        &self.dead
    }

    /// What processes had used that were killed.
    #[must_use]
    pub fn spent(&self) -> &[ProcessReport] {
        &self.spent
    }

    /// Does what comes next.
    ///
    /// # Errors
    /// If the leader is not known, or a replica does not start again.
    pub fn go_on(
        &mut self,
        group: &mut Group,
        monitor: &mut Monitor,
        begin: Instant,
        stop: &Stop,
    ) -> Result<(), Error> {
        if self.todo.is_empty() {
            return Ok(());
        }
        let (_, step) = self.todo.remove(0);
        let action = match step {
            Step::Begin(action) => action,
            Step::End(event) => return self.end(event, group, begin),
        };
        let replica = match action.replica() {
            Some(replica) => replica,
            None => leader(monitor)?,
        };
        if self.dead.contains(&replica) {
            let text = format!("--event {action}: replica {replica} was killed before");
            return Err(Error::new(text));
        }
        let mut event = Happened { action, replica, at: begin.elapsed(), over: None, is_on: false };
        match action {
            Action::Kill(_) => {
                self.note_spent(group, replica);
                self.dead.push(replica);
                group.kill(replica);
            }
            Action::Restart(_) => {
                self.note_spent(group, replica);
                group.kill(replica);
                group.restart(replica, stop)?;
                event.over = Some(begin.elapsed());
            }
            Action::Pause(..) => group.pause(replica)?,
            Action::Partition(..) => group.network()?.cut(replica, true)?,
            Action::SlowLink(one, slow, _) => self.slow(group, one, Some(slow))?,
        }
        if let Some(length) = action.length() {
            event.is_on = true;
            let end = (event.at + length, Step::End(self.happened.len()));
            let place = self.todo.partition_point(|(at, _)| *at <= end.0);
            self.todo.insert(place, end);
        }
        self.happened.push(event);
        Ok(())
    }

    fn note_spent(&mut self, group: &Group, replica: u16) {
        self.spent.extend(group.usage_of(replica));
    }

    fn end(&mut self, event: usize, group: &mut Group, begin: Instant) -> Result<(), Error> {
        let event = &mut self.happened[event];
        event.is_on = false;
        // It may have been killed meanwhile, by another event.
        if self.dead.contains(&event.replica) && !matches!(event.action, Action::SlowLink(None, ..))
        {
            return Ok(());
        }
        event.over = Some(begin.elapsed());
        let event = *event;
        self.undo(event, group)
    }

    fn undo(&self, event: Happened, group: &mut Group) -> Result<(), Error> {
        match event.action {
            Action::Pause(..) => group.resume(event.replica),
            Action::Partition(..) => group.network()?.cut(event.replica, false),
            Action::SlowLink(one, ..) => self.slow(group, one, None),
            Action::Kill(_) | Action::Restart(_) => Ok(()),
        }
    }

    /// The wire of one replica, or of all that run.
    fn slow(&self, group: &Group, one: Option<u16>, slow: Option<Slow>) -> Result<(), Error> {
        let all = 0..group.spec().replicas;
        let chosen = all.filter(|r| one.is_none_or(|one| one == *r) && !self.dead.contains(r));
        let network = group.network()?;
        chosen.into_iter().try_for_each(|replica| network.slow(replica, slow))
    }

    /// Lets all paused replicas go on, so that they can be stopped in order.
    ///
    /// # Errors
    /// If one has ended.
    pub fn resume_all(&mut self, group: &mut Group) -> Result<(), Error> {
        let paused =
            |event: &&mut Happened| event.is_on && matches!(event.action, Action::Pause(..));
        for event in self.happened.iter_mut().filter(paused) {
            event.is_on = false;
            if !self.dead.contains(&event.replica) {
                group.resume(event.replica)?;
            }
        }
        Ok(())
    }

    /// What happened, and what clients noticed of it by the throughput over time.
    #[must_use]
    pub fn reports(&self, completed: &[u32]) -> Vec<EventReport> {
        let bucket = |at: Duration| (at.as_nanos() / BUCKET.as_nanos()) as usize;
        let report = |(number, event): (usize, &Happened)| {
            // The time between two events belongs to the earlier one.
            let before = number.checked_sub(1).map(|n| self.happened[n]);
            let from = before.map_or(0, |e| bucket(e.over.unwrap_or(e.at)).min(bucket(event.at)));
            let next = self.happened.get(number + 1);
            let until = next.map_or(usize::MAX, |event| bucket(event.at));
            EventReport {
                event: event.action.to_string(),
                replica: event.replica,
                at_s: event.at.as_secs_f64(),
                over_s: event.over.map(|over| over.as_secs_f64()),
                recovery: Recovery::of(completed, from, bucket(event.at), until),
            }
        };
        self.happened.iter().enumerate().map(report).collect()
    }
}

/// The leader of the highest view that a replica is in.
fn leader(monitor: &mut Monitor) -> Result<u16, Error> {
    let statuses = monitor.all();
    let latest = statuses.iter().max_by_key(|status| status.view);
    let unknown = || Error::new("no replica answers a status request, so the leader is not known");
    latest.map(|status| status.leader).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::{Cli, ServiceKind};

    fn agenda(arguments: &[&str]) -> Result<Agenda, Error> {
        let run = Cli::parse_from([&["hybster-bench"], arguments].concat()).run;
        let spec = GroupSpec::new(&run.group, ServiceKind::Null, 2)?;
        Agenda::new(&run.events, &spec, run.duration)
    }

    #[test]
    fn events_wait_in_the_order_of_their_times() {
        let agenda =
            agenda(&["--event", "5s:pause 1 for 2s", "--event", "3s:kill-leader"]).unwrap();
        assert_eq!(agenda.next_at(), Some(Duration::from_secs(3)));
        assert_eq!(agenda.todo.len(), 2);
    }

    #[test]
    fn what_cannot_happen_is_refused_before() {
        for (arguments, text) in [
            (&["--event", "1s:kill 3"][..], "they are 0 to 2"),
            (&["--event", "10s:kill 1"], "ends before it, after 10s"),
            (&["--event", "1s:kill 1", "--event", "2s:kill-leader"], "(f = 1)"),
            (&["--event", "1s:restart 1"], "add --durability"),
            (&["--event", "1s:kill 0", "--unreplicated"], "does not survive"),
        ] {
            let error = agenda(arguments).unwrap_err().to_string();
            assert!(error.contains(text), "{arguments:?}: {error}");
        }
        assert!(agenda(&["--event", "1s:restart 1", "--durability", "async"]).is_ok());
    }

    #[test]
    fn each_event_has_the_time_until_the_next() {
        let happened = |at: u64, action| Happened {
            action,
            replica: 1,
            at: Duration::from_secs(at),
            over: None,
            is_on: false,
        };
        let mut completed = vec![10; 600];
        completed[100..120].fill(0);
        completed[300..350].fill(0);
        let agenda = Agenda {
            happened: vec![
                happened(1, Action::Restart(Some(1))),
                happened(3, Action::Kill(Some(1))),
            ],
            ..Agenda::default()
        };
        let gaps: Vec<_> = agenda.reports(&completed).iter().map(|e| e.recovery.gap_ms).collect();
        assert_eq!(gaps, [200, 500]);
    }
}
