//! The segment that is written to: where its next sector is, and how sectors are made.

use crate::format::{
    BLOCK, BLOCK_PAYLOAD, BLOCK_SECTORS, HEAD, Header, PAYLOAD, SECTOR, SectorHead, seal,
    segment_name,
};
use crate::{Disk, LogError};

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) file: F,
    pub(super) header: Header,
    /// Bytes of the file that are written, its header included: whole blocks.
    end: u64,
    /// Bytes that segments before it were given.
    before: u64,
}

/// What all sectors of a write have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) seed: u32,
    pub(super) synced: u64,
    pub(super) flags: u16,
}

impl<F> Segment<F> {
    pub(super) fn new(file: F, header: Header) -> Self {
        Self { file, header, end: BLOCK as u64, before: 0 }
    }

    /// The segment that comes after this one.
    pub(super) fn successor(&self, file: F, header: Header) -> Self {
        Self { file, header, end: BLOCK as u64, before: self.written_in_all() }
    }

    pub(super) fn name(&self) -> String {
        segment_name(self.header.segment)
    }

    pub(super) fn next_ordinal(&self) -> u64 {
        self.header.first_ordinal + self.end / SECTOR as u64 - BLOCK_SECTORS
    }

    pub(super) fn written_in_all(&self) -> u64 {
        self.before + self.end
    }

    /// Bytes of the file that are not written yet.
    pub(super) fn left(&self) -> u64 {
        self.header.bytes - self.end
    }

    /// Whether it has room for so many bytes of records; none take a block, too.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        bytes.max(1) <= self.left() / BLOCK as u64 * BLOCK_PAYLOAD as u64
    }

    /// Writes whole blocks with so many bytes of records, which `copy` gets piece by piece. A sector is
    /// written once; what the last block has left over is never used.
    pub(super) fn write<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        staging: &mut Vec<u8>,
        stamp: Stamp,
        mut copy: impl FnMut(&mut [u8]),
        bytes: u64,
    ) -> Result<(), LogError> {
        debug_assert!(self.has_room(bytes));
        let mut left = bytes as usize;
        let blocks = left.div_ceil(BLOCK_PAYLOAD).max(1);
        staging.resize(blocks * BLOCK, 0);
        let first = self.next_ordinal();
        for (ordinal, sector) in (first..).zip(staging.chunks_exact_mut(SECTOR)) {
            let used = left.min(PAYLOAD);
            left -= used;
            copy(&mut sector[HEAD..HEAD + used]);
            sector[HEAD + used..].fill(0);
            let head = SectorHead {
                used: used as u16,
                flags: stamp.flags,
                segment: self.header.segment,
                ordinal,
                synced: stamp.synced,
            };
            seal(sector, &head, stamp.seed);
        }
        if let Err(source) = disk.write(&self.file, staging, self.end) {
            let file = disk.path(&self.name());
            return Err(LogError::Io { action: "writing", file, source });
        }
        self.end += staging.len() as u64;
        Ok(())
    }
}
