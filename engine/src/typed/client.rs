//! A client that knows the types of its service.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{MALFORMED, Message, REFUSAL, REPLY, TypedService, encode};
use crate::client::{CallError, CallResult, Client, Pending};

/// Why a typed operation has no reply.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError<R: fmt::Debug> {
    /// The service was asked, and refuses. That is certain: f+1 replicas say so.
    #[error("the service refuses the operation: {0:?}")]
    Refused(R),
    /// The service does not understand the operation: it is of another version, or is another one.
    #[error("the service cannot decode the operation: is it another version?")]
    Malformed,
    /// The service's answer is none that this program understands. The operation was executed.
    #[error("the service's reply cannot be decoded: is it another version?")]
    UnknownReply,
    /// There is no result; the error says whether the operation may be executed nevertheless.
    #[error(transparent)]
    Call(#[from] CallError),
}

type Refusal<S> = <S as TypedService>::Refusal;
/// The outcome of a typed operation.
type Outcome<S> = Result<<S as TypedService>::Reply, OperationError<Refusal<S>>>;

/// A [`Client`] of a [`TypedService`]: [`Client::typed`]. Clones share the client.
///
/// ```
/// # use hybster::Context;
/// # use hybster::paged::{Paged, PagedCell};
/// # use hybster::testing::LocalCluster;
/// use hybster::typed::{NoRefusal, Typed, TypedClient, TypedService};
/// # #[derive(Default)]
/// # struct Counter(PagedCell<u64>);
/// # impl TypedService for Counter {
/// #     type Operation = u64;
/// #     type Reply = u64;
/// #     type Refusal = NoRefusal;
/// #     fn execute(&mut self, _: &Context, amount: u64) -> Result<u64, NoRefusal> {
/// #         *self.0 += amount;
/// #         Ok(*self.0)
/// #     }
/// #     fn state(&mut self) -> Vec<&mut dyn Paged> {
/// #         vec![&mut self.0]
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = LocalCluster::start(Typed::<Counter>::default)?;
/// let counter: TypedClient<Counter> = cluster.client()?.typed();
/// assert_eq!(counter.call(&3)?, 3);
/// // Both are under way at the same time; tasks would await them.
/// let (one, two) = (counter.submit(&1), counter.submit(&1));
/// assert_eq!(one.wait()?.max(two.wait()?), 5);
/// # Ok(())
/// # }
/// ```
pub struct TypedClient<S> {
    client: Client,
    service: PhantomData<fn() -> S>,
}

impl Client {
    /// The same client, with the types of a service.
    #[must_use]
    pub fn typed<S: TypedService>(self) -> TypedClient<S> {
        TypedClient { client: self, service: PhantomData }
    }
}

impl<S> TypedClient<S> {
    /// The client without types.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl<S: TypedService> TypedClient<S>
where
    S::Refusal: fmt::Debug,
{
    /// Has the group execute an operation; blocks until its result is certain.
    ///
    /// # Errors
    /// If the service refuses it, or there is no result.
    pub fn call(&self, operation: &S::Operation) -> Outcome<S> {
        self.submit(operation).wait()
    }

    /// As [`Self::call`], for an operation that changes nothing: without ordering, if all replicas
    /// give the same answer at once.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub fn query(&self, operation: &S::Operation) -> Outcome<S> {
        self.submit_query(operation).wait()
    }

    /// Starts an operation, to be awaited; see [`Client::submit`].
    pub fn submit(&self, operation: &S::Operation) -> TypedPending<S> {
        TypedPending::new(self.client.submit(&encode(operation)))
    }

    /// As [`Self::submit`], for an operation that changes nothing.
    pub fn submit_query(&self, operation: &S::Operation) -> TypedPending<S> {
        TypedPending::new(self.client.submit_query(&encode(operation)))
    }

    /// As [`Self::submit`], with an error after this time; see
    /// [`Request::timeout`](crate::client::Request::timeout).
    pub fn submit_within(&self, operation: &S::Operation, timeout: Duration) -> TypedPending<S> {
        TypedPending::new(self.client.request(&encode(operation)).timeout(timeout).submit())
    }
}

impl<S> Clone for TypedClient<S> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), service: PhantomData }
    }
}

impl<S> fmt::Debug for TypedClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedClient").finish_non_exhaustive()
    }
}

/// A typed operation under way: await it, or wait for it. It is a [`Pending`] with types.
#[must_use = "dropping it cancels the operation; the outcome comes through it"]
pub struct TypedPending<S> {
    pending: Pending,
    service: PhantomData<fn() -> S>,
}

impl<S: TypedService> TypedPending<S>
where
    S::Refusal: fmt::Debug,
{
    fn new(pending: Pending) -> Self {
        Self { pending, service: PhantomData }
    }

    /// Blocks until the operation has ended.
    ///
    /// # Errors
    /// If the service refuses it, or there is no result.
    pub fn wait(self) -> Outcome<S> {
        outcome::<S>(self.pending.wait())
    }

    /// Lets the operation go on without anybody who waits for it.
    pub fn detach(self) {
        self.pending.detach();
    }
}

impl<S: TypedService> Future for TypedPending<S>
where
    S::Refusal: fmt::Debug,
{
    type Output = Outcome<S>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.pending).poll(context).map(outcome::<S>)
    }
}

impl<S> fmt::Debug for TypedPending<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pending.fmt(f)
    }
}

fn outcome<S: TypedService>(result: CallResult) -> Outcome<S>
where
    S::Refusal: fmt::Debug,
{
    let reply = result?;
    let (kind, content) = reply.split_first().ok_or(OperationError::UnknownReply)?;
    match *kind {
        REPLY => S::Reply::decode(content).ok_or(OperationError::UnknownReply),
        REFUSAL => Err(S::Refusal::decode(content)
            .map_or(OperationError::UnknownReply, OperationError::Refused)),
        MALFORMED => Err(OperationError::Malformed),
        _ => Err(OperationError::UnknownReply),
    }
}
