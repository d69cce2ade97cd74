//! Reads the fields of the wire format from untrusted bytes.

use super::wire::{KvEntries, KvRefusal, MAX_BOUND_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES};

/// The bytes not yet read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], KvRefusal> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(KvRefusal::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], KvRefusal> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(KvRefusal::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Reads one byte.
    pub(super) fn u8(&mut self) -> Result<u8, KvRefusal> {
        self.array().map(u8::from_le_bytes)
    }

    /// Reads a number.
    pub(super) fn u32(&mut self) -> Result<u32, KvRefusal> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads a byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, KvRefusal> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(KvRefusal::Malformed),
        }
    }

    fn key_length(&mut self, limit: usize) -> Result<usize, KvRefusal> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > limit { Err(KvRefusal::KeyTooLong) } else { Ok(length) }
    }

    fn value_length(&mut self) -> Result<usize, KvRefusal> {
        let length = self.u32()? as usize;
        if length > MAX_VALUE_BYTES { Err(KvRefusal::ValueTooLong) } else { Ok(length) }
    }

    /// Reads a key.
    pub(super) fn key(&mut self) -> Result<&'a [u8], KvRefusal> {
        let length = self.key_length(MAX_KEY_BYTES)?;
        self.take(length)
    }

    /// Reads a bound of a scan.
    pub(super) fn bound(&mut self) -> Result<&'a [u8], KvRefusal> {
        let length = self.key_length(MAX_BOUND_BYTES)?;
        self.take(length)
    }

    /// Reads a value.
    pub(super) fn value(&mut self) -> Result<&'a [u8], KvRefusal> {
        let length = self.value_length()?;
        self.take(length)
    }

    /// Reads an optional field with `read`.
    pub(super) fn option(
        &mut self,
        read: fn(&mut Self) -> Result<&'a [u8], KvRefusal>,
    ) -> Result<Option<&'a [u8]>, KvRefusal> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Reads a key and its value.
    pub(super) fn entry(&mut self) -> Result<(&'a [u8], &'a [u8]), KvRefusal> {
        let key = self.key_length(MAX_KEY_BYTES)?;
        let value = self.value_length()?;
        Ok((self.take(key)?, self.take(value)?))
    }

    /// Reads what entries a scan found.
    pub(super) fn entries(&mut self) -> Result<KvEntries<'a>, KvRefusal> {
        let (more, count) = (self.flag()?, self.u32()?);
        let bytes = self.0;
        for _ in 0..count {
            self.entry()?;
        }
        let bytes = &bytes[..bytes.len() - self.0.len()];
        Ok(KvEntries { more, count, bytes })
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), KvRefusal> {
        if self.0.is_empty() { Ok(()) } else { Err(KvRefusal::Malformed) }
    }
}
