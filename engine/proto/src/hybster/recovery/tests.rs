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
    record::stable(&CheckpointCertificate { id, ending: None, votes })
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

/// A round of summaries of a replica that has certified and committed these many slots, in a window
/// that begins at `base`, with a slot that is kept.
fn round(base: u64, stable_order: u64, prepared: u64, committed: u64) -> Vec<LogRecord> {
    let mut stable = CheckpointCertificate::default();
    if stable_order > 0 {
        stable.id =
            crate::wire::CheckpointId { order: OrderNumber(stable_order), digest: Digest([7; 32]) };
        stable.votes = vec![(ReplicaId(0), Proof([2; 32])), (ReplicaId(2), Proof([3; 32]))];
    }
    let summary = PillarSummary {
        pillar: PillarId(0),
        view: View(0),
        base,
        prepared,
        committed,
        last_ms: 10 * prepared,
        inherited: 0,
        counters: [CounterValue::new(0, prepared), CounterValue::ZERO],
    };
    let mut round = vec![record::control_summary(View(0), &stable, None, None)];
    round.push(record::summary(&summary));
    for order in base + 1..=prepared {
        round.push(record::kept(&message(0, order), Some(&own(0, order))));
    }
    round
}

/// Whoever reads the whole log and whoever begins with a round of summaries find the same replica.
#[test]
fn a_log_may_begin_with_a_round_of_summaries() {
    let mut log: Vec<LogRecord> =
        (1..=4).flat_map(|order| [acknowledged(order), committed(order - 1)]).collect();
    log.extend([stable(4), acknowledged(5), committed(4), acknowledged(6)]);
    log.push(record::forwarded(PillarId(0), 4));
    let begin = log.len();
    log.extend(round(4, 4, 6, 5));
    log.extend([committed(5), acknowledged(7)]);
    let tail = |from: usize, durable: u64| {
        let bytes = log[from..].iter().map(|record| record.parts().concat().into());
        Recovered::read(config(), ME, OrderNumber(durable), from == 0, bytes)
    };
    let seen = |mut recovered: Recovered| {
        let replay = slots(&recovered.take_replay());
        let pillar = &recovered.pillars[0];
        let kept: Vec<u64> = pillar.slots.keys().copied().collect();
        let progress = (pillar.base, pillar.prepared, pillar.committed, pillar.handed);
        (replay, kept, progress, pillar.counters, recovered.stable_checkpoint())
    };
    let whole = seen(tail(0, 4).expect("it is a log"));
    assert_eq!(whole.0, [4, 5]);
    // What is in front of the round says nothing, wherever the log begins.
    for from in 1..=begin {
        assert_eq!(seen(tail(from, 4).expect("it begins with a round")), whole, "from {from}");
    }
    let refused = |from, durable, why: &str| match tail(from, durable) {
        Err(RecoveryError::Contradiction(story)) => assert!(story.contains(why), "{story}"),
        other => panic!("{why}: {other:?}"),
    };
    refused(begin, 0, "behind the checkpoint");
    refused(begin + 1, 4, "beginning is missing");
    refused(begin + 2, 4, "beginning is missing");
    // A round that says something else than what led to it.
    let wrong = [vec![acknowledged(1)], round(0, 0, 2, 0)].concat();
    let error = read(0, &wrong).expect_err("it has certified one");
    assert!(error.to_string().contains("not what led to it"), "{error}");
}

/// Whatever the bytes are, the answer is an error or a replica, and never a panic.
#[test]
fn damaged_records_are_refused() {
    let mut log = vec![acknowledged(1), committed(0), stable(4), record::forwarded(PillarId(0), 4)];
    log.extend(round(0, 0, 1, 1));
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
                let _ = Recovered::read(config(), ME, OrderNumber(0), at % 2 == 0, records);
            }
            let cut = Bytes::from(bytes[..byte].to_vec());
            let read = Recovered::read(config(), ME, OrderNumber(0), true, [cut]);
            // Where a batch ends, the log knows.
            let is_whole = matches!(at, 0 | 6) && byte >= bytes.len() - 3;
            assert!(read.is_err() || is_whole, "{damaged:?}: {byte}");
        }
    }
}
