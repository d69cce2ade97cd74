//! Recording layers around the TrInX instances and the service of a replica.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};
use hybster_proto::service::{Context, RestoreError, Service, Snapshot};
use hybster_tss::{
    ContinuingCertificate, Counter, CounterValue, Digest, InProcessTrInX, IndependentCertificate,
    InstanceId, Refusal, TrInX, TrustedMac,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all TrInX instances of a run have certified.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Accounts>>);

#[derive(Default)]
struct Accounts {
    counters: BTreeMap<(InstanceId, Counter), Account>,
    violation: Option<String>,
    certificates: u64,
}

#[derive(Default)]
struct Account {
    value: CounterValue,
    /// The message that an independent certificate bound to `value`.
    bound: Option<Digest>,
}

impl Ledger {
    /// The first breach of a counter's rules.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        lock(&self.0).violation.clone()
    }

    /// An instance starts with these counters, in the order of [`Counter::ALL`]. What it certified
    /// beyond them in an earlier life has not left its host: [`crate::released`] sees to that.
    pub(crate) fn begins(&self, instance: InstanceId, counters: [CounterValue; 2]) {
        let mut accounts = lock(&self.0);
        for (counter, value) in Counter::ALL.into_iter().zip(counters) {
            accounts.counters.insert((instance, counter), Account { value, bound: None });
        }
    }

    /// Certificates issued.
    #[must_use]
    pub fn certificates(&self) -> u64 {
        lock(&self.0).certificates
    }

    /// The value of a counter.
    #[must_use]
    pub fn value(&self, instance: InstanceId, counter: Counter) -> CounterValue {
        lock(&self.0).counters.get(&(instance, counter)).map(|a| a.value).unwrap_or_default()
    }

    fn note(&self, instance: InstanceId, counter: Counter, step: Step, digest: Option<&Digest>) {
        let mut accounts = lock(&self.0);
        accounts.certificates += u64::from(digest.is_some());
        let account = accounts.counters.entry((instance, counter)).or_default();
        let before = account.value;
        let (right, value) = match step {
            Step::Independent(value) => (value > before, value),
            Step::Continuing { previous, value } => (previous == before && value >= before, value),
            Step::Forward(value) => (value >= before, value),
        };
        account.value = value.max(before);
        account.bound = match step {
            Step::Independent(_) => digest.copied(),
            _ => None,
        };
        if !right {
            accounts.violation.get_or_insert_with(|| {
                format!("counter {counter} of {instance} stood at {before} and then did {step:?}")
            });
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Independent(CounterValue),
    Continuing { previous: CounterValue, value: CounterValue },
    Forward(CounterValue),
}

/// A TrInX whose every certificate is entered into the ledger. Clones are handles on one instance.
#[derive(Clone)]
pub struct Watched {
    inner: Arc<Mutex<InProcessTrInX>>,
    ledger: Ledger,
}

impl Watched {
    /// Watches an instance.
    #[must_use]
    pub fn new(inner: InProcessTrInX, ledger: Ledger) -> Self {
        Self { inner: Arc::new(Mutex::new(inner)), ledger }
    }

    /// A clone that certifies what the first one has certified: what must not be possible. It has
    /// a ledger of its own, so that other oracles have to find out.
    #[cfg(feature = "controls")]
    #[must_use]
    pub fn cloned_for_attack(&self) -> Self {
        let inner = lock(&self.inner).cloned_for_attack();
        Self::new(inner, Ledger::default())
    }
}

impl TrInX for Watched {
    fn instance(&self) -> InstanceId {
        lock(&self.inner).instance()
    }

    fn current(&self, counter: Counter) -> CounterValue {
        lock(&self.inner).current(counter)
    }

    fn certify_independent(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<IndependentCertificate, Refusal> {
        let certificate = lock(&self.inner).certify_independent(counter, value, digest)?;
        let step = Step::Independent(certificate.value);
        self.ledger.note(self.instance(), counter, step, Some(digest));
        Ok(certificate)
    }

    fn certify_continuing(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<ContinuingCertificate, Refusal> {
        let certificate = lock(&self.inner).certify_continuing(counter, value, digest)?;
        let step = Step::Continuing { previous: certificate.previous, value: certificate.value };
        self.ledger.note(self.instance(), counter, step, Some(digest));
        Ok(certificate)
    }

    fn certify_mac(&mut self, digest: &Digest) -> Result<TrustedMac, Refusal> {
        lock(&self.inner).certify_mac(digest)
    }

    fn forward(&mut self, counter: Counter, value: CounterValue) -> Result<(), Refusal> {
        lock(&self.inner).forward(counter, value)?;
        self.ledger.note(self.instance(), counter, Step::Forward(value), None);
        Ok(())
    }

    fn advance_epoch(&mut self, epoch: u32, group: &Digest) -> Result<(), Refusal> {
        lock(&self.inner).advance_epoch(epoch, group)?;
        self.ledger.begins(self.instance(), [CounterValue::ZERO; Counter::ALL.len()]);
        Ok(())
    }
}

/// One operation that a service executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Execution {
    /// Where in the total order.
    pub order: OrderNumber,
    /// Whose it is.
    pub session: SessionId,
    /// The session's number for it.
    pub number: RequestNumber,
    /// Digest of the operation.
    pub operation: Digest,
    /// Digest of its result.
    pub result: Digest,
    /// The agreed time.
    pub time_ms: u64,
    /// The agreed random bytes.
    pub randomness: Digest,
}

/// The record of a service since it was last emptied.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Vec<Execution>>>);

impl Record {
    /// Empties the record into `into`.
    pub fn take(&self, into: &mut Vec<Execution>) {
        into.append(&mut lock(&self.0));
    }
}

/// A service that records its operations.
pub struct Recorded<S> {
    inner: S,
    record: Record,
}

impl<S> Recorded<S> {
    /// Records what `inner` does.
    pub fn new(inner: S, record: Record) -> Self {
        Self { inner, record }
    }
}

impl<S: Service> Service for Recorded<S> {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        let from = reply.len();
        self.inner.execute(context, operation, reply);
        lock(&self.record.0).push(Execution {
            order: context.order,
            session: context.session,
            number: context.number,
            operation: Digest::of(operation),
            result: Digest::of(&reply[from..]),
            time_ms: context.time_ms,
            randomness: Digest(*context.randomness()),
        });
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        self.inner.query(operation, reply)
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        self.inner.snapshot()
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.inner.restore(source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        self.inner.restore_changed(source, base, changed)
    }
}
