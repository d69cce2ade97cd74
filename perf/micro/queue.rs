//! Handing inputs from one agent to another, by the pattern of the runtime's channel: a run of
//! inputs is staged and goes out as one chunk of a bounded ring; the receiver takes all there is.
//!
//! The channel is private to the engine. Here the same ring transports the same inputs.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybster_proto::ids::{PillarId, View};
use hybster_proto::output::{Input, ToPillar};
use rtrb::{Consumer, Producer, RingBuffer};

const CAPACITY: usize = 2048;

fn input(through: u64) -> Input {
    Input::Pillar(PillarId(0), ToPillar::FillGap { view: View(0), through })
}

fn send(producer: &mut Producer<Input>, staged: &mut VecDeque<Input>) -> usize {
    let count = staged.len().min(producer.slots());
    if count == 0 {
        return 0;
    }
    let chunk = producer.write_chunk_uninit(count).expect("slots were counted");
    chunk.fill_from_iter(staged.drain(..count))
}

fn take(consumer: &mut Consumer<Input>) -> usize {
    let count = consumer.slots();
    if count > 0 {
        let chunk = consumer.read_chunk(count).expect("slots were counted");
        chunk.into_iter().for_each(|input| drop(black_box(input)));
    }
    count
}

/// Within one agent: a plain ring.
fn same_thread(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/one-thread");
    for run in [1_u64, 8, 64] {
        group.throughput(Throughput::Elements(run));
        group.bench_function(BenchmarkId::new("plain-ring", run), |b| {
            let mut ring = VecDeque::new();
            b.iter(|| {
                (0..run).for_each(|n| ring.push_back(input(n)));
                while let Some(input) = ring.pop_front() {
                    black_box(input);
                }
            });
        });
        group.bench_function(BenchmarkId::new("channel", run), |b| {
            let (mut producer, mut consumer) = RingBuffer::new(CAPACITY);
            let mut staged = VecDeque::new();
            b.iter(|| {
                staged.extend((0..run).map(input));
                send(&mut producer, &mut staged);
                take(&mut consumer)
            });
        });
    }
    group.finish();
}

/// Between two threads that are both awake; the time is that of the whole passage.
fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/two-threads");
    for run in [1_u64, 8, 64] {
        group.throughput(Throughput::Elements(run));
        group.bench_function(BenchmarkId::new("channel", run), |b| {
            b.iter_custom(|rounds| {
                let (mut producer, mut consumer) = RingBuffer::new(CAPACITY);
                let go = Arc::new(AtomicBool::new(false));
                let gone = Arc::clone(&go);
                let sender = std::thread::spawn(move || {
                    while !gone.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                    let mut staged = VecDeque::new();
                    for _ in 0..rounds {
                        staged.extend((0..run).map(input));
                        while !staged.is_empty() {
                            if send(&mut producer, &mut staged) == 0 {
                                std::thread::yield_now();
                            }
                        }
                    }
                });
                let start = Instant::now();
                go.store(true, Ordering::Release);
                let mut left = rounds * run;
                while left > 0 {
                    let count = take(&mut consumer) as u64;
                    left -= count;
                    if count == 0 {
                        std::thread::yield_now();
                    }
                }
                let elapsed = start.elapsed();
                sender.join().expect("the sender does not panic");
                elapsed
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300)).sample_size(30);
    targets = same_thread, two_threads
}
criterion_main!(benches);
