//! Errors that end a benchmark early, explained for the person at the terminal.

use std::fmt;

/// A benchmark could not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    text: String,
    interrupted: bool,
}

impl Error {
    /// An error with its explanation.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), interrupted: false }
    }

    /// The user (or a signal) asked to stop.
    #[must_use]
    pub fn interrupted() -> Self {
        Self {
            text: "interrupted; all processes that were started are stopped".into(),
            interrupted: true,
        }
    }

    /// Whether a signal is the cause.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// The exit status that tells a caller: 130 after a signal (as shells do), 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.interrupted { 130 } else { 1 }
    }

    /// Adds in front what was being done.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        if !self.interrupted {
            self.text = format!("{doing}: {}", self.text);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
