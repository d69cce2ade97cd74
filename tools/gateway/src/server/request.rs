//! Requests as Redis clients send them: an array of bulk strings, or a line of words.
//!
//! It goes on where it stopped when half a request was there, so a request costs what its bytes cost, however
//! they arrive, and nothing is set aside for what is only announced.

use std::ops::Range;

/// The longest line, in bytes, as in Redis.
const LINE_BYTES: usize = 64 << 10;
/// The most arguments of a request, as in Redis.
const ARGUMENTS: i64 = 1 << 20;
/// Room for so many is kept for the next request.
const KEPT_ARGUMENTS: usize = 64;

/// How long requests may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// A whole request, in bytes.
    pub(super) request_bytes: usize,
}

/// Where the arguments of the request at the front of a buffer are, as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) arguments: Vec<Range<usize>>,
    /// Words of a line that are not in the buffer as they are, because of quotes.
    words: Option<Vec<Vec<u8>>>,
    /// How many arguments the array has.
    expected: Option<i64>,
    /// The length of the argument that is being read.
    bulk: Option<usize>,
    /// Up to here the buffer was read.
    at: usize,
}

/// The request cannot be read, and nothing behind it. The text is Redis's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) String);

fn unreadable(text: impl Into<String>) -> Unreadable {
    Unreadable(text.into())
}

impl Request {
    /// Forgets the request, so that the next one can be read.
    pub(super) fn clear(&mut self) {
        self.arguments.clear();
        self.arguments.shrink_to(KEPT_ARGUMENTS);
        (self.words, self.expected, self.bulk, self.at) = (None, None, None, 0);
    }

    /// What it holds beside the buffer, in bytes. Words of a line are there only while it is answered.
    pub(super) fn held(&self) -> usize {
        self.arguments.capacity() * size_of::<Range<usize>>()
    }

    /// Reads on. Returns the length of the request once it is complete; one without arguments is to be
    /// ignored.
    pub(super) fn read(
        &mut self,
        buffer: &[u8],
        bounds: Bounds,
    ) -> Result<Option<usize>, Unreadable> {
        let Some(expected) = self.expected else {
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.read_line(buffer),
            }
            let Some(count) = self.number(buffer, "too big mbulk count string")? else {
                return Ok(None);
            };
            let count = count.filter(|count| *count <= ARGUMENTS);
            self.expected = Some(count.ok_or_else(|| unreadable("invalid multibulk length"))?);
            return self.read(buffer, bounds);
        };
        while (self.arguments.len() as i64) < expected {
            let length = match self.bulk {
                Some(length) => length,
                None => {
                    match buffer.get(self.at) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(&other) => {
                            let other = char::from(other);
                            return Err(unreadable(format!("expected '$', got '{other}'")));
                        }
                    }
                    let Some(length) = self.number(buffer, "too big bulk count string")? else {
                        return Ok(None);
                    };
                    let length = length.and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length <= bounds.request_bytes);
                    *self.bulk.insert(length.ok_or_else(|| unreadable("invalid bulk length"))?)
                }
            };
            // An argument of no bytes takes some as well.
            if self.at + length + 2 > bounds.request_bytes {
                return Err(unreadable("too big request"));
            }
            if buffer.len() < self.at + length + 2 {
                return Ok(None);
            }
            self.arguments.push(self.at..self.at + length);
            (self.at, self.bulk) = (self.at + length + 2, None);
        }
        Ok(Some(self.at))
    }

    /// The arguments, of the buffer that they were read from.
    pub(super) fn of<'a>(&'a self, buffer: &'a [u8]) -> Vec<&'a [u8]> {
        match &self.words {
            Some(words) => words.iter().map(Vec::as_slice).collect(),
            None => self.arguments.iter().map(|range| &buffer[range.clone()]).collect(),
        }
    }

    /// Reads a byte and a number up to the end of the line. `None` if the line has not arrived, `Some(None)` if it
    /// is no number.
    fn number(&mut self, buffer: &[u8], too_long: &str) -> Result<Option<Option<i64>>, Unreadable> {
        let rest = &buffer[self.at..];
        let Some(end) = rest.iter().take(32).position(|byte| *byte == b'\r') else {
            return if rest.len() >= 32 { Err(unreadable(too_long)) } else { Ok(None) };
        };
        if rest.len() < end + 2 {
            return Ok(None);
        }
        self.at += end + 2;
        Ok(Some(crate::number::integer(&rest[1..end])))
    }

    fn read_line(&mut self, buffer: &[u8]) -> Result<Option<usize>, Unreadable> {
        let Some(end) = buffer.iter().take(LINE_BYTES + 1).position(|byte| *byte == b'\n') else {
            return if buffer.len() > LINE_BYTES {
                Err(unreadable("too big inline request"))
            } else {
                Ok(None)
            };
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words = words(line).ok_or_else(|| unreadable("unbalanced quotes in request"))?;
        self.words = Some(words);
        Ok(Some(end + 1))
    }
}

/// The words of a line, as a shell would see them. `None` if a quote has no end.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some((&byte, more)) = rest.split_first() {
            match byte {
                b'"' | b'\'' => rest = quoted(byte, more, &mut word)?,
                byte if byte.is_ascii_whitespace() => break,
                byte => {
                    word.push(byte);
                    rest = more;
                }
            }
        }
        words.push(word);
    }
}

/// Reads up to the closing quote, behind which a word ends.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&byte, more) = rest.split_first()?;
        rest = more;
        if byte == quote {
            let ends = rest.first().is_none_or(u8::is_ascii_whitespace);
            return ends.then_some(rest);
        }
        if byte != b'\\' {
            word.push(byte);
            continue;
        }
        let (&escaped, more) = rest.split_first()?;
        if quote == b'\'' {
            if escaped == b'\'' {
                rest = more;
                word.push(b'\'');
            } else {
                word.push(b'\\');
            }
            continue;
        }
        rest = more;
        if escaped == b'x'
            && let Some(digits) = rest.get(..2)
            && let Ok(text) = std::str::from_utf8(digits)
            && let Ok(value) = u8::from_str_radix(text, 16)
        {
            word.push(value);
            rest = &rest[2..];
            continue;
        }
        word.push(match escaped {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'a' => 7,
            other => other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { request_bytes: 1000 };

    /// The arguments of a request, and its length.
    type Read = (Vec<Vec<u8>>, usize);

    fn read(bytes: &[u8]) -> Result<Option<Read>, String> {
        let mut request = Request::default();
        let length = request.read(bytes, BOUNDS).map_err(|Unreadable(text)| text)?;
        Ok(length.map(|it| (request.of(bytes).iter().map(|word| word.to_vec()).collect(), it)))
    }

    fn words_of(bytes: &[u8]) -> Vec<String> {
        let (words, length) = read(bytes).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        words.into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn arrays_and_lines_are_read() {
        assert_eq!(words_of(b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"), ["GET", "\r\n"]);
        assert_eq!(words_of(b"*0\r\n"), [""; 0]);
        assert_eq!(words_of(b"*-1\r\n"), [""; 0]);
        assert_eq!(words_of(b"  set a \"b c\\x41\\n\" 'd\\'e'\r\n"), ["set", "a", "b cA\n", "d'e"]);
        assert_eq!(words_of(b"\r\n"), [""; 0]);
    }

    #[test]
    fn half_a_request_is_read_on_byte_by_byte() {
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\nab\r\n";
        let mut request = Request::default();
        for length in 0..bytes.len() {
            assert_eq!(request.read(&bytes[..length], BOUNDS), Ok(None), "{length}");
        }
        assert_eq!(request.read(bytes, BOUNDS), Ok(Some(bytes.len())));
        assert_eq!(request.of(bytes), [&b"SET"[..], b"k", b"\r\nab"]);
    }

    #[test]
    fn what_cannot_be_read_is_said_as_by_redis() {
        for (bytes, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$4294967296\r\n", "invalid bulk length"),
            (b"*1\r\n$999\r\n", "too big request"),
            (b"*11111111111111111111111111111111111", "too big mbulk count string"),
            (b"*1\r\n*1\r\n*1\r\n", "expected '$', got '*'"),
            (b"a \"b\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(read(bytes), Err(text.to_owned()), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(read(&vec![b'a'; LINE_BYTES + 1]), Err("too big inline request".to_owned()));
    }
}
