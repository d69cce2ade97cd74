//! The loop of one load thread, and the threads of a measurement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Access, Answer, Failure, Outcome, Pace, Recorder, Sessions, Workload};
use crate::Error;
use crate::stages::Sample;
use crate::stop::Stop;

/// A failed session waits this long before it submits again.
const PENALTY_NS: u64 = 20_000_000;
/// Longest poll: the loop looks at the time and the stop flag at least this often.
const LONGEST_POLL: Duration = Duration::from_millis(20);
/// Whoever is in a hurry waits no longer than this for outstanding operations.
const HURRIED_DRAIN_NS: u64 = 1_000_000_000;

/// What [`Tallies::finish`] and [`Tallies::hurry`] ask for.
const FINISH: u8 = 1;
const HURRY: u8 = 2;

/// The schedule of a load, in time from its `origin`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Time zero.
    pub origin: Instant,
    /// Operations that start within this time are warm-up, and not recorded.
    pub warmup: Duration,
    /// Length of the measured interval; [`Tallies::finish`] ends it earlier.
    pub measured: Duration,
    /// Longest wait for the operations that are outstanding at the end of the interval.
    pub drain: Duration,
    /// How many operations to start in the measured interval, which then ends when all of them have
    /// ended; without it, the interval has its length.
    pub operations: Option<u64>,
}

impl Plan {
    fn begin_ns(&self) -> u64 {
        self.warmup.as_nanos() as u64
    }

    fn end_ns(&self) -> u64 {
        (self.warmup + self.measured).as_nanos() as u64
    }
}

/// Counters that one thread publishes while it runs, on their own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tallies {
    completed: AtomicU64,
    failed: AtomicU64,
    finish: AtomicU8,
    done: AtomicBool,
}

impl Tallies {
    /// Ends the measured interval now, before its planned end.
    pub fn finish(&self) {
        self.finish.fetch_max(FINISH, Ordering::Relaxed);
    }

    /// Ends the measured interval now, and waits only a moment for what is outstanding.
    pub fn hurry(&self) {
        self.finish.fetch_max(HURRY, Ordering::Relaxed);
    }

    /// What [`Self::finish`] or [`Self::hurry`] have asked for, as a word; nothing, if neither was called.
    #[must_use]
    pub fn asked(&self) -> Option<&'static str> {
        match self.finish.load(Ordering::Relaxed) {
            0 => None,
            FINISH => Some("finish"),
            _ => Some("hurry"),
        }
    }

    /// Takes over what another process has counted.
    pub fn set(&self, completed: u64, failed: u64) {
        self.completed.store(completed, Ordering::Relaxed);
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// Whether the thread has ended its interval by itself.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Acknowledged operations so far, warm-up included.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Failed operations so far, warm-up included.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What one thread measured.
#[derive(Debug)]
pub struct Run<W> {
    /// Latencies, failures and gaps of the measured interval.
    pub recorder: Recorder,
    /// The thread's workload, which may know more about the results.
    pub workload: W,
    /// Operations acknowledged in total, warm-up and drain included.
    pub acknowledged: u64,
    /// Operations acknowledged inside the measured interval, whenever they were submitted.
    pub acknowledged_inside: u64,
    /// Operations that failed in total.
    pub failed: u64,
    /// Operations still outstanding when the drain ended.
    pub unfinished: u64,
    /// Of an open loop: operations that were due in the measured interval.
    pub due: u64,
    /// Of an open loop: those of them that were never sent, as no session was free until the drain ended.
    pub never_sent: u64,
    /// Length of the measured interval.
    pub length: Duration,
    /// How much of it the thread had nothing to do: it waited for replies or for the next operation to be due.
    pub waited: Duration,
    /// The requests that were followed.
    pub samples: Vec<Sample>,
}

/// An operation's end, kept until the poll is over so that the time is taken once.
struct Ended {
    session: u32,
    end: Result<Answer, Failure>,
}

/// Runs one thread's load to its end: warm-up, measured interval, drain.
///
/// # Errors
/// If the driver fails, or the flag was raised.
pub fn drive<S: Sessions, P: Pace, W: Workload>(
    sessions: &mut S,
    pace: P,
    workload: W,
    plan: &Plan,
    tallies: &Tallies,
    stop: &Stop,
) -> Result<Run<W>, Error> {
    let mut load = Load::new(sessions.count(), pace, workload, plan);
    load.waited_before = sessions.waited();
    let mut drain = plan.drain.as_nanos() as u64;
    std::thread::sleep(plan.origin.saturating_duration_since(Instant::now()));
    let mut now = elapsed(plan.origin);
    loop {
        load.submit(sessions, now)?;
        load.poll(sessions, now)?;
        now = elapsed(plan.origin);
        load.note_waiting(now, sessions.waited());
        load.account(now, tallies);
        let asked = tallies.finish.load(Ordering::Relaxed);
        if asked >= FINISH || load.is_all_done() {
            load.end = load.end.min(now.max(load.from));
        }
        if asked >= HURRY {
            drain = drain.min(HURRIED_DRAIN_NS);
        }
        if now >= load.end {
            load.close();
            // What became due before the end while the last poll waited still has its turn.
            load.submit(sessions, now)?;
            tallies.done.store(true, Ordering::Relaxed);
            if load.outstanding == 0 || now >= load.end.saturating_add(drain) {
                return Ok(load.into_run());
            }
        }
        stop.check_urgent()?;
    }
}

/// One thread's load while it runs. Times are nanoseconds from the plan's origin.
struct Load<P, W> {
    pace: P,
    workload: W,
    recorder: Recorder,
    /// The measured interval.
    from: u64,
    end: u64,
    is_closed: bool,
    /// The operation being submitted; kept for its memory.
    operation: Vec<u8>,
    /// When the outstanding operation of each session started.
    started: Vec<u64>,
    /// What the last poll completed.
    ended: Vec<Ended>,
    /// Sessions whose operation has a further step.
    continuing: Vec<u32>,
    /// Operations that may still start in the measured interval.
    left: Option<u64>,
    /// Operations that were due in the measured interval and have started.
    due: u64,
    /// Sessions whose operation failed, with the time from which they may submit again.
    penalised: VecDeque<(u64, u32)>,
    outstanding: u64,
    acknowledged: u64,
    acknowledged_inside: u64,
    failed: u64,
    /// How long the sessions had waited when the measured interval began, and by now.
    waited_before: Duration,
    waited: Duration,
}

impl<P: Pace, W: Workload> Load<P, W> {
    fn new(count: u32, mut pace: P, workload: W, plan: &Plan) -> Self {
        // The first operations are spread over the polls by the driver's own batching.
        (0..count).rev().for_each(|session| pace.idle(session, 0));
        Self {
            pace,
            workload,
            recorder: Recorder::starting_at(plan.begin_ns(), plan.measured),
            from: plan.begin_ns(),
            end: plan.end_ns(),
            is_closed: false,
            operation: Vec::with_capacity(4096),
            started: vec![0; count as usize],
            ended: Vec::with_capacity(count as usize),
            continuing: Vec::with_capacity(count as usize),
            left: plan.operations,
            due: 0,
            penalised: VecDeque::with_capacity(count as usize),
            outstanding: 0,
            acknowledged: 0,
            acknowledged_inside: 0,
            failed: 0,
            waited_before: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    /// Whether all operations that were to start have started and ended.
    fn is_all_done(&self) -> bool {
        self.left == Some(0) && self.outstanding == 0
    }

    /// Whether an operation that counts from this time belongs to the measured interval.
    fn is_measured(&self, since: u64) -> bool {
        since >= self.from && since < self.end
    }

    /// Submits what is due.
    fn submit(&mut self, sessions: &mut impl Sessions, now: u64) -> Result<(), Error> {
        while let Some(session) = self.continuing.pop() {
            self.send(sessions, session)?;
        }
        while self.penalised.front().is_some_and(|&(at, _)| at <= now) {
            let (_, session) = self.penalised.pop_front().expect("just seen");
            self.pace.idle(session, now);
        }
        while self.left != Some(0)
            && let Some((session, since)) = self.pace.next(now, self.end)
        {
            if self.is_measured(since) {
                self.due += 1;
                self.left = self.left.map(|left| left - 1);
            }
            self.started[session as usize] = since;
            self.outstanding += 1;
            sessions.counts_from(since);
            self.send(sessions, session)?;
        }
        Ok(())
    }

    fn send(&mut self, sessions: &mut impl Sessions, session: u32) -> Result<(), Error> {
        self.operation.clear();
        let access: Access = self.workload.next(session, &mut self.operation);
        sessions.submit(session, access, &self.operation)
    }

    /// Lets the driver work until an operation has ended or the pace wants to act.
    fn poll(&mut self, sessions: &mut impl Sessions, now: u64) -> Result<(), Error> {
        let wait = self.pace.wait(now).map_or(LONGEST_POLL, Duration::from_nanos);
        let Self { workload, ended, .. } = self;
        sessions.poll(wait.min(LONGEST_POLL), &mut |session, outcome| {
            let end = match outcome {
                Outcome::Done(result) => match workload.acknowledged(session, result) {
                    Answer::Wrong => Err(Failure::WrongResult),
                    answer => Ok(answer),
                },
                Outcome::Failed(failure) => {
                    workload.failed(session);
                    Err(failure)
                }
            };
            ended.push(Ended { session, end });
        })
    }

    /// Takes note of how long the sessions have waited by now; what they waited before the measured interval or
    /// after it does not count.
    fn note_waiting(&mut self, now: u64, waited: Duration) {
        if now < self.from {
            self.waited_before = waited;
        } else if !self.is_closed {
            self.waited = waited;
        }
    }

    /// Counts what the last poll completed, and lets its sessions go on.
    fn account(&mut self, now: u64, tallies: &Tallies) {
        let inside = now >= self.from && now < self.end;
        // What was due during the warm-up and is answered only now has waited: it counts as well.
        let backlog = inside && self.pace.is_open();
        let mut acknowledged = 0;
        let mut acknowledged_inside = 0;
        for Ended { session, end } in self.ended.drain(..) {
            let since = self.started[session as usize];
            let measured = since >= self.from && since < self.end;
            let counts = measured || backlog;
            match end {
                Ok(Answer::Continue) => {
                    self.continuing.push(session);
                    continue;
                }
                Ok(_) => {
                    acknowledged += 1;
                    // Of a number of operations, those that started in the interval are meant.
                    let is_inside = if self.left.is_some() { measured } else { inside };
                    acknowledged_inside += u32::from(is_inside);
                    if counts {
                        self.recorder.completed(now - since);
                    }
                    self.pace.idle(session, now);
                }
                Err(kind) => {
                    self.failed += 1;
                    if counts {
                        self.recorder.failed(kind);
                    }
                    // An evicted session accepts no more operations.
                    if kind != Failure::Evicted {
                        self.penalised.push_back((now + PENALTY_NS, session));
                    }
                }
            }
            self.outstanding -= 1;
        }
        if acknowledged > 0 {
            self.acknowledged += acknowledged;
            if inside {
                self.recorder.progress(now);
            }
            tallies.completed.store(self.acknowledged, Ordering::Relaxed);
        }
        if acknowledged_inside > 0 {
            self.acknowledged_inside += u64::from(acknowledged_inside);
            self.recorder.acknowledged(now - self.from, acknowledged_inside);
        }
        if self.failed > 0 {
            tallies.failed.store(self.failed, Ordering::Relaxed);
        }
    }

    /// Ends the measured interval, once.
    fn close(&mut self) {
        if !self.is_closed {
            self.is_closed = true;
            self.recorder.close(self.end);
        }
    }

    fn into_run(self) -> Run<W> {
        let never_sent = self.pace.never_sent(self.from, self.end);
        let length = Duration::from_nanos(self.end.saturating_sub(self.from));
        Run {
            due: if self.pace.is_open() { self.due + never_sent } else { 0 },
            never_sent,
            length,
            recorder: self.recorder,
            workload: self.workload,
            acknowledged: self.acknowledged,
            acknowledged_inside: self.acknowledged_inside,
            failed: self.failed,
            unfinished: self.outstanding,
            waited: self.waited.saturating_sub(self.waited_before).min(length),
            samples: Vec::new(),
        }
    }
}

fn elapsed(origin: Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

/// The work of one thread of a measurement.
pub type Part<T> = Box<dyn FnOnce(&Tallies, &Stop) -> Result<T, Error> + Send>;

/// Runs one thread per part of the load, and `watch` on the calling thread meanwhile. The threads
/// are pinned to `cores`, unless that is empty.
///
/// `watch` gets the threads' tallies. Its error, like that of a thread, stops everything.
///
/// # Errors
/// The first error of a thread or of `watch`.
pub fn measure<T: Send, V>(
    parts: Vec<Part<T>>,
    cores: &[usize],
    stop: &Stop,
    watch: impl FnOnce(&[Arc<Tallies>]) -> Result<V, Error>,
) -> Result<(Vec<T>, V), Error> {
    let tallies: Vec<Arc<Tallies>> = parts.iter().map(|_| Arc::default()).collect();
    // A thread's failure ends the other threads, but is not an interruption by the user.
    let failure = Stop::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(index, part)| {
                let tallies = Arc::clone(&tallies[index]);
                let (stop, failure) = (stop.clone(), failure.clone());
                let core = cores.get(index).copied();
                std::thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn_scoped(scope, move || {
                        let result = pin(core).and_then(|()| part(&tallies, &stop));
                        if result.is_err() {
                            failure.raise();
                            stop.raise();
                        }
                        result
                    })
                    .map_err(|e| Error::new(format!("cannot start a load thread: {e}")))
            })
            .collect::<Result<_, _>>()?;
        let watched = watch(&tallies);
        if watched.is_err() {
            stop.raise();
        }
        let mut runs = Vec::with_capacity(threads.len());
        let mut error: Option<Error> = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok(run)) => runs.push(run),
                Ok(Err(e)) if error.as_ref().is_none_or(Error::is_interrupted) => error = Some(e),
                Ok(Err(_)) => {}
                Err(_) => error = Some(Error::new("a load thread panicked (see above)")),
            }
        }
        match (error, watched) {
            // If a thread failed by itself, an interruption of the watcher is only its consequence.
            (Some(e), _) if !e.is_interrupted() => Err(e),
            (_, Err(e)) => Err(e),
            (Some(e), _) => Err(e),
            (None, Ok(watched)) => Ok((runs, watched)),
        }
    })
}

fn pin(core: Option<usize>) -> Result<(), Error> {
    match core {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(Error::new(format!("a load thread cannot be pinned to core {id}: omit --pin")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Loopback;
    use super::super::{ClosedLoop, OpenLoop, Rate};
    use super::*;

    struct Any(u64);

    impl Workload for Any {
        fn next(&mut self, _: u32, operation: &mut Vec<u8>) -> Access {
            assert!(operation.is_empty());
            Access::Order
        }

        fn acknowledged(&mut self, _: u32, _: &[u8]) -> Answer {
            self.0 += 1;
            Answer::Right
        }
    }

    fn plan(warmup_ms: u64, measured_ms: u64) -> Plan {
        Plan {
            origin: Instant::now(),
            warmup: Duration::from_millis(warmup_ms),
            measured: Duration::from_millis(measured_ms),
            drain: Duration::from_secs(60),
            operations: None,
        }
    }

    #[test]
    fn the_closed_loop_counts_what_the_workload_saw_and_leaves_warm_up_out() {
        let mut sessions = Loopback::new(8);
        let tallies = Tallies::default();
        let pace = ClosedLoop::new(8, Duration::ZERO);
        let run =
            drive(&mut sessions, pace, Any(0), &plan(20, 30), &tallies, &Stop::new()).unwrap();
        assert_eq!(run.acknowledged, run.workload.0);
        assert_eq!(run.acknowledged, sessions.submitted);
        assert_eq!(tallies.completed(), run.acknowledged);
        assert_eq!((run.failed, run.unfinished), (0, 0));
        assert!(Recorder::merge([run.recorder]).completed() <= run.acknowledged);
    }

    #[test]
    fn warm_up_is_not_recorded() {
        let mut sessions = Loopback::new(8);
        let (pace, tallies) = (ClosedLoop::new(8, Duration::ZERO), Tallies::default());
        let run = drive(&mut sessions, pace, Any(0), &plan(30, 0), &tallies, &Stop::new()).unwrap();
        assert!(run.acknowledged > 0);
        assert_eq!((run.acknowledged_inside, Recorder::merge([run.recorder]).completed()), (0, 0));
    }

    #[test]
    fn an_open_loop_completes_what_was_intended_inside_the_interval() {
        let mut sessions = Loopback::new(4);
        let pace = OpenLoop::new(4, Rate::constant(20_000.0));
        let tallies = Tallies::default();
        let run =
            drive(&mut sessions, pace, Any(0), &plan(10, 40), &tallies, &Stop::new()).unwrap();
        // 50 ms at 20,000 a second, of which the last 40 ms are recorded, and those due before that are
        // answered only then; fewer if this thread did not get to run in time.
        let recorded = Recorder::merge([run.recorder]).completed();
        assert_eq!(run.acknowledged, sessions.submitted);
        assert!(run.acknowledged > 0 && run.acknowledged <= 1000, "{}", run.acknowledged);
        assert!(recorded <= run.acknowledged, "{recorded}");
    }

    /// Answers nothing for a while.
    struct Stalling {
        inner: Loopback,
        begun: Instant,
        stall: std::ops::Range<Duration>,
        /// Whether a poll lasts as long as the stall.
        is_deaf: bool,
    }

    impl Stalling {
        fn new(sessions: u32, stall: std::ops::Range<Duration>, is_deaf: bool) -> Self {
            Self { inner: Loopback::new(sessions), begun: Instant::now(), stall, is_deaf }
        }
    }

    impl Sessions for Stalling {
        fn count(&self) -> u32 {
            self.inner.count()
        }

        fn submit(&mut self, session: u32, access: Access, bytes: &[u8]) -> Result<(), Error> {
            self.inner.submit(session, access, bytes)
        }

        fn waited(&self) -> Duration {
            self.inner.waited()
        }

        fn poll(
            &mut self,
            wait: Duration,
            done: &mut impl FnMut(u32, Outcome<'_>),
        ) -> Result<(), Error> {
            if self.is_deaf {
                std::thread::sleep(self.stall.end.saturating_sub(self.begun.elapsed()));
            } else if self.stall.contains(&self.begun.elapsed()) {
                std::thread::sleep(Duration::from_millis(1));
                self.inner.waited += Duration::from_millis(1);
                return Ok(());
            }
            self.inner.poll(wait, done)
        }
    }

    /// The last poll may wait until after the end, though more is due before it: for a reply, or as the host is busy.
    #[test]
    fn what_was_due_while_the_last_poll_waited_is_sent() {
        let stall = Duration::ZERO..Duration::from_millis(200);
        let mut sessions = Stalling::new(4, stall, true);
        let (pace, tallies) = (OpenLoop::new(4, Rate::constant(20.0)), Tallies::default());
        let run = drive(&mut sessions, pace, Any(0), &plan(0, 100), &tallies, &Stop::new());
        let run = run.unwrap();
        assert_eq!((run.due, run.never_sent, run.unfinished), (2, 0, 0));
    }

    /// Whoever counted from the submission would see only as many slow operations as there are sessions. A
    /// slow machine makes latencies longer, never shorter.
    #[test]
    fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
        let stall = Duration::from_millis(200)..Duration::from_millis(1200);
        let mut sessions = Stalling::new(2, stall, false);
        let (pace, tallies) = (OpenLoop::new(2, Rate::constant(1000.0)), Tallies::default());
        let run = drive(&mut sessions, pace, Any(0), &plan(0, 2000), &tallies, &Stop::new());
        let run = run.unwrap();
        // It had nothing to do meanwhile.
        assert!(run.waited > Duration::ZERO && run.waited <= run.length);
        let latency = Recorder::merge([run.recorder]).latency_ns;
        // Half of the time nothing was answered: of what was due then, one in two waited half a second.
        let at = |quantile| Duration::from_nanos(latency.value_at_quantile(quantile));
        assert!(at(0.9) >= Duration::from_millis(700), "{:?}", at(0.9));
        assert!(at(0.75) >= Duration::from_millis(400), "{:?}", at(0.75));
        assert_eq!(latency.len(), 2000);
    }

    #[test]
    fn failed_operations_are_counted_and_their_sessions_come_back() {
        let mut sessions = Loopback::new(2);
        sessions.fail_every = 2;
        let tallies = Tallies::default();
        let pace = ClosedLoop::new(2, Duration::ZERO);
        let run =
            drive(&mut sessions, pace, Any(0), &plan(0, 100), &tallies, &Stop::new()).unwrap();
        assert!(run.failed > 0 && run.acknowledged > 0);
        assert_eq!(run.failed + run.acknowledged, sessions.submitted);
        assert_eq!(tallies.failed(), run.failed);
    }

    #[test]
    fn a_failing_thread_stops_the_others_and_its_error_is_reported() {
        let parts: Vec<Part<()>> = vec![
            Box::new(|_, _| Err(Error::new("no such key"))),
            Box::new(|_, stop| {
                stop.sleep_until(Instant::now() + Duration::from_secs(600), || Ok(()))
            }),
        ];
        let stop = Stop::new();
        let watch = |_: &[Arc<Tallies>]| {
            stop.sleep_until(Instant::now() + Duration::from_secs(600), || Ok(()))
        };
        let error = measure(parts, &[], &stop, watch).unwrap_err();
        assert_eq!(error.to_string(), "no such key");
    }
}
