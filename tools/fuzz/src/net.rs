//! Frames, links and handshakes.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use hybster_net::frame::{self, FrameReader, Messages};
use hybster_net::handshake::{HandshakeConfig, Handshaker, Progress, fuzz_plaintext};
use hybster_net::link::Link;
use hybster_net::{Identity, KeyRing, LinkCipher, StaticKey};

use super::{Choices, joined};

const LIMIT: u32 = 4096;

/// A byte stream, cut anywhere, gives the same frames as in one piece; payloads give lists.
pub fn frames(data: &[u8]) {
    let mut choices = Choices(data);
    let cut = 1 + choices.below(64);
    let mut whole = FrameReader::new(LIMIT);
    whole.push(BytesMut::from(choices.0));
    let mut pieces = FrameReader::new(LIMIT);
    let mut chunks = choices.0.chunks(cut);
    loop {
        let expected = whole.next_frame();
        let found = loop {
            match pieces.next_frame() {
                Ok(None) => match chunks.next() {
                    Some(chunk) => pieces.push(BytesMut::from(chunk)),
                    None => break Ok(None),
                },
                found => break found,
            }
        };
        assert_eq!(expected, found);
        let Ok(Some(frame)) = expected else { return };
        messages(&frame.freeze().slice(frame::HEADER_BYTES..));
    }
}

fn messages(payload: &Bytes) {
    let Ok(list) = Messages::parse(payload.clone()) else { return };
    let mut again = Vec::new();
    list.iter().for_each(|message| frame::push_message(&mut again, message));
    assert_eq!(again, *payload);
    assert_eq!(list.iter().count(), list.len());
    assert!(list.iter().map(|message| list.slice(message)).eq(list.clone()));
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let frame = |messages: &[&[u8]]| {
        let mut payload = Vec::new();
        messages.iter().for_each(|message| frame::push_message(&mut payload, message));
        [&frame::header(payload.len())[..], &payload, &[9; 16]].concat()
    };
    let two = [frame(&[b"one", b""]), frame(&[])].concat();
    vec![[&[6][..], &two].concat(), [&[63][..], &frame(&[&[7; 300]])].concat()]
}

/// A link returns only what was sealed, in order, however it was changed in transit.
pub fn link(data: &[u8]) {
    let mut choices = Choices(data);
    let cipher = LinkCipher::ALL[choices.below(LinkCipher::ALL.len())];
    let mut sender = Link::new(cipher, &[1; 32], &[2; 32], LIMIT);
    let mut receiver = Link::new(cipher, &[2; 32], &[1; 32], LIMIT);
    let mut wire = Vec::new();
    let count = 1 + choices.below(4);
    let sealed: Vec<Vec<u8>> = (0..count).map(|at| vec![at as u8; choices.below(80)]).collect();
    for payload in &sealed {
        sender.sealer.seal_slices(&mut wire, &[payload]).expect("counters are left");
    }
    let cut = 1 + choices.below(64);
    while !choices.is_empty() {
        let at = usize::from(choices.short()) % wire.len();
        match choices.byte() {
            0 => {
                wire.remove(at);
            }
            1 => wire.insert(at, choices.byte()),
            2 => wire.extend_from_within(at..),
            mask => wire[at] ^= mask,
        }
        if wire.is_empty() {
            return;
        }
    }
    let mut opened = Vec::new();
    for chunk in wire.chunks(cut) {
        receiver.opener.push(BytesMut::from(chunk));
        loop {
            match receiver.opener.open() {
                Ok(Some(payload)) => opened.push(payload.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    assert!(sealed.starts_with(&opened));
                    return;
                }
            }
        }
    }
    assert!(sealed.starts_with(&opened));
}

pub fn link_seeds() -> Vec<Vec<u8>> {
    vec![vec![0, 3, 10, 20, 30, 40, 7], vec![1, 1, 79, 0, 63, 5, 0, 4], vec![2, 0, 3, 9, 1, 0, 2]]
}

/// The messages of a peer inside TLS.
pub fn hello(data: &[u8]) {
    fuzz_plaintext(data);
}

pub fn hello_seeds() -> Vec<Vec<u8>> {
    let mut hello = b"HYBN\x05\x00\x41\x00".to_vec();
    hello.extend_from_slice(&[1, 7, 0, 0, 0, 1, 4, 0, 0, 0, 16, 0, 99, 0, 0, 0, 0, 0, 0, 0]);
    hello.extend_from_slice(&[5; 32]);
    hello.extend_from_slice(b"\x03\x00\x00\x00\x02\x00\x00\x00\x04bank");
    vec![hello, vec![0, 0, 0], b"\x03\x04\x00full".to_vec()]
}

fn handshaker(identity: Identity) -> Handshaker {
    let key = |identity: Identity| match identity {
        Identity::Replica(id) => StaticKey::from_seed(&[id as u8 + 1; 32]),
        Identity::Client(id) => StaticKey::from_seed(&[id as u8 + 100; 32]),
    };
    let mut ring = KeyRing::new();
    for identity in [Identity::Replica(0), Identity::Client(1)] {
        ring.add(identity, key(identity).public()).expect("the keys differ");
    }
    let config = HandshakeConfig {
        identity,
        key: key(identity),
        keyring: Arc::new(ring),
        group_digest: [3; 32],
        pillars: 2,
        incarnation: 5,
        application: None,
        cipher: LinkCipher::Gmac,
        peer_frame_bytes: LIMIT,
        client_frame_bytes: LIMIT,
        handshake_bytes: 32 << 10,
    };
    Handshaker::new(config).expect("the key is good")
}

fn acceptor() -> &'static Handshaker {
    static ACCEPTOR: OnceLock<Handshaker> = OnceLock::new();
    ACCEPTOR.get_or_init(|| handshaker(Identity::Replica(0)))
}

/// Bytes from a stranger, cut into pieces: no link comes of them.
pub fn handshake(data: &[u8]) {
    let mut handshake = acceptor().accept().expect("TLS starts");
    let (mut received, mut out) = (BytesMut::new(), Vec::new());
    for piece in Choices(data).pieces() {
        received.extend_from_slice(piece);
        match handshake.receive(&mut received, &mut out) {
            Ok(Progress::Pending) => {}
            Ok(progress) => panic!("a stranger got as far as {progress:?}"),
            Err(_) => return,
        }
    }
}

pub fn handshake_seeds() -> Vec<Vec<u8>> {
    let mut connector = handshaker(Identity::Client(1));
    let mut connecting = connector.connect(Identity::Replica(0)).expect("the key is known");
    let (mut nothing, mut out) = (BytesMut::new(), Vec::new());
    let _ = connecting.receive(&mut nothing, &mut out);
    let (first, rest) = out.split_at(40);
    vec![joined(&[&out]), joined(&[first, rest, b"\x17\x03\x03\x00\x02ab"]), joined(&[b"GET /"])]
}
