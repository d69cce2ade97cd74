//! The bytes of the file: superblocks, and the table of pages. `FORMAT.md` has the diagrams; the fixture
//! at the end of this file pins them.

use crate::space::Extent;
use crate::table::{Entry, Place};
use crate::{Manifest, Options};

/// Space is taken in blocks of this many bytes: no page of the cache, nor physical sector of a disk
/// with large sectors, has bytes of two pages.
pub(crate) const BLOCK: u64 = 4096;
/// What a disk writes whole or not at all. A superblock is one.
pub(crate) const SECTOR: usize = 512;
/// The first block that is not a superblock's.
pub(crate) const FIRST_BLOCK: u32 = 2;
/// No file has more blocks, so that sums never overflow.
pub(crate) const FAR_BLOCKS: u64 = 1 << 31;
/// The version that this code writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Into how many extents a table may be divided.
pub(crate) const TABLE_EXTENTS: usize = 48;
/// The sequence of a store that has no checkpoint yet. It is made with superblocks 0 and 1, so that
/// whatever happens later there are two.
pub(crate) const NO_CHECKPOINT: u64 = 1;
/// The most parts of a checkpoint.
pub(crate) const MOST_PARTS: usize = 8;

const MAGIC: [u8; 8] = *b"HYBSTORE";
/// Where the extents of a superblock begin.
const EXTENTS_AT: usize = 56;
const _: () = assert!(EXTENTS_AT + 8 * TABLE_EXTENTS <= SECTOR);
/// In the first word of an entry: the page has several extents.
const SCATTERED: u32 = 1 << 31;
/// The table in front of the numbers of pages.
const TABLE_HEAD: usize = 56;

/// What a superblock says: which checkpoint this is, and where its table is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    /// Of the store.
    pub(crate) id: [u8; 16],
    /// Rises by one with each commit. It is in the slot of its lowest bit.
    pub(crate) sequence: u64,
    pub(crate) table_bytes: u64,
    pub(crate) table_checksum: u32,
    pub(crate) table: Vec<Extent>,
}

/// What a sector turns out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    Whole(Superblock),
    /// Whole, but of another version.
    Version(u32),
    Garbage,
}

impl Superblock {
    pub(crate) fn encode(&self) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.id);
        out[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        out[40..48].copy_from_slice(&self.table_bytes.to_le_bytes());
        out[48..52].copy_from_slice(&self.table_checksum.to_le_bytes());
        out[52..56].copy_from_slice(&(self.table.len() as u32).to_le_bytes());
        for (at, extent) in out[EXTENTS_AT..].chunks_exact_mut(8).zip(&self.table) {
            at[..4].copy_from_slice(&extent.start.to_le_bytes());
            at[4..].copy_from_slice(&extent.blocks.to_le_bytes());
        }
        let checksum = checksum_of(&out);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(crate) fn parse(sector: &[u8; SECTOR]) -> Slot {
        let mut reader = Reader(sector);
        let head = (reader.array::<8>(), reader.u32(), reader.u32());
        let (Some(MAGIC), Some(version), Some(checksum)) = head else { return Slot::Garbage };
        if checksum != checksum_of(sector) {
            return Slot::Garbage;
        }
        if version != VERSION {
            return Slot::Version(version);
        }
        Self::parse_fields(reader).map_or(Slot::Garbage, Slot::Whole)
    }

    fn parse_fields(mut reader: Reader<'_>) -> Option<Self> {
        let id = reader.array()?;
        let (sequence, table_bytes) = (reader.u64()?, reader.u64()?);
        let (table_checksum, count) = (reader.u32()?, reader.u32()? as usize);
        let count = Some(count).filter(|count| *count <= TABLE_EXTENTS)?;
        let table = (0..count).map(|_| reader.extent()).collect::<Option<_>>()?;
        Some(Self { id, sequence, table_bytes, table_checksum, table })
    }
}

fn checksum_of(sector: &[u8; SECTOR]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..])
}

/// Blocks of a page, or a table, of this length.
pub(crate) fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK)
}

/// What stands in front of the entries.
pub(crate) fn put_head(manifest: &Manifest, out: &mut Vec<u8>) {
    let Manifest { order, root, pages, certificate, configuration } = manifest;
    out.extend(order.to_le_bytes());
    out.extend(root);
    for length in [pages.len(), certificate.len(), configuration.len(), 0] {
        out.extend((length as u32).to_le_bytes());
    }
    pages.iter().for_each(|count| out.extend(count.to_le_bytes()));
    out.extend(certificate);
    out.extend(configuration);
}

/// The length of [`put_head`].
pub(crate) fn head_bytes(manifest: &Manifest) -> u64 {
    let blobs = manifest.certificate.len() + manifest.configuration.len();
    (TABLE_HEAD + 8 * manifest.pages.len() + blobs) as u64
}

pub(crate) fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    let scattered = if matches!(entry.place, Place::Many(_)) { SCATTERED } else { 0 };
    out.extend((entry.length | scattered).to_le_bytes());
    out.extend(entry.checksum.to_le_bytes());
    match &entry.place {
        Place::Nowhere => {}
        Place::One(start) => out.extend(start.to_le_bytes()),
        Place::Many(extents) => {
            out.extend((extents.len() as u32).to_le_bytes());
            for extent in extents {
                out.extend(extent.start.to_le_bytes());
                out.extend(extent.blocks.to_le_bytes());
            }
        }
    }
}

/// The length of [`put_entry`].
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    match &entry.place {
        Place::Nowhere => 8,
        Place::One(_) => 12,
        Place::Many(extents) => 12 + 8 * extents.len() as u64,
    }
}

/// The manifest and the entries of each part; `None` if this is no table. Nothing is allocated that is
/// not in the bytes.
pub(crate) fn parse_table(bytes: &[u8]) -> Option<(Manifest, Vec<Vec<Entry>>)> {
    let mut reader = Reader(bytes);
    let (order, root) = (reader.u64()?, reader.array()?);
    let (parts, certificate, configuration) = (reader.u32()?, reader.u32()?, reader.u32()?);
    if reader.u32()? != 0 || parts as usize > MOST_PARTS {
        return None;
    }
    let pages: Vec<u64> = (0..parts).map(|_| reader.u64()).collect::<Option<_>>()?;
    let certificate = reader.bytes(certificate as usize)?.to_vec();
    let configuration = reader.bytes(configuration as usize)?.to_vec();
    let mut tables = Vec::new();
    for count in &pages {
        // Entries have 8 bytes at least.
        let most = reader.0.len() as u64 / 8;
        let mut entries = Vec::with_capacity(usize::try_from(*count.min(&most)).ok()?);
        for _ in 0..*count {
            entries.push(reader.entry()?);
        }
        tables.push(entries);
    }
    let manifest = Manifest { order, root, pages, certificate, configuration };
    reader.0.is_empty().then_some((manifest, tables))
}

/// Whether a store with these bounds takes the manifest.
pub(crate) fn check_bounds(manifest: &Manifest, options: &Options) -> Option<&'static str> {
    let longest = options.longest_blob as usize;
    let pages = manifest.pages.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
    if manifest.pages.len() > MOST_PARTS {
        return Some("a checkpoint has 8 parts at most");
    }
    if pages.is_none_or(|pages| pages > options.most_pages) {
        return Some("the checkpoint has more pages than the store may take: raise `most_pages`");
    }
    if manifest.certificate.len() > longest || manifest.configuration.len() > longest {
        return Some("certificate or configuration is too long: raise `longest_blob`");
    }
    None
}

/// Reads from the front; everything is `None` behind the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// One that has blocks, and is where blocks of pages can be.
    fn extent(&mut self) -> Option<Extent> {
        let extent = Extent { start: self.u32()?, blocks: self.u32()? };
        let is_valid =
            extent.start >= FIRST_BLOCK && extent.blocks > 0 && extent.end() <= FAR_BLOCKS;
        is_valid.then_some(extent)
    }

    fn entry(&mut self) -> Option<Entry> {
        let (word, checksum) = (self.u32()?, self.u32()?);
        let length = word & !SCATTERED;
        let blocks = blocks_of(length.into());
        let place = if word & SCATTERED != 0 {
            let count = u64::from(self.u32()?);
            let count = Some(count).filter(|count| *count <= blocks)?;
            let extents: Box<[Extent]> =
                (0..count).map(|_| self.extent()).collect::<Option<_>>()?;
            let sum: u64 = extents.iter().map(|extent| u64::from(extent.blocks)).sum();
            (sum == blocks && blocks > 0).then_some(Place::Many(extents))?
        } else if length == 0 {
            Place::Nowhere
        } else {
            let start = self.u32().filter(|start| *start >= FIRST_BLOCK)?;
            (u64::from(start) + blocks <= FAR_BLOCKS).then_some(Place::One(start))?
        };
        Some(Entry { length, checksum, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock {
            id: *b"0123456789abcdef",
            sequence: 7,
            table_bytes: 5000,
            table_checksum: 0x0102_0304,
            table: vec![Extent { start: 9, blocks: 1 }, Extent { start: 4, blocks: 1 }],
        }
    }

    fn table() -> (Manifest, Vec<Vec<Entry>>) {
        let manifest = Manifest {
            order: 0x0102_0304_0506_0708,
            root: [0xdd; 32],
            pages: vec![2, 0, 1],
            certificate: b"certificate".to_vec(),
            configuration: b"group".to_vec(),
        };
        let scattered = vec![Extent { start: 7, blocks: 1 }, Extent { start: 12, blocks: 2 }];
        let entries = vec![
            Entry { length: 4097, checksum: 1, place: Place::One(5) },
            Entry { length: 9000, checksum: 2, place: Place::Many(scattered.into()) },
        ];
        let empty = Entry { length: 0, checksum: 3, place: Place::Nowhere };
        (manifest, vec![entries, vec![], vec![empty]])
    }

    fn encoded(manifest: &Manifest, parts: &[Vec<Entry>]) -> Vec<u8> {
        let mut out = Vec::new();
        put_head(manifest, &mut out);
        assert_eq!(out.len() as u64, head_bytes(manifest));
        for entry in parts.iter().flatten() {
            let before = out.len() as u64;
            put_entry(entry, &mut out);
            assert_eq!(out.len() as u64 - before, entry_bytes(entry));
        }
        out
    }

    #[test]
    fn bytes_are_those_of_version_1() {
        let sector = superblock().encode();
        assert_eq!(sector[..12], *b"HYBSTORE\x01\0\0\0");
        assert_eq!(sector[16..40], *b"0123456789abcdef\x07\0\0\0\0\0\0\0");
        assert_eq!(sector[40..56], [0x88, 0x13, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 2, 0, 0, 0]);
        assert_eq!(sector[56..72], [9, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]);
        assert!(sector[72..].iter().all(|byte| *byte == 0));
        let (manifest, parts) = table();
        let bytes = encoded(&manifest, &parts);
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[40..56], [3, 0, 0, 0, 11, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[80..96], *b"certificategroup");
        assert_eq!(bytes[96..108], [1, 0x10, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(bytes[108..120], [0x28, 0x23, 0, 0x80, 2, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[136..], [0, 0, 0, 0, 3, 0, 0, 0]);
        // A change of these is a change of the format.
        let found = [&sector[..], &bytes].map(crc32c::crc32c);
        assert_eq!(found, [3_823_796_739, 3_445_544_167]);
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Superblock::parse(&superblock().encode()), Slot::Whole(superblock()));
        let (manifest, parts) = table();
        assert_eq!(parse_table(&encoded(&manifest, &parts)), Some((manifest, parts)));
    }

    #[test]
    fn every_flipped_bit_of_a_superblock_is_found() {
        let sector = superblock().encode();
        for bit in 0..SECTOR * 8 {
            let mut broken = sector;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::parse(&broken), Slot::Garbage, "bit {bit}");
        }
        assert_eq!(Superblock::parse(&[0; SECTOR]), Slot::Garbage);
        let mut other = sector;
        other[8] = 2;
        let checksum = checksum_of(&other);
        other[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Superblock::parse(&other), Slot::Version(2));
    }

    #[test]
    fn no_bytes_make_the_parser_of_tables_panic() {
        let (manifest, parts) = table();
        let bytes = encoded(&manifest, &parts);
        for at in 0..bytes.len() {
            assert_eq!(parse_table(&bytes[..at]), None);
            for byte in [0, 0x7f, 0xff] {
                let mut broken = bytes.clone();
                broken[at] = byte;
                let _ = parse_table(&broken);
            }
        }
    }
}
