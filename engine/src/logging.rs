//! Log lines on standard error: which ones, and in which form.
//!
//! The crates of this workspace log by the facade `log`, and a program that embeds a replica may install
//! any logger. This is the one of the commands `hybster` and `hybster-bench`, in a page of code: it
//! replaces two packages (`env_logger`, which warns of a filter that it cannot read and goes on without,
//! and has no JSON), where `tracing-subscriber` would add about ten, for spans and fields that nothing
//! here uses.
//!
//! ```text
//! 2026-11-28T22:11:15.162Z INFO  replica 0 listens on 127.0.0.1:7100, fused layout, io-uring
//! {"time":"2026-11-28T22:11:15.162Z","level":"info","target":"hybster::replica","thread":"main","message":"…"}
//! ```
//!
//! [`set_filter`] changes which lines are written while the program runs.

use std::fmt;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;
use serde::Serialize;

/// The environment variable with the filter, if no option has one.
pub const FILTER_VARIABLE: &str = "HYBSTER_LOG";
/// The environment variable with the form, if no option has one.
pub const FORMAT_VARIABLE: &str = "HYBSTER_LOG_FORMAT";
/// Read after [`FILTER_VARIABLE`]. It may be meant for other programs: what cannot be read is ignored.
const OTHER_FILTER_VARIABLE: &str = "RUST_LOG";

/// Which lines are written: a level, and levels for parts of the program.
///
/// ```
/// use hybster::logging::Filter;
///
/// let filter: Filter = "warn,hybster_net=debug".parse().unwrap();
/// assert!("loud".parse::<Filter>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    otherwise: LevelFilter,
    /// Longest first, so that the first that fits decides.
    parts: Vec<(String, LevelFilter)>,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Date and time (RFC 3339, UTC), level, message.
    #[default]
    Text,
    /// An object per line: `time` (RFC 3339, UTC), `level`, `target`, `thread`, `message`.
    Json,
}

/// A setting of the log that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter is malformed.
    #[error(
        "\"{0}\" is no log level: write off, error, warn, info, debug or trace, or a list such as \
         info,hybster_net=debug"
    )]
    Filter(String),
    /// There is no such form.
    #[error("\"{0}\" is no form of log lines: write text or json")]
    Format(String),
    /// An environment variable has a value that cannot be used.
    #[error("the environment variable {variable}: {error}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong with its value.
        error: Box<Self>,
    },
    /// The program has a logger already.
    #[error("this program has a logger already")]
    InstalledAlready,
    /// The program's logger is not the one of this module.
    #[error("this program does not log by hybster::logging: call its `init` first")]
    NotInstalled,
}

impl Filter {
    /// Everything of this level and above.
    #[must_use]
    pub const fn level(level: LevelFilter) -> Self {
        Self { otherwise: level, parts: Vec::new() }
    }

    /// The same with one level more everywhere, but for what is off.
    ///
    /// ```
    /// use hybster::logging::Filter;
    ///
    /// let filter: Filter = "info,hybster_net=trace,hybster_log=off".parse().unwrap();
    /// assert_eq!(filter.louder().to_string(), "debug,hybster_net=trace,hybster_log=off");
    /// ```
    #[must_use]
    pub fn louder(&self) -> Self {
        let next = |level: LevelFilter| match level {
            LevelFilter::Off => LevelFilter::Off,
            LevelFilter::Error => LevelFilter::Warn,
            LevelFilter::Warn => LevelFilter::Info,
            LevelFilter::Info => LevelFilter::Debug,
            LevelFilter::Debug | LevelFilter::Trace => LevelFilter::Trace,
        };
        let parts = self.parts.iter().map(|(part, level)| (part.clone(), next(*level)));
        Self { otherwise: next(self.otherwise), parts: parts.collect() }
    }

    fn of(&self, target: &str) -> LevelFilter {
        let fits = |part: &str| {
            target.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let part = self.parts.iter().find(|(part, _)| fits(part));
        part.map_or(self.otherwise, |(_, level)| *level)
    }

    fn most(&self) -> LevelFilter {
        self.parts.iter().map(|(_, level)| *level).fold(self.otherwise, Ord::max)
    }
}

impl FromStr for Filter {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = |part: &str| LogError::Filter(part.to_owned());
        // A list without a level of its own is about its parts only.
        let mut filter = Self::level(LevelFilter::Off);
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => filter.otherwise = part.parse().map_err(|_| malformed(part))?,
                Some((target, level)) if !target.trim().is_empty() => {
                    let level = level.trim().parse().map_err(|_| malformed(part))?;
                    filter.parts.push((target.trim().to_owned(), level));
                }
                Some(_) => return Err(malformed(part)),
            }
        }
        filter.parts.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |level: LevelFilter| level.as_str().to_ascii_lowercase();
        f.write_str(&name(self.otherwise))?;
        self.parts.iter().try_for_each(|(part, level)| write!(f, ",{part}={}", name(*level)))
    }
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

/// Writes log lines from now on: as the options say, else as the environment does (`HYBSTER_LOG`,
/// `HYBSTER_LOG_FORMAT`), else from `level` up, as text. `RUST_LOG` counts, too, in programs that write
/// lines by default.
///
/// # Errors
/// If a variable has a value that cannot be used, or there is a logger already.
pub fn init(
    filter: Option<Filter>,
    format: Option<Format>,
    level: LevelFilter,
) -> Result<(), LogError> {
    let filter = match filter {
        Some(filter) => filter,
        None => match variable(FILTER_VARIABLE)? {
            Some(filter) => filter,
            None if level == LevelFilter::Off => Filter::level(level),
            None => variable(OTHER_FILTER_VARIABLE).ok().flatten().unwrap_or(Filter::level(level)),
        },
    };
    let format = match format {
        Some(format) => format,
        None => variable(FORMAT_VARIABLE)?.unwrap_or_default(),
    };
    let most = filter.most();
    log::set_logger(LINES.get_or_init(|| Lines { filter: RwLock::new(filter), format }))
        .map_err(|_| LogError::InstalledAlready)?;
    log::set_max_level(most);
    Ok(())
}

/// Which lines are written; `None` before [`init`].
#[must_use]
pub fn filter() -> Option<Filter> {
    LINES.get().map(|lines| lines.filter.read().clone())
}

/// Writes other lines from now on.
///
/// # Errors
/// If [`init`] was not called.
pub fn set_filter(filter: Filter) -> Result<(), LogError> {
    let lines = LINES.get().ok_or(LogError::NotInstalled)?;
    let most = filter.most();
    *lines.filter.write() = filter;
    log::set_max_level(most);
    Ok(())
}

/// The setting in an environment variable; one that is empty says nothing.
fn variable<T: FromStr<Err = LogError>>(variable: &'static str) -> Result<Option<T>, LogError> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let parsed = value.to_string_lossy().parse();
    parsed.map(Some).map_err(|error| LogError::Variable { variable, error: Box::new(error) })
}

static LINES: OnceLock<Lines> = OnceLock::new();

#[derive(Debug)]
struct Lines {
    /// Read for each line that the greatest level lets through: no line is written per request.
    filter: RwLock<Filter>,
    format: Format,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.filter.read().of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(self.format, now, record);
        // One call, so that lines of several threads do not mix. There is nowhere to report a failure.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn line(format: Format, now: Duration, record: &Record<'_>) -> String {
    let message = record.args().to_string();
    match format {
        Format::Text => {
            format!("{} {:<5} {}\n", Timestamp(now), record.level(), OneLine(&message))
        }
        Format::Json => {
            #[derive(Serialize)]
            struct Line<'a> {
                time: String,
                level: &'a str,
                target: &'a str,
                thread: &'a str,
                message: &'a str,
            }
            let thread = std::thread::current();
            let line = Line {
                time: Timestamp(now).to_string(),
                level: &record.level().as_str().to_ascii_lowercase(),
                target: record.target(),
                thread: thread.name().unwrap_or_default(),
                message: &message,
            };
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        }
    }
}

/// A message on one line: what somebody outside put into it cannot look like another line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    f.write_str(&part[..part.len() - last.len_utf8()])?;
                    write!(f, "{}", last.escape_default())?;
                }
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// A time since 1970 by RFC 3339, in UTC, with milliseconds.
struct Timestamp(Duration);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{}Z", Date(self.0), TimeOfDay(self.0))
    }
}

/// The time of day of a time since 1970, with milliseconds.
struct TimeOfDay(Duration);

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ms) = (self.0.as_secs() % 86_400, self.0.subsec_millis());
        write!(f, "{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
    }
}

/// The date of a time since 1970.
struct Date(Duration);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Counted in years from March, so that a leap day is the last day of its year; and from 0000 on.
        let days = self.0.as_secs() / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        write!(f, "{:04}-{month:02}-{day:02}", 400 * era + year + next)
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn filters_are_read_and_the_longest_part_decides() {
        let filter: Filter = "warn, hybster_net=debug,hybster_net::hub=off".parse().unwrap();
        for (target, level) in [
            ("hybster::replica", LevelFilter::Warn),
            ("hybster_net", LevelFilter::Debug),
            ("hybster_net::uring", LevelFilter::Debug),
            ("hybster_net::hub", LevelFilter::Off),
            ("hybster_net::hub::admit", LevelFilter::Off),
            ("hybster_network", LevelFilter::Warn),
        ] {
            assert_eq!(filter.of(target), level, "{target}");
        }
        assert_eq!(filter.most(), LevelFilter::Debug);
        assert_eq!("INFO".parse(), Ok(Filter::level(LevelFilter::Info)));
        for wrong in ["", "loud", "info,", "=info", "hybster=loud", "hybster="] {
            let error = wrong.parse::<Filter>().unwrap_err().to_string();
            assert!(error.contains("debug or trace"), "{wrong}: {error}");
        }
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("text or json"));
    }

    #[test]
    fn a_filter_is_written_as_it_is_read() {
        for text in ["info", "off", "warn,hybster_net::hub=off,hybster_net=debug"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
        let loud = Filter::level(LevelFilter::Trace);
        assert_eq!(loud.louder(), loud);
        assert_eq!("warn,a=error".parse::<Filter>().unwrap().louder().to_string(), "info,a=warn");
    }

    fn written(format: Format, seconds: u64, message: &str) -> String {
        let arguments = format_args!("{message}");
        let mut record = Record::builder();
        record.level(Level::Warn).target("hybster::replica");
        line(format, Duration::from_millis(1000 * seconds + 7), &record.args(arguments).build())
    }

    #[test]
    fn a_message_is_one_line_in_either_form() {
        let text =
            written(Format::Text, 3_661, "the peer says \"no\"\n00:00:00.000 INFO  all is well");
        assert_eq!(
            text,
            "1970-01-01T01:01:01.007Z WARN  the peer says \"no\"\\n00:00:00.000 INFO  all is well\n"
        );
        let json = written(Format::Json, 3_661, "the peer says \"no\"\nand more");
        assert_eq!(json.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["time"], "1970-01-01T01:01:01.007Z");
        assert_eq!(object["level"], "warn");
        assert_eq!(object["target"], "hybster::replica");
        assert_eq!(object["message"], "the peer says \"no\"\nand more");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_785, "2026-11-28"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(Date(Duration::from_secs(days * 86_400)).to_string(), date);
        }
    }
}
