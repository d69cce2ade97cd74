//! How long the service takes for its calls, so that an operator is told which one was slow.
//!
//! Reading the clock costs about as much as a small operation: with the system's exact one, and four operations at a
//! time, a group at its limit lost 7 % of its rate. So a coarse clock is read, which is some milliseconds behind at
//! most; the first operations of a batch are timed one by one, as a service with few operations per batch has time for it,
//! and the others some at a time; what is left at the end of a long batch is not timed. Where a call was slow, all are
//! timed for a while.

use std::time::Duration;

use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};
use hybster_proto::service::Context;

use super::ServiceCall;

/// Operations of a batch that are timed one by one.
const ONE_BY_ONE: u32 = 4;
/// Operations that are timed together after these.
const TOGETHER: u32 = 16;
/// How long all operations are timed one by one after a slow call.
const ALARMED: Duration = Duration::from_secs(60);
/// Time between two lines of the log about slow calls of one service.
const LINES_EVERY: Duration = Duration::from_secs(10);
/// A call is slow when it takes this part of the time that a request may wait before its leader is suspected: a
/// few of them one after the other would take that long.
const PART_OF_TIMEOUT: u64 = 5;

/// Times the calls of one service. Times are those of [`coarse_now`], or of a test's clock.
#[derive(Debug)]
pub(super) struct Stopwatch {
    slow: Duration,
    /// The batch, and how many of its operations were timed.
    order: OrderNumber,
    count: u32,
    /// When the operation began that is timed, or the first of those that are timed together.
    since: Option<Duration>,
    /// How many operations are timed together now, and how many of them have not ended.
    together: u32,
    left: u32,
    alarmed_until: Option<Duration>,
    told: Option<Duration>,
    untold: u32,
}

/// A slow call, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlowCall {
    /// The call; of several, the last one.
    pub(super) call: ServiceCall,
    /// How many calls took that long together.
    pub(super) calls: u32,
    pub(super) took: Duration,
    /// From which duration on calls are slow.
    pub(super) slow: Duration,
    /// Slow calls before it that were not told.
    pub(super) untold: u32,
}

/// The time since the host was started, some milliseconds behind at most where the system has such a clock.
#[inline]
pub(super) fn coarse_now() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::MonotonicCoarse;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

impl Stopwatch {
    /// For a group in which a request may wait for `request_timeout_us` before its leader is suspected.
    pub(super) fn new(request_timeout_us: u64) -> Self {
        Self {
            slow: Duration::from_micros((request_timeout_us / PART_OF_TIMEOUT).max(1)),
            order: OrderNumber(0),
            count: 0,
            since: None,
            together: 1,
            left: 1,
            alarmed_until: None,
            told: None,
            untold: 0,
        }
    }

    /// An operation begins.
    #[inline]
    pub(super) fn begin(&mut self, context: &Context, now: impl FnOnce() -> Duration) {
        if context.order != self.order {
            (self.order, self.count, self.since) = (context.order, 0, Some(now()));
            (self.together, self.left) = (1, 1);
        }
    }

    /// It ended. What there is to tell.
    #[inline]
    pub(super) fn end(
        &mut self,
        context: &Context,
        now: impl FnOnce() -> Duration,
    ) -> Option<SlowCall> {
        self.left -= 1;
        if self.left > 0 { None } else { self.look(context, now()) }
    }

    /// The clock was read.
    fn look(&mut self, context: &Context, ended: Duration) -> Option<SlowCall> {
        let calls = self.together;
        self.count += calls;
        let began = self.since.replace(ended).unwrap_or(ended);
        let took = ended.saturating_sub(began);
        let (session, number): (SessionId, RequestNumber) = (context.session, context.number);
        let call = ServiceCall::Execute { order: context.order, session, number };
        let is_slow = took >= self.slow;
        let slow = if is_slow { self.slow_call(call, calls, took, ended) } else { None };
        let one_by_one = self.count < ONE_BY_ONE || self.alarmed_until.is_some();
        self.together = if one_by_one { 1 } else { TOGETHER };
        self.left = self.together;
        slow
    }

    /// Another call than an operation took so long, until `ended`. What there is to tell.
    pub(super) fn other(
        &mut self,
        call: ServiceCall,
        took: Duration,
        ended: Duration,
    ) -> Option<SlowCall> {
        if took < self.slow {
            return None;
        }
        self.slow_call(call, 1, took, ended)
    }

    #[cold]
    fn slow_call(
        &mut self,
        call: ServiceCall,
        calls: u32,
        took: Duration,
        ended: Duration,
    ) -> Option<SlowCall> {
        self.alarmed_until = Some(ended + ALARMED);
        if self.told.is_some_and(|told| ended.saturating_sub(told) < LINES_EVERY) {
            self.untold += 1;
            return None;
        }
        self.told = Some(ended);
        let untold = std::mem::take(&mut self.untold);
        Some(SlowCall { call, calls, took, slow: self.slow, untold })
    }

    /// Calls off the alarm when its time is over. To be called now and then.
    pub(super) fn calm(&mut self, now: Duration) {
        if self.alarmed_until.is_some_and(|until| until <= now) {
            self.alarmed_until = None;
            (self.together, self.left) = (TOGETHER, TOGETHER);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A clock that goes on as it is told, and counts who looks at it.
    struct Clock {
        now: Cell<Duration>,
        reads: Cell<u32>,
    }

    impl Clock {
        fn new() -> Self {
            Self { now: Cell::new(Duration::from_secs(9)), reads: Cell::new(0) }
        }

        fn read(&self) -> Duration {
            self.reads.set(self.reads.get() + 1);
            self.now.get()
        }

        fn pass(&self, ms: u64) {
            self.now.set(self.now.get() + Duration::from_millis(ms));
        }
    }

    fn context(order: u64, number: u64) -> Context {
        Context::new(SessionId::default(), RequestNumber(number), OrderNumber(order))
    }

    /// Runs one operation that takes so long.
    fn run(
        watch: &mut Stopwatch,
        clock: &Clock,
        order: u64,
        number: u64,
        ms: u64,
    ) -> Option<SlowCall> {
        let context = context(order, number);
        watch.begin(&context, || clock.read());
        clock.pass(ms);
        watch.end(&context, || clock.read())
    }

    #[test]
    fn a_slow_operation_is_told_with_its_duration_and_the_next_ones_only_counted() {
        let (mut watch, clock) = (Stopwatch::new(500_000), Clock::new());
        assert_eq!(run(&mut watch, &clock, 1, 1, 99), None);
        // Time between batches is not the service's.
        clock.pass(5_000);
        assert_eq!(run(&mut watch, &clock, 2, 1, 99), None);
        let slow = run(&mut watch, &clock, 2, 2, 100).unwrap();
        let (session, number) = (SessionId::default(), RequestNumber(2));
        assert_eq!(slow.call, ServiceCall::Execute { order: OrderNumber(2), session, number });
        assert_eq!((slow.calls, slow.took, slow.untold), (1, Duration::from_millis(100), 0));
        assert_eq!(run(&mut watch, &clock, 3, 1, 3_000), None, "one line in ten seconds");
        assert_eq!(run(&mut watch, &clock, 4, 1, 3_000), None);
        let next = run(&mut watch, &clock, 5, 1, 4_000).unwrap();
        assert_eq!((next.untold, next.took), (2, Duration::from_secs(4)));
    }

    #[test]
    fn operations_of_a_long_batch_are_timed_together_until_one_was_slow() {
        let (mut watch, clock) = (Stopwatch::new(500_000), Clock::new());
        for number in 0..100 {
            assert_eq!(run(&mut watch, &clock, 1, number, 1), None);
        }
        assert_eq!(clock.reads.get(), 1 + ONE_BY_ONE + (100 - ONE_BY_ONE) / TOGETHER);
        let last = (100..100 + u64::from(TOGETHER))
            .find_map(|number| run(&mut watch, &clock, 1, number, 60))
            .unwrap();
        assert_eq!((last.calls, last.took), (TOGETHER, TOGETHER * Duration::from_millis(60)));
        let before = clock.reads.get();
        for number in 200..220 {
            run(&mut watch, &clock, 1, number, 1);
        }
        assert_eq!(clock.reads.get(), before + 20, "all are timed");
        clock.pass(60_000);
        watch.calm(clock.now.get());
        run(&mut watch, &clock, 1, 300, 1);
        assert_eq!(clock.reads.get(), before + 20, "the alarm is over");
    }

    #[test]
    fn a_slow_snapshot_is_told() {
        let (mut watch, clock) = (Stopwatch::new(500_000), Clock::new());
        let now = clock.now.get();
        assert_eq!(watch.other(ServiceCall::Snapshot, Duration::from_millis(99), now), None);
        let slow = watch.other(ServiceCall::Snapshot, Duration::from_millis(100), now).unwrap();
        assert_eq!((slow.call, slow.calls), (ServiceCall::Snapshot, 1));
    }
}
