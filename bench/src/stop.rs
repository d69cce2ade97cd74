//! The flag that ends everything: on Ctrl-C, SIGTERM, SIGHUP, or an error in any thread.
//!
//! A signal asks to end: who measures may stop in order and report what there is so far. An error, or
//! another signal a second later, ends everything at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::Error;

/// Longest time between two checks of the flag while waiting.
const SLICE: Duration = Duration::from_millis(50);

/// A signal that comes so long after the first one means "at once".
const IMPATIENCE: Duration = Duration::from_secs(1);

/// Somebody asked to end.
const ASKED: u8 = 1;
/// Everything ends at once.
const URGENT: u8 = 2;

/// A flag that says "stop now"; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// A flag that is not raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that Ctrl-C, SIGTERM and SIGHUP raise. Call it once per process.
    ///
    /// # Errors
    /// If the operating system refuses the handler.
    pub fn on_signals() -> Result<Self, Error> {
        let stop = Self::new();
        let raised = stop.clone();
        let mut first: Option<Instant> = None;
        // `timeout`, for one, sends a signal twice: to the process and to its group.
        let signal = move || match first {
            Some(at) if at.elapsed() >= IMPATIENCE => raised.raise(),
            Some(_) => {}
            None => {
                first = Some(Instant::now());
                raised.ask();
            }
        };
        ctrlc::set_handler(signal)
            .map_err(|e| Error::new(format!("cannot install the signal handler: {e}")))?;
        Ok(stop)
    }

    /// Asks to end, as a signal does.
    pub fn ask(&self) {
        self.0.fetch_max(ASKED, Ordering::Relaxed);
    }

    /// Ends everything at once.
    pub fn raise(&self) {
        self.0.store(URGENT, Ordering::Relaxed);
    }

    /// Whether the flag is raised, urgently or not.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= ASKED
    }

    /// Whether everything is to end at once.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= URGENT
    }

    /// Fails if everything is to end at once.
    ///
    /// # Errors
    /// [`Error::interrupted`].
    pub fn check_urgent(&self) -> Result<(), Error> {
        if self.is_urgent() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Fails if the flag is raised.
    ///
    /// # Errors
    /// [`Error::interrupted`].
    pub fn check(&self) -> Result<(), Error> {
        if self.is_raised() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Sleeps until `end`, calling `tick` in between, unless the flag is raised.
    ///
    /// # Errors
    /// [`Error::interrupted`] if the flag was raised, or the error of `tick`.
    pub fn sleep_until(
        &self,
        end: Instant,
        mut tick: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            self.check()?;
            tick()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_to_end_may_do_so_in_order() {
        let stop = Stop::new();
        assert!(!stop.is_raised() && stop.check().is_ok());
        stop.ask();
        assert!(stop.check().is_err() && stop.check_urgent().is_ok());
        stop.raise();
        stop.ask();
        assert!(stop.check_urgent().unwrap_err().is_interrupted());
    }

    #[test]
    fn a_raised_flag_ends_a_sleep_with_an_error() {
        let stop = Stop::new();
        let far = Instant::now() + Duration::from_secs(3600);
        let raised = stop.clone();
        let mut ticks = 0;
        let result = stop.sleep_until(far, || {
            ticks += 1;
            if ticks == 2 {
                raised.raise();
            }
            Ok(())
        });
        assert!(result.unwrap_err().is_interrupted());
        assert_eq!(ticks, 2);
    }
}
