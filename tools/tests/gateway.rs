//! Redis clients before a group of real processes.

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use harness::{Group, PATIENCE, eventually, free_addresses};
use rustix::process::Signal;

fn ask(redis: &mut BufReader<TcpStream>, line: &str) -> String {
    redis.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    redis.read_line(&mut reply).unwrap();
    if reply.starts_with('$') && reply != "$-1\r\n" {
        reply.clear();
        redis.read_line(&mut reply).unwrap();
    }
    reply.trim_end().to_owned()
}

fn connect(address: &str) -> BufReader<TcpStream> {
    let socket = eventually("the gateway listens", || TcpStream::connect(address).ok());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(socket)
}

#[test]
fn redis_clients_use_a_group_through_several_gateways_and_over_the_loss_of_one_and_of_a_replica() {
    let mut group = Group::init(&["--service", "redis", "--clients", "2"]);
    let path = group.path();
    for id in 0..3 {
        group.start_replica_with(id, &path, &["--service", "redis"]);
    }
    let addresses: Vec<String> = free_addresses(2).iter().map(ToString::to_string).collect();
    let mut gateways: Vec<_> = (0..2)
        .map(|client| {
            group.start_gateway(&["--client", &client.to_string(), "--listen", &addresses[client]])
        })
        .collect();
    let (mut one, mut other) = (connect(&addresses[0]), connect(&addresses[1]));
    assert_eq!(ask(&mut one, "SET greeting hello"), "+OK");
    assert_eq!(ask(&mut other, "GET greeting"), "hello");
    assert_eq!(ask(&mut other, "INCR hits"), ":1");

    // A replica and a gateway are killed. Whoever was connected there connects to another.
    group.kill(0);
    assert_eq!(ask(&mut one, "INCR hits"), ":2");
    drop(gateways.pop());
    assert_eq!(other.read_line(&mut String::new()).unwrap_or(0), 0, "the connection is closed");
    let mut other = connect(&addresses[0]);
    assert_eq!(ask(&mut other, "INCR hits"), ":3");

    let mut gateway = gateways.pop().unwrap();
    gateway.signal(Signal::TERM);
    assert!(gateway.wait().success());
}
