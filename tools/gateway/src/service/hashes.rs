//! Commands of hashes.

use super::scan::Scan;
use super::store::{Collection, Kind};
use super::strings::float_sum;
use super::view::{Edit, View};
use super::{Arguments, Done, OVERFLOW, Refusal, integer, is};
use crate::reply::{Replies, decimal};

fn field<'a>(view: &View<'a>, key: &[u8], name: &[u8]) -> Result<Option<&'a [u8]>, Refusal> {
    let hash = view.collection(key, Kind::Hash)?;
    Ok(hash.and_then(|hash| view.element(hash, name)))
}

fn put_all(edit: &mut Edit<'_>, args: Arguments<'_>, name: &str) -> Result<usize, Refusal> {
    let (pairs, []) = args[2..].as_chunks::<2>() else {
        return Err(format!("ERR wrong number of arguments for '{name}' command").into());
    };
    let hash = edit.collection(args[1], Kind::Hash)?;
    let new = pairs.iter().filter(|[name, value]| edit.put_element(hash, name, value)).count();
    edit.settle(args[1], hash.len + new as u64);
    Ok(new)
}

pub(super) fn hset(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.count(put_all(edit, args, "hset")?);
    Ok(())
}

pub(super) fn hmset(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    put_all(edit, args, "hmset")?;
    out.ok();
    Ok(())
}

pub(super) fn hsetnx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let is_new = field(&edit.view(), args[1], args[2])?.is_none();
    if is_new {
        put_all(edit, args, "hsetnx")?;
    }
    out.flag(is_new);
    Ok(())
}

pub(super) fn hget(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.bulk_or_null(field(view, args[1], args[2])?);
    Ok(())
}

pub(super) fn hmget(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let hash = view.collection(args[1], Kind::Hash)?;
    out.array(args.len() - 2);
    for name in &args[2..] {
        out.bulk_or_null(hash.and_then(|hash| view.element(hash, name)));
    }
    Ok(())
}

pub(super) fn hdel(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let Some(hash) = edit.view().collection(args[1], Kind::Hash)? else {
        out.integer(0);
        return Ok(());
    };
    let gone = args[2..].iter().filter(|name| edit.remove_element(hash, name).is_some()).count();
    if gone > 0 {
        edit.settle(args[1], hash.len - gone as u64);
    }
    out.count(gone);
    Ok(())
}

pub(super) fn hexists(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.flag(field(view, args[1], args[2])?.is_some());
    Ok(())
}

pub(super) fn hlen(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(view.collection(args[1], Kind::Hash)?.map_or(0, |hash| hash.len as i64));
    Ok(())
}

pub(super) fn hstrlen(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.count(field(view, args[1], args[2])?.map_or(0, <[u8]>::len));
    Ok(())
}

const NONE: Collection = Collection { id: 0, len: 0 };

pub(super) fn hkeys(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let hash = view.collection(args[1], Kind::Hash)?.unwrap_or(NONE);
    out.array(hash.len as usize);
    view.elements(hash).for_each(|(name, _)| out.bulk(name));
    Ok(())
}

pub(super) fn hvals(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let hash = view.collection(args[1], Kind::Hash)?.unwrap_or(NONE);
    out.array(hash.len as usize);
    view.elements(hash).for_each(|(_, value)| out.bulk(value));
    Ok(())
}

pub(super) fn hgetall(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let hash = view.collection(args[1], Kind::Hash)?.unwrap_or(NONE);
    out.map(hash.len as usize);
    for (name, value) in view.elements(hash) {
        out.bulk(name);
        out.bulk(value);
    }
    Ok(())
}

fn put_one(edit: &mut Edit<'_>, key: &[u8], name: &[u8], value: &[u8]) -> Done {
    let hash = edit.collection(key, Kind::Hash)?;
    let is_new = edit.put_element(hash, name, value);
    edit.settle(key, hash.len + u64::from(is_new));
    Ok(())
}

pub(super) fn hincrby(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let amount = integer(args[3])?;
    let before = field(&edit.view(), args[1], args[2])?;
    let before = before.map_or(Ok(0), integer).map_err(|_| "ERR hash value is not an integer")?;
    let value = before.checked_add(amount).ok_or(OVERFLOW)?;
    put_one(edit, args[1], args[2], decimal(value, &mut [0; 20]))?;
    out.integer(value);
    Ok(())
}

pub(super) fn hincrbyfloat(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    out: &mut Replies<'_>,
) -> Done {
    // Redis looks at the number first.
    float_sum(None, args[3], super::NOT_A_FLOAT)?;
    let before = field(&edit.view(), args[1], args[2])?;
    let text = float_sum(before, args[3], "ERR hash value is not a float".into())?;
    put_one(edit, args[1], args[2], text.as_bytes())?;
    out.bulk(text.as_bytes());
    Ok(())
}

pub(super) fn hscan(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let scan = Scan::parse(args[2], &args[3..])?;
    let hash = view.collection(args[1], Kind::Hash)?.unwrap_or(NONE);
    let mut found = Vec::new();
    let elements = view.elements_from(hash, scan.cursor);
    let next = scan.walk(elements.map(|(hash, name, value)| (hash, (name, value))), |element| {
        if scan.matches(element.0) {
            found.push(element);
        }
    });
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len() * 2);
    for (name, value) in found {
        out.bulk(name);
        out.bulk(value);
    }
    Ok(())
}

pub(super) fn hrandfield(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let hash = edit.view().collection(args[1], Kind::Hash)?;
    let Some(count) = args.get(2) else {
        let place = edit.draw();
        let view = edit.view();
        let at = |hash| view.elements_from(hash, place).chain(view.elements_from(hash, 0)).next();
        out.bulk_or_null(hash.and_then(at).map(|(_, name, _)| name));
        return Ok(());
    };
    let with_values = match args.get(3) {
        None => false,
        Some(word) if args.len() == 4 && is(word, "withvalues") => true,
        Some(_) => return Err(super::SYNTAX),
    };
    let picked = super::sets::pick(edit, hash.unwrap_or(NONE), integer(count)?)?;
    let view = edit.view();
    let pairs = with_values && out.speaks_resp3();
    out.array(picked.len() * if with_values && !pairs { 2 } else { 1 });
    for name in picked {
        if pairs {
            out.array(2);
        }
        out.bulk(&name);
        if with_values {
            out.bulk(view.element(hash.unwrap_or(NONE), &name).unwrap_or_default());
        }
    }
    Ok(())
}
