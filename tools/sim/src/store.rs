//! The replicated service of the simulator: registers with small keys, and its model.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{Context, PAGES_PER_GROUP, RestoreError, Service, Snapshot};

/// An operation on one register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Read.
    Get,
    /// Write; returns the previous value.
    Put(u64),
    /// Remove; returns the previous value.
    Delete,
    /// Write if the register has the expected value; returns the previous value.
    Cas {
        /// The expected value.
        expected: Option<u64>,
        /// The new value.
        new: u64,
    },
}

/// An action and the register it is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Operation {
    /// The register.
    pub key: u16,
    /// What to do with it.
    pub action: Action,
}

impl Action {
    /// The register afterwards. The answer to every action is the register before.
    #[must_use]
    pub fn apply(self, register: Option<u64>) -> Option<u64> {
        match self {
            Self::Get => register,
            Self::Put(value) => Some(value),
            Self::Delete => None,
            Self::Cas { expected, new } if register == expected => Some(new),
            Self::Cas { .. } => register,
        }
    }
}

impl Operation {
    /// The operation's bytes, with `padding` bytes that mean nothing.
    #[must_use]
    pub fn encode(&self, padding: usize) -> Vec<u8> {
        let (kind, a, b) = match self.action {
            Action::Get => (0u8, None, 0),
            Action::Put(value) => (1, None, value),
            Action::Delete => (2, None, 0),
            Action::Cas { expected, new } => (3, expected, new),
        };
        let mut out = Vec::with_capacity(20 + padding);
        out.push(kind);
        out.extend_from_slice(&self.key.to_le_bytes());
        put_register(&mut out, a);
        out.extend_from_slice(&b.to_le_bytes());
        out.resize(20 + padding, 0x5a);
        out
    }

    /// Parses an operation.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk::<2>()?;
        let (a, rest) = take_register(rest)?;
        let b = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        let action = match kind {
            0 => Action::Get,
            1 => Action::Put(b),
            2 => Action::Delete,
            3 => Action::Cas { expected: a, new: b },
            _ => return None,
        };
        Some(Self { key: u16::from_le_bytes(*key), action })
    }
}

fn put_register(out: &mut Vec<u8>, register: Option<u64>) {
    out.push(u8::from(register.is_some()));
    out.extend_from_slice(&register.unwrap_or(0).to_le_bytes());
}

fn take_register(bytes: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (some, rest) = bytes.split_first()?;
    let (value, rest) = rest.split_first_chunk::<8>()?;
    Some(((*some == 1).then(|| u64::from_le_bytes(*value)), rest))
}

/// What answers are padded with.
const PADDING: u8 = 0xee;

/// The answer inside a reply; `None` if the bytes are not one.
#[must_use]
pub fn parse_answer(bytes: &[u8]) -> Option<Option<u64>> {
    let (answer, rest) = take_register(bytes)?;
    rest.iter().all(|byte| *byte == PADDING).then_some(answer)
}

/// Registers, kept in pages of a few keys each.
#[derive(Default)]
pub struct Store {
    pages: Vec<Page>,
    /// Rises with every change; the version of a page is the change that touched it last.
    change: u64,
    /// Whether snapshots tell versions.
    pub versioned: bool,
    /// Bytes that each answer has more than it needs.
    pub padding: usize,
    /// Pages are filled up to this length.
    pub page_bytes: usize,
    /// Bytes that each page has more than those of other stores.
    pub salt: usize,
}

#[derive(Clone, Default)]
struct Page {
    registers: BTreeMap<u16, u64>,
    version: u64,
    encoded: Option<Bytes>,
}

/// What fills a page: the beginning of no register.
const FILL: u8 = 0xff;

/// Keys per page.
const KEYS_PER_PAGE: u16 = 3;

impl Page {
    fn encode(&self, page_bytes: usize, salt: usize) -> Bytes {
        let mut out = Vec::with_capacity(page_bytes.max(self.registers.len() * 10));
        for (key, value) in &self.registers {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.resize(page_bytes.max(out.len()) + salt, FILL);
        out.into()
    }

    fn parse(bytes: &[u8]) -> Option<BTreeMap<u16, u64>> {
        let mut registers = BTreeMap::new();
        for record in bytes.chunks(10) {
            if record.iter().all(|byte| *byte == FILL) {
                break;
            }
            let (key, value) = record.split_first_chunk::<2>()?;
            let value = u64::from_le_bytes(value.try_into().ok()?);
            registers.insert(u16::from_le_bytes(*key), value);
        }
        Some(registers)
    }
}

impl Store {
    fn register(&self, key: u16) -> Option<u64> {
        self.pages.get(usize::from(key / KEYS_PER_PAGE))?.registers.get(&key).copied()
    }

    fn set(&mut self, key: u16, value: Option<u64>) {
        let index = usize::from(key / KEYS_PER_PAGE);
        if self.pages.len() <= index {
            self.pages.resize(index + 1, Page::default());
        }
        self.change += 1;
        let page = &mut self.pages[index];
        page.version = self.change;
        page.encoded = None;
        match value {
            Some(value) => page.registers.insert(key, value),
            None => page.registers.remove(&key),
        };
    }
}

impl Service for Store {
    fn execute(&mut self, _: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        let Some(Operation { key, action }) = Operation::parse(operation) else {
            return;
        };
        let before = self.register(key);
        let after = action.apply(before);
        if after != before {
            self.set(key, after);
        }
        put_register(reply, before);
        reply.resize(reply.len() + self.padding, PADDING);
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        match Operation::parse(operation) {
            Some(Operation { key, action: Action::Get }) => {
                put_register(reply, self.register(key));
                reply.resize(reply.len() + self.padding, PADDING);
                true
            }
            _ => false,
        }
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        let (page_bytes, salt) = (self.page_bytes, self.salt);
        let pages = self.pages.iter_mut().map(|page| {
            let content = page.encoded.take().unwrap_or_else(|| page.encode(page_bytes, salt));
            page.encoded = Some(content.clone());
            (content, page.version)
        });
        Arc::new(StoreSnapshot { pages: pages.collect(), versioned: self.versioned })
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        self.pages.clear();
        self.change += 1;
        for index in 0..source.page_count() {
            let content = source.page(index);
            let registers = Page::parse(&content)
                .ok_or_else(|| RestoreError { page: index, what: "not registers".into() })?;
            self.pages.push(Page { registers, version: self.change, encoded: Some(content) });
        }
        Ok(())
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        let before = std::mem::take(&mut self.pages);
        self.restore(source)?;
        for (index, (page, before)) in (0..).zip(self.pages.iter_mut().zip(before)) {
            if base.page_version(index) == Some(before.version) && !changed.contains(&index) {
                *page = before;
            }
        }
        Ok(())
    }
}

struct StoreSnapshot {
    pages: Vec<(Bytes, u64)>,
    versioned: bool,
}

impl Snapshot for StoreSnapshot {
    fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    fn page(&self, index: u64) -> Bytes {
        self.pages.get(index as usize).map(|p| p.0.clone()).unwrap_or_default()
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        self.versioned.then(|| self.pages.get(index as usize).map(|p| p.1)).flatten()
    }

    fn group_version(&self, group: u64) -> Option<u64> {
        let pages = self.pages.chunks(PAGES_PER_GROUP as usize).nth(group as usize);
        self.versioned.then(|| pages.unwrap_or_default().iter().map(|p| p.1).max()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};

    use super::*;

    fn run(store: &mut Store, key: u16, action: Action) -> Option<u64> {
        let context = Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1));
        let mut reply = Vec::new();
        store.execute(&context, &Operation { key, action }.encode(3), &mut reply);
        parse_answer(&reply).unwrap()
    }

    #[test]
    fn a_restored_store_answers_as_the_first_one() {
        let mut store = Store::default();
        assert_eq!(run(&mut store, 7, Action::Put(5)), None);
        assert_eq!(run(&mut store, 7, Action::Cas { expected: Some(4), new: 1 }), Some(5));
        assert_eq!(run(&mut store, 7, Action::Cas { expected: Some(5), new: 6 }), Some(5));
        assert_eq!(run(&mut store, 1, Action::Put(9)), None);
        let mut other = Store::default();
        run(&mut other, 40, Action::Put(1));
        other.restore(&*store.snapshot()).unwrap();
        assert_eq!(run(&mut other, 7, Action::Delete), Some(6));
        assert_eq!(run(&mut other, 1, Action::Get), Some(9));
        assert_eq!(run(&mut other, 40, Action::Get), None);
        assert_eq!(run(&mut store, 7, Action::Get), Some(6));
    }
}
