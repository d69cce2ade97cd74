//! The baseline: one server, the same requests, authenticators, session table and service, and no
//! replication protocol.

use bytes::Bytes;
use hybster_tss::{RandomnessKey, RequestVerifier};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::execution::{Execution, ExecutionStatus};
use crate::ids::{PillarId, ReplicaId};
use crate::intake::{LANES_BYTES, Lanes, Waiting};
use crate::output::{
    Agreed, ClientLink, Fatal, Input, Output, Reject, Source, ToExecution, ToIntake,
};
use crate::service::Service;
use crate::shared::requests::RequestChecks;
use crate::time::{Time, WallClock};
use crate::wire::request::requests_body;
use crate::wire::{Requests, kind};

/// An unreplicated server. Its configuration has n = 1, f = 0 and P = 1.
pub struct Unreplicated<V: RequestVerifier, S: Service> {
    config: Arc<GroupConfig>,
    verifier: V,
    execution: Execution<S>,
    next_slot: u64,
    clock: WallClock,
    /// What clients sent that have no room for more replies.
    lanes: Lanes,
}

impl<V: RequestVerifier, S: Service> Unreplicated<V, S> {
    /// A server in the initial state.
    ///
    /// # Panics
    /// If the configuration has more than one pillar.
    #[must_use]
    pub fn new(
        config: Arc<GroupConfig>,
        verifier: V,
        service: S,
        randomness: RandomnessKey,
    ) -> Self {
        assert_eq!(config.pillars, 1, "an unreplicated server has one pillar");
        let execution = Execution::new(config.clone(), ReplicaId(0), service, randomness);
        let (clock, lanes) = (WallClock::default(), Lanes::default());
        Self { config, verifier, execution, next_slot: 0, clock, lanes }
    }

    /// Tells the server the time of day.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.clock = clock;
    }

    /// Counters.
    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        self.execution.status()
    }

    /// Handles a message of a client.
    pub fn handle(&mut self, input: Input, now: Time, out: &mut Output) {
        match input {
            Input::Intake(ToIntake::Requests { from: Source::Client(link), message }) => {
                if !self.lanes.may_pass(link.client) {
                    if self.lanes.push(Waiting::new(link, message), out).is_err() {
                        out.reject(None, &[kind::REQUESTS], Reject::Overload);
                    }
                    return;
                }
                self.requests(link, &message, now, out);
            }
            Input::Intake(ToIntake::Held { client, is_held }) => {
                self.lanes.hold(client, is_held, out);
                self.serve(now, out);
            }
            Input::Execution(input @ (ToExecution::Query { .. } | ToExecution::Recall { .. })) => {
                self.execution.handle(input, now, out);
            }
            other => {
                let text = format!("an unreplicated server got {}", other.in_short());
                out.fail(Fatal::Invariant(text));
            }
        }
    }

    /// Whether so much waits that no client is to be read from.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.lanes.bytes() >= LANES_BYTES
    }

    /// Handles what clients sent while there was no room for more replies to them.
    fn serve(&mut self, now: Time, out: &mut Output) {
        for _ in 0..self.lanes.turns() {
            let Some(client) = self.lanes.next_turn() else { break };
            while let Some(waiting) = self.lanes.take(client) {
                self.requests(waiting.link, &waiting.message, now, out);
            }
            self.lanes.end_turn(client, out);
        }
    }

    /// The requests of a client.
    fn requests(&mut self, link: ClientLink, message: &Bytes, now: Time, out: &mut Output) {
        let checked = requests_body(message).map_err(Reject::from).and_then(|body| {
            let mut checks = RequestChecks::new(&self.verifier, &self.config);
            for request in Requests::new(body) {
                let request = request?;
                let session = request.session;
                if session.client != link.client || session.incarnation() != link.incarnation {
                    return Err(Reject::WrongSender);
                }
                checks.push(&request)?;
            }
            checks.finish()?;
            Ok(message.slice(message.len() - body.len()..))
        });
        match checked {
            Ok(batch) => self.execute(batch, now, out),
            Err(reason) => out.reject_client(link, message, reason),
        }
    }

    fn execute(&mut self, records: Bytes, now: Time, out: &mut Output) {
        // Nobody agrees, so no digest is needed: order number, time and the key make the batch's random
        // bytes, which no client can foresee either.
        let time_ms = self.clock.unix_ms(now);
        let batch = Agreed::alone(records, time_ms);
        let slot = self.next_slot;
        self.next_slot += 1;
        let input = ToExecution::Committed {
            pillar: PillarId(0),
            first_slot: slot,
            last_slot: slot,
            batch,
        };
        self.execution.handle(input, now, out);
        // Nobody transfers state from here: snapshots are dropped.
        let before = out.inputs.len();
        out.inputs.retain(|input| !matches!(input, Input::State(_)));
        let count = before - out.inputs.len();
        if count > 0 {
            self.execution.handle(ToExecution::SnapshotsDropped { count }, now, out);
        }
    }
}
