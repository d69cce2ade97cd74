//! Which pages are written.

use std::collections::BTreeMap;

use hybster_proto::ids::OrderNumber;
use hybster_proto::service::Pages;
use hybster_proto::wire::CheckpointId;
use hybster_tss::Digest;

use super::*;

/// Pages with versions: one per page.
struct Versioned(Vec<(u64, &'static str)>);

impl Snapshot for Versioned {
    fn page_count(&self) -> u64 {
        self.0.len() as u64
    }

    fn page(&self, index: u64) -> Bytes {
        Bytes::from_static(self.0[index as usize].1.as_bytes())
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        self.0.get(index as usize).map(|(version, _)| *version)
    }
}

fn taken(bookkeeping: &[&'static str], service: &[(u64, &'static str)]) -> TakenSnapshot {
    let bookkeeping = bookkeeping.iter().map(|page| Bytes::from_static(page.as_bytes())).collect();
    TakenSnapshot {
        order: OrderNumber(1),
        bookkeeping: Arc::new(Pages(bookkeeping)),
        service: Arc::new(Versioned(service.to_vec())),
        installed: false,
    }
}

fn put_and_removed(changes: impl Iterator<Item = Change<Bytes>>) -> Vec<String> {
    let name = |page: PageId| format!("{}.{}", page.part, page.index);
    let told = changes.map(|change| match change {
        Change::Put(page, bytes) => {
            format!("{}={}", name(page), String::from_utf8_lossy(&bytes))
        }
        Change::Remove(page) => format!("-{}", name(page)),
    });
    told.collect()
}

#[test]
fn only_pages_that_differ_are_written() {
    let before = taken(&["meta", "a"], &[(1, "x"), (1, "y"), (1, "z")]);
    // The first one has all, and what an earlier process left beyond is removed.
    let all = put_and_removed(changes(&before, None, [0, 5]));
    assert_eq!(all, ["0.0=meta", "0.1=a", "1.0=x", "1.1=y", "1.2=z", "-1.3", "-1.4"]);
    // Pages without versions are compared; with versions, these are.
    let after = taken(&["meta", "b"], &[(1, "x"), (2, "Y")]);
    let changed = put_and_removed(changes(&after, Some(&before), [2, 3]));
    assert_eq!(changed, ["0.1=b", "1.1=Y", "-1.2"]);
}

#[test]
fn what_the_disk_has_is_the_last_checkpoint_whatever_is_left_out() {
    let mut disk: BTreeMap<PageId, Bytes> = BTreeMap::new();
    let mut written: Option<TakenSnapshot> = None;
    for round in 0..64u64 {
        let service: Vec<(u64, &'static str)> = (0..1 + (round * 7) % 200)
            .map(|page| match round % (page + 2) {
                0 => (round, ["p", "q", "r"][(round % 3) as usize]),
                rest => (round - rest, ["p", "q", "r"][((round - rest) % 3) as usize]),
            })
            .collect();
        let now = taken(&["m", ["s", "t"][(round % 2) as usize]], &service);
        let pages = [
            disk.keys().filter(|page| page.part == BOOKKEEPING).count() as u64,
            disk.keys().filter(|page| page.part == SERVICE).count() as u64,
        ];
        for change in changes(&now, written.as_ref(), pages) {
            match change {
                Change::Put(page, bytes) => drop(disk.insert(page, bytes)),
                Change::Remove(page) => assert!(disk.remove(&page).is_some(), "{page}"),
            }
        }
        for (part, of) in [(BOOKKEEPING, &now.bookkeeping), (SERVICE, &now.service)] {
            let there: Vec<_> = disk.iter().filter(|(page, _)| page.part == part).collect();
            assert_eq!(there.len() as u64, of.page_count());
            for (page, bytes) in there {
                assert_eq!(*bytes, of.page(page.index), "round {round}, {page}");
            }
        }
        // Now and then the process is another one.
        written = (round % 9 != 0).then_some(now);
    }
}

/// A directory that is gone at the end.
struct Scratch(std::path::PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_process_goes_on_from_what_the_disk_has() {
    let name = format!("hybster-saver-{}", std::process::id());
    let scratch = Scratch(std::env::temp_dir().join(name));
    let (saved, (outcomes, told)) = (Arc::new(AtomicU64::new(0)), std::sync::mpsc::channel());
    let start = || {
        let directory = Directory::open(&scratch.0).unwrap();
        let (store, _) =
            Store::open(directory, hybster_store::Options::default(), [7; 16]).unwrap();
        let outcomes = outcomes.clone();
        Saver::start(store, Arc::clone(&saved), move |outcome| {
            let _ = outcomes.send(outcome);
        })
        .unwrap()
    };
    let checkpoint = |order, digest, is_there| {
        let taken = taken(&["meta"], &[(order, "x"), (1, "y")]);
        let id = CheckpointId { order: OrderNumber(order), digest: Digest([digest; 32]) };
        DurableCheckpoint { id, taken, certificate: None, is_anew: false, is_there }
    };
    let saver = start();
    saver.save(checkpoint(4, 4, false));
    assert!(saver.go_on(Instant::now()).is_none());
    assert_eq!(told.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), 4);
    saver.stop();
    // One that is said to be there and is another is not believed.
    for (digest, is_it) in [(9, false), (4, true)] {
        let saver = start();
        saver.save(checkpoint(4, digest, true));
        assert_eq!(saver.progress.lock().written.is_some(), is_it);
        assert!(!saver.has_next());
        saver.stop();
    }
}
