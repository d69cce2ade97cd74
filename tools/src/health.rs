//! Whether a group is well, judged by what its replicas say of themselves.

use hybster::Status;
use serde::Serialize;

/// The state of one replica. The names in JSON are documented in `tools/STATUS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// It answers, is in the group's view and its state is that of the others.
    Ok,
    /// It does not answer in time.
    NoAnswer,
    /// It has left its view and is in no other yet, or the group has a later view than it knows. It
    /// takes no part in the agreement until the next view change or until it has caught up.
    OutOfView,
    /// Its state differed from the others', and is being repaired.
    Diverged,
    /// No f+1 replicas have the same state: nothing can be ordered any more.
    Halted,
}

impl Health {
    /// What is the matter, for people; `None` if nothing is.
    pub(crate) fn complaint(self) -> Option<&'static str> {
        match self {
            Self::Ok => None,
            Self::NoAnswer => Some("does not answer"),
            Self::OutOfView => Some("is out of view: it does not take part in the agreement"),
            Self::Diverged => {
                Some("had a state that differs from the others', and is repairing it")
            }
            Self::Halted => Some(
                "has halted: the replicas' states differ, and nothing can be ordered any more (its \
                 log says where they differ)",
            ),
        }
    }
}

/// The health of each replica of a group that tolerates `faults` faults, in the order given; `None`
/// is a replica without an answer.
pub(crate) fn judge(answers: &[Option<&Status>], faults: u16) -> Vec<Health> {
    let group_view = group_view(answers, faults);
    let one = |answer: &Option<&Status>| match answer {
        None => Health::NoAnswer,
        Some(status) if status.halted => Health::Halted,
        Some(status) if status.current_view > status.view || status.view < group_view => {
            Health::OutOfView
        }
        Some(status) if status.diverged => Health::Diverged,
        Some(_) => Health::Ok,
    };
    answers.iter().map(one).collect()
}

/// The latest view that f+1 replicas have entered, so that at least one correct one has: a liar
/// cannot make the others look late.
fn group_view(answers: &[Option<&Status>], faults: u16) -> u64 {
    let mut views: Vec<u64> = answers.iter().flatten().map(|status| status.view).collect();
    views.sort_unstable_by_key(|view| std::cmp::Reverse(*view));
    views.get(usize::from(faults)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(view: u64, current_view: u64) -> Status {
        let mut status = Status::default();
        (status.view, status.current_view) = (view, current_view);
        status
    }

    fn judged(answers: &[Option<Status>]) -> Vec<Health> {
        judge(&answers.iter().map(Option::as_ref).collect::<Vec<_>>(), 1)
    }

    #[test]
    fn a_replica_that_left_its_view_or_missed_the_groups_is_out_of_view() {
        use Health::{Diverged, Halted, NoAnswer, Ok, OutOfView};
        assert_eq!(judged(&[Some(at(3, 3)), Some(at(3, 3)), Some(at(3, 3))]), [Ok, Ok, Ok]);
        assert_eq!(judged(&[Some(at(3, 3)), Some(at(3, 4)), None]), [Ok, OutOfView, NoAnswer]);
        assert_eq!(
            judged(&[Some(at(3, 3)), Some(at(4, 4)), Some(at(4, 4))]),
            [OutOfView, Ok, Ok],
            "two have entered view 4"
        );
        assert_eq!(
            judged(&[Some(at(3, 3)), Some(at(u64::MAX, u64::MAX)), Some(at(3, 3))]),
            [Ok, Ok, Ok],
            "one alone may lie"
        );
        let mut other = at(3, 3);
        other.diverged = true;
        assert_eq!(judged(&[Some(at(3, 3)), Some(other), Some(at(3, 3))]), [Ok, Diverged, Ok]);
        let mut halted = at(3, 4);
        halted.halted = true;
        assert_eq!(judged(&[Some(halted), Some(at(3, 3)), None]), [Halted, Ok, NoAnswer]);
        assert_eq!(judged(&[None, None, None]), [NoAnswer, NoAnswer, NoAnswer]);
    }
}
