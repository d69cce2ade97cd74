//! The thread of a [`Client`](super::Client), which runs a driver and feeds it from the inbox.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hybster_net::Waker;
use hybster_proto::client::{Completions, Outcome, RequestKind, SubmitError};
use hybster_proto::ids::RequestNumber;

use super::pending::{CallResult, Cell, Responder};
use super::{CallError, ClientDriver, ClientError, ClientOptions};
use crate::group::{ClientKeys, Group};

/// How long to wait when nothing has a deadline.
const IDLE: Duration = Duration::from_secs(3600);
/// So many commands that were withdrawn may lie between the others, if those are not more.
const WITHDRAWN: usize = 64;

/// A request that waits for a session.
pub(super) struct Command {
    pub(super) operation: Vec<u8>,
    pub(super) kind: RequestKind,
    /// When to give up waiting for a session.
    pub(super) expires: Instant,
    pub(super) responder: Responder,
}

/// The state that handles and the thread share.
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    limit: usize,
}

struct Inbox {
    /// In the order of their numbers. Those that were withdrawn are empty.
    commands: VecDeque<(u64, Option<Command>)>,
    /// How many of them were withdrawn.
    withdrawn: usize,
    next: u64,
    /// When requests end that have deadlines of their own, by their numbers.
    deadlines: BTreeMap<(Instant, u64), Arc<Cell<CallResult>>>,
    /// Whether it refuses further commands.
    closed: bool,
    /// Why it was closed, if the client failed.
    failure: Option<Arc<ClientError>>,
    waker: Waker,
}

impl Inbox {
    fn waiting(&self) -> usize {
        self.commands.len() - self.withdrawn
    }

    /// Takes the content of a command away, if it is there. It is dropped outside of the lock, because
    /// somebody may be told.
    fn withdraw(&mut self, number: u64) -> Option<Command> {
        let at = self.commands.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let command = self.commands[at].1.take()?;
        self.withdrawn += 1;
        if self.withdrawn > WITHDRAWN && self.withdrawn > self.commands.len() / 2 {
            self.commands.retain(|(_, command)| command.is_some());
            self.withdrawn = 0;
        }
        Some(command)
    }
}

/// Why a command was not taken. The command is returned.
pub(super) enum Refused {
    Full(Command),
    Closed(Command, CallError),
}

impl Shared {
    pub(super) fn new(limit: usize, waker: Waker) -> Arc<Self> {
        let inbox = Inbox {
            commands: VecDeque::new(),
            withdrawn: 0,
            next: 0,
            deadlines: BTreeMap::new(),
            closed: false,
            failure: None,
            waker,
        };
        Arc::new(Self { inbox: Mutex::new(inbox), limit })
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that runs under this lock can panic.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a command; returns its number. One that is `limited` is refused if many wait.
    pub(super) fn push(&self, command: Command, limited: bool) -> Result<u64, Refused> {
        let mut inbox = self.lock();
        if inbox.closed {
            let error = inbox.failure.clone().map_or(CallError::Shutdown, CallError::Failed);
            return Err(Refused::Closed(command, error));
        }
        if limited && inbox.waiting() >= self.limit {
            return Err(Refused::Full(command));
        }
        let number = inbox.next;
        inbox.next += 1;
        inbox.commands.push_back((number, Some(command)));
        let waker = inbox.waker.clone();
        drop(inbox);
        waker.wake();
        Ok(number)
    }

    /// Removes a command that nobody waits for, if it was not sent yet.
    pub(super) fn withdraw(&self, number: u64) {
        let withdrawn = self.lock().withdraw(number);
        drop(withdrawn);
    }

    /// How many commands wait for a session.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Commands that wait, all that are kept, and deadlines.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> (usize, usize, usize) {
        let inbox = self.lock();
        (inbox.waiting(), inbox.commands.len(), inbox.deadlines.len())
    }

    /// The request with this number ends with a timeout at the deadline.
    pub(super) fn set_deadline(&self, at: Instant, number: u64, cell: &Arc<Cell<CallResult>>) {
        let mut inbox = self.lock();
        inbox.deadlines.insert((at, number), Arc::clone(cell));
        let waker = inbox.waker.clone();
        drop(inbox);
        waker.wake();
    }

    pub(super) fn forget_deadline(&self, at: Instant, number: u64) {
        self.lock().deadlines.remove(&(at, number));
    }

    /// Refuses further commands and wakes all waiting threads.
    pub(super) fn close(&self) {
        self.end(None);
    }

    fn end(&self, failure: Option<Arc<ClientError>>) {
        let mut inbox = self.lock();
        inbox.closed = true;
        inbox.failure = inbox.failure.take().or(failure);
        let waker = inbox.waker.clone();
        drop(inbox);
        waker.wake();
    }
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    driver: ClientDriver,
    group: Group,
    keys: ClientKeys,
    options: ClientOptions,
    /// Sessions that may take a request, once per request that they may take.
    permits: VecDeque<u32>,
    outstanding: HashMap<(u32, RequestNumber), Responder>,
    completions: Completions,
    /// Whether a copy of this process uses the same sessions.
    is_copied: bool,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        driver: ClientDriver,
        group: Group,
        keys: ClientKeys,
        options: ClientOptions,
    ) -> Self {
        let permits = permits(&driver);
        Self {
            shared,
            driver,
            group,
            keys,
            options,
            permits,
            outstanding: HashMap::new(),
            completions: Completions::default(),
            is_copied: false,
        }
    }

    /// What handles share with it.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs until the inbox is closed. Requests under way then end with a shutdown, or with the
    /// failure that closed it, as do all later calls.
    pub(super) fn run(mut self) {
        let failure = self.serve().err().map(Arc::new);
        if let Some(failure) = &failure {
            log::error!("a client ends: {failure}");
        }
        self.shared.end(failure.clone());
        let error = failure.map_or(CallError::Shutdown, CallError::Failed);
        for (_, responder) in self.outstanding.drain() {
            responder.answer(Err(error.clone()));
        }
        let mut inbox = self.shared.lock();
        inbox.withdrawn = 0;
        inbox.deadlines.clear();
        let commands = std::mem::take(&mut inbox.commands);
        drop(inbox);
        // Outside the lock: callbacks may use the client.
        for command in commands.into_iter().filter_map(|(_, command)| command) {
            command.responder.answer(Err(error.clone()));
        }
    }

    fn serve(&mut self) -> Result<(), ClientError> {
        loop {
            let Some(wait) = self.take_commands() else {
                return Ok(());
            };
            self.driver.poll(wait)?;
            self.complete();
            if self.permits.is_empty() && self.outstanding.is_empty() {
                self.begin_anew()?;
            }
        }
    }

    /// Submits what sessions can take. Returns how long to wait for more, or `None` when closed.
    fn take_commands(&mut self) -> Option<Duration> {
        loop {
            let mut inbox = self.shared.lock();
            if inbox.closed {
                return None;
            }
            let now = Instant::now();
            if let Some(first) = inbox.deadlines.first_entry()
                && first.key().0 <= now
            {
                let ((_, number), cell) = first.remove_entry();
                let withdrawn = inbox.withdraw(number);
                drop(inbox);
                cell.answer(Err(self.timeout()));
                drop(withdrawn);
                continue;
            }
            let deadline = inbox.deadlines.first_key_value().map(|((at, _), _)| *at);
            let until = |at: Instant| deadline.map_or(at, |deadline| deadline.min(at)) - now;
            let Some((_, first)) = inbox.commands.front() else {
                return Some(until(now + IDLE));
            };
            let expires = first.as_ref().map(|command| command.expires);
            let expired = expires.is_some_and(|expires| expires <= now);
            if let Some(expires) = expires
                && !expired
                && self.permits.is_empty()
            {
                return Some(until(expires));
            }
            let (number, command) = inbox.commands.pop_front().expect("there is a first one");
            let Some(command) = command else {
                inbox.withdrawn -= 1;
                continue;
            };
            drop(inbox);
            if expired {
                command.responder.answer(Err(self.timeout()));
            } else if let Some(command) = self.submit(command) {
                // No session can take it until an older request has ended, or a new incarnation
                // began.
                let wait = until(command.expires);
                self.shared.lock().commands.push_front((number, Some(command)));
                return Some(if self.outstanding.is_empty() { Duration::ZERO } else { wait });
            }
        }
    }

    /// Submits a command in any session. Returns it if none can take it now.
    fn submit(&mut self, command: Command) -> Option<Command> {
        let Command { operation, kind, expires, responder } = command;
        for _ in 0..self.permits.len() {
            let session = self.permits.pop_front()?;
            match self.driver.submit(session, &operation, kind) {
                Ok(number) => {
                    self.outstanding.insert((session, number), responder);
                    return None;
                }
                Err(SubmitError::TooLong { length, limit }) => {
                    self.permits.push_front(session);
                    responder.answer(Err(CallError::TooLong { length, limit }));
                    return None;
                }
                // Its oldest request holds up the window.
                Err(SubmitError::WindowFull { .. }) => self.permits.push_back(session),
                Err(SubmitError::Evicted { .. } | SubmitError::NoSession { .. }) => {}
            }
        }
        Some(Command { operation, kind, expires, responder })
    }

    fn complete(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.driver.take_completions(&mut completions);
        for completion in completions.iter() {
            if matches!(completion.outcome, Outcome::NumberTaken | Outcome::Stale) {
                // Sessions that are shared with a copy of this process are of no use.
                self.is_copied = true;
                self.permits.clear();
            }
            if !self.is_copied && !self.driver.core().is_evicted(completion.session) {
                self.permits.push_back(completion.session);
            }
            let key = (completion.session, completion.number);
            let Some(responder) = self.outstanding.remove(&key) else {
                debug_assert!(false, "every request has a responder");
                continue;
            };
            responder.answer(match completion.outcome {
                Outcome::Done => Ok(completion.result.to_vec()),
                // Its first request would have opened the session.
                Outcome::Evicted if completion.number == self.driver.core().first_number() => {
                    Err(CallError::ClockBehind)
                }
                Outcome::Evicted => Err(CallError::Evicted),
                Outcome::NumberTaken => Err(CallError::NumberTaken),
                Outcome::ResultGone => Err(CallError::ResultGone),
                Outcome::StatesDiffer => Err(CallError::StatesDiffer),
                Outcome::Stale => Err(CallError::Stale),
                Outcome::TooLong => Err(CallError::ResultTooLong),
                Outcome::Overloaded => Err(CallError::Overloaded),
                Outcome::DiskFull => Err(CallError::DiskFull),
                Outcome::TimedOut => Err(self.timeout()),
                Outcome::RepliesDiffer if self.driver.can_reach_group() => {
                    Err(CallError::RepliesDiffer)
                }
                Outcome::RepliesDiffer => Err(self.timeout()),
            });
        }
        self.completions = completions;
    }

    fn timeout(&self) -> CallError {
        if self.driver.can_reach_group() {
            CallError::Timeout
        } else {
            CallError::Unreachable(Arc::new(self.driver.unreachable()))
        }
    }

    /// No session can be used any more: those of a new incarnation take over.
    fn begin_anew(&mut self) -> Result<(), ClientError> {
        self.driver = ClientDriver::connect(&self.group, &self.keys, &self.options)?;
        self.permits = permits(&self.driver);
        self.is_copied = false;
        self.shared.lock().waker = self.driver.waker();
        Ok(())
    }
}

/// Sessions take turns; each appears as often as it may have requests outstanding.
fn permits(driver: &ClientDriver) -> VecDeque<u32> {
    let window = driver.core().config().session_window;
    (0..window).flat_map(|_| 0..driver.core().sessions()).collect()
}

#[cfg(test)]
mod tests {
    use hybster_net::{MemoryNetwork, Transport as _, TransportError};

    use super::super::Pending;
    use super::*;

    #[test]
    fn calls_after_a_failure_are_told_its_reason() {
        let shared = Shared::new(4, MemoryNetwork::new().endpoint().waker());
        let error = TransportError::new("epoll", std::io::ErrorKind::OutOfMemory.into());
        shared.end(Some(Arc::new(error.into())));
        shared.close();
        let (_pending, responder) = Pending::new();
        let (kind, expires) = (RequestKind::Ordered, Instant::now());
        let command = Command { operation: Vec::new(), kind, expires, responder };
        match shared.push(command, false) {
            Err(Refused::Closed(_, CallError::Failed(error))) => {
                assert!(error.to_string().contains("epoll failed: out of memory"), "{error}");
            }
            _ => panic!("it is refused with the reason"),
        }
    }
}
