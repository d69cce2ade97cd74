//! Static keys of replicas and clients, and the ring of keys that a process trusts.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

/// The holder of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// A replica, by its id.
    Replica(u16),
    /// A client, by its id.
    Client(u32),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// An Ed25519 public key. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(KeyError::PublicKeyText { text: shorten(text) });
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (hex_value(pair[0]), hex_value(pair[1])) else {
                return Err(KeyError::PublicKeyText { text: shorten(text) });
            };
            *byte = high << 4 | low;
        }
        Ok(Self(key))
    }
}

/// The static key pair of this process. Its memory is wiped when it is dropped.
pub struct StaticKey {
    seed: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl StaticKey {
    /// A new key, from the operating system's random source.
    ///
    /// # Errors
    /// If the random source fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self::from_seed(&seed))
    }

    /// The key that belongs to a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { seed: Zeroizing::new(*seed), public: PublicKey(public) }
    }

    /// Reads a key in PKCS#8 form (version 1 or 2).
    ///
    /// # Errors
    /// If the bytes are not an Ed25519 key in PKCS#8 form.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|error| KeyError::Pkcs8(error.to_string()))?;
        let seed: &[u8; 32] = find_seed(der).ok_or_else(|| KeyError::Pkcs8("no seed".into()))?;
        let key = Self::from_seed(seed);
        if key.public.0 != pair.public_key().as_ref() {
            return Err(KeyError::Pkcs8("seed and public key differ".into()));
        }
        Ok(key)
    }

    /// The key in PKCS#8 form, version 1.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_V1_PREFIX.len() + 32));
        der.extend_from_slice(&PKCS8_V1_PREFIX);
        der.extend_from_slice(self.seed.as_ref());
        der
    }

    /// The 32-byte seed. It is the secret: its holder can pass for this replica or client.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }
}

impl Clone for StaticKey {
    fn clone(&self) -> Self {
        Self { seed: self.seed.clone(), public: self.public }
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticKey(public {})", self.public)
    }
}

/// The public keys that a process accepts, and their holders.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    by_key: HashMap<PublicKey, Identity>,
    by_identity: HashMap<Identity, PublicKey>,
}

impl KeyRing {
    /// An empty ring: nobody is accepted.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key.
    ///
    /// # Errors
    /// If the key or the identity is in the ring already: a key must have one holder.
    pub fn add(&mut self, identity: Identity, key: PublicKey) -> Result<(), KeyError> {
        if let Some(&holder) = self.by_key.get(&key) {
            return Err(KeyError::KeyTwice { key, holder, second: identity });
        }
        if self.by_identity.contains_key(&identity) {
            return Err(KeyError::IdentityTwice { identity });
        }
        self.by_key.insert(key, identity);
        self.by_identity.insert(identity, key);
        Ok(())
    }

    /// The holder of a key, if it is in the ring.
    #[must_use]
    pub fn holder(&self, key: &PublicKey) -> Option<Identity> {
        self.by_key.get(key).copied()
    }

    /// The key of an identity, if it has one.
    #[must_use]
    pub fn key_of(&self, identity: Identity) -> Option<PublicKey> {
        self.by_identity.get(&identity).copied()
    }

    /// How many keys are accepted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether nobody is accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

/// What can be wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A text that is not a public key.
    #[error("\"{text}\" is not a public key; a public key has 64 hexadecimal digits")]
    PublicKeyText {
        /// The start of the text.
        text: String,
    },
    /// Bytes that are not a private key in PKCS#8 form.
    #[error("not an Ed25519 private key in PKCS#8 form ({0}); create one with `hybster init`")]
    Pkcs8(String),
    /// The operating system gave no random bytes.
    #[error("the operating system's random source failed: {0}")]
    Random(String),
    /// One key for two identities.
    #[error("public key {key} is given to {holder} and to {second}; each needs its own")]
    KeyTwice {
        /// The key that is listed twice.
        key: PublicKey,
        /// The identity listed first.
        holder: Identity,
        /// The identity listed second.
        second: Identity,
    },
    /// Two keys for one identity.
    #[error("{identity} has two public keys; list it once")]
    IdentityTwice {
        /// The identity that is listed twice.
        identity: Identity,
    },
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// RFC 8410: a PKCS#8 version 1 Ed25519 key is this and the seed.
const PKCS8_V1_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Both versions have the seed after the algorithm and the headers of two nested octet strings.
fn find_seed(der: &[u8]) -> Option<&[u8; 32]> {
    let marker = &PKCS8_V1_PREFIX[5..];
    let start = der.windows(marker.len()).position(|window| window == marker)? + marker.len();
    der.get(start..start + 32)?.try_into().ok()
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_text_and_pkcs8() {
        let key = StaticKey::generate().unwrap();
        assert_eq!(key.public().to_string().parse::<PublicKey>().unwrap(), key.public());
        let read = StaticKey::from_pkcs8(&key.to_pkcs8()).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(read.seed(), key.seed());
    }

    #[test]
    fn pkcs8_version_2_is_read() {
        let der = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
        let key = StaticKey::from_pkcs8(der.as_ref()).unwrap();
        assert_eq!(key.public().0, pair.public_key().as_ref());
    }

    #[test]
    fn bad_keys_are_refused_with_a_message() {
        assert!("12".parse::<PublicKey>().unwrap_err().to_string().contains("64 hexadecimal"));
        assert!("é".repeat(32).parse::<PublicKey>().is_err());
        assert!(StaticKey::from_pkcs8(b"nothing").is_err());
        let mut ring = KeyRing::new();
        let key = StaticKey::from_seed(&[1; 32]).public();
        ring.add(Identity::Replica(0), key).unwrap();
        assert!(ring.add(Identity::Client(0), key).is_err());
        assert!(ring.add(Identity::Replica(0), PublicKey([9; 32])).is_err());
        assert_eq!(ring.len(), 1);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let key = StaticKey::from_seed(&[0xab; 32]);
        assert!(!format!("{key:?}").contains("abababab"));
    }
}
