//! Replies in the forms of RESP2 and RESP3.
//!
//! The service writes them itself, so that a gateway only passes bytes on.

use crate::number::double;

/// Where replies go, in the form that the connection speaks.
#[derive(Debug)]
pub(crate) struct Replies<'a> {
    into: &'a mut Vec<u8>,
    /// Whether the connection has asked for RESP3 by HELLO.
    resp3: bool,
    /// The length that `into` may have. What goes beyond it is left out, and is an error in the end.
    limit: usize,
    has_overflown: bool,
}

impl<'a> Replies<'a> {
    pub(crate) fn new(into: &'a mut Vec<u8>, resp3: bool, limit: usize) -> Self {
        Self { into, resp3, limit, has_overflown: false }
    }

    pub(crate) const fn speaks_resp3(&self) -> bool {
        self.resp3
    }

    pub(crate) fn len(&self) -> usize {
        self.into.len()
    }

    /// Takes back what was written beyond a length.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.into.truncate(length);
        self.has_overflown = false;
    }

    /// Whether something had to be left out.
    pub(crate) const fn has_overflown(&self) -> bool {
        self.has_overflown
    }

    pub(crate) fn ok(&mut self) {
        self.status("OK");
    }

    pub(crate) fn status(&mut self, text: &str) {
        self.put(&[b"+", text.as_bytes(), b"\r\n"]);
    }

    /// An error, of one line whatever is in it. It is never left out.
    pub(crate) fn error(&mut self, text: &[u8]) {
        self.into.push(b'-');
        let plain = |byte: &u8| if matches!(*byte, b'\r' | b'\n') { b' ' } else { *byte };
        self.into.extend(text.iter().map(plain));
        self.into.extend_from_slice(b"\r\n");
    }

    pub(crate) fn integer(&mut self, value: i64) {
        let mut digits = [0; 20];
        self.put(&[b":", decimal(value, &mut digits), b"\r\n"]);
    }

    pub(crate) fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.integer(i64::from(value));
    }

    pub(crate) fn bulk(&mut self, bytes: &[u8]) {
        let mut digits = [0; 20];
        let length = decimal(bytes.len() as i64, &mut digits);
        self.put(&[b"$", length, b"\r\n", bytes, b"\r\n"]);
    }

    /// A bulk, or null if there is none.
    pub(crate) fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    pub(crate) fn null(&mut self) {
        self.put(&[if self.resp3 { b"_\r\n" as &[u8] } else { b"$-1\r\n" }]);
    }

    pub(crate) fn null_array(&mut self) {
        self.put(&[if self.resp3 { b"_\r\n" as &[u8] } else { b"*-1\r\n" }]);
    }

    pub(crate) fn array(&mut self, count: usize) {
        self.head(b"*", count);
    }

    /// So many keys with values, which are an array in RESP2.
    pub(crate) fn map(&mut self, pairs: usize) {
        if self.resp3 { self.head(b"%", pairs) } else { self.head(b"*", pairs * 2) }
    }

    pub(crate) fn set(&mut self, count: usize) {
        self.head(if self.resp3 { b"~" } else { b"*" }, count);
    }

    /// Something that was not asked for, which is an array in RESP2.
    pub(crate) fn push(&mut self, count: usize) {
        self.head(if self.resp3 { b">" } else { b"*" }, count);
    }

    /// A number with a fraction, which is a bulk in RESP2.
    pub(crate) fn double(&mut self, value: f64) {
        let text = double(value);
        if self.resp3 {
            self.put(&[b",", text.as_bytes(), b"\r\n"]);
        } else {
            self.bulk(text.as_bytes());
        }
    }

    fn head(&mut self, kind: &[u8], count: usize) {
        let mut digits = [0; 20];
        self.put(&[kind, decimal(count as i64, &mut digits), b"\r\n"]);
    }

    fn put(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.has_overflown || self.into.len() + length > self.limit {
            self.has_overflown = true;
            return;
        }
        parts.iter().for_each(|part| self.into.extend_from_slice(part));
    }
}

/// The decimal digits of a number, without an allocation.
pub(crate) fn decimal(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp3: bool, write: impl FnOnce(&mut Replies<'_>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Replies::new(&mut bytes, resp3, 100));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_form_is_as_its_protocol_has_it() {
        let all = |out: &mut Replies<'_>| {
            out.ok();
            out.integer(i64::MIN);
            out.bulk(b"a\r\n");
            out.null();
            out.null_array();
            out.map(1);
            out.set(2);
            out.double(1.5);
        };
        assert_eq!(
            written(false, all),
            "+OK\r\n:-9223372036854775808\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*2\r\n*2\r\n$3\r\n1.5\r\n"
        );
        assert_eq!(
            written(true, all),
            "+OK\r\n:-9223372036854775808\r\n$3\r\na\r\n\r\n_\r\n_\r\n%1\r\n~2\r\n,1.5\r\n"
        );
    }

    #[test]
    fn what_is_too_long_is_left_out_and_an_error_never_ends_a_line() {
        let text = written(false, |out| {
            out.bulk(&[b'x'; 200]);
            assert!(out.has_overflown());
            out.ok();
            out.truncate(0);
            out.error(b"ERR a\r\n+OK");
        });
        assert_eq!(text, "-ERR a  +OK\r\n");
    }
}
