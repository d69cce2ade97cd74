//! A table with generations, so that the id of a removed entry never finds its successor.

use crate::transport::ConnectionId;

#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, value: None });
            u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 connections")
        });
        let entry = &mut self.entries[slot as usize];
        assert!(entry.value.is_none(), "a free slot is empty");
        entry.value = Some(value);
        ConnectionId { slot, generation: entry.generation }
    }

    pub(crate) fn find(&self, id: ConnectionId) -> Option<&T> {
        let entry = self.entries.get(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut T> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<T> {
        let entry = self.entries.get_mut(id.slot as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(value)
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        for id in self.ids().collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// The id that the entry in `slot` has now, if there is one.
    pub(crate) fn id_at(&self, slot: usize) -> Option<ConnectionId> {
        let entry = self.entries.get(slot)?;
        entry.value.as_ref()?;
        let slot = u32::try_from(slot).ok()?;
        Some(ConnectionId { slot, generation: entry.generation })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        (0..self.entries.len()).filter_map(|slot| self.id_at(slot))
    }
}
