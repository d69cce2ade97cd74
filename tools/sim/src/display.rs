//! Messages and events in words.

use hybster_proto::ids::OrderNumber;
use hybster_proto::internals::{Commit, PrepareHeader, pbft};
use hybster_proto::output::Rejection;
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::{kind, kind_of};

/// The name of a kind byte.
#[must_use]
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        kind::REQUESTS => "REQUESTS",
        kind::REPLIES => "REPLIES",
        kind::PREPARE => "PREPARE",
        kind::COMMIT => "COMMIT",
        kind::CHECKPOINT => "CHECKPOINT",
        kind::VIEW_CHANGE => "VIEW-CHANGE",
        kind::NEW_VIEW => "NEW-VIEW",
        kind::NEW_VIEW_ACK => "NEW-VIEW-ACK",
        kind::STATE_REQUEST => "STATE-REQUEST",
        kind::STATE => "STATE",
        kind::ORDER_REQUEST => "ORDER-REQUEST",
        kind::BATCH_REQUEST => "BATCH-REQUEST",
        kind::BATCH => "BATCH",
        kind::FETCH => "FETCH",
        kind::FETCHED => "FETCHED",
        kind::QUERIES => "QUERIES",
        kind::STATUS_REQUEST => "STATUS-REQUEST",
        kind::STATUS => "STATUS",
        kind::RELAY => "RELAY",
        kind::RELAYED => "RELAYED",
        kind::LAST_SEEN => "LAST-SEEN",
        pbft::kind::PRE_PREPARE => "PBFT PRE-PREPARE",
        pbft::kind::PREPARE => "PBFT PREPARE",
        pbft::kind::COMMIT => "PBFT COMMIT",
        pbft::kind::COMMITTED => "PBFT COMMITTED",
        pbft::kind::CHECKPOINT => "PBFT CHECKPOINT",
        pbft::kind::ORDER_REQUEST => "PBFT ORDER-REQUEST",
        pbft::kind::BODY_REQUEST => "PBFT BODY-REQUEST",
        pbft::kind::BODY => "PBFT BODY",
        pbft::kind::VIEW_CHANGE => "PBFT VIEW-CHANGE",
        pbft::kind::VIEW_CHANGE_ACK => "PBFT VIEW-CHANGE-ACK",
        pbft::kind::NEW_VIEW => "PBFT NEW-VIEW",
        pbft::kind::STATE_REQUEST => "PBFT STATE-REQUEST",
        pbft::kind::STABLE => "PBFT STABLE",
        _ => "unknown",
    }
}

fn orders(first: OrderNumber, last: OrderNumber) -> String {
    if first == last { first.to_string() } else { format!("{first}..={last}") }
}

/// A message in words.
#[must_use]
pub fn describe(message: &[u8]) -> String {
    let name = kind_name(kind_of(message));
    let field = |at: usize| -> u64 {
        message.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight")))
    };
    match kind_of(message) {
        kind::PREPARE => match PrepareHeader::parse(message) {
            Ok(h) if h.noop => {
                format!("{name} {} {} no-op {}", h.pillar, h.view, orders(h.first, h.last))
            }
            Ok(h) => format!("{name} {} {} {} {:?}", h.pillar, h.view, h.first, h.batch),
            Err(error) => format!("{name} ({error})"),
        },
        kind::COMMIT => match Commit::parse(message) {
            Ok(c) => format!("{name} {} {} {}", c.pillar, c.view, orders(c.first, c.last)),
            Err(error) => format!("{name} ({error})"),
        },
        kind::CHECKPOINT => format!("{name} o{}", field(8)),
        kind::VIEW_CHANGE => format!("{name} v{} -> v{}", field(8), field(16)),
        kind::NEW_VIEW | kind::NEW_VIEW_ACK => format!("{name} v{}", field(8)),
        kind::STATE_REQUEST => {
            format!("{name} latest v{} current v{} stable o{}", field(8), field(16), field(24))
        }
        kind::STATE | kind::FETCH | kind::FETCHED => format!("{name} o{}", field(8)),
        kind::ORDER_REQUEST | pbft::kind::ORDER_REQUEST => {
            format!("{name} v{} from o{}", field(8), field(16))
        }
        pbft::kind::PRE_PREPARE => match pbft::ordering::PrePrepare::parse_head(message) {
            Ok((pillar, view, first, last)) => {
                format!("{name} {pillar} {view} {}", orders(first, last))
            }
            Err(error) => format!("{name} ({error})"),
        },
        pbft::kind::PREPARE | pbft::kind::COMMIT | pbft::kind::COMMITTED => {
            match pbft::ordering::Vote::parse(message) {
                Ok(v) => {
                    let orders = orders(v.first, v.last);
                    format!("{name} {} {} {orders} {:?}", v.pillar, v.view, v.digest)
                }
                Err(error) => format!("{name} ({error})"),
            }
        }
        pbft::kind::VIEW_CHANGE => format!("{name} -> v{} stable o{}", field(8), field(16)),
        pbft::kind::NEW_VIEW | pbft::kind::VIEW_CHANGE_ACK => format!("{name} v{}", field(8)),
        pbft::kind::STABLE | pbft::kind::CHECKPOINT | pbft::kind::BODY => {
            format!("{name} o{}", field(8))
        }
        pbft::kind::STATE_REQUEST => {
            format!("{name} latest v{} current v{} stable o{}", field(8), field(16), field(24))
        }
        _ => format!("{name} ({} bytes)", message.len()),
    }
}

/// An event in words.
#[must_use]
pub fn event(event: &TraceEvent) -> String {
    event.to_string()
}

/// A dropped message in words.
#[must_use]
pub fn rejection(r: &Rejection) -> String {
    let from = r.from.map_or("a client".into(), |from| from.to_string());
    format!("dropped {} from {from}: {:?}", kind_name(r.kind), r.reason)
}
