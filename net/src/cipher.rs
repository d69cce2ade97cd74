//! The MAC, or the authenticated encryption, of frames.
//!
//! Nonces are frame counters. They cannot repeat: a key serves one direction of one connection, it
//! comes fresh out of that connection's TLS session, it is never stored, and the counter only
//! rises until [`LinkCipher::FRAMES_MAX`], where the link ends. A restart means a new session.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, KeyInit};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Length of the tag behind each frame, in bytes.
pub const TAG_BYTES: usize = 16;

/// How the frames of a link are protected. Both ends must have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkCipher {
    /// AES-128-GMAC (crate `aes-gcm`): authentication only.
    Gmac,
    /// AES-128-GCM (crate `ring`): authentication and encryption. The fastest all the same: its
    /// GHASH and AES run interleaved over the widest registers that the CPU has. (`ring` itself
    /// takes a GMAC, as associated data, at less than half the speed.)
    #[default]
    Aes128Gcm,
    /// Keyed BLAKE3, cut to 16 bytes: authentication only, safe even if a nonce repeated.
    Blake3,
}

impl LinkCipher {
    /// Frames that one key may protect.
    pub const FRAMES_MAX: u64 = 1 << 48;

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Gmac => 1,
            Self::Aes128Gcm => 2,
            Self::Blake3 => 3,
        }
    }

    /// The name as it stands in a configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gmac => "gmac",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::Blake3 => "blake3",
        }
    }

    pub(crate) const fn name_of_code(code: u8) -> &'static str {
        match code {
            1 => Self::Gmac.name(),
            2 => Self::Aes128Gcm.name(),
            3 => Self::Blake3.name(),
            _ => "unknown",
        }
    }
}

/// The key of one direction of one connection.
pub(crate) enum DirectionKey {
    Gmac(Box<Aes128Gcm>),
    Aes128Gcm(Box<LessSafeKey>),
    Blake3([u8; 32]),
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
        }
    }

    /// Checks `frame` (header, payload, tag) and decrypts the payload in place if the cipher
    /// encrypts. False: the frame is forged, corrupted or out of order.
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
        }
    }
}

impl Drop for DirectionKey {
    fn drop(&mut self) {
        // The AES key schedules of aes-gcm wipe themselves; ring's do not.
        if let Self::Blake3(key) = self {
            key.zeroize();
        }
    }
}

fn gmac(key: &Aes128Gcm, counter: u64, data: &[u8]) -> [u8; TAG_BYTES] {
    let nothing: &mut [u8] = &mut [];
    key.encrypt_inout_detached(&nonce(counter).into(), data, nothing.into())
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

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&counter.to_le_bytes());
    nonce
}
