//! The replica core without network: events in, effects out.
//!
//! A run of a whole group is recorded once (`hybster_perf::Recording`). Then one replica, one
//! pillar or one execution stage gets the same inputs again, from the initial state on, checkpoints
//! included. Figures are per operation: `Throughput` counts operations, and the number in a name is
//! the size of the batches. For a figure per batch, divide the time by the batches of a run.

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybster::services::NullService;
use hybster_perf::{Fixture, Host, Recorded, Recording, Rig};
use hybster_proto::execution::Execution;
use hybster_proto::ids::{PillarId, ReplicaId};
use hybster_proto::output::{Input, Output};
use hybster_proto::time::Time;

/// Batches of a run: two checkpoint intervals.
const BATCHES: u32 = 512;
const NOW: Time = Time(1);
/// The leader of view 0, and a follower.
const REPLICAS: [(&str, ReplicaId); 2] = [("leader", ReplicaId(0)), ("follower", ReplicaId(1))];
const SIZES: [u32; 3] = [1, 32, 256];

fn recordings() -> Vec<Recording> {
    let one = |size| Recording::of(Fixture::of_three(1, size), BATCHES, size, b"");
    SIZES.into_iter().map(one).collect()
}

/// One pillar alone: from the batch (leader) or the PREPARE (follower) to the commitment.
fn ordering(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/ordering");
    for (size, recording) in SIZES.into_iter().zip(recordings()) {
        group.throughput(Throughput::Elements(recording.operations));
        for (name, replica) in REPLICAS {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let setup = || {
                    let pillar = recording.fixture.pillar(replica, PillarId(0));
                    (pillar, recording.inputs(replica, |i| i.pillar().is_some()))
                };
                let run = |(pillar, inputs): &mut (_, Vec<Input>)| {
                    let pillar: &mut hybster_perf::Pillar = pillar;
                    let mut out = Output::default();
                    for input in inputs.drain(..) {
                        if let Input::Pillar(_, input) = input {
                            pillar.handle(input, NOW, &mut out);
                        }
                        out.inputs.clear();
                        out.network.clear();
                    }
                };
                b.iter_batched_ref(setup, run, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

/// The execution stage alone: session table and null service.
fn execution(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/execution");
    for (size, recording) in SIZES.into_iter().zip(recordings()) {
        let replica = ReplicaId(1);
        group.throughput(Throughput::Elements(recording.operations));
        group.bench_function(BenchmarkId::new("null", size), |b| {
            let setup = || {
                let stage = recording.fixture.execution(replica, NullService::new(0));
                (stage, recording.inputs(replica, Recorded::is_for_execution))
            };
            let run = |(stage, inputs): &mut (Execution<NullService>, Vec<Input>)| {
                let mut out = Output::default();
                for input in inputs.drain(..) {
                    if let Input::Execution(input) = input {
                        stage.handle(input, NOW, &mut out);
                    }
                    out.replies.clear();
                    out.inputs.clear();
                }
            };
            b.iter_batched_ref(setup, run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// All stages of one replica: from the message off the link to the replies.
fn replica(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/replica");
    for (size, recording) in SIZES.into_iter().zip(recordings()) {
        group.throughput(Throughput::Elements(recording.operations));
        for (name, replica) in REPLICAS {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let setup = || {
                    let stages = recording.fixture.stages(replica, NullService::new(0));
                    (Host::new(0, stages), recording.inputs(replica, Recorded::is_message))
                };
                let run = |(host, inputs): &mut (Host<NullService>, Vec<Input>)| {
                    for input in inputs.drain(..) {
                        host.take(input, NOW, &mut ());
                        host.discard();
                    }
                };
                b.iter_batched_ref(setup, run, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

/// A whole group of three and its client at steady state: everything but links and kernel.
fn group_of_three(c: &mut Criterion) {
    let mut group = c.benchmark_group("core/group-and-client");
    for pillars in [1, 2, 4, 8] {
        for size in SIZES {
            let fixture = Fixture::of_three(pillars, size);
            let mut rig = Rig::new(&fixture, size, || NullService::new(0));
            for _ in 0..1000 {
                rig.round(size, b"", &mut ());
            }
            group.throughput(Throughput::Elements(size.into()));
            group.bench_function(BenchmarkId::new(format!("{pillars}-pillars"), size), |b| {
                b.iter(|| rig.round(size, b"", &mut ()));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300)).sample_size(20);
    targets = ordering, execution, replica, group_of_three
}
criterion_main!(benches);
