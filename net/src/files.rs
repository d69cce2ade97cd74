//! How many files a process may open, and how many a hub needs: every connection is one.

use std::io;

use crate::limits::Limits;

/// Files of a process beside those of connections: standard streams, event queue and wake-ups, the
/// listener, libraries, traces, and what the embedding program has.
const OTHER_FILES: u64 = 64;
/// Links to one peer: the live one, and one that is being made while the old one is not yet found to
/// be dead.
const LINKS_PER_PEER: u64 = 2;
/// Clients that a replica has room for at least, or it does not start.
const CLIENTS_MIN: u64 = 16;

/// "Too many open files" in this process, and in the whole system: the same on every Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// How many files a process may open, against what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// How many files the process may open; `None` if there is no limit.
    pub limit: Option<u64>,
    /// How many it has open when all connections are there that its limits allow.
    pub needed: u64,
    /// How many of those are for clients.
    pub clients: u64,
}

/// The process may not open enough files to be of any use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {limit} files, and links to {peers} peers and a few clients take {least}: \
     raise the limit with `ulimit -n {needed}`, which is enough for all clients that are allowed \
     (LimitNOFILE= of systemd, --ulimit nofile= of a container)"
)]
pub struct TooFewFiles {
    /// How many files the process may open.
    pub limit: u64,
    /// How many it must be able to open.
    pub least: u64,
    /// How many it should be able to open.
    pub needed: u64,
    /// How many peers it has.
    pub peers: usize,
}

impl Files {
    /// What a hub with these limits and this many peers needs, and the limit of this process.
    #[must_use]
    pub fn of(limits: &Limits, peers: usize) -> Self {
        Self { limit: limit(), needed: needed(limits, peers), clients: limits.clients as u64 }
    }

    /// As [`Self::of`], for the start of a replica. [`Self::warning`] says whether all clients have
    /// room.
    ///
    /// # Errors
    /// If there is no room for the links to all peers and a few clients.
    pub fn check(limits: &Limits, peers: usize) -> Result<Self, TooFewFiles> {
        Self::of(limits, peers).checked(peers)
    }

    fn checked(self, peers: usize) -> Result<Self, TooFewFiles> {
        let least = self.needed - self.clients + self.clients.min(CLIENTS_MIN);
        match self.limit {
            Some(limit) if limit < least => {
                Err(TooFewFiles { limit, least, needed: self.needed, peers })
            }
            _ => Ok(self),
        }
    }

    /// What to tell the operator, if there is not room for all clients that are allowed.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let limit = self.limit.filter(|limit| *limit < self.needed)?;
        let (needed, clients) = (self.needed, self.clients);
        let room = clients.saturating_sub(needed - limit);
        Some(format!(
            "this process may open {limit} files, which is room for {room} of the {clients} clients that \
             are allowed; where more connect, raise the limit with `ulimit -n {needed}`"
        ))
    }

    /// What to tell about this error of the system, if it is about open files.
    #[must_use]
    pub fn explain(&self, error: &io::Error) -> Option<String> {
        let needed = self.needed;
        match error.raw_os_error() {
            Some(EMFILE) => {
                let limit = self.limit.map_or_else(|| "no more".into(), |limit| limit.to_string());
                Some(format!(
                    "too many open files: this process may open {limit}, and all connections that its \
                     limits allow need {needed}; raise the limit with `ulimit -n {needed}`"
                ))
            }
            Some(ENFILE) => Some(
                "too many open files in the whole system; raise its limit (sysctl fs.file-max), or \
                 find out which process has them"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn needed(limits: &Limits, peers: usize) -> u64 {
    let per_peer = LINKS_PER_PEER + limits.handshakes_per_peer as u64;
    limits.clients as u64 + limits.handshakes as u64 + peers as u64 * per_peer + OTHER_FILES
}

#[cfg(target_os = "linux")]
fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Not asked for elsewhere.
#[cfg(not(target_os = "linux"))]
const fn limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(limit: u64) -> Files {
        let limits =
            Limits { clients: 1000, handshakes: 100, handshakes_per_peer: 4, ..Limits::default() };
        Files { limit: Some(limit), ..Files::of(&limits, 2) }
    }

    #[test]
    fn what_is_needed_is_named_and_checked() {
        let enough = files(1176);
        assert_eq!((enough.needed, enough.warning()), (1176, None));
        assert_eq!(enough.checked(2), Ok(enough));
        let some = files(1024);
        assert_eq!(some.checked(2), Ok(some));
        let text = some.warning().unwrap();
        assert!(
            text.contains("room for 848 of the 1000") && text.contains("ulimit -n 1176"),
            "{text}"
        );
        let text = files(191).checked(2).unwrap_err().to_string();
        assert!(text.contains("take 192") && text.contains("ulimit -n 1176"), "{text}");
        assert!(files(192).checked(2).is_ok());
    }

    #[test]
    fn only_errors_about_open_files_are_explained() {
        let files = files(1024);
        let text = files.explain(&io::Error::from_raw_os_error(EMFILE)).unwrap();
        assert!(text.contains("may open 1024") && text.contains("ulimit -n 1176"), "{text}");
        assert!(files.explain(&io::Error::from_raw_os_error(ENFILE)).is_some());
        assert_eq!(files.explain(&io::ErrorKind::ConnectionRefused.into()), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_numbers_are_those_of_this_system() {
        assert_eq!((EMFILE, ENFILE), (libc::EMFILE, libc::ENFILE));
        assert!(limit().is_none_or(|limit| limit > 0));
    }
}
