//! A service that does nothing, to measure the engine around it.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{Context, Pages, RestoreError, Service, ServiceIdentity, Snapshot};

/// Replies to every operation with a fixed number of zero bytes and counts the operations.
///
/// Its state is one page: the number of executed operations as a little-endian `u64`. What an
/// operation contains leaves no trace. A query is answered likewise and is not counted.
///
/// ```
/// use hybster::services::NullService;
/// use hybster::testing::LocalCluster;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = LocalCluster::start(|| NullService::new(16))?;
/// assert_eq!(cluster.client()?.call(b"whatever")?, [0; 16]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NullService {
    reply_bytes: usize,
    operations: u64,
}

impl NullService {
    /// What it says of itself.
    pub const IDENTITY: ServiceIdentity = ServiceIdentity::new("hybster-null", 1);

    /// A service that replies with `reply_bytes` zero bytes.
    #[must_use]
    pub fn new(reply_bytes: usize) -> Self {
        Self { reply_bytes, operations: 0 }
    }

    /// The number of operations executed so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    fn answer(&self, reply: &mut Vec<u8>) {
        reply.resize(reply.len() + self.reply_bytes, 0);
    }
}

impl Service for NullService {
    fn identity(&self) -> Option<ServiceIdentity> {
        Some(Self::IDENTITY)
    }

    fn execute(&mut self, _context: &Context, _operation: &[u8], reply: &mut Vec<u8>) {
        self.operations = self.operations.wrapping_add(1);
        self.answer(reply);
    }

    fn query(&self, _operation: &[u8], reply: &mut Vec<u8>) -> bool {
        self.answer(reply);
        true
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages(vec![Bytes::copy_from_slice(&self.operations.to_le_bytes())]))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let page = super::only_page(source)?;
        let count = page[..].try_into().map_err(|_| RestoreError {
            page: 0,
            what: format!("an operation count has 8 bytes, this page has {}", page.len()),
        })?;
        self.operations = u64::from_le_bytes(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::context;

    #[test]
    fn counts_operations_and_not_queries() {
        let mut service = NullService::new(5);
        let mut reply = Vec::new();
        service.execute(&context(), b"anything", &mut reply);
        assert_eq!(reply, [0; 5]);
        assert!(service.query(b"", &mut reply));
        assert_eq!(reply, [0; 10]);
        assert_eq!(service.operations(), 1);
        assert_eq!(service.snapshot().page(0), 1u64.to_le_bytes()[..]);
    }

    #[test]
    fn restores_a_snapshot_and_refuses_other_pages() {
        let mut service = NullService::new(0);
        service.execute(&context(), b"", &mut Vec::new());
        let mut other = NullService::new(0);
        other.restore(&*service.snapshot()).unwrap();
        assert_eq!(other, service);
        for pages in [vec![], vec![Bytes::new()], vec![Bytes::from_static(&[0; 9])]] {
            assert_eq!(other.restore(&Pages(pages)).unwrap_err().page, 0);
        }
        let two = Pages(vec![Bytes::from_static(&[0; 8]); 2]);
        assert_eq!(other.restore(&two).unwrap_err().page, 1);
        assert_eq!(other, service);
    }
}
