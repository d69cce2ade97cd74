//! kill -9 of the leader under load: clients continue after one view change.

use std::time::Duration;

use super::Round;
use super::round::{Finished, play};
use crate::Error;
use crate::options::FaultOptions;
use crate::spec::GroupSpec;
use crate::stop::Stop;

/// Time from the start of the recording to the fault, so that some operation completes before it.
const LEAD: Duration = Duration::from_millis(200);

struct Script {
    killed: u16,
    view_before: u64,
    before_ops_s: f64,
    after_ops_s: f64,
}

/// One round.
///
/// # Errors
/// See [`super::fault`].
pub(super) fn round(
    options: &FaultOptions,
    spec: &GroupSpec,
    connections: u32,
    stop: &Stop,
) -> Result<Round, Error> {
    let at = options.at + LEAD;
    let finished = play(options, spec, connections, stop, |stage| {
        let begin = stage.settled(at)?;
        let (view_before, killed) = stage.leader()?;
        let now = stage.origin.elapsed();
        let before_ops_s = stage.rate_since(begin);
        stage.dead.push(killed);
        stage.group.kill(killed);
        // The rate that the survivors settle at is that of the second half of the remaining time.
        let half = options.after / 2;
        stage.run_until(now + half)?;
        let middle = stage.mark();
        stage.run_until(now + 2 * half)?;
        Ok(Script { killed, view_before, before_ops_s, after_ops_s: stage.rate_since(middle) })
    })?;
    let Finished { script, measured, verdict, errors, diverged, statuses, usage } = finished;
    Ok(Round {
        replica: script.killed,
        view_before: script.view_before,
        view_after: statuses.iter().map(|s| s.view).max().unwrap_or(script.view_before),
        gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        latency_max_ms: measured.latency_ns.max() as f64 / 1e6,
        acknowledged: verdict.acknowledged,
        errors,
        lost: verdict.lost,
        doubled: verdict.doubled,
        before_ops_s: script.before_ops_s,
        after_ops_s: script.after_ops_s,
        diverged,
        pause: None,
        processes: usage,
    })
}
