//! What a store may be told: bounds.

use crate::StoreError;
use crate::format::{BLOCK, FAR_BLOCKS};

/// The bounds of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The file is never longer than this, in bytes. The old checkpoint and the new one must fit, so
    /// the state may have a little less than half of it.
    pub most_bytes: u64,
    /// The most pages of a checkpoint, all parts together: 32 bytes of memory for each while the
    /// store is open.
    pub most_pages: u64,
    /// The longest page, in bytes.
    pub longest_page: u32,
    /// The longest certificate and the longest configuration, in bytes each.
    pub longest_blob: u32,
    /// A sync comes after so many bytes of pages, at the latest. A last sync of all of them would make
    /// others that sync on the same disk, such as the log, wait for it.
    pub sync_bytes: u64,
}

impl Default for Options {
    /// A file of 256 GiB, 2^24 pages of up to 4 MiB, 1 MiB for each blob, a sync every 16 MiB.
    fn default() -> Self {
        Self {
            most_bytes: 256 << 30,
            most_pages: 1 << 24,
            longest_page: 4 << 20,
            longest_blob: 1 << 20,
            sync_bytes: 16 << 20,
        }
    }
}

impl Options {
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let refuse = |why| Err(StoreError::Bounds(why));
        if self.most_bytes < 4 * BLOCK || self.most_bytes / BLOCK > FAR_BLOCKS {
            return refuse("a store may take between 16,384 bytes and 8 TiB");
        }
        if self.most_pages > 1 << 32 || self.longest_page > 1 << 30 || self.longest_blob > 1 << 30 {
            return refuse("a store takes up to 2^32 pages, and pages and blobs of up to 1 GiB");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sizes_that_make_sense_are_taken() {
        let valid = Options::default();
        assert!(valid.validate().is_ok());
        let invalid = [
            Options { most_bytes: 4096, ..valid },
            Options { most_bytes: u64::MAX, ..valid },
            Options { most_pages: 1 << 33, ..valid },
            Options { longest_page: u32::MAX, ..valid },
            Options { longest_blob: u32::MAX, ..valid },
        ];
        for options in invalid {
            assert!(matches!(options.validate(), Err(StoreError::Bounds(_))), "{options:?}");
        }
    }
}
