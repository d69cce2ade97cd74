//! The Merkle tree over the pages of a checkpoint (DESIGN 8).
//!
//! A checkpoint consists of two trees, over the pages of the replica's bookkeeping and over those
//! of the service, and a root record that binds both and the order number. A tree has fan-out
//! [`FANOUT`]; its shape follows from the number of pages alone.

use bytes::Bytes;
use hybster_tss::Digest;

use crate::ids::OrderNumber;
use crate::wire::state::NodeId;
use crate::wire::{Put, Reader, WireError};

/// Children of a node.
pub(super) const FANOUT: usize = 64;
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

/// Digest of the content of a node: the first byte separates pages, nodes and root records.
pub(super) fn content_digest(node: NodeId, content: &[u8]) -> Digest {
    let domain = match place(node).1 {
        0 => 0,
        ROOT_LEVEL => 2,
        _ => 1,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[domain]);
    hasher.update(content);
    Digest(*hasher.finalize().as_bytes())
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

/// Digests of a tree, level by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    pub levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Builds the tree over page digests; nodes whose children equal those in `old` keep their
    /// digest without hashing.
    pub fn build(pages: Vec<Digest>, old: Option<&Tree>) -> Tree {
        let mut levels = vec![pages];
        while levels.last().is_some_and(|level| level.len() > 1) {
            let depth = levels.len();
            let below = &levels[depth - 1];
            let old_below = old.and_then(|tree| tree.levels.get(depth - 1));
            let old_here = old.and_then(|tree| tree.levels.get(depth));
            let level = below
                .chunks(FANOUT)
                .enumerate()
                .map(|(index, children)| {
                    let from = index * FANOUT;
                    let same = old_below
                        .and_then(|old| old.get(from..from + children.len()))
                        .is_some_and(|old| old == children)
                        && old_below.is_some_and(|old| {
                            old.len() == from + children.len() || children.len() == FANOUT
                        });
                    match old_here.and_then(|old| old.get(index)) {
                        Some(digest) if same => *digest,
                        _ => content_digest(node(0, 1, 0), &concatenated(children)),
                    }
                })
                .collect();
            levels.push(level);
        }
        Tree { levels }
    }

    /// The root's digest; zero for a tree without pages.
    pub fn root(&self) -> Digest {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The digest of a node.
    pub fn digest(&self, level: u8, index: u64) -> Option<Digest> {
        self.levels.get(usize::from(level))?.get(usize::try_from(index).ok()?).copied()
    }

    /// The content of an inner node: the digests of its children.
    pub fn children(&self, level: u8, index: u64) -> Option<Bytes> {
        let below = self.levels.get(usize::from(level.checked_sub(1)?))?;
        let from = usize::try_from(index).ok()?.checked_mul(FANOUT)?;
        let to = (from + FANOUT).min(below.len());
        (from < to).then(|| concatenated(&below[from..to]).into())
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
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.put_u32(FORMAT);
        out.put_u64(self.order.0);
        for tree in 0..TREES {
            out.put_u64(self.pages[tree]);
            out.bytes(&self.roots[tree].0);
        }
        out.into()
    }

    pub fn parse(bytes: &[u8]) -> Result<RootRecord, WireError> {
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
        Ok(RootRecord { order, pages, roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(count: u64) -> Vec<Digest> {
        (0..count).map(|i| content_digest(node(1, 0, i), &i.to_le_bytes())).collect()
    }

    #[test]
    fn rebuilding_on_an_old_tree_gives_the_same_tree() {
        for count in [0, 1, 2, 63, 64, 65, 4096, 4097, 5000] {
            let old = Tree::build(pages(count), None);
            let widths: Vec<u64> = old.levels.iter().map(|l| l.len() as u64).collect();
            assert_eq!(widths, shape(count));
            for other in [count.saturating_sub(1), count, count + 1, count + 70] {
                let mut changed = pages(other);
                if let Some(first) = changed.get_mut(other as usize / 2) {
                    first.0[0] ^= 1;
                }
                assert_eq!(Tree::build(changed.clone(), Some(&old)), Tree::build(changed, None));
            }
        }
    }

    #[test]
    fn a_nodes_content_has_its_digest() {
        let tree = Tree::build(pages(5000), None);
        for level in 1..tree.levels.len() as u8 {
            for index in 0..tree.levels[usize::from(level)].len() as u64 {
                let content = tree.children(level, index).unwrap();
                let digest = content_digest(node(1, level, index), &content);
                assert_eq!(tree.digest(level, index), Some(digest));
            }
        }
        assert_eq!(tree.children(1, 1 << 40), None);
    }
}
