//! `hybster status --memory`: what a replica of a group may hold at most, and where that has no
//! bound yet.

use std::fmt::Write as _;

use hybster::Group;
use hybster::memory::{Bound, Buffer, FilledBy, Memory};
use serde::Serialize;

use crate::status::columns;

/// The answer as JSON; `format` is its version.
#[derive(Debug, Serialize)]
struct Answer {
    format: u32,
    group: String,
    /// The sum of all bounds.
    bounded_bytes: u64,
    /// How many buffers somebody outside can fill without a limit.
    open: usize,
    buffers: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    place: &'static str,
    filled_by: &'static str,
    /// `bytes`, `service` (as much as the service's state has) or `open` (not bounded yet).
    bound: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    beyond: &'static str,
}

/// The sum for a group, as JSON or as a table.
pub(crate) fn show(group: &Group, json: bool) -> Result<String, serde_json::Error> {
    let memory = Memory::of(group);
    if !json {
        return Ok(table(&group.name(), &memory));
    }
    let answer = Answer {
        format: 1,
        group: group.name(),
        bounded_bytes: memory.bounded_bytes,
        open: memory.open(),
        buffers: memory.buffers.iter().map(line).collect(),
    };
    Ok(serde_json::to_string_pretty(&answer)? + "\n")
}

fn line(buffer: &Buffer) -> Line {
    let (bound, bytes) = match buffer.bound {
        Bound::Bytes(bytes) => ("bytes", Some(bytes)),
        Bound::Service => ("service", None),
        Bound::Open => ("open", None),
    };
    let Buffer { name, place, filled_by, beyond, .. } = *buffer;
    Line { name, place, filled_by: filled_by.name(), bound, bytes, beyond }
}

fn table(group: &str, memory: &Memory) -> String {
    let mut text = format!("group {group}: what a replica may hold at most\n\n");
    let cells = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![cells(["buffer", "filled by", "bytes", "beyond"])];
    let by_size = |buffer: &&Buffer| match buffer.bound {
        Bound::Bytes(bytes) => bytes,
        Bound::Service | Bound::Open => 0,
    };
    let mut buffers: Vec<&Buffer> = memory.buffers.iter().collect();
    buffers.sort_by_key(|buffer| std::cmp::Reverse(by_size(buffer)));
    for buffer in &buffers {
        if let Bound::Bytes(bytes) = buffer.bound {
            rows.push(cells([buffer.name, buffer.filled_by.name(), &size(bytes), buffer.beyond]));
        }
    }
    columns(&mut text, &rows);
    text.push('\n');
    let mut rows = Vec::new();
    for by in FilledBy::ALL {
        rows.push(vec![format!("filled by: {}", by.name()), size(memory.filled_by(by))]);
    }
    rows.push(vec!["all that is bounded".into(), size(memory.bounded_bytes)]);
    columns(&mut text, &rows);
    for (title, bound) in [
        ("as large as the service's state", Bound::Service),
        ("NOT BOUNDED YET: these can grow until the process is out of memory", Bound::Open),
    ] {
        let _ = writeln!(text, "\n{title}:");
        let of_kind = buffers.iter().filter(|buffer| buffer.bound == bound);
        let row = |buffer: &&Buffer| {
            cells([buffer.name, buffer.filled_by.name(), buffer.place, buffer.beyond])
        };
        columns(&mut text, &of_kind.map(row).collect::<Vec<_>>());
    }
    text
}

/// A number of bytes for people: three digits and a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let step = (63 - bytes.max(1).leading_zeros() as usize) / 10;
    let value = bytes as f64 / (1_u64 << (10 * step)) as f64;
    match value {
        _ if step == 0 => format!("{bytes} B"),
        ..10.0 => format!("{value:.2} {}", units[step]),
        ..100.0 => format!("{value:.1} {}", units[step]),
        _ => format!("{value:.0} {}", units[step]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let sizes = [0, 1, 1023, 1024, 1536, 15 << 20, 100 << 30, u64::MAX];
        let texts =
            ["0 B", "1 B", "1023 B", "1.00 KiB", "1.50 KiB", "15.0 MiB", "100 GiB", "16.0 EiB"];
        assert_eq!(sizes.map(size), texts);
    }

    #[test]
    fn the_table_shows_bounds_and_what_has_none() {
        let buffer = |name, filled_by, bound| Buffer {
            name,
            place: "some/file.rs",
            filled_by,
            bound,
            beyond: "refused",
        };
        let memory = Memory {
            buffers: vec![
                buffer("small", FilledBy::Clients, Bound::Bytes(1 << 10)),
                buffer("large", FilledBy::Peers, Bound::Bytes(1 << 20)),
                buffer("pages", FilledBy::Replica, Bound::Service),
                buffer("flood", FilledBy::Peers, Bound::Open),
            ],
            bounded_bytes: (1 << 20) + (1 << 10),
        };
        let text = table("ab", &memory);
        let place =
            |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing in\n{text}"));
        assert!(place("large") < place("small"), "the largest comes first");
        assert!(place("NOT BOUNDED YET") < place("flood"));
        assert!(place("as large as the service's state") < place("pages"));
        assert!(place("some/file.rs") > place("all that is bounded"));
        assert!(text.contains("1.00 MiB") && text.lines().all(|line| line == line.trim_end()));
    }
}
