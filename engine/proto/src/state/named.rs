//! The name of a checkpoint whose pages are not in memory: they are digested one by one, in any order, and
//! dropped. For a replica that reads a checkpoint from its disk.

use hybster_tss::Digest;

use super::tree::{FANOUT, ROOT, RootRecord, TREES, content_digest, node};
use crate::ids::OrderNumber;
use crate::wire::CheckpointId;

/// The digest of a page, of the bookkeeping or of the service: the page's share in [`checkpoint_id`].
#[must_use]
pub fn page_digest(content: &[u8]) -> Digest {
    // All pages have one key, whatever tree they are in and wherever.
    content_digest(node(0, 0, 0), content)
}

/// The name of a checkpoint whose pages have these digests, those of the bookkeeping first.
#[must_use]
pub fn checkpoint_id(order: OrderNumber, pages: [Vec<Digest>; TREES]) -> CheckpointId {
    let counts = pages.each_ref().map(|digests| digests.len() as u64);
    let record = RootRecord { order, pages: counts, roots: pages.map(root) };
    CheckpointId { order, digest: content_digest(ROOT, &record.encode()) }
}

/// The root of the tree over these pages, as [`super::tree::Tree::root`] of the whole tree.
fn root(mut level: Vec<Digest>) -> Digest {
    while level.len() > 1 {
        let mut children = Vec::with_capacity(FANOUT * 32);
        level = level
            .chunks(FANOUT)
            .map(|digests| {
                children.clear();
                digests.iter().for_each(|digest| children.extend(digest.0));
                content_digest(node(0, 1, 0), &children)
            })
            .collect();
    }
    level.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::Job;
    use super::*;
    use crate::output::TakenSnapshot;
    use crate::service::Pages;

    #[test]
    fn pages_one_by_one_give_the_name_that_the_state_stage_gives() {
        for counts in [[1, 0], [1, 1], [2, 64], [1, 65], [64, 64 * 64 + 1]] {
            let pages = counts.map(|count| {
                Pages((0..count).map(|i| Bytes::from(format!("{count} {i}"))).collect())
            });
            let order = OrderNumber(128);
            let digests =
                pages.each_ref().map(|of| of.0.iter().map(|it| page_digest(it)).collect());
            let [bookkeeping, service] = pages.map(Arc::new);
            let mut job = Job::new(TakenSnapshot { order, bookkeeping, service, installed: true });
            assert!(job.advance(None, &mut { usize::MAX }));
            assert_eq!(checkpoint_id(order, digests), job.finish(None).id, "{counts:?}");
        }
    }
}
