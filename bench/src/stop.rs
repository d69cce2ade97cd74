//! The flag that ends everything: on Ctrl-C, SIGTERM, SIGHUP, or an error in any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Error;

/// Longest time between two checks of the flag while waiting.
const SLICE: Duration = Duration::from_millis(50);

/// A flag that says "stop now"; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

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
        ctrlc::set_handler(move || raised.raise())
            .map_err(|e| Error::new(format!("cannot install the signal handler: {e}")))?;
        Ok(stop)
    }

    /// Raises the flag.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the flag is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
