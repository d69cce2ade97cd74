//! Several parts as one state: of n parts, page i is page i / n of part i mod n.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{PAGES_PER_GROUP, RestoreError, Snapshot};

use super::{Paged, wrong};

/// The state of several parts. Their order must always be the same. [`Typed`](crate::typed::Typed) does this for
/// services with types; one that implements [`Service`](crate::Service) itself calls it:
///
/// ```
/// use hybster::paged::{PagedCell, PagedMap, restore, snapshot};
///
/// let mut names = PagedMap::<String, u64>::default();
/// let mut count = PagedCell::<u64>::default();
/// names.insert("a".into(), 1);
/// *count += 1;
/// let taken = snapshot(&mut [&mut names, &mut count]);
///
/// let (mut same, mut as_well) = (PagedMap::<String, u64>::default(), PagedCell::<u64>::default());
/// restore(&mut [&mut same, &mut as_well], &*taken)?;
/// assert_eq!((same.get("a"), *as_well), (Some(&1), 1));
/// # Ok::<(), hybster::RestoreError>(())
/// ```
#[must_use]
pub fn snapshot(parts: &mut [&mut dyn Paged]) -> Arc<dyn Snapshot> {
    match parts {
        [only] => only.snapshot(),
        parts => Arc::new(Joined(parts.iter_mut().map(|part| part.snapshot()).collect())),
    }
}

/// Gives each part its pages of a state that [`snapshot`] made of equal parts.
///
/// # Errors
/// If a part cannot read them.
pub fn restore(parts: &mut [&mut dyn Paged], source: &dyn Snapshot) -> Result<(), RestoreError> {
    let count = parts.len() as u64;
    if count == 0 && source.page_count() > 0 {
        return Err(wrong(0, "there is a page, and the service has no state"));
    }
    for (at, part) in (0..).zip(parts) {
        let own = Share { whole: source, at, count };
        part.restore(&own).map_err(|error| own.globally(error))?;
    }
    Ok(())
}

/// As [`restore`], where only the pages in `changed` differ from `base`, an earlier state of these parts.
///
/// # Errors
/// If a part cannot read them.
pub fn restore_changed(
    parts: &mut [&mut dyn Paged],
    source: &dyn Snapshot,
    base: &dyn Snapshot,
    changed: &[u64],
) -> Result<(), RestoreError> {
    let count = parts.len() as u64;
    for (at, part) in (0..).zip(parts) {
        let own = Share { whole: source, at, count };
        let base = Share { whole: base, at, count };
        let changed = changed.iter().filter(|page| **page % count == at);
        let changed: Vec<u64> = changed.map(|page| page / count).collect();
        part.restore_changed(&own, &base, &changed).map_err(|error| own.globally(error))?;
    }
    Ok(())
}

/// The snapshots of all parts.
struct Joined(Vec<Arc<dyn Snapshot>>);

impl Joined {
    fn of(&self, index: u64) -> Option<(&dyn Snapshot, u64)> {
        let count = self.0.len() as u64;
        let part = self.0.get(usize::try_from(index.checked_rem(count)?).ok()?)?;
        Some((&**part, index / count))
    }
}

impl Snapshot for Joined {
    fn page_count(&self) -> u64 {
        let count = self.0.len() as u64;
        let ends = (0..).zip(&self.0).filter(|(_, part)| part.page_count() > 0);
        ends.map(|(at, part)| (part.page_count() - 1) * count + at + 1).max().unwrap_or(0)
    }

    fn page(&self, index: u64) -> Bytes {
        self.of(index).map_or_else(Bytes::new, |(part, index)| part.page(index))
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        self.of(index).and_then(|(part, index)| part.page_version(index))
    }

    /// The sum of the versions of all groups that have such a page: none falls, so it rises with each.
    fn group_version(&self, group: u64) -> Option<u64> {
        let count = self.0.len() as u64;
        let (first, last) =
            (group * PAGES_PER_GROUP, group * PAGES_PER_GROUP + PAGES_PER_GROUP - 1);
        let mut sum = 0u64;
        for part in &self.0 {
            let groups = first / count / PAGES_PER_GROUP..=last / count / PAGES_PER_GROUP;
            for group in groups {
                sum = sum.wrapping_add(part.group_version(group)?);
            }
        }
        Some(sum)
    }
}

/// The pages of one part in the state of all.
struct Share<'a> {
    whole: &'a dyn Snapshot,
    at: u64,
    count: u64,
}

impl Share<'_> {
    fn globally(&self, error: RestoreError) -> RestoreError {
        RestoreError { page: error.page * self.count + self.at, what: error.what }
    }
}

impl Snapshot for Share<'_> {
    fn page_count(&self) -> u64 {
        // Those after its last one are empty: they are there because other parts have more.
        let all = self.whole.page_count();
        all.saturating_sub(self.at).div_ceil(self.count)
    }

    fn page(&self, index: u64) -> Bytes {
        self.whole.page(index * self.count + self.at)
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        self.whole.page_version(index * self.count + self.at)
    }
}
