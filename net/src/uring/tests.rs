use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A transport; `None`, and no test, where the system has no `io_uring`.
fn transport(limits: UringLimits) -> Option<UringTransport> {
    match UringTransport::new(limits) {
        Ok(transport) => Some(transport),
        Err(error) => {
            eprintln!("not tested: {error}");
            None
        }
    }
}

fn small() -> UringLimits {
    UringLimits {
        submissions: 2,
        completions: 4,
        buffers: 2,
        buffer_bytes: 512,
        ..UringLimits::default()
    }
}

fn listen(transport: &mut UringTransport) -> SocketAddr {
    transport.listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().1
}

fn until(
    transport: &mut UringTransport,
    completions: &mut Vec<Completion>,
    mut done: impl FnMut(&[Completion]) -> bool,
) {
    let start = Instant::now();
    while !done(completions) {
        assert!(start.elapsed() < PATIENCE, "never, after {} completions", completions.len());
        transport.poll(Some(Duration::from_millis(5)), completions).unwrap();
    }
}

fn accepted(completions: &[Completion]) -> Vec<ConnectionId> {
    let id = |it: &Completion| match it {
        Completion::Accepted { connection, .. } => Some(*connection),
        _ => None,
    };
    completions.iter().filter_map(id).collect()
}

fn received(completions: &[Completion], from: ConnectionId) -> Vec<u8> {
    let mut all = Vec::new();
    for completion in completions {
        if let Completion::Received { connection, data } = completion
            && *connection == from
        {
            all.extend_from_slice(data);
        }
    }
    all
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + seed) as u8).collect()
}

/// Two entries to submit with, four results and two buffers of 512 bytes for eight connections.
#[test]
fn rings_that_are_far_too_small_lose_nothing() {
    let Some(mut transport) = transport(small()) else { return };
    let address = listen(&mut transport);
    let mut streams: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 8);
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&pattern(50_000, index)).unwrap();
    }
    let ids = accepted(&seen);
    let all = |seen: &[Completion]| ids.iter().all(|id| received(seen, *id).len() == 50_000);
    until(&mut transport, &mut seen, all);
    let local = |stream: &TcpStream| stream.local_addr().unwrap();
    for completion in &seen {
        let Completion::Accepted { connection, address, .. } = completion else { continue };
        let index = streams.iter().position(|stream| local(stream) == *address).unwrap();
        assert!(received(&seen, *connection) == pattern(50_000, index));
    }
    // Far more sends than fit a submission, answered on all connections in one poll.
    for id in &ids {
        (0..100).for_each(|part| transport.send(*id, pattern(1000, part)));
    }
    seen.clear();
    let sent = |it: &&Completion| matches!(it, Completion::Sent { .. });
    until(&mut transport, &mut seen, |seen| seen.iter().filter(sent).count() == 800);
    let expected: Vec<u8> = (0..100).flat_map(|part| pattern(1000, part)).collect();
    for stream in &mut streams {
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer == expected);
    }
}

#[test]
fn what_a_full_socket_does_not_take_goes_out_in_order_later() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let address = listen(&mut transport);
    let mut stream = TcpStream::connect(address).unwrap();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 1);
    let id = accepted(&seen)[0];
    let parts: Vec<Vec<u8>> = (0..200).map(|part| pattern(100_003, part)).collect();
    parts.iter().for_each(|part| transport.send(id, part.clone()));
    for _ in 0..20 {
        transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
    }
    let sent = |it: &&Completion| matches!(it, Completion::Sent { .. });
    assert!(seen.iter().filter(sent).count() < 200, "the socket took 20 MB at once");
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    until(&mut transport, &mut seen, |seen| seen.iter().filter(sent).count() == 200);
    transport.close(id);
    transport.poll(Some(Duration::ZERO), &mut seen).unwrap();
    assert!(reader.join().unwrap() == parts.concat());
}

#[test]
fn a_transport_that_moves_between_threads_loses_nothing() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let address = listen(&mut transport);
    let mut stream = TcpStream::connect(address).unwrap();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 1);
    let id = accepted(&seen)[0];
    let mut expected = Vec::new();
    for round in 0..20 {
        // Some of it arrives while the receive is armed in the ring of the thread before.
        let part = pattern(3000, round);
        stream.write_all(&part).unwrap();
        expected.extend_from_slice(&part);
        let moved = thread::spawn(move || {
            let length = expected.len();
            until(&mut transport, &mut seen, |seen| received(seen, id).len() == length);
            transport.send(id, vec![round as u8]);
            transport.poll(Some(Duration::ZERO), &mut seen).unwrap();
            (transport, seen, expected)
        });
        (transport, seen, expected) = moved.join().unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(usize::from(answer[0]), round);
    }
    assert!(received(&seen, id) == expected);
    // A new connection is accepted in the ring of yet another thread, and its waker works there.
    let other = TcpStream::connect(address).unwrap();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 2);
    let waker = transport.waker();
    let start = Instant::now();
    let target = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        waker.wake();
    });
    transport.poll(Some(PATIENCE), &mut seen).unwrap();
    assert!(start.elapsed() < PATIENCE / 2);
    target.join().unwrap();
    drop(other);
}

#[test]
fn a_paused_connection_is_silent_and_then_says_everything() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let address = listen(&mut transport);
    let mut stream = TcpStream::connect(address).unwrap();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 1);
    let id = accepted(&seen)[0];
    let mut expected = Vec::new();
    for round in 0..30 {
        transport.pause_reading(id, true);
        let part = pattern(2000, round);
        stream.write_all(&part).unwrap();
        for _ in 0..3 {
            transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
        }
        assert!(received(&seen, id) == expected);
        expected.extend_from_slice(&part);
        transport.pause_reading(id, false);
        // Paused and resumed again before a poll.
        transport.pause_reading(id, true);
        transport.pause_reading(id, false);
        until(&mut transport, &mut seen, |seen| received(seen, id).len() == expected.len());
    }
    drop(stream);
    until(&mut transport, &mut seen, |seen| {
        seen.iter()
            .any(|it| matches!(it, Completion::Closed { connection, .. } if *connection == id))
    });
}

#[test]
fn a_connection_that_cannot_be_made_says_so() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let id = transport.connect(free);
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| {
        seen.iter().any(
            |it| matches!(it, Completion::ConnectFailed { connection, .. } if *connection == id),
        )
    });
}

#[test]
fn a_dropped_transport_leaves_no_port_and_no_connection() {
    for elsewhere in [false, true] {
        let Some(mut transport) = transport(UringLimits::default()) else { return };
        let address = listen(&mut transport);
        let mut stream = TcpStream::connect(address).unwrap();
        until(&mut transport, &mut Vec::new(), |seen| accepted(seen).len() == 1);
        if elsewhere {
            thread::spawn(move || drop(transport)).join().unwrap();
        } else {
            drop(transport);
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
        let start = Instant::now();
        // On another thread the kernel may need a moment to let go.
        while let Err(error) = std::net::TcpListener::bind(address) {
            assert!(elsewhere && start.elapsed() < PATIENCE, "{error}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn timeouts_are_kept_while_they_shrink_and_grow() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let mut seen = Vec::new();
    for milliseconds in [200, 5, 30, 1, 10] {
        let timeout = Duration::from_millis(milliseconds);
        let start = Instant::now();
        transport.poll(Some(timeout), &mut seen).unwrap();
        // Early is allowed, late is not (but for a machine that is busy otherwise).
        assert!(start.elapsed() < timeout + Duration::from_secs(5));
    }
    assert!(seen.is_empty());
    // It sleeps: a second of waiting takes a few system calls.
    let (start, before) = (Instant::now(), transport.system_calls());
    while start.elapsed() < Duration::from_secs(1) {
        let left = Duration::from_secs(1).saturating_sub(start.elapsed());
        transport.poll(Some(left), &mut seen).unwrap();
    }
    assert!(transport.system_calls() - before < 20);
}

/// More than the kernel takes from a socket at a stretch, 32 buffers, and then a reset: the receive
/// takes the rest when it is woken for both, and is not woken any more.
#[test]
fn a_reset_behind_much_data_is_seen() {
    let limits = UringLimits { buffer_bytes: 512, ..UringLimits::default() };
    let Some(mut transport) = transport(limits) else { return };
    let address = listen(&mut transport);
    for buffers in 1..=64 {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut seen = Vec::new();
        until(&mut transport, &mut seen, |seen| accepted(seen).len() == 1);
        let id = accepted(&seen)[0];
        transport.pause_reading(id, true);
        for _ in 0..4 {
            transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
        }
        stream.write_all(&pattern(512 * buffers, buffers)).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        transport.pause_reading(id, false);
        let closed = |it: &Completion| matches!(it, Completion::Closed { .. });
        until(&mut transport, &mut seen, |seen| seen.iter().any(closed));
        assert!(received(&seen, id) == pattern(512 * buffers, buffers));
    }
}

/// Connections that always have more waiting than there are receive buffers, and one that has a word.
#[test]
fn a_flood_does_not_keep_others_from_being_read() {
    let limits = UringLimits { buffer_bytes: 512, buffers: 4, ..UringLimits::default() };
    let Some(mut transport) = transport(limits) else { return };
    let address = listen(&mut transport);
    let mut seen = Vec::new();
    let mut streams = Vec::new();
    for count in 1..=3 {
        streams.push(TcpStream::connect(address).unwrap());
        until(&mut transport, &mut seen, |seen| accepted(seen).len() == count);
    }
    let quiet = accepted(&seen)[2];
    for stream in &streams[..2] {
        stream.set_nonblocking(true).unwrap();
    }
    let flood = |streams: &mut [TcpStream]| {
        for stream in &mut streams[..2] {
            while matches!(stream.write(&[7; 4096]), Ok(1..)) {}
        }
    };
    for word in 1..=20 {
        flood(&mut streams);
        transport.poll(Some(Duration::ZERO), &mut seen).unwrap();
        streams[2].write_all(b"word").unwrap();
        let mut polls = 0;
        while received(&seen, quiet).len() < 4 * word {
            polls += 1;
            assert!(polls <= 20, "word {word} is not read");
            flood(&mut streams);
            transport.poll(Some(Duration::ZERO), &mut seen).unwrap();
        }
    }
}

/// Polls as its owner does after an error: what does it say, and what does it claim to have sent?
fn poll_on(transport: &mut UringTransport) -> Vec<Completion> {
    let mut seen = Vec::new();
    for _ in 0..5 {
        transport.poll(Some(Duration::ZERO), &mut seen).unwrap_err();
    }
    seen
}

#[test]
fn a_transport_is_dead_after_its_first_error() {
    let Some(mut transport) = transport(UringLimits::default()) else { return };
    let address = listen(&mut transport);
    let mut stream = TcpStream::connect(address).unwrap();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 1);
    let id = accepted(&seen)[0];
    // A part of it is sent, and the rest waits for room.
    transport.send(id, pattern(20_000_000, 1));
    stream.set_nonblocking(true).unwrap();
    transport.poll(Some(Duration::ZERO), &mut seen).unwrap();
    let start = Instant::now();
    while transport.unsent.is_empty() {
        assert!(start.elapsed() < PATIENCE, "there is never room again");
        let _ = stream.read(&mut [0; 65536]);
        transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
    }
    transport.ring.fail_next = Some(libc::EIO);
    let mut seen = Vec::new();
    let error = transport.poll(Some(Duration::ZERO), &mut seen).unwrap_err();
    assert!(error.to_string().contains("io_uring"), "{error}");
    // Shorter than what had been sent of the one before it.
    transport.send(id, vec![1; 10]);
    let later = poll_on(&mut transport);
    assert!(seen.is_empty() && later.is_empty(), "{seen:?} {later:?}");
    transport.close(id);
}

/// The third send does not fit the queue of submissions, which cannot be submitted.
#[test]
fn what_was_not_submitted_is_not_called_sent() {
    let Some(mut transport) = transport(small()) else { return };
    let address = listen(&mut transport);
    let streams: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut seen = Vec::new();
    until(&mut transport, &mut seen, |seen| accepted(seen).len() == 3);
    for _ in 0..5 {
        transport.poll(Some(Duration::from_millis(1)), &mut seen).unwrap();
    }
    for id in accepted(&seen) {
        transport.send(id, vec![7; 100]);
    }
    transport.ring.fail_next = Some(libc::EIO);
    seen.clear();
    transport.poll(Some(Duration::ZERO), &mut seen).unwrap_err();
    let later = poll_on(&mut transport);
    assert!(seen.is_empty() && later.is_empty(), "{seen:?} {later:?}");
    drop(transport);
    for mut stream in streams {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert_eq!(all, [], "went out after the error");
    }
}

/// By then, another file may have the number of the descriptor.
#[test]
fn what_a_failed_call_left_in_the_ring_never_goes_out() {
    if transport(small()).is_none() {
        return;
    }
    let mut ring = Ring::new(&small()).unwrap();
    let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
    there.set_nonblocking(true).unwrap();
    let (mut blocks, mut events) = (Blocks::new(4096, 1), Vec::new());
    ring.receive(here.as_fd(), Token(1)).unwrap();
    ring.enter(None, &mut blocks, &mut events).unwrap();
    ring.send(here.as_fd(), Token(1), VecDeque::from([b"stale".to_vec()]), 0).unwrap();
    ring.fail_next = Some(libc::EIO);
    ring.enter(None, &mut blocks, &mut events).unwrap_err();
    drop(ring);
    let read = there.read(&mut [0; 16]).map_err(|error| error.kind());
    assert_eq!(read, Err(io::ErrorKind::WouldBlock));
}

/// As the kernel does when it has no memory for the poll: the watch ends, the connection goes on.
#[test]
fn an_error_of_the_watch_is_no_hang_up() {
    if transport(small()).is_none() {
        return;
    }
    let mut ring = Ring::new(&small()).unwrap();
    let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
    let (mut blocks, mut events) = (Blocks::new(4096, 1), Vec::new());
    ring.when_hung_up(here.as_fd(), Token(1)).unwrap();
    ring.enter(None, &mut blocks, &mut events).unwrap();
    ring.cancel(Token(1)).unwrap();
    let start = Instant::now();
    while events.is_empty() {
        assert!(start.elapsed() < PATIENCE, "the cancelled watch reports nothing");
        ring.enter(None, &mut blocks, &mut events).unwrap();
    }
    assert!(matches!(events[..], [Event::Unwatched { token: Token(1) }]), "{events:?}");
}
