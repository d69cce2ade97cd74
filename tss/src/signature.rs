//! Signed client requests: one Ed25519 signature per request (the form of the TR), beside the
//! trusted MAC.
//!
//! # The trade-off
//! A trusted MAC ([`client_mac`](crate::client_mac)) costs tens of nanoseconds, but rests on the
//! *confidentiality* of the group key at all TrInX instances: with it, requests of every client can
//! be forged. A signature rests on the client's own key alone, which no replica has, so a leaked
//! group key forges no request. It costs some hundred times the CPU: see the figures below. The
//! group file chooses ([`RequestAuthenticator`]). The certificates of TrInX need the group key
//! either way: signatures protect clients from a leak, but not the order of their requests.
//!
//! # Why ZIP 215
//! A request that one correct replica accepts must be accepted by all, alone or in a batch;
//! otherwise a faulty client splits the group. Ed25519 as in RFC 8032 does not guarantee that. It
//! allows two equations, with and without the cofactor, which disagree about signatures that have a
//! component of small order. A batch can only be checked with the cofactor: without it, such a
//! signature passes or fails depending on the coefficients. `ed25519-dalek` uses no cofactor in
//! either, so its batches now and then accept a signature that it refuses alone.
//!
//! [ZIP 215](https://zips.z.cash/zip-0215) fixes one equation, `[8][s]B = [8]R + [8][k]A`, and
//! which encodings are points; `ed25519-zebra` implements it for both. Signatures that are good
//! alone are certainly good together. One that is bad alone makes its batch bad, except with a
//! probability of 2⁻¹²⁸ over the coefficients.
//!
//! The coefficients are not random but BLAKE3 of everything that is checked: each signature is
//! fixed before a coefficient is known, and the core stays deterministic.
//!
//! # What it costs
//! Microseconds per request of 24 bytes (`cargo bench -p hybster-perf --bench macs -- signature`, 2
//! vCPU of an AMD EPYC that did other work beside it, so rather too much). To sign takes 17, to
//! check one 35, and in a batch of
//!
//! | requests                    |   32 |  128 |  512 |
//! |-----------------------------|-----:|-----:|-----:|
//! | of one client               | 10.2 |  8.4 |  7.3 |
//! | of as many clients as these | 21.5 | 16.0 | 15.1 |

use alloc::{boxed::Box, vec::Vec};
use core::{convert::Infallible, fmt, str::FromStr};

use blake3::{Hasher, OutputReader};
use ed25519_zebra::{Signature, SigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use thiserror::Error;
use zeroize::Zeroize;

use crate::{
    client_mac::ClientKey,
    digest::{Digest, write_hex},
    keys::{RandomSourceError, fill_random},
};

/// Length of a signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// The form of the proof that a request comes from its client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum RequestAuthenticator {
    /// One trusted MAC under a key that the client shares with all TrInX instances.
    #[default]
    Mac,
    /// One Ed25519 signature.
    Ed25519,
}

impl RequestAuthenticator {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Mac, Self::Ed25519];

    /// The name in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl fmt::Display for RequestAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RequestAuthenticator {
    type Err = UnknownRequestAuthenticator;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or(UnknownRequestAuthenticator)
    }
}

/// A name that no request authenticator has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("no such request authenticator: write \"mac\" or \"ed25519\"")]
pub struct UnknownRequestAuthenticator;

/// The key with which one client proves its requests, in either form.
#[derive(Clone, Debug)]
pub enum RequestKey {
    /// For trusted MACs.
    Mac(ClientKey),
    /// For signatures.
    Ed25519(ClientSigningKey),
}

impl RequestKey {
    /// The form of its proofs.
    pub fn authenticator(&self) -> RequestAuthenticator {
        match self {
            Self::Mac(_) => RequestAuthenticator::Mac,
            Self::Ed25519(_) => RequestAuthenticator::Ed25519,
        }
    }

    /// The key that checks its signatures; `None` for MACs.
    pub fn public(&self) -> Option<ClientPublicKey> {
        match self {
            Self::Mac(_) => None,
            Self::Ed25519(key) => Some(key.public()),
        }
    }

    /// The bytes themselves, for the client's key file.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Mac(key) => key.expose_bytes(),
            Self::Ed25519(key) => key.expose_bytes(),
        }
    }
}

impl From<ClientKey> for RequestKey {
    fn from(key: ClientKey) -> Self {
        Self::Mac(key)
    }
}

impl From<ClientSigningKey> for RequestKey {
    fn from(key: ClientSigningKey) -> Self {
        Self::Ed25519(key)
    }
}

/// The private key with which a client signs its requests, in one group and for no other purpose.
#[derive(Clone)]
pub struct ClientSigningKey(SigningKey);

impl ClientSigningKey {
    /// A new key from the random source of the operating system.
    ///
    /// # Errors
    /// If the random source fails.
    pub fn generate() -> Result<Self, RandomSourceError> {
        let mut seed = [0; 32];
        fill_random(&mut seed)?;
        let key = Self::from_bytes(seed);
        seed.zeroize();
        Ok(key)
    }

    /// The key with this seed (RFC 8032, section 5.1.5). It must come from a good random source.
    pub fn from_bytes(mut seed: [u8; 32]) -> Self {
        let key = Self(SigningKey::from(seed));
        seed.zeroize();
        key
    }

    /// The seed, for the client's key file.
    pub fn expose_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half, for the group file.
    pub fn public(&self) -> ClientPublicKey {
        ClientPublicKey(VerificationKeyBytes::from(&self.0).into())
    }

    /// The signature of a request; the same for the same bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl Drop for ClientSigningKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ClientSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSigningKey({}, ..)", self.public())
    }
}

/// The public key that checks a client's signatures: the encoding of a point.
///
/// Written as 64 hexadecimal digits. Points of small order are allowed: a client that publishes one
/// lets anybody sign in its name, but all replicas agree on the result.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientPublicKey([u8; 32]);

impl ClientPublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    /// If they are not the encoding of a point.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, NoPublicKey> {
        VerificationKey::try_from(bytes).map(|_| Self(bytes)).map_err(|_| NoPublicKey)
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ClientPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ClientPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientPublicKey({self})")
    }
}

/// 32 bytes that are not a public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("these 32 bytes are not the encoding of an Ed25519 public key")]
pub struct NoPublicKey;

/// The public keys of a group's clients, ready for use: decoded once, shared by all verifiers of a
/// replica. About 200 bytes per client.
#[derive(Clone, Default)]
pub struct ClientPublicKeys(Box<[(u32, VerificationKey)]>);

impl ClientPublicKeys {
    /// The keys of these clients. Of several for one client, the first counts.
    pub fn new(keys: impl IntoIterator<Item = (u32, ClientPublicKey)>) -> Self {
        let decoded = |(client, key): (u32, ClientPublicKey)| {
            VerificationKey::try_from(key.0).ok().map(|key| (client, key))
        };
        let mut keys: Vec<_> = keys.into_iter().filter_map(decoded).collect();
        keys.sort_by_key(|(client, _)| *client);
        keys.dedup_by_key(|(client, _)| *client);
        Self(keys.into_boxed_slice())
    }

    /// The digest that stands for all of them in the configuration of a group: replicas that
    /// disagree on a client's key must not meet in one group.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new_derive_key("hybster-tss v1 client public keys");
        for (client, key) in &self.0 {
            hasher.update(&client.to_le_bytes()).update(key.as_ref());
        }
        Digest(*hasher.finalize().as_bytes())
    }

    /// Whether `signature` is the client's for `message`.
    #[must_use]
    pub fn verify(&self, client: u32, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.key(client)
            .is_some_and(|key| key.verify(&Signature::from_bytes(signature), message).is_ok())
    }

    /// Whether every one of the requests, given as (client, message, signature), is its client's:
    /// the same as [`verify`](Self::verify) for each of them, in less time. `ed25519-zebra` decodes
    /// each client's key once per batch, however many requests of the batch are the client's.
    #[must_use]
    pub fn verify_batch(&self, requests: &[SignedRequest<'_>]) -> bool {
        if let &[(client, message, signature)] = requests {
            return self.verify(client, message, signature);
        }
        let mut batch = batch::Verifier::new();
        let mut hasher = Hasher::new_derive_key("hybster-tss v1 batch of signatures");
        for &(client, message, signature) in requests {
            let Some(key) = self.key(client) else { return false };
            hasher.update(key.as_ref()).update(signature);
            hasher.update(&(message.len() as u64).to_le_bytes()).update(message);
            batch.queue((
                VerificationKeyBytes::from(*key),
                Signature::from_bytes(signature),
                message,
            ));
        }
        batch.verify(Coefficients(hasher.finalize_xof())).is_ok()
    }

    fn key(&self, client: u32) -> Option<&VerificationKey> {
        let at = self.0.binary_search_by_key(&client, |(client, _)| *client).ok()?;
        Some(&self.0[at].1)
    }
}

impl fmt::Debug for ClientPublicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientPublicKeys({} clients)", self.0.len())
    }
}

/// Client, message and signature.
pub type SignedRequest<'a> = (u32, &'a [u8], &'a [u8; SIGNATURE_BYTES]);

/// The output of BLAKE3 over the whole content of a batch.
struct Coefficients(OutputReader);

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString, vec};

    use curve25519_dalek::{
        constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION},
        scalar::Scalar,
    };
    use sha2::{Digest as _, Sha512};

    use super::*;

    fn key(client: u32) -> ClientSigningKey {
        ClientSigningKey::from_bytes([client as u8 + 1; 32])
    }

    fn keys(clients: u32) -> ClientPublicKeys {
        ClientPublicKeys::new((0..clients).rev().map(|client| (client, key(client).public())))
    }

    #[test]
    fn a_signature_is_its_clients_for_its_message_only() {
        let keys = keys(3);
        let signature = key(1).sign(b"request");
        assert!(keys.verify(1, b"request", &signature));
        assert!(!keys.verify(2, b"request", &signature));
        assert!(!keys.verify(3, b"request", &signature), "no client of the group");
        assert!(!keys.verify(1, b"Request", &signature));
        for bit in 0..8 * SIGNATURE_BYTES {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!keys.verify(1, b"request", &flipped), "bit {bit}");
        }
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&seed[2 * at..][..2], 16).unwrap();
        }
        let key = ClientSigningKey::from_bytes(bytes);
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.public().to_string(), public);
        assert_eq!(key.sign(&[0x72])[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert_eq!(key.expose_bytes(), &bytes);
        assert!(!format!("{key:?}").contains(&seed[..8]));
    }

    #[test]
    fn a_batch_is_good_if_every_request_is() {
        let keys = keys(4);
        for count in [0, 1, 2, 3, 33, 200] {
            let text: Vec<u8> = (0..count as u8 + 40).collect();
            let messages: Vec<_> = (0..count).map(|i| (i as u32 % 4, &text[i..i + 30])).collect();
            let mut signatures: Vec<_> = messages.iter().map(|(c, m)| key(*c).sign(m)).collect();
            let check = |signatures: &[[u8; 64]]| {
                let of = |((c, m), s): (&(u32, _), _)| (*c, *m, s);
                let requests: Vec<SignedRequest<'_>> =
                    messages.iter().zip(signatures).map(of).collect();
                keys.verify_batch(&requests)
            };
            assert!(check(&signatures), "{count}");
            for bad in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|_| count > 0) {
                for byte in [0, 40, 63] {
                    signatures[bad][byte] ^= 1;
                    assert!(!check(&signatures), "{bad} of {count}");
                    signatures[bad][byte] ^= 1;
                }
            }
            if count > 2 {
                // Both are signatures, but not of these.
                signatures.swap(0, 1);
                assert!(!check(&signatures));
            }
        }
        let signature = key(9).sign(b"m");
        let good = (1, &b"m"[..], &key(1).sign(b"m"));
        assert!(!keys.verify_batch(&[good, (9, b"m", &signature)]), "no client of the group");
    }

    /// A signature of a client with the seed of `key`, with points of small order added to its key
    /// and to R.
    fn with_small_order(
        seed: u8,
        key_part: usize,
        r_part: usize,
        message: &[u8],
    ) -> (ClientPublicKey, [u8; SIGNATURE_BYTES]) {
        let (a, r) = (Scalar::from(u64::from(seed) + 77), Scalar::from(u64::from(seed) + 1234));
        let public = (&a * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[key_part]).compress();
        let commitment = (&r * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[r_part]).compress();
        let mut hasher = Sha512::new();
        hasher.update(commitment.as_bytes());
        hasher.update(public.as_bytes());
        hasher.update(message);
        let k = Scalar::from_bytes_mod_order_wide(&hasher.finalize().into());
        let mut signature = [0; SIGNATURE_BYTES];
        signature[..32].copy_from_slice(commitment.as_bytes());
        signature[32..].copy_from_slice((r + k * a).as_bytes());
        (ClientPublicKey(public.to_bytes()), signature)
    }

    /// What a faulty client does to split a group: without the cofactor most of these are bad
    /// alone, and in a batch they pass or not by luck. Here each is good, alone and in any company.
    #[test]
    fn parts_of_small_order_make_no_difference_between_one_and_many() {
        let honest = (9, key(9).public());
        let right = key(9).sign(b"honest");
        for key_part in 0..8 {
            for r_part in 0..8 {
                let crafted: Vec<_> =
                    (0..5).map(|seed| with_small_order(seed, key_part, r_part, b"m")).collect();
                let public = crafted.iter().enumerate().map(|(i, (key, _))| (i as u32, *key));
                let keys = ClientPublicKeys::new(public.chain([honest]));
                let mut batch: Vec<SignedRequest<'_>> = vec![(9, b"honest", &right)];
                for (client, (_, signature)) in crafted.iter().enumerate() {
                    let client = client as u32;
                    assert!(keys.verify(client, b"m", signature), "{key_part} {r_part}");
                    batch.push((client, b"m", signature));
                    assert!(keys.verify_batch(&batch), "{key_part} {r_part}");
                    // What is bad stays so.
                    assert!(!keys.verify(client, b"n", signature));
                    batch[0].1 = b"Honest";
                    assert!(!keys.verify_batch(&batch));
                    batch[0].1 = b"honest";
                }
            }
        }
    }

    /// A scalar that is not reduced names the same number: it must be refused alone and in a batch.
    #[test]
    fn a_second_encoding_of_a_signature_is_refused() {
        let keys = keys(2);
        let right = key(0).sign(b"m");
        let mut order = (-Scalar::ONE).to_bytes();
        order[0] += 1;
        let (mut wrong, mut carry) = (right, 0);
        for (byte, add) in wrong[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        let other = key(1).sign(b"m");
        assert!(keys.verify_batch(&[(0, b"m", &right), (1, b"m", &other)]));
        assert!(!keys.verify(0, b"m", &wrong));
        assert!(!keys.verify_batch(&[(0, b"m", &wrong), (1, b"m", &other)]));
    }

    #[test]
    fn bytes_that_are_no_point_are_no_key_and_the_digest_names_every_key() {
        let mut bytes = [0; 32];
        let refused = (0..=255).filter(|first| {
            bytes[0] = *first;
            ClientPublicKey::from_bytes(bytes).is_err()
        });
        assert!(refused.count() > 64);
        let digest = keys(3).digest();
        assert_ne!(digest, keys(2).digest());
        let swapped = [(0, key(1).public()), (1, key(0).public()), (2, key(2).public())];
        assert_ne!(digest, ClientPublicKeys::new(swapped).digest());
    }

    #[test]
    fn names_survive_the_round_trip() {
        for one in RequestAuthenticator::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
        let error = "rot13".parse::<RequestAuthenticator>().unwrap_err();
        assert!(error.to_string().contains("ed25519"));
    }
}
