//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-c]`, `[^x]` and `\`.

/// Whether a text has the form of a pattern. What it costs is at most the product of both lengths.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star does not match: only the last star can matter.
    let mut again: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            again = Some((p, t));
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if t < text.len()
            && let Some(next) = one(&pattern[p..], text[t])
        {
            (p, t) = (p + next, t + 1);
            continue;
        }
        match again {
            Some((star, from)) if from < text.len() => {
                (p, t) = (star, from + 1);
                again = Some((star, from + 1));
            }
            _ => return false,
        }
    }
}

/// How long the part of the pattern is that a byte matches.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => class(pattern, byte),
        plain => (plain == byte).then_some(1),
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let mut at = 1;
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_found = false;
    loop {
        match pattern.get(at) {
            // Without its end the class ends with the pattern.
            None => break,
            Some(b']') => {
                at += 1;
                break;
            }
            Some(b'\\') if at + 1 < pattern.len() => {
                is_found |= pattern[at + 1] == byte;
                at += 2;
            }
            Some(&low) if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() => {
                let high = pattern[at + 2];
                is_found |= (low.min(high)..=low.max(high)).contains(&byte);
                at += 3;
            }
            Some(&plain) => {
                is_found |= plain == byte;
                at += 1;
            }
        }
    }
    (is_found != is_negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h*llo", "hell", false),
            ("*b*d", "abcabcd", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("[abc", "b", true),
            ("[\\]]", "]", true),
            ("a*", "xa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = b"a*".repeat(50);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &[b'a'; 5_000]));
    }
}
