use hybster_tss::Proof;

use super::*;
use crate::hybster::record;

const ME: ReplicaId = ReplicaId(1);

fn config() -> Arc<GroupConfig> {
    Arc::new(GroupConfig { pillars: 1, window: 8, checkpoint_interval: 4, ..Default::default() })
}

fn message(view: u64, order: u64) -> Bytes {
    let batch = [order as u8; 3];
    let header = PrepareHeader {
        pillar: PillarId(0),
        noop: false,
        requests: 1,
        view: View(view),
        first: OrderNumber(order),
        last: OrderNumber(order),
        time_ms: 10 * order,
        batch: crate::wire::digest(&batch),
        previous: CounterValue::ZERO,
        proof: Proof([0; 32]),
    };
    [&header.encode()[..], &batch].concat().into()
}

fn own(view: u64, order: u64) -> Commit {
    let header = PrepareHeader::parse(&message(view, order)).expect("it is one");
    Commit {
        pillar: PillarId(0),
        sender: ME,
        view: View(view),
        first: header.first,
        last: header.last,
        prepare: header.digest(),
        proof: Proof([1; 32]),
    }
}

fn acknowledged(order: u64) -> LogRecord {
    record::prepare(&message(0, order), Some(&own(0, order)))
}

fn committed(through: u64) -> LogRecord {
    record::committed(PillarId(0), View(0), through)
}

fn stable(order: u64) -> LogRecord {
    let id = crate::wire::CheckpointId { order: OrderNumber(order), digest: Digest([7; 32]) };
    let votes = vec![(ReplicaId(0), Proof([2; 32])), (ReplicaId(2), Proof([3; 32]))];
    record::stable(&CheckpointCertificate { id, votes })
}

fn read(durable: u64, records: &[LogRecord]) -> Result<Recovered, RecoveryError> {
    let bytes = records.iter().map(|record| record.parts().concat().into());
    Recovered::read(config(), ME, OrderNumber(durable), true, bytes)
}

fn slots(replay: &[ToExecution]) -> Vec<u64> {
    let slots = replay.iter().map(|input| match input {
        ToExecution::Committed { first_slot, .. } => *first_slot,
        other => panic!("{other:?}"),
    });
    slots.collect()
}

/// Each prefix of a log is the replica at that time: its counter is that of its last certificate, and
/// what it committed beyond the durable checkpoint is executed again.
#[test]
fn a_log_tells_what_was_certified_and_committed() {
    let log: Vec<LogRecord> = (1..=4).flat_map(|o| [acknowledged(o), committed(o - 1)]).collect();
    for end in 0..=log.len() {
        let mut recovered = read(0, &log[..end]).expect("it is a log");
        let certified = end.div_ceil(2) as u64;
        let counter = recovered.counters(PillarId(0))[0];
        assert_eq!(counter, CounterValue::new(0, certified));
        let pillar = &recovered.pillars[0];
        assert_eq!((pillar.prepared, pillar.committed), (certified, end as u64 / 2));
        assert_eq!(slots(&recovered.take_replay()), (0..end as u64 / 2).collect::<Vec<_>>());
    }
    let mut recovered = read(4, &log).expect("it is a log");
    assert!(recovered.take_replay().is_empty() && recovered.control.is_reached);
}

/// What a stable checkpoint covers is out of the window, and its commitments are there for execution.
#[test]
fn a_window_that_moved_leaves_what_execution_needs() {
    let mut log: Vec<LogRecord> =
        (1..=4).flat_map(|order| [acknowledged(order), committed(order - 1)]).collect();
    log.extend([stable(4), acknowledged(5)]);
    // The pillar had not heard of the checkpoint yet.
    let mut recovered = read(0, &log).expect("it is a log");
    assert_eq!(recovered.stable_checkpoint(), OrderNumber(4));
    let pillar = &mut recovered.pillars[0];
    assert_eq!((pillar.base, pillar.prepared, pillar.committed), (4, 5, 4));
    assert_eq!(pillar.slots.keys().copied().collect::<Vec<_>>(), [4]);
    assert_eq!(pillar.unlogged.len(), 1, "that its window moved, it logs now");
    assert!(recovered.control.is_reached);
    assert_eq!(slots(&recovered.take_replay()), [0, 1, 2, 3]);
    // Without the commitments, the state has to be fetched.
    let jumped = read(0, &[stable(4)]).expect("it is a log");
    assert!(!jumped.control.is_reached);
}

#[test]
fn logs_that_no_replica_writes_are_refused() {
    let is_refused = |log: &[LogRecord], why: &str| match read(0, log) {
        Err(RecoveryError::Contradiction(story)) => assert!(story.contains(why), "{story}"),
        other => panic!("{why}: {other:?}"),
    };
    is_refused(&[committed(0)], "without its PREPARE");
    is_refused(&[acknowledged(1), committed(3)], "without its PREPARE");
    is_refused(&[record::commit(&own(0, 1))], "without its PREPARE");
    is_refused(&[record::prepare(&message(0, 2), Some(&own(0, 1)))], "without its PREPARE");
    is_refused(&[record::prepare(&message(3, 1), None)], "another view");
    is_refused(&[acknowledged(40)], "beyond the window");
    is_refused(&[record::forwarded(PillarId(0), 4)], "without its checkpoint");
    is_refused(&[stable(8), stable(4)], "falls");
    is_refused(&[record::entered(PillarId(0), View(1), View(1))], "without NEW-VIEW");
    is_refused(&[record::forwarded(PillarId(3), 0)], "more pillars");
}

/// Whatever the bytes are, the answer is an error or a replica, and never a panic.
#[test]
fn damaged_records_are_refused() {
    let log = [acknowledged(1), committed(0), stable(4), record::forwarded(PillarId(0), 4)];
    for (at, damaged) in log.iter().enumerate() {
        let bytes = damaged.parts().concat();
        for byte in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[byte] ^= flip;
                let records = log.iter().enumerate().map(|(other, record)| match other == at {
                    true => Bytes::from(wrong.clone()),
                    false => record.parts().concat().into(),
                });
                let _ = Recovered::read(config(), ME, OrderNumber(0), records);
            }
            let cut = Bytes::from(bytes[..byte].to_vec());
            let read = Recovered::read(config(), ME, OrderNumber(0), [cut]);
            // Where a batch ends, the log knows.
            assert!(read.is_err() || (at == 0 && byte >= bytes.len() - 3), "{damaged:?}: {byte}");
        }
    }
}
