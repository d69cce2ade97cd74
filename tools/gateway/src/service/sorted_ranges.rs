//! Commands of sorted sets that name ranges, and those that combine several.

use std::collections::BTreeMap;

use super::lists::positions;
use super::sorted::{NONE, members, put, remove, score};
use super::store::{Collection, Kind};
use super::view::{Edit, View};
use super::{Arguments, Done, NOT_AN_INTEGER, Refusal, SYNTAX, WRONG_TYPE, integer, is};
use crate::number;
use crate::reply::Replies;

/// A range of members.
enum Range<'a> {
    Places(i64, i64),
    Scores(Score, Score),
    Names(Name<'a>, Name<'a>),
}

#[derive(Clone, Copy)]
struct Score {
    value: f64,
    is_excluded: bool,
}

impl Score {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let (is_excluded, rest) = match bytes.strip_prefix(b"(") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let value = number::float(rest).ok_or("ERR min or max is not a float")?;
        Ok(Self { value, is_excluded })
    }

    fn admits_above(self, score: f64) -> bool {
        if self.is_excluded { score > self.value } else { score >= self.value }
    }

    fn admits_below(self, score: f64) -> bool {
        if self.is_excluded { score < self.value } else { score <= self.value }
    }
}

#[derive(Clone, Copy)]
enum Name<'a> {
    First,
    Last,
    Included(&'a [u8]),
    Excluded(&'a [u8]),
}

impl<'a> Name<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        match bytes {
            b"-" => Ok(Self::First),
            b"+" => Ok(Self::Last),
            [b'[', name @ ..] => Ok(Self::Included(name)),
            [b'(', name @ ..] => Ok(Self::Excluded(name)),
            _ => Err("ERR min or max not valid string range item".into()),
        }
    }

    fn admits_above(self, name: &[u8]) -> bool {
        match self {
            Self::First => true,
            Self::Last => false,
            Self::Included(bound) => name >= bound,
            Self::Excluded(bound) => name > bound,
        }
    }

    fn admits_below(self, name: &[u8]) -> bool {
        match self {
            Self::First => false,
            Self::Last => true,
            Self::Included(bound) => name <= bound,
            Self::Excluded(bound) => name < bound,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Place,
    Score,
    Name,
}

fn range<'a>(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Range<'a>, Refusal> {
    Ok(match by {
        By::Place => Range::Places(integer(low)?, integer(high)?),
        By::Score => Range::Scores(Score::parse(low)?, Score::parse(high)?),
        By::Name => Range::Names(Name::parse(low)?, Name::parse(high)?),
    })
}

/// The members of a range, in order.
fn found<'a>(view: &View<'a>, set: Collection, range: &Range<'_>) -> Vec<(f64, &'a [u8])> {
    match *range {
        Range::Places(start, end) => {
            let range = positions(start, end, set.len as i64);
            let all = members(view, set, f64::NEG_INFINITY).skip(range.start as usize);
            all.take((range.end - range.start) as usize).collect()
        }
        Range::Scores(low, high) => members(view, set, low.value)
            .skip_while(|(score, _)| !low.admits_above(*score))
            .take_while(|(score, _)| high.admits_below(*score))
            .collect(),
        Range::Names(low, high) => members(view, set, f64::NEG_INFINITY)
            .skip_while(|(_, name)| !low.admits_above(name))
            .take_while(|(_, name)| high.admits_below(name))
            .collect(),
    }
}

/// A range that a command names, and what of it is answered.
struct Asked<'a> {
    range: Range<'a>,
    is_reversed: bool,
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

/// Reads what follows the key. `by` and `is_reversed` are said by the command's name, if it is not ZRANGE.
fn asked<'a>(
    args: Arguments<'a>,
    named: Option<(By, bool)>,
    stores: bool,
) -> Result<Asked<'a>, Refusal> {
    let (mut by, mut is_reversed) = named.unwrap_or((By::Place, false));
    let (mut limit, mut with_scores) = (None, false);
    let mut at = 2;
    while let Some(word) = args.get(at) {
        match () {
            () if is(word, "withscores") && !stores => with_scores = true,
            () if is(word, "limit") && at + 2 < args.len() => {
                limit = Some((integer(args[at + 1])?, integer(args[at + 2])?));
                at += 2;
            }
            () if named.is_none() && is(word, "rev") => is_reversed = true,
            () if named.is_none() && is(word, "bylex") => by = By::Name,
            () if named.is_none() && is(word, "byscore") => by = By::Score,
            () => return Err(SYNTAX),
        }
        at += 1;
    }
    if limit.is_some() && by == By::Place {
        return Err(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE \
            or BYLEX"
                .into(),
        );
    }
    if with_scores && by == By::Name {
        return Err("ERR syntax error, WITHSCORES not supported in combination with BYLEX".into());
    }
    let (low, high) = match is_reversed && by != By::Place {
        true => (args[1], args[0]),
        false => (args[0], args[1]),
    };
    Ok(Asked { range: range(by, low, high)?, is_reversed, limit, with_scores })
}

fn answer<'a>(view: &View<'a>, set: Option<Collection>, asked: &Asked<'_>) -> Vec<(f64, &'a [u8])> {
    let Some(set) = set else { return Vec::new() };
    let mut all = match (&asked.range, asked.is_reversed) {
        // Places from the end.
        (Range::Places(start, end), true) => {
            let kept = positions(*start, *end, set.len as i64);
            let len = set.len as i64;
            match kept.is_empty() {
                true => Vec::new(),
                false => found(view, set, &Range::Places(len - kept.end, len - 1 - kept.start)),
            }
        }
        (range, _) => found(view, set, range),
    };
    if asked.is_reversed {
        all.reverse();
    }
    if let Some((offset, count)) = asked.limit {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        all = all.into_iter().skip(offset).take(count).collect();
    }
    all
}

fn show(
    view: &View<'_>,
    args: Arguments<'_>,
    named: Option<(By, bool)>,
    out: &mut Replies<'_>,
) -> Done {
    let asked = asked(&args[2..], named, false)?;
    let all = answer(view, view.collection(args[1], Kind::Sorted)?, &asked);
    let as_pairs = asked.with_scores && out.speaks_resp3();
    out.array(all.len() * if asked.with_scores && !as_pairs { 2 } else { 1 });
    for (score, member) in all {
        if as_pairs {
            out.array(2);
        }
        out.bulk(member);
        if asked.with_scores {
            out.double(score);
        }
    }
    Ok(())
}

pub(super) fn zrange(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, args, None, out)
}

pub(super) fn zrevrange(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, args, Some((By::Place, true)), out)
}

pub(super) fn zrangebyscore(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, args, Some((By::Score, false)), out)
}

pub(super) fn zrevrangebyscore(
    view: &View<'_>,
    args: Arguments<'_>,
    out: &mut Replies<'_>,
) -> Done {
    show(view, args, Some((By::Score, true)), out)
}

pub(super) fn zrangebylex(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, args, Some((By::Name, false)), out)
}

pub(super) fn zrevrangebylex(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    show(view, args, Some((By::Name, true)), out)
}

/// Makes a key a sorted set of these members.
fn store(edit: &mut Edit<'_>, key: &[u8], all: &[(f64, Vec<u8>)], out: &mut Replies<'_>) -> Done {
    edit.delete(key);
    if !all.is_empty() {
        let set = edit.collection(key, Kind::Sorted)?;
        for (score, member) in all {
            put(edit, set, member, *score);
        }
        edit.settle(key, all.len() as u64);
    }
    out.count(all.len());
    Ok(())
}

pub(super) fn zrangestore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let asked = asked(&args[3..], None, true)?;
    let view = edit.view();
    let all = answer(&view, view.collection(args[2], Kind::Sorted)?, &asked);
    let all: Vec<(f64, Vec<u8>)> = all.into_iter().map(|(it, name)| (it, name.to_vec())).collect();
    store(edit, args[1], &all, out)
}

fn count(view: &View<'_>, args: Arguments<'_>, by: By, out: &mut Replies<'_>) -> Done {
    let range = range(by, args[2], args[3])?;
    let set = view.collection(args[1], Kind::Sorted)?;
    out.count(set.map_or(0, |set| found(view, set, &range).len()));
    Ok(())
}

pub(super) fn zcount(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    count(view, args, By::Score, out)
}

pub(super) fn zlexcount(view: &View<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    count(view, args, By::Name, out)
}

fn remove_range(edit: &mut Edit<'_>, args: Arguments<'_>, by: By, out: &mut Replies<'_>) -> Done {
    let range = range(by, args[2], args[3])?;
    let Some(set) = edit.view().collection(args[1], Kind::Sorted)? else {
        out.integer(0);
        return Ok(());
    };
    let all = found(&edit.view(), set, &range);
    let all: Vec<Vec<u8>> = all.into_iter().map(|(_, member)| member.to_vec()).collect();
    for member in &all {
        remove(edit, set, member);
    }
    if !all.is_empty() {
        edit.settle(args[1], set.len - all.len() as u64);
    }
    out.count(all.len());
    Ok(())
}

pub(super) fn zremrangebyrank(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    out: &mut Replies<'_>,
) -> Done {
    remove_range(edit, args, By::Place, out)
}

pub(super) fn zremrangebyscore(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    out: &mut Replies<'_>,
) -> Done {
    remove_range(edit, args, By::Score, out)
}

pub(super) fn zremrangebylex(
    edit: &mut Edit<'_>,
    args: Arguments<'_>,
    out: &mut Replies<'_>,
) -> Done {
    remove_range(edit, args, By::Name, out)
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Opposite infinities come to 0, as in Redis.
            Self::Sum => Some(a + b).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Self::Min => a.min(b),
            Self::Max => a.max(b),
        }
    }
}

/// Sets to be combined.
struct Inputs {
    sets: Vec<(Kind, Collection)>,
    weights: Vec<f64>,
    aggregate: Aggregate,
}

fn inputs(view: &View<'_>, args: Arguments<'_>, name: &str) -> Result<Inputs, Refusal> {
    let count = number::integer(args[2]).ok_or(NOT_AN_INTEGER)?;
    let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
        Refusal::from(format!("ERR at least 1 input key is needed for '{name}' command"))
    })?;
    if count > args.len() - 3 {
        return Err(SYNTAX);
    }
    let (keys, mut rest) = args[3..].split_at(count);
    let mut sets = Vec::new();
    for key in keys {
        sets.push(match view.entry(key).map(|entry| &entry.value) {
            None => (Kind::Set, NONE),
            Some(value) if matches!(value.kind(), Kind::Set | Kind::Sorted) => {
                (value.kind(), value.collection().unwrap_or(NONE))
            }
            Some(_) => return Err(WRONG_TYPE),
        });
    }
    let mut inputs = Inputs { sets, weights: vec![1.0; count], aggregate: Aggregate::Sum };
    while let Some(word) = rest.first() {
        if is(word, "weights") && rest.len() > count {
            for (weight, text) in inputs.weights.iter_mut().zip(&rest[1..]) {
                *weight = number::float(text).ok_or("ERR weight value is not a float")?;
            }
            rest = &rest[1 + count..];
        } else if is(word, "aggregate") && rest.len() > 1 {
            inputs.aggregate = match () {
                () if is(rest[1], "sum") => Aggregate::Sum,
                () if is(rest[1], "min") => Aggregate::Min,
                () if is(rest[1], "max") => Aggregate::Max,
                () => return Err(SYNTAX),
            };
            rest = &rest[2..];
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(inputs)
}

fn combined(view: &View<'_>, inputs: &Inputs, intersects: bool) -> Vec<(f64, Vec<u8>)> {
    let mut all: BTreeMap<&[u8], (f64, usize)> = BTreeMap::new();
    for ((kind, set), weight) in inputs.sets.iter().zip(&inputs.weights) {
        for (member, _) in view.elements(*set) {
            let score = match kind {
                Kind::Sorted => score(view, *set, member).unwrap_or_default(),
                _ => 1.0,
            };
            // Infinity times 0.
            let score = Some(score * weight).filter(|score| !score.is_nan()).unwrap_or(0.0);
            all.entry(member)
                .and_modify(|(sum, times)| {
                    *sum = inputs.aggregate.of(*sum, score);
                    *times += 1;
                })
                .or_insert((score, 1));
        }
    }
    all.retain(|_, (_, times)| !intersects || *times == inputs.sets.len());
    all.into_iter().map(|(member, (score, _))| (score, member.to_vec())).collect()
}

pub(super) fn zunionstore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let view = edit.view();
    let all = combined(&view, &inputs(&view, args, "zunionstore")?, false);
    store(edit, args[1], &all, out)
}

pub(super) fn zinterstore(edit: &mut Edit<'_>, args: Arguments<'_>, out: &mut Replies<'_>) -> Done {
    let view = edit.view();
    let all = combined(&view, &inputs(&view, args, "zinterstore")?, true);
    store(edit, args[1], &all, out)
}
