//! The end of an agent's turn: it sleeps, unless there is something to do.

use std::time::{Duration, Instant};

use hybster_net::Transport;
use hybster_proto::time::{Time, earliest};

use super::Agent;
use crate::runtime::channel::Outbox;
use crate::runtime::{Failure, Network};

/// How long the network is waited for at a time while a slow service gives it time.
const GIVEN_TIME: Duration = Duration::from_millis(1);

impl<T: Transport> Agent<T> {
    /// Sleeps until something arrives or a deadline passes, unless there is something to do.
    pub(super) fn wait(&mut self) {
        let is_working = self.stages_are.working;
        let is_busy = !self.ring.is_empty() || is_working || self.slow_service.is_waiting();
        let may_sleep = !is_busy && self.falls_asleep();
        let gives_time = self.gives_time() || self.awaits_log();
        // Read once: a clock costs as much as many of the steps of a turn.
        let now = Instant::now();
        let timeout = match may_sleep {
            true => self.timeout(self.shared.clock.at(now)),
            // Only the service is waited for, which waits for the network or the disk.
            false if self.ring.is_empty() && !is_working && gives_time => Some(GIVEN_TIME),
            false => Some(Duration::ZERO),
        };
        if may_sleep {
            self.shared.counters.agents[self.index].sleeps.add(1);
        }
        match &mut self.network {
            Some(network) => {
                let polled = network.poll(timeout, now, &mut self.arrived);
                if let Err(error) = polled {
                    self.shared.fail(Failure::Transport(error));
                }
            }
            None if may_sleep => match timeout {
                Some(timeout) => std::thread::park_timeout(timeout),
                None => std::thread::park(),
            },
            None => {}
        }
        if is_working && self.ring.is_empty() && self.arrived.is_empty() {
            // There is only background work, and another thread on this core may have messages to
            // handle. Without a yield, the scheduler would make it wait for the rest of a slice of
            // milliseconds, at each hop of a request.
            std::thread::yield_now();
        }
        self.doorbell().awake();
        let mut arrived = std::mem::take(&mut self.arrived);
        if let Some(recorder) = &mut self.recorder {
            recorder.arrived(&arrived);
        }
        arrived.drain(..).for_each(|input| self.post(input));
        self.arrived = arrived;
    }

    /// Announces the sleep, and then checks once more whether there is something to do.
    fn falls_asleep(&mut self) -> bool {
        let has_disk = self.shared.durable.is_some();
        if !has_disk && self.outboxes.iter().all(Option::is_none) {
            // Alone: only the network and the end of the replica wake it, and they ring always.
            return !self.shared.is_stopping();
        }
        self.doorbell().going_to_sleep();
        if has_disk && self.has_news_of_disk() {
            return false;
        }
        let has_mail = self.inboxes.iter().flatten().any(|inbox| !inbox.is_empty());
        let has_room = self.outboxes.iter().flatten().any(Outbox::could_flush);
        !(has_mail || has_room || self.shared.is_stopping())
    }

    /// How long it may sleep.
    fn timeout(&mut self, host: Time) -> Option<Duration> {
        self.end_turn(host);
        let network = self.network.as_ref().and_then(Network::deadline);
        let stages = self.stages_are.deadline.map(|at| self.clock.host(at));
        let deadline = earliest(earliest(network, stages), self.disk_due());
        deadline.map(|deadline| Duration::from_micros(deadline.since_us(host)))
    }
}
