//! The benchmark harness of Hybster.
//!
//! It starts a group of replica processes on loopback ([`launch`]), drives them with real
//! authenticated clients ([`load`], [`workload`]), and reports what it measured ([`report`]).
//! [`run()`] measures a group, with events in between if asked for ([`agenda`]), [`scenario`] causes
//! faults under load and checks what became of each operation, [`sweep`] measures a series, [`knee`] looks
//! for the highest rate that satisfies a condition, [`compare`] gives ratios of reports, [`merge`] makes one of several, [`page`]
//! draws them, [`profile`] shows
//! where the time goes, [`usage`] samples what processes use, [`stages`] tells where the latency of requests goes. Only [`engine`] knows the engine's
//! interface, and [`options`] and [`spec`] are data that all others may use.
//!
//! However the benchmark ends (normally, with an error, by Ctrl-C or kill -9), no process is left
//! behind: see [`launch::Child`].

#![forbid(unsafe_code)]

pub mod agenda;
pub mod compare;
pub mod cores;
pub mod engine;
mod error;
pub mod knee;
pub mod launch;
pub mod load;
pub mod machine;
pub mod merge;
pub mod options;
pub mod page;
pub mod process;
pub mod profile;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
pub mod spec;
pub mod stages;
pub mod stop;
pub mod sweep;
pub mod usage;
pub mod workload;

pub use error::Error;
pub use run::run;
