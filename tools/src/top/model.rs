//! What `hybster top` knows: the last two readings of all replicas, and what follows from them.

use std::collections::BTreeMap;
use std::time::Instant;

use hybster::{Group, Status};
use hybster_proto::output::Reject;

use crate::health::{Health, judge};
use crate::survey::Answer;
use crate::words;

/// One reading of all replicas.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) answers: Vec<Answer>,
    pub(super) health: Vec<Health>,
}

impl Sample {
    pub(super) fn of(answers: Vec<Answer>, faults: u16) -> Self {
        let known: Vec<Option<&Status>> = answers.iter().map(|it| it.status.as_ref()).collect();
        Self { at: Instant::now(), health: judge(&known, faults), answers }
    }
}

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) group: String,
    pub(super) faults: u16,
    pub(super) pillars: u16,
    pub(super) replicas: usize,
    pub(super) now: Option<Sample>,
    before: Option<Sample>,
    /// Lines that have gone out at the top.
    pub(super) scroll: u16,
    /// The figures stay as they are.
    pub(super) is_held: bool,
}

/// Messages that were dropped for a reason, over all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    /// `None` for reasons that this program does not know.
    pub(super) reason: Option<Reject>,
    pub(super) since_start: u64,
    pub(super) since_before: u64,
}

impl Model {
    pub(super) fn of(group: &Group) -> Self {
        let config = group.config();
        Self {
            group: group.name(),
            faults: config.faults,
            pillars: config.pillars,
            replicas: group.replicas().len(),
            now: None,
            before: None,
            scroll: 0,
            is_held: false,
        }
    }

    pub(super) fn add(&mut self, sample: Sample) {
        if !self.is_held {
            self.before = self.now.replace(sample);
        }
    }

    /// A replica's last status.
    pub(super) fn status(&self, replica: usize) -> Option<&Status> {
        self.now.as_ref()?.answers.get(replica)?.status.as_ref()
    }

    /// Its status of before, if it has not started again since.
    pub(super) fn earlier(&self, replica: usize) -> Option<&Status> {
        let earlier = self.before.as_ref()?.answers.get(replica)?.status.as_ref()?;
        (self.status(replica)?.uptime_us >= earlier.uptime_us).then_some(earlier)
    }

    /// How much of something there is in a second.
    pub(super) fn rate(&self, replica: usize, of: impl Fn(&Status) -> Option<u64>) -> Option<f64> {
        let seconds = self.now.as_ref()?.at.duration_since(self.before.as_ref()?.at).as_secs_f64();
        let grown = of(self.status(replica)?)?.checked_sub(of(self.earlier(replica)?)?)?;
        (seconds > 0.0).then(|| grown as f64 / seconds)
    }

    /// The highest order number that f+1 replicas have executed, so that a liar cannot let all others
    /// look late.
    pub(super) fn executed(&self) -> u64 {
        let mut all: Vec<u64> =
            (0..self.replicas).filter_map(|id| Some(self.status(id)?.executed)).collect();
        all.sort_unstable_by_key(|executed| std::cmp::Reverse(*executed));
        let nth = usize::from(self.faults).min(all.len().saturating_sub(1));
        all.get(nth).copied().unwrap_or(0)
    }

    /// How many links were refused since the start, over all replicas, by words for the reason.
    pub(super) fn refused(&self) -> Vec<(&'static str, u64)> {
        let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
        let known = (0..self.replicas).filter_map(|replica| self.status(replica));
        for refusal in known.flat_map(|status| &status.refusals) {
            let words = words::refusal(&refusal.reason).map_or(words::UNKNOWN, words::of_refusal);
            let sum = sums.entry(words).or_default();
            *sum = sum.saturating_add(refusal.count);
        }
        sums.into_iter().collect()
    }

    /// What was rejected, that which only faulty senders cause first, then by number.
    pub(super) fn rejected(&self) -> Vec<Rejected> {
        let mut sums: BTreeMap<Option<Reject>, (u64, u64)> = BTreeMap::new();
        for replica in 0..self.replicas {
            let Some(status) = self.status(replica) else { continue };
            // Without an earlier reading nothing is new.
            let earlier = self.earlier(replica);
            let count = |of: &Status, sums: &mut BTreeMap<Option<Reject>, u64>| {
                for rejection in &of.rejections {
                    let sum = sums.entry(words::reject(&rejection.reason)).or_default();
                    *sum = sum.saturating_add(rejection.count);
                }
            };
            let (mut now, mut then) = (BTreeMap::new(), BTreeMap::new());
            count(status, &mut now);
            count(earlier.unwrap_or(status), &mut then);
            for (reason, sum) in now {
                let entry = sums.entry(reason).or_default();
                let before = then.get(&reason).copied().unwrap_or(0);
                entry.0 = entry.0.saturating_add(sum);
                entry.1 = entry.1.saturating_add(sum.saturating_sub(before));
            }
        }
        let rejected =
            |(reason, (since_start, since_before))| Rejected { reason, since_start, since_before };
        let mut all: Vec<Rejected> = sums.into_iter().map(rejected).collect();
        let faulty = |it: &Rejected| it.reason.is_none_or(Reject::is_fault);
        all.sort_by_key(|it| (!faulty(it), std::cmp::Reverse(it.since_start)));
        all
    }
}
