//! The service against a model, and against itself after a restore.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use hybster_proto::service::{PAGES_PER_GROUP, Pages};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::services::tests::context;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn run(service: &mut KvService, operation: KvOperation<'_>) -> Vec<u8> {
    let (mut bytes, mut reply, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    operation.encode(&mut bytes).unwrap();
    let read_only = service.query(&bytes, &mut answer);
    service.execute(&context(), &bytes, &mut reply);
    if read_only {
        assert_eq!(answer, reply);
    } else {
        assert!(answer.is_empty());
    }
    assert_eq!(read_only, matches!(operation, KvOperation::Get { .. } | KvOperation::Scan { .. }));
    reply
}

fn put(service: &mut KvService, key: &[u8], value: &[u8]) -> Vec<u8> {
    run(service, KvOperation::Put { key, value })
}

fn encoded(reply: KvReply<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    bytes
}

fn pages(snapshot: &dyn Snapshot) -> Vec<Bytes> {
    (0..snapshot.page_count()).map(|page| snapshot.page(page)).collect()
}

fn scan_model(model: &Model, start: &[u8], end: Option<&[u8]>, limit: u32) -> Vec<u8> {
    let (mut count, mut more, mut bytes) = (0, false, Vec::new());
    if end.is_none_or(|end| start < end) {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in model.range::<[u8], _>((Bound::Included(start), end)) {
            let entry = 6 + key.len() + value.len();
            if count == limit || 6 + bytes.len() + entry > MAX_SCAN_REPLY_BYTES {
                more = true;
                break;
            }
            count += 1;
            bytes.extend_from_slice(&wire::entry_header(key, value));
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
        }
    }
    [&wire::entries_header(more, count)[..], &bytes].concat()
}

/// Executes an operation on the model and returns the reply that is right.
fn run_model(model: &mut Model, operation: KvOperation<'_>) -> Vec<u8> {
    match operation {
        KvOperation::Get { key } => {
            encoded(model.get(key).map_or(KvReply::Absent, |value| KvReply::Value(value)))
        }
        KvOperation::Put { key, value } => {
            let replaced = model.insert(key.to_vec(), value.to_vec()).is_some();
            encoded(KvReply::Stored { replaced })
        }
        KvOperation::Delete { key } => {
            encoded(KvReply::Deleted { existed: model.remove(key).is_some() })
        }
        KvOperation::CompareAndSwap { key, expected, value } => {
            let current = model.get(key).map(|value| &value[..]);
            if current != expected {
                return encoded(KvReply::Mismatch { current });
            }
            model.insert(key.to_vec(), value.to_vec());
            encoded(KvReply::Swapped)
        }
        KvOperation::Scan { start, end, limit } => scan_model(model, start, end, limit),
    }
}

/// The store holds the model, and its snapshot can be read again.
fn check(service: &mut KvService, model: &Model) {
    let snapshot = service.snapshot();
    let mut restored = KvService::new();
    restored.restore(&*snapshot).unwrap();
    assert_eq!((service.len(), service.bytes()), (restored.len(), restored.bytes()));
    assert_eq!(service.len(), model.len() as u64);
    let bytes: usize = model.iter().map(|(key, value)| 12 + key.len() + value.len()).sum();
    assert_eq!(service.bytes(), bytes as u64);
    assert_eq!(pages(&*restored.snapshot()), pages(&*snapshot));
    for (key, value) in model {
        assert_eq!(service.get(key), Some(&value[..]));
    }
}

/// An operation of the property tests.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Swap(Vec<u8>, bool, Vec<u8>),
    Delete(Vec<u8>),
    /// Deletes this many keys that are there, from this place on.
    Clear(Index, usize),
    Scan(Vec<u8>, Option<Vec<u8>>, u32),
    Restore,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..400u32).prop_map(|i| format!("user{i:012}").into_bytes()),
        2 => proptest::collection::vec(0..4u8, 0..6),
        1 => (0..6u8, 900..=MAX_KEY_BYTES).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        6 => 0..300usize,
        3 => 300..4200usize,
        1 => prop_oneof![Just(70_000), Just(MAX_VALUE_BYTES)],
    ];
    (any::<u8>(), length).prop_map(|(byte, length)| vec![byte; length])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (key(), any::<bool>(), value()).prop_map(|(key, hit, new)| Step::Swap(key, hit, new)),
        3 => key().prop_map(Step::Delete),
        2 => (any::<Index>(), 0..40usize).prop_map(|(place, count)| Step::Clear(place, count)),
        2 => (key(), proptest::option::of(key()), 0..100u32)
            .prop_map(|(start, end, limit)| Step::Scan(start, end, limit)),
        1 => Just(Step::Restore),
    ]
}

/// Calls `each` with the operations that a step stands for.
fn operations(step: &Step, model: &Model, mut each: impl FnMut(KvOperation<'_>)) {
    match step {
        Step::Put(key, value) => {
            each(KvOperation::Put { key, value });
            each(KvOperation::Get { key });
        }
        Step::Swap(key, hit, value) => {
            let current = model.get(key).map(|value| &value[..]);
            let expected = if *hit { current } else { Some(&b"other"[..]) };
            each(KvOperation::CompareAndSwap { key, expected, value });
        }
        Step::Delete(key) => {
            each(KvOperation::Delete { key });
            each(KvOperation::Get { key });
        }
        Step::Clear(place, count) => {
            let keys: Vec<_> = model.keys().cloned().collect();
            if !keys.is_empty() {
                for key in keys.iter().skip(place.index(keys.len())).take(*count) {
                    each(KvOperation::Delete { key });
                }
            }
        }
        Step::Scan(start, end, limit) => {
            each(KvOperation::Scan { start, end: end.as_deref(), limit: *limit });
        }
        Step::Restore => {}
    }
}

/// A page of the same version has the same content, and a group as well.
fn versions_tell_changes(before: &dyn Snapshot, after: &dyn Snapshot) {
    let count = before.page_count().max(after.page_count());
    for page in (0..count).filter(|page| before.page_version(*page) == after.page_version(*page)) {
        assert_eq!(before.page(page), after.page(page));
    }
    for group in 0..=count / PAGES_PER_GROUP {
        if before.group_version(group) == after.group_version(group) {
            let first = group * PAGES_PER_GROUP;
            for page in first..first + PAGES_PER_GROUP {
                assert_eq!(before.page(page), after.page(page));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn agrees_with_a_map(steps in proptest::collection::vec(step(), 1..400)) {
        let mut service = KvService::new();
        let mut model = Model::new();
        for step in &steps {
            operations(step, &model.clone(), |operation| {
                assert_eq!(run(&mut service, operation), run_model(&mut model, operation));
            });
            if matches!(step, Step::Restore) {
                check(&mut service, &model);
            }
        }
        check(&mut service, &model);
    }

    /// A replica that was restored stays bit by bit equal to one that was there all along.
    #[test]
    fn a_restored_store_goes_on_alike(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut steady, mut restored) = (KvService::new(), KvService::new());
        let mut model = Model::new();
        for step in &steps {
            if matches!(step, Step::Restore) {
                restored.restore(&*steady.snapshot()).unwrap();
                // As well in the place of another state.
                let mut other = KvService::new();
                put(&mut other, b"to be replaced", b"");
                other.restore(&*steady.snapshot()).unwrap();
                restored = other;
            }
            operations(step, &model.clone(), |operation| {
                run_model(&mut model, operation);
                assert_eq!(run(&mut steady, operation), run(&mut restored, operation));
            });
            prop_assert_eq!(pages(&*steady.snapshot()), pages(&*restored.snapshot()));
        }
    }

    /// A store that fell behind takes over what changed, wherever it is itself.
    #[test]
    fn a_store_that_lags_catches_up(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut steady, mut lagging) = (KvService::new(), KvService::new());
        let mut model = Model::new();
        let (mut base, mut since) = (lagging.snapshot(), 0);
        for step in &steps {
            operations(step, &model.clone(), |operation| {
                run_model(&mut model, operation);
                run(&mut steady, operation);
                since += 1;
                if since < 8 {
                    run(&mut lagging, operation);
                }
            });
            if matches!(step, Step::Restore) {
                let (before, target) = (lagging.snapshot(), steady.snapshot());
                let differs = |page: &u64| base.page(*page) != target.page(*page);
                let changed: Vec<u64> = (0..target.page_count()).filter(differs).collect();
                let source = Pages(pages(&*target));
                lagging.restore_changed(&source, &*base, &changed).unwrap();
                let after = lagging.snapshot();
                prop_assert_eq!(pages(&*target), pages(&*after));
                versions_tell_changes(&*before, &*after);
                (base, since) = (after, 0);
            }
        }
        prop_assert_eq!(lagging.is_empty(), pages(&*lagging.snapshot()).is_empty());
    }

    /// Snapshots stay as they were, and a page of the same version has the same content.
    #[test]
    fn snapshots_stay_and_versions_tell_changes(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut service = KvService::new();
        let mut model = Model::new();
        let mut taken = Vec::new();
        for step in &steps {
            let before = service.snapshot();
            operations(step, &model.clone(), |operation| {
                run(&mut service, operation);
                run_model(&mut model, operation);
            });
            let after = service.snapshot();
            versions_tell_changes(&*before, &*after);
            if matches!(step, Step::Restore) {
                let copy: Vec<_> =
                    pages(&*after).iter().map(|page| Bytes::copy_from_slice(page)).collect();
                taken.push((after, copy));
            }
            if let (Step::Clear(place, _), false) = (step, taken.is_empty()) {
                // Going back is a change like any other.
                let (snapshot, copy) = &taken[place.index(taken.len())];
                let before = service.snapshot();
                service.restore(&Pages(copy.clone())).unwrap();
                let after = service.snapshot();
                for page in 0..before.page_count().max(after.page_count()) {
                    let same = before.page(page) == after.page(page);
                    prop_assert_eq!(
                        before.page_version(page) == after.page_version(page), same
                    );
                }
                model.clear();
                service.restore(&**snapshot).unwrap();
                model.extend(all(&mut service));
            }
        }
        for (snapshot, copy) in taken {
            prop_assert_eq!(pages(&*snapshot), copy);
        }
    }

    /// Hostile pages are refused or understood, and then the store works.
    #[test]
    fn damaged_pages_do_no_harm(
        steps in proptest::collection::vec(step(), 1..60),
        damage in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..4),
        swap in any::<(Index, Index)>(),
    ) {
        let mut service = KvService::new();
        let mut model = Model::new();
        for step in &steps {
            operations(step, &model.clone(), |operation| {
                run(&mut service, operation);
                run_model(&mut model, operation);
            });
        }
        let snapshot = service.snapshot();
        let mut copy: Vec<_> = pages(&*snapshot).iter().map(|page| page.to_vec()).collect();
        prop_assume!(!copy.is_empty());
        for (page, place, byte) in damage {
            let page = page.index(copy.len());
            let page = &mut copy[page];
            if !page.is_empty() {
                let place = place.index(page.len().min(64));
                page[place] = byte;
            }
        }
        let (from, to) = (swap.0.index(copy.len()), swap.1.index(copy.len()));
        copy[to] = copy[from].clone();
        let mut hostile = Pages(copy.into_iter().map(Bytes::from).collect());
        if service.restore(&hostile).is_ok() {
            model = all(&mut service);
            while hostile.0.pop_if(|page| page.is_empty()).is_some() {}
            prop_assert_eq!(pages(&*service.snapshot()), hostile.0);
        } else {
            prop_assert_eq!(pages(&*service.snapshot()), pages(&*snapshot));
        }
        check(&mut service, &model);
        for step in &steps {
            operations(step, &model.clone(), |operation| {
                assert_eq!(run(&mut service, operation), run_model(&mut model, operation));
            });
        }
    }
}

/// All entries, read by scans that each continue the one before.
fn all(service: &mut KvService) -> Model {
    let (mut model, mut start) = (Model::new(), Vec::new());
    loop {
        let reply = run(service, KvOperation::Scan { start: &start, end: None, limit: 17 });
        let Ok(KvReply::Entries(entries)) = KvReply::decode(&reply) else { panic!("{reply:?}") };
        assert!(reply.len() <= MAX_SCAN_REPLY_BYTES && entries.len() <= 17);
        model.extend(entries.map(|(key, value)| (key.to_vec(), value.to_vec())));
        if !entries.more() {
            return model;
        }
        start.clone_from(model.last_key_value().unwrap().0);
        start.push(0);
    }
}

#[test]
fn an_empty_store_has_no_pages() {
    let mut service = KvService::new();
    assert_eq!(service.snapshot().page_count(), 0);
    assert!(service.is_empty());
    put(&mut service, b"", b"");
    assert_eq!((service.len(), service.snapshot().page_count()), (1, 1));
    run(&mut service, KvOperation::Delete { key: b"" });
    assert_eq!((service.len(), service.snapshot().page_count()), (0, 0));
    assert_eq!(all(&mut service), Model::new());
}

#[test]
fn malformed_operations_get_a_reply() {
    let mut service = KvService::new();
    let mut reply = Vec::new();
    assert!(!service.query(b"", &mut reply));
    service.execute(&context(), b"", &mut reply);
    service.execute(&context(), &[1, 255, 255], &mut reply);
    service.execute(&context(), &[2, 0, 0, 255, 255, 255, 255], &mut reply);
    assert_eq!(reply, [0x80, 0x81, 0x82]);
}

#[test]
fn a_full_store_refuses_growth_alone() {
    let mut service = KvService::with_limit(44);
    let full = encoded(KvReply::Refused(KvRefusal::Full));
    assert_eq!(put(&mut service, b"", &[0; 33]), full);
    assert_eq!(put(&mut service, b"k", &[0; 20]), [3, 0]);
    assert_eq!(put(&mut service, b"l", &[0; 20]), full);
    assert_eq!(put(&mut service, b"k", &[1; 32]), full);
    assert_eq!(service.get(b"k"), Some(&[0; 20][..]));
    let swap = KvOperation::CompareAndSwap { key: b"k", expected: Some(&[0; 20]), value: &[1; 32] };
    assert_eq!(run(&mut service, swap), full);
    assert_eq!(put(&mut service, b"k", &[1; 31]), [3, 1]);
    assert_eq!(service.bytes(), 44);
    assert_eq!(run(&mut service, KvOperation::Delete { key: b"k" }), [4, 1]);
    assert_eq!(service.bytes(), 0);
}

#[test]
fn ascending_keys_fill_their_pages() {
    let mut service = KvService::new();
    for i in 0..10_000u32 {
        put(&mut service, &i.to_be_bytes(), &[0; 84]);
    }
    // 10 000 entries of 100 bytes.
    assert!(service.snapshot().page_count() < 257, "{}", service.snapshot().page_count());
    for i in 0..9_990u32 {
        run(&mut service, KvOperation::Delete { key: &i.to_be_bytes() });
    }
    let snapshot = service.snapshot();
    let used = (0..snapshot.page_count()).filter(|page| !snapshot.page(*page).is_empty()).count();
    assert_eq!(used, 1);
    for i in 0..9_990u32 {
        put(&mut service, &i.to_be_bytes(), &[0; 84]);
    }
    assert!(service.snapshot().page_count() < 600, "{}", service.snapshot().page_count());
}

#[test]
fn restore_names_overlapping_pages() {
    let mut service = KvService::new();
    put(&mut service, b"a", b"");
    put(&mut service, b"c", b"");
    let mut other = KvService::new();
    put(&mut other, b"b", b"");
    let page = |service: &mut KvService| service.snapshot().page(0);
    let both = Pages(vec![page(&mut service), Bytes::new(), page(&mut other)]);
    let fault = service.restore(&both).unwrap_err();
    assert_eq!((fault.page, fault.what.as_str()), (2, "its keys overlap with those of page 0"));
    assert_eq!(service.len(), 2);
}

/// The figures of this service: `cargo test --release -p hybster services::kv -- --ignored`
/// `--nocapture`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    use std::time::Instant;
    let keys: Vec<[u8; 16]> = (0..100_000u128)
        .map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
        .collect();
    let mut order: Vec<_> = (0..1_000_000usize).map(|i| i.wrapping_mul(48_271) % 100_000).collect();
    order.sort_by_key(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 20 & 0xffff);
    let mut service = KvService::new();
    let (mut operation, mut reply) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for key in &keys {
        put(&mut service, key, &[1; 100]);
    }
    println!("insert {} ns", start.elapsed().as_nanos() / 100_000);
    let mut each = |what: &str, service: &mut KvService, encode: &dyn Fn(usize, &mut Vec<u8>)| {
        let start = Instant::now();
        for &i in &order {
            operation.clear();
            reply.clear();
            encode(i, &mut operation);
            service.execute(&context(), &operation, &mut reply);
        }
        println!("{what} {} ns", start.elapsed().as_nanos() / order.len() as u128);
    };
    each("(loop)", &mut service, &|_, out| out.push(0));
    let get = |i: usize, out: &mut Vec<u8>| KvOperation::Get { key: &keys[i] }.encode(out).unwrap();
    each("get", &mut service, &get);
    let put_same = |i: usize, out: &mut Vec<u8>| {
        KvOperation::Put { key: &keys[i], value: &[2; 100] }.encode(out).unwrap();
    };
    each("put", &mut service, &put_same);
    let put_longer = |i: usize, out: &mut Vec<u8>| {
        KvOperation::Put { key: &keys[i], value: &[2; 108][..100 + i % 8] }.encode(out).unwrap();
    };
    each("put of another length", &mut service, &put_longer);
    let delete = |i: usize, out: &mut Vec<u8>| {
        KvOperation::Delete { key: &keys[i] }.encode(out).unwrap();
    };
    let snapshot = service.snapshot();
    each("put after a snapshot", &mut service, &put_same);
    drop(snapshot);
    each("delete and misses", &mut service, &delete);
    measure_large(&mut service, &keys[7]);
}

/// The same with 1 GiB in the store.
fn measure_large(service: &mut KvService, key_of_one: &[u8]) {
    use std::time::Instant;
    let mut key = 1u64;
    while service.bytes() < 1 << 30 {
        key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        service.store.put(&[key.to_be_bytes(), key.to_le_bytes()].concat(), &[3; 100]).unwrap();
    }
    for _ in 0..3 {
        let start = Instant::now();
        let snapshot = service.snapshot();
        let taken = start.elapsed();
        let start = Instant::now();
        service.store.put(key_of_one, &[4; 100]).unwrap();
        let first_write = start.elapsed();
        let start = Instant::now();
        let pages = snapshot.page_count();
        drop(snapshot);
        println!(
            "snapshot of {pages} pages, {} bytes: {taken:?}, write {first_write:?}, drop {:?}",
            service.bytes(),
            start.elapsed()
        );
    }
    let mut probe = 1u64;
    let start = Instant::now();
    let mut found = 0;
    for _ in 0..1_000_000 {
        probe = probe.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bytes: [[u8; 8]; 2] = [probe.to_be_bytes(), probe.to_le_bytes()];
        found += u32::from(service.get(bytes.as_flattened()).is_some());
    }
    println!("get at 1 GiB {} ns ({found} found)", start.elapsed().as_nanos() / 1_000_000);
    let snapshot = service.snapshot();
    let start = Instant::now();
    let mut other = KvService::new();
    other.restore(&*snapshot).unwrap();
    println!("restore {:?}", start.elapsed());
}
