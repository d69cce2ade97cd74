//! PUBLISH and SUBSCRIBE, within one gateway: a message reaches those who are subscribed here.

use std::collections::BTreeSet;

use super::connection::Connection;
use super::local::{error, replies};
use super::{ByName, Shared};
use crate::glob;
use crate::reply::Replies;
use crate::service::{Arguments, SYNTAX, is};

/// Bytes that wait for a subscriber before it is closed, as one that does not read.
const OUTPUT_BYTES: usize = 8 << 20;
/// Bytes of the names that one connection is subscribed to.
const SUBSCRIBED_BYTES: usize = 1 << 20;
/// What a name takes besides its bytes.
const NAME_BYTES: usize = 64;

/// Who is subscribed to what.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_channel: ByName,
    by_pattern: ByName,
    /// Connections that speak RESP3.
    resp3: BTreeSet<usize>,
    /// Messages of this turn, in the order in which they came.
    messages: Vec<(usize, Vec<u8>)>,
}

impl Channels {
    pub(super) fn take_messages(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.messages)
    }

    /// A connection is subscribed to nothing any more.
    pub(super) fn forget(&mut self, at: usize, connection: &Connection) {
        for channel in &connection.channels {
            leave(&mut self.by_channel, channel, at);
        }
        for pattern in &connection.patterns {
            leave(&mut self.by_pattern, pattern, at);
        }
        self.resp3.remove(&at);
    }

    /// Hands a message to all who are subscribed; how often it was.
    pub(super) fn publish(&mut self, channel: &[u8], message: &[u8]) -> usize {
        let before = self.messages.len();
        let speaks_resp3 = |at: &usize| self.resp3.contains(at);
        let mut made = Vec::new();
        for at in self.by_channel.get(channel).into_iter().flatten() {
            let mut bytes = Vec::new();
            let mut out = Replies::new(&mut bytes, speaks_resp3(at), usize::MAX);
            out.push(3);
            [b"message", channel, message].iter().for_each(|part| out.bulk(part));
            made.push((*at, bytes));
        }
        for (pattern, subscribed) in &self.by_pattern {
            if !glob::matches(pattern, channel) {
                continue;
            }
            for at in subscribed {
                let mut bytes = Vec::new();
                let mut out = Replies::new(&mut bytes, speaks_resp3(at), usize::MAX);
                out.push(4);
                [b"pmessage", &**pattern, channel, message].iter().for_each(|part| out.bulk(part));
                made.push((*at, bytes));
            }
        }
        self.messages.extend(made);
        self.messages.len() - before
    }
}

fn leave(by_name: &mut ByName, name: &[u8], at: usize) {
    if let Some(all) = by_name.get_mut(name) {
        all.remove(&at);
        if all.is_empty() {
            by_name.remove(name);
        }
    }
}

/// Gives a subscriber a message, or up on it if it does not read.
pub(super) fn hand_over(connection: &mut Connection, bytes: &[u8]) {
    if connection.pending_output() + bytes.len() > OUTPUT_BYTES {
        connection.is_broken = true;
    } else {
        connection.output.extend_from_slice(bytes);
    }
}

impl Shared {
    /// SUBSCRIBE, PSUBSCRIBE, UNSUBSCRIBE and PUNSUBSCRIBE.
    pub(super) fn subscribe(
        &mut self,
        at: usize,
        connection: &mut Connection,
        name: &str,
        args: Arguments<'_>,
    ) {
        let is_pattern = name.starts_with('P');
        let leaves = name.ends_with("UNSUBSCRIBE");
        let own = if is_pattern { &connection.patterns } else { &connection.channels };
        let names: Vec<Vec<u8>> = match args {
            [_] => own.iter().cloned().collect(),
            [_, names @ ..] => names.iter().map(|name| name.to_vec()).collect(),
            [] => Vec::new(),
        };
        let word = name.to_ascii_lowercase();
        if connection.speaks_resp3 {
            self.channels.resp3.insert(at);
        } else {
            self.channels.resp3.remove(&at);
        }
        if names.is_empty() {
            let left = connection.channels.len() + connection.patterns.len();
            let mut out = replies(connection);
            out.push(3);
            out.bulk(word.as_bytes());
            out.null();
            out.count(left);
        }
        for name in names {
            let bytes = name.len() + NAME_BYTES;
            let own = if is_pattern { &mut connection.patterns } else { &mut connection.channels };
            let by_name = if is_pattern {
                &mut self.channels.by_pattern
            } else {
                &mut self.channels.by_channel
            };
            if leaves {
                if own.remove(&name) {
                    leave(by_name, &name, at);
                    connection.subscribed_bytes -= bytes;
                }
            } else if !own.contains(&name) {
                if connection.subscribed_bytes + bytes > SUBSCRIBED_BYTES {
                    return error(connection, "ERR this connection is subscribed to too much");
                }
                own.insert(name.clone());
                by_name.entry(name.clone()).or_default().insert(at);
                connection.subscribed_bytes += bytes;
            }
            let left = connection.channels.len() + connection.patterns.len();
            let mut out = replies(connection);
            out.push(3);
            out.bulk(word.as_bytes());
            out.bulk(&name);
            out.count(left);
        }
    }

    /// PUBSUB CHANNELS, NUMSUB and NUMPAT.
    pub(super) fn tell_of_channels(&mut self, connection: &mut Connection, args: Arguments<'_>) {
        let channels = &self.channels;
        let mut out = replies(connection);
        match args {
            [_, word, pattern @ ..] if is(word, "channels") && pattern.len() < 2 => {
                let wanted = |name: &[u8]| pattern.iter().all(|it| glob::matches(it, name));
                let mut found: Vec<&Vec<u8>> =
                    channels.by_channel.keys().filter(|name| wanted(name)).collect();
                found.sort();
                out.array(found.len());
                found.iter().for_each(|name| out.bulk(name));
            }
            [_, word, names @ ..] if is(word, "numsub") => {
                out.array(names.len() * 2);
                for name in names {
                    out.bulk(name);
                    out.count(channels.by_channel.get(*name).map_or(0, BTreeSet::len));
                }
            }
            [_, word] if is(word, "numpat") => out.count(channels.by_pattern.len()),
            _ => error(connection, &SYNTAX),
        }
    }
}
