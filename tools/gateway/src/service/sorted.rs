//! Commands of sorted sets that name members. A member is there twice: by its name, with its score, and by its
//! score.

use super::keys::positive;
use super::lists::wait_of;
use super::scan::Scan;
use super::store::{Collection, Kind, Name};
use super::view::{Edit, View};
use super::{Arguments, Done, NOT_A_FLOAT, Refusal, SYNTAX, is};
use crate::number;
use crate::reply::Replies;

pub(super) const NONE: Collection = Collection { id: 0, len: 0 };
const NOT_A_NUMBER: Refusal = Refusal::Borrowed("ERR resulting score is not a number (NaN)");

/// Bytes in front of a member in the order of scores: the collection, one byte and the score.
const SCORE_HEAD: usize = 17;

/// A score as a number in whose order scores are.
fn rank_of(score: f64) -> u64 {
    // 0 and -0 are the same score.
    let bits = if score == 0.0 { 0 } else { score.to_bits() };
    if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 }
}

fn score_of(rank: u64) -> f64 {
    f64::from_bits(if rank >> 63 == 1 { rank ^ 1 << 63 } else { !rank })
}

fn by_score(of: Collection, score: f64, member: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(SCORE_HEAD + member.len());
    name.extend_from_slice(&of.id.to_be_bytes());
    name.push(1);
    name.extend_from_slice(&rank_of(score).to_be_bytes());
    name.extend_from_slice(member);
    name
}

/// The members from a score on with their scores, in order.
pub(super) fn members<'a>(
    view: &View<'a>,
    of: Collection,
    from: f64,
) -> impl Iterator<Item = (f64, &'a [u8])> + use<'a> {
    let from = by_score(of, from, b"");
    let prefix: [u8; 9] = from[..9].try_into().unwrap_or_default();
    view.store
        .elements
        .range::<Name, _>(Name(from.into())..)
        .take_while(move |(name, _)| name.0.starts_with(&prefix))
        .map(|(name, _)| {
            let rank = name.0[9..SCORE_HEAD].try_into().map_or(0, u64::from_be_bytes);
            (score_of(rank), &name.0[SCORE_HEAD..])
        })
}

/// The score of a member.
pub(super) fn score(view: &View<'_>, of: Collection, member: &[u8]) -> Option<f64> {
    let bits = view.element(of, member)?;
    Some(f64::from_bits(u64::from_be_bytes(bits.try_into().ok()?)))
}

/// Gives a member a score; whether it is new.
pub(super) fn put(edit: &mut Edit<'_>, of: Collection, member: &[u8], score: f64) -> bool {
    let before = self::score(&edit.view(), of, member);
    if let Some(before) = before {
        edit.store.elements.remove(&by_score(of, before, member)[..]);
    }
    edit.put_element(of, member, &score.to_bits().to_be_bytes());
    let name = Name(by_score(of, score, member).into());
    edit.store.elements.insert(name, Name(Box::default()));
    before.is_none()
}

/// Takes a member away; whether it was there.
pub(super) fn remove(edit: &mut Edit<'_>, of: Collection, member: &[u8]) -> bool {
    let Some(before) = score(&edit.view(), of, member) else { return false };
    edit.store.elements.remove(&by_score(of, before, member)[..]);
    edit.remove_element(of, member).is_some()
}

#[derive(Default)]
struct AddOptions {
    only_new: bool,
    only_old: bool,
    only_greater: bool,
    only_less: bool,
    counts_changes: bool,
    adds_up: bool,
}

fn add_options<'a>(
    args: Arguments<'a>,
    always_adds_up: bool,
) -> Result<(AddOptions, Arguments<'a>), Refusal> {
    let mut options = AddOptions { adds_up: always_adds_up, ..AddOptions::default() };
    let mut rest = &args[2..];
    while let Some((word, more)) = rest.split_first().filter(|_| !always_adds_up) {
        match () {
            () if is(word, "nx") => options.only_new = true,
            () if is(word, "xx") => options.only_old = true,
            () if is(word, "gt") => options.only_greater = true,
            () if is(word, "lt") => options.only_less = true,
            () if is(word, "ch") => options.counts_changes = true,
            () if is(word, "incr") => options.adds_up = true,
            () => break,
        }
        rest = more;
    }
    if rest.is_empty() || rest.len() % 2 == 1 {
        return Err(SYNTAX);
    }
    if options.only_new && options.only_old {
        return Err("ERR XX and NX options at the same time are not compatible".into());
    }
    let exclusive = [options.only_new, options.only_greater, options.only_less];
    if exclusive.iter().filter(|it| **it).count() > 1 {
        return Err("ERR GT, LT, and/or NX options at the same time are not compatible".into());
    }
    if options.adds_up && rest.len() > 2 {
        return Err("ERR INCR option supports a single increment-element pair".into());
    }
    Ok((options, rest))
}

fn add(edit: &mut Edit<'_>, args: Arguments<'_>, adds_up: bool, out: &mut Replies<'_>) -> Done {
    let (options, rest) = add_options(args, adds_up)?;
    let mut pairs = Vec::new();
    for [score, member] in rest.as_chunks::<2>().0 {
        pairs.push((number::float(score).ok_or(NOT_A_FLOAT)?, *member));
    }
    let found = edit.view().collection(args[1], Kind::Sorted)?;
    if found.is_none() && options.only_old {
        if options.adds_up {
            out.null()
        } else {
            out.integer(0)
        }
        return Ok(());
    }
    if options.adds_up {
        let before = found.and_then(|set| score(&edit.view(), set, pairs[0].1));
        if (before.unwrap_or(0.0) + pairs[0].0).is_nan() {
            return Err(NOT_A_NUMBER);
        }
    }
    let set = edit.collection(args[1], Kind::Sorted)?;
    let (mut added, mut changed, mut last) = (0, 0, None);
    for (mut value, member) in pairs {
        let before = score(&edit.view(), set, member);
        match before {
            Some(_) if options.only_new => continue,
            None if options.only_old => continue,
            _ => {}
        }
        if options.adds_up {
            value += before.unwrap_or(0.0);
        }
        let is_refused = before.is_some_and(|before| {
            options.only_greater && value <= before || options.only_less && value >= before
        });
        if is_refused {
            continue;
        }
        last = Some(value);
        if before != Some(value) {
            let is_new = put(edit, set, member, value);
            added += u64::from(is_new);
            changed += u64::from(!is_new);
        }
    }
    if added + changed > 0 || set.len == 0 {
        edit.settle(args[1], set.len + added);
    }
    match (options.adds_up, last) {
        (true, Some(score)) => out.double(score),
        (true, None) => out.null(),
        (false, _) => {
            out.integer((added + if options.counts_changes { changed } else { 0 }) as i64)
        }
    }
    Ok(())
}

pub(super) fn zadd(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    add(edit, args, false, out)
}

pub(super) fn zincrby(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    add(edit, args, true, out)
}

pub(super) fn zrem(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let Some(set) = edit.view().collection(args[1], Kind::Sorted)? else {
        out.integer(0);
        return Ok(());
    };
    let gone = args[2..].iter().filter(|member| remove(edit, set, member)).count();
    if gone > 0 {
        edit.settle(args[1], set.len - gone as u64);
    }
    out.count(gone);
    Ok(())
}

fn double_or_null(value: Option<f64>, out: &mut Replies<'_>) {
    match value {
        Some(value) => out.double(value),
        None => out.null(),
    }
}

pub(super) fn zscore(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = view.collection(args[1], Kind::Sorted)?;
    double_or_null(set.and_then(|set| score(view, set, args[2])), out);
    Ok(())
}

pub(super) fn zmscore(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let set = view.collection(args[1], Kind::Sorted)?;
    out.array(args.len() - 2);
    for member in &args[2..] {
        double_or_null(set.and_then(|set| score(view, set, member)), out);
    }
    Ok(())
}

pub(super) fn zcard(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    out.integer(view.collection(args[1], Kind::Sorted)?.map_or(0, |set| set.len as i64));
    Ok(())
}

fn rank(view: &View<'_>, args: Arguments<'_>) -> Result<Option<(i64, i64)>, Refusal> {
    let Some(set) = view.collection(args[1], Kind::Sorted)? else { return Ok(None) };
    if score(view, set, args[2]).is_none() {
        return Ok(None);
    }
    let place = members(view, set, f64::NEG_INFINITY).position(|(_, member)| member == args[2]);
    Ok(place.map(|place| (place as i64, set.len as i64)))
}

fn integer_or_null(value: Option<i64>, out: &mut Replies<'_>) {
    match value {
        Some(value) => out.integer(value),
        None => out.null(),
    }
}

pub(super) fn zrank(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    integer_or_null(rank(view, args)?.map(|(place, _)| place), out);
    Ok(())
}

pub(super) fn zrevrank(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    integer_or_null(rank(view, args)?.map(|(place, len)| len - 1 - place), out);
    Ok(())
}

/// Takes members from an end away, as many as there are but `count` at most.
fn pop(
    edit: &mut Edit<'_>,
    key: &[u8],
    count: usize,
    from_end: bool,
) -> Result<Vec<(f64, Vec<u8>)>, Refusal> {
    let Some(set) = edit.view().collection(key, Kind::Sorted)? else { return Ok(Vec::new()) };
    let count = count.min(set.len as usize);
    let skipped = if from_end { set.len as usize - count } else { 0 };
    let found = members(&edit.view(), set, f64::NEG_INFINITY).skip(skipped).take(count);
    let mut found: Vec<(f64, Vec<u8>)> =
        found.map(|(score, name)| (score, name.to_vec())).collect();
    for (_, member) in &found {
        remove(edit, set, member);
    }
    if count > 0 {
        edit.settle(key, set.len - count as u64);
    }
    if from_end {
        found.reverse();
    }
    Ok(found)
}

fn pop_some(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    from_end: bool,
    out: &mut Replies<'_>,
) -> Done {
    let count = match args {
        [_, _] => None,
        [_, _, count] => Some(positive(count)?),
        _ => return Err(SYNTAX),
    };
    let found = pop(edit, args[1], count.unwrap_or(1), from_end)?;
    let as_pairs = out.speaks_resp3() && count.is_some();
    out.array(if as_pairs { found.len() } else { found.len() * 2 });
    for (score, member) in found {
        if as_pairs {
            out.array(2);
        }
        out.bulk(&member);
        out.double(score);
    }
    Ok(())
}

pub(super) fn zpopmin(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_some(edit, args, false, out)
}

pub(super) fn zpopmax(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_some(edit, args, true, out)
}

fn pop_first(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    from_end: bool,
    out: &mut Replies<'_>,
) -> Done {
    let (wait, keys) = args[1..].split_last().ok_or(SYNTAX)?;
    wait_of(wait)?;
    for key in keys {
        if let Some((score, member)) = pop(edit, key, 1, from_end)?.into_iter().next() {
            out.array(3);
            out.bulk(key);
            out.bulk(&member);
            out.double(score);
            return Ok(());
        }
    }
    out.null_array();
    Ok(())
}

pub(super) fn bzpopmin(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_first(edit, args, false, out)
}

pub(super) fn bzpopmax(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    pop_first(edit, args, true, out)
}

pub(super) fn zscan(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let scan = Scan::parse(args[2], &args[3..])?;
    let set = view.collection(args[1], Kind::Sorted)?.unwrap_or(NONE);
    let mut found = Vec::new();
    let elements = view.elements_from(set, scan.cursor);
    let next = scan.walk(elements.map(|(hash, member, _)| (hash, member)), |member| {
        if scan.matches(member) {
            found.push(member);
        }
    });
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len() * 2);
    for member in found {
        out.bulk(member);
        let score = score(view, set, member).unwrap_or_default();
        out.bulk(number::double(score).as_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_in_the_order_of_their_ranks() {
        let all = [f64::NEG_INFINITY, -1e300, -1.5, -1e-300, 0.0, 1e-300, 1.0, 1.5, f64::INFINITY];
        assert!(all.windows(2).all(|pair| rank_of(pair[0]) < rank_of(pair[1])));
        assert!(all.iter().all(|score| score_of(rank_of(*score)) == *score));
        assert_eq!(rank_of(-0.0), rank_of(0.0));
    }
}
