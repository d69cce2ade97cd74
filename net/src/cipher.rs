//! The MAC, or the authenticated encryption, of frames.
//!
//! Nonces are frame counters. They cannot repeat: a key serves one direction of one connection,
//! comes from that connection's TLS session and is never stored, and the counter only rises, up to
//! [`LinkCipher::FRAMES_MAX`], where the link ends. A restart means a new session.

use std::fmt;
use std::str::FromStr;

use aegis::aegis128x2::Aegis128X2;
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Length of the tag after each frame, in bytes.
pub const TAG_BYTES: usize = 16;

/// How the frames of a link are protected. Both ends must have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkCipher {
    /// AES-128-GMAC (crate `aes-gcm`): authentication only.
    Gmac,
    /// AES-128-GCM (crate `ring`): authentication and encryption, the standard. Its GHASH and AES
    /// run interleaved over the widest registers that the CPU has. (A GMAC by `ring`, over
    /// associated data, has less than half the speed.)
    Aes128Gcm,
    /// Keyed BLAKE3, cut to 16 bytes: authentication only, safe even if a nonce repeated.
    Blake3,
    /// AEGIS-128X2 (crate `aegis`, in C, which finds AES-NI and VAES at run time): authentication
    /// and encryption, by draft-irtf-cfrg-aegis-aead; the youngest of the four. The fastest: to
    /// seal and open a frame of 64 KiB takes 6.3 µs where AES-128-GCM takes 19.7, one of 64 bytes
    /// 213 ns instead of 269 (`perf/RESULTS.md`, section 8). AEGIS-128X4 gained only in what the
    /// second-level cache holds, and lost with 64 bytes.
    #[default]
    Aegis128X2,
}

/// A name that no link cipher has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such link cipher: write \"aegis-128x2\", \"aes-128-gcm\", \"gmac\" or \"blake3\"")]
pub struct UnknownLinkCipher;

impl fmt::Display for LinkCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for LinkCipher {
    type Err = UnknownLinkCipher;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|cipher| cipher.name() == name).ok_or(UnknownLinkCipher)
    }
}

impl LinkCipher {
    /// Every cipher.
    pub const ALL: [Self; 4] = [Self::Aegis128X2, Self::Aes128Gcm, Self::Gmac, Self::Blake3];

    /// Frames that one key may protect.
    pub const FRAMES_MAX: u64 = 1 << 48;

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Gmac => 1,
            Self::Aes128Gcm => 2,
            Self::Blake3 => 3,
            Self::Aegis128X2 => 4,
        }
    }

    /// The name in configuration files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gmac => "gmac",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Blake3 => "blake3",
            Self::Aegis128X2 => "aegis-128x2",
        }
    }

    pub(crate) fn name_of_code(code: u8) -> &'static str {
        Self::ALL.into_iter().find(|it| it.code() == code).map_or("unknown", Self::name)
    }
}

/// The key of one direction of one connection.
pub(crate) enum DirectionKey {
    Gmac(Box<Aes128Gcm>),
    Aes128Gcm(Box<LessSafeKey>),
    Blake3([u8; 32]),
    Aegis128X2([u8; 16]),
}

impl DirectionKey {
    pub(crate) fn new(cipher: LinkCipher, secret: &[u8; 32]) -> Self {
        let short: &[u8; 16] = secret[..16].try_into().expect("16 of 32 bytes");
        match cipher {
            LinkCipher::Gmac => Self::Gmac(Box::new(Aes128Gcm::new(short.into()))),
            LinkCipher::Aes128Gcm => {
                let key = UnboundKey::new(&AES_128_GCM, short).expect("an AES-128 key is 16 bytes");
                Self::Aes128Gcm(Box::new(LessSafeKey::new(key)))
            }
            LinkCipher::Blake3 => Self::Blake3(*secret),
            LinkCipher::Aegis128X2 => Self::Aegis128X2(*short),
        }
    }

    /// Protects `frame` (header and payload): encrypts the payload in place if the cipher does
    /// that, and returns the tag.
    pub(crate) fn seal(&self, counter: u64, frame: &mut [u8], header: usize) -> [u8; TAG_BYTES] {
        match self {
            Self::Gmac(key) => gmac(key, counter, frame),
            Self::Aes128Gcm(key) => {
                let (head, payload) = frame.split_at_mut(header);
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(head), payload)
                    .expect("a frame is shorter than AES-GCM's limit");
                tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
            }
            Self::Blake3(key) => blake3_tag(key, counter, frame),
            Self::Aegis128X2(key) => {
                let (head, payload) = frame.split_at_mut(header);
                Aegis128X2::<TAG_BYTES>::new(key, &nonce(counter)).encrypt_in_place(payload, head)
            }
        }
    }

    /// Checks `frame` (header, payload, tag) and decrypts the payload in place if the cipher
    /// encrypts. Returns `false` if the frame is forged, corrupted or out of order.
    #[must_use]
    pub(crate) fn open(&self, counter: u64, frame: &mut [u8], header: usize) -> bool {
        let body = frame.len() - TAG_BYTES;
        match self {
            Self::Aes128Gcm(key) => {
                let (head, sealed) = frame.split_at_mut(header);
                let nonce = Nonce::assume_unique_for_key(nonce(counter));
                key.open_in_place(nonce, Aad::from(head), sealed).is_ok()
            }
            Self::Gmac(key) => {
                let tag = gmac(key, counter, &frame[..body]);
                bool::from(tag[..].ct_eq(&frame[body..]))
            }
            Self::Blake3(key) => {
                let tag = blake3_tag(key, counter, &frame[..body]);
                bool::from(tag[..].ct_eq(&frame[body..]))
            }
            Self::Aegis128X2(key) => {
                let (head, sealed) = frame.split_at_mut(header);
                let Some((payload, tag)) = sealed.split_last_chunk_mut::<TAG_BYTES>() else {
                    return false;
                };
                Aegis128X2::<TAG_BYTES>::new(key, &nonce(counter))
                    .decrypt_in_place(payload, tag, head)
                    .is_ok()
            }
        }
    }
}

impl Drop for DirectionKey {
    fn drop(&mut self) {
        // The AES key schedules of aes-gcm wipe themselves; ring's do not.
        match self {
            Self::Blake3(key) => key.zeroize(),
            Self::Aegis128X2(key) => key.zeroize(),
            Self::Gmac(_) | Self::Aes128Gcm(_) => {}
        }
    }
}

fn gmac(key: &Aes128Gcm, counter: u64, data: &[u8]) -> [u8; TAG_BYTES] {
    let nothing: &mut [u8] = &mut [];
    key.encrypt_inout_detached(&nonce::<12>(counter).into(), data, nothing.into())
        .expect("a frame is shorter than AES-GCM's limit")
        .into()
}

fn blake3_tag(key: &[u8; 32], counter: u64, data: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&counter.to_le_bytes());
    hasher.update(data);
    let hash = hasher.finalize();
    hash.as_bytes()[..TAG_BYTES].try_into().expect("16 of 32 bytes")
}

/// The counter, padded with zeros.
fn nonce<const BYTES: usize>(counter: u64) -> [u8; BYTES] {
    let mut nonce = [0; BYTES];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    nonce
}
