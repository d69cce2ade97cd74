//! Timers by agreed time, as a part of a service's state.

use std::fmt;
use std::sync::Arc;

use hybster_proto::service::{Context, RestoreError, Snapshot};
use serde::{Deserialize, Serialize};

use super::{Paged, PagedCell, PagedMap, parts};
use crate::typed::Message;

/// What shall happen at agreed times: the end of a lease, a message that becomes visible again.
///
/// [`execute`](crate::Service::execute) begins with everything that is due, and then does its operation. So all
/// replicas do it at the same place in the total order: before the first operation of the first batch whose
/// [`time_ms`](Context::time_ms) has got there. Timers of one time fire in the order in which they were set.
///
/// **Agreed time passes only with operations.** A timer fires with the first operation after its time, whosever
/// that is, and a query sees the state as the last operation left it. Where something must
/// happen though nobody asks for anything, let a client of the service's own send an operation that does nothing, as
/// often as timers may be late; any member of the group can run one, and several do no harm. Nor does the group guarantee
/// more than that the agreed time is some correct clock's, give or take
/// [`max_clock_skew_ms`](crate::GroupConfig::max_clock_skew_ms).
///
/// ```
/// use hybster::Context;
/// use hybster::paged::{Paged, PagedMap, PagedTimers, TimerId};
/// use hybster::typed::TypedService;
///
/// /// Who holds what; a lease that is not renewed ends.
/// #[derive(Default)]
/// struct Leases {
///     held: PagedMap<String, TimerId>,
///     ends: PagedTimers<String>,
/// }
///
/// impl TypedService for Leases {
///     type Operation = String; // What to take or to renew, for 10 s.
///     type Reply = u64; // How many are held.
///     type Refusal = hybster::typed::NoRefusal;
///
///     fn execute(&mut self, context: &Context, name: String) -> Result<u64, Self::Refusal> {
///         while let Some((_, ended)) = self.ends.take_due(context) {
///             self.held.remove(&ended);
///         }
///         let end = self.ends.set(context.time_ms.saturating_add(10_000), name.clone());
///         if let Some(before) = self.held.insert(name, end) {
///             self.ends.cancel(before);
///         }
///         Ok(self.held.len() as u64)
///     }
///
///     fn state(&mut self) -> Vec<&mut dyn Paged> {
///         vec![&mut self.held, &mut self.ends]
///     }
/// }
/// ```
#[derive(Clone)]
pub struct PagedTimers<T>
where
    T: Message + Clone + Send + Sync + 'static,
{
    waiting: PagedMap<TimerId, T>,
    /// The number of the timer that was set last. None has it again.
    last: PagedCell<u64>,
}

/// A timer that was set: no other one of these timers ever has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TimerId {
    // In this order: what is due first is first in the map.
    due_ms: u64,
    number: u64,
}

impl TimerId {
    /// When it is due, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn due_ms(self) -> u64 {
        self.due_ms
    }
}

impl<T> PagedTimers<T>
where
    T: Message + Clone + Send + Sync + 'static,
{
    /// No timers.
    #[must_use]
    pub fn new() -> Self {
        Self { waiting: PagedMap::new(), last: PagedCell::new(0) }
    }

    /// `value` is due at an agreed time, in milliseconds since the Unix epoch: usually
    /// [`Context::time_ms`] and some more. One that has passed is due at once.
    pub fn set(&mut self, due_ms: u64, value: T) -> TimerId {
        *self.last += 1;
        let id = TimerId { due_ms, number: *self.last };
        self.waiting.insert(id, value);
        id
    }

    /// Takes a timer back; its value, if it has neither fired nor been taken back.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.waiting.remove(&id)
    }

    /// Takes the first timer that is due, with when it was. To be called until there is none, at the beginning of
    /// each operation. A timer that is set meanwhile for a time that has passed is due as well, so set it for
    /// later than [`Context::time_ms`], or the loop has no end.
    pub fn take_due(&mut self, context: &Context) -> Option<(TimerId, T)> {
        self.next().filter(|id| id.due_ms <= context.time_ms)?;
        self.waiting.pop_first()
    }

    /// The timer that is due next.
    #[must_use]
    pub fn next(&self) -> Option<TimerId> {
        self.waiting.first().map(|(id, _)| *id)
    }

    /// The value of a timer that waits.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<&T> {
        self.waiting.get(&id)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T> Paged for PagedTimers<T>
where
    T: Message + Clone + Send + Sync + 'static,
{
    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        parts::snapshot(&mut [&mut self.waiting, &mut self.last])
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        parts::restore(&mut [&mut self.waiting, &mut self.last], source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        parts::restore_changed(&mut [&mut self.waiting, &mut self.last], source, base, changed)
    }
}

impl<T> Default for PagedTimers<T>
where
    T: Message + Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for PagedTimers<T>
where
    T: Message + Clone + Send + Sync + fmt::Debug + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waiting.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};

    use super::*;

    fn at(time_ms: u64) -> Context {
        let mut context = Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1));
        context.time_ms = time_ms;
        context
    }

    fn due(timers: &mut PagedTimers<String>, time_ms: u64) -> Vec<String> {
        let context = at(time_ms);
        std::iter::from_fn(|| timers.take_due(&context).map(|(_, value)| value)).collect()
    }

    #[test]
    fn timers_fire_by_time_and_then_in_the_order_in_which_they_were_set() {
        let mut timers = PagedTimers::new();
        let ids: Vec<TimerId> = [(30, "c"), (10, "a"), (20, "b"), (10, "a2"), (10, "gone")]
            .map(|(due_ms, value)| timers.set(due_ms, value.to_owned()))
            .to_vec();
        assert_eq!((timers.len(), timers.next()), (5, Some(ids[1])));
        assert_eq!(timers.cancel(ids[4]).as_deref(), Some("gone"));
        assert_eq!(timers.cancel(ids[4]), None);
        assert_eq!(due(&mut timers, 9), [""; 0]);
        assert_eq!(due(&mut timers, 20), ["a", "a2", "b"]);
        assert_eq!(timers.cancel(ids[1]), None, "it has fired");
        assert_eq!(
            (timers.next().map(TimerId::due_ms), timers.get(ids[0])),
            (Some(30), Some(&"c".to_owned()))
        );
        assert_eq!(due(&mut timers, u64::MAX), ["c"]);
        assert!(timers.is_empty());
    }

    #[test]
    fn restored_timers_fire_as_the_first_ones_and_give_no_number_twice() {
        let mut timers = PagedTimers::new();
        let gone = timers.set(5, "gone".to_owned());
        timers.cancel(gone);
        for place in 0..2_000u64 {
            timers.set(place % 97, format!("timer {place}"));
        }
        let base = timers.snapshot();
        let mut other = PagedTimers::new();
        other.restore(&*base).unwrap();
        assert_eq!(due(&mut other, 40), due(&mut timers, 40));
        assert_eq!(other.set(5, String::new()), timers.set(5, String::new()));
        let pages = |timers: &mut PagedTimers<String>| {
            let snapshot = timers.snapshot();
            (0..snapshot.page_count()).map(|page| snapshot.page(page)).collect::<Vec<_>>()
        };
        assert_eq!(pages(&mut other), pages(&mut timers));
    }
}
