//! Certificates, and the bytes that they certify.
//!
//! A certificate is the MAC of exactly [`CERTIFIED_BYTES`] bytes: a header of fixed length and
//! then the 32-byte digest of the message. No field has a variable length and none is left out, so
//! no two different statements have the same bytes, and no byte can move between header and body.
//!
//! ```text
//! offset  bytes  field                  independent    continuing     trusted MAC
//!      0      1  format version         2              2              2
//!      1      1  certificate kind       1              2              3
//!      2      2  replica
//!      4      2  pillar
//!      6      1  counter number         1 or 2         1 or 2         0
//!      7      1  previous-value mark    0 (the "-")    1              0
//!      8      4  epoch
//!     12      8  life
//!     20     16  new value              tv'            tv'            0
//!     36     16  previous value         0              tv             0
//!     52     32  group digest
//!     84     32  digest of the message
//! ```
//!
//! Numbers are little-endian. Each kind is computed under a key of its own, derived from the group
//! key, so a certificate of one kind could not pass for another even if the bytes were the same.
//!
//! Version 1 had four reserved bytes and no life. The 116 bytes are as many blocks of each
//! [`MacAlgorithm`](crate::MacAlgorithm) as its 112 were.
//!
//! Source: TR listing 10, lines 14 and 22; the fixed form, the kind, the group digest and the keys
//! per kind are ours (attacks on a published TrInX that lacked them are tests of this crate).

use core::fmt;

use crate::{
    counter::{Counter, CounterValue, InstanceId},
    digest::{Digest, write_hex},
};

/// The format version: the first byte of every certified header.
pub const FORMAT_VERSION: u8 = 2;

/// How many bytes a certificate certifies.
pub const CERTIFIED_BYTES: usize = 116;

/// The MAC in a certificate.
///
/// Equality is for tests and tables. Only a [`Verifier`](crate::Verifier) decides whether a proof
/// is *right*, and it compares in constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof(pub [u8; 32]);

impl Proof {
    /// Length of a proof in bytes.
    pub const BYTES: usize = 32;
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])?;
        f.write_str("…")
    }
}

/// States that `instance` bound one message, and no other ever, to `value` of `counter`
/// (TR listing 10, line 24).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IndependentCertificate {
    /// Who certified.
    pub instance: InstanceId,
    /// The counter that was used.
    pub counter: Counter,
    /// The value that the message has, and that of the counter afterwards.
    pub value: CounterValue,
    /// The MAC over all of this, the group digest and the digest of the message.
    pub proof: Proof,
}

/// States that `instance` moved `counter` from `previous` to `value` with this message
/// (TR listing 10, line 16). It reveals the last used value, so nothing before it can be hidden.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContinuingCertificate {
    /// Who certified.
    pub instance: InstanceId,
    /// The counter that was used.
    pub counter: Counter,
    /// The counter's value afterwards.
    pub value: CounterValue,
    /// The counter's value before.
    pub previous: CounterValue,
    /// The MAC over all of this, the group digest and the digest of the message.
    pub proof: Proof,
}

/// States that `instance` vouches for a message. It uses no counter, so it orders nothing and any
/// number of them may exist (the MAC `M` of the TR, used for checkpoints and acknowledgements).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrustedMac {
    /// Who vouches.
    pub instance: InstanceId,
    /// The MAC over the instance, the group digest and the digest of the message.
    pub proof: Proof,
}

impl IndependentCertificate {
    /// The bytes that `proof` must be the MAC of, for a message with this digest in this group.
    pub fn certified_bytes(&self, group: &Digest, digest: &Digest) -> [u8; CERTIFIED_BYTES] {
        independent_bytes(group, self.instance, self.counter, self.value, digest)
    }
}

impl ContinuingCertificate {
    /// The bytes that `proof` must be the MAC of, for a message with this digest in this group.
    pub fn certified_bytes(&self, group: &Digest, digest: &Digest) -> [u8; CERTIFIED_BYTES] {
        continuing_bytes(group, self.instance, self.counter, self.value, self.previous, digest)
    }
}

impl TrustedMac {
    /// The bytes that `proof` must be the MAC of, for a message with this digest in this group.
    pub fn certified_bytes(&self, group: &Digest, digest: &Digest) -> [u8; CERTIFIED_BYTES] {
        mac_bytes(group, self.instance, digest)
    }
}

/// The kinds of certificate. Their numbers are part of the certified bytes and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum CertificateKind {
    Independent = 1,
    Continuing = 2,
    Mac = 3,
}

pub(crate) fn independent_bytes(
    group: &Digest,
    instance: InstanceId,
    counter: Counter,
    value: CounterValue,
    digest: &Digest,
) -> [u8; CERTIFIED_BYTES] {
    let mut bytes = common_bytes(CertificateKind::Independent, group, instance, digest);
    bytes[6] = counter.wire();
    bytes[20..36].copy_from_slice(&value.as_u128().to_le_bytes());
    bytes
}

pub(crate) fn continuing_bytes(
    group: &Digest,
    instance: InstanceId,
    counter: Counter,
    value: CounterValue,
    previous: CounterValue,
    digest: &Digest,
) -> [u8; CERTIFIED_BYTES] {
    let mut bytes = common_bytes(CertificateKind::Continuing, group, instance, digest);
    bytes[6] = counter.wire();
    bytes[7] = 1; // A previous value of 0 is a value, and not the independent mark.
    bytes[20..36].copy_from_slice(&value.as_u128().to_le_bytes());
    bytes[36..52].copy_from_slice(&previous.as_u128().to_le_bytes());
    bytes
}

pub(crate) fn mac_bytes(
    group: &Digest,
    instance: InstanceId,
    digest: &Digest,
) -> [u8; CERTIFIED_BYTES] {
    common_bytes(CertificateKind::Mac, group, instance, digest)
}

fn common_bytes(
    kind: CertificateKind,
    group: &Digest,
    instance: InstanceId,
    digest: &Digest,
) -> [u8; CERTIFIED_BYTES] {
    let mut bytes = [0; CERTIFIED_BYTES];
    bytes[0] = FORMAT_VERSION;
    bytes[1] = kind as u8;
    bytes[2..4].copy_from_slice(&instance.replica.to_le_bytes());
    bytes[4..6].copy_from_slice(&instance.pillar.to_le_bytes());
    bytes[8..12].copy_from_slice(&instance.epoch.to_le_bytes());
    bytes[12..20].copy_from_slice(&instance.life.0.to_le_bytes());
    bytes[52..84].copy_from_slice(&group.0);
    bytes[84..116].copy_from_slice(&digest.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Life;

    const INSTANCE: InstanceId = InstanceId {
        replica: 0x0102,
        pillar: 0x0304,
        epoch: 0x0506_0708,
        life: Life(0x1112_1314_1516_1718),
    };
    const GROUP: Digest = Digest([0xaa; 32]);
    const DIGEST: Digest = Digest([0xbb; 32]);

    #[test]
    fn the_bytes_are_those_of_the_diagram() {
        let value = CounterValue::new(1, 2);
        let previous = CounterValue::new(0, 3);
        let bytes = continuing_bytes(&GROUP, INSTANCE, Counter::NewView, value, previous, &DIGEST);
        assert_eq!(bytes[..12], [2, 2, 2, 1, 4, 3, 2, 1, 8, 7, 6, 5]);
        assert_eq!(bytes[12..20], [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!(bytes[20..36], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[36..52], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[52..84], [0xaa; 32]);
        assert_eq!(bytes[84..], [0xbb; 32]);
    }

    #[test]
    fn kinds_never_share_bytes() {
        let zero = CounterValue::ZERO;
        let counter = Counter::Ordering;
        let independent = independent_bytes(&GROUP, INSTANCE, counter, zero, &DIGEST);
        let continuing = continuing_bytes(&GROUP, INSTANCE, counter, zero, zero, &DIGEST);
        let mac = mac_bytes(&GROUP, INSTANCE, &DIGEST);
        assert_ne!(independent, continuing);
        assert_ne!(independent, mac);
        assert_ne!(continuing, mac);
        assert_eq!((independent[7], continuing[7], mac[6]), (0, 1, 0));
    }
}
