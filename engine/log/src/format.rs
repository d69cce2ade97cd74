//! The bytes of a segment: its header, its sectors, and the first word of a record. `FORMAT.md` has
//! the diagrams; the fixture at the end of this file pins them.

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;
/// What stands in front of each sector.
pub(crate) const HEAD: usize = 32;
/// Bytes of records in a sector: whole words, so that the first word of a record is never divided.
pub(crate) const PAYLOAD: usize = SECTOR - HEAD;
/// A batch ends at a multiple of this, so no page of the cache, nor physical sector of a disk with large
/// sectors, that has been synced is ever written again.
pub(crate) const BLOCK: usize = 4096;
/// Sectors of a block.
pub(crate) const BLOCK_SECTORS: u64 = (BLOCK / SECTOR) as u64;
/// Bytes of records in a block.
pub(crate) const BLOCK_PAYLOAD: usize = PAYLOAD * (BLOCK / SECTOR);
/// The version that this code writes and reads.
pub(crate) const VERSION: u32 = 1;
/// In [`SectorHead::flags`]: the log was closed here, and nothing follows.
pub(crate) const CLOSED: u16 = 1;

const MAGIC: [u8; 8] = *b"HYBSTLOG";
/// In the first word of a record: the word is never zero, not even that of an empty record.
const RECORD: u64 = 1 << 31;
/// No log gets that far, so that sums of numbers of a header never overflow.
const FAR: u64 = 1 << 60;
const _: () = assert!(PAYLOAD.is_multiple_of(8) && BLOCK.is_multiple_of(SECTOR));

/// The first word of a record: its kind, its writer, and the length of its content.
pub(crate) fn record_word(kind: u16, writer: u16, length: u32) -> u64 {
    debug_assert!(u64::from(length) < RECORD);
    u64::from(kind) << 48 | u64::from(writer) << 32 | RECORD | u64::from(length)
}

/// Kind, writer and length of content; `None` if it is no first word.
pub(crate) fn read_record_word(word: u64) -> Option<(u16, u16, u32)> {
    let length = word as u32 & !(RECORD as u32);
    (word & RECORD != 0).then_some(((word >> 48) as u16, (word >> 32) as u16, length))
}

/// Bytes that a record with content of this length takes in the log.
pub(crate) fn record_bytes(length: u64) -> u64 {
    8 + length.next_multiple_of(8)
}

/// What stands in front of a sector, but for its checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SectorHead {
    /// Bytes of records in it; zeros follow.
    pub(crate) used: u16,
    pub(crate) flags: u16,
    /// The segment that it was written to: recycled files have sectors of older ones.
    pub(crate) segment: u64,
    /// Its number in the log.
    pub(crate) ordinal: u64,
    /// All sectors below this number had been synced when it was written.
    pub(crate) synced: u64,
}

/// What a sector turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sector {
    /// Zeros: never written since it was preallocated.
    Empty,
    /// Written by a log of this identity.
    Sealed(SectorHead),
    /// Anything else.
    Garbage,
}

/// What the checksums of a log start from, so that sectors of another log are none of this one.
pub(crate) fn seed(id: &[u8; 16]) -> u32 {
    crc32c::crc32c(id)
}

/// Writes the head of a sector whose payload is in place.
pub(crate) fn seal(sector: &mut [u8], head: &SectorHead, seed: u32) {
    sector[4..6].copy_from_slice(&head.used.to_le_bytes());
    sector[6..8].copy_from_slice(&head.flags.to_le_bytes());
    sector[8..16].copy_from_slice(&head.segment.to_le_bytes());
    sector[16..24].copy_from_slice(&head.ordinal.to_le_bytes());
    sector[24..32].copy_from_slice(&head.synced.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed, &sector[4..SECTOR]);
    sector[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads a sector; its payload is behind [`HEAD`].
pub(crate) fn read_sector(sector: &[u8], seed: u32) -> Sector {
    if sector.iter().all(|byte| *byte == 0) {
        return Sector::Empty;
    }
    let head = SectorHead {
        used: short(sector, 4),
        flags: short(sector, 6),
        segment: long(sector, 8),
        ordinal: long(sector, 16),
        synced: long(sector, 24),
    };
    let is_whole = crc32c::crc32c_append(seed, &sector[4..SECTOR]) == word(sector, 0)
        && usize::from(head.used) <= PAYLOAD
        && head.used.is_multiple_of(8);
    if is_whole { Sector::Sealed(head) } else { Sector::Garbage }
}

/// The header of a segment: its first block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The identity of the log.
    pub(crate) id: [u8; 16],
    /// The boot of the system under which it was written.
    pub(crate) boot: [u8; 16],
    pub(crate) segment: u64,
    /// The cursor of its first record.
    pub(crate) first_cursor: u64,
    /// The number of its first sector. What an older segment has from there on does not count.
    pub(crate) first_ordinal: u64,
    /// All sectors below this number had been synced when it was written.
    pub(crate) synced: u64,
    /// The length of the file, in bytes.
    pub(crate) bytes: u64,
    /// Where the log may have lost something that was released; `u64::MAX` if nowhere.
    pub(crate) break_at: u64,
    /// What had to be on disk before it was released: [`crate::Durability::code`].
    pub(crate) mode: u8,
}

/// What the first sector of a segment turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderSector {
    /// Zeros: never written.
    Empty,
    /// A header, of this or of another segment.
    Header(Header),
    /// A header of a version that this code cannot read.
    Version(u32),
    /// Anything else.
    Garbage,
}

impl Header {
    /// The first block of the segment.
    pub(crate) fn block(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.id);
        out[32..48].copy_from_slice(&self.boot);
        let longs = [
            self.segment,
            self.first_cursor,
            self.first_ordinal,
            self.synced,
            self.bytes,
            self.break_at,
            u64::from(self.mode),
        ];
        for (at, long) in longs.iter().enumerate() {
            out[48 + 8 * at..56 + 8 * at].copy_from_slice(&long.to_le_bytes());
        }
        let checksum = header_checksum(&out);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the first sector of a file.
    pub(crate) fn read(sector: &[u8]) -> HeaderSector {
        if sector.iter().all(|byte| *byte == 0) {
            return HeaderSector::Empty;
        }
        let version = word(sector, 8);
        if sector[..8] != MAGIC || word(sector, 12) != header_checksum(sector) {
            return HeaderSector::Garbage;
        }
        if version != VERSION {
            return HeaderSector::Version(version);
        }
        let header = Self {
            id: bytes(sector, 16),
            boot: bytes(sector, 32),
            segment: long(sector, 48),
            first_cursor: long(sector, 56),
            first_ordinal: long(sector, 64),
            synced: long(sector, 72),
            bytes: long(sector, 80),
            break_at: long(sector, 88),
            mode: sector[96],
        };
        let is_sound = header.bytes.is_multiple_of(BLOCK as u64)
            && header.bytes > BLOCK as u64
            && header.first_cursor.is_multiple_of(8)
            && header.synced <= header.first_ordinal
            && [header.segment, header.first_cursor, header.first_ordinal, header.bytes]
                .iter()
                .all(|number| *number < FAR)
            && sector[97..SECTOR].iter().all(|byte| *byte == 0);
        if is_sound { HeaderSector::Header(header) } else { HeaderSector::Garbage }
    }
}

fn header_checksum(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..SECTOR])
}

/// Makes all checksums of a segment's file right, for tests that change its bytes.
pub(crate) fn reseal(file: &mut [u8]) {
    let (mut sectors, _) = file.as_chunks_mut::<SECTOR>();
    let Some((header, rest)) = sectors.split_first_mut() else { return };
    let checksum = header_checksum(header);
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    let seed = seed(&bytes(header, 16));
    sectors = rest;
    for sector in sectors.iter_mut().filter(|sector| sector.iter().any(|byte| *byte != 0)) {
        let checksum = crc32c::crc32c_append(seed, &sector[4..]);
        sector[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("segment-{number:016}.log")
}

/// The name of a file that waits to become a segment.
pub(crate) fn spare_name(number: u64) -> String {
    format!("spare-{number:016}.log")
}

/// The number of a segment, from the name of its file.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let number = digits.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Whether a file waits to become a segment, or is left over from making one.
pub(crate) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".log")
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|offset| from[at + offset])
}

fn short(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

fn word(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn long(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: *b"an identity of16",
            boot: *b"a boot's id of16",
            segment: 7,
            first_cursor: 0x1000,
            first_ordinal: 99,
            synced: 98,
            bytes: 1 << 20,
            break_at: u64::MAX,
            mode: 1,
        }
    }

    fn head() -> SectorHead {
        SectorHead { used: 16, flags: CLOSED, segment: 7, ordinal: 100, synced: 99 }
    }

    #[test]
    fn a_header_is_read_as_written_and_no_bit_of_it_may_change() {
        let block = header().block();
        assert_eq!(Header::read(&block[..SECTOR]), HeaderSector::Header(header()));
        assert_eq!(Header::read(&[0; SECTOR]), HeaderSector::Empty);
        for bit in 0..8 * SECTOR {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&damaged[..SECTOR]), HeaderSector::Garbage, "bit {bit}");
        }
        let mut newer = block;
        newer[8] = 2;
        let checksum = header_checksum(&newer);
        newer[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::read(&newer[..SECTOR]), HeaderSector::Version(2));
    }

    #[test]
    fn a_sector_is_read_as_written_and_no_bit_of_it_may_change() {
        let mut sector = [0; SECTOR];
        sector[HEAD..HEAD + 16].fill(5);
        seal(&mut sector, &head(), seed(&[1; 16]));
        assert_eq!(read_sector(&sector, seed(&[1; 16])), Sector::Sealed(head()));
        assert_eq!(read_sector(&sector, seed(&[2; 16])), Sector::Garbage, "another log's");
        assert_eq!(read_sector(&[0; SECTOR], seed(&[1; 16])), Sector::Empty);
        for bit in 0..8 * SECTOR {
            let mut damaged = sector;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_sector(&damaged, seed(&[1; 16])), Sector::Garbage, "bit {bit}");
        }
    }

    #[test]
    fn the_first_word_of_a_record_is_never_zero() {
        assert_eq!(read_record_word(record_word(0, 0, 0)), Some((0, 0, 0)));
        assert_eq!(read_record_word(record_word(3, 2, 77)), Some((3, 2, 77)));
        assert_eq!(read_record_word(0), None);
        assert_eq!((record_bytes(0), record_bytes(1), record_bytes(8)), (8, 16, 16));
    }

    #[test]
    fn names_of_segments_are_read_back() {
        assert_eq!(segment_number(&segment_name(12)), Some(12));
        assert_eq!(segment_number("segment-12.log"), None);
        assert_eq!(segment_number(&spare_name(12)), None);
        assert!(is_spare(&spare_name(12)) && !is_spare(&segment_name(12)));
    }

    /// Another value here is another version of the format.
    #[test]
    fn the_format_is_pinned() {
        let mut sector = [0; SECTOR];
        let content = [record_word(3, 2, 5).to_le_bytes(), *b"hello\0\0\0"].concat();
        sector[HEAD..HEAD + 16].copy_from_slice(&content);
        seal(&mut sector, &head(), seed(&header().id));
        let all = [&header().block()[..], &sector].concat();
        assert_eq!(all[..16], *b"HYBSTLOG\x01\0\0\0=\x85\xa8P");
        assert_eq!(sector[..8], [208, 136, 142, 189, 16, 0, 1, 0]);
        assert_eq!(crc32c::crc32c(&all), 2_909_319_169);
    }
}
