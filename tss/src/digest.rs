//! Digests of messages.

use core::fmt;

/// The BLAKE3 digest of a message. A TrInX certifies digests, never raw messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Length of a digest in bytes.
    pub const BYTES: usize = 32;

    /// The digest of `message`.
    pub fn of(message: &[u8]) -> Self {
        Self(*blake3::hash(message).as_bytes())
    }

    /// The bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The first four bytes in hexadecimal: enough to tell digests apart in a log.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..4])?;
        f.write_str("…")
    }
}

/// All bytes in hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn debug_is_short_and_display_is_whole() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        assert_eq!(format!("{:?}", Digest(bytes)), "ab000000…");
        assert_eq!(format!("{}", Digest(bytes)).len(), 64);
    }

    #[test]
    fn digests_are_blake3() {
        assert_eq!(Digest::of(b"x").0, *blake3::hash(b"x").as_bytes());
    }
}
