//! `hybster trace`: protocol traces as text or as JSON.

mod json;

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use hybster_proto::ids::{OrderNumber, PillarId};
use hybster_proto::trace::file::{Entry, Header, Trace, Writer};
use hybster_proto::trace::{TraceError, TraceEvent, v1};

use crate::{Done, Failure};

/// Options of `hybster trace`.
#[derive(Debug, Args)]
#[command(
    after_help = "One line per event: the time (UTC time of day; microseconds for the simulator), \
    the replica, what it did. v is a view, o an order number, p a pillar. Several files are merged \
    by time."
)]
pub(crate) struct TraceArgs {
    /// Trace files of one group.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only events of this replica; may be given several times.
    #[arg(long, value_name = "N")]
    replica: Vec<u16>,
    /// Only events of this pillar, not those of the whole replica; may be given several times.
    #[arg(long, value_name = "P")]
    pillar: Vec<u16>,
    /// Only events about this order number, or about some of FIRST..LAST.
    #[arg(long, value_name = "ORDER")]
    order: Option<Orders>,
    /// One JSON object per line, the first of which describes the group; times are microseconds, of
    /// the simulator or since 1970 (UTC).
    #[arg(long)]
    json: bool,
}

/// Order numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Orders(u64, u64);

impl FromStr for Orders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim_start_matches('o')
                .parse::<u64>()
                .map_err(|_| "write an order number as in 17, or two as in 17..32".to_owned())
        };
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        Ok(Self(number(first)?, number(last)?))
    }
}

/// An event as some version of the format has it.
trait Shown: Display {
    fn pillar(&self) -> Option<PillarId>;
    fn orders(&self) -> Option<(OrderNumber, OrderNumber)>;
}

impl Shown for TraceEvent {
    fn pillar(&self) -> Option<PillarId> {
        self.pillar()
    }

    fn orders(&self) -> Option<(OrderNumber, OrderNumber)> {
        self.orders()
    }
}

impl Shown for v1::Event {
    fn pillar(&self) -> Option<PillarId> {
        self.pillar()
    }

    fn orders(&self) -> Option<(OrderNumber, OrderNumber)> {
        self.orders()
    }
}

/// What was read of some files: the header, the wanted events with the times of their lines, and
/// what was wrong.
struct Read<E> {
    header: Header,
    lines: Vec<(u64, Entry<E>)>,
    damages: Vec<Failure>,
}

/// Shows traces.
pub(crate) fn trace(args: &TraceArgs) -> Result<Done, Failure> {
    let (first, _) = args.files.split_first().expect("one file is required");
    let version = Header::parse(&contents(first)?).map_err(|error| of_file(first, &error))?.version;
    if version == v1::VERSION && args.json {
        let old = "the trace has format version 1, of which there is no JSON";
        return Err(of_file(first, &old));
    }
    if version == v1::VERSION {
        let read = args.read(|bytes| Trace::read_version_1(bytes))?;
        return finish(print_words(&read), read.damages);
    }
    let read = args.read(|bytes| Trace::read(bytes))?;
    let printed = if args.json { print_json(&read) } else { print_words(&read) };
    finish(printed, read.damages)
}

fn contents(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| of_file(path, &error))
}

fn of_file(path: &Path, what: &dyn Display) -> Failure {
    Failure::new(format!("{}: {what}", path.display()))
}

fn finish(printed: io::Result<()>, damages: Vec<Failure>) -> Result<Done, Failure> {
    match printed {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    damages.into_iter().next().map_or(Ok(Done::Yes), Err)
}

impl TraceArgs {
    /// Reads the files as one version of the format.
    fn read<E: Shown>(
        &self,
        read: impl for<'a> Fn(&'a [u8]) -> Result<Trace<'a, E>, TraceError>,
    ) -> Result<Read<E>, Failure> {
        let mut group: Option<(Header, &Path)> = None;
        let (mut lines, mut damages) = (Vec::new(), Vec::new());
        for path in &self.files {
            let bytes = contents(path)?;
            let mut trace = read(&bytes).map_err(|error| of_file(path, &error))?;
            let header = *trace.header();
            let (first, first_path) = *group.get_or_insert((header, path));
            if (header.group, header.writer) != (first.group, first.writer) {
                let first = first_path.display();
                let other = format!("is of another group than {first}; show them apart");
                return Err(of_file(path, &other));
            }
            for entry in trace.by_ref() {
                match entry {
                    Ok(entry) if self.wants(&entry, &header) => {
                        let time = header.started_unix_us.saturating_add(entry.time.0);
                        lines.push((time, entry));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        damages.push(of_file(path, &format!("{error}; what is before it is good")));
                    }
                }
            }
            if trace.is_cut() {
                eprintln!("{}: the end is missing: its writer was killed", path.display());
            }
            if trace.lost() > 0 {
                let lost = trace.lost();
                eprintln!("{}: {lost} events are missing: they were dropped", path.display());
            }
        }
        let (header, _) = group.expect("one file is required");
        // The simulator's order is that of events already, also of those at the same time.
        lines.sort_by_key(|(time, _)| *time);
        Ok(Read { header, lines, damages })
    }

    fn wants<E: Shown>(&self, entry: &Entry<E>, header: &Header) -> bool {
        let among = |wanted: &[u16], id| wanted.is_empty() || wanted.contains(&id);
        among(&self.replica, entry.replica.0)
            && (self.pillar.is_empty()
                || entry.event.pillar().is_some_and(|pillar| self.pillar.contains(&pillar.0)))
            && self.order.is_none_or(|orders| orders.meet(&entry.event, header))
    }
}

impl Orders {
    /// Whether an event is about one of these orders. One of a pillar is only about its own.
    fn meet(self, event: &impl Shown, header: &Header) -> bool {
        let Some((first, last)) = event.orders() else { return false };
        let (from, to) = (self.0.max(first.0), self.1.min(last.0));
        let step = u64::from(header.pillars).max(1);
        match event.pillar() {
            None => from <= to,
            // The first order of the pillar from `from` on.
            Some(_) => from <= to && from + (step - (from - first.0) % step) % step <= to,
        }
    }
}

fn print_words<E: Shown>(read: &Read<E>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (time, Entry { replica, event, .. }) in &read.lines {
        match read.header.writer {
            Writer::Simulator => writeln!(out, "{time:>10} us {replica} {event}")?,
            Writer::Replica => {
                let (s, us) = (time / 1_000_000 % 86_400, time % 1_000_000);
                let (hour, minute, second) = (s / 3600, s / 60 % 60, s % 60);
                writeln!(out, "{hour:02}:{minute:02}:{second:02}.{us:06} {replica} {event}")?;
            }
        }
    }
    out.flush()
}

fn print_json(read: &Read<TraceEvent>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    writeln!(out, "{}", json::header(&read.header))?;
    for (time, entry) in &read.lines {
        writeln!(out, "{}", json::entry(*time, entry))?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use hybster_proto::GroupConfig;
    use hybster_proto::ids::View;
    use hybster_proto::trace::{Phase, Proposal};
    use hybster_proto::wire::CheckpointId;
    use hybster_tss::Digest;

    use super::*;

    #[test]
    fn order_numbers_are_read_and_compared_by_pillar() {
        assert_eq!("17".parse(), Ok(Orders(17, 17)));
        assert_eq!("o3..9".parse(), Ok(Orders(3, 9)));
        assert!("3..x".parse::<Orders>().is_err());
        let header = Header::new(Writer::Simulator, &GroupConfig::default(), 0);
        let (first, last) = (OrderNumber(5), OrderNumber(9));
        let noop = TraceEvent::Vouched {
            phase: Phase::Commit,
            pillar: PillarId(0),
            view: View(0),
            proposal: Proposal { first, last, batch: Digest::default(), time_ms: 0, noop: true },
        };
        // Two pillars: the no-op covers 5, 7 and 9.
        let met: Vec<u64> = (0..12).filter(|o| Orders(*o, *o).meet(&noop, &header)).collect();
        assert_eq!(met, [5, 7, 9]);
        assert!(Orders(6, 7).meet(&noop, &header) && !Orders(10, 99).meet(&noop, &header));
        let installed = TraceEvent::StateInstalled(CheckpointId {
            order: OrderNumber(6),
            digest: Digest::default(),
        });
        assert!(Orders(1, 6).meet(&installed, &header) && !Orders(7, 9).meet(&installed, &header));
        assert!(!Orders(0, 99).meet(&TraceEvent::Lost { events: 1 }, &header));
    }
}
