//! Services and clients with types: operations, replies and state as a Rust program has them.
//!
//! A [`TypedService`] gets decoded operations, answers with values, and names the [containers](crate::paged)
//! that its state is in. [`Typed`] makes a [`Service`] of it; [`TypedClient`] calls it.
//!
//! ```
//! use hybster::paged::{Paged, PagedMap};
//! use hybster::testing::LocalCluster;
//! use hybster::typed::{OperationError, Typed, TypedService};
//! use hybster::Context;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default)]
//! struct Bank {
//!     balances: PagedMap<String, u64>,
//! }
//!
//! #[derive(Serialize, Deserialize)]
//! enum Operation {
//!     Deposit { to: String, amount: u64 },
//!     Transfer { from: String, to: String, amount: u64 },
//! }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! enum Refusal {
//!     NotCovered { balance: u64 },
//! }
//!
//! impl TypedService for Bank {
//!     type Operation = Operation;
//!     type Reply = u64; // The receiver's balance.
//!     type Refusal = Refusal;
//!
//!     fn execute(&mut self, _: &Context, operation: Operation) -> Result<u64, Refusal> {
//!         let (to, amount) = match operation {
//!             Operation::Deposit { to, amount } => (to, amount),
//!             Operation::Transfer { from, to, amount } => {
//!                 let balance = self.balances.get(&from).copied().unwrap_or(0);
//!                 let left = balance.checked_sub(amount).ok_or(Refusal::NotCovered { balance })?;
//!                 self.balances.insert(from, left);
//!                 (to, amount)
//!             }
//!         };
//!         let balance = self.balances.get(&to).map_or(amount, |it| it.saturating_add(amount));
//!         self.balances.insert(to, balance);
//!         Ok(balance)
//!     }
//!
//!     fn state(&mut self) -> Vec<&mut dyn Paged> {
//!         vec![&mut self.balances]
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = LocalCluster::start(Typed::<Bank>::default)?;
//! let bank = cluster.client()?.typed::<Bank>();
//! let (alice, bob) = ("alice".to_owned(), "bob".to_owned());
//! bank.call(&Operation::Deposit { to: alice.clone(), amount: 70 })?;
//! let transfer = Operation::Transfer { from: alice, to: bob, amount: 100 };
//! let refused = bank.call(&transfer).unwrap_err(); // or bank.submit(&transfer).await
//! assert!(matches!(refused, OperationError::Refused(Refusal::NotCovered { balance: 70 })));
//! # Ok(())
//! # }
//! ```
//!
//! # Encoding
//!
//! Whatever serde can write and read is a [`Message`], in the compact form of the format
//! [postcard](https://postcard.jamesmunns.com). Types with a form of their own implement [`Message`] instead of
//! serde's traits. Since the form of a type is what clients and replicas of different versions meet with, add
//! variants at the end of an enumeration only, and new operations instead of new fields.
//!
//! A reply is one byte, 0 for a [`Reply`](TypedService::Reply), 1 for a
//! [`Refusal`](TypedService::Refusal), 2 for an operation that cannot be decoded, and then what was answered.

mod client;
mod message;

use std::sync::Arc;

use hybster_proto::service::{Context, RestoreError, Service, ServiceIdentity, Snapshot};
use serde::{Deserialize, Serialize};

pub use client::{OperationError, TypedClient, TypedPending};
pub use message::{Message, decode, encode};

use crate::paged::{self, Paged};

const REPLY: u8 = 0;
const REFUSAL: u8 = 1;
const MALFORMED: u8 = 2;

/// A deterministic service with types. See the [module](self) for an example, and
/// [`Service`] for what deterministic means: only the state, the operation and the [`Context`] may decide.
pub trait TypedService: Send + 'static {
    /// What clients ask for.
    type Operation: Message;
    /// What an operation leads to.
    type Reply: Message;
    /// Why an operation is not carried out; [`NoRefusal`] if there is no reason.
    type Refusal: Message;

    /// Carries out an operation. It must not panic, whatever the operation says: all replicas would.
    ///
    /// # Errors
    /// If the service refuses the operation. That is a result like any other: what was changed stays
    /// changed.
    fn execute(
        &mut self,
        context: &Context,
        operation: Self::Operation,
    ) -> Result<Self::Reply, Self::Refusal>;

    /// The service's name and version, which replicas compare: see [`Service::identity`].
    fn identity(&self) -> Option<ServiceIdentity> {
        None
    }

    /// Answers an operation that changes nothing, so that it need not be ordered; `None` if it has to
    /// be.
    fn query(&self, operation: &Self::Operation) -> Option<Result<Self::Reply, Self::Refusal>> {
        let _ = operation;
        None
    }

    /// All parts of the state, always in the same order. What is in none of them is lost in a state
    /// transfer; [`check_deterministic`](crate::testing::check_deterministic) finds such a field.
    fn state(&mut self) -> Vec<&mut dyn Paged>;
}

/// The reason of services that refuse nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoRefusal {}

/// A [`TypedService`] as a [`Service`], for replicas and for
/// [`check_deterministic`](crate::testing::check_deterministic).
#[derive(Clone, Debug, Default)]
pub struct Typed<S>(pub S);

impl<S: TypedService> Service for Typed<S> {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        match S::Operation::decode(operation) {
            Some(operation) => answer(&self.0.execute(context, operation), reply),
            None => reply.push(MALFORMED),
        }
    }

    fn identity(&self) -> Option<ServiceIdentity> {
        self.0.identity()
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        let answered = S::Operation::decode(operation).and_then(|it| self.0.query(&it));
        if let Some(result) = &answered {
            answer(result, reply);
        }
        answered.is_some()
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        paged::snapshot(&mut self.0.state())
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        paged::restore(&mut self.0.state(), source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        paged::restore_changed(&mut self.0.state(), source, base, changed)
    }
}

fn answer<T: Message, E: Message>(result: &Result<T, E>, reply: &mut Vec<u8>) {
    match result {
        Ok(value) => {
            reply.push(REPLY);
            value.encode(reply);
        }
        Err(refusal) => {
            reply.push(REFUSAL);
            refusal.encode(reply);
        }
    }
}

#[cfg(test)]
mod tests;
