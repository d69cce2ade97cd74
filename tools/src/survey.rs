//! Asking all replicas of a group for their status.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hybster::client::ClientDriver;
use hybster::{Group, ReplicaId, Status};
use hybster_net::Reason;

use crate::Failure;

/// Longest sleep of a poll.
const POLL: Duration = Duration::from_millis(20);
/// A request without an answer is sent again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What came of asking one replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: Option<Status>,
    /// Why there is no status, for people.
    pub(crate) problem: Option<String>,
    /// Why a link was refused, if one was.
    pub(crate) refused: Option<Reason>,
    /// The replica's clock against this machine's, if it tells its clock.
    pub(crate) clock: Option<Offset>,
}

/// How far a clock is before another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    pub(crate) ahead_ms: i64,
    /// It may be as much more or less, as long as question and answer took.
    pub(crate) within_ms: u64,
}

/// The present time of this machine, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Asks all replicas, for as long as some may still answer, and no longer than `patience`.
///
/// # Errors
/// If this process got no network.
pub(crate) fn ask(
    group: &Group,
    driver: &mut ClientDriver,
    patience: Duration,
) -> Result<Vec<Answer>, Failure> {
    let count = group.replicas().len();
    let mut answers: Vec<Answer> = vec![Answer::default(); count];
    let mut asked: Vec<Option<(Instant, u64)>> = vec![None; count];
    let deadline = Instant::now() + patience;
    // What answers an earlier question is old.
    driver.take_statuses();
    while answers.iter().any(|answer| answer.status.is_none()) {
        let now = Instant::now();
        // Does not wait for replicas that can never be reached.
        let unreachable = driver.unreachable();
        let hopeless = |r: usize| {
            let mut missing = unreachable.missing.iter();
            missing.any(|m| usize::from(m.replica.0) == r && m.is_lasting())
        };
        let is_done = |r: usize| answers[r].status.is_some() || hopeless(r);
        if now >= deadline || (0..count).all(is_done) {
            break;
        }
        for entry in group.replicas() {
            let at = usize::from(entry.id.0);
            let due = asked[at].is_none_or(|(then, _)| now - then >= ASK_AGAIN);
            let open = answers[at].status.is_none();
            if open && due && driver.request_status(entry.id).is_ok() {
                asked[at] = Some((now, now_ms()));
            }
        }
        driver.poll(POLL.min(deadline - now))?;
        let received_ms = now_ms();
        for (ReplicaId(from), message) in driver.take_statuses() {
            // STATUS is a kind byte, then JSON.
            let body = message.get(1..).unwrap_or_default();
            let at = usize::from(from);
            let (Some(answer), Ok(status)) =
                (answers.get_mut(at), serde_json::from_slice::<Status>(body))
            else {
                continue;
            };
            let asked_ms = asked[at].map_or(received_ms, |(_, at_ms)| at_ms);
            answer.clock = offset(status.clock_ms, asked_ms, received_ms);
            answer.status = Some(status);
        }
    }
    let unreachable = driver.unreachable();
    for (entry, answer) in group.replicas().iter().zip(&mut answers) {
        let missing = unreachable.missing.iter().find(|m| m.replica == entry.id);
        answer.refused = missing.and_then(|missing| missing.reason);
        answer.problem = match (&answer.status, missing) {
            (Some(_), _) => None,
            (None, Some(missing)) => Some(missing.message.clone()),
            (None, None) => Some("connected, but does not answer".into()),
        };
    }
    Ok(answers)
}

/// A clock that showed `there` some time between two readings of this machine's.
fn offset(there_ms: u64, asked_ms: u64, received_ms: u64) -> Option<Offset> {
    // An older replica does not tell its clock.
    if there_ms == 0 {
        return None;
    }
    let within_ms = received_ms.saturating_sub(asked_ms).div_ceil(2);
    let here_ms = asked_ms.saturating_add(within_ms);
    let ahead_ms = i64::try_from(i128::from(there_ms) - i128::from(here_ms)).ok()?;
    Some(Offset { ahead_ms, within_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_compared_with_the_middle_of_question_and_answer() {
        let of = |there, asked, received| offset(there, asked, received);
        assert_eq!(of(1500, 1000, 1010), Some(Offset { ahead_ms: 495, within_ms: 5 }));
        assert_eq!(of(900, 1000, 1000), Some(Offset { ahead_ms: -100, within_ms: 0 }));
        assert_eq!(of(0, 1000, 1000), None);
        // What a liar says is only a number.
        assert_eq!(of(u64::MAX, 1000, 1000), None);
    }
}
