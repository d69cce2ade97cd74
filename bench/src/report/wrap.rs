//! Lines that are too long for the terminal are broken between words, not in them.

use std::io::IsTerminal;

/// The width where there is no terminal.
const WIDTH: usize = 80;
/// A terminal narrower than this is treated as if it were so wide.
const NARROWEST: usize = 40;

/// The columns of the terminal that a stream is, or 80.
pub fn width_of(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> usize {
    let columns = match rustix::termios::tcgetwinsize(stream) {
        Ok(size) if stream.is_terminal() && size.ws_col > 0 => usize::from(size.ws_col),
        _ => WIDTH,
    };
    columns.max(NARROWEST)
}

/// The text with every line broken that is longer than `width`. What continues a line stands below its
/// text, which begins after the first two blanks in a row.
#[must_use]
pub fn wrap(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        wrap_line(&mut out, line, width);
        out.push_str(end);
    }
    out
}

fn wrap_line(out: &mut String, line: &str, width: usize) {
    let indent = indent_of(line).min(width / 2);
    let mut rest = line;
    let mut room = width;
    while rest.chars().count() > room {
        let Some(at) = last_blank(rest, room, if room == width { indent } else { 0 }) else {
            break;
        };
        out.push_str(rest[..at].trim_end());
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
        rest = rest[at..].trim_start();
        room = width - indent;
    }
    out.push_str(rest);
}

/// Where the text of a line begins: after its label, if it has one (`  latency      p50 …`).
fn indent_of(line: &str) -> usize {
    let margin = line.len() - line.trim_start().len();
    if margin == 0 {
        return 2;
    }
    let label = &line[margin..];
    match label.find("  ") {
        Some(at) => margin + at + (label[at..].len() - label[at..].trim_start().len()),
        None => margin + 2,
    }
}

/// Where to break a line so that at most `room` characters stand in front of it: between figures, which two
/// blanks or more set apart, if that leaves half a line, else at the last blank; at the first one if there
/// is none. Not within the first `from` bytes. A word that is too long stays whole.
fn last_blank(line: &str, room: usize, from: usize) -> Option<usize> {
    let blanks = || line.match_indices(' ').map(|(at, _)| at).filter(|at| *at > from);
    let columns = |at: &usize| line[..*at].trim_end().chars().count();
    let fits = |at: &usize| columns(at) <= room;
    let is_wide = |at: &usize| line[*at..].starts_with("  ") && columns(at) >= room / 2;
    let wide = blanks().rfind(|at| fits(at) && is_wide(at));
    wide.or_else(|| blanks().rfind(fits)).or_else(|| blanks().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_below_their_text() {
        let line = "  latency      p50 1 us   p90 2 us   p99 3 us\nshort\n";
        assert_eq!(
            wrap(line, 40),
            "  latency      p50 1 us   p90 2 us\n               p99 3 us\nshort\n"
        );
        assert_eq!(wrap("one two three", 8), "one two\n  three");
        assert_eq!(wrap("", 40), "");
    }

    #[test]
    fn a_word_longer_than_a_line_stays_whole() {
        let path = "/a/path/that/is/longer/than/forty/columns/are";
        assert_eq!(wrap(path, 40), path);
        assert_eq!(wrap(&format!("see {path} there"), 40), format!("see\n  {path}\n  there"));
    }

    #[test]
    fn no_line_with_short_words_is_longer_than_the_width() {
        let text = "  key  ".to_owned() + &"word ".repeat(100) + "end";
        for width in 40..120 {
            assert!(
                wrap(&text, width).lines().all(|line| line.chars().count() <= width),
                "{width}"
            );
        }
    }
}
