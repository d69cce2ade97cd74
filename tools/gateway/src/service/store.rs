//! The keys and what they have, in pages.
//!
//! - `keys`: space u32 | hash u64 | key → an [`Entry`]. A database has a *space*; one that is flushed gets
//!   another, and what is in the old one is taken away later, some of it in each operation.
//! - `elements`: collection u64 | what the kind of the collection has there → bytes. A key that is deleted
//!   leaves its elements, which are taken away later as well.
//! - `expiries`: time u64 | space u32 | key → nothing. What is due is deleted at the beginning of each operation.
//!
//! In front of keys, fields and members is their hash, so that the maps are in an order in which a cursor of
//! SCAN is a number, and in which any place is as likely as another.

use std::borrow::Borrow;
use std::collections::VecDeque;

use hybster::paged::{Paged, PagedCell, PagedMap};
use hybster::typed::Message;

/// Databases that SELECT knows.
pub(crate) const DATABASES: u8 = 16;
/// Entries that are taken away in one operation, at most, besides those that it deletes itself.
const SWEPT: usize = 1_000;

/// Bytes as a key or value of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub(super) Box<[u8]>);

impl Message for Name {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.into()))
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A string.
    Text(Box<[u8]>),
    /// A hash: fields and their values are elements.
    Hash(Collection),
    /// A list, whose elements have the indices from `first` on.
    List {
        /// Where the elements are, and how many.
        elements: Collection,
        /// The index of the first.
        first: i64,
    },
    /// A set.
    Set(Collection),
    /// A sorted set: each member is there twice, by name and by score.
    Sorted(Collection),
}

/// Where the elements of a key are, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Collection {
    pub(super) id: u64,
    pub(super) len: u64,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Hash,
    List,
    Set,
    Sorted,
}

impl Kind {
    /// As TYPE answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::Sorted => "zset",
        }
    }

    /// An empty value of this kind.
    pub(super) fn empty(self, id: u64) -> Value {
        let elements = Collection { id, len: 0 };
        match self {
            Self::Text => Value::Text(Box::default()),
            Self::Hash => Value::Hash(elements),
            Self::List => Value::List { elements, first: 0 },
            Self::Set => Value::Set(elements),
            Self::Sorted => Value::Sorted(elements),
        }
    }
}

impl Value {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Hash(_) => Kind::Hash,
            Self::List { .. } => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Sorted(_) => Kind::Sorted,
        }
    }

    pub(super) const fn collection(&self) -> Option<Collection> {
        match self {
            Self::Text(_) => None,
            Self::Hash(elements) | Self::Set(elements) | Self::Sorted(elements) => Some(*elements),
            Self::List { elements, .. } => Some(*elements),
        }
    }

    pub(super) const fn collection_mut(&mut self) -> Option<&mut Collection> {
        match self {
            Self::Text(_) => None,
            Self::Hash(elements) | Self::Set(elements) | Self::Sorted(elements) => Some(elements),
            Self::List { elements, .. } => Some(elements),
        }
    }
}

/// A key's value, with what belongs to every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it ends, in milliseconds since the Unix epoch; 0 for never.
    pub(crate) expires_ms: u64,
    /// The number of the command that changed it last, for WATCH.
    pub(crate) version: u64,
    pub(crate) value: Value,
}

impl Entry {
    pub(super) const fn is_over(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }
}

impl Message for Entry {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.expires_ms.to_le_bytes());
        into.extend_from_slice(&self.version.to_le_bytes());
        let collection = |into: &mut Vec<u8>, kind: u8, elements: &Collection| {
            into.push(kind);
            into.extend_from_slice(&elements.id.to_le_bytes());
            into.extend_from_slice(&elements.len.to_le_bytes());
        };
        match &self.value {
            Value::Text(text) => {
                into.push(0);
                into.extend_from_slice(text);
            }
            Value::Hash(elements) => collection(into, 1, elements),
            Value::List { elements, first } => {
                collection(into, 2, elements);
                into.extend_from_slice(&first.to_le_bytes());
            }
            Value::Set(elements) => collection(into, 3, elements),
            Value::Sorted(elements) => collection(into, 4, elements),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (expires_ms, version) = (number(0)?, number(8)?);
        let kind = *bytes.get(16)?;
        if kind == 0 {
            let value = Value::Text(bytes[17..].into());
            return Some(Self { expires_ms, version, value });
        }
        let elements = Collection { id: number(17)?, len: number(25)? };
        let value = match kind {
            1 => Value::Hash(elements),
            2 => Value::List { elements, first: number(33)?.cast_signed() },
            3 => Value::Set(elements),
            4 => Value::Sorted(elements),
            _ => return None,
        };
        Some(Self { expires_ms, version, value })
    }
}

/// What the maps do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Commands that were executed: the version of what the present one changes.
    pub(super) commands: u64,
    /// The agreed time of the last operation.
    pub(super) time_ms: u64,
    next_collection: u64,
    next_space: u32,
    /// The space of each database, and how many keys it has.
    pub(super) databases: Vec<(u32, u64)>,
    /// Collections and spaces that nobody uses any more.
    unused: VecDeque<u64>,
    flushed: VecDeque<u32>,
}

impl Message for Ledger {
    fn encode(&self, into: &mut Vec<u8>) {
        let mut put = |value: u64| into.extend_from_slice(&value.to_le_bytes());
        put(self.commands);
        put(self.time_ms);
        put(self.next_collection);
        put(self.next_space.into());
        put(self.databases.len() as u64);
        for (space, keys) in &self.databases {
            put((*space).into());
            put(*keys);
        }
        put(self.unused.len() as u64);
        self.unused.iter().for_each(|id| put(*id));
        put(self.flushed.len() as u64);
        self.flushed.iter().for_each(|space| put((*space).into()));
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut take = || {
            let (first, rest) = bytes.split_first_chunk::<8>()?;
            bytes = rest;
            Some(u64::from_le_bytes(*first))
        };
        let (commands, time_ms, next_collection) = (take()?, take()?, take()?);
        let next_space = u32::try_from(take()?).ok()?;
        let mut databases = Vec::new();
        for _ in 0..take()?.min(u64::from(DATABASES)) {
            databases.push((u32::try_from(take()?).ok()?, take()?));
        }
        let mut unused = VecDeque::new();
        for _ in 0..take()? {
            unused.push_back(take()?);
        }
        let mut flushed = VecDeque::new();
        for _ in 0..take()? {
            flushed.push_back(u32::try_from(take()?).ok()?);
        }
        let is_right = bytes.is_empty() && databases.len() == usize::from(DATABASES);
        let ledger =
            Self { commands, time_ms, next_collection, next_space, databases, unused, flushed };
        is_right.then_some(ledger)
    }
}

/// The whole state.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) keys: PagedMap<Name, Entry>,
    pub(super) elements: PagedMap<Name, Name>,
    pub(super) expiries: PagedMap<Name, Name>,
    pub(super) ledger: PagedCell<Ledger>,
}

impl Default for Store {
    fn default() -> Self {
        let ledger = Ledger {
            commands: 0,
            time_ms: 0,
            next_collection: 1,
            next_space: DATABASES.into(),
            databases: (0..DATABASES).map(|space| (space.into(), 0)).collect(),
            unused: VecDeque::new(),
            flushed: VecDeque::new(),
        };
        Self {
            keys: PagedMap::new(),
            elements: PagedMap::new(),
            expiries: PagedMap::new(),
            ledger: PagedCell::new(ledger),
        }
    }
}

impl Store {
    /// All parts, always in the same order.
    pub(super) fn parts(&mut self) -> [&mut dyn Paged; 4] {
        [&mut self.keys, &mut self.elements, &mut self.expiries, &mut self.ledger]
    }

    /// The number of the next collection.
    pub(super) fn new_collection(&mut self) -> u64 {
        let ledger = &mut *self.ledger;
        ledger.next_collection += 1;
        ledger.next_collection - 1
    }

    /// Takes a key away, with everything that belongs to it.
    pub(super) fn delete(&mut self, database: u8, key: &[u8]) -> Option<Entry> {
        let space = self.ledger.databases[usize::from(database)].0;
        let entry = self.keys.remove(&key_name(space, key)[..])?;
        self.let_go(space, key, &entry);
        self.ledger.databases[usize::from(database)].1 -= 1;
        Some(entry)
    }

    /// What belonged to an entry that is not there any more is taken away.
    pub(super) fn let_go(&mut self, space: u32, key: &[u8], entry: &Entry) {
        if entry.expires_ms != 0 {
            self.expiries.remove(&expiry_name(entry.expires_ms, space, key)[..]);
        }
        if let Some(elements) = entry.value.collection().filter(|elements| elements.len > 0) {
            self.ledger.unused.push_back(elements.id);
        }
    }

    /// Gives a database a space without keys.
    pub(super) fn flush(&mut self, database: u8) {
        let ledger = &mut *self.ledger;
        let (space, keys) = ledger.databases[usize::from(database)];
        if keys > 0 {
            ledger.flushed.push_back(space);
            ledger.databases[usize::from(database)] = (ledger.next_space, 0);
            ledger.next_space += 1;
        }
    }

    /// Deletes keys whose time is over, and some of what nobody uses any more.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.end_due(now_ms);
        let mut left = SWEPT;
        while left > 0
            && let Some(id) = self.ledger.unused.front().copied()
        {
            let found = beginning_with(&self.elements, &id.to_be_bytes(), left);
            if found.len() < left {
                self.ledger.unused.pop_front();
            }
            left = left.saturating_sub(found.len().max(1));
            found.iter().for_each(|name| drop(self.elements.remove(&name.0[..])));
        }
        while left > 0
            && let Some(space) = self.ledger.flushed.front().copied()
        {
            let found = beginning_with(&self.keys, &space.to_be_bytes(), left);
            if found.len() < left {
                self.ledger.flushed.pop_front();
            }
            left = left.saturating_sub(found.len().max(1));
            for name in found {
                if let Some(entry) = self.keys.remove(&name.0[..]) {
                    self.let_go(space, &name.0[KEY_HEAD..], &entry);
                }
            }
        }
    }

    fn end_due(&mut self, now_ms: u64) {
        for _ in 0..SWEPT {
            let Some((first, _)) = self.expiries.first() else { return };
            let Some((time, rest)) = first.0.split_first_chunk::<8>() else { return };
            if u64::from_be_bytes(*time) > now_ms {
                return;
            }
            let Some((space, key)) = rest.split_first_chunk::<4>() else { return };
            let (space, key) = (u32::from_be_bytes(*space), key.to_vec());
            self.expiries.pop_first();
            if let Some(entry) = self.keys.remove(&key_name(space, &key)[..]) {
                if let Some(elements) = entry.value.collection() {
                    self.ledger.unused.push_back(elements.id);
                }
                let mut databases = self.ledger.databases.iter_mut();
                if let Some((_, keys)) = databases.find(|(used, _)| *used == space) {
                    *keys -= 1;
                }
            }
        }
    }
}

/// The first names that begin with these bytes.
fn beginning_with<V>(map: &PagedMap<Name, V>, bytes: &[u8], most: usize) -> Vec<Name>
where
    V: Message + Clone + Send + Sync + 'static,
{
    let found = map.range::<Name, _>(Name::from(bytes)..).map(|(name, _)| name);
    found.take_while(|name| name.0.starts_with(bytes)).take(most).cloned().collect()
}

/// Bytes in front of a key.
pub(super) const KEY_HEAD: usize = 12;
/// Bytes in front of a field or member: the collection, one byte and the hash.
pub(super) const ELEMENT_HEAD: usize = 17;

/// The place of a key.
pub(super) fn key_name(space: u32, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(KEY_HEAD + key.len());
    name.extend_from_slice(&space.to_be_bytes());
    name.extend_from_slice(&hash(key).to_be_bytes());
    name.extend_from_slice(key);
    name
}

/// The place of a field of a hash, or a member of a set or sorted set.
pub(super) fn element_name(collection: u64, element: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(ELEMENT_HEAD + element.len());
    name.extend_from_slice(&collection.to_be_bytes());
    name.push(0);
    name.extend_from_slice(&hash(element).to_be_bytes());
    name.extend_from_slice(element);
    name
}

/// The place of the time at which a key ends.
pub(super) fn expiry_name(expires_ms: u64, space: u32, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(12 + key.len());
    name.extend_from_slice(&expires_ms.to_be_bytes());
    name.extend_from_slice(&space.to_be_bytes());
    name.extend_from_slice(key);
    name
}

/// Where a key or element is in the order of its map, never 0. Two may have the same: then they are in the
/// order of their bytes. It is part of the form of the state, so it must never change (FNV-1a, mixed).
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).max(1)
}
