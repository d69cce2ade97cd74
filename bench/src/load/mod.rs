//! The load generator: many logical clients (sessions) over few connections.
//!
//! One thread drives one connection group: a client identity with its links to all replicas and
//! thousands of sessions. The thread alternates between polling its driver, which completes
//! operations, and submitting the next ones; it takes the time once per poll, allocates nothing per
//! operation and takes no lock. What the threads measured is merged when they have ended.

mod closed;
mod drive;
mod open;
mod record;
mod timeline;

pub use closed::ClosedLoop;
pub use drive::{Part, Plan, Run, Tallies, drive, measure};
pub use open::{OpenLoop, Rate};
pub use record::{Measured, Recorder, latency_histogram};
pub use timeline::{BUCKET, Timeline};

use std::time::Duration;

use crate::Error;

/// How an operation reaches the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Agreed on by the group.
    Order,
    /// Read-only; answered without ordering if all replicas agree.
    Query,
}

/// Why an operation was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The replicas refused it because they are overloaded.
    Overloaded,
    /// The session was evicted.
    Evicted,
    /// No answer in time; the operation may have been executed or not.
    TimedOut,
    /// The group answered, but not with a result.
    Refused,
    /// The result is not one that the service can return.
    WrongResult,
}

impl Failure {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Overloaded, Self::Evicted, Self::TimedOut, Self::Refused, Self::WrongResult];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Evicted => "evicted",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
            Self::WrongResult => "wrong_result",
        }
    }
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// f+1 replicas returned this result.
    Done(&'a [u8]),
    /// It was not acknowledged.
    Failed(Failure),
}

/// What the load generator needs from a client: sessions with one outstanding operation each.
pub trait Sessions {
    /// Number of sessions; they are numbered from 0.
    fn count(&self) -> u32;

    /// Queues the operation of an idle session; the next poll sends it.
    ///
    /// # Errors
    /// If the driver cannot take it at all (a bug of the caller or a driver that has ended).
    fn submit(&mut self, session: u32, access: Access, operation: &[u8]) -> Result<(), Error>;

    /// The operation that is submitted next counts from this time, in nanoseconds from the origin of the load: for
    /// whoever follows requests.
    #[inline]
    fn counts_from(&mut self, since: u64) {
        let _ = since;
    }

    /// How long it has waited so far with nothing to do: in polls, for something to happen.
    fn waited(&self) -> Duration;

    /// Sends what is queued, waits up to `wait` for something to happen, and reports every session
    /// whose operation has ended.
    ///
    /// # Errors
    /// If the driver has ended.
    fn poll(
        &mut self,
        wait: Duration,
        done: &mut impl FnMut(u32, Outcome<'_>),
    ) -> Result<(), Error>;
}

/// What a workload says about an acknowledged result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The operation has ended.
    Right,
    /// No correct service can return this.
    Wrong,
    /// The operation has a further step, which the session submits at once: the time of all steps is the
    /// latency of one operation.
    Continue,
}

/// The operations that clients submit, and the answers that they expect.
pub trait Workload: Send {
    /// Writes the next operation of a session, or the next step of its present one, into the empty
    /// buffer.
    fn next(&mut self, session: u32, operation: &mut Vec<u8>) -> Access;

    /// Takes note of an acknowledged result.
    fn acknowledged(&mut self, session: u32, result: &[u8]) -> Answer;

    /// Takes note that a session's operation failed; it may have been executed or not.
    fn failed(&mut self, session: u32) {
        let _ = session;
    }
}

/// Decides when sessions submit: closed or open loop.
pub trait Pace {
    /// Nanoseconds from now until the next operation is due, if that depends on time.
    fn wait(&self, now: u64) -> Option<u64>;

    /// A session is idle (at the start, and whenever its operation has ended).
    fn idle(&mut self, session: u32, now: u64);

    /// The next session to submit now and the time that its latency counts from; `None` if nothing
    /// is due. After `end` nothing new is due.
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)>;

    /// Whether operations are due by the clock, so that they may be due long before they are sent.
    fn is_open(&self) -> bool {
        false
    }

    /// Operations that were due from `from` to before `end`, and that no session has taken.
    fn never_sent(&self, from: u64, end: u64) -> u64 {
        let _ = (from, end);
        0
    }
}

/// Either loop.
#[derive(Debug)]
pub enum AnyPace {
    /// Closed.
    Closed(ClosedLoop),
    /// Open.
    Open(OpenLoop),
}

impl Pace for AnyPace {
    fn wait(&self, now: u64) -> Option<u64> {
        match self {
            Self::Closed(pace) => pace.wait(now),
            Self::Open(pace) => pace.wait(now),
        }
    }

    #[inline]
    fn idle(&mut self, session: u32, now: u64) {
        match self {
            Self::Closed(pace) => pace.idle(session, now),
            Self::Open(pace) => pace.idle(session, now),
        }
    }

    #[inline]
    fn next(&mut self, now: u64, end: u64) -> Option<(u32, u64)> {
        match self {
            Self::Closed(pace) => pace.next(now, end),
            Self::Open(pace) => pace.next(now, end),
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    fn never_sent(&self, from: u64, end: u64) -> u64 {
        match self {
            Self::Closed(pace) => pace.never_sent(from, end),
            Self::Open(pace) => pace.never_sent(from, end),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A client without a network, for tests of the loops.

    use std::time::Instant;

    use super::*;

    /// Completes every operation at the next poll; every `fail_every`-th fails.
    pub(crate) struct Loopback {
        pub pending: Vec<u32>,
        pub sessions: u32,
        pub fail_every: u64,
        pub submitted: u64,
        pub echo: Vec<u8>,
        pub waited: Duration,
        /// The operations, in the order in which they were submitted.
        pub operations: Vec<Vec<u8>>,
    }

    impl Loopback {
        pub(crate) fn new(sessions: u32) -> Self {
            Self {
                pending: Vec::new(),
                sessions,
                fail_every: u64::MAX,
                submitted: 0,
                echo: Vec::new(),
                waited: Duration::ZERO,
                operations: Vec::new(),
            }
        }
    }

    impl Sessions for Loopback {
        fn count(&self) -> u32 {
            self.sessions
        }

        fn waited(&self) -> Duration {
            self.waited
        }

        fn submit(&mut self, session: u32, _: Access, operation: &[u8]) -> Result<(), Error> {
            assert!(!self.pending.contains(&session), "one outstanding operation per session");
            self.pending.push(session);
            self.operations.push(operation.to_vec());
            Ok(())
        }

        fn poll(
            &mut self,
            wait: Duration,
            done: &mut impl FnMut(u32, Outcome<'_>),
        ) -> Result<(), Error> {
            if self.pending.is_empty() {
                let start = Instant::now();
                std::thread::sleep(wait.min(Duration::from_millis(1)));
                self.waited += start.elapsed();
            }
            for session in self.pending.drain(..) {
                self.submitted += 1;
                if self.submitted.is_multiple_of(self.fail_every) {
                    done(session, Outcome::Failed(Failure::TimedOut));
                } else {
                    done(session, Outcome::Done(&self.echo));
                }
            }
            Ok(())
        }
    }
}
