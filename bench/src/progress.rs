//! A progress bar, on a terminal only.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::count;

/// Shows how far a load is and its current speed.
pub struct Progress {
    bar: ProgressBar,
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Progress {
    /// A bar over this time; invisible unless standard error is a terminal.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length.as_millis() as u64), target);
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self { bar, last: None, rate: 0.0 }
    }

    /// Moves the bar.
    pub fn show(&mut self, elapsed: Duration, completed: u64, failed: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let now = Instant::now();
        match self.last {
            Some((then, _)) if now - then < Duration::from_millis(250) => {}
            Some((then, before)) => {
                self.rate = (completed - before) as f64 / (now - then).as_secs_f64();
                self.last = Some((now, completed));
            }
            None => self.last = Some((now, completed)),
        }
        self.bar.set_position(elapsed.as_millis() as u64);
        let errors = if failed > 0 { format!(", {} errors", count(failed)) } else { String::new() };
        self.bar.set_message(format!("{} operations/s{errors}", count(self.rate as u64)));
    }

    /// Removes the bar.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}
