//! Services that come with the crate.
//!
//! - [`null`] does nothing and replies with a fixed number of bytes: it measures the engine alone.
//! - [`counter`] is the smallest service with a state: the one of the tutorials and the checkers.
//! - [`kv`] is an ordered key-value store with copy-on-write pages.

pub mod counter;
pub mod kv;
pub mod null;

pub use counter::CounterService;
pub use kv::KvService;
pub use null::NullService;

use bytes::Bytes;
use hybster_proto::service::{RestoreError, Snapshot};

/// The page of a service whose whole state is one page.
fn only_page(source: &dyn Snapshot) -> Result<Bytes, RestoreError> {
    match source.page_count() {
        1 => Ok(source.page(0)),
        0 => Err(RestoreError { page: 0, what: "the page is missing".to_owned() }),
        count => Err(RestoreError { page: 1, what: format!("{count} pages instead of one") }),
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};
    use hybster_proto::service::Context;

    /// A context for services that do not look at it.
    pub(super) fn context() -> Context {
        Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1))
    }
}
