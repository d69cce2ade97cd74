//! Eight AEGIS-128L MACs at once, one per 128-bit lane of two sets of 512-bit registers (VAES).
//!
//! The tag of a short message is a chain of some twenty rounds, and a single chain leaves most AES
//! units idle. Here, eight messages of equal length in blocks go through the rounds together. The
//! CPU is asked at run time ([`Vaes::detect`]); if it cannot, tags are made one after the other.
//!
//! The algorithm is AEGISMAC-128L of draft-irtf-cfrg-aegis-aead; the tests compare each lane with
//! the crate `aegis`.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm256_maskz_loadu_epi8,
    _mm512_aesenc_epi128, _mm512_broadcast_i32x4, _mm512_castsi256_si512, _mm512_inserti64x4,
    _mm512_set_epi64, _mm512_shuffle_i64x2, _mm512_storeu_si512, _mm512_xor_si512,
};

/// Messages that are processed together.
pub(crate) const LANES: usize = 8;

/// Lanes of one register.
const HALF: usize = LANES / 2;

/// Bytes that one round absorbs.
const BLOCK_BYTES: usize = 32;

type Block = [u8; BLOCK_BYTES];

/// Rounds before the message and after it.
const INITIAL_ROUNDS: usize = 10;
const FINAL_ROUNDS: usize = 7;

const C0: [u8; 16] = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 121, 98];
const C1: [u8; 16] = [219, 61, 24, 85, 109, 194, 47, 241, 32, 17, 49, 66, 115, 181, 40, 221];

/// The state of four MACs.
type State = [__m512i; 8];

/// Proof that the CPU has the instructions that this module uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vaes(());

impl Vaes {
    /// Asks the CPU.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self(()))
    }

    /// The 16-byte tags of eight messages, each under its own key; the first half of a key is the
    /// AEGIS key, the second its initial value. `None` if the messages differ in their number of
    /// blocks.
    pub(crate) fn tags16(
        self,
        keys: &[&[u8; 32]; LANES],
        messages: &[&[u8]; LANES],
    ) -> Option<[[u8; 16]; LANES]> {
        let blocks = messages[0].len().div_ceil(BLOCK_BYTES);
        if messages.iter().any(|message| message.len().div_ceil(BLOCK_BYTES) != blocks) {
            return None;
        }
        // SAFETY: a `Vaes` exists only if the CPU has VAES and these parts of AVX-512.
        Some(unsafe { tags16(keys, messages, blocks) })
    }
}

// Loops and arrays are written out here, because a closure that the standard library calls is
// compiled without these instructions and cannot be inlined, which took twice the time.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn tags16(
    keys: &[&[u8; 32]; LANES],
    messages: &[&[u8]; LANES],
    blocks: usize,
) -> [[u8; 16]; LANES] {
    let (low, low_key, low_initial) = init([keys[0], keys[1], keys[2], keys[3]]);
    let (high, high_key, high_initial) = init([keys[4], keys[5], keys[6], keys[7]]);
    let mut states = [low, high];
    for _ in 0..INITIAL_ROUNDS {
        // Both halves in turn, since their rounds do not wait for each other.
        states[0] = round(states[0], low_initial, low_key);
        states[1] = round(states[1], high_initial, high_key);
    }
    let whole = messages.iter().fold(blocks, |least, it| least.min(it.len() / BLOCK_BYTES));
    for start in (0..whole).map(|block| block * BLOCK_BYTES) {
        let (first, second) = gather([
            block_at(messages[0], start),
            block_at(messages[1], start),
            block_at(messages[2], start),
            block_at(messages[3], start),
        ]);
        states[0] = round(states[0], first, second);
        let (first, second) = gather([
            block_at(messages[4], start),
            block_at(messages[5], start),
            block_at(messages[6], start),
            block_at(messages[7], start),
        ]);
        states[1] = round(states[1], first, second);
    }
    if whole < blocks {
        let start = whole * BLOCK_BYTES;
        let (first, second) = transposed(
            last(messages[0], start),
            last(messages[1], start),
            last(messages[2], start),
            last(messages[3], start),
        );
        states[0] = round(states[0], first, second);
        let (first, second) = transposed(
            last(messages[4], start),
            last(messages[5], start),
            last(messages[6], start),
            last(messages[7], start),
        );
        states[1] = round(states[1], first, second);
    }
    let low = lengths([messages[0], messages[1], messages[2], messages[3]]);
    let high = lengths([messages[4], messages[5], messages[6], messages[7]]);
    let low = _mm512_xor_si512(low, states[0][2]);
    let high = _mm512_xor_si512(high, states[1][2]);
    for _ in 0..FINAL_ROUNDS {
        states[0] = round(states[0], low, low);
        states[1] = round(states[1], high, high);
    }
    let mut tags = [[0; 16]; LANES];
    for (tags, s) in tags.chunks_exact_mut(HALF).zip(&states) {
        let even = _mm512_xor_si512(_mm512_xor_si512(s[0], s[2]), _mm512_xor_si512(s[4], s[6]));
        let odd = _mm512_xor_si512(_mm512_xor_si512(s[1], s[3]), s[5]);
        let tag = _mm512_xor_si512(even, odd);
        // SAFETY: `tags` is four arrays of 16 bytes, 64 bytes that may be written; the store needs
        // no alignment.
        unsafe { _mm512_storeu_si512(tags.as_mut_ptr().cast(), tag) };
    }
    tags
}

/// The first state of four MACs, their AEGIS keys and their initial values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn init(keys: [&[u8; 32]; HALF]) -> (State, __m512i, __m512i) {
    let (key, initial) = gather(keys);
    let (c0, c1) = (_mm512_broadcast_i32x4(load(&C0)), _mm512_broadcast_i32x4(load(&C1)));
    let mixed = _mm512_xor_si512(key, initial);
    let (key0, key1) = (_mm512_xor_si512(key, c0), _mm512_xor_si512(key, c1));
    ([mixed, c1, c0, c1, mixed, key0, key1, key0], key, initial)
}

/// `Update` of the draft.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn round(s: State, first: __m512i, second: __m512i) -> State {
    [
        _mm512_aesenc_epi128(s[7], _mm512_xor_si512(s[0], first)),
        _mm512_aesenc_epi128(s[0], s[1]),
        _mm512_aesenc_epi128(s[1], s[2]),
        _mm512_aesenc_epi128(s[2], s[3]),
        _mm512_aesenc_epi128(s[3], _mm512_xor_si512(s[4], second)),
        _mm512_aesenc_epi128(s[4], s[5]),
        _mm512_aesenc_epi128(s[5], s[6]),
        _mm512_aesenc_epi128(s[6], s[7]),
    ]
}

#[inline]
fn block_at(message: &[u8], start: usize) -> &Block {
    message[start..].first_chunk().expect("a whole block")
}

/// What the final rounds absorb: the lengths of message and tag in bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn lengths(messages: [&[u8]; HALF]) -> __m512i {
    let [a, b, c, d] = messages;
    let (a, b, c, d) = (a.len() as i64, b.len() as i64, c.len() as i64, d.len() as i64);
    _mm512_set_epi64(128, 8 * d, 128, 8 * c, 128, 8 * b, 128, 8 * a)
}

/// Four blocks as their first halves and their second halves, one block per lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn gather(blocks: [&Block; HALF]) -> (__m512i, __m512i) {
    let [a, b, c, d] = blocks;
    transposed(load_block(a), load_block(b), load_block(c), load_block(d))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn transposed(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> (__m512i, __m512i) {
    let low = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
    let high = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(c), d);
    (
        _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high),
    )
}

/// The last block of a message, which begins at `start`, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn last(message: &[u8], start: usize) -> __m256i {
    let rest = &message[start..];
    let length = rest.len().min(BLOCK_BYTES);
    let mask = ((1_u64 << length) - 1) as u32;
    // SAFETY: only the bytes whose bit is set are read, and that many may be.
    unsafe { _mm256_maskz_loadu_epi8(mask, rest.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn load_block(block: &Block) -> __m256i {
    // SAFETY: 32 bytes that may be read; the load needs no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes that may be read; the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::mac::{MacAlgorithm, MacKey};

    /// Every lane against the library, for all lengths up to four blocks and some long ones.
    #[test]
    fn each_lane_makes_the_tag_that_one_message_alone_gets() {
        let Some(vaes) = Vaes::detect() else {
            println!("this CPU has no VAES: nothing to compare");
            return;
        };
        let keys: Vec<[u8; 32]> =
            (0..LANES as u8).map(|lane| core::array::from_fn(|i| lane * 31 + i as u8)).collect();
        let keys: [&[u8; 32]; LANES] = core::array::from_fn(|lane| &keys[lane]);
        let text: Vec<u8> = (0..5000_u32).map(|i| ((i * i) >> 3) as u8).collect();
        for length in (0..130).chain([1000, 1024, 4097]) {
            let blocks = usize::div_ceil(length, BLOCK_BYTES);
            let messages: [&[u8]; LANES] = core::array::from_fn(|lane| {
                // Equal numbers of blocks, different lengths.
                let shorter = match length {
                    0 => 0,
                    _ => length - lane.min((length - 1) % BLOCK_BYTES),
                };
                assert_eq!(shorter.div_ceil(BLOCK_BYTES), blocks);
                &text[lane..][..shorter]
            });
            let tags = vaes.tags16(&keys, &messages).expect("equal numbers of blocks");
            for lane in 0..LANES {
                let alone = MacKey::new(MacAlgorithm::Aegis128L, *keys[lane]).tag16(messages[lane]);
                assert_eq!(tags[lane], alone, "length {length}, lane {lane}");
            }
        }
    }

    #[test]
    fn messages_of_different_numbers_of_blocks_are_not_taken() {
        let Some(vaes) = Vaes::detect() else { return };
        let mut messages: [&[u8]; LANES] = [&[1; 40]; LANES];
        assert!(vaes.tags16(&[&[1; 32]; LANES], &messages).is_some());
        messages[5] = &[1; 65];
        assert!(vaes.tags16(&[&[1; 32]; LANES], &messages).is_none());
    }
}
