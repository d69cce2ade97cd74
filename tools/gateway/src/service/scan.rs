//! Cursors of SCAN, HSCAN, SSCAN and ZSCAN.
//!
//! A cursor is the hash of the next element. So what is there all the time is found, once, whatever comes and
//! goes meanwhile.

use super::{Arguments, Refusal, SYNTAX, integer};
use crate::glob;

/// Elements of one step, if nobody says how many.
const COUNT: usize = 10;

/// One step through elements.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    pub(super) cursor: u64,
    pattern: Option<&'a [u8]>,
    count: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn parse(cursor: &[u8], options: Arguments<'a>) -> Result<Self, Refusal> {
        let cursor = std::str::from_utf8(cursor).ok().and_then(|cursor| cursor.parse().ok());
        let cursor = cursor.ok_or("ERR invalid cursor")?;
        let mut scan = Self { cursor, pattern: None, count: COUNT };
        for option in options.chunks(2) {
            match option {
                [word, pattern] if super::is(word, "match") => scan.pattern = Some(pattern),
                [word, count] if super::is(word, "count") => {
                    let count = integer(count)?;
                    scan.count = usize::try_from(count).ok().filter(|it| *it > 0).ok_or(SYNTAX)?;
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(scan)
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// Tells of the elements of this step; returns the next cursor. Those of one hash are told together.
    pub(super) fn walk<T>(
        &self,
        elements: impl Iterator<Item = (u64, T)>,
        mut tell: impl FnMut(T),
    ) -> u64 {
        let (mut told, mut last) = (0, 0);
        for (hash, element) in elements {
            if told >= self.count && hash != last {
                return hash;
            }
            tell(element);
            (told, last) = (told + 1, hash);
        }
        0
    }
}
