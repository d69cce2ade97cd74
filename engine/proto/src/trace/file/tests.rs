use super::*;
use crate::ids::{OrderNumber, PillarId, View};
use crate::wire::CheckpointId;

fn header() -> Header {
    Header::new(Writer::Replica, &GroupConfig::default(), 1_700_000_000_000_000)
}

fn every_event() -> Vec<TraceEvent> {
    let (pillar, view) = (PillarId(1), View(3));
    let (first, last) = (OrderNumber(2), OrderNumber(6));
    let (batch, noop) = (Digest([0xbb; 32]), true);
    let id = CheckpointId { order: OrderNumber(256), digest: Digest([0xcc; 32]) };
    vec![
        TraceEvent::ViewLeft { from: View(1), to: view },
        TraceEvent::NewViewAccepted {
            view,
            leader: ReplicaId(0),
            checkpoint: id,
            members: vec![(ReplicaId(0), View(1)), (ReplicaId(2), View(0))],
            vouchers: vec![ReplicaId(2)],
            reissued: vec![OrderNumber(0), last],
        },
        TraceEvent::ViewEntered { view, current: View(4), leader: true },
        TraceEvent::NewViewAcknowledged { view },
        TraceEvent::Proposed { pillar, view, first, last, batch, noop },
        TraceEvent::Reissued { pillar, view, first, last, batch, noop: false },
        TraceEvent::Acknowledged { pillar, view, first, last },
        TraceEvent::Committed { pillar, view, first, last, batch },
        TraceEvent::Executed { order: last, requests: 512, ran: 511 },
        TraceEvent::CheckpointTaken(id),
        TraceEvent::CheckpointStable(id),
        TraceEvent::Diverged(id),
        TraceEvent::StateInstalled(id),
    ]
}

fn recording() -> Vec<u8> {
    let mut recording = Recording::new(&header());
    for (at, event) in every_event().iter().enumerate() {
        let replica = ReplicaId(u16::from(at > 4));
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
    assert_eq!(entries.iter().filter(|entry| entry.replica == ReplicaId(0)).count(), 5);
    assert!(!trace.is_cut() && trace.lost() == 0);
}

#[test]
fn the_bytes_are_as_documented() {
    let bytes = recording();
    let fixture = include_bytes!("../../../tests/fixtures/trace-v1.bin");
    // A change here is a new version of the format: see engine/proto/TRACE.md.
    assert!(bytes == fixture, "the format of traces changed");
    let block = &bytes[HEADER_BYTES..];
    assert_eq!(block[..BLOCK_HEAD_BYTES], [230, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let left = &block[BLOCK_HEAD_BYTES..][..24];
    assert_eq!(left[..8], [1, 0, 0x00, 0x05, 0x04, 0x03, 0x02, 0x01]);
    assert_eq!(left[8..], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_file_that_is_cut_off_gives_what_is_whole() {
    let bytes = recording();
    let first_block = HEADER_BYTES + BLOCK_HEAD_BYTES + 230;
    for end in HEADER_BYTES..bytes.len() {
        let mut trace = Trace::read(&bytes[..end]).unwrap();
        let whole = trace.by_ref().map(Result::unwrap).count();
        assert_eq!(whole, if end < first_block { 0 } else { 5 });
        assert_eq!(trace.is_cut(), end != HEADER_BYTES && end != first_block, "{end}");
    }
    for end in 0..HEADER_BYTES {
        assert!(Trace::read(&bytes[..end]).is_err());
    }
}

#[test]
fn lost_records_are_counted() {
    let mut records = Records::default();
    records.push(Time(1), &TraceEvent::NewViewAcknowledged { view: View(1) });
    let mut bytes = header().encode().to_vec();
    for lost in [7, 5] {
        bytes.extend_from_slice(&records.head(ReplicaId(1), 2, lost));
        bytes.extend_from_slice(records.bytes());
    }
    let mut trace = Trace::read(&bytes).unwrap();
    assert!(trace.by_ref().all(|entry| entry.is_ok_and(|entry| entry.stream == 2)));
    assert_eq!(trace.lost(), 12);
}

#[test]
fn damage_is_told_from_another_file_and_another_version() {
    let good = recording();
    assert_eq!(Trace::read(b"HYBSTKEY").unwrap_err(), TraceError::NotATrace);
    let mut bytes = good.clone();
    bytes[8] = 9;
    assert_eq!(Trace::read(&bytes).unwrap_err(), TraceError::Version { found: 9 });
    let first = HEADER_BYTES + BLOCK_HEAD_BYTES;
    // An unknown kind, a flag where there is none, a pillar where there is none, too many records.
    for (at, value) in [(first, 99), (first, 0x81), (first + 1, 1), (HEADER_BYTES + 4, 9)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        let results: Vec<_> = Trace::read(&bytes).unwrap().collect();
        let errors = results.iter().filter(|result| result.is_err()).count();
        assert!(errors == 1 && results.last().unwrap().is_err(), "{at} {value}");
    }
}

#[test]
fn events_say_themselves_in_words() {
    let words: Vec<String> = every_event().iter().map(ToString::to_string).collect();
    assert_eq!(
        words[1],
        "accepted NEW-VIEW v3 of r0: members r0 from v1, r2 from v0; acknowledged by r2; \
         re-issued after o256, p1 to o6"
    );
    assert_eq!(words[2], "entered v3 as leader, current v4");
    assert_eq!(words[4], "p1 proposed o2..=o6 in v3: no-op");
    assert_eq!(words[8], "executed o6: 511 of 512 requests ran");
}
