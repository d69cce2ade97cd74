//! The replicated service: Redis's data types as a deterministic state machine.

mod hashes;
pub(crate) mod keys;
mod lists;
mod scan;
mod sets;
mod sorted;
mod sorted_ranges;
mod store;
mod strings;
mod table;
mod view;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use hybster::{Context, RestoreError, Service, ServiceIdentity, Snapshot, paged};

use crate::operation::{self, DONE, MALFORMED, Part, Reader};
use crate::reply::Replies;

pub(crate) use lists::wait_of;
pub(crate) use store::DATABASES;
use store::Store;
pub(crate) use table::{Command, Kindness, VERSIONS, find, table, unknown};
use view::{Edit, View};

/// Why a command is not carried out, as Redis says it.
pub(crate) type Refusal = Cow<'static, str>;
/// What a command comes to.
pub(crate) type Done = Result<(), Refusal>;
/// The arguments of a command, its name first.
pub(crate) type Arguments<'a> = &'a [&'a [u8]];

pub(crate) const WRONG_TYPE: Refusal =
    Cow::Borrowed("WRONGTYPE Operation against a key holding the wrong kind of value");
pub(crate) const SYNTAX: Refusal = Cow::Borrowed("ERR syntax error");
pub(crate) const NOT_AN_INTEGER: Refusal =
    Cow::Borrowed("ERR value is not an integer or out of range");
pub(crate) const NOT_A_FLOAT: Refusal = Cow::Borrowed("ERR value is not a valid float");
pub(crate) const NO_SUCH_KEY: Refusal = Cow::Borrowed("ERR no such key");
pub(crate) const OVERFLOW: Refusal = Cow::Borrowed("ERR increment or decrement would overflow");
const TOO_LONG: &str = "ERR the reply is longer than the group's max_reply_bytes allows";
/// The longest string that a value may become by APPEND and SETRANGE, in bytes. What a client may send at
/// once is bounded by the group's `max_operation_bytes`.
const TEXT_BYTES: usize = 4 << 20;

/// A store that speaks Redis's commands, by gateways. See [`crate`] for what they are.
///
/// Operations have a form of their own (`operation.rs`), which only gateways need to know.
#[derive(Debug, Default)]
pub struct RedisService {
    store: Store,
}

impl RedisService {
    /// What it says of itself.
    pub const IDENTITY: ServiceIdentity = ServiceIdentity::new("hybster-redis", 1);

    /// A store without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Executes the commands of a part, as many as the reply has room for. Returns how many.
    fn part<'a>(
        &mut self,
        part: &Part,
        reader: &mut Reader<'a>,
        arguments: &mut Vec<&'a [u8]>,
        random: &mut u64,
        replies: &mut Replies<'_>,
        room: usize,
    ) -> u32 {
        let mut database = part.database.min(DATABASES - 1);
        if part.is_atomic {
            if !self.is_unchanged(&part.watches) {
                replies.null_array();
                for _ in 0..part.commands {
                    let _ = reader.command(arguments);
                }
                return part.commands;
            }
            replies.array(part.commands as usize);
        }
        let mut executed = 0;
        for _ in 0..part.commands {
            if reader.command(arguments).is_none() {
                break;
            }
            // What has to be sent again is skipped.
            if !part.is_atomic && replies.len() > room {
                continue;
            }
            self.command(&mut database, arguments, random, replies);
            executed += 1;
        }
        executed
    }

    fn command(
        &mut self,
        database: &mut u8,
        arguments: Arguments<'_>,
        random: &mut u64,
        replies: &mut Replies<'_>,
    ) {
        self.store.ledger.commands += 1;
        let now_ms = self.store.ledger.time_ms;
        let before = replies.len();
        let done = match find(arguments[0]) {
            None => Err(unknown(arguments)),
            Some(command) if !command.takes(arguments.len()) => Err(command.wrong_arity()),
            Some(command) => match command.run {
                Kindness::Read(run) => {
                    run(&View::new(&self.store, *database, now_ms), arguments, replies)
                }
                Kindness::Write(run) => {
                    let store = &mut self.store;
                    let mut edit = Edit { store, database: *database, now_ms, random: *random };
                    let done = run(&mut edit, arguments, replies);
                    *random = edit.random;
                    done
                }
                Kindness::Select => keys::select(arguments, database, replies),
                Kindness::Gateway => {
                    Err(format!("ERR {} is not for the group", command.name).into())
                }
            },
        };
        finish(done, before, replies);
    }

    fn is_unchanged(&self, watches: &[operation::Watch]) -> bool {
        watches.iter().all(|watch| {
            let database = watch.database.min(DATABASES - 1);
            let view = View::new(&self.store, database, self.store.ledger.time_ms);
            view.entry(&watch.key).map_or(0, |entry| entry.version) == watch.version
        })
    }
}

/// Makes what a command wrote its reply, or its refusal.
fn finish(done: Done, before: usize, replies: &mut Replies<'_>) {
    match done {
        Err(refusal) => {
            replies.truncate(before);
            replies.error(refusal.as_bytes());
        }
        Ok(()) if replies.has_overflown() => {
            replies.truncate(before);
            replies.error(TOO_LONG.as_bytes());
        }
        Ok(()) => {}
    }
}

impl Service for RedisService {
    fn identity(&self) -> Option<ServiceIdentity> {
        Some(Self::IDENTITY)
    }

    fn execute(&mut self, context: &Context, operation: &[u8], reply: &mut Vec<u8>) {
        if !operation::is_well_formed(operation) {
            return reply.push(MALFORMED);
        }
        self.store.ledger.time_ms = self.store.ledger.time_ms.max(context.time_ms);
        self.store.sweep(context.time_ms);
        let mut random = None;
        walk(operation, reply, |part, reader, arguments, replies, room| {
            let random = random.get_or_insert_with(|| seed(context));
            Some(self.part(part, reader, arguments, random, replies, room))
        });
    }

    fn query(&self, operation: &[u8], reply: &mut Vec<u8>) -> bool {
        if !operation::is_well_formed(operation) {
            return false;
        }
        let (store, now_ms) = (&self.store, self.store.ledger.time_ms);
        walk(operation, reply, |part, reader, arguments, replies, room| {
            let view = View::new(store, part.database.min(DATABASES - 1), now_ms);
            let mut executed = 0;
            for _ in 0..part.commands {
                reader.command(arguments)?;
                if replies.len() > room {
                    continue;
                }
                let before = replies.len();
                let command = find(arguments[0]).filter(|it| it.takes(arguments.len()))?;
                let Kindness::Read(run) = command.run else { return None };
                finish(run(&view, arguments, replies), before, replies);
                executed += 1;
            }
            (!part.is_atomic && !view.is_timed.get()).then_some(executed)
        })
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        paged::snapshot(&mut self.store.parts())
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        paged::restore(&mut self.store.parts(), source)
    }

    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        paged::restore_changed(&mut self.store.parts(), source, base, changed)
    }
}

/// Gives every part of an operation to `run`, which says how many commands it has executed, and writes the
/// reply. Ends with `false` when `run` cannot.
fn walk<'a>(
    operation: &'a [u8],
    reply: &mut Vec<u8>,
    mut run: impl FnMut(
        &Part,
        &mut Reader<'a>,
        &mut Vec<&'a [u8]>,
        &mut Replies<'_>,
        usize,
    ) -> Option<u32>,
) -> bool {
    let mut reader = Reader(operation);
    let mut arguments = Vec::new();
    let limit = operation::read_head(&mut reader).unwrap_or(0) as usize;
    let room = limit / 2;
    let first = reply.len();
    reply.push(DONE);
    while !reader.0.is_empty() {
        let Some(part) = operation::read_part(&mut reader) else { break };
        let head = reply.len();
        reply.extend_from_slice(&[0; 8]);
        let mut replies = Replies::new(reply, part.resp3, limit);
        let Some(executed) = run(&part, &mut reader, &mut arguments, &mut replies, room) else {
            reply.truncate(first);
            return false;
        };
        let length = (reply.len() - head - 8) as u32;
        reply[head..head + 4].copy_from_slice(&executed.to_le_bytes());
        reply[head + 4..head + 8].copy_from_slice(&length.to_le_bytes());
    }
    true
}

/// What random numbers of an operation come from. All operations of a batch see the same bytes.
fn seed(context: &Context) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&context.randomness()[..8]);
    u64::from_le_bytes(bytes) ^ context.session.session.rotate_left(32) ^ context.number.0
}

/// Whether an argument is this word, in any case.
pub(crate) fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument as an integer.
pub(crate) fn integer(argument: &[u8]) -> Result<i64, Refusal> {
    crate::number::integer(argument).ok_or(NOT_AN_INTEGER)
}
