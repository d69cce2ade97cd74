//! Commands of keys, whatever they have.

use std::collections::HashSet;

use super::store::{DATABASES, Kind};
use super::view::{Edit, View};
use super::{Arguments, Done, NO_SUCH_KEY, Refusal, SYNTAX, integer, is};
use crate::glob;
use crate::reply::Replies;

pub(super) fn ping(_: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    match args {
        [_] => out.status("PONG"),
        [_, text] => out.bulk(text),
        _ => return Err("ERR wrong number of arguments for 'ping' command".into()),
    }
    Ok(())
}

pub(super) fn echo(_: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.bulk(args[1]);
    Ok(())
}

/// The database that SELECT names.
pub(crate) fn database(argument: &[u8]) -> Result<u8, Refusal> {
    let number = u8::try_from(integer(argument)?).ok().filter(|number| *number < DATABASES);
    number.ok_or_else(|| "ERR DB index is out of range".into())
}

pub(super) fn select(args: Arguments<'_>, now: &mut u8, out: &mut Replies<'_>) -> Done {
    *now = database(args[1])?;
    out.ok();
    Ok(())
}

pub(super) fn del(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let deleted = args[1..].iter().filter(|key| edit.delete(key)).count();
    out.count(deleted);
    Ok(())
}

pub(super) fn exists(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.count(args[1..].iter().filter(|key| view.entry(key).is_some()).count());
    Ok(())
}

pub(super) fn kind(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.status(view.entry(args[1]).map_or("none", |entry| entry.value.kind().name()));
    Ok(())
}

/// How a time is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    AtSeconds,
    AtMilliseconds,
}

impl Unit {
    /// The unit of an option of SET and GETEX.
    pub(super) fn parse(word: &[u8]) -> Option<Self> {
        [
            ("ex", Self::Seconds),
            ("px", Self::Milliseconds),
            ("exat", Self::AtSeconds),
            ("pxat", Self::AtMilliseconds),
        ]
        .into_iter()
        .find_map(|(name, unit)| is(word, name).then_some(unit))
    }

    /// The time in milliseconds since the Unix epoch, which may be before it.
    fn at(self, now_ms: u64, value: i64) -> Option<i64> {
        let ms = match self {
            Self::Seconds | Self::AtSeconds => value.checked_mul(1000)?,
            Self::Milliseconds | Self::AtMilliseconds => value,
        };
        match self {
            Self::Seconds | Self::Milliseconds => ms.checked_add(i64::try_from(now_ms).ok()?),
            Self::AtSeconds | Self::AtMilliseconds => Some(ms),
        }
    }
}

/// The time at which a new string ends.
pub(super) fn expiry(now_ms: u64, unit: Unit, value: &[u8], name: &str) -> Result<u64, Refusal> {
    let wrong = || format!("ERR invalid expire time in '{name}' command").into();
    let value = integer(value)?;
    let at = unit.at(now_ms, value).filter(|_| value > 0).ok_or_else(wrong)?;
    u64::try_from(at).ok().filter(|at| *at > 0).ok_or_else(wrong)
}

fn expire_by(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    unit: Unit,
    name: &str,
    out: &mut Replies<'_>,
) -> Done {
    let (mut new, mut old, mut later, mut earlier) = (false, false, false, false);
    for word in &args[3..] {
        match () {
            () if is(word, "nx") => new = true,
            () if is(word, "xx") => old = true,
            () if is(word, "gt") => later = true,
            () if is(word, "lt") => earlier = true,
            () => {
                let word = String::from_utf8_lossy(word);
                return Err(format!("ERR Unsupported option {word}").into());
            }
        }
    }
    if new && (old || later || earlier) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if later && earlier {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    let wrong = || Refusal::from(format!("ERR invalid expire time in '{name}' command"));
    let at = unit.at(edit.now_ms, integer(args[2])?).ok_or_else(wrong)?;
    let Some(entry) = edit.view().entry(args[1]) else {
        out.integer(0);
        return Ok(());
    };
    let before = (entry.expires_ms != 0).then_some(entry.expires_ms as i64);
    let is_refused = new && before.is_some()
        || old && before.is_none()
        || later && before.is_none_or(|before| at <= before)
        || earlier && before.is_some_and(|before| at >= before);
    if is_refused {
        out.integer(0);
        return Ok(());
    }
    match u64::try_from(at).ok().filter(|at| *at > edit.now_ms) {
        Some(at) => drop(edit.expire(args[1], at)),
        None => drop(edit.delete(args[1])),
    }
    out.integer(1);
    Ok(())
}

pub(super) fn expire(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    expire_by(edit, args, Unit::Seconds, "expire", out)
}

pub(super) fn pexpire(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    expire_by(edit, args, Unit::Milliseconds, "pexpire", out)
}

pub(super) fn expireat(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    expire_by(edit, args, Unit::AtSeconds, "expireat", out)
}

pub(super) fn pexpireat(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    expire_by(edit, args, Unit::AtMilliseconds, "pexpireat", out)
}

fn time_left(view: &View<'_>, key: &[u8], out: &mut Replies<'_>, show: impl Fn(u64, u64) -> u64) {
    match view.entry(key).map(|entry| entry.expires_ms) {
        None => out.integer(-2),
        Some(0) => out.integer(-1),
        Some(at) => out.integer(show(at, view.now_ms) as i64),
    }
}

pub(super) fn ttl(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    time_left(view, args[1], out, |at, now| (at.saturating_sub(now) + 500) / 1000);
    Ok(())
}

pub(super) fn pttl(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    time_left(view, args[1], out, u64::saturating_sub);
    Ok(())
}

pub(super) fn expiretime(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    time_left(view, args[1], out, |at, _| (at + 500) / 1000);
    Ok(())
}

pub(super) fn pexpiretime(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    time_left(view, args[1], out, |at, _| at);
    Ok(())
}

pub(super) fn persist(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let is_timed = edit.view().entry(args[1]).is_some_and(|entry| entry.expires_ms != 0);
    if is_timed {
        edit.expire(args[1], 0);
    }
    out.flag(is_timed);
    Ok(())
}

fn move_key(edit: &mut Edit<'_>, from: &[u8], to: &[u8]) {
    if from == to {
        return;
    }
    // The elements go with it: they are known by a number, not by the key.
    let Some(mut entry) = edit.view().entry(from).cloned() else { return };
    if let Some(elements) = entry.value.collection_mut() {
        let elements = std::mem::replace(&mut elements.len, 0);
        // Without elements nothing is let go with the old key.
        let name = super::store::key_name(edit.space(), from);
        edit.store.keys.modify(&name[..], |entry| {
            if let Some(elements) = entry.value.collection_mut() {
                elements.len = 0;
            }
        });
        if let Some(own) = entry.value.collection_mut() {
            own.len = elements;
        }
    }
    edit.delete(from);
    edit.put(to, entry.value, entry.expires_ms);
}

pub(super) fn rename(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    edit.view().entry(args[1]).ok_or(NO_SUCH_KEY)?;
    move_key(edit, args[1], args[2]);
    out.ok();
    Ok(())
}

pub(super) fn renamenx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let view = edit.view();
    view.entry(args[1]).ok_or(NO_SUCH_KEY)?;
    let is_free = view.entry(args[2]).is_none();
    if is_free {
        move_key(edit, args[1], args[2]);
    }
    out.flag(is_free);
    Ok(())
}

pub(super) fn keys(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let found = || view.keys_from(0).filter(|(_, key, _)| glob::matches(args[1], key));
    out.array(found().count());
    for (_, key, _) in found() {
        out.bulk(key);
    }
    Ok(())
}

pub(super) fn scan(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let mut kind: Option<&[u8]> = None;
    let mut rest = args[2..].to_vec();
    while let Some(at) = (0..rest.len()).step_by(2).find(|at| is(rest[*at], "type")) {
        kind = Some(rest.get(at + 1).copied().ok_or(SYNTAX)?);
        rest.drain(at..at + 2);
    }
    let scan = super::scan::Scan::parse(args[1], &rest)?;
    let has_kind = |of: Kind| kind.is_none_or(|kind| is(kind, of.name()));
    let mut found = Vec::new();
    let keys = view.keys_from(scan.cursor);
    let next = scan.walk(keys.map(|(hash, key, entry)| (hash, (key, entry))), |(key, entry)| {
        if scan.matches(key) && has_kind(entry.value.kind()) {
            found.push(key);
        }
    });
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len());
    found.iter().for_each(|key| out.bulk(key));
    Ok(())
}

pub(super) fn dbsize(view: &View<'_>, _: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    // Keys whose time is over count until they are taken away, as in Redis.
    view.is_timed.set(!view.store.expiries.is_empty());
    out.integer(view.len() as i64);
    Ok(())
}

fn check_flush(args: Arguments<'_>) -> Done {
    match args {
        [_] => Ok(()),
        [_, word] if is(word, "async") || is(word, "sync") => Ok(()),
        _ => Err(SYNTAX),
    }
}

pub(super) fn flushdb(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    check_flush(args)?;
    edit.store.flush(edit.database);
    out.ok();
    Ok(())
}

pub(super) fn flushall(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    check_flush(args)?;
    (0..DATABASES).for_each(|database| edit.store.flush(database));
    out.ok();
    Ok(())
}

pub(super) fn randomkey(edit: &mut Edit<'_>, _: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let place = edit.draw();
    let view = edit.view();
    let found = view.keys_from(place).next().or_else(|| view.keys_from(0).next());
    out.bulk_or_null(found.map(|(_, key, _)| key));
    Ok(())
}

pub(super) fn copy(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let mut replaces = false;
    for word in &args[3..] {
        replaces |= is(word, "replace");
        if !is(word, "replace") {
            return Err(SYNTAX);
        }
    }
    if args[1] == args[2] {
        return Err("ERR source and destination objects are the same".into());
    }
    let view = edit.view();
    let entry = view.entry(args[1]).cloned();
    let is_free = replaces || view.entry(args[2]).is_none();
    let Some(entry) = entry.filter(|_| is_free) else {
        out.integer(0);
        return Ok(());
    };
    edit.put_copy(args[2], entry);
    out.integer(1);
    Ok(())
}

/// The versions of keys, which a gateway asks for when a connection watches them.
pub(super) fn versions(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    // What a query would say of the time is not of the time of EXEC.
    view.is_timed.set(true);
    out.array(args.len() - 1);
    for key in &args[1..] {
        out.integer(view.entry(key).map_or(0, |entry| entry.version as i64));
    }
    Ok(())
}

/// OBJECT ENCODING and the like, of which clients only want that there is an answer.
pub(super) fn object(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let key = args.get(2).ok_or(SYNTAX)?;
    let Some(entry) = view.entry(key) else {
        out.null();
        return Ok(());
    };
    match () {
        () if is(args[1], "encoding") => out.bulk(match entry.value.kind() {
            Kind::Text => b"raw",
            Kind::Hash | Kind::Set => b"hashtable",
            Kind::List => b"quicklist",
            Kind::Sorted => b"skiplist",
        }),
        () if is(args[1], "refcount") => out.integer(1),
        () if is(args[1], "idletime") => out.integer(0),
        () => return Err(SYNTAX),
    }
    Ok(())
}

/// Different keys of the arguments, in their order.
pub(super) fn distinct<'a>(keys: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let mut seen = HashSet::new();
    keys.iter().copied().filter(|key| seen.insert(*key)).collect()
}

/// A count that may not be negative.
pub(super) fn positive(argument: &[u8]) -> Result<usize, Refusal> {
    let count = crate::number::integer(argument).and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| "ERR value is out of range, must be positive".into())
}

/// How many keys follow, of a command with such a number.
pub(super) fn key_count(argument: &[u8], rest: usize) -> Result<usize, Refusal> {
    let count = crate::number::integer(argument).and_then(|count| usize::try_from(count).ok());
    let count = count.filter(|count| *count > 0);
    let count = count.ok_or("ERR numkeys should be greater than 0")?;
    if count > rest {
        return Err("ERR Number of keys can't be greater than number of args".into());
    }
    Ok(count)
}
