//! The bookkeeping of a state that leaves its group and becomes the beginning of another one. The service's
//! pages stay as they are; the sessions are those of the old group's clients, which the new one does not know.

use std::sync::Arc;

use super::sessions::SessionTable;
use crate::config::GroupConfig;
use crate::ids::OrderNumber;
use crate::membership::Change;
use crate::service::Snapshot;

/// The agreed time in the first page of a checkpoint's bookkeeping; `None` if that is not one of this version.
#[must_use]
pub fn agreed_time(page: &[u8]) -> Option<u64> {
    SessionTable::time_in(page)
}

/// The change of members that is pending at a checkpoint, in the first page of its bookkeeping.
#[must_use]
pub fn change_in(page: &[u8]) -> Option<Change> {
    SessionTable::change_in(page)
}

/// Bookkeeping without any session, behind an order number, from which the agreed time goes on.
#[must_use]
pub fn new_bookkeeping(
    config: &GroupConfig,
    order: OrderNumber,
    time_ms: u64,
) -> Arc<dyn Snapshot> {
    Arc::new(SessionTable::new(config).snapshot(order, time_ms, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_bookkeeping_can_be_read_and_has_the_time() {
        let (config, order) = (GroupConfig::default(), OrderNumber(512));
        let pages = new_bookkeeping(&config, order, 77);
        assert_eq!(agreed_time(&pages.page(0)), Some(77));
        let (sessions, time_ms, _) = SessionTable::restore(&config, &*pages, order).unwrap();
        assert_eq!((sessions.len(), time_ms), (0, 77));
        assert_eq!(
            agreed_time(b"something else that is long enough to be a head of pages, so"),
            None
        );
        assert_eq!(agreed_time(&pages.page(0)[..50]), None);
    }
}
