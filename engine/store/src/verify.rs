//! Whether the pages of the last checkpoint have the digest that was certified.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use hybster_log::Disk;

use crate::store::FILE;
use crate::table::PageId;
use crate::{Manifest, Store, StoreError};

type Digest = [u8; 32];

/// So many bytes of pages are digested at a time on the other thread, or a page that is longer.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are filled, digested, or on their way.
const BATCHES: usize = 4;

impl<D: Disk> Store<D> {
    /// Reads all pages, in the order of the file, and compares their digest with that of the manifest. `page`
    /// is called with each page and makes its digest (it may keep the content, too); `root` gets
    /// the digests of each part's pages and makes that of the checkpoint. 32 bytes of memory are used for
    /// each page.
    ///
    /// # Errors
    /// A page is damaged, the digest is another one, or there is no checkpoint.
    pub fn verify(
        &mut self,
        mut page: impl FnMut(PageId, &[u8]) -> Digest,
        root: impl FnOnce(&Manifest, &[Vec<Digest>]) -> Digest,
    ) -> Result<(), StoreError> {
        let mut digests = self.no_digests()?;
        let mut scan = self.scan();
        while let Some((id, content)) = scan.next(self)? {
            digests[usize::from(id.part)][id.index as usize] = page(id, content);
        }
        self.compare(root, &digests)
    }

    /// As [`Self::verify`], with digests made on a thread of its own while this one reads. This takes 4 MiB of
    /// memory besides, or four pages if they are longer.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_beside(
        &mut self,
        page: impl Fn(PageId, &[u8]) -> Digest + Sync,
        root: impl FnOnce(&Manifest, &[Vec<Digest>]) -> Digest,
    ) -> Result<(), StoreError> {
        let page = &page;
        thread::scope(|scope| {
            let (full, to_digest) = channel::<Batch>();
            let (done, digested) = channel();
            let digest = move || {
                for mut batch in to_digest {
                    batch.pages.iter_mut().fold(0, |start, (id, end, digest)| {
                        *digest = page(*id, &batch.bytes[start..*end]);
                        *end
                    });
                    if done.send(batch).is_err() {
                        break;
                    }
                }
            };
            match thread::Builder::new().name("digests".into()).spawn_scoped(scope, digest) {
                Ok(_) => {
                    let digests = self.scan_beside(&full, &digested)?;
                    self.compare(root, &digests)
                }
                // One thread does it as well.
                Err(_) => self.verify(page, root),
            }
        })
    }

    /// The digests of all pages. Whoever gets the batches from one channel puts them into the other.
    fn scan_beside(
        &mut self,
        full: &Sender<Batch>,
        digested: &Receiver<Batch>,
    ) -> Result<Vec<Vec<Digest>>, StoreError> {
        let mut digests = self.no_digests()?;
        let (mut batch, mut under_way) = (Batch::default(), 0);
        let mut scan = self.scan();
        loop {
            let next = scan.next(self)?;
            let has_room = next.is_some_and(|(_, content)| batch.has_room(content.len()));
            if !has_room {
                full.send(batch).expect(DIGESTS);
                under_way += 1;
                batch = Batch::default();
                while under_way == BATCHES - 1 || (next.is_none() && under_way > 0) {
                    batch = digested.recv().expect(DIGESTS);
                    under_way -= 1;
                    for (id, _, digest) in batch.pages.drain(..) {
                        digests[usize::from(id.part)][id.index as usize] = digest;
                    }
                    batch.bytes.clear();
                }
            }
            let Some((id, content)) = next else { return Ok(digests) };
            batch.bytes.extend_from_slice(content);
            batch.pages.push((id, batch.bytes.len(), [0; 32]));
        }
    }

    /// A digest for each page, to be filled in.
    fn no_digests(&self) -> Result<Vec<Vec<Digest>>, StoreError> {
        if self.manifest().is_none() {
            return Err(StoreError::Misuse("a store without a checkpoint has nothing to verify"));
        }
        Ok(self.table.parts.iter().map(|entries| vec![[0; 32]; entries.len()]).collect())
    }

    fn compare(
        &self,
        root: impl FnOnce(&Manifest, &[Vec<Digest>]) -> Digest,
        digests: &[Vec<Digest>],
    ) -> Result<(), StoreError> {
        let manifest = &self.table.manifest;
        if root(manifest, digests) == manifest.root {
            return Ok(());
        }
        Err(StoreError::Digest { file: self.disk.path(FILE), order: manifest.order })
    }
}

/// Why a channel of the other thread is open: it ends when this side drops its own ends.
const DIGESTS: &str = "the thread that digests goes on as long as it is sent something";

/// Pages one behind the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Each with where it ends, and its digest once it is made.
    pages: Vec<(PageId, usize, Digest)>,
}

impl Batch {
    fn has_room(&self, bytes: usize) -> bool {
        self.pages.is_empty() || self.bytes.len() + bytes <= BATCH_BYTES
    }
}
