//! The trusted MAC of client requests.
//!
//! A request travels inside PREPAREs to replicas that never met the client, so it carries one MAC
//! that every replica checks with the same result: under a key that is derived from the group key
//! and the client's number, known to that client and to the TrInX instances. Valid at one replica
//! means valid at all, and no host can forge it (as long as hosts do not learn the group key).

use alloc::{boxed::Box, vec::Vec};
use core::{cell::RefCell, fmt};

use zeroize::{Zeroize, Zeroizing};

#[cfg(all(target_arch = "x86_64", feature = "std"))]
use crate::lanes::{LANES, Vaes};
use crate::{
    keys::GroupKey,
    mac::{MacAlgorithm, MacKey, equal},
};

/// The key with which one client authenticates its requests. Made by
/// [`GroupKey::client_key`](GroupKey::client_key).
#[derive(Clone)]
pub struct ClientKey {
    bytes: Zeroizing<[u8; 32]>,
    mac: MacKey,
}

impl ClientKey {
    /// Length of a client key in bytes.
    pub const BYTES: usize = 32;

    /// The key with these bytes, as [`expose_bytes`](ClientKey::expose_bytes) gave them.
    pub fn from_bytes(algorithm: MacAlgorithm, mut bytes: [u8; 32]) -> Self {
        let key = Self { bytes: Zeroizing::new(bytes), mac: MacKey::new(algorithm, bytes) };
        bytes.zeroize();
        key
    }

    /// The bytes themselves, for the client's key file.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The algorithm that this key is for.
    pub fn algorithm(&self) -> MacAlgorithm {
        self.mac.algorithm()
    }

    /// The MAC of a request.
    pub fn tag(&self, message: &[u8]) -> [u8; 16] {
        self.mac.tag16(message)
    }

    /// The MACs of up to [`SIDE_BY_SIDE`](Self::SIDE_BY_SIDE) requests, made at once if algorithm
    /// and CPU can do that and the lengths are alike. Tags beyond those of `messages` have no
    /// meaning.
    ///
    /// # Panics
    /// If there are more messages.
    pub fn tags(&self, messages: &[&[u8]]) -> [[u8; 16]; Self::SIDE_BY_SIDE] {
        assert!(messages.len() <= Self::SIDE_BY_SIDE, "{} messages", messages.len());
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        if let [first, _, _, ..] = messages
            && let Some(key) = self.mac.aegis_bytes()
            && let Some(lanes) = Vaes::detect()
        {
            // Spare lanes repeat the first message.
            let mut all = [*first; LANES];
            all[..messages.len()].copy_from_slice(messages);
            if let Some(tags) = lanes.tags16(&[key; LANES], &all) {
                return tags;
            }
        }
        let mut tags = [[0; 16]; Self::SIDE_BY_SIDE];
        for (tag, message) in tags.iter_mut().zip(messages) {
            *tag = self.tag(message);
        }
        tags
    }

    /// How many MACs [`tags`](Self::tags) makes.
    pub const SIDE_BY_SIDE: usize = 8;
}

#[cfg(all(target_arch = "x86_64", feature = "std"))]
const _: () = assert!(ClientKey::SIDE_BY_SIDE == LANES);

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({}, ..)", self.algorithm())
    }
}

/// The secret from which each client's key is derived, by a keyed BLAKE3 of the client's number.
#[derive(Clone)]
pub(crate) struct ClientRoot {
    key: Zeroizing<[u8; 32]>,
    algorithm: MacAlgorithm,
}

impl ClientRoot {
    pub(crate) fn new(group_key: &GroupKey, algorithm: MacAlgorithm) -> Self {
        Self { key: group_key.derive("hybster-tss v1 client keys", algorithm), algorithm }
    }

    pub(crate) fn client_key(&self, client: u32) -> ClientKey {
        ClientKey::from_bytes(self.algorithm, *self.derived(client))
    }

    fn mac_key(&self, client: u32) -> MacKey {
        MacKey::new(self.algorithm, *self.derived(client))
    }

    fn derived(&self, client: u32) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*blake3::keyed_hash(&self.key, &client.to_le_bytes()).as_bytes())
    }
}

/// How many derived client keys a verifier remembers. A power of two; at most about 300 bytes each.
pub const CLIENT_KEY_CACHE_SLOTS: usize = 512;

/// The client that used this entry last, and its key.
type Slot = Option<(u32, MacKey)>;

/// Checks client MACs with derived keys that it remembers in a table of fixed size, one slot per
/// remainder of the client's number. A miss costs one derivation, so a hostile choice of numbers
/// costs time but never memory.
#[derive(Clone)]
pub(crate) struct ClientVerifier {
    root: ClientRoot,
    cache: RefCell<Box<[Slot]>>,
    /// Present if the algorithm has a form for several messages and the CPU supports it.
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    lanes: Option<Vaes>,
}

impl ClientVerifier {
    pub(crate) fn new(group_key: &GroupKey, algorithm: MacAlgorithm) -> Self {
        let slots: Vec<_> = core::iter::repeat_with(|| None).take(CLIENT_KEY_CACHE_SLOTS).collect();
        Self {
            root: ClientRoot::new(group_key, algorithm),
            cache: RefCell::new(slots.into_boxed_slice()),
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            lanes: Vaes::detect().filter(|_| algorithm == MacAlgorithm::Aegis128L),
        }
    }

    pub(crate) fn verify(&self, client: u32, message: &[u8], mac: &[u8; 16]) -> bool {
        let mut cache = self.cache.borrow_mut();
        let slot = &mut cache[client as usize % CLIENT_KEY_CACHE_SLOTS];
        let tag = match slot {
            Some((owner, key)) if *owner == client => key.tag16(message),
            _ => slot.insert((client, self.root.mac_key(client))).1.tag16(message),
        };
        equal(&tag, mac)
    }

    /// Checks many requests. Returns the index of one that is not authentic, if there is one.
    pub(crate) fn verify_batch(&self, requests: &[ClientRequest<'_>]) -> Result<(), usize> {
        #[cfg(all(target_arch = "x86_64", feature = "std"))]
        if let Some(lanes) = self.lanes {
            for (chunk, group) in requests.chunks(LANES).enumerate() {
                if let Err(lane) = self.verify_lanes(lanes, group) {
                    return Err(chunk * LANES + lane);
                }
            }
            return Ok(());
        }
        self.verify_each(requests)
    }

    fn verify_each(&self, requests: &[ClientRequest<'_>]) -> Result<(), usize> {
        let good = |&(client, message, mac): &ClientRequest<'_>| self.verify(client, message, mac);
        requests.iter().position(|request| !good(request)).map_or(Ok(()), Err)
    }

    /// Checks up to [`LANES`] requests side by side.
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    fn verify_lanes(&self, lanes: Vaes, group: &[ClientRequest<'_>]) -> Result<(), usize> {
        let [(_, last, _), _, ..] = group else {
            return self.verify_each(group);
        };
        let mut cache = self.cache.borrow_mut();
        let mut before = None;
        for (client, ..) in group {
            // Most requests follow another one of the same client.
            if before.replace(*client) != Some(*client) {
                let slot = &mut cache[*client as usize % CLIENT_KEY_CACHE_SLOTS];
                if !matches!(slot, Some((owner, _)) if owner == client) {
                    *slot = Some((*client, self.root.mac_key(*client)));
                }
            }
        }
        drop(cache);
        let cache = self.cache.borrow();
        // Spare lanes repeat the first message.
        let mut messages = [*last; LANES];
        let mut keys = [&[0; 32]; LANES];
        for (lane, (client, message, _)) in group.iter().enumerate() {
            messages[lane] = message;
            keys[lane] = match &cache[*client as usize % CLIENT_KEY_CACHE_SLOTS] {
                Some((owner, key)) if owner == client => {
                    key.aegis_bytes().expect("lanes are for AEGIS only")
                }
                // Two of these clients share a table entry.
                _ => {
                    drop(cache);
                    return self.verify_each(group);
                }
            };
        }
        let tags = lanes.tags16(&keys, &messages);
        drop(cache);
        match tags {
            Some(tags) => {
                let bad = |((_, _, mac), tag): (&ClientRequest<'_>, &[u8; 16])| !equal(tag, mac);
                group.iter().zip(&tags).position(bad).map_or(Ok(()), Err)
            }
            // Messages of different lengths.
            None => self.verify_each(group),
        }
    }
}

/// Client, message and MAC.
pub(crate) type ClientRequest<'a> = (u32, &'a [u8], &'a [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_side_by_side_get_the_tags_that_they_get_alone() {
        let text: Vec<u8> = (0..200).collect();
        for algorithm in MacAlgorithm::ALL {
            let key = GroupKey::from_bytes([9; 32]).client_key(algorithm, 3);
            for count in 0..=ClientKey::SIDE_BY_SIDE {
                for spread in [0, 1, 20] {
                    let messages: Vec<&[u8]> =
                        (0..count).map(|i| &text[i..][..40 + spread * i]).collect();
                    let tags = key.tags(&messages);
                    for (tag, message) in tags.iter().zip(&messages) {
                        assert_eq!(*tag, key.tag(message));
                    }
                }
            }
        }
    }

    #[test]
    fn clients_that_share_a_cache_slot_do_not_share_a_key() {
        let slots = CLIENT_KEY_CACHE_SLOTS as u32;
        let group_key = GroupKey::from_bytes([9; 32]);
        for algorithm in MacAlgorithm::ALL {
            let verifier = ClientVerifier::new(&group_key, algorithm);
            for _ in 0..3 {
                for client in [5, 5 + slots, u32::MAX, 0] {
                    let tag = group_key.client_key(algorithm, client).tag(b"request");
                    assert!(verifier.verify(client, b"request", &tag));
                    assert!(!verifier.verify(client ^ slots, b"request", &tag));
                    assert!(!verifier.verify(client, b"Request", &tag));
                }
            }
        }
    }

    /// All at once is the same as one by one, from any client and with any content.
    #[test]
    fn a_batch_is_good_if_every_request_is() {
        let group_key = GroupKey::from_bytes([3; 32]);
        for algorithm in MacAlgorithm::ALL {
            let verifier = ClientVerifier::new(&group_key, algorithm);
            for (count, odd) in (0..=20).flat_map(|count| [(count, 0), (count, 40)]) {
                // Two clients that share a slot, and messages of one length but for every fifth.
                let text = [7; 200];
                let messages: Vec<(u32, &[u8])> = (0..count)
                    .map(|i| {
                        let slots = CLIENT_KEY_CACHE_SLOTS as u32;
                        let length = if i % 5 == 4 { 44 + odd } else { 44 };
                        ((i as u32 % 3) * slots, &text[i..i + length])
                    })
                    .collect();
                let mut macs: Vec<[u8; 16]> = messages
                    .iter()
                    .map(|(client, m)| group_key.client_key(algorithm, *client).tag(m))
                    .collect();
                let check = |macs: &[[u8; 16]]| {
                    let requests: Vec<ClientRequest<'_>> =
                        messages.iter().zip(macs).map(|((c, m), mac)| (*c, *m, mac)).collect();
                    verifier.verify_batch(&requests)
                };
                assert_eq!(check(&macs), Ok(()));
                for bad in 0..count {
                    macs[bad][bad % 16] ^= 1 << (bad % 8);
                    assert_eq!(check(&macs), Err(bad), "{algorithm}, {bad} of {count}");
                    macs[bad][bad % 16] ^= 1 << (bad % 8);
                }
            }
        }
    }

    #[test]
    fn a_client_key_survives_its_key_file() {
        for algorithm in MacAlgorithm::ALL {
            let key = GroupKey::from_bytes([1; 32]).client_key(algorithm, 8);
            let again = ClientKey::from_bytes(algorithm, *key.expose_bytes());
            assert_eq!(again.tag(b"m"), key.tag(b"m"));
        }
    }
}
