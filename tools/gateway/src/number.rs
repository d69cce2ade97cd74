//! Numbers as Redis reads and writes them.

/// An integer that is written as Redis writes it: no plus, no leading zero, no space.
pub(crate) fn integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let is_plain = match digits {
        [b'0'] => digits.len() == bytes.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_plain || bytes.len() > 20 {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// A number with a fraction, as strtod reads it but for hexadecimal ones; never a NaN.
pub(crate) fn float(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let value: f64 = text.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// As C's `%.17g`, which is what Redis 7.0 answers.
pub(crate) fn double(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == value.trunc() && value.abs() < 1e15 {
        // -0 keeps its sign.
        return if value == 0.0 && value.is_sign_negative() {
            "-0".to_owned()
        } else {
            format!("{}", value as i64)
        };
    }
    let text = format!("{value:.16e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..17).contains(&exponent) {
        let places = usize::try_from(16 - exponent).unwrap_or(0);
        return trimmed(&format!("{value:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Without the zeros at the end of a fraction.
fn trimmed(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Digits behind the point of a [`Decimal`], as many as INCRBYFLOAT of Redis answers.
const PLACES: u32 = 17;

/// A number with 17 decimal places, in which 0.1 and 0.2 are 0.3. INCRBYFLOAT adds these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(i128);

impl Decimal {
    /// Reads digits, a point and an exponent; further decimal places are rounded. `None` if it is no such
    /// number or one of 10²⁰ and more.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (digits, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match digits.as_bytes() {
            [b'-', ..] => (true, &digits[1..]),
            [b'+', ..] => (false, &digits[1..]),
            _ => (false, digits),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let mut all = whole.bytes().chain(fraction.bytes()).peekable();
        all.peek()?;
        let mut scale = i64::from(PLACES) + i64::from(exponent) - fraction.len() as i64;
        let mut value = 0i128;
        // Beyond 38 digits nothing can be kept.
        let mut left_out = 0;
        for byte in all {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            match value.checked_mul(10).and_then(|value| value.checked_add(digit.into())) {
                Some(next) if left_out == 0 => value = next,
                _ => left_out += 1,
            }
        }
        scale += left_out;
        while scale > 0 && value != 0 {
            value = value.checked_mul(10)?;
            scale -= 1;
        }
        while scale < 0 && value != 0 {
            let rest = value % 10;
            value = value / 10 + i128::from(scale == -1 && rest >= 5);
            scale += 1;
        }
        Self::checked(if negative { -value } else { value })
    }

    pub(crate) fn add(self, other: Self) -> Option<Self> {
        Self::checked(self.0.checked_add(other.0)?)
    }

    fn checked(value: i128) -> Option<Self> {
        (value.unsigned_abs() < 10u128.pow(PLACES + 20)).then_some(Self(value))
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = 10u128.pow(PLACES);
        let value = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let places = PLACES as usize;
        f.write_str(&trimmed(&format!("{sign}{}.{:0places$}", value / one, value % one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_by_redis() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_are_written_as_by_c() {
        for (value, text) in [
            (0.0, "0"),
            (3.0, "3"),
            (-2.5, "-2.5"),
            (3.1, "3.1000000000000001"),
            (0.1, "0.10000000000000001"),
            (1e20, "1e+20"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e-7, "1.4999999999999999e-07"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (123456789.125, "123456789.125"),
        ] {
            assert_eq!(double(value), text);
        }
    }

    #[test]
    fn decimals_add_without_noise() {
        for (a, b, sum) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "-3", "0"),
            ("-1.5", "1", "-0.5"),
            ("1", "1e-17", "1.00000000000000001"),
        ] {
            let [a, b] = [a, b].map(|text| Decimal::parse(text.as_bytes()).unwrap());
            assert_eq!(a.add(b).unwrap().to_string(), sum);
        }
        for wrong in ["", ".", "-", "abc", "1e99", "1x", "nan", "inf", "1e", "--1"] {
            assert_eq!(Decimal::parse(wrong.as_bytes()).filter(|_| wrong != "."), None, "{wrong}");
        }
    }
}
