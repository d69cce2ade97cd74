//! Instructions of the hot paths, counted by callgrind, so that small changes are visible despite
//! noise.
//!
//! `cargo bench -p hybster-perf --features icount --bench icount`; `README.md` says what must be
//! installed. Callgrind does not support AVX-512, and it counts rather than times: compare two
//! figures of one benchmark, never two benchmarks.

// The macros make undocumented items.
#![allow(missing_docs, unused_qualifications)]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use hybster::services::kv::KvOperation;
use hybster::services::{KvService, NullService};
use hybster_perf::{Fixture, Host, LINK, Numbered, Pillar, Recorded, Recording, Rig};
use hybster_proto::execution::Execution;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId};
use hybster_proto::output::{Input, Output};
use hybster_proto::service::{Context, Service};
use hybster_proto::time::Time;
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{RequestProof, Requests};
use hybster_tss::{InProcessVerifier, MacAlgorithm, MacKey, RequestVerifier};

/// Batches of a run; the figures are for the whole run.
const BATCHES: u32 = 32;
/// Requests per batch.
const SIZE: u32 = 64;
const NOW: Time = Time(1);

fn key(algorithm: MacAlgorithm) -> (MacKey, Vec<u8>) {
    (MacKey::new(algorithm, [7; 32]), vec![1; 40])
}

#[library_benchmark]
#[bench::aegis_128l(args = (MacAlgorithm::Aegis128L), setup = key)]
#[bench::blake3(args = (MacAlgorithm::Blake3), setup = key)]
#[bench::hmac_sha256(args = (MacAlgorithm::HmacSha256), setup = key)]
fn tag_of_40_bytes((key, message): (MacKey, Vec<u8>)) -> [u8; 16] {
    key.tag16(black_box(&message))
}

fn requests(count: u32) -> (InProcessVerifier, bytes::Bytes) {
    let fixture = Fixture::of_three(1, count);
    let verifier = fixture.verifier();
    let message = fixture.requests(count, &mut Numbered::default(), b"");
    // The key is derived before counting starts.
    assert!(!verifier.verify_client(LINK.client.0, b"", &[0; 16]));
    (verifier, message)
}

#[library_benchmark]
#[bench::of_64(args = (64), setup = requests)]
fn parse_and_check_requests((verifier, message): (InProcessVerifier, bytes::Bytes)) -> usize {
    let body = requests_body(black_box(&message)).expect("it is well-formed");
    let authentic = |r: &hybster_proto::wire::RequestRef<'_>| {
        let RequestProof::Mac(mac) = r.proof() else { return false };
        verifier.verify_client(r.session.client.0, r.covered, mac)
    };
    Requests::new(body).flatten().filter(authentic).count()
}

fn recording() -> Recording {
    Recording::of(Fixture::of_three(1, SIZE), BATCHES, SIZE, b"")
}

fn pillar(replica: u16) -> (Pillar, Vec<Input>, Output) {
    let (recording, replica) = (recording(), ReplicaId(replica));
    let inputs = recording.inputs(replica, |i| i.pillar().is_some());
    (recording.fixture.pillar(replica, PillarId(0)), inputs, Output::default())
}

#[library_benchmark]
#[bench::leader(args = (0), setup = pillar)]
#[bench::follower(args = (1), setup = pillar)]
fn order_32_batches_of_64(
    (mut pillar, inputs, mut out): (Pillar, Vec<Input>, Output),
) -> (Pillar, Output) {
    for input in inputs {
        if let Input::Pillar(_, input) = input {
            pillar.handle(input, NOW, &mut out);
        }
    }
    (pillar, out)
}

fn execution() -> (Execution<NullService>, Vec<Input>, Output) {
    let recording = recording();
    let inputs = recording.inputs(ReplicaId(1), Recorded::is_for_execution);
    let stage = recording.fixture.execution(ReplicaId(1), NullService::new(0));
    (stage, inputs, Output::default())
}

#[library_benchmark]
#[bench::null(setup = execution)]
fn execute_32_batches_of_64(
    (mut stage, inputs, mut out): (Execution<NullService>, Vec<Input>, Output),
) -> (Execution<NullService>, Output) {
    for input in inputs {
        if let Input::Execution(input) = input {
            stage.handle(input, NOW, &mut out);
        }
    }
    (stage, out)
}

fn replica(replica: u16) -> (Host<NullService>, Vec<Input>) {
    let (recording, replica) = (recording(), ReplicaId(replica));
    let stages = recording.fixture.stages(replica, NullService::new(0));
    (Host::new(0, stages), recording.inputs(replica, Recorded::is_message))
}

#[library_benchmark]
#[bench::leader(args = (0), setup = replica)]
#[bench::follower(args = (1), setup = replica)]
fn replica_32_batches_of_64(
    (mut host, inputs): (Host<NullService>, Vec<Input>),
) -> Host<NullService> {
    for input in inputs {
        host.take(input, NOW, &mut ());
        host.discard();
    }
    host
}

fn rig() -> Rig<NullService> {
    let mut rig = Rig::new(&Fixture::of_three(2, SIZE), SIZE, || NullService::new(0));
    for _ in 0..600 {
        rig.round(SIZE, b"", &mut ());
    }
    rig
}

#[library_benchmark]
#[bench::steady_state(setup = rig)]
fn group_and_client_round_of_64(mut rig: Rig<NullService>) -> Rig<NullService> {
    rig.round(SIZE, b"", &mut ());
    rig
}

fn store() -> (KvService, Vec<u8>, Vec<u8>, Vec<u8>) {
    let (mut service, mut reply) = (KvService::new(), Vec::with_capacity(4096));
    let (mut put, mut get) = (Vec::new(), Vec::new());
    for n in 0..1000 {
        put.clear();
        let key = format!("user{n:010}");
        let operation = KvOperation::Put { key: key.as_bytes(), value: &[b'v'; 100] };
        operation.encode(&mut put).expect("key and value are short");
        service.execute(&context(), &put, &mut reply);
    }
    KvOperation::Get { key: b"user0000000500" }.encode(&mut get).expect("the key is short");
    reply.clear();
    (service, put, get, reply)
}

fn context() -> Context {
    let session = SessionId::new(LINK.client, LINK.incarnation, 0);
    Context::new(session, RequestNumber(1), OrderNumber(1))
}

#[library_benchmark]
#[bench::of_1000_keys(setup = store)]
fn kv_put((mut service, put, _, mut reply): (KvService, Vec<u8>, Vec<u8>, Vec<u8>)) -> KvService {
    service.execute(&context(), black_box(&put), &mut reply);
    service
}

#[library_benchmark]
#[bench::of_1000_keys(setup = store)]
fn kv_get((service, _, get, mut reply): (KvService, Vec<u8>, Vec<u8>, Vec<u8>)) -> KvService {
    service.query(black_box(&get), &mut reply);
    service
}

library_benchmark_group!(name = macs, benchmarks = [tag_of_40_bytes, parse_and_check_requests]);
library_benchmark_group!(
    name = core,
    benchmarks = [
        order_32_batches_of_64,
        execute_32_batches_of_64,
        replica_32_batches_of_64,
        group_and_client_round_of_64
    ]
);
library_benchmark_group!(name = services, benchmarks = [kv_put, kv_get]);

main!(library_benchmark_groups = [macs, core, services]);
