//! Finds the page of a key: the low keys of all leaves, sorted, in groups.
//!
//! The directory is not part of the state, because it follows from the pages and is rebuilt from
//! them. Its grouping has no influence on any page.

use super::pages::PageId;

/// A group with more leaves is split.
const GROUP_LEAVES: usize = 256;

/// The leaves of a store in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    /// The groups by the low key of their first leaf; none of them is empty.
    groups: KeyList<KeyList<PageId>>,
}

/// The position of a leaf. It is valid until leaves are inserted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// The page of the leaf.
    pub(super) page: PageId,
    group: usize,
    slot: usize,
}

impl Directory {
    /// The leaf that holds a key, or would: the last one whose low key is not above the key,
    /// or else the first one. `None` if there is no leaf.
    pub(super) fn find(&self, key: &[u8]) -> Option<Spot> {
        let group = self.groups.upper_bound(key).saturating_sub(1);
        let slot = self.groups.values.get(group)?.upper_bound(key).saturating_sub(1);
        self.spot(group, slot)
    }

    /// The leaf after this one.
    pub(super) fn next(&self, spot: Spot) -> Option<Spot> {
        self.spot(spot.group, spot.slot + 1).or_else(|| self.spot(spot.group + 1, 0))
    }

    /// The leaf before this one.
    pub(super) fn previous(&self, spot: Spot) -> Option<Spot> {
        if let Some(slot) = spot.slot.checked_sub(1) {
            return self.spot(spot.group, slot);
        }
        let group = spot.group.checked_sub(1)?;
        self.spot(group, self.groups.values[group].len() - 1)
    }

    /// Whether this is the last leaf of all.
    pub(super) fn is_last(&self, spot: Spot) -> bool {
        spot.group + 1 == self.groups.len() && spot.slot + 1 == self.groups.values[spot.group].len()
    }

    /// Adds a leaf.
    pub(super) fn insert(&mut self, low_key: &[u8], page: PageId) {
        if self.groups.len() == 0 {
            self.groups.insert(0, low_key, KeyList::default());
        }
        let group = self.groups.upper_bound(low_key).saturating_sub(1);
        let leaves = &mut self.groups.values[group];
        let slot = leaves.upper_bound(low_key);
        leaves.insert(slot, low_key, page);
        let full = leaves.len() > GROUP_LEAVES;
        if slot == 0 {
            self.groups.set_key(group, low_key);
        }
        if full {
            self.split(group);
        }
    }

    /// Changes the low key of a leaf, between the leaf before and the leaf after.
    pub(super) fn set_low_key(&mut self, spot: Spot, low_key: &[u8]) {
        self.groups.values[spot.group].set_key(spot.slot, low_key);
        if spot.slot == 0 {
            self.groups.set_key(spot.group, low_key);
        }
    }

    /// Takes a leaf out.
    pub(super) fn remove(&mut self, spot: Spot) {
        let leaves = &mut self.groups.values[spot.group];
        leaves.remove(spot.slot);
        if leaves.len() == 0 {
            self.groups.remove(spot.group);
        } else if spot.slot == 0 {
            let low_key = leaves.keys[0].clone();
            self.groups.set_key(spot.group, &low_key);
        }
    }

    fn spot(&self, group: usize, slot: usize) -> Option<Spot> {
        let page = *self.groups.values.get(group)?.values.get(slot)?;
        Some(Spot { page, group, slot })
    }

    fn split(&mut self, group: usize) {
        // Leaves that come in order fill their groups.
        let ascending = group + 1 == self.groups.len();
        let leaves = &mut self.groups.values[group];
        let right = leaves.split_off(if ascending { GROUP_LEAVES } else { GROUP_LEAVES / 2 });
        let low_key = right.keys[0].clone();
        self.groups.insert(group + 1, &low_key, right);
        self.groups.fit_prefix();
    }
}

/// Values by key, sorted.
///
/// To search without following pointers, it keeps the first eight bytes of each key after the
/// prefix that all keys share; only keys that agree in these are compared as a whole.
#[derive(Clone, Debug)]
struct KeyList<V> {
    prefix: Vec<u8>,
    heads: Vec<u64>,
    keys: Vec<Box<[u8]>>,
    values: Vec<V>,
}

impl<V> Default for KeyList<V> {
    fn default() -> Self {
        Self { prefix: Vec::new(), heads: Vec::new(), keys: Vec::new(), values: Vec::new() }
    }
}

impl<V> KeyList<V> {
    fn len(&self) -> usize {
        self.keys.len()
    }

    /// The number of keys that are not above `key`.
    fn upper_bound(&self, key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return if key < &self.prefix[..] { 0 } else { self.len() };
        };
        let wanted = head(rest);
        let low = self.heads.partition_point(|&head| head < wanted);
        if self.heads.get(low) != Some(&wanted) {
            return low;
        }
        let equal = self.heads[low..].partition_point(|&head| head == wanted);
        low + self.keys[low..low + equal].partition_point(|other| **other <= *key)
    }

    fn insert(&mut self, at: usize, key: &[u8], value: V) {
        if self.keys.is_empty() {
            self.prefix = key.to_vec();
        }
        self.keys.insert(at, key.into());
        self.values.insert(at, value);
        self.heads.insert(at, 0);
        self.refresh(at);
    }

    fn set_key(&mut self, at: usize, key: &[u8]) {
        self.keys[at] = key.into();
        self.refresh(at);
    }

    fn remove(&mut self, at: usize) {
        self.heads.remove(at);
        self.keys.remove(at);
        self.values.remove(at);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let mut right = Self {
            prefix: Vec::new(),
            heads: self.heads.split_off(at),
            keys: self.keys.split_off(at),
            values: self.values.split_off(at),
        };
        self.fit_prefix();
        right.fit_prefix();
        right
    }

    /// Updates prefix and heads after the key at `at` has changed.
    ///
    /// The prefix only shrinks here. Otherwise operations could make it change back and forth, at
    /// the cost of all heads each time.
    fn refresh(&mut self, at: usize) {
        let key = &self.keys[at];
        let common = common_prefix(&self.prefix, key);
        if common == self.prefix.len() {
            self.heads[at] = head(&key[common..]);
        } else {
            self.set_prefix(common);
        }
    }

    /// Makes the prefix as long as it can be.
    fn fit_prefix(&mut self) {
        if let (Some(first), Some(last)) = (self.keys.first(), self.keys.last()) {
            self.set_prefix(common_prefix(first, last));
        }
    }

    fn set_prefix(&mut self, length: usize) {
        self.prefix.clear();
        self.prefix.extend_from_slice(&self.keys[0][..length]);
        for (head_of, key) in self.heads.iter_mut().zip(&self.keys) {
            *head_of = head(&key[length..]);
        }
    }
}

/// The first eight bytes as a number of the same order; a shorter key is padded with zeros.
fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_directory_finds_nothing() {
        let mut directory = Directory::default();
        assert_eq!(directory.find(b""), None);
        directory.insert(b"k", 3);
        let spot = directory.find(b"").unwrap();
        assert_eq!(spot.page, 3);
        assert_eq!((directory.next(spot), directory.previous(spot)), (None, None));
        directory.remove(spot);
        assert_eq!(directory.find(b"k"), None);
    }

    /// Compares with the model: all leaves in order, both ways, and the place of `key`.
    fn check(directory: &Directory, model: &BTreeMap<Vec<u8>, PageId>, key: &[u8]) {
        let found = directory.find(key);
        let expected = model.range(..=key.to_vec()).next_back().or_else(|| model.iter().next());
        assert_eq!(found.map(|spot| spot.page), expected.map(|(_, page)| *page));
        let mut spot = directory.find(b"");
        let mut before = None;
        for page in model.values() {
            let here = spot.unwrap();
            assert_eq!(here.page, *page);
            assert_eq!(directory.previous(here), before);
            before = spot;
            spot = directory.next(here);
            assert_eq!(directory.is_last(here), spot.is_none());
        }
        assert_eq!(spot, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_a_map(
            steps in proptest::collection::vec(
                (0..4u8, "[ab]{0,3}|common-prefix-[abc]{0,12}|[a-c\\x00]{8,11}"), 1..900,
            ),
        ) {
            let mut directory = Directory::default();
            let mut model = BTreeMap::new();
            for (i, (step, key)) in steps.iter().enumerate() {
                let key = key.as_bytes();
                let exists = model.contains_key(key);
                if *step == 0 && exists {
                    directory.remove(directory.find(key).unwrap());
                    model.remove(key);
                } else if !exists {
                    directory.insert(key, i as PageId);
                    model.insert(key.to_vec(), i as PageId);
                } else if *step == 1 {
                    let above = [key, b"\0"].concat();
                    if !model.contains_key(&above) {
                        directory.set_low_key(directory.find(key).unwrap(), &above);
                        let page = model.remove(key).unwrap();
                        model.insert(above, page);
                    }
                }
                if i % 50 == 0 {
                    check(&directory, &model, key);
                }
                let probe = [key, b"m"].concat();
                let found = directory.find(&probe).map(|spot| spot.page);
                let expected = model.range(..=probe).next_back().or_else(|| model.iter().next());
                prop_assert_eq!(found, expected.map(|(_, page)| *page));
            }
            check(&directory, &model, b"b");
        }

        #[test]
        fn many_groups_agree_with_a_map(count in 1..3000u32, factor in 1..3000u32) {
            let mut directory = Directory::default();
            let mut model = BTreeMap::new();
            for i in 0..count {
                let key = format!("user{:08}", i.wrapping_mul(factor) % 100_003).into_bytes();
                if model.insert(key.clone(), i).is_none() {
                    directory.insert(&key, i);
                } else {
                    model.insert(key.clone(), directory.find(&key).unwrap().page);
                }
            }
            check(&directory, &model, b"user00000100");
            while model.len() > 1 {
                let middle = model.keys().nth(model.len() / 2).unwrap().clone();
                directory.remove(directory.find(&middle).unwrap());
                model.remove(&middle);
                if model.len() % 500 == 1 {
                    check(&directory, &model, &middle);
                }
            }
        }
    }
}
