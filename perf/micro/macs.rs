//! MACs of all algorithms from 32 B to 4 KiB, client MACs and signatures one by one and as a batch,
//! certificates, the MAC of a link's frame, and the digest.

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hybster_net::LinkCipher;
use hybster_net::link::Link;
use hybster_perf::{Fixture, LINK, Numbered};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{PillarId, ReplicaId};
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{REQUEST_MAC, RequestProof, RequestRef, Requests};
use hybster_tss::{
    ClientPublicKeys, ClientSigningKey, Counter, CounterValue, Digest, MacAlgorithm, MacKey,
    RequestVerifier, TrInX, Verifier,
};

fn tags(c: &mut Criterion) {
    for algorithm in MacAlgorithm::ALL {
        let mut group = c.benchmark_group(format!("mac/{algorithm}"));
        let key = MacKey::new(algorithm, [7; 32]);
        for length in [32, 40, 64, 112, 256, 1024, 4096] {
            let message = vec![1; length];
            group.throughput(Throughput::Bytes(length as u64));
            group.bench_function(BenchmarkId::new("tag16", length), |b| {
                b.iter(|| key.tag16(black_box(&message)));
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("digest/blake3");
    for length in [64, 1024, 4096, 20_992] {
        let message = vec![1; length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::from_parameter(length), |b| {
            b.iter(|| hybster_proto::wire::digest(black_box(&message)));
        });
    }
    group.finish();
}

fn client_macs(c: &mut Criterion) {
    for algorithm in MacAlgorithm::ALL {
        let mut group = c.benchmark_group(format!("client-mac/{algorithm}"));
        let fixture = Fixture::new(GroupConfig { mac: algorithm, ..GroupConfig::default() });
        let (key, verifier) = (fixture.client_key(), fixture.verifier());
        let message = [4; 24];
        let mac = key.tag(&message);
        group.bench_function("make", |b| b.iter(|| key.tag(black_box(&message))));
        group.bench_function("check", |b| {
            b.iter(|| verifier.verify_client(LINK.client.0, black_box(&message), &mac));
        });
        for count in [32, 256] {
            let message = fixture.requests(count, &mut Numbered::default(), b"");
            let body = requests_body(&message).expect("it is well-formed");
            let requests: Vec<_> = Requests::new(body).flatten().collect();
            let batch: Vec<_> = requests.iter().filter_map(mac_of).collect();
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(BenchmarkId::new("check-batch", count), |b| {
                b.iter(|| verifier.verify_client_batch(black_box(&batch)));
            });
        }
        group.finish();
    }
}

fn mac_of<'a>(request: &RequestRef<'a>) -> Option<(u32, &'a [u8], &'a [u8; REQUEST_MAC])> {
    match request.proof() {
        RequestProof::Mac(mac) => Some((request.session.client.0, request.covered, mac)),
        RequestProof::Signature(_) => None,
    }
}

/// Signatures instead of MACs: of one client, whose key is decoded once per batch, and of as many
/// clients as requests.
fn client_signatures(c: &mut Criterion) {
    let mut group = c.benchmark_group("client-signature/ed25519");
    let seed = |client: u16| Digest::of(&client.to_le_bytes()).0;
    let keys: Vec<_> = (0..512).map(|c| ClientSigningKey::from_bytes(seed(c))).collect();
    let signers = ClientPublicKeys::new((0..).zip(keys.iter().map(ClientSigningKey::public)));
    let message = [4; 24];
    let signature = keys[0].sign(&message);
    group.bench_function("make", |b| b.iter(|| keys[0].sign(black_box(&message))));
    group.bench_function("check", |b| {
        b.iter(|| signers.verify(0, black_box(&message), &signature));
    });
    for count in [32, 128, 512] {
        for clients in [1, count] {
            let signed: Vec<_> = (0..count)
                .map(|i| {
                    let (client, message) = (i % clients, [i as u8; 24]);
                    (client as u32, message, keys[client].sign(&message))
                })
                .collect();
            let batch: Vec<_> = signed.iter().map(|(c, m, s)| (*c, &m[..], s)).collect();
            assert!(signers.verify_batch(&batch));
            group.throughput(Throughput::Elements(count as u64));
            let name = format!("check-batch/of-{clients}-clients");
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| signers.verify_batch(black_box(&batch)));
            });
        }
    }
    group.finish();
}

fn certificates(c: &mut Criterion) {
    for algorithm in MacAlgorithm::ALL {
        let mut group = c.benchmark_group(format!("certificate/{algorithm}"));
        let fixture = Fixture::new(GroupConfig { mac: algorithm, ..GroupConfig::default() });
        let mut trinx = fixture.trinx(ReplicaId(0), PillarId(0));
        let verifier = fixture.verifier();
        let digest = Digest([3; 32]);
        let mut order = 0;
        group.bench_function("independent", |b| {
            b.iter(|| {
                order += 1;
                trinx.certify_independent(Counter::Ordering, CounterValue::new(0, order), &digest)
            });
        });
        group.bench_function("continuing", |b| {
            b.iter(|| {
                order += 1;
                trinx.certify_continuing(Counter::Ordering, CounterValue::new(0, order), &digest)
            });
        });
        let value = CounterValue::new(1, 0);
        let certificate = trinx.certify_independent(Counter::Ordering, value, &digest);
        let certificate = certificate.expect("a higher view");
        group.bench_function("verify", |b| {
            b.iter(|| verifier.verify_independent(black_box(&certificate), &digest));
        });
        group.finish();
    }
}

/// A frame of a link is sealed at one end and opened at the other.
fn frames(c: &mut Criterion) {
    for cipher in LinkCipher::ALL {
        let mut group = c.benchmark_group(format!("link-frame/{}", cipher.name()));
        for length in [64, 1024, 4096, 20_992, 65_536] {
            let mut here = Link::new(cipher, &[1; 32], &[2; 32], 1 << 20);
            let mut there = Link::new(cipher, &[2; 32], &[1; 32], 1 << 20);
            let message = vec![1; length];
            let (mut wire, mut block) = (Vec::new(), BytesMut::new());
            group.throughput(Throughput::Bytes(length as u64));
            group.bench_function(BenchmarkId::new("seal-and-open", length), |b| {
                b.iter(|| {
                    wire.clear();
                    here.sealer.seal_slices(&mut wire, &[&message]).expect("counters are left");
                    block.extend_from_slice(&wire);
                    there.opener.push(block.split());
                    there.opener.open().expect("the frame is authentic")
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300)).sample_size(30);
    targets = tags, client_macs, client_signatures, certificates, frames
}
criterion_main!(benches);
