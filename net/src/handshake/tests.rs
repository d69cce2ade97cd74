//! Two handshakes against each other, in memory.

use super::*;

fn key(identity: Identity) -> StaticKey {
    let mut seed = [7; 32];
    match identity {
        Identity::Replica(id) => seed[..2].copy_from_slice(&id.to_le_bytes()),
        Identity::Client(id) => seed[28..].copy_from_slice(&id.to_le_bytes()),
    }
    StaticKey::from_seed(&seed)
}

fn ring(of: &[Identity]) -> Arc<KeyRing> {
    let mut ring = KeyRing::new();
    of.iter().for_each(|&identity| ring.add(identity, key(identity).public()).unwrap());
    Arc::new(ring)
}

const SERVER: Identity = Identity::Replica(0);
const PEER: Identity = Identity::Replica(1);
const CLIENT: Identity = Identity::Client(5);

fn config(identity: Identity) -> HandshakeConfig {
    HandshakeConfig {
        identity,
        key: key(identity),
        keyring: ring(&[SERVER, PEER, CLIENT]),
        group_digest: [3; 32],
        pillars: 4,
        application: None,
        incarnation: 42,
        cipher: LinkCipher::Gmac,
        peer_frame_bytes: 1 << 20,
        client_frame_bytes: 1 << 16,
        handshake_bytes: 32 << 10,
    }
}

type Outcome = Result<Box<Established>, HandshakeError>;

/// Runs both ends, `chunk` bytes at a time, until neither has anything to say.
fn run(
    connector: HandshakeConfig,
    acceptor: HandshakeConfig,
    chunk: usize,
) -> [Option<Outcome>; 2] {
    let connect = Handshaker::new(connector).unwrap().connect(SERVER).unwrap();
    let accept = Handshaker::new(acceptor).unwrap().accept().unwrap();
    let mut ends = [connect, accept];
    let mut wires = [BytesMut::new(), BytesMut::new()];
    let mut inputs = [BytesMut::new(), BytesMut::new()];
    let mut outcomes = [None, None];
    for _ in 0..20_000 {
        for side in 0..2 {
            if outcomes[side].is_some() {
                continue;
            }
            let count = chunk.min(wires[side].len());
            let arrived = wires[side].split_to(count);
            inputs[side].extend_from_slice(&arrived);
            let mut out = Vec::new();
            outcomes[side] = turn(&mut ends[side], &mut inputs[side], &mut out);
            wires[1 - side].extend_from_slice(&out);
        }
        if outcomes.iter().all(Option::is_some) {
            break;
        }
    }
    outcomes
}

fn turn(end: &mut Handshake, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Outcome> {
    loop {
        match end.receive(input, out) {
            Ok(Progress::Pending) => return None,
            Ok(Progress::Identified { .. }) => end.admit(),
            Ok(Progress::Established(established)) => return Some(Ok(established)),
            Err(error) => return Some(Err(error)),
        }
    }
}

fn errors(outcomes: [Option<Outcome>; 2]) -> [HandshakeError; 2] {
    outcomes.map(|outcome| outcome.expect("an end").expect_err("no link"))
}

#[test]
fn both_ends_get_the_same_link_whatever_the_chunks() {
    for chunk in [1, 7, 100_000] {
        let [a, b] = run(config(CLIENT), config(SERVER), chunk).map(|end| end.unwrap().unwrap());
        assert_eq!((a.peer, b.peer), (SERVER, CLIENT));
        assert_eq!((a.incarnation, b.incarnation), (42, 42));
        assert_eq!((a.send_frame_bytes, b.send_frame_bytes), (1 << 16, 1 << 16));
        let (mut a, mut b) = (a.link, b.link);
        let mut wire = Vec::new();
        a.sealer.seal_slices(&mut wire, &[b"hello"]).unwrap();
        b.opener.push(wire[..].into());
        assert_eq!(b.opener.open().unwrap().unwrap(), &b"hello"[..]);
        wire.clear();
        b.sealer.seal_slices(&mut wire, &[b"hello"]).unwrap();
        a.opener.push(wire[..].into());
        assert_eq!(a.opener.open().unwrap().unwrap(), &b"hello"[..]);
    }
}

#[test]
fn two_connections_never_have_the_same_keys() {
    let seal = || {
        let [a, _] = run(config(PEER), config(SERVER), 5000).map(|end| end.unwrap().unwrap());
        let mut wire = Vec::new();
        let mut link = a.link;
        link.sealer.seal_slices(&mut wire, &[b"same"]).unwrap();
        wire
    };
    assert_ne!(seal(), seal());
}

#[test]
fn another_group_configuration_is_named_on_both_sides() {
    let other = HandshakeConfig { group_digest: [9; 32], ..config(PEER) };
    let [a, b] = errors(run(other, config(SERVER), 5000));
    assert_eq!(
        (a.reason(), b.reason()),
        (Reason::ConfigurationMismatch, Reason::ConfigurationMismatch)
    );
    assert!(b.to_string().contains(
        "peer replica 1 runs another group configuration: digest 0909090909090909 there, \
         0303030303030303 here; distribute one group.toml to all"
    ));
    let other = HandshakeConfig { pillars: 2, ..config(PEER) };
    let [a, b] = errors(run(other, config(SERVER), 5000));
    assert_eq!(
        (a.reason(), b.reason()),
        (Reason::ConfigurationMismatch, Reason::ConfigurationMismatch)
    );
    let other = HandshakeConfig { cipher: LinkCipher::Blake3, ..config(PEER) };
    let [a, b] = errors(run(other, config(SERVER), 5000));
    assert_eq!((a.reason(), b.reason()), (Reason::CipherMismatch, Reason::CipherMismatch));
}

#[test]
fn another_service_is_named_on_both_sides() {
    let with = |name, version| Application::new(name, version, version).ok();
    let other = HandshakeConfig { application: with("kv", 1), ..config(PEER) };
    let own = HandshakeConfig { application: with("bank", 2), ..config(SERVER) };
    let [a, b] = errors(run(other, own, 5000));
    assert_eq!((a.reason(), b.reason()), (Reason::ServiceMismatch, Reason::ServiceMismatch));
    let text = b.to_string();
    assert!(
        text.contains("replica 1 runs the service kv version 1, bank version 2 here"),
        "{text}"
    );
}

#[test]
fn unknown_and_wrong_keys_are_named_on_both_sides() {
    let strict = HandshakeConfig { keyring: ring(&[SERVER]), ..config(SERVER) };
    let [a, b] = errors(run(config(CLIENT), strict, 5000));
    assert_eq!((a.reason(), b.reason()), (Reason::RefusedByPeer, Reason::UnknownKey));
    assert!(b.to_string().contains(&key(CLIENT).public().to_string()));
    assert!(a.to_string().contains("key ring"));
    // Somebody else, though known, answers at the address of replica 0.
    let [a, b] = errors(run(config(CLIENT), config(PEER), 5000));
    assert_eq!((a.reason(), b.reason()), (Reason::UnknownKey, Reason::RefusedByPeer));
}

#[test]
fn a_refusal_reaches_the_other_side() {
    let mut connect = Handshaker::new(config(CLIENT)).unwrap().connect(SERVER).unwrap();
    let mut accept = Handshaker::new(config(SERVER)).unwrap().accept().unwrap();
    let (mut to_a, mut to_b) = (BytesMut::new(), BytesMut::new());
    let error = loop {
        let mut out = Vec::new();
        match connect.receive(&mut to_a, &mut out) {
            Ok(Progress::Pending) => {}
            Ok(Progress::Identified { .. }) => connect.admit(),
            Ok(Progress::Established(_)) => panic!("a link"),
            Err(error) => break error,
        }
        to_b.extend_from_slice(&out);
        let mut out = Vec::new();
        if let Ok(Progress::Identified { .. }) = accept.receive(&mut to_b, &mut out) {
            accept.refuse(Reason::Capacity, "all 3 places are taken", &mut out);
        }
        to_a.extend_from_slice(&out);
    };
    assert_eq!(error.reason(), Reason::RefusedByPeer);
    assert!(error.to_string().contains("replica 0 refused the link (capacity): all 3 places"));
}

#[test]
fn garbage_is_refused_at_once_and_without_panic() {
    let inputs: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff],
        &[22, 3, 1, 0xff, 0xff],
        &[22, 9, 1, 0, 4],
        &[22, 3, 1, 0, 4, 9, 9, 9, 9],
    ];
    for input in inputs {
        let mut accept = Handshaker::new(config(SERVER)).unwrap().accept().unwrap();
        let mut out = Vec::new();
        let error = accept.receive(&mut BytesMut::from(input), &mut out).unwrap_err();
        assert!(matches!(error.reason(), Reason::Garbage | Reason::HandshakeFailed), "{error}");
        assert!(accept.receive(&mut BytesMut::from(input), &mut out).is_err());
    }
}

#[test]
fn a_handshake_that_never_ends_hits_its_limit() {
    let mut accept = Handshaker::new(config(SERVER)).unwrap().accept().unwrap();
    // One endless ClientHello, in records of 16 KiB.
    let mut data = BytesMut::from(&[22, 3, 1, 0x40, 0x00, 1, 0xff, 0xff, 0xff][..]);
    data.resize(5 + (1 << 14), 0);
    let mut outcomes = (0..4).map(|_| accept.receive(&mut data.clone(), &mut Vec::new()));
    assert!(outcomes.any(|outcome| outcome.is_err()));
}
