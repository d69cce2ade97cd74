//! Commands of many connections in few operations, and their replies.

use std::collections::HashMap;
use std::sync::Arc;

use hybster::client::{CallError, CallResult, Client, RequestKind};
use mio::Waker;

use super::connection::{Connection, Waiting};
use super::{GatewayOptions, OUTPUT_BYTES, Outcomes, Shared, local, lock};
use crate::operation::{DONE, HEAD_BYTES, PART_BYTES, Reader, Watch, Writer, encode_command};
use crate::service::{Command, Kindness, find};

/// The longest operation that commands of several connections are put into, in bytes.
const MERGED_BYTES: usize = 256 << 10;
/// Commands of one connection in one operation.
const COMMANDS: usize = 1024;
/// Bytes of an operation besides the arguments of its only command: the heads, the watches' count and the
/// lengths.
const OVERHEAD: usize = HEAD_BYTES + PART_BYTES + 64;

/// Whose commands a part of an operation has.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) at: usize,
    pub(super) id: u64,
    /// Keys that have got something for which others may wait.
    pub(super) wakes: Vec<Vec<u8>>,
}

/// What became of a part.
#[derive(Debug)]
pub(super) enum PartReply<'a> {
    /// So many of its commands were executed, and these are their replies.
    Replies(u32, &'a [u8]),
    /// It was not executed, for this reason.
    Refused(String),
    /// It is not known whether it was executed, for this reason.
    Uncertain(String),
}

/// An operation that is being made.
struct Open {
    writer: Writer,
    parts: Vec<Part>,
    kind: RequestKind,
}

/// The operations of a gateway.
pub(super) struct Operations {
    longest: usize,
    reply_limit: u32,
    open: Vec<Open>,
    under_way: HashMap<u64, Vec<Part>>,
    next: u64,
    outcomes: Outcomes,
    waker: Arc<Waker>,
    /// Connections that found no room.
    refused: Vec<usize>,
    /// Keeps its memory from one part to the next.
    encoded: Vec<u8>,
}

impl Operations {
    pub(super) fn new(longest: u32, longest_reply: u32, waker: Arc<Waker>) -> Self {
        Self {
            longest: longest as usize,
            reply_limit: longest_reply,
            open: Vec::new(),
            under_way: HashMap::new(),
            next: 0,
            outcomes: Outcomes::default(),
            waker,
            refused: Vec::new(),
            encoded: Vec::new(),
        }
    }

    /// How long a request may be in RESP. In an operation each argument has a head of four bytes, and in RESP
    /// one of five at least.
    pub(super) fn longest_request(&self) -> usize {
        self.longest.saturating_sub(OVERHEAD).max(1)
    }

    pub(super) fn take_outcomes(&self) -> Vec<(u64, CallResult)> {
        std::mem::take(&mut lock(&self.outcomes))
    }

    pub(super) fn finished(&mut self, operation: u64) -> Option<Vec<Part>> {
        self.under_way.remove(&operation)
    }

    /// Connections that found no room: they are looked at again when an operation has ended.
    pub(super) fn take_refused(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.refused)
    }

    /// Puts commands into an operation; gives the part back if there is none that they fit into now.
    pub(super) fn add(
        &mut self,
        part: Part,
        head: &Head<'_>,
        commands: &[u8],
        options: &GatewayOptions,
    ) -> Result<(), Part> {
        let watched: usize = head.watches.iter().map(Watch::bytes).sum();
        let length = PART_BYTES + watched + commands.len();
        let kind = if head.is_read && options.queries {
            RequestKind::ReadOnly
        } else {
            RequestKind::Ordered
        };
        let longest = MERGED_BYTES.min(self.longest);
        let fits = |open: &Open| {
            open.kind == kind && (open.parts.is_empty() || open.writer.len() + length <= longest)
        };
        let place = match self.open.iter().position(fits) {
            Some(place) => place,
            None if self.under_way.len() + self.open.len() < options.operations.max(2) => {
                let writer = Writer::new(self.reply_limit);
                self.open.push(Open { writer, parts: Vec::new(), kind });
                self.open.len() - 1
            }
            None => return Err(part),
        };
        let open = &mut self.open[place];
        let (resp3, database) = (head.resp3, head.database);
        let place = open.writer.begin_part(resp3, head.is_atomic, database, head.watches);
        open.writer.command(commands);
        open.writer.end_part(place, head.commands);
        open.parts.push(part);
        Ok(())
    }

    /// Sends the operations that were made.
    pub(super) fn submit_open(&mut self, client: &Client) {
        for open in self.open.drain(..) {
            let number = self.next;
            self.next += 1;
            self.under_way.insert(number, open.parts);
            let (outcomes, waker) = (Arc::clone(&self.outcomes), Arc::clone(&self.waker));
            // If it is not taken, the function is told as well.
            let _ = client.submit_with(open.writer.bytes(), open.kind, move |result| {
                let is_first = {
                    let mut outcomes = lock(&outcomes);
                    outcomes.push((number, result));
                    outcomes.len() == 1
                };
                if is_first {
                    let _ = waker.wake();
                }
            });
        }
    }
}

/// What is in front of the commands of a part.
pub(super) struct Head<'a> {
    pub(super) resp3: bool,
    pub(super) is_atomic: bool,
    pub(super) is_read: bool,
    pub(super) database: u8,
    pub(super) watches: &'a [Watch],
    pub(super) commands: u32,
}

/// The reply to each part of an operation.
pub(super) struct Replies {
    parts: std::vec::IntoIter<Part>,
    result: Result<Vec<u8>, PartReply<'static>>,
    at: usize,
}

/// Takes the result of an operation apart.
pub(super) fn replies(parts: Vec<Part>, result: CallResult) -> Replies {
    let parts = parts.into_iter();
    let result = match result {
        Ok(reply) if reply.first() == Some(&DONE) => Ok(reply),
        Ok(_) => Err(PartReply::Refused(
            "ERR the group runs another service, or a version that does not know this gateway: \
             start its replicas with --service redis"
                .into(),
        )),
        Err(error) => Err(failure(&error)),
    };
    Replies { parts, result, at: 1 }
}

fn failure(error: &CallError) -> PartReply<'static> {
    match error {
        CallError::Overloaded | CallError::Busy { .. } | CallError::TooLong { .. } => {
            PartReply::Refused(format!("TRYAGAIN {error}"))
        }
        CallError::ClockBehind => PartReply::Refused(format!("ERR {error}")),
        error => PartReply::Uncertain(format!("ERR {error}")),
    }
}

impl Replies {
    pub(super) fn next(&mut self) -> Option<(Part, PartReply<'_>)> {
        let part = self.parts.next()?;
        let reply = match &self.result {
            Err(PartReply::Refused(text)) => PartReply::Refused(text.clone()),
            Err(PartReply::Uncertain(text)) => PartReply::Uncertain(text.clone()),
            Err(PartReply::Replies(..)) => return None,
            Ok(bytes) => {
                let mut reader = Reader(&bytes[self.at.min(bytes.len())..]);
                let before = reader.0.len();
                let mut read = || Some((reader.u32()?, reader.bytes()?));
                let Some((executed, replies)) = read() else {
                    let text = "ERR the group's reply is cut off".to_owned();
                    return Some((part, PartReply::Uncertain(text)));
                };
                self.at += before - reader.0.len();
                PartReply::Replies(executed, replies)
            }
        };
        Some((part, reply))
    }
}

impl Shared {
    /// Does what a connection asks for, as far as it can be done now.
    pub(super) fn advance(&mut self, at: usize, connection: &mut Connection) {
        while connection.waiting.is_none()
            && !connection.is_closing
            && !connection.is_broken
            && connection.pending_output() < OUTPUT_BYTES
        {
            if !self.next_commands(at, connection) {
                break;
            }
        }
    }

    /// Takes the next commands from the input: some that the group is asked to execute together, or one that is
    /// answered here. Whether there may be more to do.
    fn next_commands(&mut self, at: usize, connection: &mut Connection) -> bool {
        let mut encoded = std::mem::take(&mut self.operations.encoded);
        encoded.clear();
        let (mut ends, mut wakes) = (Vec::new(), Vec::new());
        let mut is_read = true;
        let mut cursor = connection.start;
        let limit = MERGED_BYTES.min(self.bounds.request_bytes);
        let mut request = std::mem::take(&mut connection.request);
        let mut goes_on = false;
        while ends.len() < COMMANDS && encoded.len() < limit {
            let length = match request.read(&connection.input[cursor..], self.bounds) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) if ends.is_empty() => {
                    local::protocol_error(connection, &error.0);
                    break;
                }
                // It is met again when the commands before it are answered.
                Err(_) => break,
            };
            let end = cursor + length;
            let input = std::mem::take(&mut connection.input);
            let arguments = request.of(&input[cursor..]);
            let command = arguments.first().and_then(|name| find(name));
            let is_for_group =
                !arguments.is_empty() && group_takes(connection, command, &arguments);
            let is_local = !is_for_group || ends.is_empty() && is_answered_here(command);
            if is_local && !ends.is_empty() {
                connection.input = input;
                request.clear();
                break;
            }
            if is_local {
                self.commands += u64::from(!arguments.is_empty());
                let taken =
                    arguments.is_empty() || self.answer(at, connection, command, &arguments, end);
                drop(arguments);
                connection.input = input;
                goes_on = taken;
                if taken && connection.waiting.is_none() {
                    request.clear();
                    connection.request = request;
                    self.operations.encoded = encoded;
                    connection.answered(end);
                    return true;
                }
                request.clear();
                break;
            }
            let before = encoded.len();
            encode_command(&arguments, &mut encoded);
            if !ends.is_empty() && encoded.len() > limit {
                encoded.truncate(before);
                drop(arguments);
                connection.input = input;
                request.clear();
                break;
            }
            is_read &=
                command.is_some_and(|command| command.is_read() && command.takes(arguments.len()));
            self.blocked.note_wakes(command, &arguments, &mut wakes);
            drop(arguments);
            connection.input = input;
            request.clear();
            ends.push(end);
            cursor = end;
        }
        connection.request = request;
        if !ends.is_empty() {
            self.commands += ends.len() as u64;
            let head = Head {
                resp3: connection.speaks_resp3,
                is_atomic: false,
                is_read,
                database: connection.database,
                watches: &[],
                commands: ends.len() as u32,
            };
            // What was read on behind these is read again when they are answered.
            let part = Part { at, id: connection.id, wakes };
            let added = self.operations.add(part, &head, &encoded, &self.options);
            connection.request.clear();
            match added {
                Ok(()) => connection.waiting = Some(Waiting::Batch(ends)),
                Err(part) => {
                    self.commands -= ends.len() as u64;
                    self.operations.refused.push(part.at);
                }
            }
            goes_on = false;
        }
        self.operations.encoded = encoded;
        goes_on
    }

    /// Has the group execute what is no batch; `false` if there is no room now, and it must be tried again.
    pub(super) fn ask(
        &mut self,
        at: usize,
        connection: &mut Connection,
        head: &Head<'_>,
        commands: &[u8],
        wakes: Vec<Vec<u8>>,
        waiting: Waiting,
    ) -> bool {
        let part = Part { at, id: connection.id, wakes };
        match self.operations.add(part, head, commands, &self.options) {
            Ok(()) => {
                connection.waiting = Some(waiting);
                true
            }
            Err(part) => {
                self.operations.refused.push(part.at);
                false
            }
        }
    }

    /// Takes the reply that a connection waits for.
    pub(super) fn take_reply(
        &mut self,
        at: usize,
        connection: &mut Connection,
        reply: PartReply<'_>,
    ) {
        let Some(waiting) = connection.waiting.take() else { return };
        let (executed, bytes) = match reply {
            PartReply::Replies(executed, bytes) => (executed, bytes),
            PartReply::Refused(text) => {
                self.blocked.is_served(at);
                return refused(connection, waiting, &text);
            }
            PartReply::Uncertain(text) => {
                // What is behind it must not be executed before it, so nothing more is.
                local::error(connection, &text);
                connection.is_closing = true;
                return;
            }
        };
        match waiting {
            Waiting::Batch(ends) => {
                connection.output.extend_from_slice(bytes);
                let last = (executed as usize).min(ends.len()).checked_sub(1);
                if let Some(last) = last {
                    connection.answered(ends[last]);
                }
            }
            Waiting::Exec { end, database } => {
                connection.output.extend_from_slice(bytes);
                if !is_null(bytes) {
                    connection.database = database;
                }
                connection.answered(end);
            }
            Waiting::Versions { end, keys } => {
                self.watched(connection, keys, bytes);
                connection.answered(end);
            }
            Waiting::Attempt { end } if is_null(bytes) => self.block(at, connection, end),
            Waiting::Attempt { end } => {
                connection.output.extend_from_slice(bytes);
                connection.answered(end);
                self.blocked.is_served(at);
            }
            waiting @ Waiting::Element { .. } => connection.waiting = Some(waiting),
        }
    }
}

fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"*-1\r\n" | b"_\r\n")
}

/// A command was not executed, and its connection is told so.
fn refused(connection: &mut Connection, waiting: Waiting, text: &str) {
    let (count, end) = match waiting {
        Waiting::Batch(ends) => (ends.len(), ends.last().copied()),
        Waiting::Exec { end, .. }
        | Waiting::Versions { end, .. }
        | Waiting::Attempt { end }
        | Waiting::Element { end, .. } => (1, Some(end)),
    };
    (0..count).for_each(|_| local::error(connection, text));
    connection.answered(end.unwrap_or(connection.start));
}

/// Whether a command goes to the group with those before it.
fn group_takes(connection: &Connection, command: Option<&Command>, arguments: &[&[u8]]) -> bool {
    let is_plain = connection.transaction.is_none()
        && connection.is_authenticated
        && (!connection.is_subscribed() || connection.speaks_resp3);
    let takes = command.is_some_and(|command| {
        matches!(command.run, Kindness::Read(_) | Kindness::Write(_))
            && command.takes(arguments.len())
            && !command.waits()
            && command.name != crate::service::VERSIONS
    });
    is_plain && takes
}

/// Whether a command that the group could answer is answered by the gateway, if nothing is before it.
fn is_answered_here(command: Option<&Command>) -> bool {
    command.is_some_and(|command| matches!(command.name, "PING" | "ECHO"))
}
