//! One page of the store: sorted entries in one run of bytes.
//!
//! # Format
//! All numbers are little-endian. The page in memory and the page of a checkpoint are the same.
//! ```text
//! 0        1      2           4            6                6 + 6 × count
//! | format | zero | count u16 | prefix u16 | count × slot … | entries, sorted by key … |
//!
//! slot     head, 4 bytes | start u16
//! ```
//! `prefix` is the length of the common prefix of all keys. `head` is the part of the entry's key
//! after it, padded with zeros: a search reads the heads, which are adjacent, and then usually one
//! entry. `start` is the offset of the entry from the first one. An entry has the format of the
//! replies to scans (see [`super::wire`]), so scans copy it as it is. A leaf has at least one entry
//! and is at most [`LEAF_BYTES`] long; a leaf with a single entry may be longer.

use std::cmp::Ordering;

use hybster_proto::service::MAX_PAGE_BYTES;

use super::buffer::{Buffer, IN_PLACE_BYTES};
use super::reader::Reader;
use super::wire::{ENTRY_HEADER_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, entry_header};

/// The longest leaf of more than one entry.
pub(super) const LEAF_BYTES: usize = IN_PLACE_BYTES;

/// The longest leaf there is.
const MAX_LEAF_BYTES: usize = HEADER_BYTES + entry_bytes(MAX_KEY_BYTES, MAX_VALUE_BYTES);

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 6;
const HEAD_BYTES: usize = 4;
const SLOT_BYTES: usize = HEAD_BYTES + 2;

const _: () = assert!(MAX_LEAF_BYTES <= MAX_PAGE_BYTES && LEAF_BYTES < 1 << 16);

/// Bytes that an entry takes in a leaf.
pub(super) const fn entry_bytes(key: usize, value: usize) -> usize {
    SLOT_BYTES + ENTRY_HEADER_BYTES + key + value
}

/// A page that is in use.
#[derive(Debug)]
pub(super) struct Leaf {
    buffer: Buffer,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self { buffer: self.buffer.clone() }
    }

    fn clone_from(&mut self, original: &Self) {
        self.buffer.clone_from(&original.buffer);
    }
}

impl Leaf {
    /// A leaf with one entry.
    pub(super) fn single(key: &[u8], value: &[u8]) -> Self {
        let mut leaf = Self { buffer: Buffer::new(&[FORMAT, 0, 0, 0, 0, 0]) };
        leaf.insert(0, key, value);
        leaf
    }

    /// Reads a page; the error says what is wrong with it.
    pub(super) fn parse(page: &[u8]) -> Result<Self, String> {
        if page.len() > MAX_LEAF_BYTES {
            return Err(format!("{} bytes are more than {MAX_LEAF_BYTES}", page.len()));
        }
        let Some((&[format, zero, low, high, _, _], rest)) = page.split_first_chunk() else {
            return Err("the header is cut off".to_owned());
        };
        if (format, zero) != (FORMAT, 0) {
            return Err(format!("format {format}.{zero} is unknown, {FORMAT}.0 is expected"));
        }
        let count = usize::from(u16::from_le_bytes([low, high]));
        if count == 0 {
            return Err("a leaf without entries".to_owned());
        }
        if count > 1 && page.len() > LEAF_BYTES {
            return Err(format!("{count} entries in more than {LEAF_BYTES} bytes"));
        }
        let Some((slots, entries)) = rest.split_at_checked(count * SLOT_BYTES) else {
            return Err(format!("the slots of {count} entries are cut off"));
        };
        let mut reader = Reader(entries);
        let mut last: Option<&[u8]> = None;
        for (i, &[_, _, _, _, low, high]) in slots.as_chunks().0.iter().enumerate() {
            let start = entries.len() - reader.0.len();
            if usize::from(u16::from_le_bytes([low, high])) != start {
                return Err(format!("the start of entry {i} is not {start}"));
            }
            let Ok((key, _)) = reader.entry() else {
                return Err(format!("entry {i} is cut off or too long"));
            };
            if last.is_some_and(|last| last >= key) {
                return Err(format!("the key of entry {i} is not above the one before"));
            }
            last = Some(key);
        }
        if !reader.0.is_empty() {
            return Err(format!("{} bytes follow the last entry", reader.0.len()));
        }
        let leaf = Self { buffer: Buffer::new(page) };
        if leaf.prefix() != leaf.common_prefix() {
            return Err(format!("the prefix is not {}", leaf.common_prefix()));
        }
        for (i, slot) in leaf.slots().iter().enumerate() {
            if head_in(slot) != head(&leaf.key(i)[leaf.prefix()..]) {
                return Err(format!("the head of entry {i} is not that of its key"));
            }
        }
        Ok(leaf)
    }

    /// The page.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// Whether it takes as much memory as nearly all leaves, so that its memory can be reused.
    pub(super) fn is_usual(&self) -> bool {
        matches!(self.buffer, Buffer::InPlace(..))
    }

    /// The length of the page.
    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Bytes that the entries take, as [`entry_bytes`] counts.
    pub(super) fn entries_bytes(&self) -> usize {
        self.len() - HEADER_BYTES
    }

    /// The number of entries.
    pub(super) fn count(&self) -> usize {
        self.number(2)
    }

    /// The key of an entry.
    pub(super) fn key(&self, i: usize) -> &[u8] {
        let at = self.entries() + self.start(i);
        let key = self.number(at);
        &self.bytes()[at + ENTRY_HEADER_BYTES..][..key]
    }

    /// The smallest key.
    pub(super) fn low_key(&self) -> &[u8] {
        self.key(0)
    }

    /// The value of an entry.
    pub(super) fn value(&self, i: usize) -> &[u8] {
        let (at, key, value) = self.place(i);
        &self.bytes()[at + ENTRY_HEADER_BYTES + key..][..value]
    }

    /// An entry in the form that it has in the page.
    pub(super) fn entry(&self, i: usize) -> &[u8] {
        let (at, key, value) = self.place(i);
        &self.bytes()[at..][..ENTRY_HEADER_BYTES + key + value]
    }

    /// The position of a key (`Ok`), or the one that it would have (`Err`).
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let (slots, prefix) = (self.slots(), self.prefix());
        // The first comparison usually ends the search, without reading the prefix. For a key with
        // another prefix the position is meaningless, but no key can be equal.
        let wanted = head(key.get(prefix..).unwrap_or_default());
        let mut low = slots.partition_point(|slot| head_in(slot) < wanted);
        let equal = slots[low..].iter().take_while(|slot| head_in(slot) == wanted).count();
        if equal > 0 && self.key(low) == key {
            return Ok(low);
        }

        let shared = &self.key(0)[..prefix];
        if !key.starts_with(shared) {
            return Err(if key < shared { 0 } else { self.count() });
        }
        let mut high = low + equal;
        while low < high {
            let middle = (low + high) / 2;
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Inserts an entry before entry `i`. The caller ensures the order and the length.
    pub(super) fn insert(&mut self, i: usize, key: &[u8], value: &[u8]) {
        let (entries, start, length) = (self.entries(), self.start_or_end(i), self.len());
        let added = ENTRY_HEADER_BYTES + key.len() + value.len();
        self.buffer.resize(length + SLOT_BYTES + added);

        let (slot, at) = (slot_at(i), entries + start + SLOT_BYTES);
        let bytes = self.buffer.bytes_mut();
        bytes.copy_within(entries + start..length, at + added);
        bytes.copy_within(slot..entries + start, slot + SLOT_BYTES);
        let (header, rest) = bytes[at..].split_at_mut(ENTRY_HEADER_BYTES);
        header.copy_from_slice(&entry_header(key, value));
        rest[..key.len()].copy_from_slice(key);
        rest[key.len()..][..value.len()].copy_from_slice(value);
        self.set_number(slot + HEAD_BYTES, start);
        self.set_count(self.count() + 1);
        self.shift_starts(i + 1, added as isize);
        self.refresh_heads(i, Some(i));
        self.check();
    }

    /// Removes an entry; it must not be the only one.
    pub(super) fn remove(&mut self, i: usize) {
        let (entries, start, length) = (self.entries(), self.start(i), self.len());
        let removed = self.entry(i).len();
        self.shift_starts(i + 1, -(removed as isize));
        let slot = slot_at(i);
        let bytes = self.buffer.bytes_mut();
        bytes.copy_within(slot + SLOT_BYTES..entries + start, slot);
        bytes.copy_within(entries + start + removed.., entries + start - SLOT_BYTES);
        self.buffer.resize(length - SLOT_BYTES - removed);
        self.set_count(self.count() - 1);
        self.refresh_heads(i, None);
        self.check();
    }

    /// Sets the value of an entry.
    pub(super) fn replace(&mut self, i: usize, value: &[u8]) {
        let (at, key, old) = self.place(i);
        let at_value = at + ENTRY_HEADER_BYTES + key;
        if value.len() != old {
            let (length, new_length) = (self.len(), self.len() - old + value.len());
            self.buffer.resize(length.max(new_length));
            let bytes = self.buffer.bytes_mut();
            bytes.copy_within(at_value + old..length, at_value + value.len());
            bytes[at + 2..][..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
            self.buffer.resize(new_length);
            self.shift_starts(i + 1, value.len() as isize - old as isize);
        }
        self.buffer.bytes_mut()[at_value..][..value.len()].copy_from_slice(value);
        self.check();
    }

    /// Moves the entries from `i` on to a new leaf; both keep one at least.
    pub(super) fn split_off(&mut self, i: usize) -> Self {
        let (entries, start, count) = (self.entries(), self.start(i), self.count());
        let (slots, end) = (entries - slot_at(i), self.len() - entries - start);
        let mut right = Self { buffer: Buffer::new(&self.bytes()[..HEADER_BYTES]) };
        right.buffer.resize(HEADER_BYTES + slots + end);
        let (left_bytes, right_bytes) = (self.buffer.bytes_mut(), right.buffer.bytes_mut());
        right_bytes[HEADER_BYTES..][..slots].copy_from_slice(&left_bytes[slot_at(i)..entries]);
        right_bytes[HEADER_BYTES + slots..].copy_from_slice(&left_bytes[entries + start..]);
        right.set_count(count - i);
        right.shift_starts(0, -(start as isize));
        right.refresh_heads(0, None);
        right.check();

        left_bytes.copy_within(entries..entries + start, slot_at(i));
        self.buffer.resize(slot_at(i) + start);
        self.set_count(i);
        self.refresh_heads(i, None);
        self.check();
        right
    }

    /// Appends the entries of `right`, whose keys are above all of this leaf's.
    pub(super) fn append(&mut self, right: &Self) {
        let (entries, length, count) = (self.entries(), self.len(), self.count());
        let (slots, end) = right.bytes()[HEADER_BYTES..].split_at(right.count() * SLOT_BYTES);
        self.buffer.resize(length + slots.len() + end.len());
        let bytes = self.buffer.bytes_mut();
        bytes.copy_within(entries..length, entries + slots.len());
        bytes[entries..][..slots.len()].copy_from_slice(slots);
        bytes[length + slots.len()..].copy_from_slice(end);
        self.set_count(count + right.count());
        self.shift_starts(count, (length - entries) as isize);
        self.write_heads();
        self.check();
    }

    /// Where to cut so that an entry of `added` bytes at place `i` gets room: both sides are
    /// as equal as can be. Returns the number of entries left of the cut, and whether the
    /// new one is among them; `None` if no cut leaves both sides within [`LEAF_BYTES`], or if the
    /// best one leaves the new entry alone.
    pub(super) fn best_cut(&self, i: usize, added: usize) -> Option<(usize, bool)> {
        let total = self.entries_bytes() + added;
        let mut best = None;
        let mut best_bytes = LEAF_BYTES - HEADER_BYTES + 1;
        // A cut is named by the entries left of it, the new one counted.
        for cut in 1..=self.count() {
            let takes_new = i < cut;
            let kept = cut - usize::from(takes_new);
            let mut left = self.start_or_end(kept) + kept * SLOT_BYTES;
            if takes_new {
                left += added;
            }
            let larger = left.max(total - left);
            if larger < best_bytes {
                best_bytes = larger;
                best = Some((kept, takes_new));
            }
        }
        best.filter(|&(kept, takes_new)| if takes_new { kept > 0 } else { kept < self.count() })
    }

    /// Position of an entry in the page, the length of its key and of its value.
    fn place(&self, i: usize) -> (usize, usize, usize) {
        let at = self.entries() + self.start(i);
        let header: [u8; ENTRY_HEADER_BYTES] =
            *self.bytes()[at..].first_chunk().expect("an entry begins with its header");
        let [a, b, c, d, e, f] = header;
        let key = u16::from_le_bytes([a, b]);
        (at, usize::from(key), u32::from_le_bytes([c, d, e, f]) as usize)
    }

    /// The offset of the first entry.
    fn entries(&self) -> usize {
        slot_at(self.count())
    }

    fn slots(&self) -> &[[u8; SLOT_BYTES]] {
        self.bytes()[HEADER_BYTES..self.entries()].as_chunks().0
    }

    fn slots_mut(&mut self) -> &mut [[u8; SLOT_BYTES]] {
        let entries = self.entries();
        self.buffer.bytes_mut()[HEADER_BYTES..entries].as_chunks_mut().0
    }

    fn start(&self, i: usize) -> usize {
        self.number(slot_at(i) + HEAD_BYTES)
    }

    fn start_or_end(&self, i: usize) -> usize {
        if i == self.count() { self.len() - self.entries() } else { self.start(i) }
    }

    /// Moves the starts of the entries from `i` on.
    ///
    /// The addition wraps: a leaf of one huge entry has a single start, which is 0.
    fn shift_starts(&mut self, i: usize, by: isize) {
        for [.., low, high] in &mut self.slots_mut()[i..] {
            let start = u16::from_le_bytes([*low, *high]).wrapping_add(by as u16);
            [*low, *high] = start.to_le_bytes();
        }
    }

    fn prefix(&self) -> usize {
        self.number(4)
    }

    /// The length of the common prefix, which follows from the first and the last key.
    fn common_prefix(&self) -> usize {
        let (first, last) = (self.low_key(), self.key(self.count() - 1));
        first.iter().zip(last).take_while(|(a, b)| a == b).count()
    }

    /// Updates prefix and heads after an entry was inserted or removed at position `i`; `added` is
    /// the entry whose head is missing.
    fn refresh_heads(&mut self, i: usize, added: Option<usize>) {
        // Inner entries have no influence on the prefix.
        let inner = 0 < i && i + usize::from(added.is_some()) < self.count();
        if !inner && self.prefix() != self.common_prefix() {
            self.write_heads();
        } else if let Some(i) = added {
            let head = head(&self.key(i)[self.prefix()..]);
            self.slots_mut()[i][..HEAD_BYTES].copy_from_slice(&head.to_be_bytes());
        }
    }

    /// Writes the prefix and all heads.
    fn write_heads(&mut self) {
        let prefix = self.common_prefix();
        self.set_number(4, prefix);
        for i in 0..self.count() {
            let head = head(&self.key(i)[prefix..]);
            self.slots_mut()[i][..HEAD_BYTES].copy_from_slice(&head.to_be_bytes());
        }
    }

    fn set_count(&mut self, count: usize) {
        self.set_number(2, count);
    }

    fn number(&self, at: usize) -> usize {
        let bytes = self.bytes();
        usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }

    fn set_number(&mut self, at: usize, number: usize) {
        debug_assert!(number < 1 << 16);
        self.buffer.bytes_mut()[at..at + 2].copy_from_slice(&(number as u16).to_le_bytes());
    }

    /// Asserts in tests, but not in measurements, that [`Leaf::parse`] accepts the leaf.
    fn check(&self) {
        if cfg!(all(test, debug_assertions)) {
            Self::parse(self.bytes()).expect("a leaf is well-formed after each change");
        }
    }
}

/// Position of the slot of entry `i`.
const fn slot_at(i: usize) -> usize {
    HEADER_BYTES + i * SLOT_BYTES
}

/// The first bytes of a key after the prefix, as a number of the same order.
fn head(rest: &[u8]) -> u32 {
    if let Some(first) = rest.first_chunk() {
        return u32::from_be_bytes(*first);
    }
    let mut bytes = [0; HEAD_BYTES];
    bytes[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(bytes)
}

fn head_in(&[a, b, c, d, _, _]: &[u8; SLOT_BYTES]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(keys: &[&str]) -> Leaf {
        let mut leaf = Leaf::single(keys[0].as_bytes(), keys[0].as_bytes());
        for (i, key) in keys.iter().enumerate().skip(1) {
            leaf.insert(i, key.as_bytes(), key.as_bytes());
        }
        leaf
    }

    fn keys(leaf: &Leaf) -> Vec<&str> {
        Leaf::parse(leaf.bytes()).unwrap();
        (0..leaf.count())
            .map(|i| {
                assert_eq!(leaf.key(i), leaf.value(i));
                std::str::from_utf8(leaf.key(i)).unwrap()
            })
            .collect()
    }

    #[test]
    fn has_the_documented_bytes() {
        let mut leaf = Leaf::single(b"b", b"vw");
        leaf.insert(0, b"a", b"");
        let bytes = b"\x01\x00\x02\x00\x00\x00\
                      a\x00\x00\x00\x00\x00b\x00\x00\x00\x07\x00\
                      \x01\x00\x00\x00\x00\x00a\x01\x00\x02\x00\x00\x00bvw";
        assert_eq!(leaf.bytes(), bytes);
        assert_eq!(leaf.entry(1), b"\x01\x00\x02\x00\x00\x00bvw");
    }

    #[test]
    fn edits_keep_the_order() {
        let mut left = leaf(&["b", "dd"]);
        left.insert(1, b"ccc", b"ccc");
        left.insert(0, b"", b"");
        assert_eq!(keys(&left), ["", "b", "ccc", "dd"]);
        assert_eq!(left.find(b"ccc"), Ok(2));
        assert_eq!(left.find(b"cc"), Err(2));
        assert_eq!(left.find(b"e"), Err(4));
        left.replace(1, b"longer");
        assert_eq!((left.value(1), left.value(2)), (&b"longer"[..], &b"ccc"[..]));
        left.replace(1, b"b");
        let right = left.split_off(2);
        assert_eq!((keys(&left), keys(&right)), (vec!["", "b"], vec!["ccc", "dd"]));
        left.append(&right);
        assert_eq!(keys(&left), ["", "b", "ccc", "dd"]);
        left.remove(3);
        left.remove(0);
        assert_eq!(keys(&left), ["b", "ccc"]);
    }

    #[test]
    fn one_huge_entry_grows_and_shrinks() {
        let huge = vec![7; MAX_VALUE_BYTES];
        let mut leaf = Leaf::single(&[1; MAX_KEY_BYTES], b"");
        leaf.replace(0, &huge);
        assert_eq!(leaf.value(0), huge);
        assert_eq!(leaf.len(), MAX_LEAF_BYTES);
        leaf.replace(0, b"small");
        assert_eq!(leaf.value(0), b"small");
        assert!(leaf.is_usual());
    }

    #[test]
    fn cuts_in_the_middle_or_not_at_all() {
        let mut leaf = Leaf::single(b"b", &[0; 1900]);
        leaf.insert(1, b"d", &[0; 1900]);
        assert_eq!(leaf.best_cut(0, 500), Some((1, true)));
        assert_eq!(leaf.best_cut(1, 500), Some((1, false)));
        assert_eq!(leaf.best_cut(2, 500), Some((1, false)));
        assert_eq!(leaf.best_cut(1, 4000), None);
        // Alone before or after the others.
        assert_eq!(leaf.best_cut(0, 4000), None);
        assert_eq!(leaf.best_cut(2, 4000), None);
    }

    #[test]
    fn names_the_fault_of_a_bad_page() {
        let good = leaf(&["xa", "xb"]).bytes().to_vec();
        let fault = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut page = good.clone();
            edit(&mut page);
            Leaf::parse(&page).unwrap_err()
        };
        assert!(fault(&|page| page.truncate(5)).contains("header"));
        assert!(fault(&|page| page[0] = 2).contains("format 2.0"));
        assert!(fault(&|page| page[1] = 1).contains("format 1.1"));
        assert!(fault(&|page| page[2] = 0).contains("without entries"));
        assert!(fault(&|page| page[3] = 255).contains("slots of 65282 entries"));
        assert!(fault(&|page| page[4] = 0).contains("prefix is not 1"));
        assert!(fault(&|page| page[6] = 0).contains("head of entry 0"));
        assert!(fault(&|page| page[16] = 9).contains("start of entry 1"));
        assert!(fault(&|page| page[19] = 5).contains("entry 0 is cut off or too long"));
        assert!(fault(&|page| page[25] = b'c').contains("entry 1 is not above"));
        assert!(fault(&|page| page.push(0)).contains("1 bytes follow"));
        assert!(fault(&|page| page.resize(LEAF_BYTES + 1, 0)).contains("2 entries in more"));
        assert!(fault(&|page| page.resize(MAX_LEAF_BYTES + 1, 0)).contains("more than"));
        for end in 0..good.len() {
            Leaf::parse(&good[..end]).unwrap_err();
        }
    }
}
