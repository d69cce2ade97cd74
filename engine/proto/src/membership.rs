//! Who the members of an epoch are, and the change of members that an administrator may order.
//!
//! `engine/proto/EPOCHS.md` has the whole of it. Here is what all replicas must judge alike: the format of
//! a change, what may change, and the answer.
//!
//! ```text
//! RECONFIG, an operation of the administrator's client:
//!   | 1:u16 | 0:u16 | length:u32 | digest of the present configuration | next configuration … | signature |
//! next configuration:
//!   | 1:u16 | replicas:u16 | epoch:u32 | replicas × life:u64 | length:u32 | details … |
//! ```
//! The signature covers everything before it, behind the words `hybster reconfiguration, version 1` and a zero byte.

use bytes::Bytes;
use hybster_tss::{ClientPublicKey, ClientPublicKeys, ClientSigningKey, Digest, Life};

use crate::config::GroupConfig;
use crate::ids::{ClientId, OrderNumber, ReplicaId};
use crate::wire::{CheckpointId, Put, Reader, WireError};

/// Bytes of what only drivers know of the members (link keys, addresses), at most.
pub const MAX_DETAILS_BYTES: usize = 64 << 10;
/// What a signed change is signed for, so that the key's signature under anything else is none.
const PURPOSE: &[u8] = b"hybster reconfiguration, version 1\0";
const FORMAT: u16 = 1;
/// Bytes of a signature.
const SIGNATURE: usize = hybster_tss::SIGNATURE_BYTES;

/// Who may change the members of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Administrator {
    /// The client over whose sessions the changes come, and nothing else.
    pub client: ClientId,
    /// The key that they are signed with.
    pub key: ClientPublicKey,
}

/// What differs from one epoch to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The life of each replica; none at all means [`Life::FIRST`] for all of them.
    pub lives: Vec<Life>,
    /// Digest of what drivers know of the members beyond the group's first configuration; zeros if that is
    /// nothing.
    pub details: Digest,
    /// The digest of the group's first configuration, unless this is it.
    pub genesis: Option<Digest>,
    /// The checkpoint that the epoch begins with: its initial state.
    pub beginning: CheckpointId,
}

/// How an epoch ends: in the certified contents of its last CHECKPOINTs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// The last order number.
    pub boundary: OrderNumber,
    /// The digest of the next configuration, [`GroupConfig::constants_digest`].
    pub next: Digest,
}

/// A change that was ordered and has not come to its boundary: a part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it holds.
    pub ending: Ending,
    /// The next configuration.
    pub next: Bytes,
}

/// The configuration of an epoch as it is ordered: what may differ from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextConfiguration {
    /// Its epoch.
    pub epoch: u32,
    /// The life of each replica.
    pub lives: Vec<Life>,
    /// What drivers know of the members.
    pub details: Bytes,
}

impl NextConfiguration {
    /// The change in which one replica gets a new life.
    #[must_use]
    pub fn replacing(config: &GroupConfig, replica: ReplicaId, life: Life, details: Bytes) -> Self {
        let mut lives: Vec<Life> = config.all_replicas().map(|it| config.life_of(it)).collect();
        if let Some(of) = lives.get_mut(usize::from(replica.0)) {
            *of = life;
        }
        Self { epoch: config.epoch.saturating_add(1), lives, details }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(12 + 8 * self.lives.len() + self.details.len());
        out.put_u16(FORMAT);
        out.put_u16(self.lives.len() as u16);
        out.put_u32(self.epoch);
        self.lives.iter().for_each(|life| out.put_u64(life.0));
        out.put_u32(self.details.len() as u32);
        out.bytes(&self.details);
        out.into()
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u16()? != FORMAT {
            return Err(WireError::Unsupported("a configuration of another format"));
        }
        let replicas = reader.u16()?;
        let epoch = reader.u32()?;
        if usize::from(replicas) * 8 > reader.left() {
            return Err(WireError::Short);
        }
        let lives = (0..replicas).map(|_| reader.u64().map(Life)).collect::<Result<_, _>>()?;
        let length = reader.u32()? as usize;
        if length > MAX_DETAILS_BYTES {
            return Err(WireError::Field("details"));
        }
        let details = Bytes::copy_from_slice(reader.take(length)?);
        reader.end()?;
        Ok(Self { epoch, lives, details })
    }

    /// The constants of its epoch, which do not say yet with which checkpoint it begins.
    #[must_use]
    pub fn after(&self, config: &GroupConfig) -> GroupConfig {
        let membership = Membership {
            lives: self.lives.clone(),
            details: Digest::of(&self.details),
            genesis: Some(config.genesis()),
            beginning: CheckpointId::default(),
        };
        GroupConfig { epoch: self.epoch, membership, ..config.clone() }
    }

    /// Whether only one replica's life differs, and is new.
    fn is_permitted(&self, config: &GroupConfig) -> bool {
        if self.lives.len() != usize::from(config.replicas) {
            return false;
        }
        let of = |replica: ReplicaId| self.lives[usize::from(replica.0)];
        let mut changed = config.all_replicas().filter(|it| of(*it) != config.life_of(*it));
        let (Some(one), None) = (changed.next(), changed.next()) else { return false };
        let is_known = config.all_replicas().any(|it| config.life_of(it) == of(one));
        of(one) != Life::FIRST && !is_known
    }
}

/// An ordered change, as its operation has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconfig<'a> {
    /// The digest of the configuration that it changes, [`GroupConfig::constants_digest`].
    present: Digest,
    next: &'a [u8],
    signed: &'a [u8],
    signature: &'a [u8; SIGNATURE],
}

/// What the signature covers.
fn signed_text(signed: &[u8]) -> Vec<u8> {
    [PURPOSE, signed].concat()
}

/// The operation that orders a change, signed.
#[must_use]
pub fn reconfig(config: &GroupConfig, next: &NextConfiguration, key: &ClientSigningKey) -> Bytes {
    let next = next.encode();
    let mut out = Vec::with_capacity(40 + next.len() + SIGNATURE);
    out.put_u16(FORMAT);
    out.put_u16(0);
    out.put_u32(next.len() as u32);
    out.bytes(&config.constants_digest().0);
    out.bytes(&next);
    let signature = key.sign(&signed_text(&out));
    out.bytes(&signature);
    out.into()
}

impl<'a> Reconfig<'a> {
    fn parse(operation: &'a [u8]) -> Result<Self, WireError> {
        let (signed, signature) =
            operation.split_last_chunk::<SIGNATURE>().ok_or(WireError::Short)?;
        let mut reader = Reader::new(signed);
        if reader.u16()? != FORMAT {
            return Err(WireError::Unsupported("a change of another format"));
        }
        reader.zeros(2)?;
        let length = reader.u32()? as usize;
        let present = reader.digest()?;
        let next = reader.take(length)?;
        reader.end()?;
        Ok(Self { present, next, signed, signature })
    }
}

/// The answer to a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconfigReply {
    /// It is ordered, now or before, and holds from behind this order number on.
    Pending {
        /// The last order number of the present epoch.
        boundary: OrderNumber,
    },
    /// It cannot be read, or the signature is not the administrator's.
    Unsigned,
    /// It changes another configuration than that of this epoch.
    OtherEpoch {
        /// The present epoch.
        epoch: u32,
    },
    /// Another change is pending: one at a time.
    AnotherPending {
        /// The last order number before that one holds.
        boundary: OrderNumber,
    },
    /// It changes what may not be changed, or too much at once.
    NotPermitted,
}

impl ReconfigReply {
    /// Its bytes, a result.
    #[must_use]
    pub fn encode(self) -> [u8; 9] {
        let (code, number) = match self {
            Self::Pending { boundary } => (0, boundary.0),
            Self::Unsigned => (1, 0),
            Self::OtherEpoch { epoch } => (2, epoch.into()),
            Self::AnotherPending { boundary } => (3, boundary.0),
            Self::NotPermitted => (4, 0),
        };
        let mut bytes = [code; 9];
        bytes[1..].copy_from_slice(&u64::to_le_bytes(number));
        bytes
    }

    /// Reads a result.
    ///
    /// # Errors
    /// If it is none of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let (code, number) = (reader.u8()?, reader.u64()?);
        reader.end()?;
        Ok(match code {
            0 => Self::Pending { boundary: OrderNumber(number) },
            1 => Self::Unsigned,
            2 => Self::OtherEpoch {
                epoch: u32::try_from(number).map_err(|_| WireError::Field("epoch"))?,
            },
            3 => Self::AnotherPending { boundary: OrderNumber(number) },
            4 => Self::NotPermitted,
            _ => return Err(WireError::Field("answer")),
        })
    }
}

/// Judges a change that is executed at `order`, where `pending` has not come to its boundary. Returns the answer, and what
/// is pending from now on if that is another change.
pub(crate) fn judge(
    config: &GroupConfig,
    pending: Option<&Change>,
    order: OrderNumber,
    operation: &[u8],
) -> (ReconfigReply, Option<Change>) {
    let refused = |why| (why, None);
    let Some(administrator) = &config.administrator else {
        return refused(ReconfigReply::Unsigned);
    };
    let Ok(change) = Reconfig::parse(operation) else { return refused(ReconfigReply::Unsigned) };
    let keys = ClientPublicKeys::new([(administrator.client.0, administrator.key)]);
    let text = signed_text(change.signed);
    if !keys.verify(administrator.client.0, &text, change.signature) {
        return refused(ReconfigReply::Unsigned);
    }
    if change.present != config.constants_digest() {
        return refused(ReconfigReply::OtherEpoch { epoch: config.epoch });
    }
    let Ok(next) = NextConfiguration::parse(change.next) else {
        return refused(ReconfigReply::NotPermitted);
    };
    if let Some(Change { ending, next: known }) = pending {
        let boundary = ending.boundary;
        if known == change.next {
            return refused(ReconfigReply::Pending { boundary });
        }
        if !crate::mutants::active(crate::mutants::Mutant::ChangesUnlimited) {
            return refused(ReconfigReply::AnotherPending { boundary });
        }
    }
    let is_next = config.epoch.checked_add(1) == Some(next.epoch);
    if !is_next || !next.is_permitted(config) {
        return refused(ReconfigReply::NotPermitted);
    }
    let boundary = config.boundary_after(order);
    let ending = Ending { boundary, next: next.after(config).constants_digest() };
    let next = Bytes::copy_from_slice(change.next);
    (ReconfigReply::Pending { boundary }, Some(Change { ending, next }))
}

impl Change {
    /// Appends it to a page of the state.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        self.ending.put(out);
        out.put_u32(self.next.len() as u32);
        out.bytes(&self.next);
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let ending = Ending::read(reader)?.ok_or(WireError::Field("boundary"))?;
        let length = reader.u32()? as usize;
        let next = Bytes::copy_from_slice(reader.take(length)?);
        NextConfiguration::parse(&next)?;
        Ok(Self { ending, next })
    }
}

impl Ending {
    /// Bytes of an ending, or of none.
    pub const BYTES: usize = 40;

    /// The bytes of an ending; zeros for none.
    #[must_use]
    pub fn encode(it: Option<&Self>) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        if let Some(Self { boundary, next }) = it {
            out[..8].copy_from_slice(&boundary.0.to_le_bytes());
            out[8..].copy_from_slice(&next.0);
        }
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.bytes(&Self::encode(Some(self)));
    }

    /// Reads an ending, or that there is none.
    ///
    /// # Errors
    /// If there is half of one.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let (boundary, next) = (reader.order()?, reader.digest()?);
        match (boundary, next == Digest::default()) {
            (OrderNumber(0), true) => Ok(None),
            (OrderNumber(0), false) => Err(WireError::Field("boundary")),
            _ => Ok(Some(Self { boundary, next })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;

    fn key() -> ClientSigningKey {
        ClientSigningKey::from_bytes([5; 32])
    }

    fn config() -> GroupConfig {
        let administrator = Administrator { client: ClientId(7), key: key().public() };
        GroupConfig { administrator: Some(administrator), ..GroupConfig::default() }
    }

    fn change(config: &GroupConfig, replica: u16, life: u64) -> NextConfiguration {
        let details = Bytes::from_static(b"where it is");
        NextConfiguration::replacing(config, ReplicaId(replica), Life(life), details)
    }

    fn answer(pending: Option<&Change>, operation: &[u8]) -> ReconfigReply {
        judge(&config(), pending, OrderNumber(300), operation).0
    }

    #[test]
    fn a_change_is_pending_to_a_checkpoint_a_window_away() {
        let config = config();
        let next = change(&config, 1, 9);
        let operation = reconfig(&config, &next, &key());
        let (reply, pending) = judge(&config, None, OrderNumber(300), &operation);
        // 300 + 1024, rounded up to a multiple of 256.
        assert_eq!(reply, ReconfigReply::Pending { boundary: OrderNumber(1536) });
        let pending = pending.unwrap();
        let after = next.after(&config);
        assert_eq!(pending.ending.next, after.constants_digest());
        assert_eq!((after.epoch, after.life_of(ReplicaId(1))), (1, Life(9)));
        assert_eq!((after.genesis(), config.genesis()), (config.digest(), config.digest()));
        assert_ne!(after.digest(), config.digest());
        // Ordered again, it is the same one; another has to wait.
        assert_eq!(answer(Some(&pending), &operation), reply);
        let other = reconfig(&config, &change(&config, 2, 9), &key());
        let boundary = OrderNumber(1536);
        assert_eq!(answer(Some(&pending), &other), ReconfigReply::AnotherPending { boundary });
        // In the next epoch it has no meaning.
        let reply = judge(&after, None, OrderNumber(2000), &operation).0;
        assert_eq!(reply, ReconfigReply::OtherEpoch { epoch: 1 });
        // An order number that is a checkpoint already is not rounded.
        let boundary = judge(&config, None, OrderNumber(512), &operation).0;
        assert_eq!(boundary, ReconfigReply::Pending { boundary: OrderNumber(1536) });
    }

    #[test]
    fn a_second_change_is_refused_by_one_rule() {
        let config = config();
        let first = reconfig(&config, &change(&config, 1, 9), &key());
        let pending = judge(&config, None, OrderNumber(1), &first).1;
        let other = reconfig(&config, &change(&config, 2, 9), &key());
        let second = || judge(&config, pending.as_ref(), OrderNumber(600), &other).1;
        assert_eq!(second(), None);
        let _ = mutants::Mutant::ChangesUnlimited;
    }

    #[test]
    fn what_is_not_the_administrators_is_refused() {
        let config = config();
        let next = change(&config, 1, 9);
        let good = reconfig(&config, &next, &key());
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] ^= 1;
            assert_eq!(answer(None, &changed), ReconfigReply::Unsigned, "byte {at}");
            assert_eq!(answer(None, &good[..at]), ReconfigReply::Unsigned);
        }
        let other = reconfig(&config, &next, &ClientSigningKey::from_bytes([6; 32]));
        assert_eq!(answer(None, &other), ReconfigReply::Unsigned);
        let nobody = GroupConfig { administrator: None, ..config };
        assert_eq!(
            judge(&nobody, None, OrderNumber(1), &good).0,
            ReconfigReply::Unsigned,
            "a group without an administrator changes never"
        );
    }

    #[test]
    fn only_one_life_may_change_and_only_to_a_new_one() {
        let config = config();
        let signed = |next: &NextConfiguration| answer(None, &reconfig(&config, next, &key()));
        let good = change(&config, 1, 9);
        assert!(matches!(signed(&good), ReconfigReply::Pending { .. }));
        let mut two = good.clone();
        two.lives[2] = Life(8);
        let mut short = good.clone();
        short.lives.pop();
        let skips = NextConfiguration { epoch: 2, ..good.clone() };
        let none = change(&config, 1, 0);
        for bad in [two, short, skips, none] {
            assert_eq!(signed(&bad), ReconfigReply::NotPermitted, "{bad:?}");
        }
        // A life does not come back as another replica's.
        let after = good.after(&config);
        let again = reconfig(&after, &change(&after, 2, 9), &key());
        let reply = judge(&after, None, OrderNumber(1), &again).0;
        assert_eq!(reply, ReconfigReply::NotPermitted);
    }

    #[test]
    fn formats_survive_the_round_trip_and_are_pinned() {
        let config = config();
        let next = change(&config, 1, 9);
        assert_eq!(NextConfiguration::parse(&next.encode()).unwrap(), next);
        let pinned = "01000300010000000000000000000000090000000000000000000000000000000b000000";
        let hex: String = next.encode()[..36].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, pinned);
        let boundary = OrderNumber(1536);
        for reply in [
            ReconfigReply::Pending { boundary },
            ReconfigReply::Unsigned,
            ReconfigReply::OtherEpoch { epoch: 3 },
            ReconfigReply::AnotherPending { boundary },
            ReconfigReply::NotPermitted,
        ] {
            assert_eq!(ReconfigReply::parse(&reply.encode()).unwrap(), reply);
        }
        let ending = Ending { boundary, next: Digest([3; 32]) };
        let put = Change { ending, next: next.encode() };
        let mut page = Vec::new();
        put.put(&mut page);
        assert_eq!(Change::read(&mut Reader::new(&page)).unwrap(), put);
        let half = [0; 8].into_iter().chain([3; 32]).collect::<Vec<u8>>();
        assert!(Ending::read(&mut Reader::new(&half)).is_err());
        assert_eq!(Ending::read(&mut Reader::new(&[0; 40])), Ok(None));
    }
}
