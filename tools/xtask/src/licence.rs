//! SPDX licence expressions.

/// Whether somebody who accepts the `allowed` licences may use what has this expression.
///
/// Old packages write "MIT/Apache-2.0" where SPDX has "OR".
pub(crate) fn permits(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let permitted = any(&mut rest, allowed);
    match permitted {
        Some(permitted) if rest.is_empty() => Ok(permitted),
        _ => Err(format!("\"{expression}\" is no licence expression")),
    }
}

/// OR binds the least.
fn any(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut permitted = all(words, allowed)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        permitted |= all(words, allowed)?;
    }
    Some(permitted)
}

fn all(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut permitted = one(words, allowed)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        permitted &= one(words, allowed)?;
    }
    Some(permitted)
}

fn one(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    if *first == "(" {
        let permitted = any(words, allowed)?;
        let (last, rest) = words.split_first()?;
        *words = rest;
        return (*last == ")").then_some(permitted);
    }
    if ["OR", "AND", "WITH", ")"].contains(first) {
        return None;
    }
    let mut licence = (*first).to_owned();
    if let [with, exception, rest @ ..] = *words
        && *with == "WITH"
    {
        licence = format!("{licence} WITH {exception}");
        *words = rest;
    }
    Some(allowed.contains(&licence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(expression: &str) -> Result<bool, String> {
        permits(expression, &["MIT".to_owned(), "ISC".to_owned()])
    }

    #[test]
    fn or_takes_one_and_takes_all() {
        assert_eq!(permitted("MIT"), Ok(true));
        assert_eq!(permitted("GPL-3.0 OR MIT"), Ok(true));
        assert_eq!(permitted("MIT/Apache-2.0"), Ok(true));
        assert_eq!(permitted("Apache-2.0 AND ISC"), Ok(false));
        assert_eq!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"), Ok(false));
        assert_eq!(permitted("(MIT OR Apache-2.0) AND ISC"), Ok(true));
        assert_eq!(permitted("GPL-3.0 OR MIT AND ISC"), Ok(true));
        assert_eq!(permitted("Apache-2.0 WITH LLVM-exception OR MIT"), Ok(true));
        assert_eq!(permitted("MIT WITH LLVM-exception"), Ok(false));
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for wrong in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR"] {
            assert!(permitted(wrong).is_err(), "{wrong:?}");
        }
    }
}
