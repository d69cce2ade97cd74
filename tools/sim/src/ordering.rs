//! The ordering protocols that the simulator runs: the real stages of each, chosen by the group's constants.

use std::sync::Arc;

use hybster_proto::config::GroupConfig;
use hybster_proto::hybster::Hybster;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId};
use hybster_proto::input::{ToControl, ToPillar};
use hybster_proto::output::Output;
use hybster_proto::pbft::Pbft;
use hybster_proto::protocol::{
    Agreement, ControlStage, ControlStatus, Ordering, PillarStage, Protocol,
};
use hybster_proto::time::{Time, WallClock};
use hybster_tss::InProcessVerifier;

use crate::keys::Keys;
use crate::watched::Watched;

type HybsterOf = Hybster<Watched, InProcessVerifier>;
type PbftOf = Pbft<InProcessVerifier>;

/// Any of the protocols.
pub(crate) struct Any;

impl Ordering for Any {
    type Requests = InProcessVerifier;
    type Pillar = AnyPillar;
    type Control = AnyControl;
}

/// A pillar of any protocol.
pub(crate) enum AnyPillar {
    Hybster(Box<<HybsterOf as Ordering>::Pillar>),
    Pbft(Box<<PbftOf as Ordering>::Pillar>),
}

/// A control stage of any protocol.
pub(crate) enum AnyControl {
    Hybster(Box<<HybsterOf as Ordering>::Control>),
    Pbft(Box<<PbftOf as Ordering>::Control>),
}

/// What a replica needs to take part, in the initial state.
pub(crate) fn agreement(
    config: &Arc<GroupConfig>,
    id: ReplicaId,
    trinx: Vec<Watched>,
    keys: &Keys,
) -> Agreement<Any> {
    let verifier = || keys.verifier(config);
    match config.protocol {
        Protocol::Hybster => hybster(HybsterOf::agreement(config, id, trinx, verifier)),
        Protocol::Pbft => {
            let Agreement { protocol, requests, pillars, control } =
                PbftOf::agreement(config, id, verifier);
            let pillars = pillars.into_iter().map(|it| AnyPillar::Pbft(Box::new(it))).collect();
            let control = AnyControl::Pbft(Box::new(control));
            Agreement { protocol, requests, pillars, control }
        }
    }
}

/// Hybster's.
pub(crate) fn hybster(agreement: Agreement<HybsterOf>) -> Agreement<Any> {
    let Agreement { protocol, requests, pillars, control } = agreement;
    let pillars = pillars.into_iter().map(|it| AnyPillar::Hybster(Box::new(it))).collect();
    let control = AnyControl::Hybster(Box::new(control));
    Agreement { protocol, requests, pillars, control }
}

macro_rules! of {
    ($whole:expr, $it:ident => $what:expr) => {
        match $whole {
            Self::Hybster($it) => $what,
            Self::Pbft($it) => $what,
        }
    };
}

impl PillarStage for AnyPillar {
    fn set_wall_clock(&mut self, clock: WallClock) {
        of!(self, it => it.set_wall_clock(clock));
    }

    fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output) {
        of!(self, it => it.handle(input, now, out));
    }

    fn resume(&mut self, now: Time, out: &mut Output) {
        of!(self, it => PillarStage::resume(&mut **it, now, out));
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        of!(self, it => it.tick(now, out));
    }

    fn deadline(&self) -> Option<Time> {
        of!(self, it => it.deadline())
    }

    fn pillar(&self) -> PillarId {
        of!(self, it => it.pillar())
    }

    fn progress(&self) -> (OrderNumber, OrderNumber) {
        of!(self, it => it.progress())
    }

    fn window_base(&self) -> OrderNumber {
        of!(self, it => it.window_base())
    }

    fn check_all_invariants(&self) {
        of!(self, it => it.check_all_invariants());
    }
}

impl ControlStage for AnyControl {
    fn set_wall_clock(&mut self, clock: WallClock) {
        of!(self, it => it.set_wall_clock(clock));
    }

    fn handle(&mut self, input: ToControl, now: Time, out: &mut Output) {
        of!(self, it => it.handle(input, now, out));
    }

    fn resume(&mut self, now: Time, out: &mut Output) {
        of!(self, it => ControlStage::resume(&mut **it, now, out));
    }

    fn tick(&mut self, now: Time, out: &mut Output) {
        of!(self, it => it.tick(now, out));
    }

    fn deadline(&self) -> Option<Time> {
        of!(self, it => it.deadline())
    }

    fn status(&self) -> ControlStatus {
        of!(self, it => it.status())
    }

    fn differences_of(&self, peer: ReplicaId) -> u64 {
        of!(self, it => it.differences_of(peer))
    }
}
