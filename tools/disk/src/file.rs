//! A file: what the page cache has of it, and what the disk has.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::SECTOR;
use crate::faults::broken;
use crate::random::Random;

type Sector = [u8; SECTOR];

#[derive(Clone, Default, Debug)]
pub(crate) struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that are not synced, with what each has been since.
    dirty: BTreeMap<u64, Vec<Sector>>,
    /// What sectors were before they were last written.
    before: BTreeMap<u64, Sector>,
    unreadable: BTreeSet<u64>,
}

impl File {
    pub(crate) fn length(&self) -> u64 {
        self.cached.len() as u64
    }

    pub(crate) fn content(&self) -> &[u8] {
        &self.cached
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut sectors = offset / SECTOR as u64..end.div_ceil(SECTOR as u64);
        if sectors.any(|sector| self.unreadable.contains(&sector)) {
            return Err(broken());
        }
        let there = self.cached.get(offset as usize..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        buffer[..count].copy_from_slice(&there[..count]);
        buffer[count..].fill(0);
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.grow(end);
        let sectors = offset / SECTOR as u64..end.div_ceil(SECTOR as u64);
        for sector in sectors.clone() {
            self.before.insert(sector, sector_of(&self.cached, sector));
        }
        self.cached[offset as usize..end as usize].copy_from_slice(bytes);
        for sector in sectors {
            self.unreadable.remove(&sector);
            let now = sector_of(&self.cached, sector);
            self.dirty.entry(sector).or_default().push(now);
        }
    }

    pub(crate) fn grow(&mut self, length: u64) {
        if length > self.length() {
            self.cached.resize(length as usize, 0);
        }
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        self.cached.resize(length as usize, 0);
        let last = length.div_ceil(SECTOR as u64);
        self.dirty.retain(|sector, _| *sector < last);
    }

    pub(crate) fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            put_sector(&mut self.durable, sector, &sector_of(&self.cached, sector));
        }
    }

    /// Some of the sectors get to the disk; all count as if they had.
    pub(crate) fn fail_to_sync(&mut self, random: &mut Random) {
        self.durable.resize(self.cached.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            if random.below(2) == 0 {
                put_sector(&mut self.durable, sector, &sector_of(&self.cached, sector));
            }
        }
    }

    /// What is not dirty is read from the disk again.
    pub(crate) fn forget_clean(&mut self) {
        for sector in 0..self.length().div_ceil(SECTOR as u64) {
            if !self.dirty.contains_key(&sector) {
                put_sector(&mut self.cached, sector, &sector_of(&self.durable, sector));
            }
        }
    }

    /// The power fails. Patterns: nothing is kept, all is, a first part is, or each sector by itself.
    pub(crate) fn lose_power(&mut self, pattern: u64, random: &mut Random) {
        let dirty = std::mem::take(&mut self.dirty);
        let first = random.below(dirty.len() as u64 + 1);
        let keeps_length = random.below(2) == 0;
        let mut needed = 0;
        for (at, (sector, versions)) in dirty.into_iter().enumerate() {
            let keeps = match pattern {
                0 => false,
                1 => true,
                2 => (at as u64) < first,
                _ => random.below(2) == 0,
            };
            let which = random.below(versions.len() as u64 + 1) as usize;
            let version = match pattern {
                1 | 2 => versions.last(),
                _ => versions.get(which).or(versions.last()),
            };
            if let Some(version) = version.filter(|_| keeps) {
                let end = ((sector + 1) * SECTOR as u64).min(self.cached.len() as u64) as usize;
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                put_sector(&mut self.durable, sector, version);
                needed = needed.max(end);
            }
        }
        if keeps_length || self.cached.len() >= self.durable.len() && pattern == 1 {
            self.durable.resize(self.cached.len().max(needed), 0);
        }
        self.cached = self.durable.clone();
    }

    /// What is read is on disk.
    pub(crate) fn settle(&mut self) {
        self.durable = self.cached.clone();
        self.dirty.clear();
    }

    pub(crate) fn flip(&mut self, bit: u64) {
        for bytes in [&mut self.cached, &mut self.durable] {
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    pub(crate) fn make_unreadable(&mut self, sector: u64) {
        self.unreadable.insert(sector);
    }

    pub(crate) fn revert(&mut self, sector: u64) -> bool {
        let Some(before) = self.before.get(&sector).copied() else { return false };
        let differs = sector_of(&self.cached, sector) != before;
        put_sector(&mut self.cached, sector, &before);
        put_sector(&mut self.durable, sector, &before);
        differs
    }
}

/// A sector, filled up with zeros at the end of the file.
fn sector_of(bytes: &[u8], sector: u64) -> Sector {
    let mut out = [0; SECTOR];
    let there = bytes.get(sector as usize * SECTOR..).unwrap_or_default();
    let count = there.len().min(SECTOR);
    out[..count].copy_from_slice(&there[..count]);
    out
}

fn put_sector(bytes: &mut [u8], sector: u64, content: &Sector) {
    let Some(place) = bytes.get_mut(sector as usize * SECTOR..) else { return };
    let count = place.len().min(SECTOR);
    place[..count].copy_from_slice(&content[..count]);
}
