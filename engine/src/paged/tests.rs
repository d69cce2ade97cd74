//! Containers against plain ones, and their pages: what they cost, and that they follow from the
//! operations.

use std::collections::BTreeMap;
use std::ops::Bound;

use hybster_proto::service::{MAX_PAGE_BYTES, PAGES_PER_GROUP, Pages};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Map = PagedMap<u16, Vec<u8>>;

fn pages(part: &mut dyn Paged) -> Pages {
    let snapshot = part.snapshot();
    Pages((0..snapshot.page_count()).map(|page| snapshot.page(page)).collect())
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, usize),
    Remove(u16),
    /// A value becomes longer, or shorter.
    Modify(u16, usize),
    PopFirst,
    Range(u16, u16),
    /// A checkpoint, to which a later one is compared.
    Checkpoint,
    /// A new instance takes over from the pages, or this one from what changed since the checkpoint.
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length =
        prop_oneof![20 => 0..40usize, 20 => 0..3000usize, 5 => Just(9000), 1 => Just(2_500_000)];
    let key = || 0..400u16;
    let step = prop_oneof![
        8 => (key(), 0..900usize).prop_map(|(key, length)| Step::Insert(key, length)),
        1 => (key(), length.clone()).prop_map(|(key, length)| Step::Insert(key, length)),
        5 => key().prop_map(Step::Remove),
        2 => (key(), length).prop_map(|(key, length)| Step::Modify(key, length)),
        2 => Just(Step::PopFirst),
        1 => (key(), key()).prop_map(|(a, b)| Step::Range(a.min(b), a.max(b))),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restore),
    ];
    vec(step, 1..300)
}

fn value(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + length) as u8).collect()
}

/// What a map with the same steps has, and no restores.
fn run(steps: &[Step]) {
    let (mut plain, mut map) = (BTreeMap::<u16, Vec<u8>>::new(), Map::new());
    let mut untouched = Map::new();
    let mut base: Option<(Arc<dyn Snapshot>, Pages)> = None;
    for step in steps {
        match *step {
            Step::Insert(key, length) => {
                let before = plain.insert(key, value(length));
                assert_eq!(map.insert(key, value(length)), before);
                untouched.insert(key, value(length));
            }
            Step::Remove(key) => {
                assert_eq!(map.remove(&key), plain.remove(&key));
                untouched.remove(&key);
            }
            Step::Modify(key, length) => {
                let found = plain.get_mut(&key).map(|it| *it = value(length));
                assert_eq!(map.modify(&key, |it| *it = value(length)), found);
                untouched.modify(&key, |it| *it = value(length));
            }
            Step::PopFirst => {
                assert_eq!(map.pop_first(), plain.pop_first());
                untouched.pop_first();
            }
            Step::Range(from, to) => {
                for bounds in [
                    (Bound::Included(from), Bound::Excluded(to)),
                    (Bound::Included(from), Bound::Included(to)),
                    (Bound::Unbounded, Bound::Excluded(to)),
                    (Bound::Excluded(from), Bound::Unbounded),
                ] {
                    assert!(map.range(bounds).eq(plain.range(bounds)), "{bounds:?}");
                }
            }
            Step::Checkpoint => base = Some((map.snapshot(), pages(&mut map))),
            Step::Restore => {
                let now = pages(&mut map);
                let mut other = Map::new();
                other.insert(9, vec![1]);
                other.restore(&now).unwrap();
                match base.take() {
                    // Back to an earlier state, and from there to the present one.
                    Some((before, old)) => {
                        let changed = differing(&old, &now);
                        map.restore(&old).unwrap();
                        let again = map.snapshot();
                        map.restore_changed(&now, &*again, &changed).unwrap();
                        drop(before);
                    }
                    None => map = other.clone(),
                }
                assert_eq!(pages(&mut other), now);
            }
        }
        assert_eq!((map.len(), map.first(), map.last()), {
            (plain.len(), plain.first_key_value(), plain.last_key_value())
        });
    }
    assert!(map.iter().eq(&plain));
    let now = pages(&mut map);
    assert_eq!(now, pages(&mut untouched), "pages follow from the operations");
    assert!(now.0.iter().all(|page| page.len() <= MAX_PAGE_BYTES));
}

fn differing(old: &Pages, new: &Pages) -> Vec<u64> {
    (0..new.page_count()).filter(|page| old.page(*page) != new.page(*page)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_map_is_as_a_plain_one_and_its_pages_follow_from_its_operations(steps in steps()) {
        run(&steps);
    }

    #[test]
    fn bytes_are_as_plain_ones(steps in vec((0..80_000u64, 0..40_000usize, 0..6u8), 1..40)) {
        let (mut plain, mut bytes) = (Vec::new(), PagedBytes::new());
        for (number, (offset, length, what)) in (1..).zip(steps) {
            match what {
                0 => {
                    plain.resize(offset as usize, 0);
                    bytes.resize(offset);
                }
                1 => {
                    let now = pages(&mut bytes);
                    let mut other = PagedBytes::new();
                    other.write(7, &[7; 70_000]);
                    let base = other.snapshot();
                    let changed = differing(&pages(&mut other), &now);
                    other.restore_changed(&now, &*base, &changed).unwrap();
                    assert_eq!(pages(&mut other), now);
                    bytes = other;
                }
                _ => {
                    let end = offset as usize + length;
                    if length > 0 {
                        plain.resize(plain.len().max(end), 0);
                    }
                    plain[offset as usize..][..length].fill(number);
                    bytes.write(offset, &vec![number; length]);
                }
            }
            assert_eq!(bytes.len(), plain.len() as u64);
        }
        assert_eq!(bytes.read(0, usize::MAX), plain);
        let part = 30_000.min(plain.len())..50_000.min(plain.len());
        assert_eq!(bytes.read(30_000, 20_000), plain[part]);
    }
}

/// What makes a checkpoint cheap: of a large map, an operation touches a page or a few.
#[test]
fn a_change_touches_few_pages_and_the_versions_say_which() {
    let mut map = Map::new();
    (0..20_000).for_each(|key| drop(map.insert(key, vec![1; 100])));
    let before = map.snapshot();
    assert!(before.page_count() > 200);
    let old = Pages((0..before.page_count()).map(|page| before.page(page)).collect());
    map.insert(9_000, vec![2; 100]);
    map.remove(&15_000);
    map.modify(&100, |value| value.push(3));
    let after = map.snapshot();
    let has_changed = |page: &u64| before.page_version(*page) != after.page_version(*page);
    let changed: Vec<u64> = (0..after.page_count()).filter(has_changed).collect();
    assert_eq!(changed.len(), 3);
    assert_eq!(changed, differing(&old, &pages(&mut map)));
    // The old snapshot is as it was.
    assert!((0..before.page_count()).all(|page| before.page(page) == old.page(page)));
    for group in 0..=after.page_count() / PAGES_PER_GROUP {
        let has_one = changed.iter().any(|page| page / PAGES_PER_GROUP == group);
        assert_eq!(before.group_version(group) != after.group_version(group), has_one);
    }
}

#[test]
fn a_map_that_is_emptied_has_one_page() {
    let mut map = Map::new();
    (0..5_000).for_each(|key| drop(map.insert(key, vec![1; 100])));
    map.insert(9_999, value(5 << 20));
    while map.pop_first().is_some() {}
    assert_eq!(pages(&mut map), pages(&mut Map::new()));
    assert!(map.is_empty() && map.first().is_none() && map.last().is_none());
}

#[test]
fn parts_share_the_pages_and_each_gets_its_own_back() {
    let make = || (Map::new(), PagedCell::new(String::new()), PagedBytes::new());
    let (mut map, mut cell, mut bytes) = make();
    (0..3_000).for_each(|key| drop(map.insert(key, vec![5; 50])));
    *cell = "x".repeat(3 << 20);
    bytes.write(100_000, b"end");
    let first = snapshot(&mut [&mut map, &mut cell, &mut bytes]);
    let old = Pages((0..first.page_count()).map(|page| first.page(page)).collect());
    let mut others = make();
    restore(&mut [&mut others.0, &mut others.1, &mut others.2], &old).unwrap();
    assert!(others.0.iter().eq(map.iter()) && *others.1 == *cell && others.2.len() == 100_003);
    // And what changes later.
    map.insert(70, vec![6]);
    bytes.write(0, b"begin");
    let second = snapshot(&mut [&mut map, &mut cell, &mut bytes]);
    let new = Pages((0..second.page_count()).map(|page| second.page(page)).collect());
    let changed = differing(&old, &new);
    assert!(changed.len() < 5, "{changed:?}");
    for group in 0..=second.page_count() / PAGES_PER_GROUP {
        let has_one = changed.iter().any(|page| page / PAGES_PER_GROUP == group);
        assert!(!has_one || first.group_version(group) != second.group_version(group));
    }
    let base = snapshot(&mut [&mut others.0, &mut others.1, &mut others.2]);
    let parts: &mut [&mut dyn Paged] = &mut [&mut others.0, &mut others.1, &mut others.2];
    restore_changed(parts, &new, &*base, &changed).unwrap();
    assert!(others.0.iter().eq(map.iter()));
    assert_eq!(others.2.read(0, 5), b"begin");
    // An error names the page in the whole.
    let mut broken = old.clone();
    broken.0[4] = vec![9].into();
    let error = restore(&mut [&mut map, &mut cell, &mut bytes], &broken).unwrap_err();
    assert_eq!(error.page % 3, 1, "{error}");
}

#[test]
fn pages_that_no_map_has_made_are_refused() {
    let page = |bytes: &[u8]| bytes.to_vec().into();
    for bad in [
        Pages(vec![]),
        Pages(vec![page(&[3])]),
        Pages(vec![page(&[1, 0, 0])]),
        Pages(vec![page(&[1, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0])]),
        Pages(vec![page(&[1, 255, 255, 255, 255, 0])]),
        Pages(vec![page(&[1, 0, 0, 0, 0, 2])]),
        Pages(vec![page(&[1, 0, 0, 0, 0, 0, 1, 0, 0, 0])]),
        Pages(vec![page(&[1, 0, 0, 0, 0, 0]), page(&[1, 0, 0, 0, 0, 0])]),
    ] {
        assert!(Map::new().restore(&bad).is_err(), "{bad:?}");
        assert!(PagedBytes::new().restore(&bad).is_err(), "{bad:?}");
    }
}
