//! MULTI, EXEC and WATCH: commands are kept here until EXEC, and are one part of an operation then, with the
//! versions that watched keys had. The group executes all of them, or none if a version is another.

use super::Shared;
use super::batch::Head;
use super::connection::{Connection, Transaction, Waiting};
use super::local::{error, replies};
use crate::operation::{Watch, encode_command};
use crate::service::{Arguments, Command, Kindness, VERSIONS, keys};

/// The most commands of a transaction.
const COMMANDS: u32 = 100_000;
/// The most keys that a connection watches.
const WATCHES: usize = 1024;
/// And their bytes.
const WATCHED_BYTES: usize = 64 << 10;

impl Shared {
    pub(super) fn transact(
        &mut self,
        at: usize,
        connection: &mut Connection,
        name: &str,
        args: Arguments<'_>,
        end: usize,
    ) -> bool {
        match name {
            "MULTI" if connection.transaction.is_some() => {
                error(connection, "ERR MULTI calls can not be nested");
            }
            "MULTI" => {
                connection.transaction = Some(Transaction::default());
                replies(connection).ok();
            }
            "WATCH" if connection.transaction.is_some() => {
                error(connection, "ERR WATCH inside MULTI is not allowed");
            }
            "WATCH" => return self.watch(at, connection, args, end),
            "UNWATCH" if connection.transaction.is_some() => {
                // What is watched is forgotten by EXEC anyway: a command of the group takes its place, so that
                // there is a reply.
                self.queue_as(connection, &[b"ECHO", b"OK"]);
            }
            "UNWATCH" => {
                connection.watches.clear();
                replies(connection).ok();
            }
            "DISCARD" if connection.transaction.take().is_some() => {
                connection.watches.clear();
                replies(connection).ok();
            }
            "DISCARD" => error(connection, "ERR DISCARD without MULTI"),
            _ => return self.exec(at, connection, end),
        }
        true
    }

    /// Keeps a command for EXEC.
    pub(super) fn queue(
        &mut self,
        connection: &mut Connection,
        command: &Command,
        args: Arguments<'_>,
    ) {
        let Some(transaction) = &mut connection.transaction else { return };
        if matches!(command.run, Kindness::Gateway) {
            transaction.is_spoilt = true;
            let text = format!("ERR {} cannot be used between MULTI and EXEC here", command.name);
            return error(connection, &text);
        }
        if matches!(command.run, Kindness::Select)
            && let Ok(database) = keys::database(args[1])
        {
            transaction.database = Some(database);
        }
        self.blocked.note_wakes(Some(command), args, &mut transaction.wakes);
        self.queue_as(connection, args);
    }

    fn queue_as(&mut self, connection: &mut Connection, args: Arguments<'_>) {
        let watched = connection.watched_bytes();
        let Some(transaction) = &mut connection.transaction else { return };
        let before = transaction.encoded.len();
        encode_command(args, &mut transaction.encoded);
        let is_too_long = transaction.encoded.len() + watched > self.bounds.request_bytes;
        if is_too_long || transaction.commands >= COMMANDS {
            transaction.encoded.truncate(before);
            transaction.is_spoilt = true;
            return error(
                connection,
                "ERR the transaction is longer than the group's max_operation_bytes allows",
            );
        }
        transaction.commands += 1;
        replies(connection).status("QUEUED");
    }

    fn exec(&mut self, at: usize, connection: &mut Connection, end: usize) -> bool {
        let Some(transaction) = connection.transaction.take() else {
            error(connection, "ERR EXEC without MULTI");
            return true;
        };
        let watches = std::mem::take(&mut connection.watches);
        if transaction.is_spoilt {
            error(connection, "EXECABORT Transaction discarded because of previous errors.");
            return true;
        }
        let head = Head {
            resp3: connection.speaks_resp3,
            is_atomic: true,
            is_read: false,
            database: connection.database,
            watches: &watches,
            commands: transaction.commands,
        };
        let database = transaction.database.unwrap_or(connection.database);
        let waiting = Waiting::Exec { end, database };
        let wakes = transaction.wakes.clone();
        let has_room = self.ask(at, connection, &head, &transaction.encoded, wakes, waiting);
        if !has_room {
            (connection.transaction, connection.watches) = (Some(transaction), watches);
        }
        has_room
    }

    fn watch(
        &mut self,
        at: usize,
        connection: &mut Connection,
        args: Arguments<'_>,
        end: usize,
    ) -> bool {
        let more: usize = args[1..].iter().map(|key| key.len()).sum();
        let bytes = connection.watched_bytes() + more;
        if connection.watches.len() + args.len() - 1 > WATCHES || bytes > WATCHED_BYTES {
            error(connection, "ERR too many keys are watched");
            return true;
        }
        let mut command = vec![VERSIONS.as_bytes()];
        command.extend(&args[1..]);
        let mut encoded = Vec::new();
        encode_command(&command, &mut encoded);
        let head = Head {
            resp3: connection.speaks_resp3,
            is_atomic: false,
            is_read: false,
            database: connection.database,
            watches: &[],
            commands: 1,
        };
        let keys = args[1..].iter().map(|key| key.to_vec()).collect();
        self.ask(at, connection, &head, &encoded, Vec::new(), Waiting::Versions { end, keys })
    }

    /// Takes the versions of keys that are watched from now on.
    pub(super) fn watched(
        &mut self,
        connection: &mut Connection,
        keys: Vec<Vec<u8>>,
        reply: &[u8],
    ) {
        let mut lines = reply.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let count = lines.next().and_then(|line| line.strip_prefix(b"*"));
        if count != Some(keys.len().to_string().as_bytes()) {
            let text = String::from_utf8_lossy(reply).trim_start_matches('-').trim_end().to_owned();
            return error(connection, &text);
        }
        let database = connection.database;
        for (key, line) in keys.into_iter().zip(lines) {
            let version = line.strip_prefix(b":").and_then(crate::number::integer);
            // One that cannot be read is that of no key, so that EXEC fails.
            let version = version.and_then(|it| u64::try_from(it).ok()).unwrap_or(u64::MAX);
            let is_same = |it: &Watch| it.database == database && it.key == key;
            // The first version counts.
            if !connection.watches.iter().any(is_same) {
                connection.watches.push(Watch { database, version, key });
            }
        }
        replies(connection).ok();
    }
}
