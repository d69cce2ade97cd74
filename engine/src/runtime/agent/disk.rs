//! What an agent does for the disk of its replica, and what it asks of it.

use hybster_net::Transport;
use hybster_proto::ids::OrderNumber;
use hybster_proto::input::ToIntake;
use hybster_proto::output::{Input, Output, ToControl, ToState};
use hybster_proto::time::{Time, earliest};

use super::{Agent, NETWORK_AGENT};
use crate::durable::RECORD;
use crate::runtime::Failure;

/// How often the log's beginning is looked at, in microseconds, while something happens.
const TRUNCATION_US: u64 = 100_000;

impl<T: Transport> Agent<T> {
    /// Has the disk keep what a stage did, before anything else of it is carried out.
    pub(super) fn keep(&mut self) {
        let Self { appender, output, has_appended, shared, .. } = self;
        *has_appended |= !output.records.is_empty();
        for record in output.records.drain(..) {
            if let (Some(bytes), Some(durable)) = (record.batch_bytes(), &shared.durable) {
                durable.log.expect(shared.config.window, bytes);
            }
            let appended = appender.as_ref().map(|it| it.append(RECORD, &record.parts()));
            if let Some(Err(error)) = appended {
                shared.fail(Failure::Disk(error.to_string()));
                *appender = None;
            }
        }
        if appender.is_none() {
            // Nothing leaves that the log does not have, and nobody acts on it.
            *output = Output { logging: true, ..Output::default() };
        }
        if let (Some(checkpoint), Some(durable)) = (output.checkpoint.take(), &shared.durable) {
            durable.save(checkpoint);
        }
        if let (Some(order), Some(durable)) = (output.summarized.take(), &shared.durable) {
            durable.summarized(order);
        }
    }

    /// Tells the stages which checkpoint is durable, and whether the disk has room for more, and has the next
    /// checkpoint written; the agent with the network does.
    pub(super) fn look_at_disk(&mut self) {
        let Some(durable) = self.shared.durable.as_ref().filter(|_| self.index == NETWORK_AGENT)
        else {
            return;
        };
        if durable.is_saving() && self.host >= self.saver_due {
            let again = durable.go_on().unwrap_or_default();
            self.saver_due = self.host.after_us(again.as_micros() as u64);
        }
        let lacks_room = durable.lacks_room();
        let saved = durable.saved();
        let is_due = self.host >= self.truncation_due;
        let begins = is_due && durable.truncate(&self.shared.config, self.shared.replica);
        if is_due {
            self.truncation_due = self.host.after_us(TRUNCATION_US);
        }
        if saved != self.saved {
            self.saved = saved;
            self.post(Input::State(ToState::Durable(OrderNumber(saved))));
        }
        if begins {
            self.post(Input::Control(ToControl::Summarize));
        }
        if lacks_room != self.lacks_room {
            self.lacks_room = lacks_room;
            let id = self.shared.replica.0;
            match lacks_room {
                true => log::warn!(
                    "replica {id}: its disk is full: clients are refused until there is room"
                ),
                false => log::info!("replica {id}: its disk has room: clients are served again"),
            }
            self.post(Input::Intake(ToIntake::DiskFull { is_full: lacks_room }));
        }
    }

    /// When [`Self::look_at_disk`] is due though nothing happens.
    pub(super) fn disk_due(&self) -> Option<Time> {
        let durable = self.shared.durable.as_ref().filter(|_| self.index == NETWORK_AGENT)?;
        let save = durable.is_saving().then_some(self.saver_due);
        let truncation = durable.is_truncating().then_some(self.truncation_due);
        earliest(save, truncation)
    }

    /// Whether the service waits until what was certified can leave.
    pub(super) fn awaits_log(&mut self) -> bool {
        let (Some(durable), Some(network)) = (&self.shared.durable, &self.network) else {
            return false;
        };
        let (end, released) = (durable.log.appended().0, network.released());
        self.slow_service.awaits_log(end, released, self.host)
    }

    /// Whether the disk has gone on since this agent looked.
    pub(super) fn has_news_of_disk(&mut self) -> bool {
        let Some(network) = &mut self.network else { return false };
        let saved = self.shared.durable.as_ref().map(|durable| durable.saved());
        network.has_released(self.host) || saved.is_some_and(|saved| saved != self.saved)
    }
}
