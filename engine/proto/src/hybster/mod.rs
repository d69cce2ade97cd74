//! The Hybster ordering protocol over pillars: what is Hybster's and no other protocol's.
//!
//! | TR listing | here |
//! |---|---|
//! | 16 ordering | `hybster/pillar` |
//! | 18 checkpointing, the exchange | `hybster/pillar` |
//! | 12 view status, 19 view change | `hybster/control`, checks in `hybster/verify` |

mod bounds;
mod carried;
pub(crate) mod control;
mod epoch;
pub(crate) mod events;
pub(crate) mod input;
pub(crate) mod pillar;
pub(crate) mod record;
mod recovery;
pub(crate) mod verify;
pub(crate) mod wire;

pub(crate) use control::Control;
pub(crate) use input::{ControlInput, PillarInput};
pub(crate) use pillar::Pillar;

use std::marker::PhantomData;
use std::sync::Arc;

use hybster_tss::{RequestVerifier, TrInX, Verifier};

use crate::admission::{Class, Cost};
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId};
use crate::input::{ToControl, ToPillar};
use crate::output::Output;
use crate::protocol::{
    Agreement, ControlStage, ControlStatus, Handler, Ordering, PillarStage, Protocol, Rules,
    Threshold,
};
use crate::time::{Time, WallClock};
use crate::wire::kind;

pub use carried::{CertificateError, beginning, beginning_of_epoch, certify, verify};
pub use epoch::{EndError, next_epoch};
pub use recovery::{Recovered, RecoveryError};
use wire::ordering::PREPARE_HEAD;
use wire::view::{LINK_BYTES, MAX_LINKS};

/// Hybster's rules (TR section 3.5): no replica can say two things, so majorities suffice.
pub const RULES: Rules = Rules {
    replicas_per_fault: 2,
    quorum: Threshold::Majority,
    // TR listing 18: certificates are transferable, and one correct replica holds the state.
    stable: Threshold::OneCorrect,
    reply: Threshold::OneCorrect,
    // DEVIATIONS 18: a write may be known to f+1 replicas only, so no smaller set shares a correct one.
    query: Threshold::All,
    proposal: kind::PREPARE,
    proposal_head: PREPARE_HEAD,
    longest_message,
    longest_record,
    buffers: bounds::of_stages,
    handler,
    cost,
    batch_requests: pillar::BATCH_REQUESTS,
    relays_replies: true,
    is_thrifty: true,
    late_vote: Some(kind::COMMIT),
    starts_once: true,
    shares_a_key: true,
    keeps_log: true,
};

/// Hybster with a back end of TrInX and what verifies its certificates and the clients' requests.
#[derive(Debug)]
pub struct Hybster<T, V>(PhantomData<fn() -> (T, V)>);

impl<T, V> Ordering for Hybster<T, V>
where
    T: TrInX + 'static,
    V: Verifier + RequestVerifier + 'static,
{
    type Requests = V;
    type Pillar = Pillar<T, V>;
    type Control = Control<V>;
}

impl<T, V> Hybster<T, V>
where
    T: TrInX + 'static,
    V: Verifier + RequestVerifier + 'static,
{
    /// What a replica needs to take part, in the initial state.
    ///
    /// # Panics
    /// If there is not exactly one TrInX instance per pillar, in the pillars' order.
    pub fn agreement(
        config: &Arc<GroupConfig>,
        id: ReplicaId,
        trinx: Vec<T>,
        mut verifier: impl FnMut() -> V,
    ) -> Agreement<Self> {
        assert_eq!(trinx.len(), usize::from(config.pillars), "one TrInX instance per pillar");
        let pillars = config
            .all_pillars()
            .zip(trinx)
            .map(|(pillar, trinx)| Pillar::new(config.clone(), id, pillar, trinx, verifier()))
            .collect();
        let control = Control::new(config.clone(), id, verifier());
        Agreement { protocol: Protocol::Hybster, requests: verifier(), pillars, control }
    }

    /// What a replica needs to take part again, where its log ended.
    ///
    /// # Panics
    /// As [`Hybster::agreement`], and if the counters of an instance are not those of
    /// [`Recovered::counters`].
    pub fn recover(
        config: &Arc<GroupConfig>,
        id: ReplicaId,
        trinx: Vec<T>,
        mut verifier: impl FnMut() -> V,
        recovered: &mut Recovered,
    ) -> Agreement<Self> {
        assert_eq!(trinx.len(), usize::from(config.pillars), "one TrInX instance per pillar");
        let (boundary, is_first_start) =
            (recovered.control.stable.boundary(), recovered.control.is_first_start);
        let of_log = trinx.into_iter().zip(&mut recovered.pillars);
        let pillars = config
            .all_pillars()
            .zip(of_log)
            .map(|(pillar, (trinx, of_log))| {
                let mut it = Pillar::recover(config.clone(), id, pillar, trinx, verifier(), of_log);
                it.bounded_by(boundary);
                if !is_first_start {
                    it.awaits_last_seen();
                }
                it
            })
            .collect();
        let of_log = std::mem::take(&mut recovered.control);
        let control = Control::recover(config.clone(), id, verifier(), of_log);
        Agreement { protocol: Protocol::Hybster, requests: verifier(), pillars, control }
    }
}

impl<T: TrInX, V: Verifier + RequestVerifier> PillarStage for Pillar<T, V> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        Self::set_wall_clock(self, clock);
    }

    #[inline]
    fn handle(&mut self, input: ToPillar, now: Time, out: &mut Output) {
        Self::handle(self, input, now, out);
    }

    fn resume(&mut self, now: Time, out: &mut Output) {
        Self::resume(self, now, out);
    }

    #[inline]
    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    #[inline]
    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn pillar(&self) -> PillarId {
        Self::pillar(self)
    }

    fn progress(&self) -> (OrderNumber, OrderNumber) {
        Self::progress(self)
    }

    fn window_base(&self) -> OrderNumber {
        Self::window_base(self)
    }

    fn check_all_invariants(&self) {
        Self::check_all_invariants(self);
    }
}

impl<V: Verifier> ControlStage for Control<V> {
    fn set_wall_clock(&mut self, clock: WallClock) {
        Self::set_wall_clock(self, clock);
    }

    #[inline]
    fn handle(&mut self, input: ToControl, now: Time, out: &mut Output) {
        Self::handle(self, input, now, out);
    }

    fn resume(&mut self, now: Time, out: &mut Output) {
        Self::resume(self, now, out);
    }

    #[inline]
    fn tick(&mut self, now: Time, out: &mut Output) {
        Self::tick(self, now, out);
    }

    #[inline]
    fn deadline(&self) -> Option<Time> {
        Self::deadline(self)
    }

    fn status(&self) -> ControlStatus {
        Self::status(self)
    }

    fn differences_of(&self, peer: ReplicaId) -> u64 {
        Self::differences_of(self, peer)
    }
}

/// A NEW-VIEW with a VIEW-CHANGE and a NEW-VIEW-ACK of each replica, each with a full window of
/// prepared headers, as its own.
fn longest_message(config: &GroupConfig) -> u64 {
    let headers = (2 * u64::from(config.replicas) + 1) * PREPARE_HEAD as u64;
    config.window.saturating_mul(headers).saturating_add(64 << 10)
}

/// The same NEW-VIEW where each VIEW-CHANGE has all the links that one may have: a replica can leave view
/// after view by itself.
fn longest_record(config: &GroupConfig) -> u64 {
    let parts = u64::from(config.replicas) * u64::from(config.pillars);
    let links = parts * (MAX_LINKS * LINK_BYTES) as u64;
    longest_message(config).saturating_add(links)
}

fn handler(kind: u8) -> Option<Handler> {
    match kind {
        kind::PREPARE
        | kind::COMMIT
        | kind::CHECKPOINT
        | kind::ORDER_REQUEST
        | kind::LAST_SEEN
        | kind::BATCH_REQUEST
        | kind::BATCH => Some(Handler::Pillar),
        kind::VIEW_CHANGE
        | kind::NEW_VIEW
        | kind::NEW_VIEW_ACK
        | kind::STATE_REQUEST
        | kind::STATE => Some(Handler::Control),
        _ => None,
    }
}

fn cost(kind: u8) -> Option<Cost> {
    Some(match kind {
        kind::PREPARE | kind::COMMIT => Cost::new(Class::Ordering, 0, 0),
        // A trusted MAC and the digest below it; comes once in a checkpoint interval.
        kind::CHECKPOINT => Cost::new(Class::Ordering, 4_000, 0),
        // Is hashed, if it was asked for.
        kind::BATCH => Cost::new(Class::Ordering, 0, 256),
        // An answer is looked for, and made.
        kind::ORDER_REQUEST => Cost::new(Class::Asking, 4_000, 0),
        // A certificate; comes once for each link.
        kind::LAST_SEEN => Cost::new(Class::Asking, 4_000, 0),
        kind::BATCH_REQUEST | kind::STATE_REQUEST => Cost::new(Class::Asking, 8_000, 0),
        // Certificates and chains of them.
        kind::VIEW_CHANGE | kind::NEW_VIEW | kind::NEW_VIEW_ACK | kind::STATE => {
            Cost::new(Class::Changing, 8_000, 0)
        }
        _ => return None,
    })
}
