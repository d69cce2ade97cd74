//! Which service a replica runs: its name, and its version.

use std::fmt;
use std::str::FromStr;

/// The longest name of a service, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Which service this is. All replicas of a group must run one service, or their states would differ.
///
/// The version stands for what the replicas must agree on: what operations lead to, and what the pages
/// hold. It rises when the same operations on the same pages lead to other replies or other pages, or
/// pages have another form. Whatever changes none of these (speed, log lines, queries that
/// are new) keeps the version.
///
/// Replicas of two versions do not go together, unless the newer one says that it is
/// [compatible](Self::compatible_from) with the older one. With that it promises to read the pages of the
/// older one, and to answer and to write pages as the older one does, *until an operation says otherwise*: the
/// state has to tell which rules are in force, and an operation that only newer replicas
/// understand, sent when all are upgraded, changes them. So a group is upgraded one replica after the other
/// while clients go on.
///
/// ```
/// # mod hybster { pub use hybster_proto::service::ServiceIdentity; }
/// # fn main() {}
/// use hybster::ServiceIdentity;
///
/// /// May run beside version 3, and takes the place of it.
/// const IDENTITY: ServiceIdentity = ServiceIdentity::new("bank", 4).compatible_from(3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceIdentity {
    name: &'static str,
    version: u32,
    compatible_from: u32,
}

impl ServiceIdentity {
    /// A service that is compatible with its own version only.
    ///
    /// The name has 1 to 64 letters, digits, dots, hyphens and underscores of ASCII; a replica
    /// with another one does not start.
    #[must_use]
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self { name, version, compatible_from: version }
    }

    /// The same, compatible with all versions from `oldest` on.
    #[must_use]
    pub const fn compatible_from(self, oldest: u32) -> Self {
        Self { compatible_from: oldest, ..self }
    }

    /// Its name, as the service says it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The oldest version that it is compatible with.
    #[must_use]
    pub const fn oldest_compatible(&self) -> u32 {
        if self.compatible_from < self.version { self.compatible_from } else { self.version }
    }

    /// Whether it may run where `version` is asked for.
    #[must_use]
    pub const fn runs_as(&self, version: u32) -> bool {
        self.oldest_compatible() <= version && version <= self.version
    }
}

impl fmt::Display for ServiceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)?;
        if self.oldest_compatible() < self.version {
            write!(f, " (compatible from {})", self.compatible_from)?;
        }
        Ok(())
    }
}

/// The name of a service, as a group file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(Box<str>);

/// A name that no service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a service has 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores of ASCII"
)]
pub struct BadServiceName;

impl ServiceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = BadServiceName;

    fn from_str(name: &str) -> Result<Self, BadServiceName> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_good) {
            Ok(Self(name.into()))
        } else {
            Err(BadServiceName)
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_runs_where_its_version_or_one_that_it_knows_is_asked_for() {
        let service = ServiceIdentity::new("bank", 4).compatible_from(2);
        let asked = (0..=5).map(|version| service.runs_as(version));
        assert_eq!(asked.collect::<Vec<_>>(), [false, false, true, true, true, false]);
        assert_eq!(service.to_string(), "bank version 4 (compatible from 2)");
        let service = ServiceIdentity::new("bank", 4);
        assert!(service.runs_as(4) && !service.runs_as(3));
        // Nothing is compatible with what is not known yet.
        assert!(!service.compatible_from(9).runs_as(9) && service.compatible_from(9).runs_as(4));
        assert_eq!(service.to_string(), "bank version 4");
    }

    #[test]
    fn names_can_be_written_into_files_and_logs() {
        for bad in ["", "a b", "a\"", "\u{e9}", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ServiceName>(), Err(BadServiceName), "{bad:?}");
        }
        assert_eq!("My-service_2.0".parse::<ServiceName>().unwrap().as_str(), "My-service_2.0");
    }
}
