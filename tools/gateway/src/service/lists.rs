//! Commands of lists. Those that wait for an element are answered as if they did not wait: that is their
//! gateway's work (`server/blocked.rs`).

use super::keys::positive;
use super::store::{Collection, Kind, Name, Value};
use super::view::{Edit, View};
use super::{Arguments, Done, NO_SUCH_KEY, Refusal, SYNTAX, integer, is};
use crate::reply::Replies;

/// Where a list's elements are.
#[derive(Clone, Copy)]
struct List {
    elements: Collection,
    first: i64,
}

impl List {
    fn len(self) -> i64 {
        self.elements.len as i64
    }

    /// The place of the element at a position.
    fn slot(self, position: i64) -> [u8; 17] {
        let mut slot = [1; 17];
        slot[..8].copy_from_slice(&self.elements.id.to_be_bytes());
        let index = self.first.wrapping_add(position).cast_unsigned() ^ 1 << 63;
        slot[9..].copy_from_slice(&index.to_be_bytes());
        slot
    }

    /// A position that may count from the end, if it is one.
    fn position(self, index: i64) -> Option<i64> {
        let position = if index < 0 { index.checked_add(self.len())? } else { index };
        (0..self.len()).contains(&position).then_some(position)
    }

    /// The elements from a position on.
    fn iter<'a>(self, view: &View<'a>, from: i64) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let left = (self.len() - from).max(0) as usize;
        let from = Name::from(&self.slot(from)[..]);
        view.store.elements.range::<Name, _>(from..).take(left).map(|(_, value)| &*value.0)
    }
}

fn find(view: &View<'_>, key: &[u8]) -> Result<Option<List>, Refusal> {
    view.collection(key, Kind::List)?;
    Ok(view.entry(key).and_then(|entry| match entry.value {
        Value::List { elements, first } => Some(List { elements, first }),
        _ => None,
    }))
}

fn settle(edit: &mut Edit<'_>, key: &[u8], list: List) {
    edit.settle_with(key, list.elements.len, |value| {
        if let Value::List { first, .. } = value {
            *first = list.first;
        }
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl End {
    fn parse(word: &[u8]) -> Result<Self, Refusal> {
        match () {
            () if is(word, "left") => Ok(Self::Left),
            () if is(word, "right") => Ok(Self::Right),
            () => Err(SYNTAX),
        }
    }
}

fn push(edit: &mut Edit<'_>, key: &[u8], elements: &[&[u8]], end: End) -> Result<u64, Refusal> {
    let list = match find(&edit.view(), key)? {
        Some(list) => list,
        None => List { elements: edit.collection(key, Kind::List)?, first: 0 },
    };
    let mut list = list;
    for element in elements {
        let position = match end {
            End::Left => {
                list.first = list.first.wrapping_sub(1);
                0
            }
            End::Right => list.len(),
        };
        let slot = list.slot(position);
        edit.store.elements.insert(Name::from(&slot[..]), Name::from(*element));
        list.elements.len += 1;
    }
    settle(edit, key, list);
    Ok(list.elements.len)
}

fn pop(edit: &mut Edit<'_>, key: &[u8], end: End) -> Result<Option<Box<[u8]>>, Refusal> {
    let Some(mut list) = find(&edit.view(), key)? else { return Ok(None) };
    let position = if end == End::Left { 0 } else { list.len() - 1 };
    let element = edit.store.elements.remove(&list.slot(position)[..]).map(|value| value.0);
    list.elements.len -= 1;
    list.first = list.first.wrapping_add(i64::from(end == End::Left));
    settle(edit, key, list);
    Ok(element)
}

/// Gives a list that is there other elements.
fn replace(edit: &mut Edit<'_>, key: &[u8], mut list: List, elements: Vec<Box<[u8]>>) {
    for position in elements.len() as i64..list.len() {
        edit.store.elements.remove(&list.slot(position)[..]);
    }
    list.elements.len = elements.len() as u64;
    for (position, element) in (0..).zip(elements) {
        edit.store.elements.insert(Name::from(&list.slot(position)[..]), Name(element));
    }
    settle(edit, key, list);
}

pub(super) fn lpush(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(push(edit, args[1], &args[2..], End::Left)? as i64);
    Ok(())
}

pub(super) fn rpush(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(push(edit, args[1], &args[2..], End::Right)? as i64);
    Ok(())
}

fn push_if_there(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    end: End,
    out: &mut Replies<'_>,
) -> Done {
    let length = match find(&edit.view(), args[1])? {
        Some(_) => push(edit, args[1], &args[2..], end)?,
        None => 0,
    };
    out.integer(length as i64);
    Ok(())
}

pub(super) fn lpushx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    push_if_there(edit, args, End::Left, out)
}

pub(super) fn rpushx(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    push_if_there(edit, args, End::Right, out)
}

fn pop_some(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    end: End,
    name: &str,
    out: &mut Replies<'_>,
) -> Done {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(format!("ERR wrong number of arguments for '{name}' command").into()),
    };
    let Some(count) = count else {
        out.bulk_or_null(pop(edit, args[1], end)?.as_deref());
        return Ok(());
    };
    let Some(list) = find(&edit.view(), args[1])? else {
        out.null_array();
        return Ok(());
    };
    let count = count.min(list.elements.len as usize);
    out.array(count);
    for _ in 0..count {
        out.bulk(&pop(edit, args[1], end)?.unwrap_or_default());
    }
    Ok(())
}

pub(super) fn lpop(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_some(edit, args, End::Left, "lpop", out)
}

pub(super) fn rpop(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_some(edit, args, End::Right, "rpop", out)
}

pub(super) fn llen(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(find(view, args[1])?.map_or(0, List::len));
    Ok(())
}

pub(super) fn lindex(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let list = find(view, args[1])?;
    let index = match list {
        Some(_) => integer(args[2])?,
        None => 0,
    };
    let found = list.and_then(|list| Some(list.slot(list.position(index)?)));
    let element = found.and_then(|slot| view.store.elements.get(&slot[..]));
    out.bulk_or_null(element.map(|element| &*element.0));
    Ok(())
}

/// The positions from one index to another, both of which may count from the end.
pub(super) fn positions(start: i64, end: i64, len: i64) -> std::ops::Range<i64> {
    let from = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let to = if end < 0 { end.saturating_add(len) } else { end }.min(len - 1);
    if from > to { 0..0 } else { from..to + 1 }
}

pub(super) fn lrange(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    let Some(list) = find(view, args[1])? else {
        out.array(0);
        return Ok(());
    };
    let range = positions(start, end, list.len());
    let count = (range.end - range.start) as usize;
    out.array(count);
    list.iter(view, range.start).take(count).for_each(|element| out.bulk(element));
    Ok(())
}

pub(super) fn lset(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let list = find(&edit.view(), args[1])?.ok_or(NO_SUCH_KEY)?;
    let position = list.position(integer(args[2])?).ok_or("ERR index out of range")?;
    edit.store.elements.insert(Name::from(&list.slot(position)[..]), Name::from(args[3]));
    settle(edit, args[1], list);
    out.ok();
    Ok(())
}

pub(super) fn ltrim(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (start, end) = (integer(args[2])?, integer(args[3])?);
    out.ok();
    let Some(mut list) = find(&edit.view(), args[1])? else { return Ok(()) };
    let kept = positions(start, end, list.len());
    for position in (0..kept.start).chain(kept.end..list.len()) {
        edit.store.elements.remove(&list.slot(position)[..]);
    }
    list.first = list.first.wrapping_add(kept.start);
    list.elements.len = (kept.end - kept.start) as u64;
    settle(edit, args[1], list);
    Ok(())
}

pub(super) fn lrem(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let count = integer(args[2])?;
    let Some(list) = find(&edit.view(), args[1])? else {
        out.integer(0);
        return Ok(());
    };
    let mut elements: Vec<Box<[u8]>> = list.iter(&edit.view(), 0).map(Box::from).collect();
    let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
    let mut gone = 0;
    let mut stays = |element: &[u8]| {
        let goes = gone < most && element == args[3];
        gone += u64::from(goes);
        !goes
    };
    if count < 0 {
        elements.reverse();
        elements.retain(|element| stays(element));
        elements.reverse();
    } else {
        elements.retain(|element| stays(element));
    }
    if gone > 0 {
        replace(edit, args[1], list, elements);
    }
    out.integer(gone as i64);
    Ok(())
}

pub(super) fn linsert(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let behind = match () {
        () if is(args[2], "before") => 0,
        () if is(args[2], "after") => 1,
        () => return Err(SYNTAX),
    };
    let Some(list) = find(&edit.view(), args[1])? else {
        out.integer(0);
        return Ok(());
    };
    let mut elements: Vec<Box<[u8]>> = list.iter(&edit.view(), 0).map(Box::from).collect();
    let Some(pivot) = elements.iter().position(|element| **element == *args[3]) else {
        out.integer(-1);
        return Ok(());
    };
    elements.insert(pivot + behind, args[4].into());
    out.count(elements.len());
    replace(edit, args[1], list, elements);
    Ok(())
}

pub(super) fn lpos(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let (mut rank, mut count, mut most) = (1, None, 0);
    for option in args[3..].chunks(2) {
        match option {
            [word, value] if is(word, "rank") => {
                rank = integer(value)?;
                if rank == 0 {
                    return Err("ERR RANK can't be zero: use 1 to start from the first match, 2 \
                        from the second ... or use negative to start from the end of the list"
                        .into());
                }
            }
            [word, value] if is(word, "count") => {
                let value = integer(value).map_err(|_| "ERR COUNT can't be negative")?;
                let value = usize::try_from(value);
                count = Some(value.map_err(|_| "ERR COUNT can't be negative")?);
            }
            [word, value] if is(word, "maxlen") => {
                let value = integer(value).map_err(|_| "ERR MAXLEN can't be negative")?;
                most = usize::try_from(value).map_err(|_| "ERR MAXLEN can't be negative")?;
            }
            _ => return Err(SYNTAX),
        }
    }
    let Some(list) = find(view, args[1])? else {
        if count.is_some() {
            out.array(0)
        } else {
            out.null()
        }
        return Ok(());
    };
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let most = if most == 0 { usize::MAX } else { most };
    let skipped = (rank.unsigned_abs() - 1) as usize;
    let is_here = |(_, element): &(i64, &[u8])| *element == args[2];
    let elements = (0..).zip(list.iter(view, 0));
    let found: Vec<i64> = if rank > 0 {
        elements.take(most).filter(is_here).skip(skipped).take(wanted).map(|(at, _)| at).collect()
    } else {
        let all: Vec<(i64, &[u8])> = elements.collect();
        let all = all.into_iter().rev().take(most);
        all.filter(is_here).skip(skipped).take(wanted).map(|(at, _)| at).collect()
    };
    match (count, found.first()) {
        (None, Some(at)) => out.integer(*at),
        (None, None) => out.null(),
        (Some(_), _) => {
            out.array(found.len());
            found.iter().for_each(|at| out.integer(*at));
        }
    }
    Ok(())
}

fn move_element(
    edit: &mut Edit<'_>,
    keys: [&[u8]; 2],
    ends: [End; 2],
    is_waiting: bool,
    out: &mut Replies<'_>,
) -> Done {
    let view = edit.view();
    if find(&view, keys[0])?.is_none() {
        if is_waiting {
            out.null_array()
        } else {
            out.null()
        }
        return Ok(());
    }
    find(&view, keys[1])?;
    let element = pop(edit, keys[0], ends[0])?.unwrap_or_default();
    push(edit, keys[1], &[&element], ends[1])?;
    out.bulk(&element);
    Ok(())
}

pub(super) fn lmove(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let ends = [End::parse(args[3])?, End::parse(args[4])?];
    move_element(edit, [args[1], args[2]], ends, false, out)
}

pub(super) fn rpoplpush(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    move_element(edit, [args[1], args[2]], [End::Right, End::Left], false, out)
}

pub(super) fn blmove(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let ends = [End::parse(args[3])?, End::parse(args[4])?];
    wait_of(args[5])?;
    move_element(edit, [args[1], args[2]], ends, true, out)
}

pub(super) fn brpoplpush(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    wait_of(args[3])?;
    move_element(edit, [args[1], args[2]], [End::Right, End::Left], true, out)
}

/// How long a command waits at most, in milliseconds; 0 is for ever.
pub(crate) fn wait_of(argument: &[u8]) -> Result<u64, Refusal> {
    let wait =
        crate::number::float(argument).ok_or("ERR timeout is not a float or out of range")?;
    if wait < 0.0 {
        return Err("ERR timeout is negative".into());
    }
    let ms = (wait * 1000.0).ceil();
    if ms > 9e15 {
        return Err("ERR timeout is out of range".into());
    }
    Ok(ms as u64)
}

fn pop_first(edit: &mut Edit<'_>, args: Arguments<'_>, end: End, out: &mut Replies<'_>) -> Done {
    let (wait, keys) = args[1..].split_last().ok_or(SYNTAX)?;
    wait_of(wait)?;
    for key in keys {
        if let Some(element) = pop(edit, key, end)? {
            out.array(2);
            out.bulk(key);
            out.bulk(&element);
            return Ok(());
        }
    }
    out.null_array();
    Ok(())
}

pub(super) fn blpop(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_first(edit, args, End::Left, out)
}

pub(super) fn brpop(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_first(edit, args, End::Right, out)
}
