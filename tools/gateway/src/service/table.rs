//! All commands: their names, how many arguments they take, which of these are keys, and what carries them out.

use super::view::{Edit, View};
use super::{Arguments, Done, Refusal, hashes, keys, lists, sets, sorted, sorted_ranges, strings};
use crate::reply::Replies;

/// What carries a command out.
#[derive(Clone, Copy)]
pub(crate) enum Kindness {
    /// The group, and nothing is changed.
    Read(fn(&View<'_>, Arguments<'_>, &mut Replies<'_>) -> Done),
    /// The group.
    Write(fn(&mut Edit<'_>, Arguments<'_>, &mut Replies<'_>) -> Done),
    /// The group, of which database the next commands are.
    Select,
    /// The gateway.
    Gateway,
}

/// A command.
#[derive(Clone, Copy)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// How many arguments it takes with its name; if negative, at least so many.
    pub(crate) arity: i32,
    /// The first and last key among the arguments, and from one to the next. A negative last one counts from
    /// the end.
    pub(crate) keys: (i32, i32, i32),
    pub(crate) run: Kindness,
}

impl Command {
    /// Whether it takes so many arguments, its name among them.
    pub(crate) fn takes(&self, count: usize) -> bool {
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        if self.arity < 0 { count >= -self.arity } else { count == self.arity }
    }

    pub(crate) fn wrong_arity(&self) -> Refusal {
        let name = self.name.to_ascii_lowercase();
        format!("ERR wrong number of arguments for '{name}' command").into()
    }

    pub(crate) const fn is_read(&self) -> bool {
        matches!(self.run, Kindness::Read(_))
    }

    /// Whether it may have to wait for an element.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.name, "BLPOP" | "BRPOP" | "BLMOVE" | "BRPOPLPUSH" | "BZPOPMIN" | "BZPOPMAX")
    }
}

/// All commands, in the order of their names.
pub(crate) const fn table() -> &'static [Command] {
    TABLE
}

/// A command by its name, in any case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Command> {
    let mut upper = [0; LONGEST];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let at = TABLE.binary_search_by(|command| command.name.as_bytes().cmp(upper)).ok()?;
    Some(&TABLE[at])
}

/// Redis's words for a command that there is not.
pub(crate) fn unknown(args: Arguments<'_>) -> Refusal {
    // As a C string.
    let cut = |bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(128)];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let mut text = format!("ERR unknown command '{}', with args beginning with: ", cut(args[0]));
    for argument in &args[1..] {
        if text.len() >= 128 + 60 {
            break;
        }
        text.push_str(&format!("'{}' ", cut(argument)));
    }
    text.into()
}

/// The length of the longest name.
const LONGEST: usize = 16;

const fn read(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    run: fn(&View<'_>, Arguments<'_>, &mut Replies<'_>) -> Done,
) -> Command {
    Command { name, arity, keys, run: Kindness::Read(run) }
}

const fn write(
    name: &'static str,
    arity: i32,
    keys: (i32, i32, i32),
    run: fn(&mut Edit<'_>, Arguments<'_>, &mut Replies<'_>) -> Done,
) -> Command {
    Command { name, arity, keys, run: Kindness::Write(run) }
}

const fn gateway(name: &'static str, arity: i32) -> Command {
    Command { name, arity, keys: NO_KEY, run: Kindness::Gateway }
}

const NO_KEY: (i32, i32, i32) = (0, 0, 0);
const ONE: (i32, i32, i32) = (1, 1, 1);
const TWO: (i32, i32, i32) = (1, 2, 1);
const ALL: (i32, i32, i32) = (1, -1, 1);
const PAIRS: (i32, i32, i32) = (1, -1, 2);
const BUT_LAST: (i32, i32, i32) = (1, -2, 1);

const TABLE: &[Command] = &[
    write("APPEND", 3, ONE, strings::append),
    gateway("AUTH", -2),
    write("BLMOVE", 6, TWO, lists::blmove),
    write("BLPOP", -3, BUT_LAST, lists::blpop),
    write("BRPOP", -3, BUT_LAST, lists::brpop),
    write("BRPOPLPUSH", 4, TWO, lists::brpoplpush),
    write("BZPOPMAX", -3, BUT_LAST, sorted::bzpopmax),
    write("BZPOPMIN", -3, BUT_LAST, sorted::bzpopmin),
    gateway("CLIENT", -2),
    gateway("COMMAND", -1),
    gateway("CONFIG", -2),
    write("COPY", -3, TWO, keys::copy),
    read("DBSIZE", 1, NO_KEY, keys::dbsize),
    write("DECR", 2, ONE, strings::decr),
    write("DECRBY", 3, ONE, strings::decrby),
    write("DEL", -2, ALL, keys::del),
    gateway("DISCARD", 1),
    read("ECHO", 2, NO_KEY, keys::echo),
    gateway("EXEC", 1),
    read("EXISTS", -2, ALL, keys::exists),
    write("EXPIRE", -3, ONE, keys::expire),
    write("EXPIREAT", -3, ONE, keys::expireat),
    read("EXPIRETIME", 2, ONE, keys::expiretime),
    write("FLUSHALL", -1, NO_KEY, keys::flushall),
    write("FLUSHDB", -1, NO_KEY, keys::flushdb),
    read("GET", 2, ONE, strings::get),
    write("GETDEL", 2, ONE, strings::getdel),
    write("GETEX", -2, ONE, strings::getex),
    read("GETRANGE", 4, ONE, strings::getrange),
    write("GETSET", 3, ONE, strings::getset),
    write("HDEL", -3, ONE, hashes::hdel),
    gateway("HELLO", -1),
    read("HEXISTS", 3, ONE, hashes::hexists),
    read("HGET", 3, ONE, hashes::hget),
    read("HGETALL", 2, ONE, hashes::hgetall),
    write("HINCRBY", 4, ONE, hashes::hincrby),
    write("HINCRBYFLOAT", 4, ONE, hashes::hincrbyfloat),
    read("HKEYS", 2, ONE, hashes::hkeys),
    read("HLEN", 2, ONE, hashes::hlen),
    read("HMGET", -3, ONE, hashes::hmget),
    write("HMSET", -4, ONE, hashes::hmset),
    write("HRANDFIELD", -2, ONE, hashes::hrandfield),
    read("HSCAN", -3, ONE, hashes::hscan),
    write("HSET", -4, ONE, hashes::hset),
    write("HSETNX", 4, ONE, hashes::hsetnx),
    read("HSTRLEN", 3, ONE, hashes::hstrlen),
    read("HVALS", 2, ONE, hashes::hvals),
    read("HYBSTER.VERSIONS", -2, ALL, keys::versions),
    write("INCR", 2, ONE, strings::incr),
    write("INCRBY", 3, ONE, strings::incrby),
    write("INCRBYFLOAT", 3, ONE, strings::incrbyfloat),
    gateway("INFO", -1),
    read("KEYS", 2, NO_KEY, keys::keys),
    read("LINDEX", 3, ONE, lists::lindex),
    write("LINSERT", 5, ONE, lists::linsert),
    read("LLEN", 2, ONE, lists::llen),
    write("LMOVE", 5, TWO, lists::lmove),
    write("LPOP", -2, ONE, lists::lpop),
    read("LPOS", -3, ONE, lists::lpos),
    write("LPUSH", -3, ONE, lists::lpush),
    write("LPUSHX", -3, ONE, lists::lpushx),
    read("LRANGE", 4, ONE, lists::lrange),
    write("LREM", 4, ONE, lists::lrem),
    write("LSET", 4, ONE, lists::lset),
    write("LTRIM", 4, ONE, lists::ltrim),
    read("MGET", -2, ALL, strings::mget),
    write("MSET", -3, PAIRS, strings::mset),
    write("MSETNX", -3, PAIRS, strings::msetnx),
    gateway("MULTI", 1),
    read("OBJECT", -2, (2, 2, 1), keys::object),
    write("PERSIST", 2, ONE, keys::persist),
    write("PEXPIRE", -3, ONE, keys::pexpire),
    write("PEXPIREAT", -3, ONE, keys::pexpireat),
    read("PEXPIRETIME", 2, ONE, keys::pexpiretime),
    read("PING", -1, NO_KEY, keys::ping),
    write("PSETEX", 4, ONE, strings::psetex),
    gateway("PSUBSCRIBE", -2),
    read("PTTL", 2, ONE, keys::pttl),
    gateway("PUBLISH", 3),
    gateway("PUBSUB", -2),
    gateway("PUNSUBSCRIBE", -1),
    gateway("QUIT", -1),
    write("RANDOMKEY", 1, NO_KEY, keys::randomkey),
    gateway("READONLY", 1),
    gateway("READWRITE", 1),
    write("RENAME", 3, TWO, keys::rename),
    write("RENAMENX", 3, TWO, keys::renamenx),
    gateway("RESET", 1),
    write("RPOP", -2, ONE, lists::rpop),
    write("RPOPLPUSH", 3, TWO, lists::rpoplpush),
    write("RPUSH", -3, ONE, lists::rpush),
    write("RPUSHX", -3, ONE, lists::rpushx),
    write("SADD", -3, ONE, sets::sadd),
    read("SCAN", -2, NO_KEY, keys::scan),
    read("SCARD", 2, ONE, sets::scard),
    read("SDIFF", -2, ALL, sets::sdiff),
    write("SDIFFSTORE", -3, ALL, sets::sdiffstore),
    Command { name: "SELECT", arity: 2, keys: NO_KEY, run: Kindness::Select },
    write("SET", -3, ONE, strings::set),
    write("SETEX", 4, ONE, strings::setex),
    write("SETNX", 3, ONE, strings::setnx),
    write("SETRANGE", 4, ONE, strings::setrange),
    read("SINTER", -2, ALL, sets::sinter),
    read("SINTERCARD", -3, NO_KEY, sets::sintercard),
    write("SINTERSTORE", -3, ALL, sets::sinterstore),
    read("SISMEMBER", 3, ONE, sets::sismember),
    read("SMEMBERS", 2, ONE, sets::smembers),
    read("SMISMEMBER", -3, ONE, sets::smismember),
    write("SMOVE", 4, TWO, sets::smove),
    write("SPOP", -2, ONE, sets::spop),
    write("SRANDMEMBER", -2, ONE, sets::srandmember),
    write("SREM", -3, ONE, sets::srem),
    read("SSCAN", -3, ONE, sets::sscan),
    read("STRLEN", 2, ONE, strings::strlen),
    gateway("SUBSCRIBE", -2),
    read("SUBSTR", 4, ONE, strings::getrange),
    read("SUNION", -2, ALL, sets::sunion),
    write("SUNIONSTORE", -3, ALL, sets::sunionstore),
    gateway("TIME", 1),
    read("TOUCH", -2, ALL, keys::exists),
    read("TTL", 2, ONE, keys::ttl),
    read("TYPE", 2, ONE, keys::kind),
    write("UNLINK", -2, ALL, keys::del),
    gateway("UNSUBSCRIBE", -1),
    gateway("UNWATCH", 1),
    gateway("WAIT", 3),
    gateway("WATCH", -2),
    write("ZADD", -4, ONE, sorted::zadd),
    read("ZCARD", 2, ONE, sorted::zcard),
    read("ZCOUNT", 4, ONE, sorted_ranges::zcount),
    write("ZINCRBY", 4, ONE, sorted::zincrby),
    write("ZINTERSTORE", -4, ONE, sorted_ranges::zinterstore),
    read("ZLEXCOUNT", 4, ONE, sorted_ranges::zlexcount),
    read("ZMSCORE", -3, ONE, sorted::zmscore),
    write("ZPOPMAX", -2, ONE, sorted::zpopmax),
    write("ZPOPMIN", -2, ONE, sorted::zpopmin),
    read("ZRANGE", -4, ONE, sorted_ranges::zrange),
    read("ZRANGEBYLEX", -4, ONE, sorted_ranges::zrangebylex),
    read("ZRANGEBYSCORE", -4, ONE, sorted_ranges::zrangebyscore),
    write("ZRANGESTORE", -5, TWO, sorted_ranges::zrangestore),
    read("ZRANK", 3, ONE, sorted::zrank),
    write("ZREM", -3, ONE, sorted::zrem),
    write("ZREMRANGEBYLEX", 4, ONE, sorted_ranges::zremrangebylex),
    write("ZREMRANGEBYRANK", 4, ONE, sorted_ranges::zremrangebyrank),
    write("ZREMRANGEBYSCORE", 4, ONE, sorted_ranges::zremrangebyscore),
    read("ZREVRANGE", -4, ONE, sorted_ranges::zrevrange),
    read("ZREVRANGEBYLEX", -4, ONE, sorted_ranges::zrevrangebylex),
    read("ZREVRANGEBYSCORE", -4, ONE, sorted_ranges::zrevrangebyscore),
    read("ZREVRANK", 3, ONE, sorted::zrevrank),
    read("ZSCAN", -3, ONE, sorted::zscan),
    read("ZSCORE", 3, ONE, sorted::zscore),
    write("ZUNIONSTORE", -4, ONE, sorted_ranges::zunionstore),
];

/// The command of gateways that asks for the versions of keys. Redis has none of this name.
pub(crate) const VERSIONS: &str = "HYBSTER.VERSIONS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name), "the table is searched by halves");
        for command in TABLE {
            assert_eq!(
                find(command.name.to_lowercase().as_bytes()).map(|it| it.name),
                Some(command.name)
            );
        }
        assert!(find(b"").is_none() && find(&[b'x'; 1000]).is_none());
        assert_eq!(TABLE.iter().map(|command| command.name.len()).max(), Some(LONGEST));
    }

    #[test]
    fn what_is_not_known_is_said_as_by_redis() {
        assert_eq!(
            unknown(&[b"nope", b"a", b"b"]),
            "ERR unknown command 'nope', with args beginning with: 'a' 'b' "
        );
        assert_eq!(unknown(&[b"nope"]), "ERR unknown command 'nope', with args beginning with: ");
        assert!(unknown(&[&b"nope"[..]; 100_000]).len() < 400);
    }
}
