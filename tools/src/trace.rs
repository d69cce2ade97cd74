//! `hybster trace`: protocol traces as text.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use hybster_proto::trace::TraceEvent;
use hybster_proto::trace::file::{Entry, Header, Trace, Writer};

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

/// Shows traces.
pub(crate) fn trace(args: &TraceArgs) -> Result<Done, Failure> {
    let mut group: Option<(Header, &Path)> = None;
    let mut lines = Vec::new();
    let mut damages = Vec::new();
    for path in &args.files {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let of_file = |text: String| Failure::new(format!("{}: {text}", path.display()));
        let mut trace = Trace::read(&bytes).map_err(|error| of_file(error.to_string()))?;
        let header = *trace.header();
        let (first, first_path) = *group.get_or_insert((header, path));
        if (header.group, header.writer) != (first.group, first.writer) {
            let first = first_path.display();
            return Err(of_file(format!("is of another group than {first}; show them apart")));
        }
        for entry in trace.by_ref() {
            match entry {
                Ok(entry) if args.wants(&entry, &header) => {
                    lines.push((header.started_unix_us + entry.time.0, entry));
                }
                Ok(_) => {}
                Err(error) => damages.push(of_file(format!("{error}; what is before it is good"))),
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
    match print(&header, &lines) {
        // The reader has closed the pipe.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    damages.into_iter().next().map_or(Ok(Done::Yes), Err)
}

impl TraceArgs {
    fn wants(&self, entry: &Entry, header: &Header) -> bool {
        let among = |wanted: &[u16], id| wanted.is_empty() || wanted.contains(&id);
        among(&self.replica, entry.replica.0)
            && (self.pillar.is_empty()
                || entry.event.pillar().is_some_and(|pillar| self.pillar.contains(&pillar.0)))
            && self.order.is_none_or(|orders| orders.meet(&entry.event, header))
    }
}

impl Orders {
    /// Whether an event is about one of these orders. One of a pillar is only about its own.
    fn meet(self, event: &TraceEvent, header: &Header) -> bool {
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

fn print(header: &Header, lines: &[(u64, Entry)]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (time, Entry { replica, event, .. }) in lines {
        match header.writer {
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

#[cfg(test)]
mod tests {
    use hybster_proto::GroupConfig;
    use hybster_proto::ids::{OrderNumber, PillarId, View};

    use super::*;

    #[test]
    fn order_numbers_are_read_and_compared_by_pillar() {
        assert_eq!("17".parse(), Ok(Orders(17, 17)));
        assert_eq!("o3..9".parse(), Ok(Orders(3, 9)));
        assert!("3..x".parse::<Orders>().is_err());
        let header = Header::new(Writer::Simulator, &GroupConfig::default(), 0);
        let noop = TraceEvent::Acknowledged {
            pillar: PillarId(0),
            view: View(0),
            first: OrderNumber(5),
            last: OrderNumber(9),
        };
        // Two pillars: the no-op covers 5, 7 and 9.
        let met: Vec<u64> = (0..12).filter(|o| Orders(*o, *o).meet(&noop, &header)).collect();
        assert_eq!(met, [5, 7, 9]);
        assert!(Orders(6, 7).meet(&noop, &header) && !Orders(10, 99).meet(&noop, &header));
        let executed = TraceEvent::Executed { order: OrderNumber(6), requests: 1, ran: 1 };
        assert!(Orders(1, 6).meet(&executed, &header) && !Orders(7, 9).meet(&executed, &header));
        assert!(!Orders(0, 99).meet(&TraceEvent::NewViewAcknowledged { view: View(1) }, &header));
    }
}
