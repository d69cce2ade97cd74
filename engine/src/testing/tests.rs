//! Services that are not deterministic, each in one way; and those of this crate, which are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hybster_proto::service::Snapshot;

use super::*;
use crate::services::kv::KvOperation;
use crate::services::{CounterService, KvService, NullService, counter};

fn keys(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|key| key.to_le_bytes().to_vec()).collect()
}

/// A service of closures.
struct Plain<T> {
    state: T,
    execute: fn(&mut T, &Context, &[u8], &mut Vec<u8>),
    pages: fn(&T) -> Vec<Vec<u8>>,
    restore: fn(&mut T, &dyn Snapshot),
}

impl<T: Send + 'static> Service for Plain<T> {
    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        (self.execute)(&mut self.state, context, operation, reply);
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages((self.pages)(&self.state).into_iter().map(Bytes::from).collect()))
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        (self.restore)(&mut self.state, source);
        Ok(())
    }
}

fn set_of(page: &[u8]) -> Vec<Vec<u8>> {
    page.chunks(8).map(<[u8]>::to_vec).collect()
}

#[test]
fn pages_in_the_order_of_a_hash_table_are_found() {
    let make = || Plain {
        state: HashSet::new(),
        execute: |set: &mut HashSet<Vec<u8>>, _, key, _| {
            set.insert(key.to_vec());
        },
        pages: |set| vec![b"head".to_vec(), set.iter().flatten().copied().collect()],
        restore: |set, source| *set = set_of(&source.page(1)).into_iter().collect(),
    };
    let found = check_deterministic(make, &keys(40)).unwrap_err();
    assert!(matches!(found, Nondeterminism::Page { page: 1, .. }), "{found}");
    assert!(found.to_string().contains("page 1"), "{found}");
}

#[test]
fn results_in_the_order_of_a_hash_table_are_found_though_pages_are_sorted() {
    let make = || Plain {
        state: HashMap::new(),
        execute: |map: &mut HashMap<Vec<u8>, u64>, _, key, reply| {
            map.insert(key.to_vec(), 1);
            reply.extend(map.keys().next().unwrap());
        },
        pages: |map| {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            vec![sorted.into_keys().flatten().copied().collect()]
        },
        restore: |map, source| *map = set_of(&source.page(0)).into_iter().map(|k| (k, 1)).collect(),
    };
    let found = check_deterministic(make, &keys(40)).unwrap_err();
    assert!(matches!(found, Nondeterminism::Result { .. }), "{found}");
}

#[test]
fn results_that_depend_on_addresses_are_found() {
    let make = || Plain {
        state: Vec::new(),
        execute: |boxes: &mut Vec<Box<[u8]>>, _, key, reply| {
            boxes.push(key.into());
            // As one who takes an address for an identity. The runs live side by side, so that
            // theirs are different whatever the allocator does; the order of addresses can be
            // the same in both.
            reply.extend_from_slice(&boxes[0].as_ptr().addr().to_le_bytes());
        },
        pages: |boxes| vec![boxes.concat()],
        restore: |boxes, source| {
            *boxes = source.page(0).chunks(8).map(Box::from).collect();
        },
    };
    let found = check_deterministic(make, &keys(4)).unwrap_err();
    assert!(matches!(found, Nondeterminism::Result { operation: 0, .. }), "{found}");
}

#[test]
fn a_clock_of_its_own_is_found_and_the_agreed_one_is_not() {
    static CLOCK: AtomicU64 = AtomicU64::new(0);
    let make = |execute: fn(&mut u64, &Context, &[u8], &mut Vec<u8>)| {
        move || Plain {
            state: 0u64,
            execute,
            pages: |at: &u64| vec![at.to_le_bytes().to_vec()],
            restore: |at, source| *at = u64::from_le_bytes(source.page(0)[..].try_into().unwrap()),
        }
    };
    let own = make(|at, _, _, _| *at = CLOCK.fetch_add(1, Ordering::Relaxed));
    let found = check_deterministic(own, &keys(4)).unwrap_err();
    assert!(matches!(found, Nondeterminism::Page { operation: 0, page: 0, .. }), "{found}");
    let agreed = make(|at, context, _, reply| {
        *at = context.time_ms;
        reply.extend_from_slice(context.randomness());
    });
    check_deterministic(agreed, &keys(100)).unwrap();
}

#[test]
fn state_that_is_in_no_page_is_found() {
    let make = || Plain {
        state: (0u64, 0u64),
        execute: |(count, forgotten): &mut (u64, u64), _, _, reply| {
            (*count, *forgotten) = (*count + 1, *forgotten + 1);
            reply.extend_from_slice(&forgotten.to_le_bytes());
        },
        pages: |(count, _)| vec![count.to_le_bytes().to_vec()],
        restore: |(count, _), source| {
            *count = u64::from_le_bytes(source.page(0)[..].try_into().unwrap());
        },
    };
    let found = check_deterministic(make, &keys(10)).unwrap_err();
    let expected = matches!(found, Nondeterminism::Result { operation: 5, run: Run::Restored, .. });
    assert!(expected, "{found}");
}

#[test]
fn an_error_shows_the_beginning_of_long_results() {
    let (first, second) = (Output(b"a\x00".to_vec()), Output(vec![b'x'; 1000]));
    let found = Nondeterminism::Result { operation: 3, first, run: Run::Repeated, second };
    let text = found.to_string();
    assert!(text.contains("operation 3") && text.contains(r#""a\x00""#), "{text}");
    assert!(text.contains("968 bytes more") && text.len() < 300, "{text}");
}

#[test]
fn the_services_of_this_crate_are_deterministic() {
    let puts = (0..200u32).map(|i| {
        let (key, value) = ((i * 7919 % 61).to_le_bytes(), [i as u8; 40]);
        let delete = KvOperation::Delete { key: &key };
        let put = KvOperation::Put { key: &key, value: &value };
        let mut operation = Vec::new();
        if i % 5 == 4 { delete } else { put }.encode(&mut operation).unwrap();
        operation
    });
    check_deterministic(KvService::new, &puts.collect::<Vec<_>>()).unwrap();
    let adds: Vec<_> = (0..50).map(counter::encode_add).collect();
    check_deterministic(CounterService::new, &adds).unwrap();
    check_deterministic(|| NullService::new(8), &adds).unwrap();
    check_deterministic(CounterService::new, &[] as &[&[u8]]).unwrap();
}
