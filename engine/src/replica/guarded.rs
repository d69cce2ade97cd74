//! What is told of the user's service: a panic, which is no panic of this engine, and slow calls.

use std::any::type_name;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};
use hybster_proto::service::{Context, RestoreError, Service, ServiceIdentity, Snapshot};

use super::stopwatch::{SlowCall, Stopwatch, coarse_now};

/// What a service did when it panicked, or was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceCall {
    /// [`Service::execute`]: every replica does the same with the operation.
    Execute {
        /// The order number of the operation.
        order: OrderNumber,
        /// Whose it is.
        session: SessionId,
        /// The session's number for it.
        number: RequestNumber,
    },
    /// [`Service::query`].
    Query,
    /// [`Service::snapshot`].
    Snapshot,
    /// [`Service::restore`] or [`Service::restore_changed`].
    Restore,
}

impl fmt::Display for ServiceCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Execute { order, session, number } => write!(
                f,
                "while it executed request {} of session {session} at order number {}",
                number.0, order.0,
            ),
            Self::Query => f.write_str("while it answered a query"),
            Self::Snapshot => f.write_str("while it made a snapshot"),
            Self::Restore => f.write_str("while it restored its state"),
        }
    }
}

/// A service's type and what it did when it panicked, once it has.
pub(super) type ServicePanic = Arc<OnceLock<(&'static str, ServiceCall)>>;

/// A service of which it is noted what it did when it panicked, which costs nothing before, and logged what
/// took long.
pub(super) struct Guarded<S> {
    service: S,
    panic: ServicePanic,
    watch: Stopwatch,
}

impl<S> Guarded<S> {
    /// In a group in which a request may wait for `request_timeout_us` before its leader is suspected.
    pub(super) fn new(service: S, panic: ServicePanic, request_timeout_us: u64) -> Self {
        Self { service, panic, watch: Stopwatch::new(request_timeout_us) }
    }
}

#[cold]
fn tell<S>(slow: &SlowCall) {
    let SlowCall { call, calls, took, slow, untold } = *slow;
    let before = match calls {
        1 => String::new(),
        calls => format!(" and the {} operations before it", calls - 1),
    };
    let others = match untold {
        0 => String::new(),
        untold => format!("; {untold} more calls were slow since the last such line"),
    };
    log::warn!(
        "the service {} took {} ms {call}{before}. All clients wait meanwhile, and a call of {} ms or more is \
         told, at most every 10 s{others}",
        type_name::<S>(),
        took.as_millis(),
        slow.as_millis(),
    );
}

/// A call that is going on. It is forgotten when the call returns, and dropped only by a panic.
struct Call<'a, S> {
    panic: &'a ServicePanic,
    what: What<'a>,
    service: std::marker::PhantomData<S>,
}

enum What<'a> {
    Execute(&'a Context),
    Other(ServiceCall),
}

impl<'a, S> Call<'a, S> {
    #[inline]
    fn begin(panic: &'a ServicePanic, what: What<'a>) -> Self {
        Self { panic, what, service: std::marker::PhantomData }
    }

    #[inline]
    fn end(self) {
        std::mem::forget(self);
    }
}

impl<S> Drop for Call<'_, S> {
    #[cold]
    fn drop(&mut self) {
        let call = match self.what {
            What::Execute(&Context { session, number, order, .. }) => {
                ServiceCall::Execute { order, session, number }
            }
            What::Other(call) => call,
        };
        log::error!("the service {} panicked {call}", type_name::<S>());
        let _ = self.panic.set((type_name::<S>(), call));
    }
}

impl<S: Service> Service for Guarded<S> {
    #[inline]
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        let call = Call::<S>::begin(&self.panic, What::Execute(context));
        self.watch.begin(context, coarse_now);
        self.service.execute(context, operation, reply);
        if let Some(slow) = self.watch.end(context, coarse_now) {
            tell::<S>(&slow);
        }
        call.end();
    }

    fn identity(&self) -> Option<ServiceIdentity> {
        self.service.identity()
    }

    #[inline]
    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        let call = Call::<S>::begin(&self.panic, What::Other(ServiceCall::Query));
        let is_answered = self.service.query(operation, reply);
        call.end();
        is_answered
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        let call = Call::<S>::begin(&self.panic, What::Other(ServiceCall::Snapshot));
        let began = coarse_now();
        let snapshot = self.service.snapshot();
        call.end();
        let ended = coarse_now();
        self.watch.calm(ended);
        let took = ended.saturating_sub(began);
        if let Some(slow) = self.watch.other(ServiceCall::Snapshot, took, ended) {
            tell::<S>(&slow);
        }
        snapshot
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let call = Call::<S>::begin(&self.panic, What::Other(ServiceCall::Restore));
        let restored = self.service.restore(source);
        call.end();
        restored
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        let call = Call::<S>::begin(&self.panic, What::Other(ServiceCall::Restore));
        let restored = self.service.restore_changed(source, base, changed);
        call.end();
        restored
    }
}
