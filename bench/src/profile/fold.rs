//! Folded stacks, which flamegraphs are drawn from: a line per stack with its number of samples.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Folds the output of `perf script`: the thread, then the frames from the outermost on.
#[must_use]
pub(super) fn fold(script: &str) -> String {
    let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next().and_then(thread_of) else { continue };
        let mut frames: Vec<&str> = lines.filter_map(frame_of).collect();
        frames.push(thread);
        frames.reverse();
        *stacks.entry(frames.join(";")).or_default() += 1;
    }
    let mut folded = String::new();
    for (stack, count) in stacks {
        let _ = writeln!(folded, "{stack} {count}");
    }
    folded
}

/// The thread's name in the first line of a sample: `r0-pillar 0  4711 123.456:  1 cpu-clock:`. The name
/// may hold blanks; the number of the thread is the last one in front of the time.
fn thread_of(line: &str) -> Option<&str> {
    let head = line.split_once(": ").map_or(line, |(head, _)| head).trim();
    let (head, _time) = head.rsplit_once(char::is_whitespace)?;
    // Newer versions of perf name the core as well: [003].
    let head = head.trim_end();
    let head = match head.rsplit_once(char::is_whitespace) {
        Some((before, core)) if core.starts_with('[') => before.trim_end(),
        _ => head,
    };
    head.rsplit_once(char::is_whitespace).map(|(name, _pid)| name.trim())
}

/// The function of a line such as `  55d0 std::thread::sleep+0x10 (/lib/libc.so)`.
fn frame_of(line: &str) -> Option<&str> {
    let (_address, rest) = line.trim().split_once(' ')?;
    let function = rest.rsplit_once(" (").map_or(rest, |(function, _)| function);
    let function = function.rsplit_once("+0x").map_or(function, |(name, _)| name);
    Some(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_are_one_line_with_their_number() {
        let sample = "r0-pillar 0  4711  12.345678:     250000 cpu-clock:pppH: \n\
                      \t    55d01 hybster::run+0x10 (/usr/bin/hybster (deleted))\n\
                      \t    55d02 <T as core::fmt::Debug>::fmt+0x2a (/usr/bin/hybster)\n\
                      \t    55d03 [unknown] ([unknown])\n\n";
        let other = "load-0  4712 [001] 12.5:     250000 cpu-clock:pppH: \n\t  1 main+0x1 (x)\n\n";
        let folded = fold(&[sample, sample, other].concat());
        assert_eq!(
            folded,
            "load-0;main 1\n\
             r0-pillar 0;[unknown];<T as core::fmt::Debug>::fmt;hybster::run 2\n"
        );
        assert_eq!(fold("nonsense"), "");
    }
}
