//! The checkpoint on disk as a start reads it: twice, and never all of it in memory.
//!
//! First all pages are digested, in the order of the file and so at the speed of the disk, which tells whether it
//! is the checkpoint that was certified. Then the stages take what they want, page by page; the service has
//! the state once then, and nobody else has it. The second time most comes from the page cache.

use std::sync::Arc;

use bytes::Bytes;
use hybster_log::Directory;
use hybster_proto::ids::OrderNumber;
use hybster_proto::service::Snapshot;
use hybster_proto::state::{TransferredPages, TransferredState, checkpoint_id, page_digest};
use hybster_proto::wire::CheckpointId;
use hybster_store::{PageId, Reader, Store, StoreError};
use hybster_tss::Digest;
use parking_lot::Mutex;

use super::saver::{BOOKKEEPING, SERVICE};

/// A checkpoint whose digest is the one that was certified.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: CheckpointId,
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages {
    counts: [u64; 2],
    source: Mutex<Source>,
}

#[derive(Debug)]
struct Source {
    reader: Reader<Directory>,
    /// Why a page could not be read, though it could a moment ago.
    failure: Option<StoreError>,
}

impl Restored {
    /// Reads all pages. `directory` is the store's, opened once more.
    pub(super) fn read(
        store: &mut Store<Directory>,
        directory: Directory,
    ) -> Result<Self, StoreError> {
        let mut found = None;
        store.verify_beside(
            |_, content| page_digest(content).0,
            |manifest, digests| {
                let of = |part: u8| digests.get(usize::from(part)).map_or(&[][..], Vec::as_slice);
                let digests = [BOOKKEEPING, SERVICE].map(of);
                let digests = digests.map(|of| of.iter().copied().map(Digest).collect());
                let id = checkpoint_id(OrderNumber(manifest.order), digests);
                found = Some(id);
                id.digest.0
            },
        )?;
        let id = found.expect("a checkpoint that is verified was read");
        let reader = store.reader(directory)?;
        let counts = [BOOKKEEPING, SERVICE].map(|part| reader.pages_of(part));
        let source = Mutex::new(Source { reader, failure: None });
        Ok(Self { id, pages: Arc::new(Pages { counts, source }) })
    }

    /// What the stages begin with. Its pages are read when they are asked for, and empty once one could not
    /// be: [`Self::checked`] tells.
    pub(crate) fn state(&self) -> TransferredState {
        let part = |part| Part { of: Arc::clone(&self.pages), part };
        let [bookkeeping, service] =
            [BOOKKEEPING, SERVICE].map(|it| TransferredPages::read_from(Arc::new(part(it))));
        TransferredState { bookkeeping, service }
    }

    /// To be called when the stages have the state, before anything is made of it.
    ///
    /// # Errors
    /// A page could not be read any more.
    pub(crate) fn checked(self) -> Result<(), StoreError> {
        self.pages.source.lock().failure.take().map_or(Ok(()), Err)
    }
}

/// The pages of the bookkeeping or of the service.
struct Part {
    of: Arc<Pages>,
    part: u8,
}

impl Snapshot for Part {
    fn page_count(&self) -> u64 {
        self.of.counts[usize::from(self.part)]
    }

    fn page(&self, index: u64) -> Bytes {
        let Source { reader, failure } = &mut *self.of.source.lock();
        if index >= self.page_count() || failure.is_some() {
            return Bytes::new();
        }
        match reader.page(PageId { part: self.part, index }) {
            Ok(content) => Bytes::copy_from_slice(content),
            Err(error) => {
                *failure = Some(error);
                Bytes::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use hybster_store::{Manifest, Options};

    use super::*;

    const PAGES: u64 = 300;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("hybster-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn page(part: u8, index: u64) -> Vec<u8> {
        vec![index as u8 ^ part; 5_000 + index as usize]
    }

    /// A store with a checkpoint under its name, or under another one.
    fn store(path: &Path, is_right: bool) -> Store<Directory> {
        let directory = Directory::open(path).expect("a directory");
        let (mut store, _) = Store::open(directory, Options::default(), [6; 16]).expect("a store");
        let counts = [1, PAGES];
        let digests = |part: u8| {
            let pages = 0..counts[usize::from(part)];
            pages.map(|index| page_digest(&page(part, index))).collect()
        };
        let id = checkpoint_id(OrderNumber(64), [digests(BOOKKEEPING), digests(SERVICE)]);
        let root = if is_right { id.digest.0 } else { [9; 32] };
        let manifest = Manifest { order: 64, root, pages: counts.to_vec(), ..Manifest::default() };
        store.begin(manifest).expect("no other update");
        for part in [BOOKKEEPING, SERVICE] {
            for index in 0..counts[usize::from(part)] {
                store.put_page(PageId { part, index }, &page(part, index)).expect("room");
            }
        }
        store.commit().expect("a disk that works");
        store
    }

    fn read(path: &Path, is_right: bool) -> Result<Restored, StoreError> {
        let mut store = store(path, is_right);
        Restored::read(&mut store, Directory::open(path).expect("a directory"))
    }

    #[test]
    fn pages_are_those_that_were_certified() {
        let path = scratch("restored");
        let restored = read(&path, true).unwrap();
        assert_eq!(restored.id.order, OrderNumber(64));
        let state = restored.state();
        assert_eq!((state.bookkeeping.page_count(), state.service.page_count()), (1, PAGES));
        // In any order, and more than once.
        for index in (0..PAGES).rev().chain(0..PAGES) {
            assert_eq!(state.service.page(index), page(SERVICE, index), "page {index}");
        }
        assert_eq!(state.bookkeeping.page(0), page(BOOKKEEPING, 0));
        assert_eq!((state.service.page(PAGES), state.bookkeeping.page(1)), Default::default());
        restored.checked().unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_checkpoint_with_another_digest_is_refused() {
        let path = scratch("restored-other");
        let error = read(&path, false).unwrap_err();
        assert!(matches!(error, StoreError::Digest { order: 64, .. }), "{error}");
        std::fs::remove_dir_all(&path).unwrap();
    }

    /// A disk may fail between the two times that a page is read.
    #[test]
    fn a_page_that_is_not_what_it_was_a_moment_ago_is_told() {
        let path = scratch("restored-late");
        let restored = read(&path, true).unwrap();
        let file = OpenOptions::new().write(true).open(path.join("pages.store")).unwrap();
        file.write_all_at(&[7; 4096], file.metadata().unwrap().len() / 2).unwrap();
        let state = restored.state();
        let wrong = (0..PAGES).filter(|index| state.service.page(*index) != page(SERVICE, *index));
        assert!(wrong.count() > 0);
        let error = restored.checked().unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        std::fs::remove_dir_all(&path).unwrap();
    }
}
