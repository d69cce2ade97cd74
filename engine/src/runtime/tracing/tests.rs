use hybster_proto::ids::View;
use hybster_proto::trace::file::Trace;

use super::*;

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hybster-{}-{name}.trace", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn event(number: u64) -> TraceEvent {
    TraceEvent::ViewLeft { from: View(0), to: View(number) }
}

fn lost(events: u32) -> TraceEvent {
    TraceEvent::Lost { events }
}

#[test]
fn what_agents_hand_over_is_in_the_file_in_their_order() {
    const EVENTS: u64 = 50_000;
    let path = path("order");
    let file = TraceFile::create(&path, &GroupConfig::default(), ReplicaId(2), 2).unwrap();
    thread::scope(|scope| {
        for agent in 0..2 {
            let mut tracer = file.target().tracer(agent);
            scope.spawn(move || {
                for number in 1..=EVENTS {
                    tracer.record(Time(number), &event(number));
                    // Turns of different length; the last one ends with the last event.
                    if number % 97 < 3 || number == EVENTS {
                        tracer.end_turn();
                    }
                }
            });
        }
    });
    drop(file);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut trace = Trace::read(&bytes).unwrap();
    let mut next = [1; 2];
    for entry in trace.by_ref() {
        let entry = entry.unwrap();
        let next = &mut next[usize::from(entry.stream)];
        assert_eq!((entry.replica, entry.event), (ReplicaId(2), event(*next)));
        *next += 1;
    }
    assert_eq!(next, [EVENTS + 1; 2]);
    assert!(trace.lost() == 0 && !trace.is_cut());
}

#[test]
fn an_existing_file_is_kept() {
    let path = path("kept");
    std::fs::write(&path, "precious").unwrap();
    let made = TraceFile::create(&path, &GroupConfig::default(), ReplicaId(0), 1);
    assert_eq!(made.err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
}

/// Takes some bytes and then fails, as a full disk does.
struct FullDisk(usize);

impl Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0 -= bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that is not running, with one slot.
fn writing<W: Write>(file: W) -> (Writing<W>, Tracer) {
    let slots = Arc::new(Slots {
        slots: vec![CachePadded::default()],
        writer: std::sync::OnceLock::new(),
        closing: AtomicBool::new(true),
    });
    slots.writer.set(thread::current()).unwrap();
    let tracer = TraceTarget::File(Arc::clone(&slots)).tracer(0);
    let file = BufWriter::with_capacity(0, file);
    let (taken, totals) = (Records::default(), Totals::default());
    (Writing { slots, file, replica: ReplicaId(0), taken, totals, failure: None }, tracer)
}

#[test]
fn what_does_not_fit_is_counted() {
    let (mut writing, mut tracer) = writing(Vec::new());
    let records = (SLOT_BYTES / 24) as u64;
    for number in 0..records + 10 {
        tracer.record(Time(0), &event(number));
        tracer.end_turn();
    }
    let totals = writing.run();
    // The loss is a record of its own.
    assert_eq!((totals.written, totals.lost), (records + 1, 10));
    tracer.record(Time(0), &event(0));
    tracer.end_turn();
    assert_eq!(writing.run().written, records + 2);
    let mut bytes = Header::new(Writer::Replica, &GroupConfig::default(), 0).encode().to_vec();
    bytes.extend_from_slice(writing.file.get_ref());
    let mut trace = Trace::read(&bytes).unwrap();
    let found: Vec<TraceEvent> = trace.by_ref().map(|entry| entry.unwrap().event).collect();
    assert_eq!(found.len() as u64, records + 2);
    assert_eq!(found[records as usize - 1..], [event(records - 1), lost(10), event(0)]);
    assert_eq!(trace.lost(), 10);
}

/// A long turn does not fit, a short one after it does: the loss is recorded between the two.
#[test]
fn a_loss_is_told_in_its_place() {
    let (mut writing, mut tracer) = writing(Vec::new());
    let records = (SLOT_BYTES / 24) as u64;
    for number in 0..records - 1 {
        tracer.record(Time(number), &event(number));
    }
    tracer.end_turn();
    for number in [records - 1, records] {
        tracer.record(Time(number), &event(number));
    }
    tracer.end_turn();
    tracer.record(Time(records + 1), &event(records + 1));
    tracer.end_turn();
    writing.run();
    let mut bytes = Header::new(Writer::Replica, &GroupConfig::default(), 0).encode().to_vec();
    bytes.extend_from_slice(writing.file.get_ref());
    let entries = Trace::read(&bytes).unwrap().skip(records as usize - 2).map(Result::unwrap);
    let found: Vec<_> = entries.map(|entry| (entry.time.0, entry.event)).collect();
    let expected = [
        (records - 2, event(records - 2)),
        (records - 1, lost(2)),
        (records + 1, event(records + 1)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_full_disk_is_counted_and_stops_nobody() {
    let (mut writing, mut tracer) = writing(FullDisk(100));
    for number in 0..10 {
        tracer.record(Time(0), &event(number));
        tracer.end_turn();
        writing.run();
    }
    let totals = writing.totals;
    assert_eq!((totals.written, totals.lost), (2, 8));
}
