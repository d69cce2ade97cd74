//! Which stage a message from a link is for.

use bytes::Bytes;

use crate::config::GroupConfig;
use crate::ids::ReplicaId;
use crate::input::{
    ClientLink, Input, Source, ToControl, ToExecution, ToIntake, ToPillar, ToState,
};
use crate::protocol::Handler;
use crate::wire::{self, kind};

/// The input for a message that arrived over a peer's link; `None` if its kind is unknown.
#[must_use]
pub fn route_peer_message(from: ReplicaId, message: Bytes, config: &GroupConfig) -> Option<Input> {
    let kind = wire::kind_of(&message);
    if let Some(handler) = (config.rules().handler)(kind) {
        return Some(match handler {
            Handler::Pillar => {
                let pillar = wire::pillar_field(&message);
                let pillar = pillar.filter(|p| p.0 < config.pillars)?;
                Input::Pillar(pillar, ToPillar::Message { from, message })
            }
            Handler::Control => Input::Control(ToControl::Message { from, message }),
        });
    }
    match kind {
        kind::REQUESTS => {
            Some(Input::Intake(ToIntake::Requests { from: Source::Peer(from), message }))
        }
        kind::FETCH | kind::FETCHED => Some(Input::State(ToState::Message { from, message })),
        _ => None,
    }
}

/// The input for a message that arrived over a client's link; `None` if its kind is unknown.
#[must_use]
pub fn route_client_message(link: ClientLink, message: Bytes) -> Option<Input> {
    Some(match wire::kind_of(&message) {
        kind::REQUESTS => Input::Intake(ToIntake::Requests { from: Source::Client(link), message }),
        kind::QUERIES => Input::Execution(ToExecution::Query { link, message }),
        kind::STATUS_REQUEST => Input::Control(ToControl::StatusRequest(link)),
        _ => return None,
    })
}
