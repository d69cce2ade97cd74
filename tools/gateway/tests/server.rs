//! A gateway before a group in this process, spoken to over raw sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use hybster::testing::LocalCluster;
use hybster_gateway::{Gateway, GatewayOptions, GatewayStopper, RedisService};

/// Much longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    stopper: GatewayStopper,
    thread: Option<JoinHandle<()>>,
    cluster: LocalCluster,
}

impl Served {
    fn start(options: GatewayOptions) -> Self {
        let cluster = LocalCluster::start(RedisService::new).unwrap();
        let client = cluster.client().unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let mut gateway = Gateway::listen(cluster.group(), client, address, options).unwrap();
        let (address, stopper) = (gateway.local_address(), gateway.stopper());
        let thread = Some(std::thread::spawn(move || gateway.run().unwrap()));
        Self { address, stopper, thread, cluster }
    }

    fn connect(&self) -> Redis {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Redis(socket)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Redis(TcpStream);

impl Redis {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    #[track_caller]
    fn gets(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let mut length = 0;
        while length < bytes.len() && expected.as_bytes().starts_with(&bytes[..length]) {
            match self.0.read(&mut bytes[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                // A read with a time limit is not begun again by the system.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(String::from_utf8_lossy(&bytes[..length]), expected);
    }

    /// A line of words, and its reply.
    #[track_caller]
    fn says(&mut self, line: &str, expected: &str) {
        self.send(format!("{line}\r\n").as_bytes());
        self.gets(expected);
    }

    #[track_caller]
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[test]
fn pipelines_are_answered_in_their_order_and_survive_the_loss_of_the_leader() {
    let mut served = Served::start(GatewayOptions::default());
    let mut redis = served.connect();
    let (mut requests, mut replies) = (String::new(), String::new());
    for number in 1..=3000 {
        requests += "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
        replies += &format!(":{number}\r\n");
        if number % 100 == 0 {
            requests += "PING\r\nGET n\r\nSELECT 0\r\nNOPE\r\n";
            let text = number.to_string();
            replies += &format!(
                "+PONG\r\n${}\r\n{text}\r\n+OK\r\n\
                 -ERR unknown command 'NOPE', with args beginning with: \r\n",
                text.len()
            );
        }
    }
    redis.send(requests.as_bytes());
    redis.gets(&replies);
    let leader = served.cluster.leader();
    served.cluster.stop(leader).unwrap();
    redis.says("INCR n", ":3001\r\n");
    served.connect().says("GET n", "$4\r\n3001\r\n");
}

#[test]
fn connections_choose_their_protocol_and_database() {
    let served = Served::start(GatewayOptions::default());
    let (mut old, mut new) = (served.connect(), served.connect());
    old.says("HSET h f v", ":1\r\n");
    old.says("HGETALL h", "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    new.says("HELLO 4", "-NOPROTO unsupported protocol version\r\n");
    new.says("HELLO 3", "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    new.gets("$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:2\r\n");
    new.gets(
        "$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
    );
    new.says("HGETALL h", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    new.says("SELECT 1", "+OK\r\n");
    new.says("EXISTS h", ":0\r\n");
    new.says("CLIENT SETNAME me", "+OK\r\n");
    new.says("CLIENT GETNAME", "$2\r\nme\r\n");
    new.says("CONFIG GET save", "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    new.says("QUIT", "+OK\r\n");
    new.is_closed();
}

#[test]
fn transactions_are_all_or_nothing() {
    let served = Served::start(GatewayOptions::default());
    let (mut one, mut other) = (served.connect(), served.connect());
    one.says("SET k 1", "+OK\r\n");
    one.says("WATCH k", "+OK\r\n");
    one.says("MULTI", "+OK\r\n");
    one.says("INCR k", "+QUEUED\r\n");
    one.says("EXEC", "*1\r\n:2\r\n");
    one.says("WATCH k", "+OK\r\n");
    other.says("SET k 9", "+OK\r\n");
    one.says("MULTI", "+OK\r\n");
    one.says("INCR k", "+QUEUED\r\n");
    one.says("EXEC", "*-1\r\n");
    one.says("GET k", "$1\r\n9\r\n");
    one.says("MULTI", "+OK\r\n");
    one.says("INCR", "-ERR wrong number of arguments for 'incr' command\r\n");
    one.says("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    one.says("EXEC", "-ERR EXEC without MULTI\r\n");
    one.send(b"MULTI\r\nSELECT 2\r\nSET k two\r\nEXEC\r\nGET k\r\n");
    one.gets("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n$3\r\ntwo\r\n");
    other.says("GET k", "$1\r\n9\r\n");
    // What is watched is kept here, so its bytes are bounded, not its number alone.
    let watch = |key: &[u8]| [b"*2\r\n$5\r\nWATCH\r\n$40000\r\n", key, b"\r\n"].concat();
    one.send(&watch(&[b'a'; 40_000]));
    one.gets("+OK\r\n");
    one.send(&watch(&[b'b'; 40_000]));
    one.gets("-ERR too many keys are watched\r\n");
    one.says("UNWATCH", "+OK\r\n");
}

#[test]
fn whoever_waits_for_an_element_gets_it_in_turn() {
    let served = Served::start(GatewayOptions::default());
    let (mut first, mut second, mut third) = (served.connect(), served.connect(), served.connect());
    first.send(b"BLPOP q other 0\r\nPING\r\n");
    // The first waits when the second begins: its wait of a moment ends meanwhile.
    second.says("BLPOP nothing 0.05", "*-1\r\n");
    second.send(b"BLMOVE q kept LEFT RIGHT 0\r\n");
    third.says("BLPOP nothing 0.05", "*-1\r\n");
    third.says("RPUSH q a b c", ":3\r\n");
    first.gets("*2\r\n$1\r\nq\r\n$1\r\na\r\n+PONG\r\n");
    second.gets("$1\r\nb\r\n");
    third.says("LRANGE q 0 -1", "*1\r\n$1\r\nc\r\n");
    third.says("BRPOP q 1", "*2\r\n$1\r\nq\r\n$1\r\nc\r\n");
    third.says("BLPOP q x", "-ERR timeout is not a float or out of range\r\n");
}

#[test]
fn messages_reach_those_who_are_subscribed() {
    let served = Served::start(GatewayOptions::default());
    let (mut one, mut other) = (served.connect(), served.connect());
    one.says("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    one.says("PSUBSCRIBE n*", "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:2\r\n");
    one.says(
        "GET k",
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context\r\n",
    );
    other.says("PUBLISH news hi", ":2\r\n");
    one.gets("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    one.gets("*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    one.says("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    other.says("PUBLISH old hi", ":0\r\n");
    drop(one);
}

#[test]
fn bad_input_ends_its_connection_and_no_other() {
    let served = Served::start(GatewayOptions { max_connections: 4, ..GatewayOptions::default() });
    let mut good = served.connect();
    good.says("SET k v", "+OK\r\n");
    let mut huge = served.connect();
    huge.says("SET k v", "+OK\r\n");
    huge.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4294967296\r\n");
    huge.gets("-ERR Protocol error: invalid bulk length\r\n");
    huge.is_closed();
    let mut nested = served.connect();
    nested.send(&b"*1\r\n".repeat(1000));
    nested.gets("-ERR Protocol error: expected '$', got '*'\r\n");
    drop(nested);
    // Half a request, which never becomes a whole one.
    let mut half = served.connect();
    half.send(b"*2\r\n$3\r\nGET\r\n$1\r\n");
    good.says("GET k", "$1\r\nv\r\n");
    half.send(b"k\r\n");
    half.gets("$1\r\nv\r\n");
    let mut more: Vec<Redis> = Vec::new();
    // Those that were closed are gone sooner or later.
    for _ in 0..5 {
        more.push(served.connect());
    }
    more[4].gets("-ERR max number of clients reached\r\n");
    more[4].is_closed();
    good.says("GET k", "$1\r\nv\r\n");
}

#[test]
fn whoever_does_not_read_its_replies_is_not_read() {
    let served = Served::start(GatewayOptions::default());
    let mut good = served.connect();
    let value = "x".repeat(100_000);
    good.says(&format!("SET k {}", &value[..60_000]), "+OK\r\n");
    let mut greedy = served.connect();
    greedy.0.set_nonblocking(true).unwrap();
    // Until the gateway and the system take no more: some hundred MB of replies were asked for by then.
    let requests = b"GET k\r\n".repeat(1000);
    let mut sent = 0;
    let mut refused = 0;
    while refused < 50 && sent < 64 << 20 {
        match greedy.0.write(&requests[sent % 7..]) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    assert!(sent < 64 << 20, "it is not read any more");
    good.says("PING", "+PONG\r\n");
    good.says("STRLEN k", ":60000\r\n");
}

#[test]
fn a_password_comes_before_everything() {
    let password = Some("secret".to_owned());
    let served = Served::start(GatewayOptions { password, ..GatewayOptions::default() });
    let mut redis = served.connect();
    redis.says("GET k", "-NOAUTH Authentication required.\r\n");
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    redis.says("AUTH secre", wrong);
    redis.says("AUTH somebody secret", wrong);
    redis.says("AUTH default secret", "+OK\r\n");
    redis.says("GET k", "$-1\r\n");
}
