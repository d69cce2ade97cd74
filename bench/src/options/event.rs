//! Events while measuring, as people write them: `10s:kill-leader`, `5s:pause 2 for 3s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use hybster::duration::Human;

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
}

impl Action {
    /// The replica, unless the leader is meant.
    #[must_use]
    pub fn replica(self) -> Option<u16> {
        match self {
            Self::Kill(replica) | Self::Pause(replica, _) | Self::Restart(replica) => replica,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Kill(_) => "kill",
            Self::Pause(..) => "pause",
            Self::Restart(_) => "restart",
        };
        match self.replica() {
            None => write!(f, "{verb}-leader")?,
            Some(replica) => write!(f, "{verb} {replica}")?,
        }
        match self {
            Self::Pause(_, length) => write!(f, " for {}", Human(*length)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Human(self.at), self.action)
    }
}

const FORMS: &str = "write TIME:kill-leader, TIME:kill 1, TIME:pause 2 for 5s, TIME:pause-leader for 5s, \
    TIME:restart 1 or TIME:restart-leader, as in 10s:kill-leader";

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
            _ => return Err(format!("{:?} is no event: {FORMS}", action.trim())),
        };
        Ok(Self { at, action })
    }
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
        ] {
            let error = text.parse::<Event>().unwrap_err();
            assert!(error.contains(told) && error.contains("pause 2 for 5s"), "{error}");
        }
        assert!("soon:kill-leader".parse::<Event>().unwrap_err().contains("no duration"));
    }
}
