//! The service beside a real `redis-server`: the same random commands must have the same replies.
//!
//! Skipped with a word where there is no `redis-server`. A sequence in which a reply differs is made shorter by
//! dropping commands, and printed. What is not compared, because it is different for a reason, is listed in the
//! [crate]'s documentation.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hybster::{Context, OrderNumber, RequestNumber, Service, SessionId};
use redis_protocol::resp2::types::OwnedFrame as Old;
use redis_protocol::resp3::types::OwnedFrame as New;

use super::RedisService;
use crate::operation::{Writer, encode_command};

/// Commands between two times at which both stores are emptied.
const EPISODE: usize = 400;
/// Commands of which a difference is shown.
const SHOWN: usize = 40;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Words = Vec<Vec<u8>>;

/// A real server, which ends with its guard.
struct Redis {
    process: Child,
    socket: UnixStream,
    received: Vec<u8>,
    resp3: bool,
    _dir: tempfile::TempDir,
}

impl Redis {
    fn start(resp3: bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        let process = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            process => process.unwrap(),
        };
        let deadline = Instant::now() + PATIENCE;
        let socket = loop {
            if let Ok(socket) = UnixStream::connect(&path) {
                break socket;
            }
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut redis = Self { process, socket, received: Vec::new(), resp3, _dir: dir };
        if resp3 {
            redis.ask(&[vec![b"HELLO".to_vec(), b"3".to_vec()]]);
        }
        Some(redis)
    }

    fn ask(&mut self, commands: &[Words]) -> Vec<Reply> {
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(word);
                bytes.extend_from_slice(b"\r\n");
            }
        }
        self.socket.write_all(&bytes).unwrap();
        let mut replies = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while replies.len() < commands.len() {
            if let Some((reply, length)) = Reply::read(&self.received, self.resp3) {
                self.received.drain(..length);
                replies.push(reply);
                continue;
            }
            let count = self.socket.read(&mut buffer).unwrap();
            assert!(count > 0, "redis-server has closed the connection");
            self.received.extend_from_slice(&buffer[..count]);
        }
        replies
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Old(Old),
    New(New),
}

impl Reply {
    fn read(bytes: &[u8], resp3: bool) -> Option<(Self, usize)> {
        if resp3 {
            let read = redis_protocol::resp3::decode::complete::decode(bytes).unwrap();
            return read.map(|(frame, length)| (Self::New(frame), length));
        }
        let read = redis_protocol::resp2::decode::decode(bytes).unwrap();
        read.map(|(frame, length)| (Self::Old(frame), length))
    }

    /// Without what has no order, and with times to the nearest 100,000.
    fn comparable(self, words: &[Vec<u8>]) -> Self {
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        let pairs = matches!(&*name, "HGETALL" | "HSCAN" | "ZSCAN");
        let unordered = matches!(
            &*name,
            "SMEMBERS"
                | "HKEYS"
                | "HVALS"
                | "KEYS"
                | "SINTER"
                | "SUNION"
                | "SDIFF"
                | "SCAN"
                | "SSCAN"
                | "SPOP"
                | "SRANDMEMBER"
                | "HRANDFIELD"
        );
        let is_time = matches!(&*name, "TTL" | "EXPIRETIME" | "PEXPIRETIME");
        match self {
            Self::Old(frame) if pairs || unordered => Self::Old(sorted_old(frame, pairs)),
            Self::New(frame) if pairs || unordered => Self::New(sorted_new(frame, pairs)),
            Self::Old(Old::Integer(value)) if is_time && value > 2 => {
                Self::Old(Old::Integer((value + 50_000) / 100_000))
            }
            Self::New(New::Number { data, attributes }) if is_time && data > 2 => {
                Self::New(New::Number { data: (data + 50_000) / 100_000, attributes })
            }
            other => other,
        }
    }
}

fn sorted_old(frame: Old, pairs: bool) -> Old {
    let Old::Array(all) = frame else { return frame };
    if let [Old::BulkString(cursor), Old::Array(_)] = &all[..] {
        let cursor = Old::BulkString(cursor.clone());
        return Old::Array(vec![cursor, sorted_old(all[1].clone(), pairs)]);
    }
    let mut groups: Vec<Vec<Old>> = all.chunks(1 + usize::from(pairs)).map(<[_]>::to_vec).collect();
    groups.sort_by_key(|group| format!("{group:?}"));
    Old::Array(groups.concat())
}

fn sorted_new(frame: New, pairs: bool) -> New {
    let New::Array { data, attributes } = frame else { return frame };
    if let [New::BlobString { .. }, New::Array { .. }] = &data[..] {
        let data = vec![data[0].clone(), sorted_new(data[1].clone(), pairs)];
        return New::Array { data, attributes };
    }
    let mut groups: Vec<Vec<New>> =
        data.chunks(1 + usize::from(pairs)).map(<[_]>::to_vec).collect();
    groups.sort_by_key(|group| format!("{group:?}"));
    New::Array { data: groups.concat(), attributes }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The replies of a service to the same commands, a few in each operation.
fn ask_own(service: &mut RedisService, commands: &[Words], resp3: bool) -> Vec<Reply> {
    let mut replies = Vec::new();
    for some in commands.chunks(7) {
        let mut writer = Writer::new(1 << 20);
        let at = writer.begin_part(resp3, false, 0, &[]);
        for words in some {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let mut encoded = Vec::new();
            encode_command(&words, &mut encoded);
            writer.command(&encoded);
        }
        writer.end_part(at, some.len() as u32);
        let mut context = Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1));
        context.time_ms = now_ms();
        let mut reply = Vec::new();
        service.execute(&context, writer.bytes(), &mut reply);
        let mut rest = &reply[9..];
        while let Some((reply, length)) = Reply::read(rest, resp3) {
            replies.push(reply);
            rest = &rest[length..];
            if rest.is_empty() {
                break;
            }
        }
    }
    replies
}

/// The first command of a sequence with two replies.
fn difference(redis: &mut Redis, commands: &[Words]) -> Option<(usize, Reply, Reply)> {
    redis.ask(&[vec![b"FLUSHALL".to_vec()]]);
    let theirs = redis.ask(commands);
    let ours = ask_own(&mut RedisService::new(), commands, redis.resp3);
    assert_eq!(ours.len(), theirs.len());
    let all = ours.into_iter().zip(theirs).zip(commands).enumerate();
    let mut all = all.map(|(at, ((ours, theirs), words))| {
        (at, ours.comparable(words), theirs.comparable(words))
    });
    all.find(|(_, ours, theirs)| ours != theirs)
}

/// Drops commands as long as a reply differs.
fn shrink(redis: &mut Redis, mut commands: Vec<Words>) -> Vec<Words> {
    let mut size = commands.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < commands.len() {
            let mut fewer = commands.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            match difference(redis, &fewer) {
                Some((last, ..)) => {
                    fewer.truncate(last + 1);
                    commands = fewer;
                }
                None => at += size,
            }
        }
        size /= 2;
    }
    commands
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

/// A command for each line, in which `$x` is drawn: `$k $h $l $s $z` a key that mostly has a string, hash, list,
/// set or sorted set, `$a` any key, `$f` a field or member, `$v` a value, `$n` an integer, `$i` an index, `$r` a
/// number with few decimal places, `$q` a key with such a number, `$y` one of a sorted set in which all scores are 0,
/// `$u` a time that is not over, `$w` a score, `$b` a bound of scores, `$x` one of names, `$t` a time, `$c` a
/// count, `$p` a pattern.
const TEMPLATES: &str = "\
SET $k $v|SET $k $v|SET $k $n|SET $a $v|SET $k $v NX|SET $k $v XX|SET $k $v GET|SET $k $v KEEPTTL|SET $k $v EX $n
SET $k $v PXAT $u|SET $k $v NX GET|SET $k $v XX KEEPTTL|SET $k $v EX 1000 KEEPTTL|SET $k $v nope|SET $k
GET $k|GET $k|GET $a|GETDEL $k|GETSET $k $v|GETEX $k|GETEX $k PERSIST|GETEX $k PXAT $u|GETEX $k EX $n|GETEX $k EX
MGET $k $a $k|MSET $k $v $a $v|MSET $k $v $k|MSETNX $k $v $k $v|SETNX $k $v|SETEX $k $n $v|PSETEX $k 1000000 $v
INCR $k|DECR $k|INCRBY $k $n|DECRBY $k $n|SET $q $r|INCRBYFLOAT $q $r|INCRBYFLOAT $q $r|GET $q|APPEND $k $v|STRLEN $k|STRLEN $a
GETRANGE $k $i $i|SUBSTR $k $i $i|SETRANGE $k $c $v|SETRANGE $k -1 x
DEL $a|DEL $a $a|UNLINK $k $h|EXISTS $a $a|TOUCH $a|TYPE $a|KEYS $p|DBSIZE|PERSIST $a|RENAME $a $a|RENAMENX $a $a
COPY $a $a|COPY $a $a REPLACE|EXPIREAT $a 99999999999|PEXPIREAT $a $t|PEXPIREAT $a $t NX|PEXPIREAT $a $t XX
PEXPIREAT $a $t GT|PEXPIREAT $a $t LT|PEXPIREAT $a $t NX XX|PEXPIREAT $a $t nope|EXPIRE $a $n|EXPIRE $a -1|TTL $a
EXPIRETIME $a|PEXPIRETIME $a|SCAN 0 COUNT 10000|SCAN 0 MATCH $p COUNT 10000|SCAN 0 TYPE hash COUNT 10000|SCAN x
HSET $h $f $v|HSET $h $f $v $f $v|HSET $h $f|HSET $a $f $v|HMSET $h $f $v|HSETNX $h $f $v|HGET $h $f|HMGET $h $f $f
HDEL $h $f|HDEL $h $f $f $f|HEXISTS $h $f|HLEN $h|HLEN $a|HSTRLEN $h $f|HKEYS $h|HVALS $h|HGETALL $h|HGETALL $a
HINCRBY $h $f $n|HINCRBYFLOAT $h q1 $r|HGET $h q1|HSCAN $h 0 COUNT 10000|HRANDFIELD $h 1000
LPUSH $l $v|RPUSH $l $v $v $v|RPUSH $a $v|LPUSHX $l $v|RPUSHX $l $v|LPOP $l|RPOP $l|LPOP $l $c|RPOP $l $c|LPOP $a
LLEN $l|LLEN $a|LINDEX $l $i|LRANGE $l $i $i|LRANGE $l 0 -1|LSET $l $i $v|LTRIM $l $i $i|LREM $l $i $v
LINSERT $l BEFORE $v $v|LINSERT $l AFTER $v $v|LINSERT $l NEAR $v $v|LPOS $l $v|LPOS $l $v RANK $i|LPOS $l $v COUNT $c
LPOS $l $v RANK $i COUNT $c MAXLEN $c|LMOVE $l $l LEFT RIGHT|LMOVE $l $a RIGHT LEFT|RPOPLPUSH $l $l|RPOPLPUSH $l $a
LMOVE $l $l UP DOWN
SADD $s $f|SADD $s $f $f $f|SADD $a $f|SREM $s $f|SREM $s $f $f|SMEMBERS $s|SISMEMBER $s $f|SMISMEMBER $s $f $f
SCARD $s|SCARD $a|SMOVE $s $s $f|SMOVE $s $a $f|SINTER $s $s|SUNION $s $s|SDIFF $s $s $s|SINTER $s $a
SINTERSTORE $s $s $s|SUNIONSTORE $s $s $s|SDIFFSTORE $a $s $s|SINTERCARD 2 $s $s|SINTERCARD 2 $s $s LIMIT $c
SINTERCARD $i $s|SPOP $s 1000|SRANDMEMBER $s 1000|SSCAN $s 0 COUNT 10000
ZADD $z $w $f|ZADD $z $w $f $w $f|ZADD $z $w|ZADD $a $w $f|ZADD $z NX $w $f|ZADD $z XX $w $f|ZADD $z GT $w $f
ZADD $z LT CH $w $f|ZADD $z CH $w $f $w $f|ZADD $z INCR $r $f|ZADD $z NX XX $w $f|ZADD $z GT LT $w $f
ZADD $z XX INCR $r $f|ZADD $z INCR 1 a 2 b|ZINCRBY $z $r $f|ZREM $z $f|ZREM $z $f $f|ZSCORE $z $f|ZMSCORE $z $f $f
ZCARD $z|ZCARD $a|ZRANK $z $f|ZREVRANK $z $f|ZCOUNT $z $b $b|ZLEXCOUNT $y $x $x|ZRANGE $z $i $i|ZRANGE $z 0 -1
ZRANGE $z $i $i WITHSCORES|ZRANGE $z $i $i REV|ZRANGE $z $i $i REV WITHSCORES|ZRANGE $z $b $b BYSCORE
ZRANGE $z $b $b BYSCORE LIMIT $i $i|ZRANGE $z $b $b BYSCORE REV WITHSCORES|ZRANGE $y $x $x BYLEX
ZRANGE $y $x $x BYLEX REV|ZRANGE $z 0 1 LIMIT 0 1|ZRANGE $z - + BYLEX WITHSCORES|ZREVRANGE $z $i $i WITHSCORES
ZRANGEBYSCORE $z $b $b|ZRANGEBYSCORE $z $b $b WITHSCORES LIMIT $i $i|ZREVRANGEBYSCORE $z $b $b
ZADD $y 0 $f 0 $f|ZREM $y $f|ZRANGEBYLEX $y $x $x|ZREVRANGEBYLEX $y $x $x LIMIT $i $i|ZREMRANGEBYRANK $z $i $i|ZREMRANGEBYSCORE $z $b $b
ZREMRANGEBYLEX $y $x $x|ZPOPMIN $z|ZPOPMAX $z|ZPOPMIN $z $c|ZPOPMAX $z $c|ZRANGESTORE $z $z $i $i|ZSCAN $z 0
ZUNIONSTORE $z 2 $z $z|ZUNIONSTORE $z 2 $z $s WEIGHTS 2 3|ZINTERSTORE $z 2 $z $z AGGREGATE MAX
ZINTERSTORE $z 2 $s $z AGGREGATE MIN|ZUNIONSTORE $z 0 $z|ZUNIONSTORE $z 3 $z|ZINTERSTORE $z 1 $a
PING|PING x|ECHO $v|NOPE $v $v|GET|GET a b|FLUSHDB ASYNC|SELECT 0|SELECT 99|SELECT x";

fn word(random: &mut Random, template: &str) -> String {
    let keys = |random: &mut Random, kind: &str| {
        let kind = if random.below(8) == 0 { random.of(&["k", "h", "l", "s", "z"]) } else { kind };
        format!("{kind}{}", random.below(3))
    };
    match template {
        "$q" | "$y" => format!("{}{}", &template[1..], random.below(2)),
        "$k" | "$h" | "$l" | "$s" | "$z" => keys(random, &template[1..]),
        "$a" => {
            let kind = random.of(&["k", "h", "l", "s", "z"]);
            format!("{kind}{}", random.below(3))
        }
        "$f" => format!("m{}", random.below(8)),
        "$v" => match random.below(6) {
            0 => String::new(),
            1 => random.below(100).to_string(),
            2 => format!("{}.25", random.below(9)),
            _ => random.of(&["a", "b", "c", "hello world", "\r\n\0", "-7", "x\u{e4}"]).to_owned(),
        },
        "$n" => random
            .of(&[
                "1",
                "2",
                "7",
                "-3",
                "0",
                "1000",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "1.5",
                "",
            ])
            .to_owned(),
        "$i" => random.of(&["0", "1", "2", "3", "-1", "-2", "-4", "100", "-100", "x"]).to_owned(),
        "$r" => random.of(&["0.25", "-1.5", "3", "1e1", "0.5", "x", "2.75", "-0.25"]).to_owned(),
        "$w" => random
            .of(&["1", "2", "2", "3.5", "-1", "0", "inf", "-inf", "1e10", "x", "nan", "0.1", "3.1"])
            .to_owned(),
        "$b" => {
            random.of(&["1", "(1", "2", "(2", "-inf", "+inf", "(3.5", "0", "x", "(x"]).to_owned()
        }
        "$x" => random.of(&["-", "+", "[m1", "(m1", "[m3", "(m5", "[", "m1", "["]).to_owned(),
        "$t" => random.of(&["99999999999000", "88888888888000", "1000", "-5"]).to_owned(),
        "$u" => random.of(&["99999999999000", "88888888888000", "0", "-5", "x"]).to_owned(),
        "$c" => random.of(&["0", "1", "2", "3", "5", "-1", "x"]).to_owned(),
        "$p" => random.of(&["*", "k*", "?1", "[hl]*", "nope", "*[^0]"]).to_owned(),
        plain => plain.to_owned(),
    }
}

fn commands(random: &mut Random, templates: &[&str], count: usize) -> Vec<Words> {
    (0..count)
        .map(|_| {
            let words = random.of(templates).split(' ');
            words.map(|template| word(random, template).into_bytes()).collect()
        })
        .collect()
}

fn compare(seed: u64, count: usize, resp3: bool) {
    let Some(mut redis) = Redis::start(resp3) else {
        eprintln!("skipped: there is no redis-server here");
        return;
    };
    let templates: Vec<&str> = TEMPLATES.split(['|', '\n']).collect();
    let mut random = Random(seed);
    let (mut done, mut different) = (0, BTreeSet::new());
    while done < count && different.len() < SHOWN {
        let mut episode = commands(&mut random, &templates, EPISODE);
        done += episode.len();
        while let Some((at, ..)) = difference(&mut redis, &episode) {
            // Each command is shown once.
            if different.insert(episode[at][0].clone()) {
                show(&mut redis, episode[..=at].to_vec());
            }
            episode.remove(at);
        }
    }
    println!("{done} commands of seed {seed}");
    let names: Vec<_> = different.iter().map(|name| String::from_utf8_lossy(name)).collect();
    assert!(names.is_empty(), "replies to {names:?} differ");
}

/// Prints the shortest sequence found in which a reply differs.
fn show(redis: &mut Redis, commands: Vec<Words>) {
    let fewer = shrink(redis, commands);
    let Some((_, ours, theirs)) = difference(redis, &fewer) else { return };
    println!("a difference:");
    for words in &fewer {
        let words = words.iter().map(|word| format!("{:?}", String::from_utf8_lossy(word)));
        println!("    {}", words.collect::<Vec<_>>().join(" "));
    }
    println!("  ours:    {ours:?}\n  Redis's: {theirs:?}");
}

#[test]
fn replies_are_those_of_redis() {
    compare(1, 10_000, false);
}

#[test]
fn replies_in_resp3_are_those_of_redis() {
    compare(2, 10_000, true);
}

/// As many as an environment variable says, from its seed: a minute for 200,000.
#[test]
#[ignore = "long; HYBSTER_DIFFERENTIAL=COMMANDS,SEED chooses"]
fn many_replies_are_those_of_redis() {
    let text = std::env::var("HYBSTER_DIFFERENTIAL").unwrap_or_else(|_| "200000,3".into());
    let (count, seed) = text.split_once(',').expect("COMMANDS,SEED");
    let (count, seed): (usize, u64) = (count.parse().unwrap(), seed.parse().unwrap());
    compare(seed, count / 2, false);
    compare(seed.wrapping_add(1), count / 2, true);
}
