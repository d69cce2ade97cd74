use super::*;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, Peers, PillarId, View};
use crate::trace::{Counted, Held, Member, Phase, Proposal, Quorums, Step};
use crate::wire::CheckpointId;
use hybster_tss::Digest;

const FIXTURE: &[u8] = include_bytes!("../../../tests/fixtures/trace-v2.bin");
const FIXTURE_1: &[u8] = include_bytes!("../../../tests/fixtures/trace-v1.bin");

fn header() -> Header {
    let header = Header::new(Writer::Replica, &GroupConfig::default(), 1_700_000_000_000_000);
    Header { faulty: peers([2]), ..header }
}

fn peers<const N: usize>(ids: [u16; N]) -> Peers {
    ids.into_iter().map(ReplicaId).collect()
}

const PILLAR: PillarId = PillarId(1);
const VIEW: View = View(3);
const LAST: OrderNumber = OrderNumber(6);
const BATCH: Digest = Digest([0xbb; 32]);
const CHECKPOINT: CheckpointId =
    CheckpointId { order: OrderNumber(256), digest: Digest([0xcc; 32]) };
const PROPOSAL: Proposal = Proposal {
    first: OrderNumber(2),
    last: LAST,
    batch: BATCH,
    time_ms: 1_700_000_000_000,
    noop: false,
};
const NOOPS: Proposal =
    Proposal { first: OrderNumber(8), last: OrderNumber(12), batch: BATCH, time_ms: 0, noop: true };

fn every_event() -> Vec<TraceEvent> {
    let mut events = events_of_views();
    events.extend(events_of_orders());
    events
}

fn events_of_views() -> Vec<TraceEvent> {
    let (pillar, view, id, proposal) = (PILLAR, VIEW, CHECKPOINT, PROPOSAL);
    let counted = |view, order| Counted { view: View(view), order: OrderNumber(order) };
    let member = |replica, from, order| Member {
        replica: ReplicaId(replica),
        from: View(from),
        disclosed: vec![counted(from, order), counted(from, 0)],
    };
    let held = |certified| Held { view: View(1), certified, proposal };
    vec![
        TraceEvent::ViewLeft { from: View(1), to: view },
        TraceEvent::PartLeft {
            pillar,
            from: View(1),
            to: view,
            checkpoint: id.order,
            steps: vec![
                Step { to: View(2), disclosed: counted(1, 6) },
                Step { to: view, disclosed: counted(2, 0) },
            ],
            held: vec![held(Some(Phase::Prepare)), held(None), held(Some(Phase::Commit))],
        },
        TraceEvent::Elected {
            view,
            leader: ReplicaId(0),
            checkpoint: id,
            members: vec![member(0, 1, 6), Member { disclosed: Vec::new(), ..member(2, 0, 0) }],
            vouchers: peers([2]),
        },
        TraceEvent::Adopted { pillar, view, proposals: vec![proposal, NOOPS] },
        TraceEvent::ViewEntered { view, current: View(4), leader: true },
        TraceEvent::Endorsed { view, checkpoint: id },
    ]
}

fn events_of_orders() -> Vec<TraceEvent> {
    let (pillar, view, id, last, batch) = (PILLAR, VIEW, CHECKPOINT, LAST, BATCH);
    let (proposal, noops) = (PROPOSAL, NOOPS);
    vec![
        TraceEvent::Proposed { pillar, view, proposal: noops },
        TraceEvent::Reissued { pillar, view, proposal },
        TraceEvent::Vouched { phase: Phase::Prepare, pillar, view, proposal },
        TraceEvent::Vouched { phase: Phase::Commit, pillar, view, proposal: noops },
        TraceEvent::Certified {
            phase: Phase::Prepare,
            pillar,
            view,
            proposal,
            voters: peers([0, 1]),
        },
        TraceEvent::Certified {
            phase: Phase::Commit,
            pillar,
            view,
            proposal: noops,
            voters: peers([0, 63]),
        },
        TraceEvent::Executed { order: last, requests: 512, ran: 511, results: batch },
        TraceEvent::AgreedTime { order: last, unix_ms: 1_700_000_000_000 },
        TraceEvent::CheckpointTaken(id),
        TraceEvent::CheckpointStable { checkpoint: id, voters: peers([0, 2]) },
        TraceEvent::Diverged(id),
        TraceEvent::StateInstalled(id),
        TraceEvent::Configured {
            after: id.order,
            epoch: 7,
            members: peers([0, 1, 3]),
            faults: 1,
            quorums: Quorums { elect: 2, support: 2, prepare: 1, commit: 2, stable: 2, reply: 2 },
            constants: batch,
        },
        TraceEvent::Lost { events: 17 },
    ]
}

/// Records of the first block.
const FIRST: usize = 6;

fn recording() -> Vec<u8> {
    let mut recording = Recording::new(&header());
    for (at, event) in every_event().iter().enumerate() {
        let replica = ReplicaId(u16::from(at >= FIRST));
        recording.push(replica, Time(0x0102_0304_0500 + at as u64), event);
    }
    recording.finish()
}

#[test]
fn every_event_survives_the_round_trip() {
    let bytes = recording();
    let mut trace = Trace::read(&bytes).unwrap();
    assert_eq!(*trace.header(), header());
    let entries: Vec<Entry> = trace.by_ref().map(Result::unwrap).collect();
    assert!(entries.iter().map(|entry| &entry.event).eq(&every_event()));
    assert!((0..).zip(&entries).all(|(at, entry)| entry.time.0 == 0x0102_0304_0500 + at));
    assert_eq!(entries.iter().filter(|entry| entry.replica == ReplicaId(0)).count(), FIRST);
    assert!(!trace.is_cut());
    assert_eq!(trace.lost(), 17);
}

/// A change of the bytes is a new version of the format: see `engine/proto/TRACE.md`.
#[test]
fn the_bytes_are_as_documented() {
    let bytes = recording();
    let digest = Digest::of(&bytes).to_string();
    assert_eq!(digest, "5e2923918871ab347e88a9dd2a70f22e2635a4cd04f84d21860e778b9dde2a9e");
    assert!(bytes == FIXTURE, "the format of traces changed");
    let block = &bytes[HEADER_BYTES..];
    let length = u32::from_le_bytes(block[..4].try_into().unwrap()) as usize;
    assert_eq!(block[4..BLOCK_HEAD_BYTES], [FIRST as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let left = &block[BLOCK_HEAD_BYTES..][..24];
    assert_eq!(left[..8], [1, 0, 0x00, 0x05, 0x04, 0x03, 0x02, 0x01]);
    assert_eq!(left[8..], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let second = &block[BLOCK_HEAD_BYTES + length..];
    assert_eq!(second[4..BLOCK_HEAD_BYTES], [14, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0]);
}

/// The sizes that TRACE.md gives.
#[test]
fn records_are_as_long_as_documented() {
    let expected = [
        24,
        40 + 2 * 24 + 3 * 65,
        68 + 12 + 32 + 12,
        20 + 2 * 57,
        24,
        56,
        72,
        72,
        72,
        72,
        80,
        80,
        56,
        24,
        48,
        56,
        48,
        48,
        74,
        16,
    ];
    let length = |event: &TraceEvent| {
        let mut records = Records::default();
        records.push(Time(1), event);
        records.bytes().len()
    };
    let lengths: Vec<usize> = every_event().iter().map(length).collect();
    assert_eq!(lengths, expected);
}

#[test]
fn a_file_that_is_cut_off_gives_what_is_whole() {
    let bytes = recording();
    let length = u32::from_le_bytes(bytes[HEADER_BYTES..][..4].try_into().unwrap()) as usize;
    let first_block = HEADER_BYTES + BLOCK_HEAD_BYTES + length;
    for end in HEADER_BYTES..bytes.len() {
        let mut trace = Trace::read(&bytes[..end]).unwrap();
        let whole = trace.by_ref().map(Result::unwrap).count();
        assert_eq!(whole, if end < first_block { 0 } else { FIRST });
        assert_eq!(trace.is_cut(), end != HEADER_BYTES && end != first_block, "{end}");
    }
    for end in 0..HEADER_BYTES {
        assert!(Trace::read(&bytes[..end]).is_err());
    }
}

#[test]
fn losses_are_counted_and_found_where_they_are() {
    let endorsed = TraceEvent::Endorsed { view: View(1), checkpoint: CheckpointId::default() };
    let lost = TraceEvent::Lost { events: 7 };
    let mut records = Records::default();
    records.push(Time(1), &endorsed);
    records.push(Time(2), &lost);
    let mut more = Records::default();
    more.push(Time(3), &TraceEvent::Lost { events: 5 });
    more.push(Time(4), &endorsed);
    records.append(&mut more);
    let mut bytes = header().encode().to_vec();
    bytes.extend_from_slice(&records.head(ReplicaId(1), 2));
    bytes.extend_from_slice(records.bytes());
    let mut trace = Trace::read(&bytes).unwrap();
    let found: Vec<TraceEvent> = trace.by_ref().map(|entry| entry.unwrap().event).collect();
    assert_eq!(trace.lost(), 12);
    assert_eq!(found, [endorsed.clone(), lost, TraceEvent::Lost { events: 5 }, endorsed]);
    // A head that does not agree with its records is damage, in either direction.
    for lost in [11, 13] {
        let mut bytes = bytes.clone();
        bytes[HEADER_BYTES + 8] = lost;
        let read: Vec<_> = Trace::read(&bytes).unwrap().collect();
        assert!(read.last().unwrap().is_err(), "{lost}");
    }
}

#[test]
fn damage_is_told_from_another_file_and_another_version() {
    let good = recording();
    assert_eq!(Trace::read(b"HYBSTKEY").unwrap_err(), TraceError::NotATrace);
    let mut bytes = good.clone();
    bytes[8] = 9;
    assert_eq!(Trace::read(&bytes).unwrap_err(), TraceError::Version { found: 9, wanted: 2 });
    let first = HEADER_BYTES + BLOCK_HEAD_BYTES;
    // An unknown kind, one of version 1, a flag where there is none, a pillar where there is none,
    // too many records, no such replica.
    let damages = [
        (first, 99),
        (first, 6),
        (first, 0x81),
        (first + 1, 1),
        (HEADER_BYTES + 4, 99),
        (HEADER_BYTES + 12, 64),
    ];
    for (at, value) in damages {
        let mut bytes = good.clone();
        bytes[at] = value;
        let results: Vec<_> = Trace::read(&bytes).unwrap().collect();
        let errors = results.iter().filter(|result| result.is_err()).count();
        assert!(errors == 1 && results.last().unwrap().is_err(), "{at} {value}");
    }
}

#[test]
fn impossible_headers_are_refused() {
    // Writer, replicas, faults, pillars, padding, interval, name, members, faulty, padding.
    let damages = [
        (10, 2),
        (12, 4),
        (14, 3),
        (16, 0),
        (18, 1),
        (33, 0),
        (80, b'H'),
        (80, 0),
        (95, b'x'),
        (96, 1),
        (104, 8),
        (127, 1),
    ];
    for (at, value) in damages {
        let mut bytes = header().encode();
        assert_ne!(bytes[at], value, "{at}");
        bytes[at] = value;
        assert!(matches!(Trace::read(&bytes), Err(TraceError::Header(_))), "{at} {value}");
    }
}

/// Counts that the bytes do not pay for are refused before memory is taken for them.
#[test]
fn hostile_counts_cost_nothing() {
    let event = |kind: u8, fields: &[u8]| {
        let mut bytes = header().encode().to_vec();
        let length = 8 + fields.len() as u32;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(fields);
        bytes
    };
    let zeros_then = |zeros: usize, count: &[u8]| [&vec![0; zeros][..], count].concat();
    let hostile = [
        event(24, &zeros_then(8, &[0xff; 4])),
        event(25, &zeros_then(24, &[0xff; 8])),
        event(25, &zeros_then(24, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])),
        event(23, &zeros_then(58, &[0xff, 0xff])),
        event(23, &zeros_then(58, &[1, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0])),
    ];
    for bytes in hostile {
        let results: Vec<_> = Trace::read(&bytes).unwrap().collect();
        assert!(matches!(results[..], [Err(TraceError::Block { .. })]), "{results:?}");
    }
}

/// A file that a release before this one wrote.
#[test]
fn a_trace_of_version_1_is_still_read() {
    let wanted = TraceError::Version { found: 1, wanted: 2 };
    assert_eq!(Trace::read(FIXTURE_1).unwrap_err(), wanted);
    let wanted = TraceError::Version { found: 2, wanted: 1 };
    assert_eq!(Trace::read_version_1(FIXTURE).unwrap_err(), wanted);
    let mut trace = Trace::read_version_1(FIXTURE_1).unwrap();
    let Header { version, replicas, members, protocol, group, .. } = *trace.header();
    assert_eq!(
        (version, replicas, members, protocol.as_str()),
        (1, 3, peers([0, 1, 2]), "hybster")
    );
    assert_eq!(group, GroupConfig::default().digest());
    let words: Vec<String> = trace.by_ref().map(|entry| entry.unwrap().event.to_string()).collect();
    assert_eq!(
        words,
        [
            "left for v3, last stable v1",
            "accepted NEW-VIEW v3 of r0: members r0 from v1, r2 from v0; acknowledged by r2; \
             re-issued after o256, p1 to o6",
            "entered v3 as leader, current v4",
            "acknowledged NEW-VIEW v3",
            "p1 proposed o2..=o6 in v3: no-op",
            "p1 re-issued o2..=o6 in v3: bbbbbbbb…",
            "p1 acknowledged o2..=o6 in v3",
            "p1 committed o2..=o6 in v3: bbbbbbbb…",
            "executed o6: 511 of 512 requests ran",
            "took checkpoint o256: cccccccc…",
            "checkpoint o256 is stable: cccccccc…",
            "own state differs at o256, where cccccccc… is stable",
            "installed the state of o256: cccccccc…",
        ]
    );
    assert!(!trace.is_cut() && trace.lost() == 0);
    // Losses of version 1 are in the head of the block only.
    let mut bytes = FIXTURE_1.to_vec();
    bytes[header::HEADER_BYTES_1 + 8] = 3;
    let mut trace = Trace::read_version_1(&bytes).unwrap();
    assert!(trace.by_ref().all(|entry| entry.is_ok()));
    assert_eq!(trace.lost(), 3);
}

#[test]
fn events_say_themselves_in_words() {
    let words: Vec<String> = every_event().iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "left for v3, last stable v1",
            "p1 left v1 for v3 at v1|o6, then v2|o0; holds after o256: o2..=o6 bbbbbbbb… at \
             1700000000000 ms in v1, o2..=o6 bbbbbbbb… at 1700000000000 ms in v1 (vouched for), \
             o2..=o6 bbbbbbbb… at 1700000000000 ms in v1 (committed)",
            "accepted r0 as leader of v3 from o256 on: members r0 from v1 at v1|o6, v1|o0; r2 from \
             v0; acknowledged by r2",
            "p1 adopted in v3: o2..=o6 bbbbbbbb… at 1700000000000 ms, o8..=o12 no-op",
            "entered v3 as leader, current v4",
            "acknowledged v3 after o256",
            "p1 proposed o8..=o12 in v3: no-op",
            "p1 re-issued o2..=o6 in v3: bbbbbbbb… at 1700000000000 ms",
            "p1 accepted o2..=o6 in v3: bbbbbbbb… at 1700000000000 ms",
            "p1 acknowledged o8..=o12 in v3: no-op",
            "p1 prepared o2..=o6 in v3: bbbbbbbb… at 1700000000000 ms, by r0, r1",
            "p1 committed o8..=o12 in v3: no-op, by r0, r63",
            "executed o6: 511 of 512 requests ran; answers bbbbbbbb…",
            "the agreed time of o6 is 1700000000000 ms",
            "took checkpoint o256: cccccccc…",
            "checkpoint o256 is stable: cccccccc…, by r0, r2",
            "own state differs at o256, where cccccccc… is stable",
            "installed the state of o256: cccccccc…",
            "epoch 7 begins after o256: members r0, r1, r3; f = 1",
            "17 events are missing here: they were dropped",
        ]
    );
    let mut proposals = Vec::new();
    for order in 1..12 {
        let order = OrderNumber(order);
        let batch = Digest::default();
        proposals.push(Proposal { first: order, last: order, batch, time_ms: 0, noop: true });
    }
    let adopted = TraceEvent::Adopted { pillar: PillarId(0), view: View(1), proposals };
    assert!(adopted.to_string().ends_with("o7 no-op, o8 no-op and 3 more"));
    let adopted = TraceEvent::Adopted { pillar: PillarId(0), view: View(1), proposals: Vec::new() };
    assert_eq!(adopted.to_string(), "p0 adopted in v1: nothing");
}
