//! One replicated number: the smallest service with a state.
//!
//! # Format
//! All numbers are little-endian.
//! ```text
//! operation  add    01 | amount i64
//!            get    02
//! reply      value  00 | value i64      the value after the operation
//!            bad    01                  the operation is malformed; nothing was done
//! page 0     state  01 | value i64      the first byte is the version of the format
//! ```

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{Context, RestoreError, Service, ServiceIdentity, Snapshot};

const ADD: u8 = 1;
const GET: u8 = 2;
const VALUE: u8 = 0;
const MALFORMED: u8 = 1;
const STATE_FORMAT: u8 = 1;

/// The encoded operation that adds `amount` (negative to subtract) and answers the new value.
///
/// Addition wraps around at the ends of `i64`.
#[must_use]
pub fn encode_add(amount: i64) -> [u8; 9] {
    tagged(ADD, amount)
}

/// The encoded operation that answers the value. It is read-only: [`Service::query`] answers it.
#[must_use]
pub fn encode_get() -> [u8; 1] {
    [GET]
}

/// The value in a reply; `None` if the service refused the operation or did not send this reply.
#[must_use]
pub fn decode_reply(reply: &[u8]) -> Option<i64> {
    untagged(VALUE, reply)
}

/// One `i64`, zero at first, that operations add to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterService {
    value: i64,
}

impl CounterService {
    /// What it says of itself.
    pub const IDENTITY: ServiceIdentity = ServiceIdentity::new("hybster-counter", 1);

    /// A counter at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The present value.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.value
    }
}

impl Service for CounterService {
    fn identity(&self) -> Option<ServiceIdentity> {
        Some(Self::IDENTITY)
    }

    fn execute(&mut self, _context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        if let Some(amount) = untagged(ADD, operation) {
            self.value = self.value.wrapping_add(amount);
        } else if operation != encode_get() {
            reply.push(MALFORMED);
            return;
        }
        reply.extend_from_slice(&tagged(VALUE, self.value));
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        let read_only = operation == encode_get();
        if read_only {
            reply.extend_from_slice(&tagged(VALUE, self.value));
        }
        read_only
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(CounterSnapshot(self.value))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let page = super::only_page(source)?;
        self.value = untagged(STATE_FORMAT, &page).ok_or_else(|| RestoreError {
            page: 0,
            what: format!(
                "a counter is the byte {STATE_FORMAT} and 8 bytes of value, these are {} bytes \
                 that start with {:?}",
                page.len(),
                page.first(),
            ),
        })?;
        Ok(())
    }
}

struct CounterSnapshot(i64);

impl Snapshot for CounterSnapshot {
    fn page_count(&self) -> u64 {
        1
    }

    fn page(&self, index: u64) -> Bytes {
        match index {
            0 => Bytes::copy_from_slice(&tagged(STATE_FORMAT, self.0)),
            _ => Bytes::new(),
        }
    }

    /// The value determines the page, so it serves as the version.
    fn page_version(&self, _index: u64) -> Option<u64> {
        Some(self.0.cast_unsigned())
    }
}

fn tagged(tag: u8, value: i64) -> [u8; 9] {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    bytes
}

fn untagged(tag: u8, bytes: &[u8]) -> Option<i64> {
    let (first, value) = bytes.split_first()?;
    if *first != tag {
        return None;
    }
    Some(i64::from_le_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use hybster_proto::service::Pages;

    use super::*;
    use crate::services::tests::context;

    fn run(service: &mut CounterService, operation: &[u8]) -> Vec<u8> {
        let mut reply = Vec::new();
        service.execute(&context(), operation, &mut reply);
        reply
    }

    #[test]
    fn adds_and_answers() {
        let mut service = CounterService::new();
        assert_eq!(decode_reply(&run(&mut service, &encode_add(7))), Some(7));
        assert_eq!(decode_reply(&run(&mut service, &encode_add(-9))), Some(-2));
        assert_eq!(decode_reply(&run(&mut service, &encode_get())), Some(-2));
        assert_eq!(decode_reply(&run(&mut service, &encode_add(i64::MIN))), Some(i64::MAX - 1));
    }

    #[test]
    fn refuses_malformed_operations() {
        let mut service = CounterService::new();
        for bad in [&b""[..], &[ADD], &[ADD; 8], &[ADD; 10], &[GET, 0], &[3]] {
            assert_eq!(run(&mut service, bad), [MALFORMED]);
            assert_eq!(decode_reply(&run(&mut service, bad)), None);
        }
        assert_eq!(service.value(), 0);
    }

    #[test]
    fn queries_get_alone() {
        let service = CounterService { value: 3 };
        let mut reply = Vec::new();
        assert!(!service.query(&encode_add(1), &mut reply));
        assert!(!service.query(b"", &mut reply));
        assert!(reply.is_empty());
        assert!(service.query(&encode_get(), &mut reply));
        assert_eq!(decode_reply(&reply), Some(3));
    }

    #[test]
    fn restores_a_snapshot_and_refuses_other_pages() {
        let mut service = CounterService { value: -5 };
        let snapshot = service.snapshot();
        assert_eq!(snapshot.page(0), [1, 251, 255, 255, 255, 255, 255, 255, 255][..]);
        assert!(snapshot.page(1).is_empty());
        let mut other = CounterService::new();
        other.restore(&*snapshot).unwrap();
        assert_eq!(other, service);
        for page in [&b""[..], &[2, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 8], &[1; 10]] {
            assert!(other.restore(&Pages(vec![Bytes::copy_from_slice(page)])).is_err());
        }
        assert_eq!(other, service);
    }
}
