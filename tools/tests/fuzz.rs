//! The fuzz targets of `tools/fuzz` on a stable compiler: the committed seeds, and a fixed number
//! of random changes of them. The inputs are the same in every run; cargo-fuzz searches further.

// The library of the crate that cargo-fuzz builds, which is not a member of this workspace.
#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use what is public there")]
mod fuzz;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }
}

/// Values at which length checks and windows break.
const EDGES: [u64; 10] = [0, 1, 2, 0x7f, 0xff, 0x7fff, 0xffff, u32::MAX as u64, 1 << 63, u64::MAX];

fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(input.len() + 1);
    let end = at + random.below(1 + (input.len() - at).min(16));
    match random.below(8) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => {
            let (bytes, count) = (random.next().to_le_bytes(), 1 + random.below(8));
            input.splice(at..at, bytes[..count].iter().copied());
        }
        3 => input.extend_from_within(at..end),
        4 => {
            let from = random.below(other.len() + 1);
            input.splice(at..end, other[from..].iter().copied());
        }
        5 => {
            let edge = EDGES[random.below(EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)];
            for (to, from) in input[at..].iter_mut().zip(&edge[..width]) {
                *to = *from;
            }
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Runs an input; a failing one is shown so that it can be kept as a seed.
fn attempt(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("target {} fails with the input {hex}", target.name);
        resume_unwind(panic);
    }
}

fn seed_directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name)
}

fn committed_seeds(target: &Target) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(seed_directory(target)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// How many times more than usual the targets are tried: `HYBSTER_FUZZ_TRIES=100`.
fn patience() -> usize {
    std::env::var("HYBSTER_FUZZ_TRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn fuzz(names: impl Fn(&str) -> bool) {
    for target in TARGETS.iter().filter(|target| names(target.name)) {
        let mut inputs = committed_seeds(target);
        inputs.extend((target.seeds)());
        inputs.push(Vec::new());
        inputs.iter().for_each(|input| attempt(target, input));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..target.tries * patience() {
            let mut input = inputs[random.below(inputs.len())].clone();
            let other = random.below(inputs.len());
            for _ in 0..=random.below(6) {
                change(&mut random, &mut input, &inputs[other]);
            }
            attempt(target, &input);
        }
    }
}

#[test]
fn decoders() {
    fuzz(|name| !["core", "group_file", "key_file"].contains(&name));
}

#[test]
fn configuration_and_key_files() {
    fuzz(|name| ["group_file", "key_file"].contains(&name));
    fuzz::clean();
}

#[test]
fn cores_under_random_events() {
    fuzz(|name| name == "core");
    assert_eq!(fuzz::not_reached(), [""; 0], "steps that no correct replica has taken");
}

/// Every target has a binary for cargo-fuzz and committed seeds.
#[test]
fn every_target_is_listed_and_has_seeds() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{}\"\n", target.name)), "{}", target.name);
        assert!(!committed_seeds(target).is_empty(), "{}: no seeds", target.name);
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}

/// `HYBSTER_WRITE_SEEDS=1 cargo test -p hybster-tools --test fuzz seeds` writes the valid inputs.
#[test]
fn the_seeds_can_be_written() {
    if std::env::var_os("HYBSTER_WRITE_SEEDS").is_none() {
        return;
    }
    // Valid key files are made in every run; in the committed ones the secrets are zeros.
    for target in TARGETS.iter().filter(|target| target.name != "key_file") {
        let directory = seed_directory(target);
        std::fs::create_dir_all(&directory).unwrap();
        for (at, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(directory.join(format!("valid-{at}")), seed).unwrap();
        }
    }
}
