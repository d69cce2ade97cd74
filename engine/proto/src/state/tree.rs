//! The Merkle tree over the pages of a checkpoint.
//!
//! A checkpoint consists of two trees, over the pages of the replica's bookkeeping and over those
//! of the service, and a root record that binds both and the order number. A tree has fan-out
//! [`FANOUT`]; its shape follows from the number of pages alone.

use std::sync::Arc;

use bytes::Bytes;
use hybster_tss::Digest;

use crate::ids::OrderNumber;
use crate::service::PAGES_PER_GROUP;
use crate::wire::state::NodeId;
use crate::wire::{Put, Reader, WireError};

/// Children of a node.
pub(super) const FANOUT: usize = PAGES_PER_GROUP as usize;
/// Level of the root record.
pub(super) const ROOT_LEVEL: u8 = 0x7f;
/// Set in the level of nodes of the service's tree.
const SERVICE: u8 = 0x80;
const FORMAT: u32 = 1;

/// The two trees of a checkpoint.
pub(super) const TREES: usize = 2;

/// Splits a node's level into tree and level inside it.
pub(super) fn place(node: NodeId) -> (usize, u8) {
    (usize::from(node.level & SERVICE != 0), node.level & !SERVICE)
}

/// A node of a tree.
pub(super) fn node(tree: usize, level: u8, index: u64) -> NodeId {
    NodeId { level: if tree == 0 { level } else { level | SERVICE }, index }
}

/// The root record's place.
pub(super) const ROOT: NodeId = NodeId { level: ROOT_LEVEL, index: 0 };

/// Digest of the content of a node. Pages, nodes and root records have keys of their own, so that
/// none can pass for another. Keys, not a first byte: BLAKE3 hashes several KiB at once only if they
/// are contiguous.
pub(super) fn content_digest(node: NodeId, content: &[u8]) -> Digest {
    let key = match place(node).1 {
        0 => b"hybster checkpoint, page\0\0\0\0\0\0\0\0",
        ROOT_LEVEL => b"hybster checkpoint, root\0\0\0\0\0\0\0\0",
        _ => b"hybster checkpoint, node\0\0\0\0\0\0\0\0",
    };
    Digest(*blake3::keyed_hash(key, content).as_bytes())
}

/// Number of nodes per level over a number of pages, pages included.
pub(super) fn shape(pages: u64) -> Vec<u64> {
    let mut levels = vec![pages];
    let mut width = pages;
    while width > 1 {
        width = width.div_ceil(FANOUT as u64);
        levels.push(width);
    }
    levels
}

/// The digests of [`FANOUT`] neighbouring pages, or fewer at the end. Checkpoints share those that
/// did not change, so that a checkpoint costs what changed since the last one, not what there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub digests: Vec<Digest>,
    /// Of each page, as the service tells them.
    pub versions: Vec<Option<u64>>,
    /// Of all pages together, if the service tells it.
    pub version: Option<u64>,
    /// Digest of the node over the pages.
    node: Digest,
}

impl Group {
    /// The node keeps its digest without hashing if its children equal those of `old`.
    pub(super) fn new(
        digests: Vec<Digest>,
        versions: Vec<Option<u64>>,
        version: Option<u64>,
        old: Option<&Self>,
    ) -> Self {
        let node = match old {
            Some(old) if old.digests == digests => old.node,
            _ => content_digest(node(0, 1, 0), &concatenated(&digests)),
        };
        Self { digests, versions, version, node }
    }
}

/// Digests of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// The pages, level 0.
    pub groups: Vec<Arc<Group>>,
    pages: u64,
    /// Levels from 1 on; none for a tree of one page or without pages.
    upper: Vec<Vec<Digest>>,
}

impl Tree {
    /// Builds the tree over the digests of these pages; nodes whose children equal those in `old`
    /// keep their digest without hashing.
    pub(super) fn over(groups: Vec<Arc<Group>>, pages: u64, old: Option<&Self>) -> Self {
        assert_eq!(groups.len() as u64, pages.div_ceil(FANOUT as u64), "all pages are digested");
        let mut upper = Vec::new();
        if pages > 1 {
            upper.push(groups.iter().map(|group| group.node).collect());
        }
        while upper.last().is_some_and(|level: &Vec<Digest>| level.len() > 1) {
            let depth = upper.len();
            let below = &upper[depth - 1];
            let old_below = old.and_then(|tree| tree.upper.get(depth - 1));
            let old_here = old.and_then(|tree| tree.upper.get(depth));
            let level = below
                .chunks(FANOUT)
                .enumerate()
                .map(|(index, children)| {
                    let old = old_below.and_then(|old| old.chunks(FANOUT).nth(index));
                    match old_here.and_then(|old| old.get(index)) {
                        Some(digest) if old == Some(children) => *digest,
                        _ => content_digest(node(0, 1, 0), &concatenated(children)),
                    }
                })
                .collect();
            upper.push(level);
        }
        Self { groups, pages, upper }
    }

    /// The root's digest; zero for a tree without pages.
    pub(super) fn root(&self) -> Digest {
        match self.pages {
            0 => Digest::default(),
            1 => self.groups[0].digests[0],
            _ => self.upper.last().expect("several pages have a node above them")[0],
        }
    }

    /// The digest of a node.
    pub(super) fn digest(&self, level: u8, index: u64) -> Option<Digest> {
        let index = usize::try_from(index).ok()?;
        match level {
            0 => self.groups.get(index / FANOUT)?.digests.get(index % FANOUT).copied(),
            level => self.upper.get(usize::from(level) - 1)?.get(index).copied(),
        }
    }

    /// The content of an inner node: the digests of its children.
    pub(super) fn children(&self, level: u8, index: u64) -> Option<Bytes> {
        let index = usize::try_from(index).ok()?;
        self.upper.get(usize::from(level.checked_sub(1)?))?.get(index)?;
        let children = match level {
            1 => &self.groups[index].digests[..],
            level => self.upper[usize::from(level) - 2].chunks(FANOUT).nth(index)?,
        };
        Some(concatenated(children).into())
    }
}

fn concatenated(digests: &[Digest]) -> Vec<u8> {
    digests.iter().flat_map(|digest| digest.0).collect()
}

/// The root record of a checkpoint; its digest is what CHECKPOINTs vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RootRecord {
    pub order: OrderNumber,
    pub pages: [u64; TREES],
    pub roots: [Digest; TREES],
}

impl RootRecord {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.put_u32(FORMAT);
        out.put_u64(self.order.0);
        for tree in 0..TREES {
            out.put_u64(self.pages[tree]);
            out.bytes(&self.roots[tree].0);
        }
        out.into()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != FORMAT {
            return Err(WireError::Field("format"));
        }
        let order = reader.order()?;
        let (mut pages, mut roots) = ([0; TREES], [Digest::default(); TREES]);
        for tree in 0..TREES {
            pages[tree] = reader.u64()?;
            roots[tree] = reader.digest()?;
        }
        reader.end()?;
        Ok(Self { order, pages, roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(pages: &[Digest], old: Option<&Tree>) -> Tree {
        let groups = pages.chunks(FANOUT).enumerate().map(|(g, digests)| {
            let old = old.and_then(|old| old.groups.get(g)).map(|group| &**group);
            Arc::new(Group::new(digests.to_vec(), vec![None; digests.len()], None, old))
        });
        Tree::over(groups.collect(), pages.len() as u64, old)
    }

    fn pages(count: u64) -> Vec<Digest> {
        (0..count).map(|i| content_digest(node(1, 0, i), &i.to_le_bytes())).collect()
    }

    #[test]
    fn rebuilding_on_an_old_tree_gives_the_same_tree() {
        for count in [0, 1, 2, 63, 64, 65, 4096, 4097, 5000] {
            let old = build(&pages(count), None);
            let upper = old.upper.iter().map(|level| level.len() as u64);
            assert!([count].into_iter().chain(upper).eq(shape(count)), "{count} pages");
            for other in [count.saturating_sub(1), count, count + 1, count + 70] {
                let mut changed = pages(other);
                if let Some(first) = changed.get_mut(other as usize / 2) {
                    first.0[0] ^= 1;
                }
                assert_eq!(build(&changed, Some(&old)), build(&changed, None));
            }
        }
    }

    #[test]
    fn a_nodes_content_has_its_digest() {
        let tree = build(&pages(5000), None);
        for (level, width) in (1..).zip(shape(5000).into_iter().skip(1)) {
            for index in 0..width {
                let content = tree.children(level, index).unwrap();
                let digest = content_digest(node(1, level, index), &content);
                assert_eq!(tree.digest(level, index), Some(digest));
            }
        }
        assert_eq!((tree.children(1, 1 << 40), tree.children(0, 0)), (None, None));
        assert_eq!((build(&pages(1), None).children(1, 0), tree.children(4, 0)), (None, None));
    }
}
