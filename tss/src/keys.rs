//! The group key and everything that is derived from it.

use core::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    client_mac::{ClientKey, ClientRoot},
    mac::{MacAlgorithm, MacKey},
};

/// The secret that only the TrInX instances of a group share (`key` of TR listing 10).
///
/// With it, every certificate can be forged. It is wiped when it is dropped and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GroupKey([u8; 32]);

impl GroupKey {
    /// Length of a group key in bytes.
    pub const BYTES: usize = 32;

    /// A new key from the random source of the operating system.
    pub fn generate() -> Result<Self, RandomSourceError> {
        let mut key = Self([0; 32]);
        fill_random(&mut key.0)?;
        Ok(key)
    }

    /// The key with these bytes. They must come from a good random source.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves, to seal them or hand them to an isolated back end.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of `client`: known to that client and to the holders of the group key.
    pub fn client_key(&self, algorithm: MacAlgorithm, client: u32) -> ClientKey {
        ClientRoot::new(self, algorithm).client_key(client)
    }

    /// Derives a key for one purpose. `context` names it and is a constant of this crate.
    pub(crate) fn derive(&self, context: &str, algorithm: MacAlgorithm) -> Zeroizing<[u8; 32]> {
        let mut material = Zeroizing::new([0; 33]);
        material[..32].copy_from_slice(&self.0);
        material[32] = algorithm.wire();
        Zeroizing::new(blake3::derive_key(context, &*material))
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(..)")
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "the operating system gave no random bytes ({0}): make sure that getrandom or /dev/urandom is \
     allowed here, and try again"
)]
pub struct RandomSourceError(getrandom::Error);

/// Fills `bytes` from the random source of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), RandomSourceError> {
    getrandom::fill(bytes).map_err(RandomSourceError)
}

/// The keys of the three kinds of certificate. Each kind has its own, so that a proof of one kind
/// is worthless as another.
#[derive(Clone)]
pub(crate) struct CertificateKeys {
    pub(crate) independent: MacKey,
    pub(crate) continuing: MacKey,
    pub(crate) mac: MacKey,
}

impl CertificateKeys {
    pub(crate) fn new(group_key: &GroupKey, algorithm: MacAlgorithm) -> Self {
        let key = |context| MacKey::new(algorithm, *group_key.derive(context, algorithm));
        Self {
            independent: key("hybster-tss v1 independent certificate"),
            continuing: key("hybster-tss v1 continuing certificate"),
            mac: key("hybster-tss v1 trusted mac"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn every_purpose_and_algorithm_has_a_key_of_its_own() {
        let group_key = GroupKey::from_bytes([3; 32]);
        for algorithm in MacAlgorithm::ALL {
            let keys = CertificateKeys::new(&group_key, algorithm);
            let tags =
                [keys.independent.tag32(b"m"), keys.continuing.tag32(b"m"), keys.mac.tag32(b"m")];
            assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2]);
        }
        let derived = MacAlgorithm::ALL.map(|algorithm| *group_key.derive("c", algorithm));
        assert!(derived[0] != derived[1] && derived[1] != derived[2] && derived[0] != derived[2]);
    }

    #[test]
    fn generated_keys_differ_and_are_not_printed() {
        let (one, two) = (GroupKey::generate().unwrap(), GroupKey::generate().unwrap());
        assert_ne!(one.expose_bytes(), two.expose_bytes());
        assert_eq!(format!("{one:?}"), "GroupKey(..)");
    }
}
