//! Eight AEGIS-128L MACs at once, one per 128-bit lane of two sets of 512-bit registers (VAES).
//!
//! A tag of a short message is a chain of some twenty rounds; a single chain leaves most of the AES
//! units idle. Eight messages of equal length in blocks go through the same rounds side by side.
//! Whether the CPU can do that is found out at run time ([`Vaes::detect`]); elsewhere one tag is
//! made after the other.
//!
//! The algorithm is AEGISMAC-128L of draft-irtf-cfrg-aegis-aead; the tests compare each lane with
//! the crate `aegis`.
#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_aesenc_epi128, _mm512_broadcast_i32x4,
    _mm512_castsi128_si512, _mm512_inserti32x4, _mm512_set_epi64, _mm512_storeu_si512,
    _mm512_xor_si512,
};

/// Messages that go side by side.
pub(crate) const LANES: usize = 8;

/// Lanes of one register.
const HALF: usize = LANES / 2;

/// Bytes that one round absorbs.
const BLOCK_BYTES: usize = 32;

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
    pub(crate) fn detect() -> Option<Vaes> {
        let has = is_x86_feature_detected!("vaes") && is_x86_feature_detected!("avx512f");
        has.then_some(Vaes(()))
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
        // SAFETY: a `Vaes` exists only if the CPU has AVX-512F and VAES.
        Some(unsafe { tags16(keys, messages, blocks) })
    }
}

#[target_feature(enable = "avx512f,vaes")]
fn tags16(
    keys: &[&[u8; 32]; LANES],
    messages: &[&[u8]; LANES],
    blocks: usize,
) -> [[u8; 16]; LANES] {
    let half = |lane: usize, second: usize| -> &[u8; 16] {
        keys[lane][16 * second..][..16].try_into().expect("16 of 32 bytes")
    };
    let mut states = [0, HALF].map(|first| {
        let key = gather([0, 1, 2, 3].map(|lane| half(first + lane, 0)));
        let initial = gather([0, 1, 2, 3].map(|lane| half(first + lane, 1)));
        (init(key, initial), key, initial)
    });
    for _ in 0..INITIAL_ROUNDS {
        // Both halves in turn: their rounds do not wait for each other.
        for (state, key, initial) in &mut states {
            *state = round(*state, *initial, *key);
        }
    }
    for block in 0..blocks {
        let start = block * BLOCK_BYTES;
        for (half, (state, ..)) in states.iter_mut().enumerate() {
            let lanes = [0, 1, 2, 3].map(|lane| &messages[HALF * half + lane][start..]);
            let (first, second) = absorbed(lanes);
            *state = round(*state, first, second);
        }
    }
    let mut lengths = [0, HALF].map(|first| {
        let bits = |lane: usize| 8 * messages[first + lane].len() as i64;
        _mm512_set_epi64(128, bits(3), 128, bits(2), 128, bits(1), 128, bits(0))
    });
    for (length, (state, ..)) in lengths.iter_mut().zip(&states) {
        *length = _mm512_xor_si512(*length, state[2]);
    }
    for _ in 0..FINAL_ROUNDS {
        for (length, (state, ..)) in lengths.iter().zip(&mut states) {
            *state = round(*state, *length, *length);
        }
    }
    let mut tags = [[0; 16]; LANES];
    for (tags, (state, ..)) in tags.chunks_exact_mut(HALF).zip(&states) {
        let [first, rest @ .., _] = state;
        let tag = rest.iter().fold(*first, |tag, part| _mm512_xor_si512(tag, *part));
        // SAFETY: `tags` is four arrays of 16 bytes, 64 bytes that may be written; the store wants
        // no alignment.
        unsafe { _mm512_storeu_si512(tags.as_mut_ptr().cast(), tag) };
    }
    tags
}

#[target_feature(enable = "avx512f,vaes")]
fn init(key: __m512i, initial: __m512i) -> State {
    let (c0, c1) = (_mm512_broadcast_i32x4(load(&C0)), _mm512_broadcast_i32x4(load(&C1)));
    let mixed = _mm512_xor_si512(key, initial);
    let (key0, key1) = (_mm512_xor_si512(key, c0), _mm512_xor_si512(key, c1));
    [mixed, c1, c0, c1, mixed, key0, key1, key0]
}

/// `Update` of the draft.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
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

/// The next block of four messages, the last one filled up with zeros.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn absorbed(messages: [&[u8]; HALF]) -> (__m512i, __m512i) {
    let mut padded = [[0; BLOCK_BYTES]; HALF];
    let mut blocks: [&[u8; BLOCK_BYTES]; HALF] = [&[0; BLOCK_BYTES]; HALF];
    for ((block, padded), message) in blocks.iter_mut().zip(&mut padded).zip(messages) {
        *block = match message.first_chunk() {
            Some(whole) => whole,
            None => {
                padded[..message.len()].copy_from_slice(message);
                padded
            }
        };
    }
    let half =
        |start: usize| blocks.map(|block| block[start..][..16].try_into().expect("16 of 32 bytes"));
    (gather(half(0)), gather(half(16)))
}

/// One 16-byte block per lane.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn gather(lanes: [&[u8; 16]; HALF]) -> __m512i {
    let low = _mm512_castsi128_si512(load(lanes[0]));
    let low = _mm512_inserti32x4::<1>(low, load(lanes[1]));
    let low = _mm512_inserti32x4::<2>(low, load(lanes[2]));
    _mm512_inserti32x4::<3>(low, load(lanes[3]))
}

#[inline]
#[target_feature(enable = "avx512f,vaes")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes that may be read; the load wants no alignment.
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
