//! Events while measuring, as people write them: `10s:kill-leader`, `5s:pause 2 for 3s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hybster::duration::{DurationRange, Human};

/// Something that happens to a replica while a load runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, from the begin of the measured interval.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// What happens. No replica is named where the leader of that time is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is killed and stays away.
    Kill(Option<u16>),
    /// It is stopped for this long.
    Pause(Option<u16>, Duration),
    /// It is killed and at once started again.
    Restart(Option<u16>),
    /// It is cut off from everybody for this long.
    Partition(Option<u16>, Duration),
    /// Its wire is slow, for this long or to the end. No replica: the wires of all.
    SlowLink(Option<u16>, Slow, Option<Duration>),
}

/// How slow a wire is, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How long a packet takes.
    pub delay: Duration,
    /// What it carries, in millions of bits per second, if that is limited.
    pub mbit: Option<u32>,
}

impl Action {
    /// The replica, unless the leader is meant.
    #[must_use]
    pub fn replica(self) -> Option<u16> {
        match self {
            Self::Kill(replica)
            | Self::Pause(replica, _)
            | Self::Restart(replica)
            | Self::Partition(replica, _)
            | Self::SlowLink(replica, ..) => replica,
        }
    }

    /// How long it lasts, if it ends by itself.
    #[must_use]
    pub fn length(self) -> Option<Duration> {
        match self {
            Self::Pause(_, length) | Self::Partition(_, length) => Some(length),
            Self::SlowLink(.., length) => length,
            Self::Kill(_) | Self::Restart(_) => None,
        }
    }

    /// Whether it needs replicas with wires of their own.
    #[must_use]
    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Partition(..) | Self::SlowLink(..))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Kill(_) => "kill",
            Self::Pause(..) => "pause",
            Self::Restart(_) => "restart",
            Self::Partition(..) => "partition",
            Self::SlowLink(..) => "slow-link",
        };
        match (self, self.replica()) {
            (Self::SlowLink(..), None) => f.write_str(verb)?,
            (_, None) => write!(f, "{verb}-leader")?,
            (_, Some(replica)) => write!(f, "{verb} {replica}")?,
        }
        if let Self::SlowLink(_, slow, _) = self {
            if !slow.delay.is_zero() {
                write!(f, " {}", Human(slow.delay))?;
            }
            if let Some(mbit) = slow.mbit {
                write!(f, " {mbit}mbit")?;
            }
        }
        self.length().map_or(Ok(()), |length| write!(f, " for {}", Human(length)))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Human(self.at), self.action)
    }
}

const FORMS: &str = "write TIME:kill-leader, TIME:kill 1, TIME:pause 2 for 5s, TIME:pause-leader for 5s, \
    TIME:restart 1, TIME:restart-leader, TIME:partition 2 for 5s, TIME:partition-leader for 5s, \
    TIME:slow-link 2 20ms 100mbit for 5s or TIME:slow-link 20ms 100mbit, as in 10s:kill-leader";

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, action) =
            text.split_once(':').ok_or_else(|| format!("there is no time in it: {FORMS}"))?;
        let at = super::seconds(at).map_err(|e| e.to_string())?;
        let words: Vec<&str> = action.split_whitespace().collect();
        let length = |text: &str| super::seconds(text).map_err(|e| e.to_string());
        let replica = |text: &str| {
            let wrong = |_| format!("{text:?} is no number of a replica: {FORMS}");
            text.parse::<u16>().map(Some).map_err(wrong)
        };
        let action = match words[..] {
            ["kill-leader"] => Action::Kill(None),
            ["kill", number] => Action::Kill(replica(number)?),
            ["restart-leader"] => Action::Restart(None),
            ["restart", number] => Action::Restart(replica(number)?),
            ["pause-leader", "for", time] => Action::Pause(None, length(time)?),
            ["pause", number, "for", time] => Action::Pause(replica(number)?, length(time)?),
            ["partition-leader", "for", time] => Action::Partition(None, length(time)?),
            ["partition", number, "for", time] => {
                Action::Partition(replica(number)?, length(time)?)
            }
            ["slow-link", ref how @ .., "for", time] => slow_link(how, Some(length(time)?))?,
            ["slow-link", ref how @ ..] => slow_link(how, None)?,
            _ => return Err(format!("{:?} is no event: {FORMS}", action.trim())),
        };
        Ok(Self { at, action })
    }
}

/// The slowest and the fastest wire in millions of bits per second, and the longest delay.
const RATES: std::ops::RangeInclusive<u32> = 1..=100_000;
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What follows `slow-link`: perhaps a replica, perhaps a delay, perhaps a rate.
fn slow_link(words: &[&str], length: Option<Duration>) -> Result<Action, String> {
    let (replica, words) = match words {
        [first, rest @ ..] if first.bytes().all(|byte| byte.is_ascii_digit()) => {
            let wrong = |_| format!("{first:?} is no number of a replica: {FORMS}");
            (Some(first.parse::<u16>().map_err(wrong)?), rest)
        }
        _ => (None, words),
    };
    let mut slow = Slow { delay: Duration::ZERO, mbit: None };
    for word in words {
        match word.strip_suffix("mbit") {
            Some(rate) if slow.mbit.is_none() => {
                let rate = rate.parse().ok().filter(|rate| RATES.contains(rate));
                let (least, most) = RATES.into_inner();
                let wrong =
                    || format!("{word:?} is no rate from {least}mbit to {most}mbit: {FORMS}");
                slow.mbit = Some(rate.ok_or_else(wrong)?);
            }
            None if slow.delay.is_zero() => {
                let range = DurationRange::seconds(Duration::from_micros(1), LONGEST_DELAY);
                slow.delay = range.parse(word).map_err(|e| e.to_string())?;
            }
            _ => return Err(format!("{word:?} is one too many: {FORMS}")),
        }
    }
    if slow.delay.is_zero() && slow.mbit.is_none() {
        return Err(format!("slow-link needs a delay or a rate: {FORMS}"));
    }
    Ok(Action::SlowLink(replica, slow, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_printed_alike() {
        for text in [
            "10s:kill-leader",
            "500ms:kill 1",
            "2s:pause 2 for 5s",
            "0s:pause-leader for 100ms",
            "1m:restart 0",
            "1s:restart-leader",
            "1s:partition 2 for 5s",
            "1s:partition-leader for 5s",
            "1s:slow-link 20ms 100mbit",
            "1s:slow-link 2 20ms",
            "1s:slow-link 2 100mbit for 3s",
        ] {
            assert_eq!(text.parse::<Event>().unwrap().to_string(), text);
        }
        let plain: Event = "1.5: pause  2 for 3".parse().unwrap();
        let action = Action::Pause(Some(2), Duration::from_secs(3));
        assert_eq!(plain, Event { at: Duration::from_millis(1500), action });
    }

    #[test]
    fn what_is_wrong_is_told_with_the_forms() {
        for (text, told) in [
            ("kill-leader", "there is no time"),
            ("10s:explode", "\"explode\" is no event"),
            ("10s:kill one", "\"one\" is no number of a replica"),
            ("10s:pause 1", "no event"),
            ("10s:partition 1", "no event"),
            ("10s:slow-link 2", "needs a delay or a rate"),
            ("10s:slow-link 2 0mbit", "no rate from 1mbit"),
            ("10s:slow-link 1mbit 2mbit", "one too many"),
        ] {
            let error = text.parse::<Event>().unwrap_err();
            assert!(error.contains(told) && error.contains("pause 2 for 5s"), "{error}");
        }
        assert!("soon:kill-leader".parse::<Event>().unwrap_err().contains("no duration"));
    }
}
