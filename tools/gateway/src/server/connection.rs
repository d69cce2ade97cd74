//! One Redis connection: its socket, what has arrived and what is to be sent, and what it has asked for.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

use super::request::Request;
use crate::operation::Watch;

/// Bytes that are read at once, so that connections take turns.
const READ_BYTES: usize = 64 << 10;
/// A buffer that is empty and longer is given back.
const KEPT_BYTES: usize = 16 << 10;

/// What a connection waits for. Until then nothing of it is read.
#[derive(Debug)]
pub(super) enum Waiting {
    /// The replies to commands, each of which ends here in the input.
    Batch(Vec<usize>),
    /// The reply to EXEC.
    Exec {
        /// Where EXEC ends in the input.
        end: usize,
        /// The database that a SELECT among its commands chose.
        database: u8,
    },
    /// The versions of keys that are watched from now on.
    Versions { end: usize, keys: Vec<Vec<u8>> },
    /// The reply to a command that may have to wait.
    Attempt { end: usize },
    /// An element: see `blocked.rs`.
    Element { end: usize },
}

/// Commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// In the form of operations.
    pub(super) encoded: Vec<u8>,
    pub(super) commands: u32,
    /// Whether one of them cannot be executed.
    pub(super) is_spoilt: bool,
    /// The database that the commands choose.
    pub(super) database: Option<u8>,
    /// Keys that somebody may wait for.
    pub(super) wakes: Vec<Vec<u8>>,
}

impl Transaction {
    /// What it holds at most, in bytes: each key in `wakes` is an argument of a command, too.
    fn held(&self) -> usize {
        const KEY: usize = size_of::<Vec<u8>>() + 16;
        2 * self.encoded.capacity() + self.wakes.capacity() * KEY
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) socket: TcpStream,
    pub(super) input: Vec<u8>,
    /// Up to here the input was answered.
    pub(super) start: usize,
    pub(super) request: Request,
    pub(super) output: Vec<u8>,
    /// Up to here the output was sent.
    sent: usize,
    /// Whether the socket may have more to read.
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// Whether it is in the list of those that are looked at in this turn.
    pub(super) is_listed: bool,
    /// It is closed when its output was sent.
    pub(super) is_closing: bool,
    /// Nothing can be sent any more.
    pub(super) is_broken: bool,
    pub(super) waiting: Option<Waiting>,
    pub(super) database: u8,
    pub(super) speaks_resp3: bool,
    pub(super) is_authenticated: bool,
    pub(super) name: Vec<u8>,
    pub(super) transaction: Option<Transaction>,
    pub(super) watches: Vec<Watch>,
    pub(super) channels: BTreeSet<Vec<u8>>,
    pub(super) patterns: BTreeSet<Vec<u8>>,
    /// Bytes of all names in these.
    pub(super) subscribed_bytes: usize,
    /// What it had buffered when that was counted last.
    pub(super) counted: usize,
}

impl Connection {
    pub(super) fn new(id: u64, socket: TcpStream, is_authenticated: bool) -> Self {
        Self {
            id,
            socket,
            input: Vec::new(),
            start: 0,
            request: Request::default(),
            output: Vec::new(),
            sent: 0,
            is_readable: true,
            is_writable: true,
            is_listed: false,
            is_closing: false,
            is_broken: false,
            waiting: None,
            database: 0,
            speaks_resp3: false,
            is_authenticated,
            name: Vec::new(),
            transaction: None,
            watches: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            subscribed_bytes: 0,
            counted: 0,
        }
    }

    /// Bytes that have arrived and were not answered.
    pub(super) fn pending_input(&self) -> usize {
        self.input.len() - self.start
    }

    /// Bytes that wait to be sent.
    pub(super) fn pending_output(&self) -> usize {
        self.output.len() - self.sent
    }

    /// What it holds, in bytes.
    pub(super) fn held(&self) -> usize {
        let transaction = self.transaction.as_ref().map_or(0, Transaction::held);
        let buffers = self.input.capacity() + self.output.capacity() + self.request.held();
        buffers + transaction + self.watched_bytes() + self.subscribed_bytes
    }

    /// Bytes of the keys that it watches, as an operation has them.
    pub(super) fn watched_bytes(&self) -> usize {
        self.watches.iter().map(Watch::bytes).sum()
    }

    pub(super) fn is_subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// Reads what is there, but no more than fits below a limit, and not everything at once.
    pub(super) fn receive(&mut self, limit: usize, scratch: &mut [u8]) {
        let room = limit.saturating_sub(self.pending_input()).min(READ_BYTES).min(scratch.len());
        if !self.is_readable || room == 0 || self.is_closing {
            return;
        }
        match self.socket.read(&mut scratch[..room]) {
            Ok(0) => self.is_broken = true,
            Ok(count) => {
                self.input.extend_from_slice(&scratch[..count]);
                self.is_readable = count == room;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.is_broken = true,
        }
    }

    /// The input up to here is answered.
    pub(super) fn answered(&mut self, end: usize) {
        self.start = end;
        self.request.clear();
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
            if self.input.capacity() > KEPT_BYTES {
                self.input = Vec::new();
            }
        } else if self.start > self.input.len() / 2 && self.waiting.is_none() {
            self.input.drain(..self.start);
            self.start = 0;
        }
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) {
        while self.is_writable && self.sent < self.output.len() && !self.is_broken {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.is_broken = true,
            }
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            if self.output.capacity() > KEPT_BYTES {
                self.output = Vec::new();
            }
        } else if self.sent > KEPT_BYTES && self.sent > self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether it is to be closed now.
    pub(super) fn has_ended(&self) -> bool {
        self.is_broken || self.is_closing && self.pending_output() == 0
    }
}
