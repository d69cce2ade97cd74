//! What a replica was when its log ends: the records read one after the other.
//!
//! Each stage logs what it does before anything of it leaves the host ([`LogEntry`]), so what is read
//! here is at least what others know of the replica. What it did after the last record it has not done:
//! nobody has seen it, and its counters are back where they were.
//!
//! The replica begins again with the last checkpoint that is durable. What it had committed beyond is
//! executed again ([`Recovered::take_replay`]); the other slots of the window have their PREPAREs and
//! COMMITs again, to be sent to whoever asks, and the protocol goes on with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hybster_tss::{Counter, CounterValue, Digest};

use super::record::{self, LogEntry, PillarSummary};
use super::wire::checkpoint::CheckpointCertificate;
use super::wire::ordering::{BATCH_DIGEST_AT, Commit, PREPARE_HEAD, PrepareHeader};
use super::wire::view::{Link, NewView, NewViewAck, ViewChange};
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::output::{Agreed, LogRecord, ToExecution};
use crate::shared::log::LOG_WINDOWS;
use crate::wire::WireError;

/// Why a log cannot be this replica's. Its counters cannot be told from it, so the replica must not
/// come back with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A record has another format.
    #[error(
        "a record of the log cannot be read: {0}; start the version of the program that wrote it"
    )]
    Format(#[from] WireError),
    /// A record contradicts those before it.
    #[error(
        "the log contradicts itself ({0}): it is damaged, or not this replica's; replace the replica"
    )]
    Contradiction(&'static str),
}

/// A replica as its log tells it.
#[derive(Debug)]
pub struct Recovered {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    pub(super) control: RecoveredControl,
    pub(super) pillars: Vec<RecoveredPillar>,
    /// NEW-VIEWs that were entered and that some pillar has not entered yet.
    new_views: BTreeMap<View, Arc<NewView>>,
    /// Whose slots are being read, if they are of use.
    summarized: Option<PillarId>,
}

/// The control stage.
#[derive(Debug, Default)]
pub(super) struct RecoveredControl {
    pub(super) stable_view: View,
    pub(super) current: View,
    pub(super) established: Option<Arc<NewView>>,
    pub(super) stable: CheckpointCertificate,
    /// The last VIEW-CHANGE, while its view is not entered.
    pub(super) own_change: Option<Arc<ViewChange>>,
    pub(super) own_ack: Option<Arc<NewViewAck>>,
    /// The stable view was entered after it had been left, and must be acknowledged.
    pub(super) is_belated: bool,
    /// VIEW-CHANGEs since the last view was entered.
    pub(super) left_since_stable: usize,
    /// Per pillar the slot to propose next.
    pub(super) next_slots: Vec<u64>,
    /// Whether execution can reach the stable checkpoint with what the log has.
    pub(super) is_reached: bool,
    /// Nothing was ever certified: peers have seen nothing that would have to be told.
    pub(super) is_first_start: bool,
    /// Whether what is here is all that the log has: not before the summary, if its beginning was
    /// removed.
    is_known: bool,
}

/// A pillar.
#[derive(Debug)]
pub(super) struct RecoveredPillar {
    pub(super) view: View,
    pub(super) active: bool,
    pub(super) base: u64,
    pub(super) prepared: u64,
    pub(super) committed: u64,
    pub(super) handed: u64,
    pub(super) counters: [CounterValue; Counter::ALL.len()],
    pub(super) chain: Vec<Link>,
    pub(super) slots: BTreeMap<u64, RecoveredSlot>,
    /// Batches that are not in `slots`, with the last slot that they are named for.
    pub(super) bodies: BTreeMap<Digest, (u64, Bytes)>,
    pub(super) last_ms: u64,
    pub(super) inherited: u64,
    /// What it did last of all and has not logged.
    pub(super) unlogged: Vec<LogRecord>,
    /// What is committed beyond the durable checkpoint, in slot order.
    replay: Vec<Replayed>,
    /// As [`RecoveredControl::is_known`].
    is_known: bool,
}

/// Slots that are committed.
#[derive(Debug)]
struct Replayed {
    first_slot: u64,
    last_slot: u64,
    batch: Agreed,
}

impl Replayed {
    fn new(first_slot: u64, last_slot: u64, message: &Bytes, time_ms: u64) -> Self {
        let batch = Agreed::new(message.clone(), PREPARE_HEAD, BATCH_DIGEST_AT, time_ms);
        Self { first_slot, last_slot, batch }
    }
}

/// A slot of the window.
#[derive(Debug, Clone)]
pub(super) struct RecoveredSlot {
    pub(super) header: PrepareHeader,
    pub(super) message: Bytes,
    pub(super) own: Option<Commit>,
}

/// Whether a COMMIT is for a PREPARE.
fn acknowledges(own: &Commit, header: &PrepareHeader) -> bool {
    let is_same = (own.pillar, own.view, own.first, own.last)
        == (header.pillar, header.view, header.first, header.last);
    is_same && own.prepare == header.digest()
}

impl RecoveredSlot {
    fn batch(&self) -> Bytes {
        self.message.slice(PREPARE_HEAD..)
    }
}

impl Default for RecoveredPillar {
    /// A pillar of a replica that is started for the first time.
    fn default() -> Self {
        Self {
            view: View(0),
            active: true,
            base: 0,
            prepared: 0,
            committed: 0,
            handed: 0,
            counters: [CounterValue::ZERO; Counter::ALL.len()],
            chain: Vec::new(),
            slots: BTreeMap::new(),
            bodies: BTreeMap::new(),
            last_ms: 0,
            inherited: 0,
            unlogged: Vec::new(),
            replay: Vec::new(),
            is_known: true,
        }
    }
}

impl RecoveredPillar {
    fn raise(&mut self, counter: Counter, value: CounterValue) {
        let current = &mut self.counters[counter.index()];
        *current = value.max(*current);
    }

    fn forward(&mut self, base: u64) {
        if base <= self.base {
            return;
        }
        self.base = base;
        self.slots = self.slots.split_off(&base);
        self.bodies.retain(|_, (slot, _)| *slot >= base);
        self.prepared = self.prepared.max(base);
        self.committed = self.committed.max(base);
        self.handed = self.handed.max(base);
    }
}

impl Recovered {
    /// Reads a log.
    ///
    /// `records` are the bytes of each, in order. `durable` is the last checkpoint that is durable, 0 if
    /// none is: what is committed beyond is to be executed again. `is_whole` says that nothing in front of
    /// these records was ever removed; otherwise they must have summaries of all stages.
    ///
    /// # Errors
    /// If the log is not one that this replica can have written.
    pub fn read(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        durable: OrderNumber,
        is_whole: bool,
        records: impl IntoIterator<Item = Bytes>,
    ) -> Result<Self, RecoveryError> {
        let pillar = |_| RecoveredPillar { is_known: is_whole, ..RecoveredPillar::default() };
        let pillars = config.all_pillars().map(pillar).collect();
        let control = RecoveredControl { is_known: is_whole, ..RecoveredControl::default() };
        let (new_views, summarized) = (BTreeMap::new(), None);
        let mut recovered = Self { config, id, control, pillars, new_views, summarized };
        for record in records {
            let record = LogEntry::parse(&record, &recovered.config)?;
            recovered.apply(record, durable)?;
        }
        recovered.finish(durable)?;
        Ok(recovered)
    }

    /// A replica that begins an epoch with its first checkpoint, and has the state of `durable`, which is that
    /// one or an earlier one; 0 if it has none.
    ///
    /// Its counters are at zero and nothing was certified with them, so it need not be told by its peers what
    /// they have seen of it.
    ///
    /// # Errors
    /// If the configuration does not name the checkpoint that the epoch begins with.
    pub fn beginning(
        config: Arc<GroupConfig>,
        id: ReplicaId,
        durable: OrderNumber,
    ) -> Result<Self, RecoveryError> {
        let certificate = CheckpointCertificate::of_beginning(&config);
        let base = config.slots_before(certificate.id.order);
        let windows = config.all_pillars().map(|pillar| record::forwarded(pillar, base));
        let records = std::iter::once(record::stable(&certificate)).chain(windows);
        let records: Vec<Bytes> = records.map(|it| it.parts().concat().into()).collect();
        let mut it = Self::read(config, id, durable, true, records)?;
        it.control.is_first_start = true;
        Ok(it)
    }

    /// The values of a pillar's counters, in the order of [`Counter::ALL`].
    #[must_use]
    pub fn counters(&self, pillar: PillarId) -> [CounterValue; Counter::ALL.len()] {
        self.pillars[usize::from(pillar.0)].counters
    }

    /// The stable view of the replica.
    #[must_use]
    pub fn stable_view(&self) -> View {
        self.control.stable_view
    }

    /// The view that the replica was in or on its way to.
    #[must_use]
    pub fn current_view(&self) -> View {
        self.control.current
    }

    /// The stable checkpoint.
    #[must_use]
    pub fn stable_checkpoint(&self) -> OrderNumber {
        self.control.stable.id.order
    }

    /// What the execution stage is to be told: what is committed beyond the durable checkpoint, in the
    /// order in which it is executed.
    pub fn take_replay(&mut self) -> Vec<ToExecution> {
        let of_pillars = self.config.all_pillars().zip(&mut self.pillars);
        let mut all: Vec<(u64, PillarId, Replayed)> = of_pillars
            .flat_map(|(id, pillar)| {
                std::mem::take(&mut pillar.replay)
                    .into_iter()
                    .map(move |it| (it.first_slot, id, it))
            })
            .collect();
        all.sort_by_key(|(slot, pillar, _)| (*slot, *pillar));
        let input = |(_, pillar, Replayed { first_slot, last_slot, batch })| {
            ToExecution::Committed { pillar, first_slot, last_slot, batch }
        };
        all.into_iter().map(input).collect()
    }

    /// Whether a record says something of a stage that is not known yet.
    fn is_early(&self, record: &LogEntry) -> bool {
        let of = match record {
            LogEntry::ControlSummary { .. } | LogEntry::Summary(_) | LogEntry::Kept { .. } => {
                return false;
            }
            LogEntry::Prepare { message, .. } => {
                PrepareHeader::parse(message).map(|header| header.pillar).ok()
            }
            LogEntry::Commit(own) => Some(own.pillar),
            LogEntry::Body { pillar, .. }
            | LogEntry::Committed { pillar, .. }
            | LogEntry::Forwarded { pillar, .. }
            | LogEntry::Entered { pillar, .. } => Some(*pillar),
            LogEntry::Stable(_)
            | LogEntry::Left(_)
            | LogEntry::NewView { .. }
            | LogEntry::Acknowledged(_) => return !self.control.is_known,
        };
        let pillar = of.and_then(|pillar| self.pillars.get(usize::from(pillar.0)));
        pillar.is_some_and(|pillar| !pillar.is_known)
    }

    fn apply(&mut self, record: LogEntry, durable: OrderNumber) -> Result<(), RecoveryError> {
        if self.is_early(&record) {
            return Ok(());
        }
        match record {
            LogEntry::ControlSummary { view, stable, new_view, ack } => {
                self.control_summary(view, stable, new_view, ack)?;
            }
            LogEntry::Summary(summary) => self.summary(&summary, durable)?,
            LogEntry::Kept { message, own } => self.kept(message, own, durable)?,
            LogEntry::Prepare { message, own } => self.prepare(message, own)?,
            LogEntry::Commit(own) => self.commit(own)?,
            LogEntry::Body { pillar, slot, batch } => {
                let digest = crate::wire::digest(&batch);
                let bodies = &mut self.pillar(pillar)?.bodies;
                let known = bodies.entry(digest).or_insert((slot, batch));
                known.0 = known.0.max(slot);
            }
            LogEntry::Committed { pillar, view, through } => {
                self.committed(pillar, view, through, durable)?;
            }
            LogEntry::Forwarded { pillar, base } => {
                let is_stable = base <= self.config.slots_before(self.control.stable.id.order);
                let pillar = self.pillar(pillar)?;
                if !is_stable {
                    return Err(RecoveryError::Contradiction("a window without its checkpoint"));
                }
                pillar.forward(base);
            }
            LogEntry::Entered { pillar, view, current } => self.entered(pillar, view, current)?,
            LogEntry::Stable(certificate) => {
                if certificate.id.order < self.control.stable.id.order {
                    return Err(RecoveryError::Contradiction("a stable checkpoint falls"));
                }
                self.control.stable = certificate;
            }
            LogEntry::Left(change) => self.left(change)?,
            LogEntry::NewView { current, new_view } => self.new_view(current, *new_view)?,
            LogEntry::Acknowledged(ack) => {
                if ack.sender != self.id || ack.view != self.control.stable_view {
                    return Err(RecoveryError::Contradiction("a NEW-VIEW-ACK of another view"));
                }
                self.control.own_ack = Some(Arc::new(ack));
            }
        }
        Ok(())
    }

    fn pillar(&mut self, pillar: PillarId) -> Result<&mut RecoveredPillar, RecoveryError> {
        let pillar = self.pillars.get_mut(usize::from(pillar.0));
        pillar.ok_or(RecoveryError::Contradiction("it has more pillars than the group"))
    }

    fn prepare(&mut self, message: Bytes, own: Option<Commit>) -> Result<(), RecoveryError> {
        let header = PrepareHeader::parse(&message)?;
        let is_own = self.config.leader(header.view) == self.id;
        let (first, last) = (self.config.slot_of(header.first), self.config.slot_of(header.last));
        let room = LOG_WINDOWS * self.config.window_slots();
        let pillar = self.pillar(header.pillar)?;
        if header.view != pillar.view {
            return Err(RecoveryError::Contradiction("a PREPARE of another view"));
        }
        if last.saturating_sub(pillar.base) >= room {
            return Err(RecoveryError::Contradiction("a PREPARE beyond the window"));
        }
        if own.as_ref().is_some_and(|own| !acknowledges(own, &header)) {
            return Err(RecoveryError::Contradiction("a COMMIT without its PREPARE"));
        }
        if is_own || own.is_some() {
            pillar.raise(Counter::Ordering, header.value());
            pillar.prepared = last + 1;
        }
        pillar.last_ms = pillar.last_ms.max(header.time_ms);
        if first >= pillar.base {
            pillar.slots.insert(first, RecoveredSlot { header, message, own });
        }
        Ok(())
    }

    fn control_summary(
        &mut self,
        view: View,
        stable: CheckpointCertificate,
        new_view: Option<Box<NewView>>,
        ack: Option<NewViewAck>,
    ) -> Result<(), RecoveryError> {
        let of_view = new_view.as_ref().map_or(View(0), |new_view| new_view.view);
        let control = &mut self.control;
        if control.is_known {
            let known = (control.stable_view, control.current, control.stable.id);
            let is_same = known == (view, view, stable.id);
            return is_same
                .then_some(())
                .ok_or(RecoveryError::Contradiction("a summary is not what led to it"));
        }
        if of_view != view {
            return Err(RecoveryError::Contradiction(
                "a summary with the NEW-VIEW of another view",
            ));
        }
        (control.stable_view, control.current) = (view, view);
        (control.stable, control.is_known) = (stable, true);
        control.established = new_view.map(|new_view| Arc::new(*new_view));
        control.own_ack = ack.map(Arc::new);
        self.new_views.extend(control.established.clone().map(|new_view| (view, new_view)));
        Ok(())
    }

    fn summary(
        &mut self,
        summary: &PillarSummary,
        durable: OrderNumber,
    ) -> Result<(), RecoveryError> {
        let durable = self.config.slots_before(durable);
        let is_control_known = self.control.is_known;
        let PillarSummary { pillar: id, view, base, prepared, committed, counters, .. } = *summary;
        self.summarized = None;
        let pillar = self.pillar(id)?;
        if pillar.is_known {
            let known = (pillar.view, pillar.active, pillar.base, pillar.prepared);
            let is_same = known == (view, true, base, prepared)
                && (pillar.committed, pillar.handed) == (committed, committed)
                && pillar.counters == counters;
            return is_same
                .then_some(())
                .ok_or(RecoveryError::Contradiction("a summary is not what led to it"));
        }
        if !is_control_known {
            // An earlier round, whose beginning was removed.
            return Ok(());
        }
        if base > durable {
            return Err(RecoveryError::Contradiction(
                "it begins behind the checkpoint that is durable",
            ));
        }
        *pillar = RecoveredPillar {
            view,
            base,
            prepared,
            committed,
            handed: committed,
            counters,
            last_ms: summary.last_ms,
            inherited: summary.inherited,
            ..RecoveredPillar::default()
        };
        self.summarized = Some(id);
        Ok(())
    }

    fn kept(
        &mut self,
        message: Bytes,
        own: Option<Commit>,
        durable: OrderNumber,
    ) -> Result<(), RecoveryError> {
        let header = PrepareHeader::parse(&message)?;
        if self.summarized != Some(header.pillar) {
            return Ok(());
        }
        let (first, last) = (self.config.slot_of(header.first), self.config.slot_of(header.last));
        let durable = self.config.slots_before(durable);
        let pillar = self.pillar(header.pillar)?;
        let is_ours = own.as_ref().is_none_or(|own| acknowledges(own, &header));
        if header.view != pillar.view || first < pillar.base || !is_ours {
            return Err(RecoveryError::Contradiction("a summary with a slot of another view"));
        }
        if last < pillar.committed && last >= durable {
            pillar.replay.push(Replayed::new(first, last, &message, header.time_ms));
        }
        pillar.slots.insert(first, RecoveredSlot { header, message, own });
        Ok(())
    }

    fn commit(&mut self, own: Commit) -> Result<(), RecoveryError> {
        let (first, last) = (self.config.slot_of(own.first), self.config.slot_of(own.last));
        let pillar = self.pillar(own.pillar)?;
        if own.view != pillar.view {
            return Err(RecoveryError::Contradiction("a COMMIT of another view"));
        }
        pillar.raise(Counter::Ordering, CounterValue::new(own.view.0, own.last.0));
        pillar.prepared = last + 1;
        let slot = pillar.slots.get_mut(&first).filter(|slot| acknowledges(&own, &slot.header));
        let slot = slot.ok_or(RecoveryError::Contradiction("a COMMIT without its PREPARE"))?;
        slot.own = Some(own);
        pillar.last_ms = pillar.last_ms.max(slot.header.time_ms);
        Ok(())
    }

    fn committed(
        &mut self,
        pillar: PillarId,
        view: View,
        through: u64,
        durable: OrderNumber,
    ) -> Result<(), RecoveryError> {
        let config = Arc::clone(&self.config);
        let durable = config.slots_before(durable);
        let pillar = self.pillar(pillar)?;
        let slot = pillar.slots.get(&pillar.committed).filter(|slot| slot.header.view == view);
        let slot = slot.filter(|slot| config.slot_of(slot.header.last) == through);
        let slot = slot.ok_or(RecoveryError::Contradiction("a commitment without its PREPARE"))?;
        if pillar.committed >= pillar.handed {
            if through >= durable {
                let (first, time_ms) = (pillar.committed, slot.header.time_ms);
                pillar.replay.push(Replayed::new(first, through, &slot.message, time_ms));
            }
            pillar.handed = through + 1;
        }
        pillar.last_ms = pillar.last_ms.max(slot.header.time_ms);
        pillar.committed = through + 1;
        pillar.prepared = pillar.prepared.max(pillar.committed);
        Ok(())
    }

    fn left(&mut self, change: ViewChange) -> Result<(), RecoveryError> {
        if change.sender != self.id || change.to <= self.control.current {
            return Err(RecoveryError::Contradiction("a VIEW-CHANGE to an earlier view"));
        }
        for (pillar, part) in self.pillars.iter_mut().zip(&change.parts) {
            pillar.active = false;
            pillar.chain.clone_from(&part.chain);
            pillar.raise(Counter::Ordering, CounterValue::new(change.to.0, 0));
        }
        self.control.current = change.to;
        self.control.left_since_stable += 1;
        self.control.own_change = Some(Arc::new(change));
        Ok(())
    }

    fn new_view(&mut self, current: View, new_view: NewView) -> Result<(), RecoveryError> {
        let view = new_view.view;
        if view <= self.control.stable_view || current < view {
            return Err(RecoveryError::Contradiction("an earlier view is entered"));
        }
        if self.config.leader(view) == self.id {
            for (pillar, prepares) in self.pillars.iter_mut().zip(&new_view.prepares) {
                let start = CounterValue::new(view.0, 0);
                let reached = prepares.last().map_or(start, PrepareHeader::value);
                pillar.raise(Counter::Ordering, reached);
            }
            self.pillars[0].raise(Counter::NewView, CounterValue::new(view.0, 0));
        }
        let control = &mut self.control;
        (control.stable_view, control.current) = (view, current);
        control.left_since_stable = 0;
        control.is_belated = current > view;
        control.own_ack = None;
        control.own_change.take_if(|change| change.to <= view);
        let new_view = Arc::new(new_view);
        control.established = Some(Arc::clone(&new_view));
        self.new_views.insert(view, new_view);
        Ok(())
    }

    /// What the pillar does when it enters a view.
    fn entered(
        &mut self,
        pillar: PillarId,
        view: View,
        current: View,
    ) -> Result<(), RecoveryError> {
        let new_view = self.new_views.get(&view).cloned();
        let new_view = new_view.ok_or(RecoveryError::Contradiction("a view without NEW-VIEW"))?;
        let prepares = new_view.prepares.get(usize::from(pillar.0));
        let prepares = prepares.map(Vec::as_slice).unwrap_or_default();
        self.enter(pillar, view, current, prepares)?;
        let last = self.pillars.iter().map(|pillar| pillar.view).min().unwrap_or_default();
        self.new_views.retain(|view, _| *view > last);
        Ok(())
    }

    fn enter(
        &mut self,
        pillar: PillarId,
        view: View,
        current: View,
        prepares: &[PrepareHeader],
    ) -> Result<(), RecoveryError> {
        let config = Arc::clone(&self.config);
        let leads = config.leader(view) == self.id;
        let pillar = self.pillar(pillar)?;
        for (slot, old) in std::mem::take(&mut pillar.slots) {
            let known = pillar.bodies.entry(old.header.batch).or_insert((slot, old.batch()));
            known.0 = known.0.max(slot);
        }
        let base = pillar.base;
        (pillar.view, pillar.active) = (view, current == view);
        pillar.chain.retain(|link| link.to > view);
        (pillar.prepared, pillar.committed) = (base, base);
        pillar.inherited = prepares.last().map_or(base, |header| config.slot_of(header.last) + 1);
        pillar.last_ms = prepares.iter().map(|header| header.time_ms).max().unwrap_or(0);
        for header in prepares {
            let (first, last) = (config.slot_of(header.first), config.slot_of(header.last));
            if first < base {
                continue;
            }
            if last - base >= LOG_WINDOWS * config.window_slots() {
                return Err(RecoveryError::Contradiction("a NEW-VIEW beyond the window"));
            }
            let body = pillar.bodies.get(&header.batch).map(|(_, batch)| batch.as_ref());
            let body = if header.noop { Some(&[][..]) } else { body };
            let body = body.ok_or(RecoveryError::Contradiction("a batch is missing"))?;
            let message: Bytes = [&header.encode()[..], body].concat().into();
            pillar.slots.insert(first, RecoveredSlot { header: *header, message, own: None });
            if leads {
                pillar.prepared = last + 1;
            }
        }
        pillar.raise(Counter::Ordering, CounterValue::new(view.0, 0));
        Ok(())
    }

    /// What was under way between the stages when the log ended.
    fn finish(&mut self, durable: OrderNumber) -> Result<(), RecoveryError> {
        if !self.control.is_known || self.pillars.iter().any(|pillar| !pillar.is_known) {
            return Err(RecoveryError::Contradiction("its beginning is missing"));
        }
        let base = self.config.slots_before(self.control.stable.id.order);
        for pillar in self.config.all_pillars() {
            let at = usize::from(pillar.0);
            if self.pillars[at].base < base {
                self.pillars[at].forward(base);
                self.pillars[at].unlogged.push(record::forwarded(pillar, base));
            }
            if self.pillars[at].view < self.control.stable_view
                && let Some(new_view) = self.control.established.clone()
            {
                // Its input was on the way, and it holds all batches: else the view had not been entered.
                let current = self.control.current;
                let prepares = &new_view.prepares[at];
                self.enter(pillar, new_view.view, current, prepares)?;
                self.pillars[at].unlogged.push(record::entered(pillar, new_view.view, current));
            }
        }
        self.control.next_slots = self.pillars.iter().map(|pillar| pillar.prepared).collect();
        self.control.is_reached = self.reaches(durable) >= self.control.stable.id.order;
        Ok(())
    }

    /// How far execution gets from the durable checkpoint with what the log has.
    fn reaches(&self, durable: OrderNumber) -> OrderNumber {
        let first = self.config.slots_before(durable);
        let contiguous = |pillar: &RecoveredPillar| {
            let joins = |next: u64, it: &Replayed| match it.first_slot <= next {
                true => next.max(it.last_slot + 1),
                false => next,
            };
            pillar.replay.iter().fold(first, joins)
        };
        let reached = self.pillars.iter().map(contiguous);
        // The last order number before the first one that some pillar lacks.
        let lacks = self.config.all_pillars().zip(reached);
        let first = lacks.map(|(pillar, slot)| self.config.order_at(pillar, slot)).min();
        first.map_or(durable, |order| OrderNumber(order.0 - 1))
    }
}

#[cfg(test)]
mod tests;
