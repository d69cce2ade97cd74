//! One database at one moment, to be read ([`View`]) and to be changed ([`Edit`]).

use std::cell::Cell;

use super::store::{
    Collection, ELEMENT_HEAD, Entry, Kind, Name, Store, Value, element_name, expiry_name, key_name,
};
use super::{Refusal, WRONG_TYPE};

/// A database to be read.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) database: u8,
    pub(super) space: u32,
    pub(super) now_ms: u64,
    /// Whether what was seen depends on the time. A query must not answer it then: agreed time passes only
    /// with operations.
    pub(super) is_timed: Cell<bool>,
}

impl<'a> View<'a> {
    pub(super) fn new(store: &'a Store, database: u8, now_ms: u64) -> Self {
        let space = store.ledger.databases[usize::from(database)].0;
        Self { store, database, space, now_ms, is_timed: Cell::new(false) }
    }

    /// What a key has, if it is there and its time is not over.
    pub(crate) fn entry(&self, key: &[u8]) -> Option<&'a Entry> {
        let entry = self.store.keys.get(&key_name(self.space, key)[..])?;
        self.is_there(entry).then_some(entry)
    }

    /// Whether the time of an entry is not over.
    pub(super) fn is_there(&self, entry: &Entry) -> bool {
        if entry.expires_ms != 0 {
            self.is_timed.set(true);
        }
        !entry.is_over(self.now_ms)
    }

    pub(crate) fn text(&self, key: &[u8]) -> Result<Option<&'a [u8]>, Refusal> {
        match self.entry(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The elements of a key, if it is there.
    pub(crate) fn collection(&self, key: &[u8], kind: Kind) -> Result<Option<Collection>, Refusal> {
        match self.entry(key) {
            None => Ok(None),
            Some(entry) if entry.value.kind() == kind => Ok(entry.value.collection()),
            Some(_) => Err(WRONG_TYPE),
        }
    }

    /// The value of a field, or of what a member has.
    pub(crate) fn element(&self, of: Collection, name: &[u8]) -> Option<&'a [u8]> {
        self.store.elements.get(&element_name(of.id, name)[..]).map(|value| &*value.0)
    }

    /// All fields and their values, or members and what they have, in the order of their hashes.
    pub(crate) fn elements(
        &self,
        of: Collection,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.elements_from(of, 0).map(|(_, name, value)| (name, value))
    }

    /// The same from a hash on, with their hashes.
    pub(crate) fn elements_from(
        &self,
        of: Collection,
        hash: u64,
    ) -> impl Iterator<Item = (u64, &'a [u8], &'a [u8])> + use<'a> {
        let mut from = [0; ELEMENT_HEAD];
        from[..8].copy_from_slice(&of.id.to_be_bytes());
        from[9..].copy_from_slice(&hash.to_be_bytes());
        let prefix: [u8; 9] = from[..9].try_into().unwrap_or_default();
        let from = Name::from(&from[..]);
        self.store
            .elements
            .range::<Name, _>(from..)
            .take_while(move |(name, _)| name.0.starts_with(&prefix))
            .map(|(name, value)| {
                let hash = name.0[9..ELEMENT_HEAD].try_into().map_or(0, u64::from_be_bytes);
                (hash, &name.0[ELEMENT_HEAD..], &*value.0)
            })
    }

    /// All keys from a hash on that are there, with their hashes.
    pub(crate) fn keys_from(
        &self,
        hash: u64,
    ) -> impl Iterator<Item = (u64, &'a [u8], &'a Entry)> + '_ {
        let mut from = self.space.to_be_bytes().to_vec();
        let prefix = from.clone();
        from.extend_from_slice(&hash.to_be_bytes());
        self.store
            .keys
            .range::<Name, _>(Name::from(&from[..])..)
            .take_while(move |(name, _)| name.0.starts_with(&prefix))
            .filter(|(_, entry)| self.is_there(entry))
            .map(|(name, entry)| {
                let hash = name.0[4..12].try_into().map_or(0, u64::from_be_bytes);
                (hash, &name.0[super::store::KEY_HEAD..], entry)
            })
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> u64 {
        self.store.ledger.databases[usize::from(self.database)].1
    }
}

/// A database to be changed by one command.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    pub(super) store: &'a mut Store,
    pub(super) database: u8,
    pub(super) now_ms: u64,
    /// A number that nobody could foresee.
    pub(super) random: u64,
}

impl Edit<'_> {
    pub(crate) fn view(&self) -> View<'_> {
        View::new(self.store, self.database, self.now_ms)
    }

    pub(super) fn space(&self) -> u32 {
        self.store.ledger.databases[usize::from(self.database)].0
    }

    /// Gives a key a value. `expires_ms` is 0 for no end.
    pub(crate) fn put(&mut self, key: &[u8], value: Value, expires_ms: u64) {
        let (space, version) = (self.space(), self.store.ledger.commands);
        let name = key_name(space, key);
        let entry = Entry { expires_ms, version, value };
        match self.store.keys.insert(Name(name.into()), entry) {
            Some(before) => self.store.let_go(space, key, &before),
            None => self.store.ledger.databases[usize::from(self.database)].1 += 1,
        }
        if expires_ms != 0 {
            let due = expiry_name(expires_ms, space, key);
            self.store.expiries.insert(Name(due.into()), Name(Box::default()));
        }
    }

    /// Gives a key a string; its time stays as it is.
    pub(crate) fn put_text(&mut self, key: &[u8], text: Vec<u8>) {
        let version = self.store.ledger.commands;
        let name = key_name(self.space(), key);
        let now_ms = self.now_ms;
        let text = text.into_boxed_slice();
        let mut kept = Some(text);
        self.store.keys.modify(&name[..], |entry| {
            if let Value::Text(before) = &mut entry.value
                && !(entry.expires_ms != 0 && entry.expires_ms <= now_ms)
                && let Some(text) = kept.take()
            {
                *before = text;
                entry.version = version;
            }
        });
        if let Some(text) = kept {
            self.put(key, Value::Text(text), 0);
        }
    }

    /// Takes a key away; whether it was there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> bool {
        let now_ms = self.now_ms;
        self.store.delete(self.database, key).is_some_and(|entry| !entry.is_over(now_ms))
    }

    /// Changes when a key ends, 0 for never; whether it is there.
    pub(crate) fn expire(&mut self, key: &[u8], expires_ms: u64) -> bool {
        if self.view().entry(key).is_none() {
            return false;
        }
        let (space, version) = (self.space(), self.store.ledger.commands);
        let before = self.store.keys.modify(&key_name(space, key)[..], |entry| {
            entry.version = version;
            std::mem::replace(&mut entry.expires_ms, expires_ms)
        });
        if let Some(before) = before.filter(|before| *before != 0) {
            self.store.expiries.remove(&expiry_name(before, space, key)[..]);
        }
        if expires_ms != 0 {
            let due = expiry_name(expires_ms, space, key);
            self.store.expiries.insert(Name(due.into()), Name(Box::default()));
        }
        true
    }

    /// The elements of a key, which gets an empty value of this kind if it has none. Whoever adds no element
    /// must call [`Self::settle`].
    pub(crate) fn collection(&mut self, key: &[u8], kind: Kind) -> Result<Collection, Refusal> {
        if let Some(found) = self.view().collection(key, kind)? {
            return Ok(found);
        }
        let id = self.store.new_collection();
        self.put(key, kind.empty(id), 0);
        Ok(Collection { id, len: 0 })
    }

    /// A key's elements have changed: their number is `len` now. A key without elements is taken away.
    pub(crate) fn settle(&mut self, key: &[u8], len: u64) {
        self.settle_with(key, len, |_| {});
    }

    /// As [`Self::settle`], and changes the value besides.
    pub(crate) fn settle_with(&mut self, key: &[u8], len: u64, change: impl FnOnce(&mut Value)) {
        let version = self.store.ledger.commands;
        let name = key_name(self.space(), key);
        self.store.keys.modify(&name[..], |entry| {
            entry.version = version;
            if let Some(elements) = entry.value.collection_mut() {
                elements.len = len;
            }
            change(&mut entry.value);
        });
        if len == 0 {
            self.store.delete(self.database, key);
        }
    }

    /// Gives a field or member a value; whether it is new.
    pub(crate) fn put_element(&mut self, of: Collection, name: &[u8], value: &[u8]) -> bool {
        let name = Name(element_name(of.id, name).into());
        self.store.elements.insert(name, Name::from(value)).is_none()
    }

    /// Takes a field or member away; what it had.
    pub(crate) fn remove_element(&mut self, of: Collection, name: &[u8]) -> Option<Box<[u8]>> {
        self.store.elements.remove(&element_name(of.id, name)[..]).map(|value| value.0)
    }

    /// The next number that nobody could foresee.
    pub(crate) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Gives a key what another entry has.
    pub(crate) fn put_copy(&mut self, key: &[u8], entry: Entry) {
        let mut value = entry.value;
        if let Some(elements) = value.collection_mut() {
            let id = self.store.new_collection();
            let before = std::mem::replace(&mut elements.id, id).to_be_bytes();
            let all = self.store.elements.range::<Name, _>(Name::from(&before[..])..);
            let all = all.take_while(|(name, _)| name.0.starts_with(&before));
            let all: Vec<(Name, Name)> =
                all.map(|(name, value)| (name.clone(), value.clone())).collect();
            for (mut name, value) in all {
                name.0[..8].copy_from_slice(&id.to_be_bytes());
                self.store.elements.insert(name, value);
            }
        }
        self.put(key, value, entry.expires_ms);
    }
}
