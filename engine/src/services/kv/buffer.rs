//! The bytes of a leaf: in place up to the usual length, on the heap beyond it.

/// Most bytes that a buffer holds in place.
pub(super) const IN_PLACE_BYTES: usize = 4096;

/// A byte string that needs no pointer for a leaf of usual length, which saves a cache miss per
/// operation.
///
/// The variants differ in size on purpose: nearly all leaves use the first one.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(super) enum Buffer {
    /// A length and at least as many bytes.
    InPlace(u16, [u8; IN_PLACE_BYTES]),
    /// More than [`IN_PLACE_BYTES`].
    Heap(Vec<u8>),
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::new(self.bytes())
    }

    /// Copies into the memory of `self` if it fits.
    fn clone_from(&mut self, original: &Self) {
        let bytes = original.bytes();
        match self {
            Self::InPlace(length, place) if bytes.len() <= IN_PLACE_BYTES => {
                *length = bytes.len() as u16;
                place[..bytes.len()].copy_from_slice(bytes);
            }
            _ => *self = original.clone(),
        }
    }
}

impl Buffer {
    /// A copy of `bytes`.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut copy = [0; IN_PLACE_BYTES];
        match copy.get_mut(..bytes.len()) {
            Some(start) => {
                start.copy_from_slice(bytes);
                Self::InPlace(bytes.len() as u16, copy)
            }
            None => Self::Heap(bytes.to_vec()),
        }
    }

    /// The bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// The bytes, to change them.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::InPlace(length, bytes) => &mut bytes[..usize::from(*length)],
            Self::Heap(bytes) => bytes,
        }
    }

    /// Changes the length; bytes that are added may have any value.
    pub(super) fn resize(&mut self, new: usize) {
        match self {
            Self::InPlace(length, _) if new <= IN_PLACE_BYTES => *length = new as u16,
            Self::Heap(bytes) if new > IN_PLACE_BYTES => {
                if new > bytes.capacity() {
                    bytes.reserve_exact(new - bytes.len());
                }
                bytes.resize(new, 0);
                if bytes.capacity() / 2 > new {
                    bytes.shrink_to_fit();
                }
            }
            Self::Heap(bytes) => *self = Self::new(&bytes[..new]),
            Self::InPlace(..) => {
                let mut bytes = Vec::with_capacity(new);
                bytes.extend_from_slice(self.bytes());
                bytes.resize(new, 0);
                *self = Self::Heap(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_bytes_on_the_way_to_the_heap_and_back() {
        let mut buffer = Buffer::new(b"abc");
        for length in [4096, 4097, 100_000, 50_001, 4097, 4096, 4, 4097, 3] {
            buffer.resize(length);
            assert_eq!(buffer.bytes().len(), length);
            assert_eq!(buffer.bytes()[..3], *b"abc");
            assert_eq!(buffer.bytes_mut().len(), length);
            assert_eq!(matches!(buffer, Buffer::Heap(_)), length > IN_PLACE_BYTES);
            assert_eq!(buffer.clone().bytes(), buffer.bytes());
            for before in [&[9; 7][..], &[9; 5000]] {
                let mut other = Buffer::new(before);
                other.clone_from(&buffer);
                assert_eq!(other.bytes(), buffer.bytes());
            }
        }
        assert_eq!(buffer.bytes(), b"abc");
    }
}
