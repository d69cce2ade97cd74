//! Commands of sets.

use std::collections::BTreeSet;

use super::keys::{distinct, key_count, positive};
use super::scan::Scan;
use super::store::{Collection, Kind};
use super::view::{Edit, View};
use super::{Arguments, Done, Refusal, SYNTAX, integer, is};
use crate::reply::Replies;

const NONE: Collection = Collection { id: 0, len: 0 };
/// The most members that SRANDMEMBER and HRANDFIELD answer if they may repeat themselves.
const PICKED: i64 = 1 << 20;

type Members = BTreeSet<Vec<u8>>;

pub(super) fn sadd(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = edit.collection(args[1], Kind::Set)?;
    let new = args[2..].iter().filter(|member| edit.put_element(set, member, b"")).count();
    if new > 0 {
        edit.settle(args[1], set.len + new as u64);
    }
    out.count(new);
    Ok(())
}

pub(super) fn srem(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let Some(set) = edit.view().collection(args[1], Kind::Set)? else {
        out.integer(0);
        return Ok(());
    };
    let gone = args[2..].iter().filter(|member| edit.remove_element(set, member).is_some()).count();
    if gone > 0 {
        edit.settle(args[1], set.len - gone as u64);
    }
    out.count(gone);
    Ok(())
}

pub(super) fn smembers(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = view.collection(args[1], Kind::Set)?.unwrap_or(NONE);
    out.set(set.len as usize);
    view.elements(set).for_each(|(member, _)| out.bulk(member));
    Ok(())
}

pub(super) fn sismember(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = view.collection(args[1], Kind::Set)?;
    out.flag(set.is_some_and(|set| view.element(set, args[2]).is_some()));
    Ok(())
}

pub(super) fn smismember(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = view.collection(args[1], Kind::Set)?;
    out.array(args.len() - 2);
    for member in &args[2..] {
        out.flag(set.is_some_and(|set| view.element(set, member).is_some()));
    }
    Ok(())
}

pub(super) fn scard(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(view.collection(args[1], Kind::Set)?.map_or(0, |set| set.len as i64));
    Ok(())
}

pub(super) fn smove(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (from, to, member) = (args[1], args[2], args[3]);
    let Some(source) = edit.view().collection(from, Kind::Set)? else {
        out.integer(0);
        return Ok(());
    };
    edit.view().collection(to, Kind::Set)?;
    let is_there = edit.view().element(source, member).is_some();
    if is_there && from != to {
        edit.remove_element(source, member);
        edit.settle(from, source.len - 1);
        let target = edit.collection(to, Kind::Set)?;
        let is_new = edit.put_element(target, member, b"");
        edit.settle(to, target.len + u64::from(is_new));
    }
    out.flag(is_there);
    Ok(())
}

/// A member at a random place.
fn random_member(edit: &mut Edit<'_>, of: Collection) -> Option<Vec<u8>> {
    let place = edit.draw();
    let view = edit.view();
    let mut found = view.elements_from(of, place).chain(view.elements_from(of, 0));
    found.next().map(|(_, name, _)| name.to_vec())
}

/// Random fields or members: so many different ones, or, if `count` is negative, some more than once.
pub(super) fn pick(
    edit: &mut Edit<'_>,
    of: Collection,
    count: i64,
) -> Result<Vec<Vec<u8>>, Refusal> {
    if count < 0 {
        if count < -PICKED {
            return Err("ERR value is out of range".into());
        }
        return Ok((0..-count).map_while(|_| random_member(edit, of)).collect());
    }
    let count = count as u64;
    if count >= of.len {
        return Ok(edit.view().elements(of).map(|(name, _)| name.to_vec()).collect());
    }
    // From a random place on, so that what it costs is what is answered.
    let place = edit.draw();
    let view = edit.view();
    let all = view.elements_from(of, place).chain(view.elements_from(of, 0));
    Ok(all.take(count as usize).map(|(_, name, _)| name.to_vec()).collect())
}

pub(super) fn srandmember(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(integer(count)?),
        _ => return Err(SYNTAX),
    };
    let set = edit.view().collection(args[1], Kind::Set)?.unwrap_or(NONE);
    let Some(count) = count else {
        out.bulk_or_null(random_member(edit, set).as_deref());
        return Ok(());
    };
    let picked = pick(edit, set, count)?;
    out.array(picked.len());
    picked.iter().for_each(|member| out.bulk(member));
    Ok(())
}

pub(super) fn spop(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(SYNTAX),
    };
    let set = edit.view().collection(args[1], Kind::Set)?.unwrap_or(NONE);
    let picked = match count {
        Some(count) => pick(edit, set, i64::try_from(count).unwrap_or(i64::MAX))?,
        None => random_member(edit, set).into_iter().collect(),
    };
    for member in &picked {
        edit.remove_element(set, member);
    }
    if !picked.is_empty() {
        edit.settle(args[1], set.len - picked.len() as u64);
    }
    match count {
        None => out.bulk_or_null(picked.first().map(Vec::as_slice)),
        Some(_) => {
            out.set(picked.len());
            picked.iter().for_each(|member| out.bulk(member));
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Combine {
    Inter,
    Union,
    Diff,
}

fn combine(view: &View<'_>, keys: &[&[u8]], how: Combine) -> Result<Members, Refusal> {
    let mut sets = Vec::new();
    for key in keys {
        sets.push(view.collection(key, Kind::Set)?);
    }
    let all = |set: Option<Collection>| {
        view.elements(set.unwrap_or(NONE)).map(|(member, _)| member.to_vec())
    };
    let has = |set: &Option<Collection>, member: &[u8]| {
        set.is_some_and(|set| view.element(set, member).is_some())
    };
    Ok(match how {
        Combine::Union => sets.into_iter().flat_map(all).collect(),
        Combine::Diff => {
            all(sets[0]).filter(|member| !sets[1..].iter().any(|set| has(set, member))).collect()
        }
        Combine::Inter => {
            let least = sets.iter().min_by_key(|set| set.map_or(0, |set| set.len)).copied();
            let least = all(least.flatten());
            least.filter(|member| sets.iter().all(|set| has(set, member))).collect()
        }
    })
}

fn show(view: &View<'_>, keys: &[&[u8]], how: Combine, out: &mut Replies<'_>) -> Done {
    let members = combine(view, keys, how)?;
    out.set(members.len());
    members.iter().for_each(|member| out.bulk(member));
    Ok(())
}

pub(super) fn sinter(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, &args[1..], Combine::Inter, out)
}

pub(super) fn sunion(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, &args[1..], Combine::Union, out)
}

pub(super) fn sdiff(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, &args[1..], Combine::Diff, out)
}

pub(super) fn sintercard(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let count = key_count(args[1], args.len() - 2)?;
    let limit = match args[2 + count..] {
        [] => usize::MAX,
        [word, limit] if is(word, "limit") => {
            let limit = crate::number::integer(limit).and_then(|it| usize::try_from(it).ok());
            match limit.ok_or("ERR LIMIT can't be negative")? {
                0 => usize::MAX,
                limit => limit,
            }
        }
        _ => return Err(SYNTAX),
    };
    let keys = distinct(&args[2..2 + count]);
    out.count(combine(view, &keys, Combine::Inter)?.len().min(limit));
    Ok(())
}

fn store(edit: &mut Edit<'_>, args: Arguments<'_>, how: Combine, out: &mut Replies<'_>) -> Done {
    let members = combine(&edit.view(), &args[2..], how)?;
    edit.delete(args[1]);
    if !members.is_empty() {
        let set = edit.collection(args[1], Kind::Set)?;
        for member in &members {
            edit.put_element(set, member, b"");
        }
        edit.settle(args[1], members.len() as u64);
    }
    out.count(members.len());
    Ok(())
}

pub(super) fn sinterstore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    store(edit, args, Combine::Inter, out)
}

pub(super) fn sunionstore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    store(edit, args, Combine::Union, out)
}

pub(super) fn sdiffstore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    store(edit, args, Combine::Diff, out)
}

pub(super) fn sscan(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let scan = Scan::parse(args[2], &args[3..])?;
    let set = view.collection(args[1], Kind::Set)?.unwrap_or(NONE);
    let mut found = Vec::new();
    let elements = view.elements_from(set, scan.cursor);
    let next = scan.walk(elements.map(|(hash, member, _)| (hash, member)), |member| {
        if scan.matches(member) {
            found.push(member);
        }
    });
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len());
    found.iter().for_each(|member| out.bulk(member));
    Ok(())
}
