//! The tickets for what is under way: requests and connections.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::CallError;
use super::worker::Shared;

/// The outcome of a call: the service's result, or why there is none.
pub type CallResult = Result<Vec<u8>, CallError>;

/// A request under way: await it, or wait for it. It goes on by itself, whether it is polled or not,
/// and is woken by the client's own thread, so that any executor will do.
///
/// **Dropping it cancels the request**: it is withdrawn if it was not sent yet, and otherwise its result
/// is of no interest any more. It may be executed then. [`Self::detach`] lets it go on.
///
/// ```
/// use std::time::Duration;
///
/// use hybster::services::{CounterService, counter};
/// # use hybster::testing::LocalCluster;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = LocalCluster::start(CounterService::new)?;
/// # let client = cluster.client()?;
/// // Many at once, each with a deadline of its own if it wants one.
/// let within = Duration::from_secs(5);
/// let tickets: Vec<_> =
///     (0..10).map(|_| client.request(&counter::encode_add(1)).timeout(within).submit()).collect();
/// for ticket in tickets {
///     ticket.wait()?; // or ticket.await?
/// }
/// // Nobody wants to know the outcome, and it is to happen all the same.
/// client.submit(&counter::encode_add(1)).detach();
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it cancels the request; the outcome comes through it"]
pub struct Pending {
    cell: Arc<Cell<CallResult>>,
    /// Until the outcome was taken: where the request waits, and its number there.
    waits: Option<(Arc<Shared>, u64)>,
    /// When it ends with a timeout, if that is not the client's own.
    deadline: Option<Instant>,
}

/// One outcome, and who waits for it.
#[derive(Debug)]
pub(super) struct Cell<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

#[derive(Debug)]
struct State<T> {
    result: Option<T>,
    /// Only the first answer counts.
    is_answered: bool,
    /// Nobody will ask for the outcome.
    is_abandoned: bool,
    task: Option<Waker>,
}

impl<T> Default for Cell<T> {
    fn default() -> Self {
        let (is_answered, is_abandoned) = (false, false);
        let state = State { result: None, is_answered, is_abandoned, task: None };
        Self { state: Mutex::new(state), done: Condvar::new() }
    }
}

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that runs under this lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the outcome, unless there is one. Returns it if nobody wants it.
    pub(super) fn answer(&self, result: T) -> Option<T> {
        let mut state = self.lock();
        if state.is_answered || state.is_abandoned {
            return Some(result);
        }
        state.is_answered = true;
        state.result = Some(result);
        let task = state.task.take();
        drop(state);
        self.done.notify_all();
        if let Some(task) = task {
            task.wake();
        }
        None
    }

    /// Nobody will ask for the outcome any more; it is returned if it is there.
    pub(super) fn abandon(&self) -> Option<T> {
        let mut state = self.lock();
        state.is_abandoned = true;
        state.result.take()
    }

    /// Whether somebody may ask for the outcome.
    pub(super) fn is_wanted(&self) -> bool {
        !self.lock().is_abandoned
    }

    pub(super) fn wait(&self) -> T {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_until(&self, end: Instant) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.result.take() {
                return Some(result);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        match &mut state.task {
            Some(task) => task.clone_from(context.waker()),
            task => *task = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Pending {
    /// A ticket that its request is still to be given to.
    pub(super) fn new() -> (Self, Responder) {
        let cell = Arc::new(Cell::default());
        let pending = Self { cell: Arc::clone(&cell), waits: None, deadline: None };
        (pending, Responder(Some(Answer::Ticket(cell))))
    }

    pub(super) fn waits_in(&mut self, shared: &Arc<Shared>, number: u64) {
        self.waits = Some((Arc::clone(shared), number));
    }

    /// The request ends with a timeout then, if it has not ended before.
    pub(super) fn ends_at(&mut self, deadline: Instant) {
        if let Some((shared, number)) = &self.waits {
            self.deadline = Some(deadline);
            shared.set_deadline(deadline, *number, &self.cell);
        }
    }

    /// Blocks until the request has ended.
    ///
    /// # Errors
    /// If there is no result; the error says why.
    pub fn wait(mut self) -> CallResult {
        let result = self.cell.wait();
        self.has_ended();
        result
    }

    /// Blocks until the request has ended, but at most for a while.
    ///
    /// # Errors
    /// The ticket, if the request has not ended yet.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<CallResult, Self> {
        match self.cell.wait_until(Instant::now() + timeout) {
            Some(result) => {
                self.has_ended();
                Ok(result)
            }
            None => Err(self),
        }
    }

    /// Whether the request has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.cell.lock().result.is_some()
    }

    /// Lets the request go on without anybody who waits for it.
    pub fn detach(mut self) {
        // A deadline is of no use to anybody then.
        self.forget_deadline();
        self.waits = None;
    }

    fn has_ended(&mut self) {
        self.forget_deadline();
        self.waits = None;
    }

    fn forget_deadline(&mut self) {
        if let (Some(deadline), Some((shared, number))) = (self.deadline.take(), &self.waits) {
            shared.forget_deadline(deadline, *number);
        }
    }
}

impl Future for Pending {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let polled = self.cell.poll(context);
        if polled.is_ready() {
            self.has_ended();
        }
        polled
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.waits.is_none() {
            return;
        }
        self.forget_deadline();
        if self.cell.abandon().is_none()
            && let Some((shared, number)) = self.waits.take()
        {
            shared.withdraw(number);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}

enum Answer {
    Ticket(Arc<Cell<CallResult>>),
    Callback(Box<dyn FnOnce(CallResult) + Send>),
}

/// The other end of a ticket. If it is dropped, the request ends with [`CallError::Shutdown`].
pub(super) struct Responder(Option<Answer>);

impl Responder {
    pub(super) fn callback(on_completion: impl FnOnce(CallResult) + Send + 'static) -> Self {
        Self(Some(Answer::Callback(Box::new(on_completion))))
    }

    pub(super) fn answer(mut self, result: CallResult) {
        self.respond(result);
    }

    fn respond(&mut self, result: CallResult) {
        match self.0.take() {
            Some(Answer::Ticket(cell)) => drop(cell.answer(result)),
            Some(Answer::Callback(on_completion)) => on_completion(result),
            None => {}
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.respond(Err(CallError::Shutdown));
    }
}
