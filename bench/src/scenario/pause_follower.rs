//! SIGSTOP of a follower under load: it catches up after SIGCONT, and memory stays bounded.

use std::time::{Duration, Instant};

use super::round::{Script, Stage, play};
use super::{PauseRound, Round, Target};
use crate::Error;
use crate::options::FaultOptions;
use crate::stop::Stop;

/// Longest wait for the follower to catch up under load.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Time between two checks of the follower's state.
const LOOK: Duration = Duration::from_millis(50);

/// One round.
///
/// # Errors
/// See [`super::fault`].
pub(super) fn round(
    options: &FaultOptions,
    length: Duration,
    target: &Target,
    stop: &Stop,
) -> Result<Round, Error> {
    let (spec, at) = (&target.spec, options.at);
    play(options, target, stop, |stage| {
        let begin = stage.settled(at)?;
        let (view_before, leader) = stage.leader()?;
        let paused = (leader + 1) % spec.replicas;
        let peak_before_bytes = peak(stage)?;
        let before_ops_s = stage.rate_since(begin);
        let stopped = stage.mark();
        stage.group.pause(paused)?;
        stage.run_until(stage.origin.elapsed() + length)?;
        let during_ops_s = stage.rate_since(stopped);
        let orders_at_resume = stage.monitor.status(leader).map_or(0, |s| s.executed);
        stage.group.resume(paused)?;
        let paused_s = stopped.at.elapsed().as_secs_f64();
        let caught_up = catch_up(stage, paused)?;
        let after = stage.mark();
        stage.run_until(stage.origin.elapsed() + options.after)?;
        let pause = PauseRound {
            paused_s,
            during_ops_s,
            orders_at_resume,
            caught_up: caught_up.is_some(),
            catch_up_s: caught_up.unwrap_or(CATCH_UP).as_secs_f64(),
            peak_before_bytes,
            peak_bytes: peak(stage)?,
        };
        let after_ops_s = stage.rate_since(after);
        let pause = Some(pause);
        Ok(Script { replica: paused, view_before, before_ops_s, after_ops_s, pause, restart: None })
    })
}

/// Sum of the peaks of all processes.
fn peak(stage: &mut Stage<'_>) -> Result<u64, Error> {
    Ok(stage.group.usage()?.iter().map(|p| p.peak_rss_bytes).sum())
}

/// Waits until the follower has executed what another replica had executed just before, and has
/// its stable checkpoint. The time it took, or `None` if it took too long.
fn catch_up(stage: &mut Stage<'_>, paused: u16) -> Result<Option<Duration>, Error> {
    let begun = Instant::now();
    let replicas = stage.group.spec().replicas;
    while begun.elapsed() < CATCH_UP {
        stage.stop.check()?;
        stage.group.expect_running(&stage.dead)?;
        let (_, leader) = stage.leader()?;
        // The leader is asked first: the follower must reach what the leader had executed before.
        let other = if leader == paused { (leader + 1) % replicas } else { leader };
        let ahead = stage.monitor.status(other);
        let behind = stage.monitor.status(paused);
        if let (Ok(ahead), Ok(behind)) = (ahead, behind)
            && behind.executed >= ahead.executed
            && behind.stable_checkpoint >= ahead.stable_checkpoint
        {
            return Ok(Some(begun.elapsed()));
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}
