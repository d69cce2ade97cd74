//! The services as the execution stage calls them.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hybster::services::kv::KvOperation;
use hybster::services::{CounterService, KvService, NullService, counter};
use hybster_perf::LINK;
use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};
use hybster_proto::service::{Context, Service};

fn context() -> Context {
    let session = SessionId::new(LINK.client, LINK.incarnation, 0);
    Context::new(session, RequestNumber(1), OrderNumber(1))
}

fn encoded(operation: &KvOperation<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes).expect("key and value are short");
    bytes
}

/// Operations over all keys, in an order that defeats caches.
fn operations(keys: u64, make: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    (0..keys).map(|n| make(format!("user{:010}", scattered(n)).as_bytes())).collect()
}

fn kv(c: &mut Criterion) {
    let mut group = c.benchmark_group("service/kv");
    for (keys, length) in [(1_000, 100), (100_000, 100), (10_000, 1024)] {
        let value = vec![b'v'; length];
        let puts = operations(keys, |key| encoded(&KvOperation::Put { key, value: &value }));
        let gets = operations(keys, |key| encoded(&KvOperation::Get { key }));
        let mut service = KvService::new();
        let mut reply = Vec::new();
        for n in 0..keys {
            let key = format!("user{n:010}");
            let put = encoded(&KvOperation::Put { key: key.as_bytes(), value: &value });
            service.execute(&context(), &put, &mut reply);
            reply.clear();
        }
        let name = |what: &str| BenchmarkId::new(format!("{what}-{length}B"), keys);
        let mut at = 0;
        group.bench_function(name("get"), |b| {
            b.iter(|| {
                at = (at + 1) % gets.len();
                reply.clear();
                service.query(black_box(&gets[at]), &mut reply)
            });
        });
        group.bench_function(name("put"), |b| {
            b.iter(|| {
                at = (at + 1) % puts.len();
                reply.clear();
                service.execute(&context(), black_box(&puts[at]), &mut reply);
            });
        });
        // A snapshot every 256 batches of 64; the first write to a page after it copies the page.
        let mut count = 0_u32;
        group.bench_function(name("put-with-snapshots"), |b| {
            let mut held = None;
            b.iter(|| {
                count += 1;
                if count.is_multiple_of(256 * 64) {
                    held = Some(service.snapshot());
                }
                at = (at + 1) % puts.len();
                reply.clear();
                service.execute(&context(), black_box(&puts[at]), &mut reply);
            });
            drop(held);
        });
        group.bench_function(name("snapshot"), |b| b.iter(|| service.snapshot()));
    }
    group.finish();
}

fn small(c: &mut Criterion) {
    let mut group = c.benchmark_group("service/small");
    let mut reply = Vec::new();
    let mut null = NullService::new(0);
    group.bench_function("null", |b| {
        b.iter(|| {
            reply.clear();
            null.execute(&context(), black_box(b""), &mut reply);
        });
    });
    let mut service = CounterService::new();
    let add = counter::encode_add(1);
    group.bench_function("counter-add", |b| {
        b.iter(|| {
            reply.clear();
            service.execute(&context(), black_box(&add), &mut reply);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300)).sample_size(30);
    targets = kv, small
}
criterion_main!(benches);
