//! The loop of one load thread, and the threads of a measurement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Access, Failure, Outcome, Pace, Recorder, Sessions, Workload};
use crate::Error;
use crate::stop::Stop;

/// A failed session waits this long before it submits again.
const PENALTY_NS: u64 = 20_000_000;
/// Longest poll: the loop looks at the time and the stop flag at least this often.
const LONGEST_POLL: Duration = Duration::from_millis(20);

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
    finish: AtomicBool,
}

impl Tallies {
    /// Ends the measured interval now, before its planned end.
    pub fn finish(&self) {
        self.finish.store(true, Ordering::Relaxed);
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
}

/// An operation's end, kept until the poll is over so that the time is taken once.
struct Ended {
    session: u32,
    failure: Option<Failure>,
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
    let drain = plan.drain.as_nanos() as u64;
    std::thread::sleep(plan.origin.saturating_duration_since(Instant::now()));
    let mut now = elapsed(plan.origin);
    loop {
        load.submit(sessions, now)?;
        load.poll(sessions, now)?;
        now = elapsed(plan.origin);
        load.account(now, tallies);
        if tallies.finish.load(Ordering::Relaxed) {
            load.end = load.end.min(now);
        }
        if now >= load.end {
            load.close();
            if load.outstanding == 0 || now >= load.end.saturating_add(drain) {
                return Ok(load.into_run());
            }
        }
        stop.check()?;
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
    /// Sessions whose operation failed, with the time from which they may submit again.
    penalised: VecDeque<(u64, u32)>,
    outstanding: u64,
    acknowledged: u64,
    acknowledged_inside: u64,
    failed: u64,
}

impl<P: Pace, W: Workload> Load<P, W> {
    fn new(count: u32, mut pace: P, workload: W, plan: &Plan) -> Self {
        // The first operations are spread over the polls by the driver's own batching.
        (0..count).rev().for_each(|session| pace.idle(session));
        Self {
            pace,
            workload,
            recorder: Recorder::starting_at(plan.begin_ns()),
            from: plan.begin_ns(),
            end: plan.end_ns(),
            is_closed: false,
            operation: Vec::with_capacity(4096),
            started: vec![0; count as usize],
            ended: Vec::with_capacity(count as usize),
            penalised: VecDeque::with_capacity(count as usize),
            outstanding: 0,
            acknowledged: 0,
            acknowledged_inside: 0,
            failed: 0,
        }
    }

    /// Submits what is due.
    fn submit(&mut self, sessions: &mut impl Sessions, now: u64) -> Result<(), Error> {
        while self.penalised.front().is_some_and(|&(at, _)| at <= now) {
            let (_, session) = self.penalised.pop_front().expect("just seen");
            self.pace.idle(session);
        }
        while let Some((session, since)) = self.pace.next(now, self.end) {
            self.operation.clear();
            let access: Access = self.workload.next(session, &mut self.operation);
            sessions.submit(session, access, &self.operation)?;
            self.started[session as usize] = since;
            self.outstanding += 1;
        }
        Ok(())
    }

    /// Lets the driver work until an operation has ended or the pace wants to act.
    fn poll(&mut self, sessions: &mut impl Sessions, now: u64) -> Result<(), Error> {
        let wait = self.pace.wait(now).map_or(LONGEST_POLL, Duration::from_nanos);
        let Self { workload, ended, .. } = self;
        sessions.poll(wait.min(LONGEST_POLL), &mut |session, outcome| {
            let failure = match outcome {
                Outcome::Done(result) if workload.acknowledged(session, result) => None,
                Outcome::Done(_) => Some(Failure::WrongResult),
                Outcome::Failed(failure) => {
                    workload.failed(session);
                    Some(failure)
                }
            };
            ended.push(Ended { session, failure });
        })
    }

    /// Counts what the last poll completed, and lets its sessions go on.
    fn account(&mut self, now: u64, tallies: &Tallies) {
        let inside = now >= self.from && now < self.end;
        let mut progress = false;
        self.outstanding -= self.ended.len() as u64;
        for Ended { session, failure } in self.ended.drain(..) {
            let since = self.started[session as usize];
            let counts = since >= self.from && since < self.end;
            match failure {
                None => {
                    progress = true;
                    self.acknowledged += 1;
                    self.acknowledged_inside += u64::from(inside);
                    if counts {
                        self.recorder.completed(now - since);
                    }
                    self.pace.idle(session);
                }
                Some(kind) => {
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
        }
        if progress {
            if inside {
                self.recorder.progress(now);
            }
            tallies.completed.store(self.acknowledged, Ordering::Relaxed);
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
        Run {
            recorder: self.recorder,
            workload: self.workload,
            acknowledged: self.acknowledged,
            acknowledged_inside: self.acknowledged_inside,
            failed: self.failed,
            unfinished: self.outstanding,
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
    use super::super::{ClosedLoop, OpenLoop};
    use super::*;

    struct Any(u64);

    impl Workload for Any {
        fn next(&mut self, _: u32, operation: &mut Vec<u8>) -> Access {
            assert!(operation.is_empty());
            Access::Order
        }

        fn acknowledged(&mut self, _: u32, _: &[u8]) -> bool {
            self.0 += 1;
            true
        }
    }

    fn plan(warmup_ms: u64, measured_ms: u64) -> Plan {
        Plan {
            origin: Instant::now(),
            warmup: Duration::from_millis(warmup_ms),
            measured: Duration::from_millis(measured_ms),
            drain: Duration::from_secs(60),
        }
    }

    #[test]
    fn the_closed_loop_counts_what_the_workload_saw_and_leaves_warm_up_out() {
        let mut sessions = Loopback::new(8);
        let tallies = Tallies::default();
        let pace = ClosedLoop::new(8);
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
        let (pace, tallies) = (ClosedLoop::new(8), Tallies::default());
        let run = drive(&mut sessions, pace, Any(0), &plan(30, 0), &tallies, &Stop::new()).unwrap();
        assert!(run.acknowledged > 0);
        assert_eq!((run.acknowledged_inside, Recorder::merge([run.recorder]).completed()), (0, 0));
    }

    #[test]
    fn an_open_loop_completes_what_was_intended_inside_the_interval() {
        let mut sessions = Loopback::new(4);
        let pace = OpenLoop::new(4, 20_000.0);
        let tallies = Tallies::default();
        let run =
            drive(&mut sessions, pace, Any(0), &plan(10, 40), &tallies, &Stop::new()).unwrap();
        // 50 ms at 20,000 a second, the last 40 ms recorded; fewer if this thread did not get to
        // run in time, never more.
        let recorded = Recorder::merge([run.recorder]).completed();
        assert_eq!(run.acknowledged, sessions.submitted);
        assert!(run.acknowledged > 0 && run.acknowledged <= 1000, "{}", run.acknowledged);
        assert!(recorded <= 800 && recorded <= run.acknowledged, "{recorded}");
    }

    #[test]
    fn failed_operations_are_counted_and_their_sessions_come_back() {
        let mut sessions = Loopback::new(2);
        sessions.fail_every = 2;
        let tallies = Tallies::default();
        let pace = ClosedLoop::new(2);
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
