//! What runs over the links, as the two ends of one compare it.

use std::fmt;

/// The longest name of an [`Application`], in bytes.
pub const APPLICATION_NAME_BYTES_MAX: usize = 64;

/// What a replica runs, which its peers compare with what they run. Ends of which one says nothing do not
/// compare; clients say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    name: String,
    version: u32,
    compatible_from: u32,
}

/// A name that an [`Application`] cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {APPLICATION_NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores of ASCII"
)]
pub struct BadApplicationName;

impl Application {
    /// An application of this name and version, which goes together with those of versions from
    /// `compatible_from` on.
    ///
    /// # Errors
    /// If the name is empty, too long, or could not be written into a log as it is.
    pub fn new(name: &str, version: u32, compatible_from: u32) -> Result<Self, BadApplicationName> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=APPLICATION_NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_good) {
            return Err(BadApplicationName);
        }
        Ok(Self { name: name.to_owned(), version, compatible_from })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The oldest version that it goes together with.
    #[must_use]
    pub const fn compatible_from(&self) -> u32 {
        self.compatible_from
    }

    /// Whether the two go together: the newer one decides, since it knows the older one.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        let (older, newer) =
            if self.version < other.version { (self, other) } else { (other, self) };
        self.name == other.name
            && (older.version == newer.version || newer.compatible_from <= older.version)
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)?;
        if self.compatible_from < self.version {
            write!(f, " (compatible from {})", self.compatible_from)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_one_decides_whether_two_go_together() {
        let of = |version, from| Application::new("bank", version, from).unwrap();
        let pairs = [
            (of(1, 1), of(1, 1), true),
            (of(1, 1), of(2, 1), true),
            (of(1, 1), of(2, 2), false),
            (of(1, 1), of(3, 2), false),
            // What the older one says of versions before its own does not matter here.
            (of(2, 1), of(3, 3), false),
            (of(2, 1), of(2, 2), true),
        ];
        for (a, b, expected) in pairs {
            assert_eq!((a.goes_with(&b), b.goes_with(&a)), (expected, expected), "{a}, {b}");
        }
        assert!(!of(1, 1).goes_with(&Application::new("shop", 1, 1).unwrap()));
    }

    #[test]
    fn a_name_can_be_written_into_a_log() {
        for bad in ["", "a b", "a\n", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(Application::new(bad, 1, 1), Err(BadApplicationName), "{bad:?}");
        }
        assert!(Application::new(&"a".repeat(64), 1, 1).is_ok());
    }
}
