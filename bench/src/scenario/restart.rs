//! kill -9 and start again, many times under load, with disks that fail meanwhile: nothing that was acknowledged
//! is lost or doubled.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disks;
use super::round::{Script, play};
use super::{RestartRound, Round, Target};
use crate::Error;
use crate::options::{DiskEvent, FaultOptions, RestartHow};
use crate::stop::Stop;
use crate::workload::Random;

/// How long a replica is down, in milliseconds.
const DOWN_MS: (u32, u32) = (5, 600);
/// How long the group runs before the next is killed, in milliseconds.
const UP_MS: (u32, u32) = (50, 1500);
/// At random, one in so many times all are killed.
const ALL_IN: u32 = 4;
/// The rate that the group settles at is that of this time, after as long.
const SETTLED: Duration = Duration::from_secs(2);

/// One round.
///
/// # Errors
/// See [`super::fault`]; a replica that does not come back is one.
pub(super) fn round(
    options: &FaultOptions,
    how: RestartHow,
    number: u32,
    target: &Target,
    stop: &Stop,
) -> Result<Round, Error> {
    let (spec, at) = (&target.spec, options.at);
    let shares = options.disks.shares().ok_or_else(|| {
        Error::new(
            "--torn-tail, --damaged-log, --older-copy and --full-disk are more than 100 percent",
        )
    })?;
    play(options, target, stop, |stage| {
        let begin = stage.settled(at)?;
        let (view_before, first) = stage.leader()?;
        let before_ops_s = stage.rate_since(begin);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = options.fault_seed.unwrap_or(clock.as_nanos() as u64);
        let mut random = Random::of(seed, number.into());
        let end = stage.origin.elapsed() + options.after;
        let mut done = RestartRound { seed, ..RestartRound::default() };
        while stage.origin.elapsed() < end {
            let all = || (0..spec.replicas).collect();
            let victims: Vec<u16> = match how {
                RestartHow::All => all(),
                RestartHow::Random if random.below(ALL_IN) == 0 => all(),
                RestartHow::Random => vec![random.below(spec.replicas.into()) as u16],
                RestartHow::Rolling => vec![(done.restarts % u64::from(spec.replicas)) as u16],
            };
            let event = match how {
                RestartHow::Random => drawn(&shares, &mut random),
                RestartHow::Rolling | RestartHow::All => None,
            };
            // More is for one replica at a time: see `disks`.
            let event = event.filter(|it| victims.len() == 1 || *it == DiskEvent::TornTail);
            victims.iter().for_each(|victim| stage.kill(*victim));
            stage.run_until(stage.origin.elapsed() + between(&mut random, DOWN_MS))?;
            for victim in &victims {
                match event {
                    Some(event) => disks::happen(event, stage, *victim, &mut random, &mut done)?,
                    None => stage.comes_back(*victim)?,
                }
            }
            done.restarts += victims.len() as u64;
            done.of_all += u64::from(victims.len() == usize::from(spec.replicas));
            stage.run_until(stage.origin.elapsed() + between(&mut random, UP_MS))?;
        }
        stage.run_until(stage.origin.elapsed() + SETTLED)?;
        let settled = stage.mark();
        stage.run_until(stage.origin.elapsed() + SETTLED)?;
        let after_ops_s = stage.rate_since(settled);
        Ok(Script {
            replica: first,
            view_before,
            before_ops_s,
            after_ops_s,
            pause: None,
            restart: Some(done),
        })
    })
}

/// What happens to the disks this time.
fn drawn(shares: &[(DiskEvent, u32)], random: &mut Random) -> Option<DiskEvent> {
    let mut drawn = random.below(100);
    for (event, share) in shares {
        if drawn < *share {
            return Some(*event);
        }
        drawn -= share;
    }
    None
}

fn between(random: &mut Random, (low, high): (u32, u32)) -> Duration {
    Duration::from_millis((low + random.below(high - low)).into())
}
