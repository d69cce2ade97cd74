//! The fuzz targets: all code that takes untrusted bytes, run on arbitrary bytes.
//!
//! A target is a function that must return for every input. It also asserts that parsed messages
//! are encoded as the same bytes, that restored states give the same pages, and that correct
//! replicas commit the same. `fuzz_targets/any.rs` hands the functions to libFuzzer, and
//! `tools/tests/fuzz.rs` runs them in the ordinary tests, with the seeds of `seeds/`.
#![allow(dead_code, reason = "the tests and the fuzzers use different parts")]

mod client;
mod core;
mod files;
mod log;
mod net;
mod state;
mod wire;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the libFuzzer binary and of the directory with its seeds.
    pub name: &'static str,
    /// Runs the target on one input.
    pub run: fn(&[u8]),
    /// Inputs to begin with: valid ones.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs that a run in the tests tries.
    pub tries: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: net::frames, seeds: net::frame_seeds, tries: 200_000 },
    Target { name: "link", run: net::link, seeds: net::link_seeds, tries: 40_000 },
    Target { name: "hello", run: net::hello, seeds: net::hello_seeds, tries: 400_000 },
    Target { name: "handshake", run: net::handshake, seeds: net::handshake_seeds, tries: 6_000 },
    Target { name: "ordering", run: wire::ordering, seeds: wire::ordering_seeds, tries: 200_000 },
    Target { name: "view", run: wire::view, seeds: wire::view_seeds, tries: 200_000 },
    Target {
        name: "checkpoint",
        run: wire::checkpoint,
        seeds: wire::checkpoint_seeds,
        tries: 200_000,
    },
    Target { name: "requests", run: wire::requests, seeds: wire::request_seeds, tries: 200_000 },
    Target { name: "replies", run: client::replies, seeds: client::reply_seeds, tries: 40_000 },
    Target { name: "group_file", run: files::group, seeds: files::group_seeds, tries: 10_000 },
    Target { name: "key_file", run: files::keys, seeds: files::key_seeds, tries: 1_000 },
    Target { name: "sessions", run: state::sessions, seeds: state::session_seeds, tries: 40_000 },
    Target { name: "kv_pages", run: state::kv_pages, seeds: state::kv_page_seeds, tries: 40_000 },
    Target { name: "kv_operations", run: state::kv, seeds: state::kv_seeds, tries: 100_000 },
    Target { name: "trace", run: state::trace, seeds: state::trace_seeds, tries: 100_000 },
    Target { name: "log", run: log::segments, seeds: log::seeds, tries: 30_000 },
    Target { name: "core", run: core::run, seeds: core::seeds, tries: 10_000 },
];

pub use core::not_reached;
pub use files::clean;

/// The target with that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Reads an input front to back; zeros follow its end.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// A piece with its length, in two bytes, in front.
    fn piece(&mut self) -> &'a [u8] {
        let length = self.short();
        self.take(length.into())
    }

    fn pieces(mut self) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !self.is_empty() {
            pieces.push(self.piece());
        }
        pieces
    }
}

/// The input that [`Choices::pieces`] cuts into these.
fn joined(pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&u16::try_from(piece.len()).expect("a short piece").to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}
