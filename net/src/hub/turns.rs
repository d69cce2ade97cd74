//! How much of what arrived over a link one poll reports, and whether a link is read at all.
//!
//! Whoever uses the hub handles what a poll reports before it polls again. Without a share, whoever
//! sends most makes a turn long and has all others wait for its end. So a poll reports of one source at
//! most [`Limits::turn_bytes`](crate::Limits::turn_bytes) and what one read brought; a client counts as
//! one source, however many links it has. What is beyond it is reported by the next polls, undecrypted
//! until then, and a link with more than a quarter of a share of that is not read. Who has had more than
//! a share, as a read brought more or as it cost more ([`Hub::charge_peer`]), waits so many turns longer;
//! they pass quickly if nobody else has something to do.
//!
//! A link is read unless one of three does not want it: all clients are paused, its owner paused it, or
//! it has arrears.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use super::event::{LinkId, Source};
use super::outbound::Live;
use super::{Hub, State, find, find_peer};
use crate::transport::{ConnectionId, Transport};

/// What a message counts beside its bytes: handling one costs something whatever its length.
const MESSAGE_COST: u64 = 1024;
/// A source waits no longer than this many turns, whatever it cost: also one that was charged wrongly
/// must be heard again.
const MOST_TURNS: u64 = 256;
/// A link is not read while it has more in arrears than this part of a share.
const LONG: u64 = 4;

/// What arrived over a link and was not looked at.
#[derive(Debug, Default)]
pub(super) struct Arrears {
    blocks: VecDeque<BytesMut>,
    bytes: usize,
    /// Whether they are why the link is not read.
    are_long: bool,
}

impl Arrears {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, data: BytesMut) {
        self.bytes += data.len();
        self.blocks.push_back(data);
    }

    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        let block = self.blocks.pop_front()?;
        self.bytes -= block.len();
        Some(block)
    }
}

/// What each source has had of the present turn.
#[derive(Debug)]
pub(super) struct Turns {
    share: u64,
    /// By replica id.
    peers: Vec<u64>,
    clients: HashMap<u32, u64>,
    /// Links with arrears, each once, those first whose turn it is.
    waiting: VecDeque<ConnectionId>,
}

impl Turns {
    pub(super) fn new(share: usize) -> Self {
        let (peers, clients, waiting) = (Vec::new(), HashMap::new(), VecDeque::new());
        Self { share: share as u64, peers, clients, waiting }
    }

    /// Whether some link has arrears.
    pub(super) fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A new turn begins. Who had more than a share waits the longer.
    #[inline]
    fn begin(&mut self) {
        let share = self.share;
        self.peers.iter_mut().for_each(|spent| *spent = spent.saturating_sub(share));
        if !self.clients.is_empty() {
            self.clients.retain(|_, spent| {
                *spent = spent.saturating_sub(share);
                *spent > 0
            });
        }
    }

    #[inline]
    fn spent(&mut self, source: Source) -> &mut u64 {
        match source {
            Source::Peer(peer) => {
                let index = usize::from(peer);
                if self.peers.len() <= index {
                    self.peers.resize(index + 1, 0);
                }
                &mut self.peers[index]
            }
            Source::Client { client, .. } => self.clients.entry(client).or_default(),
        }
    }

    /// Whether a source has had its share.
    #[inline]
    pub(super) fn is_over(&mut self, source: Source) -> bool {
        let share = self.share;
        *self.spent(source) >= share
    }

    /// A frame of a source is reported.
    #[inline]
    pub(super) fn spend(&mut self, source: Source, bytes: usize, messages: usize) {
        let most = MOST_TURNS * self.share;
        let spent = self.spent(source);
        *spent = (*spent + bytes as u64 + MESSAGE_COST * messages as u64).min(most);
    }

    /// A link has arrears.
    pub(super) fn wait(&mut self, link: ConnectionId) {
        self.waiting.push_back(link);
    }
}

impl<T: Transport> Hub<T> {
    /// Begins a turn with what is left of the last one.
    pub(super) fn begin_turn(&mut self) {
        self.turns.begin();
        for _ in 0..self.turns.waiting.len() {
            let Some(id) = self.turns.waiting.pop_front() else { break };
            self.take_arrears(id, false);
        }
    }

    /// Looks at what has arrived over a link earlier, up to its share or `all` of it.
    pub(super) fn take_arrears(&mut self, id: ConnectionId, all: bool) {
        loop {
            let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
            else {
                return;
            };
            if !all && self.turns.is_over(live.source) && !live.arrears.is_empty() {
                self.turns.wait(id);
                break;
            }
            let Some(block) = live.arrears.pop() else { break };
            live.link.opener.push(block);
            self.open_frames(id);
        }
        self.read_or_not(id);
    }

    /// Takes what has arrived over a link now.
    pub(super) fn take_block(&mut self, id: ConnectionId, data: BytesMut) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        if !live.arrears.is_empty() {
            live.arrears.push(data);
        } else if self.turns.is_over(live.source) {
            live.arrears.push(data);
            self.turns.wait(id);
        } else {
            live.link.opener.push(data);
            self.open_frames(id);
            return;
        }
        self.read_or_not(id);
    }

    /// Whether a link has so much in arrears that it is not to be read has changed, perhaps.
    fn read_or_not(&mut self, id: ConnectionId) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        let arrears = &mut live.arrears;
        let are_long = match arrears.are_long {
            true => !arrears.is_empty(),
            false => arrears.bytes as u64 > self.turns.share / LONG,
        };
        if std::mem::replace(&mut arrears.are_long, are_long) != are_long {
            self.transport.pause_reading(id, is_paused(live, self.clients_paused));
        }
    }

    /// Stops or resumes reading from all clients, present and future. Messages that have arrived
    /// already are still reported.
    pub fn pause_clients(&mut self, paused: bool) {
        if self.clients_paused == paused {
            return;
        }
        self.clients_paused = paused;
        for &id in self.clients.values() {
            if let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &it.state) {
                self.transport.pause_reading(id, is_paused(live, paused));
            }
        }
    }

    /// Stops or resumes reading from one client's link. Messages that have arrived already are still
    /// reported.
    pub fn pause_client(&mut self, link: LinkId, paused: bool) {
        self.pause(link.0, paused);
    }

    /// What a peer sent costs more to handle than its bytes say: this much more, as bytes of its share.
    pub fn charge_peer(&mut self, peer: u16, bytes: usize) {
        self.turns.spend(Source::Peer(peer), bytes, 0);
    }

    /// Stops or resumes reading from a peer, until its link is another one. Messages that have arrived
    /// already are still reported.
    pub fn pause_peer(&mut self, peer: u16, paused: bool) {
        if let Some(id) = find_peer(&mut self.peers, peer).and_then(|peer| peer.link) {
            self.pause(id, paused);
        }
    }

    fn pause(&mut self, id: ConnectionId, paused: bool) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        if std::mem::replace(&mut live.is_paused, paused) != paused {
            self.transport.pause_reading(id, is_paused(live, self.clients_paused));
        }
    }
}

/// Whether nothing is to be read from a link.
fn is_paused(live: &Live, clients_paused: bool) -> bool {
    let is_client = matches!(live.source, Source::Client { .. });
    live.is_paused || live.arrears.are_long || (is_client && clients_paused)
}
