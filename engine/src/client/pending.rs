//! The ticket for a request under way.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::CallError;

/// The outcome of a call: the service's result, or why there is none.
pub type CallResult = Result<Vec<u8>, CallError>;

/// A request under way: wait for it, or await it. Dropping it does not stop the request.
#[derive(Debug)]
#[must_use = "the outcome comes through this ticket"]
pub struct Pending {
    cell: Arc<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<CallResult>,
    task: Option<Waker>,
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    pub(super) fn new() -> (Self, Responder) {
        let cell = Arc::new(Cell::default());
        (Self { cell: cell.clone() }, Responder(Some(Answer::Ticket(cell))))
    }

    /// Blocks until the request has ended.
    ///
    /// # Errors
    /// If there is no result; the error says why.
    pub fn wait(self) -> CallResult {
        let mut state = self.cell.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state = self.cell.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the request has ended, but at most for a while.
    ///
    /// # Errors
    /// The ticket, if the request has not ended yet.
    pub fn wait_timeout(self, timeout: Duration) -> Result<CallResult, Self> {
        let end = Instant::now() + timeout;
        let mut state = self.cell.lock();
        loop {
            if let Some(result) = state.result.take() {
                return Ok(result);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return Err(self);
            }
            let waited = self.cell.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the request has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.cell.lock().result.is_some()
    }
}

impl Future for Pending {
    type Output = CallResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let mut state = self.cell.lock();
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

enum Answer {
    Ticket(Arc<Cell>),
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
            Some(Answer::Ticket(cell)) => {
                let mut state = cell.lock();
                state.result = Some(result);
                let task = state.task.take();
                drop(state);
                cell.done.notify_all();
                if let Some(task) = task {
                    task.wake();
                }
            }
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
