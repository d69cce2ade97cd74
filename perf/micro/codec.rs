//! Parsing and encoding: requests, PREPARE, COMMIT, replies.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybster_perf::{Fixture, Numbered};
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, View};
use hybster_proto::internals::{Commit, PrepareHeader};
use hybster_proto::wire::reply::{Replies, append, begin};
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{ReplyEntry, ReplyStatus, RequestTag, Requests};
use hybster_tss::{CounterValue, Digest, Proof};

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/requests");
    let fixture = Fixture::of_three(1, 512);
    for (count, length) in [(1, 0), (256, 0), (256, 1024)] {
        let operation = vec![0; length];
        let message = fixture.requests(count, &mut Numbered::default(), &operation);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new(format!("parse-{length}B"), count), |b| {
            b.iter(|| {
                let body = requests_body(black_box(&message)).expect("it is well-formed");
                let requests = Requests::new(body).flatten();
                requests.fold(0, |sum, r| sum ^ r.number.0 ^ u64::from(r.proof().bytes()[0]))
            });
        });
    }
    group.finish();
}

fn ordering(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/ordering");
    let header = PrepareHeader {
        pillar: PillarId(1),
        noop: false,
        requests: 256,
        view: View(3),
        first: OrderNumber(10),
        last: OrderNumber(10),
        time_ms: 1_700_000_000_000,
        batch: Digest([7; 32]),
        previous: CounterValue::ZERO,
        proof: Proof([9; 32]),
    };
    let prepare = header.encode();
    group.bench_function("prepare-encode", |b| b.iter(|| black_box(&header).encode()));
    group.bench_function("prepare-parse", |b| {
        b.iter(|| PrepareHeader::parse(black_box(&prepare)));
    });
    group.bench_function("prepare-digest", |b| b.iter(|| black_box(&header).digest()));
    let commit = Commit {
        pillar: PillarId(1),
        sender: ReplicaId(2),
        view: View(3),
        first: OrderNumber(10),
        last: OrderNumber(10),
        prepare: header.digest(),
        proof: Proof([3; 32]),
    };
    let message = commit.encode();
    group.bench_function("commit-encode", |b| b.iter(|| black_box(&commit).encode()));
    group.bench_function("commit-parse", |b| b.iter(|| Commit::parse(black_box(&message))));
    group.bench_function("commit-digest", |b| b.iter(|| black_box(&commit).digest()));
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/replies");
    for length in [0, 1024] {
        let (count, result) = (256, vec![0; length]);
        let mut message = Vec::new();
        let encode = |message: &mut Vec<u8>| {
            message.clear();
            begin(message, ReplicaId(1), View(0));
            for index in 0..count {
                let (tag, number) = (RequestTag::new(index.into()), RequestNumber(7));
                let (status, result) = (ReplyStatus::Done, &result);
                append(message, &ReplyEntry { index, tag, number, status, result });
            }
        };
        encode(&mut message);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(BenchmarkId::new(format!("encode-{length}B"), count), |b| {
            let mut out = Vec::new();
            b.iter(|| encode(black_box(&mut out)));
        });
        group.bench_function(BenchmarkId::new(format!("parse-{length}B"), count), |b| {
            b.iter(|| {
                let replies = Replies::parse(black_box(&message)).expect("it is well-formed");
                replies.flatten().fold(0, |sum, r| sum ^ r.number.0 ^ r.result.len() as u64)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300)).sample_size(30);
    targets = requests, ordering, replies
}
criterion_main!(benches);
