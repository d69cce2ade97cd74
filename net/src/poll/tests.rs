//! The transport over real sockets, where the system refuses.

use super::*;

/// Not by using up the descriptors of the test's process, which other tests need too.
#[test]
fn after_a_refusal_of_the_system_it_waits_and_then_accepts() {
    let limits = PollLimits { accept_pause: Duration::from_millis(50), ..PollLimits::default() };
    let mut transport = PollTransport::new(limits).unwrap();
    let (_, address) = transport.listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let _stream = std::net::TcpStream::connect(address).unwrap();
    transport.fail_accept = Some(24);
    let mut seen = Vec::new();
    let (mut polls, start) = (0, Instant::now());
    while !seen.iter().any(|it| matches!(it, Completion::Accepted { .. })) {
        assert!(start.elapsed() < Duration::from_secs(20), "never accepted: {seen:?}");
        polls += 1;
        transport.poll(None, &mut seen).unwrap();
    }
    assert!(matches!(seen[0], Completion::AcceptFailed { .. }), "{seen:?}");
    assert!(seen.len() == 2 && polls <= 4, "{polls} polls: {seen:?}");
}

#[test]
fn a_transport_is_dead_after_its_first_error() {
    let mut transport = PollTransport::new(PollLimits::default()).unwrap();
    let (_, address) = transport.listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let mut seen = Vec::new();
    let id = transport.connect(address);
    for _ in 0..10_000 {
        transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(seen.len(), 2, "connected and accepted: {seen:?}");
    transport.fail_next = Some(io::ErrorKind::OutOfMemory);
    seen.clear();
    let first = transport.poll(Some(Duration::ZERO), &mut seen).unwrap_err();
    transport.send(id, vec![1; 10]);
    for _ in 0..5 {
        let again = transport.poll(Some(Duration::ZERO), &mut seen).unwrap_err();
        assert_eq!(again.to_string(), first.to_string());
    }
    assert!(seen.is_empty(), "{seen:?}");
    transport.close(id);
}
