//! The load generator against a server that answers at once: at its limit it is called the bottleneck, and below it
//! is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::launch::LOAD;
use crate::load::{
    Access, AnyPace, ClosedLoop, OpenLoop, Outcome, Part, Plan, Rate, Run, Sessions, Tallies,
    drive, measure,
};
use crate::report::{Signs, ThreadReport, Warning};
use crate::stop::Stop;
use crate::usage::Sampler;
use crate::workload::{Null, Random};

const MEASURED: Duration = Duration::from_millis(1500);
const CLIENTS: u32 = 64;

/// Every operation is answered by the time of the next poll.
#[derive(Default)]
struct AtOnce {
    pending: Vec<u32>,
    waited: Duration,
}

impl Sessions for AtOnce {
    fn count(&self) -> u32 {
        CLIENTS
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn submit(&mut self, session: u32, _: Access, _: &[u8]) -> Result<(), Error> {
        self.pending.push(session);
        Ok(())
    }

    fn poll(
        &mut self,
        wait: Duration,
        done: &mut impl FnMut(u32, Outcome<'_>),
    ) -> Result<(), Error> {
        if self.pending.is_empty() {
            let begin = Instant::now();
            std::thread::sleep(wait);
            self.waited += begin.elapsed();
        }
        self.pending.drain(..).for_each(|session| done(session, Outcome::Done(b"")));
        Ok(())
    }
}

/// The warnings about a load at this pace, and the time that its thread waited for a core.
fn warnings(pace: AnyPace) -> (Vec<Warning>, f64) {
    let plan = Plan {
        origin: Instant::now() + Duration::from_millis(50),
        warmup: Duration::ZERO,
        measured: MEASURED,
        drain: Duration::from_secs(10),
        operations: None,
    };
    let part: Part<Run<Null>> = Box::new(move |tallies, stop| {
        let workload = Null::new(0, 0, 0, Random::new(1));
        drive(&mut AtOnce::default(), pace, workload, &plan, tallies, stop)
    });
    let stop = Stop::new();
    let watch = |_: &[Arc<Tallies>]| {
        let processes = || vec![(LOAD.to_owned(), std::process::id())];
        std::thread::sleep(plan.origin.saturating_duration_since(Instant::now()));
        let mut sampler = Sampler::start(plan.origin, &processes());
        stop.sleep_until(plan.origin + MEASURED, || {
            sampler.look(processes);
            Ok(())
        })?;
        Ok(sampler.finish(&processes()))
    };
    let (runs, usage) = measure(vec![part], &[], &stop, watch).unwrap();
    assert!(runs[0].acknowledged > 0);
    let busy = 1.0 - runs[0].waited.as_secs_f64() / runs[0].length.as_secs_f64();
    let waited: f64 = usage.threads.iter().map(|thread: &ThreadReport| thread.waited_s).sum();
    let signs = Signs {
        duration_s: MEASURED.as_secs_f64(),
        cores: 64,
        stolen_s: 0.0,
        usage: &usage,
        load_busy: busy,
        open_loop: None,
        throughput_ops_s: 0.0,
    };
    (signs.warnings(), waited)
}

#[test]
fn a_load_generator_that_never_waits_is_called_the_bottleneck() {
    let (warnings, waited) = warnings(AnyPace::Closed(ClosedLoop::new(CLIENTS, Duration::ZERO)));
    let kinds: Vec<_> = warnings.iter().map(|warning| warning.kind.as_str()).collect();
    if waited > 0.05 * MEASURED.as_secs_f64() && kinds.is_empty() {
        // That is another warning, which names more threads than cores.
        println!("skipped: the thread waited for its core for {waited:.2} s");
        return;
    }
    if std::fs::read_to_string("/proc/self/schedstat").is_err() {
        println!("skipped: the kernel does not count the time of threads");
        return;
    }
    assert_eq!(kinds, ["load-generator"], "{warnings:?}");
}

#[test]
fn one_that_waits_is_not() {
    let (warnings, _) = warnings(AnyPace::Open(OpenLoop::new(CLIENTS, Rate::constant(500.0))));
    assert_eq!(warnings, []);
}
