//! What happens to disks, in percent.

use clap::Args;

/// What may happen to the data of replicas that were killed at random, each in percent of these kills. All but the
/// first happen only where a single replica was killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct DiskOptions {
    /// --restart random: percent of kills after which the log has a torn tail, as a loss of power leaves it: the
    /// replica must come back. By default 20.
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    pub torn_tail: Option<u32>,
    /// --restart random: percent of kills after which a bit of the log is flipped: the replica must be refused until
    /// its data is as it was. By default 5.
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    pub damaged_log: Option<u32>,
    /// --restart random: percent of kills after which an older copy of the data is in its place: the replica must
    /// be refused until its newest data is back. By default 5.
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    pub older_copy: Option<u32>,
    /// --restart random: percent of kills after which the replica runs on a disk that is full (in memory; left out
    /// where the system allows none): it may hold clients or stop, and must come back. By default 3.
    #[arg(long, value_name = "PERCENT", value_parser = percent())]
    pub full_disk: Option<u32>,
}

fn percent() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=100)
}

/// What happens after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// Part of a batch is behind the end of the log.
    TornTail,
    /// A bit of the log is another one.
    DamagedLog,
    /// The data is that of an earlier time.
    OlderCopy,
    /// The disk has no room.
    FullDisk,
}

impl DiskOptions {
    /// The options that are given.
    #[must_use]
    pub fn is_any_given(&self) -> bool {
        *self != Self::default()
    }

    /// The events with their percentages; `None` if they are more than all.
    #[must_use]
    pub fn shares(&self) -> Option<[(DiskEvent, u32); 4]> {
        let shares = [
            (DiskEvent::TornTail, self.torn_tail.unwrap_or(20)),
            (DiskEvent::DamagedLog, self.damaged_log.unwrap_or(5)),
            (DiskEvent::OlderCopy, self.older_copy.unwrap_or(5)),
            (DiskEvent::FullDisk, self.full_disk.unwrap_or(3)),
        ];
        (shares.iter().map(|(_, share)| share).sum::<u32>() <= 100).then_some(shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_no_more_than_all() {
        let options = DiskOptions::default();
        assert!(!options.is_any_given());
        assert_eq!(options.shares().unwrap()[0], (DiskEvent::TornTail, 20));
        let given = DiskOptions { older_copy: Some(80), ..options };
        assert!(given.is_any_given() && given.shares().is_none());
        let all = DiskOptions { torn_tail: Some(0), damaged_log: Some(17), ..given };
        assert_eq!(all.shares().unwrap()[2], (DiskEvent::OlderCopy, 80));
    }
}
