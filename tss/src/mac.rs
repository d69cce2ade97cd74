//! The MACs underneath everything: deterministic, without a nonce.
//!
//! # Why no nonce
//! GMAC and Poly1305 are faster on paper, but each needs a nonce that never repeats under a key:
//! two tags under one nonce reveal the key, and with it every certificate of every instance. A
//! TrInX must be assumed to lose its state now and then (a restart, a restored virtual machine, a
//! rollback by the host). A nonce counter rolls back with it, and random nonces of 96 bits are too
//! short for this rate. So a key always makes the same tag for the same message, and a repetition
//! reveals only that it is a repetition. (Links between hosts differ: their keys end with the
//! connection, and the frame counter is a nonce that cannot repeat.)
//!
//! # Which algorithm
//! - [`MacAlgorithm::Aegis128L`] (the default): AEGISMAC-128L of draft-irtf-cfrg-aegis-aead. It
//!   has a field for an initial value, but is made to be used many times under one key with one
//!   initial value (see `aegis128l_mac_init` of libaegis): unlike the cipher it shows nothing of
//!   its state but the tag. The conditions are that the key is secret and used for nothing else,
//!   and both hold here: every purpose derives its own. 128-bit security. It is the youngest of
//!   the three; the others are more conservative choices, at the price in the table.
//! - [`MacAlgorithm::Blake3`]: keyed BLAKE3. It needs no special instructions.
//! - [`MacAlgorithm::HmacSha256`]: for users who need a standard.
//!
//! Nanoseconds per 32-byte tag (2 vCPU of an AMD EPYC, default x86-64 build, best of 15 rounds of
//! `cargo run --release -p hybster-tss --example mac_speed`; a certificate is a tag of 112 bytes):
//!
//! | bytes | aegis-128l | hmac-sha256 | blake3 |
//! |------:|-----------:|------------:|-------:|
//! |    40 |         43 |         118 |     93 |
//! |    64 |         35 |         130 |     89 |
//! |   112 |         42 |         128 |    148 |
//! |  1024 |         80 |         588 |   1273 |
//!
//! The crate `aegis` is used in its C form, which finds AES-NI at run time. Its `pure-rust` form
//! decides at compile time: without `-C target-feature=+aes` it runs AES in software (measured:
//! 2,117 ns for 40 bytes, 2,327 for 112, 5,467 for 1024), and with it it is about a quarter faster
//! than C (31, 34 and 68). Where the CPU has VAES with 512-bit registers, the MACs of many client
//! requests are made eight at a time (`lanes`): 8 ns each for empty requests, where one alone takes
//! 53 (`perf/RESULTS.md`, section 8). To keep an initialised state per key and clone it saves at
//! most 4 ns and costs 384 bytes per key that cannot be wiped, so each tag starts from the 32 key
//! bytes.

use core::{fmt, str::FromStr};

use aegis::aegis128l::Aegis128LMac;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The MAC algorithms that a group can be configured to use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
#[non_exhaustive]
pub enum MacAlgorithm {
    /// Keyed BLAKE3.
    Blake3 = 1,
    /// HMAC with SHA-256.
    HmacSha256 = 2,
    /// The MAC form of AEGIS-128L.
    #[default]
    Aegis128L = 3,
}

impl MacAlgorithm {
    /// Every algorithm, in the order of the wire numbers.
    pub const ALL: [Self; 3] = [Self::Blake3, Self::HmacSha256, Self::Aegis128L];

    /// The number that stands for this algorithm in key derivation and on the wire. Never changes.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The algorithm with that wire number, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Blake3),
            2 => Some(Self::HmacSha256),
            3 => Some(Self::Aegis128L),
            _ => None,
        }
    }

    /// The name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::HmacSha256 => "hmac-sha256",
            Self::Aegis128L => "aegis-128l",
        }
    }
}

impl fmt::Display for MacAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MacAlgorithm {
    type Err = UnknownMacAlgorithm;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name).ok_or(UnknownMacAlgorithm)
    }
}

/// A name that no MAC algorithm has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no such MAC algorithm: write \"aegis-128l\", \"blake3\" or \"hmac-sha256\"")]
pub struct UnknownMacAlgorithm;

/// A key together with the algorithm it is for.
///
/// Use a key for tags of one length only, because tags of the two lengths may be related.
///
/// The key is wiped when it is dropped; some copies that the algorithms make on the stack are not.
#[derive(Clone)]
pub struct MacKey(State);

#[derive(Clone)]
enum State {
    Blake3(KeyBytes),
    /// With both pads absorbed, which saves two compressions per tag. Wipes itself.
    HmacSha256(Hmac<Sha256>),
    /// The key and the fixed initial value.
    Aegis128L(KeyBytes),
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct KeyBytes([u8; 32]);

impl MacKey {
    /// The key with these bytes. They should be the output of a key derivation.
    pub fn new(algorithm: MacAlgorithm, mut key: [u8; 32]) -> Self {
        let state = match algorithm {
            MacAlgorithm::Blake3 => State::Blake3(KeyBytes(key)),
            MacAlgorithm::HmacSha256 => State::HmacSha256(hmac(&key)),
            MacAlgorithm::Aegis128L => State::Aegis128L(KeyBytes(key)),
        };
        key.zeroize();
        Self(state)
    }

    /// The algorithm that this key is for.
    pub const fn algorithm(&self) -> MacAlgorithm {
        match self.0 {
            State::Blake3(_) => MacAlgorithm::Blake3,
            State::HmacSha256(_) => MacAlgorithm::HmacSha256,
            State::Aegis128L(_) => MacAlgorithm::Aegis128L,
        }
    }

    /// The key and the initial value of AEGIS-128L.
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    pub(crate) fn aegis_bytes(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            State::Aegis128L(key) => Some(&key.0),
            State::Blake3(_) | State::HmacSha256(_) => None,
        }
    }

    /// The 32-byte tag of `message`.
    pub fn tag32(&self, message: &[u8]) -> [u8; 32] {
        match &self.0 {
            State::Blake3(key) => *blake3::keyed_hash(&key.0, message).as_bytes(),
            State::HmacSha256(keyed) => {
                keyed.clone().chain_update(message).finalize().into_bytes().into()
            }
            State::Aegis128L(key) => aegis::<32>(key, message),
        }
    }

    /// The 16-byte tag of `message`. AEGIS-128L has tags of this length, the others truncate
    /// theirs.
    pub fn tag16(&self, message: &[u8]) -> [u8; 16] {
        match &self.0 {
            State::Aegis128L(key) => aegis::<16>(key, message),
            State::Blake3(_) | State::HmacSha256(_) => {
                let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = self.tag32(message);
                [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
            }
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MacKey({}, ..)", self.algorithm())
    }
}

/// Whether two tags are equal, in constant time.
///
/// The differences are collected eight bytes at a time, and only their union is handed to `subtle`,
/// whose comparison of slices goes byte by byte and took half as long as the MAC itself.
pub(crate) fn equal<const BYTES: usize>(one: &[u8; BYTES], other: &[u8; BYTES]) -> bool {
    const { assert!(BYTES.is_multiple_of(8)) };
    let (one, _) = one.as_chunks::<8>();
    let (other, _) = other.as_chunks::<8>();
    let differences = one
        .iter()
        .zip(other)
        .fold(0, |all, (a, b)| all | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)));
    differences.ct_eq(&0).into()
}

fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// The first half is the AEGIS key, the second its initial value. That is secret too, which costs
/// nothing, and it never varies under one key.
fn aegis<const BYTES: usize>(key: &KeyBytes, message: &[u8]) -> [u8; BYTES] {
    let (key, initial) = key.0.split_at(16);
    let key = key.try_into().expect("16 of 32 bytes");
    let initial = initial.try_into().expect("16 of 32 bytes");
    let mut mac = Aegis128LMac::<BYTES>::new_with_nonce(key, initial);
    mac.update(message);
    mac.finalize()
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString, vec, vec::Vec};

    use super::*;

    #[test]
    fn names_and_wire_numbers_are_pinned() {
        let pinned = [("blake3", 1), ("hmac-sha256", 2), ("aegis-128l", 3)];
        for (algorithm, (name, number)) in MacAlgorithm::ALL.into_iter().zip(pinned) {
            assert_eq!(algorithm.to_string(), name);
            assert_eq!(name.parse(), Ok(algorithm));
            assert_eq!(algorithm.wire(), number);
            assert_eq!(MacAlgorithm::from_wire(number), Some(algorithm));
        }
        assert_eq!("gmac".parse::<MacAlgorithm>(), Err(UnknownMacAlgorithm));
        assert_eq!(MacAlgorithm::from_wire(0), None);
    }

    #[test]
    fn tags_depend_on_key_message_length_and_algorithm() {
        let mut tags = Vec::new();
        for algorithm in MacAlgorithm::ALL {
            for key in [[1; 32], [2; 32]] {
                for length in [0, 1, 31, 32, 33, 112, 1024, 5000] {
                    let key = MacKey::new(algorithm, key);
                    let message = vec![0; length];
                    tags.push(key.tag32(&message));
                    assert_eq!(key.tag32(&message), key.tag32(&message));
                    assert_eq!(key.tag16(&message), key.tag16(&message));
                }
            }
        }
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 3 * 2 * 8);
    }

    /// A key changes the AEGIS tag with either half.
    #[test]
    fn both_halves_of_an_aegis_key_count() {
        let mut key = [7; 32];
        let tag = MacKey::new(MacAlgorithm::Aegis128L, key).tag32(b"m");
        key[31] ^= 1;
        assert_ne!(MacKey::new(MacAlgorithm::Aegis128L, key).tag32(b"m"), tag);
    }

    /// The vector of draft-irtf-cfrg-aegis-aead: 35 bytes, 0 to 34.
    #[test]
    fn aegis_is_aegismac_128l_of_the_draft() {
        let mut key = [0; 32];
        (key[0], key[1]) = (0x10, 0x01);
        (key[16], key[18]) = (0x10, 0x02);
        let message: Vec<u8> = (0..35).collect();
        let key = MacKey::new(MacAlgorithm::Aegis128L, key);
        let (short, whole) = (key.tag16(&message), key.tag32(&message));
        assert_eq!(
            format!("{:032x}", u128::from_be_bytes(short)),
            "d3f09b2842ad301687d6902c921d7818"
        );
        assert_eq!(
            format!("{}", crate::Digest(whole)),
            "9490e7c89d420c9f37417fa625eb38e8cad53c5cbec55285e8499ea48377f2a3"
        );
    }

    #[test]
    fn hmac_is_rfc_4231_test_case_2_with_a_padded_key() {
        // "Jefe" filled up with zeros to 32 bytes is the same HMAC key.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let tag = MacKey::new(MacAlgorithm::HmacSha256, key).tag32(b"what do ya want for nothing?");
        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }

    #[test]
    fn equal_sees_every_bit() {
        let tag = [0x5a; 32];
        assert!(equal(&tag, &tag.clone()));
        for bit in 0..256 {
            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!equal(&tag, &other), "bit {bit}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", MacKey::new(MacAlgorithm::Blake3, [0x5a; 32]));
        assert_eq!(shown, "MacKey(blake3, ..)");
    }
}
