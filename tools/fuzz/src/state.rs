//! What state transfer brings, operations of the key-value store, and trace files.

use std::sync::Arc;

use bytes::Bytes;
use hybster::services::KvService;
use hybster::services::kv::{KvOperation, KvReply};
use hybster_proto::ids::{ClientId, OrderNumber, PillarId, ReplicaId, RequestNumber, SessionId};
use hybster_proto::output::{Agreed, Input, Output, ToExecution, ToState};
use hybster_proto::service::{Context, Pages, RestoreError, Service, Snapshot};
use hybster_proto::state::TransferredState;
use hybster_proto::time::Time;
use hybster_proto::trace::file::{Recording, Trace};
use hybster_proto::wire::CheckpointId;
use hybster_proto::wire::request::append_request;
use hybster_proto::{Execution, GroupConfig};
use hybster_tss::RandomnessKey;

use super::{Choices, joined};

/// A service without state.
struct Nothing;

impl Service for Nothing {
    fn execute(&mut self, _: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(operation);
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages::default())
    }

    fn restore(&mut self, _: &dyn Snapshot) -> Result<(), RestoreError> {
        Ok(())
    }
}

fn pages(pieces: &[&[u8]]) -> Pages {
    Pages(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect())
}

fn pages_of(snapshot: &dyn Snapshot) -> Vec<Bytes> {
    (0..snapshot.page_count()).map(|page| snapshot.page(page)).collect()
}

fn small_group() -> Arc<GroupConfig> {
    Arc::new(GroupConfig {
        pillars: 1,
        window: 8,
        checkpoint_interval: 4,
        session_window: 2,
        max_sessions_per_client: 2,
        ..GroupConfig::default()
    })
}

/// Two requests of each of three sessions, committed at these orders and the next ones.
fn committed(first_slot: u64) -> ToExecution {
    let mut batch = Vec::new();
    for (session, number) in [(1, 1), (2, 1), (1, 2), (3, 7), (1, 1), (2, 9)] {
        let session = SessionId::new(ClientId(5), 1, session);
        append_request(&mut batch, session, RequestNumber(number), b"operation", |_| [0; 16]);
    }
    let batch = Agreed::alone(batch.into(), first_slot);
    ToExecution::Committed { pillar: PillarId(0), first_slot, last_slot: first_slot, batch }
}

fn snapshots(out: &Output) -> Vec<Vec<Bytes>> {
    let taken = out.inputs.iter().filter_map(|input| match input {
        Input::State(ToState::Taken(taken)) => Some(pages_of(&*taken.bookkeeping)),
        _ => None,
    });
    taken.collect()
}

/// Pages of a session table: refused with an error, or taken, and then requests execute.
pub fn sessions(data: &[u8]) {
    let mut execution =
        Execution::new(small_group(), ReplicaId(0), Nothing, RandomnessKey::from_bytes([0; 32]));
    let (mut out, now) = (Output::default(), Time(1));
    let id = CheckpointId { order: OrderNumber(4), ..CheckpointId::default() };
    let bookkeeping = pages(&Choices(data).pieces());
    let state =
        TransferredState { bookkeeping: bookkeeping.into(), service: Pages::default().into() };
    execution.handle(ToExecution::Install { id, state: Arc::new(state) }, now, &mut out);
    if out.fatal.is_some() {
        return;
    }
    for slot in 4..9 {
        execution.handle(committed(slot), now, &mut out);
    }
    assert!(out.fatal.is_none() && snapshots(&out).len() == 2, "it goes on from there");
}

pub fn session_seeds() -> Vec<Vec<u8>> {
    let mut execution =
        Execution::new(small_group(), ReplicaId(0), Nothing, RandomnessKey::from_bytes([0; 32]));
    let mut out = Output::default();
    let empty = ToExecution::Committed {
        pillar: PillarId(0),
        first_slot: 0,
        last_slot: 2,
        batch: Agreed::alone(Bytes::new(), 0),
    };
    execution.handle(empty, Time(1), &mut out);
    execution.handle(committed(3), Time(1), &mut out);
    let full = snapshots(&out).remove(0);
    vec![joined(&full.iter().map(|page| &page[..]).collect::<Vec<_>>())]
}

fn context(number: u64) -> Context {
    let session = SessionId::new(ClientId(5), 1, 0);
    Context::new(session, RequestNumber(number), OrderNumber(number))
}

/// Pages of a key-value store: refused with an error that changes nothing, or taken, and then the
/// store has just these pages.
pub fn kv_pages(data: &[u8]) {
    let source = pages(&Choices(data).pieces());
    let mut service = filled_kv(3);
    let before = pages_of(&*service.snapshot());
    if service.restore(&source).is_err() {
        assert_eq!(pages_of(&*service.snapshot()), before, "an error changed the state");
        return;
    }
    // Free pages at the end are not kept: the table ends with the last page in use.
    let used = source.0.iter().rposition(|page| !page.is_empty()).map_or(0, |last| last + 1);
    assert_eq!(pages_of(&*service.snapshot()), source.0[..used]);
    let (mut reply, count) = (Vec::new(), service.len());
    for operation in kv_seeds().iter().chain(&kv_seeds()) {
        reply.clear();
        service.execute(&context(1), operation, &mut reply);
    }
    assert!(service.len() <= count + 8);
}

fn filled_kv(keys: u8) -> KvService {
    let mut service = KvService::new();
    let mut operation = Vec::new();
    for key in 0..keys {
        operation.clear();
        let put = KvOperation::Put { key: &[key; 5], value: &[key; 40] };
        put.encode(&mut operation).expect("short");
        service.execute(&context(1), &operation, &mut Vec::new());
    }
    service
}

pub fn kv_page_seeds() -> Vec<Vec<u8>> {
    let seed = |keys| {
        let pages = pages_of(&*filled_kv(keys).snapshot());
        joined(&pages.iter().map(|page| &page[..]).collect::<Vec<_>>())
    };
    vec![seed(0), seed(1), seed(6)]
}

/// Operations from clients, and replies as a client reads them.
pub fn kv(data: &[u8]) {
    let mut service = filled_kv(2);
    let mut reply = Vec::new();
    for operation in Choices(data).pieces().into_iter().chain([data]) {
        if let Ok(parsed) = KvOperation::decode(operation) {
            let mut again = Vec::new();
            parsed.encode(&mut again).expect("what was read can be written");
            assert_eq!(again, operation);
        }
        let mut answered = Vec::new();
        if service.query(operation, &mut answered) {
            reply.clear();
            service.execute(&context(1), operation, &mut reply);
            assert_eq!(reply, answered, "a query and an ordered read differ");
        }
        reply.clear();
        service.execute(&context(1), operation, &mut reply);
        KvReply::decode(&reply).expect("the store's own replies can be read");
        if let Ok(parsed) = KvReply::decode(operation) {
            let mut again = Vec::new();
            parsed.encode(&mut again);
            assert_eq!(again, operation);
        }
    }
}

pub fn kv_seeds() -> Vec<Vec<u8>> {
    let operations = [
        KvOperation::Get { key: b"key" },
        KvOperation::Put { key: b"key", value: b"value" },
        KvOperation::CompareAndSwap { key: b"key", expected: Some(b"value"), value: b"other" },
        KvOperation::CompareAndSwap { key: b"new", expected: None, value: b"" },
        KvOperation::Scan { start: b"a", end: Some(b"z"), limit: 9 },
        KvOperation::Delete { key: b"key" },
    ];
    let encode = |operation: &KvOperation<'_>| {
        let mut out = Vec::new();
        operation.encode(&mut out).expect("short");
        out
    };
    operations.iter().map(encode).collect()
}

/// A trace file: what is read can be written and read again. One of version 1 is only shown.
pub fn trace(data: &[u8]) {
    if let Ok(trace) = Trace::read_version_1(data) {
        for entry in trace.flatten() {
            let _ = (entry.event.to_string(), entry.event.orders(), entry.event.pillar());
        }
    }
    let Ok(mut trace) = Trace::read(data) else { return };
    let mut known = Vec::new();
    let mut again = Recording::new(trace.header());
    for entry in trace.by_ref() {
        let Ok(entry) = entry else { return };
        let _ = (entry.event.to_string(), entry.event.orders());
        again.push(entry.replica, entry.time, &entry.event);
        known.push((entry.replica, entry.time, entry.event));
    }
    let again = again.finish();
    let mut found = Trace::read(&again).expect("it was just written");
    let entries = found.by_ref().map(|entry| entry.expect("it was just written"));
    assert!(entries.map(|entry| (entry.replica, entry.time, entry.event)).eq(known));
    assert_eq!((found.header(), found.is_cut()), (trace.header(), false));
    // The end may be missing, but what precedes it is read.
    assert!(trace.is_cut() || found.lost() == trace.lost());
}

/// Every kind of event, in both versions.
pub fn trace_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../../engine/proto/tests/fixtures/trace-v2.bin").to_vec(),
        include_bytes!("../../../engine/proto/tests/fixtures/trace-v1.bin").to_vec(),
    ]
}
