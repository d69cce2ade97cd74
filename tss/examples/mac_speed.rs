//! Nanoseconds per MAC for every algorithm: `cargo run --release -p hybster-tss --example
//! mac_speed`.
//!
//! Each figure is the best of several rounds, so that other load on the machine shows less.

use std::{hint::black_box, time::Instant};

use hybster_tss::{
    Counter, CounterValue, Digest, GroupKey, InProcessTrInX, InProcessVerifier, InstanceId,
    MacAlgorithm, MacKey, RequestVerifier, TrInX, Verifier,
};

const ROUNDS: usize = 15;
const CALLS: u32 = 20_000;

fn main() {
    println!("ns per call, best of {ROUNDS} rounds of {CALLS}");
    for algorithm in MacAlgorithm::ALL {
        let key = MacKey::new(algorithm, [7; 32]);
        for length in [40, 64, 100, 112, 116, 1024] {
            let message = vec![1; length];
            let whole = measure(|_| key.tag32(black_box(&message)));
            let short = measure(|_| key.tag16(black_box(&message)));
            println!("{algorithm:12} {length:5} B   tag32 {whole:7.1}   tag16 {short:7.1}");
        }
        certificates(algorithm);
    }
}

fn certificates(algorithm: MacAlgorithm) {
    let group_key = GroupKey::from_bytes([1; 32]);
    let group = Digest([2; 32]);
    let instance = InstanceId::default();
    let mut trinx = InProcessTrInX::new(&group_key, algorithm, group, instance);
    let verifier = InProcessVerifier::new(&group_key, algorithm, group);
    let digest = Digest([3; 32]);
    let mut order = 0;
    let create = measure(|_| {
        order += 1;
        trinx.certify_independent(Counter::Ordering, CounterValue::new(0, order), &digest)
    });
    let value = CounterValue::new(1, 0);
    let certificate =
        trinx.certify_independent(Counter::Ordering, value, &digest).expect("a higher view");
    let check = measure(|_| verifier.verify_independent(black_box(&certificate), &digest));
    println!("{algorithm:12} certificate   create {create:6.1}   verify {check:7.1}");

    let message = [4; 64];
    let mac = group_key.client_key(algorithm, 9).tag(&message);
    let hit = measure(|_| verifier.verify_client(9, black_box(&message), &mac));
    let miss = measure(|call| verifier.verify_client(9 + call * 512, black_box(&message), &mac));
    println!("{algorithm:12} client, 64 B     hit {hit:6.1}     miss {miss:7.1}");
    let short = group_key.client_key(algorithm, 9).tag(&message[..40]);
    let batch = [(9, &message[..40], &short); 32];
    let together = measure(|_| verifier.verify_client_batch(black_box(&batch))) / 32.0;
    let alone = measure(|_| verifier.verify_client(9, black_box(&message[..40]), &short));
    println!("{algorithm:12} client, 40 B   alone {alone:6.1}   of a batch {together:5.1}");
}

/// Nanoseconds per call of `work`.
fn measure<T>(mut work: impl FnMut(u32) -> T) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for call in 0..CALLS {
            black_box(work(call));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    best
}
