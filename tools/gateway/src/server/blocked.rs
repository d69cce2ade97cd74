//! Connections that wait for an element: BLPOP and the like.
//!
//! The group never waits. It is asked again when a command of this gateway has put something into a key that
//! somebody waits for, and now and then for what came by others. Those who have waited longest are first.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::batch::Head;
use super::connection::{Connection, Waiting};
use super::{Shared, local};
use crate::operation::encode_command;
use crate::service::{Arguments, Command, wait_of};

/// How often the group is asked for what came by other gateways.
const LOOK: Duration = Duration::from_millis(250);
/// Connections that ask at once.
const ASKING: usize = 256;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// By when they began.
    waiting: BTreeMap<u64, Waiter>,
    /// Since when each connection waits, its attempts among that.
    since: HashMap<usize, u64>,
    by_key: HashMap<Vec<u8>, BTreeSet<u64>>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Those who ask in the next turn.
    awake: BTreeSet<u64>,
    next: u64,
    next_look: Option<Instant>,
    /// Since when and until when those wait who are asking the group now.
    asking: HashMap<usize, (u64, Option<Instant>)>,
}

#[derive(Debug)]
struct Waiter {
    at: usize,
    id: u64,
    deadline: Option<Instant>,
    keys: Vec<Vec<u8>>,
}

impl Blocked {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Notes the keys of a command that may give those who wait something.
    pub(super) fn note_wakes(
        &self,
        command: Option<&Command>,
        args: Arguments<'_>,
        wakes: &mut Vec<Vec<u8>>,
    ) {
        if self.waiting.is_empty() && self.asking.is_empty() {
            return;
        }
        if command.is_none_or(Command::is_read) {
            return;
        }
        let wanted = args[1..].iter().filter(|key| self.by_key.contains_key(**key));
        wakes.extend(wanted.map(|key| key.to_vec()));
        if !self.asking.is_empty() {
            // They may be about to wait for it.
            wakes.extend(args[1..].iter().take(2).map(|key| key.to_vec()));
        }
    }

    /// Something was put into these keys.
    pub(super) fn wake(&mut self, keys: &[Vec<u8>]) {
        for key in keys {
            if let Some(waiting) = self.by_key.get(key) {
                self.awake.extend(waiting.iter().take(ASKING));
            }
        }
    }

    fn add(&mut self, since: u64, waiter: Waiter) {
        for key in &waiter.keys {
            self.by_key.entry(key.clone()).or_default().insert(since);
        }
        if let Some(deadline) = waiter.deadline {
            self.deadlines.insert((deadline, since));
        }
        self.since.insert(waiter.at, since);
        self.waiting.insert(since, waiter);
    }

    fn take(&mut self, since: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&since)?;
        self.awake.remove(&since);
        self.since.remove(&waiter.at);
        for key in &waiter.keys {
            if let Some(all) = self.by_key.get_mut(key) {
                all.remove(&since);
                if all.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, since));
        }
        Some(waiter)
    }

    /// A connection has ended.
    pub(super) fn forget(&mut self, at: usize) {
        if let Some(since) = self.since.get(&at).copied() {
            self.take(since);
        }
        self.asking.remove(&at);
    }

    /// An attempt has got something.
    pub(super) fn is_served(&mut self, at: usize) {
        self.asking.remove(&at);
    }

    /// Those whose wait is over.
    pub(super) fn due(&self, now: Instant) -> Vec<(usize, u64)> {
        let due = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        due.filter_map(|(_, since)| self.waiting.get(since)).map(|it| (it.at, it.id)).collect()
    }

    /// Those who ask again now, those who have waited longest first.
    pub(super) fn awakened(&mut self, now: Instant) -> Vec<(usize, u64)> {
        if self.next_look.is_none_or(|next| next <= now) {
            self.next_look = Some(now + LOOK);
            self.awake.extend(self.waiting.keys().take(ASKING));
        }
        let awake = std::mem::take(&mut self.awake);
        let found = awake.iter().filter_map(|since| self.waiting.get(since));
        found.map(|waiter| (waiter.at, waiter.id)).collect()
    }

    /// Tells a connection that there was nothing.
    pub(super) fn end_wait(&mut self, at: usize, connection: &mut Connection) {
        let Some(since) = self.since.get(&at).copied() else { return };
        self.take(since);
        if let Some(Waiting::Element { end, .. }) = connection.waiting.take() {
            local::replies(connection).null_array();
            connection.answered(end);
        }
    }
}

fn keys_of(command: &Command, args: Arguments<'_>) -> Vec<Vec<u8>> {
    let keys = match command.name {
        "BLMOVE" | "BRPOPLPUSH" => &args[1..2],
        _ => &args[1..args.len() - 1],
    };
    keys.iter().map(|key| key.to_vec()).collect()
}

impl Shared {
    /// Has the group carry out a command that may have to wait.
    pub(super) fn attempt(
        &mut self,
        at: usize,
        connection: &mut Connection,
        command: &'static Command,
        args: Arguments<'_>,
        end: usize,
    ) -> bool {
        let wait = args[args.len() - 1];
        let ms = match wait_of(wait) {
            Ok(ms) => ms,
            Err(refusal) => {
                local::error(connection, &refusal);
                return true;
            }
        };
        let deadline = (ms > 0).then(|| Instant::now().checked_add(Duration::from_millis(ms)));
        let since = self.blocked.next;
        let has_room = self.send_attempt(at, connection, command, args, end);
        if has_room {
            self.blocked.next += 1;
            self.blocked.asking.insert(at, (since, deadline.flatten()));
        }
        has_room
    }

    fn send_attempt(
        &mut self,
        at: usize,
        connection: &mut Connection,
        command: &Command,
        args: Arguments<'_>,
        end: usize,
    ) -> bool {
        let mut encoded = Vec::new();
        encode_command(args, &mut encoded);
        let head = Head {
            resp3: connection.speaks_resp3,
            is_atomic: false,
            is_read: false,
            database: connection.database,
            watches: &[],
            commands: 1,
        };
        let mut wakes = Vec::new();
        self.blocked.note_wakes(Some(command), args, &mut wakes);
        self.ask(at, connection, &head, &encoded, wakes, Waiting::Attempt { end })
    }

    /// There was nothing: the connection waits.
    pub(super) fn block(&mut self, at: usize, connection: &mut Connection, end: usize) {
        let Some((since, deadline)) = self.blocked.asking.remove(&at) else { return };
        let mut request = super::request::Request::default();
        let Ok(Some(_)) = request.read(&connection.input[connection.start..end], self.bounds)
        else {
            return;
        };
        let args = request.of(&connection.input[connection.start..]);
        let Some(command) = crate::service::find(args[0]) else { return };
        let keys = keys_of(command, &args);
        connection.waiting = Some(Waiting::Element { end });
        self.blocked.add(since, Waiter { at, id: connection.id, deadline, keys });
    }

    /// A connection that waits asks again.
    pub(super) fn attempt_again(&mut self, at: usize, connection: &mut Connection) {
        let Some(Waiting::Element { end }) = connection.waiting else { return };
        let Some(since) = self.blocked.since.get(&at).copied() else { return };
        let mut request = super::request::Request::default();
        let input = std::mem::take(&mut connection.input);
        let read = request.read(&input[connection.start..end], self.bounds);
        if let Ok(Some(_)) = read {
            let args = request.of(&input[connection.start..]);
            let command = crate::service::find(args[0]);
            let has_asked =
                command.is_some_and(|it| self.send_attempt(at, connection, it, &args, end));
            if !has_asked {
                // When an operation has ended there is room.
                self.blocked.awake.insert(since);
            } else if let Some(waiter) = self.blocked.take(since) {
                self.blocked.asking.insert(at, (since, waiter.deadline));
            }
        }
        connection.input = input;
    }
}
