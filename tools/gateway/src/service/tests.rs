//! Each group of commands, as one gateway asks for them, and what belongs to all.

use hybster::testing::check_deterministic;
use hybster::{Context, OrderNumber, RequestNumber, Service, SessionId, Snapshot};

use super::RedisService;
use crate::operation::{Watch, Writer, encode_command};

/// The time of the first operation, in milliseconds.
const NOW_MS: u64 = 1_700_000_000_000;

fn context(time_ms: u64) -> Context {
    let mut context = Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1));
    context.time_ms = time_ms;
    context
}

fn operation(commands: &[&str], resp3: bool, watches: Option<&[Watch]>, limit: u32) -> Vec<u8> {
    let mut writer = Writer::new(limit);
    let at = writer.begin_part(resp3, watches.is_some(), 0, watches.unwrap_or_default());
    for command in commands {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let mut encoded = Vec::new();
        encode_command(&words, &mut encoded);
        writer.command(&encoded);
    }
    writer.end_part(at, commands.len() as u32);
    writer.bytes().to_vec()
}

/// Executes commands at a time; how many were, and their replies with a space for each end of a line.
fn execute(service: &mut RedisService, time_ms: u64, operation: &[u8]) -> (u32, String) {
    let mut reply = Vec::new();
    service.execute(&context(time_ms), operation, &mut reply);
    read(&reply)
}

fn read(reply: &[u8]) -> (u32, String) {
    assert_eq!(reply[0], 0, "the operation is well-formed");
    let executed = u32::from_le_bytes(reply[1..5].try_into().unwrap());
    assert_eq!(u32::from_le_bytes(reply[5..9].try_into().unwrap()) as usize, reply.len() - 9);
    let text = String::from_utf8_lossy(&reply[9..]).replace("\r\n", " ");
    (executed, text.trim_end().to_owned())
}

#[derive(Default)]
struct Redis(RedisService, u64);

impl Redis {
    fn says(&mut self, command: &str, expected: &str) {
        let operation = operation(&[command], false, None, 1 << 20);
        let (_, text) = execute(&mut self.0, NOW_MS + self.1, &operation);
        assert_eq!(text, expected, "{command}");
    }

    fn says_in_resp3(&mut self, command: &str, expected: &str) {
        let operation = operation(&[command], true, None, 1 << 20);
        let (_, text) = execute(&mut self.0, NOW_MS + self.1, &operation);
        assert_eq!(text, expected, "{command}");
    }
}

#[test]
fn strings() {
    let mut redis = Redis::default();
    redis.says("SET a 1", "+OK");
    redis.says("GET a", "$1 1");
    redis.says("SET a 2 NX", "$-1");
    redis.says("SET a 2 XX GET", "$1 1");
    redis.says("SET a 2 NX XX", "-ERR syntax error");
    redis.says("SET a 2 EX 0", "-ERR invalid expire time in 'set' command");
    redis.says("INCR a", ":3");
    redis.says("INCRBY a 9223372036854775807", "-ERR increment or decrement would overflow");
    redis.says("DECRBY a 5", ":-2");
    redis.says("APPEND a xyz", ":5");
    redis.says("INCR a", "-ERR value is not an integer or out of range");
    redis.says("GETRANGE a -3 -1", "$3 xyz");
    redis.says("SETRANGE a 1 9", ":5");
    redis.says("GET a", "$5 -9xyz");
    redis.says("STRLEN a", ":5");
    redis.says("GETSET a n", "$5 -9xyz");
    redis.says("MSET b 1 c 2", "+OK");
    redis.says("MGET a b nope", "*3 $1 n $1 1 $-1");
    redis.says("MSETNX c 1 d 1", ":0");
    redis.says("SETNX d 1", ":1");
    redis.says("GETDEL d", "$1 1");
    redis.says("GET d", "$-1");
    redis.says("INCRBYFLOAT f 10.5", "$4 10.5");
    redis.says("INCRBYFLOAT f -0.1", "$4 10.4");
    redis.says("MSET b", "-ERR wrong number of arguments for 'mset' command");
    redis.says_in_resp3("GET d", "_");
}

#[test]
fn keys_and_their_time() {
    let mut redis = Redis::default();
    redis.says("SET a 1 PX 1500", "+OK");
    redis.says("TTL a", ":2");
    redis.says("PTTL a", ":1500");
    redis.says("EXISTS a a b", ":2");
    redis.says("TYPE a", "+string");
    redis.says("RENAME a b", "+OK");
    redis.says("PTTL b", ":1500");
    redis.1 = 1499;
    redis.says("GET b", "$1 1");
    redis.1 = 1500;
    redis.says("GET b", "$-1");
    redis.says("DBSIZE", ":0");
    redis.says("SET a 1 EX 10", "+OK");
    redis.says("SET a 2 KEEPTTL", "+OK");
    redis.says("TTL a", ":10");
    redis.says("PERSIST a", ":1");
    redis.says("TTL a", ":-1");
    redis.says("TTL nope", ":-2");
    redis.says("EXPIRE a 100 XX", ":0");
    redis.says("EXPIRE a 100", ":1");
    redis.says("EXPIRE a 50 GT", ":0");
    redis.says("EXPIRE a -1", ":1");
    redis.says("EXISTS a", ":0");
    redis.says("RENAME a b", "-ERR no such key");
    redis.says("SELECT 3", "+OK");
    redis.says("SELECT 16", "-ERR DB index is out of range");
    redis.says("NOPE a", "-ERR unknown command 'NOPE', with args beginning with: 'a'");
    redis.says("GET", "-ERR wrong number of arguments for 'get' command");
}

#[test]
fn a_flushed_database_is_empty_and_its_memory_comes_back() {
    let mut redis = Redis::default();
    for number in 0..3000 {
        redis.says(&format!("RPUSH list{number} a b"), ":2");
    }
    redis.says("FLUSHDB", "+OK");
    redis.says("DBSIZE", ":0");
    redis.says("RPUSH list1 c", ":1");
    redis.says("LRANGE list1 0 -1", "*1 $1 c");
    (0..20).for_each(|_| redis.says("PING", "+PONG"));
    assert_eq!((redis.0.store.keys.len(), redis.0.store.elements.len()), (1, 1));
}

#[test]
fn scans_find_everything_once_while_keys_come_and_go() {
    let mut redis = Redis::default();
    for number in 0..500 {
        redis.says(&format!("SET key:{number} v"), "+OK");
    }
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    for step in 0.. {
        let operation = operation(&[&format!("SCAN {cursor} COUNT 7")], false, None, 1 << 20);
        let (_, text) = execute(&mut redis.0, NOW_MS, &operation);
        let words: Vec<&str> = text.split(' ').collect();
        found.extend(words.iter().filter(|word| word.starts_with("key:")).map(ToString::to_string));
        words[2].clone_into(&mut cursor);
        if cursor == "0" {
            break;
        }
        redis.says(&format!("SET other:{step} v"), "+OK");
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 500);
}

#[test]
fn hashes() {
    let mut redis = Redis::default();
    redis.says("HSET h a 1 b 2", ":2");
    redis.says("HSET h a 3", ":0");
    redis.says("HGET h a", "$1 3");
    redis.says("HMGET h a x", "*2 $1 3 $-1");
    redis.says("HLEN h", ":2");
    redis.says("HINCRBY h a 4", ":7");
    redis.says("HINCRBYFLOAT h b 0.5", "$3 2.5");
    redis.says("HSETNX h a 1", ":0");
    redis.says("HEXISTS h b", ":1");
    redis.says("HSET h a", "-ERR wrong number of arguments for 'hset' command");
    redis.says("GET h", "-WRONGTYPE Operation against a key holding the wrong kind of value");
    redis.says("HDEL h b x", ":1");
    redis.says("HGETALL h", "*2 $1 a $1 7");
    redis.says_in_resp3("HGETALL h", "%1 $1 a $1 7");
    redis.says("HDEL h a", ":1");
    redis.says("EXISTS h", ":0");
}

#[test]
fn lists() {
    let mut redis = Redis::default();
    redis.says("RPUSH l a b c", ":3");
    redis.says("LPUSH l z", ":4");
    redis.says("LRANGE l 0 -1", "*4 $1 z $1 a $1 b $1 c");
    redis.says("LRANGE l -2 100", "*2 $1 b $1 c");
    redis.says("LINDEX l -1", "$1 c");
    redis.says("LSET l 9 x", "-ERR index out of range");
    redis.says("LINSERT l BEFORE b x", ":5");
    redis.says("LREM l 0 x", ":1");
    redis.says("LPOS l b", ":2");
    redis.says("LMOVE l m LEFT RIGHT", "$1 z");
    redis.says("RPOPLPUSH l l", "$1 c");
    redis.says("LRANGE l 0 -1", "*3 $1 c $1 a $1 b");
    redis.says("LTRIM l 1 1", "+OK");
    redis.says("LPOP l 5", "*1 $1 a");
    redis.says("EXISTS l", ":0");
    redis.says("LPOP l", "$-1");
    redis.says("LPUSHX l a", ":0");
    redis.says("BLPOP l m 0", "*2 $1 m $1 z");
    redis.says("BLPOP l m 0", "*-1");
    redis.says("BLPOP l -1", "-ERR timeout is negative");
}

#[test]
fn sets() {
    let mut redis = Redis::default();
    redis.says("SADD s a b c a", ":3");
    redis.says("SADD t b c d", ":3");
    redis.says("SISMEMBER s a", ":1");
    redis.says("SINTER s t", "*2 $1 b $1 c");
    redis.says("SDIFF s t", "*1 $1 a");
    redis.says("SUNIONSTORE u s t", ":4");
    redis.says("SCARD u", ":4");
    redis.says("SINTERCARD 2 s t LIMIT 1", ":1");
    redis.says("SMOVE s t a", ":1");
    redis.says("SREM s a b", ":1");
    redis.says("SPOP s", "$1 c");
    redis.says("EXISTS s", ":0");
    redis.says("SCARD t", ":4");
    redis.says("SRANDMEMBER s", "$-1");
    redis.says("SPOP u -1", "-ERR value is out of range, must be positive");
}

#[test]
fn sorted_sets() {
    let mut redis = Redis::default();
    redis.says("ZADD z 1 a 2 b 3 c", ":3");
    redis.says("ZADD z XX CH 5 a 1 x", ":1");
    redis.says("ZRANGE z 0 -1 WITHSCORES", "*6 $1 b $1 2 $1 c $1 3 $1 a $1 5");
    redis.says_in_resp3("ZRANGE z 0 0 WITHSCORES", "*1 *2 $1 b ,2");
    redis.says("ZRANGE z (2 +inf BYSCORE LIMIT 0 1", "*1 $1 c");
    redis.says("ZREVRANGEBYSCORE z 5 3", "*2 $1 a $1 c");
    redis.says("ZRANK z a", ":2");
    redis.says("ZREVRANK z a", ":0");
    redis.says("ZINCRBY z 0.5 b", "$3 2.5");
    redis.says("ZSCORE z b", "$3 2.5");
    redis.says("ZCOUNT z -inf 3", ":2");
    redis.says("ZADD z GT INCR -1 a", "$-1");
    redis.says(
        "ZADD z NX GT 1 a",
        "-ERR GT, LT, and/or NX options at the same time are not compatible",
    );
    redis.says("ZADD z x a", "-ERR value is not a valid float");
    redis.says("ZPOPMIN z", "*2 $1 b $3 2.5");
    redis.says("ZUNIONSTORE y 2 z z WEIGHTS 1 2", ":2");
    redis.says("ZSCORE y a", "$2 15");
    redis.says("ZREMRANGEBYRANK z 0 -1", ":2");
    redis.says("EXISTS z", ":0");
    redis.says("ZADD n 0 a 0 b 0 c", ":3");
    redis.says("ZRANGEBYLEX n [b +", "*2 $1 b $1 c");
    redis.says("ZLEXCOUNT n - (c", ":2");
}

#[test]
fn a_transaction_is_executed_only_if_what_it_watches_is_as_it_was() {
    let mut service = RedisService::new();
    let versions = |service: &mut RedisService| {
        let operation = operation(&["HYBSTER.VERSIONS k"], false, None, 1 << 20);
        let (_, text) = execute(service, NOW_MS, &operation);
        text.rsplit(':').next().unwrap().parse().unwrap()
    };
    let set = operation(&["SET k 1"], false, None, 1 << 20);
    execute(&mut service, NOW_MS, &set);
    let watch = Watch { database: 0, version: versions(&mut service), key: b"k".to_vec() };
    let watches = [watch];
    let exec = operation(&["INCR k", "GET nope", "LPOP k"], false, Some(&watches), 1 << 20);
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(execute(&mut service, NOW_MS, &exec), (3, format!("*3 :2 $-1 {wrong}")));
    assert_eq!(execute(&mut service, NOW_MS, &exec), (3, "*-1".to_owned()), "it has changed");
    assert_ne!(versions(&mut service), watches[0].version);
}

#[test]
fn what_does_not_fit_into_the_reply_is_not_executed() {
    let mut service = RedisService::new();
    let long = "x".repeat(100);
    execute(&mut service, NOW_MS, &operation(&[&format!("SET k {long}")], false, None, 1000));
    let commands = ["GET k", "GET k", "GET k", "INCR n"];
    let (executed, _) = execute(&mut service, NOW_MS, &operation(&commands, false, None, 300));
    assert_eq!(executed, 2, "the second is beyond half the limit, and so the last");
    let (_, text) = execute(&mut service, NOW_MS, &operation(&["EXISTS n"], false, None, 300));
    assert_eq!(text, ":0");
    let too_long = execute(&mut service, NOW_MS, &operation(&["GET k"], false, None, 50)).1;
    assert_eq!(too_long, "-ERR the reply is longer than the group's max_reply_bytes allows");
}

#[test]
fn a_query_answers_reads_that_do_not_depend_on_the_time() {
    let mut service = RedisService::new();
    let set = operation(&["SET k 1", "SET t 1 EX 9"], false, None, 1 << 20);
    execute(&mut service, NOW_MS, &set);
    let query = |commands: &[&str]| {
        let mut reply = Vec::new();
        let is_answered = service.query(&operation(commands, false, None, 1 << 20), &mut reply);
        is_answered.then(|| read(&reply))
    };
    assert_eq!(query(&["GET k", "LLEN nope"]), Some((2, "$1 1 :0".to_owned())));
    assert_eq!(query(&["GET k", "GET t"]), None);
    assert_eq!(query(&["INCR k"]), None);
    assert_eq!(query(&["NOPE"]), None);
}

#[test]
fn bytes_of_no_operation_do_nothing() {
    let mut service = RedisService::new();
    let whole = operation(&["SET k v"], false, None, 1 << 20);
    for length in 0..whole.len() {
        let mut reply = Vec::new();
        service.execute(&context(NOW_MS), &whole[..length], &mut reply);
        // The head alone has no parts, which is an operation that does nothing.
        let expected = if length == crate::operation::HEAD_BYTES { 0 } else { 1 };
        assert_eq!(reply, [expected], "{length}");
    }
    assert_eq!(execute(&mut service, NOW_MS, &operation(&["DBSIZE"], false, None, 99)).1, ":0");
}

/// Commands of all kinds on few keys, from a seed.
fn commands(count: u64) -> Vec<Vec<u8>> {
    let kinds = [
        "SET k# v#",
        "SET k# v# PX 20",
        "APPEND k# x",
        "DEL k# h# l#",
        "RENAME l# m#",
        "HSET h# f# v#",
        "HDEL h# f1",
        "RPUSH l# a b c",
        "LPOP l#",
        "LREM l# 1 b",
        "SADD s# a# b c#",
        "SPOP s#",
        "SUNIONSTORE s# s1 s2",
        "ZADD z# # m1 2 m#",
        "ZINCRBY z# 1 m2",
        "ZPOPMAX z#",
        "FLUSHDB",
        "COPY z# y#",
        "EXPIRE h# 1",
        "RANDOMKEY",
        "SRANDMEMBER s# 2",
        "GETEX k# PERSIST",
    ];
    (0..count)
        .map(|number| {
            let draw = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let mut kind = (draw % kinds.len() as u64) as usize;
            if kinds[kind] == "FLUSHDB" && draw % 7 != 0 {
                kind = 0;
            }
            let command = kinds[kind].replace('#', &(draw / 64 % 5).to_string());
            operation(&[&command], false, None, 1 << 20)
        })
        .collect()
}

#[test]
fn the_service_is_deterministic() {
    check_deterministic(RedisService::new, &commands(600)).unwrap();
}

#[test]
fn a_state_that_went_through_pages_is_the_same() {
    let mut service = RedisService::new();
    for operation in commands(3000) {
        service.execute(&context(NOW_MS), &operation, &mut Vec::new());
    }
    let snapshot = service.snapshot();
    let mut other = RedisService::new();
    other.restore(&*snapshot).unwrap();
    let pages = |snapshot: &dyn Snapshot| {
        (0..snapshot.page_count()).map(|page| snapshot.page(page)).collect::<Vec<_>>()
    };
    assert!(pages(&*snapshot) == pages(&*other.snapshot()));
    assert_eq!(service.store.keys.len(), other.store.keys.len());
    let dbsize = operation(&["DBSIZE"], false, None, 1 << 20);
    let left = execute(&mut service, NOW_MS + 60_000, &dbsize);
    assert_eq!(execute(&mut other, NOW_MS + 60_000, &dbsize), left);
}
