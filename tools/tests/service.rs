//! A replica as a service of a host: what its manager is told, and its log while it runs.

mod harness;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use harness::{Group, PATIENCE, eventually};
use rustix::process::Signal;

#[test]
fn the_service_manager_is_told_of_readiness_life_and_the_end() {
    let mut group = Group::init(&[]);
    let path = group.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let count = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    group.start_replica_changed(0, &[], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    assert_eq!(next(), format!("READY=1\nSTATUS=replica 0 listens on {}", group.addresses[0]));
    assert_eq!(next(), "WATCHDOG=1");
    assert_eq!(next(), "WATCHDOG=1");
    let process = group.replicas[0].as_mut().unwrap();
    process.signal(Signal::TERM);
    let last = (0..1000).map(|_| next()).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert!(process.wait().success());

    // A manager that is not there, or does not read, stops no replica.
    group.start_replica_changed(1, &[], |command| {
        command.env("NOTIFY_SOCKET", "/nowhere/to/be/found");
    });
    eventually("the log says so", || group.log(1).contains("NOTIFY_SOCKET").then_some(()));
}

#[test]
fn signals_change_the_level_of_the_log_and_set_it_back() {
    let mut group = Group::init(&[]);
    group.start_replica(0);
    let send = |group: &Group, signal| group.replicas[0].as_ref().unwrap().signal(signal);
    let logged = |group: &Group, text: &str| {
        eventually(text, || group.log(0).contains(text).then_some(()));
    };
    send(&group, Signal::USR1);
    logged(&group, "SIGUSR1: the log's level changes from info to debug");
    logged(&group, "DEBUG the log's level is debug");
    send(&group, Signal::USR1);
    logged(&group, "SIGUSR1: the log's level changes from debug to trace");
    send(&group, Signal::USR2);
    logged(&group, "SIGUSR2: the log's level changes from trace to info");
    assert!(!group.log(0).contains("the log's level is info"), "{}", group.log(0));
    group.start_replica(1);
    group.goes_on("two of three");
}

#[test]
fn log_lines_have_a_date_and_tell_of_a_link_once() {
    let mut group = Group::start(&[]);
    group.goes_on("before");
    let about = |group: &Group, text: &str| {
        let log = group.log(0);
        log.lines().filter(|line| line.contains("link to replica 2") && line.contains(text)).count()
    };
    eventually("the link is up", || (about(&group, "is up") > 0).then_some(()));
    assert_eq!(about(&group, "is up"), 1, "{}", group.log(0));
    group.kill(2);
    eventually("the loss is logged", || (about(&group, "lost") > 0).then_some(()));
    // What would tell of it again came a moment later.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(about(&group, "lost") + about(&group, "is down"), 1, "{}", group.log(0));
    let log = group.log(0);
    for line in log.lines() {
        let time = line.split(' ').next().unwrap();
        let form: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(form, "0000-00-00T00:00:00.000Z", "{line}");
    }
}
