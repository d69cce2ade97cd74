//! The name of a checkpoint, and the messages of state transfer (TR listing 20).

use bytes::Bytes;
use hybster_tss::Digest;

use super::{Put, Reader, WireError, kind};
use crate::ids::{OrderNumber, View};

/// A checkpoint: the order number that was executed last and the Merkle root of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CheckpointId {
    /// Order number; 0 for the initial state.
    pub order: OrderNumber,
    /// Root digest; zero for the initial state.
    pub digest: Digest,
}

/// A STATE-REQUEST: what the sender has, so that others send what it lacks (TR listing 20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateRequest {
    /// The latest NEW-VIEW that it knows.
    pub latest: View,
    /// Its current view.
    pub current: View,
    /// Its stable checkpoint.
    pub stable: OrderNumber,
}

impl StateRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_as(kind::STATE_REQUEST)
    }

    /// As a message of another kind: each ordering protocol has its own.
    #[must_use]
    pub fn encode_as(&self, kind: u8) -> Bytes {
        let mut out = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        out.put_u64(self.latest.0);
        out.put_u64(self.current.0);
        out.put_u64(self.stable.0);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        Self::parse_as(bytes, kind::STATE_REQUEST)
    }

    /// Parses a message of another kind.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse_as(bytes: &[u8], kind: u8) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind)?;
        reader.zeros(7)?;
        let request =
            Self { latest: reader.view()?, current: reader.view()?, stable: reader.order()? };
        reader.end()?;
        Ok(request)
    }
}

/// A place in the Merkle tree of a checkpoint: level 0 holds the pages, the highest level the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId {
    /// Level.
    pub level: u8,
    /// Index inside the level.
    pub index: u64,
}

/// Most nodes that one FETCH may name.
pub const MAX_FETCH: usize = 128;

/// Asks for nodes and pages of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The checkpoint.
    pub order: OrderNumber,
    /// The nodes that are wanted, at most [`MAX_FETCH`].
    pub nodes: Vec<NodeId>,
}

impl Fetch {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::FETCH, 0, 0, 0, 0, 0, 0, 0];
        out.put_u64(self.order.0);
        out.put_u32(self.nodes.len() as u32);
        for node in &self.nodes {
            out.put_u8(node.level);
            out.put_u64(node.index);
        }
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::FETCH)?;
        reader.zeros(7)?;
        let order = reader.order()?;
        let count = reader.count(9, "nodes")?;
        if count > MAX_FETCH {
            return Err(WireError::Field("nodes"));
        }
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(NodeId { level: reader.u8()?, index: reader.u64()? });
        }
        reader.end()?;
        Ok(Self { order, nodes })
    }
}

/// Bytes of a FETCHED message before its content.
pub const FETCHED_HEAD: usize = 32;

/// A node or page of a checkpoint; checked against its digest, so it needs no authenticator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The checkpoint.
    pub order: OrderNumber,
    /// Which node.
    pub node: NodeId,
    /// The content; `None` if the sender does not have that checkpoint, or no longer has it.
    pub content: Option<Bytes>,
}

impl Fetched {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let content = self.content.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(FETCHED_HEAD + content.len());
        out.extend_from_slice(&[kind::FETCHED, u8::from(self.content.is_some())]);
        out.bytes(&[self.node.level, 0, 0, 0, 0, 0]);
        out.put_u64(self.order.0);
        out.put_u64(self.node.index);
        out.put_u64(content.len() as u64);
        out.extend_from_slice(content);
        out.into()
    }

    /// Parses a message; the content stays a slice of it.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::FETCHED)?;
        let held = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field("held")),
        };
        let level = reader.u8()?;
        reader.zeros(5)?;
        let order = reader.order()?;
        let index = reader.u64()?;
        let length = reader.u64()?;
        if length != reader.left() as u64 || (!held && length != 0) {
            return Err(WireError::Field("length"));
        }
        let content = held.then(|| bytes.slice(FETCHED_HEAD..));
        Ok(Self { order, node: NodeId { level, index }, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_messages_survive_the_round_trip() {
        let request = StateRequest { latest: View(1), current: View(2), stable: OrderNumber(512) };
        assert_eq!(StateRequest::parse(&request.encode()).unwrap(), request);
        let fetch = Fetch {
            order: OrderNumber(512),
            nodes: vec![NodeId { level: 1, index: 3 }, NodeId { level: 0, index: 70 }],
        };
        assert_eq!(Fetch::parse(&fetch.encode()).unwrap(), fetch);
        for content in [None, Some(Bytes::new()), Some(Bytes::from_static(b"page"))] {
            let fetched =
                Fetched { order: OrderNumber(512), node: NodeId { level: 0, index: 1 }, content };
            assert_eq!(Fetched::parse(&fetched.encode()).unwrap(), fetched);
        }
    }
}
