//! Commands of strings.

use super::keys::{Unit, expiry};
use super::store::Value;
use super::view::{Edit, View};
use super::{Arguments, Done, NOT_A_FLOAT, OVERFLOW, Refusal, SYNTAX, TEXT_BYTES, integer, is};
use crate::number::{self, Decimal};
use crate::reply::{Replies, decimal};

pub(super) fn get(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.bulk_or_null(view.text(args[1])?);
    Ok(())
}

pub(super) fn mget(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.array(args.len() - 1);
    for key in &args[1..] {
        out.bulk_or_null(view.text(key).unwrap_or(None));
    }
    Ok(())
}

pub(super) fn strlen(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.count(view.text(args[1])?.map_or(0, <[u8]>::len));
    Ok(())
}

pub(super) fn getrange(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    let text = view.text(args[1])?.unwrap_or_default();
    // Both from the end, and in the wrong order: nothing, wherever they are.
    let range =
        if start < 0 && end < 0 && start > end { 0..0 } else { text_range(start, end, text.len()) };
    out.bulk(&text[range]);
    Ok(())
}

fn text_range(start: i64, end: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let to = if end < 0 { end.saturating_add(len).max(0) } else { end }.min(len - 1);
    if from > to || len == 0 { 0..0 } else { from as usize..to as usize + 1 }
}

/// What SET was asked besides.
#[derive(Default)]
struct SetOptions {
    only_new: bool,
    only_old: bool,
    wants_old: bool,
    keeps_time: bool,
    expires_ms: Option<u64>,
}

fn set_options(edit: &Edit<'_>, args: Arguments<'_>) -> Result<SetOptions, Refusal> {
    let mut options = SetOptions::default();
    let mut time = None;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let is_timed = options.keeps_time || time.is_some();
        if is(word, "nx") && !options.only_old {
            options.only_new = true;
        } else if is(word, "xx") && !options.only_new {
            options.only_old = true;
        } else if is(word, "get") {
            options.wants_old = true;
        } else if is(word, "keepttl") && time.is_none() {
            options.keeps_time = true;
        } else if let (Some(unit), Some(value), false) =
            (Unit::parse(word), args.get(at + 1), is_timed)
        {
            time = Some((unit, *value));
            at += 1;
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    if let Some((unit, value)) = time {
        options.expires_ms = Some(expiry(edit.now_ms, unit, value, "set")?);
    }
    Ok(options)
}

pub(super) fn set(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (key, text) = (args[1], args[2]);
    if args.len() == 3 {
        edit.put(key, Value::Text(text.into()), 0);
        out.ok();
        return Ok(());
    }
    let options = set_options(edit, args)?;
    let view = edit.view();
    if options.wants_old {
        out.bulk_or_null(view.text(key)?);
    }
    let entry = view.entry(key);
    let (is_there, time) = (entry.is_some(), entry.map_or(0, |entry| entry.expires_ms));
    let is_stored = !(options.only_new && is_there || options.only_old && !is_there);
    if is_stored {
        let kept = if options.keeps_time { time } else { 0 };
        edit.put(key, Value::Text(text.into()), options.expires_ms.unwrap_or(kept));
    }
    match (options.wants_old, is_stored) {
        (true, _) => {}
        (false, true) => out.ok(),
        (false, false) => out.null(),
    }
    Ok(())
}

pub(super) fn setnx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let is_new = edit.view().entry(args[1]).is_none();
    if is_new {
        edit.put(args[1], Value::Text(args[2].into()), 0);
    }
    out.flag(is_new);
    Ok(())
}

fn set_for(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    unit: Unit,
    name: &'static str,
    out: &mut Replies<'_>,
) -> Done {
    let expires_ms = expiry(edit.now_ms, unit, args[2], name)?;
    edit.put(args[1], Value::Text(args[3].into()), expires_ms);
    out.ok();
    Ok(())
}

pub(super) fn setex(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    set_for(edit, args, Unit::Seconds, "setex", out)
}

pub(super) fn psetex(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    set_for(edit, args, Unit::Milliseconds, "psetex", out)
}

pub(super) fn getset(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.bulk_or_null(edit.view().text(args[1])?);
    edit.put(args[1], Value::Text(args[2].into()), 0);
    Ok(())
}

pub(super) fn getdel(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.bulk_or_null(edit.view().text(args[1])?);
    edit.delete(args[1]);
    Ok(())
}

pub(super) fn getex(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let time = match args[2..] {
        [] => None,
        [word] if is(word, "persist") => Some(None),
        [word, time] => Some(Some((Unit::parse(word).ok_or(SYNTAX)?, time))),
        _ => return Err(SYNTAX),
    };
    let text = edit.view().text(args[1])?;
    out.bulk_or_null(text);
    let Some(time) = time.filter(|_| text.is_some()) else { return Ok(()) };
    let expires_ms = match time {
        Some((unit, time)) => expiry(edit.now_ms, unit, time, "getex")?,
        None => 0,
    };
    if expires_ms != 0 && expires_ms <= edit.now_ms {
        edit.delete(args[1]);
    } else {
        edit.expire(args[1], expires_ms);
    }
    Ok(())
}

fn pairs<'a>(args: Arguments<'a>, name: &str) -> Result<&'a [[&'a [u8]; 2]], Refusal> {
    match args[1..].as_chunks::<2>() {
        (pairs, []) => Ok(pairs),
        _ => Err(format!("ERR wrong number of arguments for '{name}' command").into()),
    }
}

pub(super) fn mset(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    for [key, text] in pairs(args, "mset")? {
        edit.put(key, Value::Text((*text).into()), 0);
    }
    out.ok();
    Ok(())
}

pub(super) fn msetnx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let pairs = pairs(args, "msetnx")?;
    let view = edit.view();
    let are_new = pairs.iter().all(|[key, _]| view.entry(key).is_none());
    if are_new {
        for [key, text] in pairs {
            edit.put(key, Value::Text((*text).into()), 0);
        }
    }
    out.flag(are_new);
    Ok(())
}

fn add(edit: &mut Edit<'_>, key: &[u8], amount: i64, out: &mut Replies<'_>) -> Done {
    let value = edit.view().text(key)?.map_or(Ok(0), integer)?;
    let value = value.checked_add(amount).ok_or(OVERFLOW)?;
    edit.put_text(key, decimal(value, &mut [0; 20]).to_vec());
    out.integer(value);
    Ok(())
}

pub(super) fn incr(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    add(edit, args[1], 1, out)
}

pub(super) fn decr(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    add(edit, args[1], -1, out)
}

pub(super) fn incrby(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    add(edit, args[1], integer(args[2])?, out)
}

pub(super) fn decrby(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let amount = integer(args[2])?.checked_neg();
    add(edit, args[1], amount.ok_or("ERR decrement would overflow")?, out)
}

/// The sum of a number that is there and another, as text.
pub(super) fn float_sum(
    before: Option<&[u8]>,
    amount: &[u8],
    wrong: Refusal,
) -> Result<String, Refusal> {
    let read = |bytes: &[u8]| match Decimal::parse(bytes) {
        Some(value) => Ok(value),
        // Infinite, or too large to be exact.
        None if number::float(bytes).is_some() => {
            Err(Refusal::from("ERR increment would produce NaN or Infinity"))
        }
        None => Err(NOT_A_FLOAT),
    };
    let before = before.map_or(Ok(Decimal::parse(b"0").ok_or(NOT_A_FLOAT)?), |text| {
        read(text).map_err(|refusal| if refusal == NOT_A_FLOAT { wrong } else { refusal })
    })?;
    let sum = before.add(read(amount)?);
    Ok(sum.ok_or("ERR increment would produce NaN or Infinity")?.to_string())
}

pub(super) fn incrbyfloat(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let text = float_sum(edit.view().text(args[1])?, args[2], NOT_A_FLOAT)?;
    out.bulk(text.as_bytes());
    edit.put_text(args[1], text.into_bytes());
    Ok(())
}

pub(super) fn append(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let mut text = edit.view().text(args[1])?.unwrap_or_default().to_vec();
    check_length(text.len().saturating_add(args[2].len()))?;
    text.extend_from_slice(args[2]);
    out.count(text.len());
    edit.put_text(args[1], text);
    Ok(())
}

pub(super) fn setrange(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let offset = integer(args[2])?;
    let offset = usize::try_from(offset).map_err(|_| "ERR offset is out of range")?;
    let mut text = edit.view().text(args[1])?.unwrap_or_default().to_vec();
    if args[3].is_empty() {
        out.count(text.len());
        return Ok(());
    }
    let end = offset.saturating_add(args[3].len());
    check_length(end)?;
    text.resize(text.len().max(end), 0);
    text[offset..end].copy_from_slice(args[3]);
    out.count(text.len());
    edit.put_text(args[1], text);
    Ok(())
}

fn check_length(length: usize) -> Done {
    match length <= TEXT_BYTES {
        true => Ok(()),
        false => Err("ERR string exceeds maximum allowed size (proto-max-bulk-len)".into()),
    }
}
