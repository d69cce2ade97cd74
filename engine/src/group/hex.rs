//! Hexadecimal digits, as keys are written in files.

use std::fmt::Write as _;

use zeroize::Zeroizing;

/// The bytes as lower-case digits. Wiped when dropped: it is used for secrets too.
pub(super) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// The bytes that the digits stand for; `None` if they are not digits or their number is odd.
pub(super) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        bytes.push((value(pair[0])? << 4 | value(pair[1])?) as u8);
    }
    Some(bytes)
}

/// Exactly `N` bytes.
pub(super) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.as_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_survive_the_round_trip_and_other_text_is_refused() {
        let bytes = [0, 1, 0x7f, 0x80, 0xff];
        assert_eq!(decode(&encode(&bytes)).unwrap().as_slice(), bytes);
        assert_eq!(decode_array::<2>("0aB0"), Some([10, 0xb0]));
        assert!(decode("abc").is_none() && decode("zz").is_none() && decode("é").is_none());
        assert!(decode_array::<2>("00").is_none());
    }
}
