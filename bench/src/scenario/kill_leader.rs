//! kill -9 of the leader under load: clients continue after one view change.

use std::time::Duration;

use super::round::{Script, play};
use super::{Round, Target};
use crate::Error;
use crate::options::FaultOptions;
use crate::stop::Stop;

/// Time from the start of the recording to the fault, so that some operation completes before it.
const LEAD: Duration = Duration::from_millis(200);

/// One round.
///
/// # Errors
/// See [`super::fault`].
pub(super) fn round(options: &FaultOptions, target: &Target, stop: &Stop) -> Result<Round, Error> {
    let at = options.at + LEAD;
    play(options, target, stop, |stage| {
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
        let after_ops_s = stage.rate_since(middle);
        Ok(Script {
            replica: killed,
            view_before,
            before_ops_s,
            after_ops_s,
            pause: None,
            restart: None,
        })
    })
}
