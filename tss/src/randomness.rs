//! Agreed randomness: bytes that all replicas of a group compute alike and no client can foresee.
//!
//! Every batch of requests has 32 of them, a function of the key below and of what was agreed: order
//! number, time and digest of the batch. The view is no part of it, so a batch that a later view
//! orders again keeps its bytes.
//!
//! # Who can foresee them
//! - Clients, and others that watch the links, cannot: they lack the key.
//! - Who holds the key and sees a batch knows its bytes before they are used. With the in-process
//!   back end that is the host of every replica, since the group key lies in its memory.
//! - A leader that holds the key and lies can try batches and times until it likes the bytes. So do not
//!   decide by them what a replica's owner gains from.
//!
//! The key is derived from the group key and tells nothing about it, so an isolated back end may
//! hand it to the host.
//!
//! A group without trusted subsystems has no key that its members share ([`RandomnessKey::public`]).
//! There the bytes are only *agreed*: who sees a batch can compute them, clients included.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{digest::Digest, keys::GroupKey};

/// The key of a group's agreed randomness. It is wiped when it is dropped and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RandomnessKey([u8; 32]);

impl RandomnessKey {
    /// The key of the group with this configuration digest.
    ///
    /// The digest holds the epoch: order numbers begin again with a new one, the bytes do not.
    #[must_use]
    pub fn new(group_key: &GroupKey, group: &Digest) -> Self {
        let mut material = [0; 64];
        material[..32].copy_from_slice(group_key.expose_bytes());
        material[32..].copy_from_slice(&group.0);
        let key = blake3::derive_key("hybster-tss v1 agreed randomness", &material);
        material.zeroize();
        Self(key)
    }

    /// What takes the key's place in a group whose members share no secret. **It is no secret:** whoever
    /// knows the group and a batch can compute the batch's bytes.
    #[must_use]
    pub fn public(group: &Digest) -> Self {
        Self(blake3::derive_key("hybster-tss v1 agreed randomness without a key", &group.0))
    }

    /// The key with these bytes, for tests and for hosts whose back end made it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of a batch.
    #[must_use]
    pub fn bytes_of(&self, order: u64, time_ms: u64, batch: &Digest) -> [u8; 32] {
        let mut input = [0; 48];
        input[..8].copy_from_slice(&order.to_le_bytes());
        input[8..16].copy_from_slice(&time_ms.to_le_bytes());
        input[16..].copy_from_slice(&batch.0);
        *blake3::keyed_hash(&self.0, &input).as_bytes()
    }
}

impl fmt::Debug for RandomnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomnessKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn everything_that_was_agreed_counts() {
        let (one, two) = (GroupKey::from_bytes([1; 32]), GroupKey::from_bytes([2; 32]));
        let key = RandomnessKey::new(&one, &Digest([3; 32]));
        let bytes = key.bytes_of(1, 2, &Digest([4; 32]));
        assert_eq!(
            bytes,
            RandomnessKey::new(&one, &Digest([3; 32])).bytes_of(1, 2, &Digest([4; 32]))
        );
        for other in [
            key.bytes_of(2, 2, &Digest([4; 32])),
            key.bytes_of(1, 3, &Digest([4; 32])),
            key.bytes_of(1, 2, &Digest([5; 32])),
            RandomnessKey::new(&two, &Digest([3; 32])).bytes_of(1, 2, &Digest([4; 32])),
            RandomnessKey::new(&one, &Digest([4; 32])).bytes_of(1, 2, &Digest([4; 32])),
        ] {
            assert_ne!(other, bytes);
        }
        let public = RandomnessKey::public(&Digest([3; 32]));
        assert_ne!(public.bytes_of(1, 2, &Digest([4; 32])), bytes);
        let elsewhere = RandomnessKey::public(&Digest([4; 32]));
        assert_ne!(
            public.bytes_of(1, 2, &Digest([4; 32])),
            elsewhere.bytes_of(1, 2, &Digest([4; 32]))
        );
        assert_eq!(format!("{key:?}"), "RandomnessKey(..)");
    }

    /// What replicas of different builds compute must be equal.
    #[test]
    fn the_bytes_are_a_format() {
        const BYTES: [u8; 8] = [226, 22, 94, 76, 154, 192, 242, 242];
        let key = RandomnessKey::new(&GroupKey::from_bytes([1; 32]), &Digest([2; 32]));
        assert_eq!(key.bytes_of(7, 1_700_000_000_000, &Digest([3; 32]))[..8], BYTES);
    }
}
