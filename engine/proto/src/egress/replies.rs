//! Client links, and the REPLIES messages under construction on them.

use crate::ids::{ReplicaId, View};
use crate::mutants::{self, Mutant};
use crate::output::{Cause, ClientLink, Reply};
use crate::wire::ReplyEntry;
use crate::wire::relay::RELAY_REPLIES_MAX;
use crate::wire::reply::{REPLIES_HEAD, REPLY_ENTRY, append, begin};

use super::Trust;

/// A REPLIES message is closed when it reaches this, in bytes.
const REPLIES_TARGET_BYTES: usize = 64 << 10;

/// A link keeps a buffer of at most this size for its next message, in bytes.
const KEPT_BUFFER_BYTES: usize = 256 << 10;

/// The live links of clients, found by client without hashing, and for each the message that
/// collects its replies until the end of the turn.
#[derive(Debug)]
pub(super) struct ClientLinks<L> {
    replica: ReplicaId,
    slots: Vec<Option<ReplyLink<L>>>,
    free: Vec<u32>,
    /// By client identity: incarnation and slot of each of its links.
    by_client: Vec<Vec<(u64, u32)>>,
    /// Slots of links whose message is not empty, each once.
    open: Vec<u32>,
    /// The link of the reply before: replies come in runs.
    last: Option<(ClientLink, u32)>,
}

#[derive(Debug)]
struct ReplyLink<L> {
    link: L,
    client: ClientLink,
    view: View,
    message: Vec<u8>,
    /// Replies in the message.
    replies: u32,
    /// Whether the last of them may go through the leader.
    may_be_relayed: bool,
    trust: Trust,
}

/// What a link takes until the end of a turn, in bytes: a message that is closed as soon as it
/// reaches its target, or as much of its buffer as is kept.
pub fn reply_link_bytes(max_reply_bytes: u32) -> u64 {
    let longest = REPLIES_HEAD + REPLIES_TARGET_BYTES + REPLY_ENTRY + max_reply_bytes as usize;
    (size_of::<ReplyLink<u64>>() + longest.max(KEPT_BUFFER_BYTES)) as u64
}

/// A REPLIES message that is complete.
#[derive(Debug)]
pub(super) struct Ready<'a, L> {
    /// Where it goes.
    pub(super) link: L,
    /// Who is there.
    pub(super) client: ClientLink,
    /// The view in which it was written.
    pub(super) view: View,
    pub(super) message: &'a [u8],
}

impl<L: Copy + PartialEq> ClientLinks<L> {
    pub(super) fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            slots: Vec::new(),
            free: Vec::new(),
            by_client: Vec::new(),
            open: Vec::new(),
            last: None,
        }
    }

    pub(super) fn up(&mut self, client: ClientLink, link: L) {
        if let Some(old) = self.find(client) {
            self.down(client, old);
        }
        let index = client.client.0 as usize;
        if self.by_client.len() <= index {
            self.by_client.resize_with(index + 1, Vec::new);
        }
        let it = ReplyLink {
            link,
            client,
            view: View(0),
            message: Vec::new(),
            replies: 0,
            may_be_relayed: false,
            trust: Trust::default(),
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("the driver bounds its links")
            }
        };
        self.slots[slot as usize] = Some(it);
        self.by_client[index].push((client.incarnation, slot));
    }

    pub(super) fn down(&mut self, client: ClientLink, link: L) {
        let Some(slot) = self.slot_of(client) else {
            return;
        };
        // It may have given way to a newer one.
        let of_slot = &mut self.slots[slot as usize];
        if of_slot.take_if(|it| it.link == link).is_none() {
            return;
        }
        self.last = None;
        self.free.push(slot);
        self.by_client[client.client.0 as usize].retain(|(_, of)| *of != slot);
        self.open.retain(|of| *of != slot);
    }

    /// The link of a client's incarnation.
    pub(super) fn find(&self, client: ClientLink) -> Option<L> {
        let slot = self.slot_of(client)?;
        self.slots[slot as usize].as_ref().map(|it| it.link)
    }

    /// How many links are up.
    pub(super) fn live(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    fn slot_of(&self, client: ClientLink) -> Option<u32> {
        let of_client = self.by_client.get(client.client.0 as usize)?;
        of_client.iter().find(|(i, _)| *i == client.incarnation).map(|(_, slot)| *slot)
    }

    /// Appends replies to the messages of their links, and returns how many have no link. What is
    /// deferred is left out. `send` takes messages that are complete.
    #[inline]
    pub(super) fn push<'a>(
        &mut self,
        replies: impl Iterator<Item = Reply<'a>>,
        mut send: impl FnMut(Ready<'_, L>),
    ) -> u64 {
        let mut lost = 0;
        let mut replies = replies.filter(|reply| reply.cause != Cause::Deferred);
        let mut next = replies.next();
        while let Some(first) = next {
            let client = first.link();
            let Some(slot) = self.slot_of_last(client) else {
                lost += 1;
                next = replies.next();
                continue;
            };
            let it = self.slots[slot as usize].as_mut().expect("the link was found");
            if it.message.is_empty() {
                self.open.push(slot);
            }
            // Replies come in runs: the link is looked up once for each.
            let mut reply = first;
            loop {
                it.push(self.replica, &reply, &mut send);
                next = replies.next();
                match next {
                    Some(other) if other.link() == client => reply = other,
                    _ => break,
                }
            }
        }
        lost
    }

    fn slot_of_last(&mut self, client: ClientLink) -> Option<u32> {
        match self.last {
            Some((last, slot)) if last == client => Some(slot),
            _ => {
                let slot = self.slot_of(client)?;
                self.last = Some((client, slot));
                Some(slot)
            }
        }
    }

    /// Offers the messages that may go through the leader. Those that `relay` takes are done with.
    pub(super) fn relay(&mut self, mut relay: impl FnMut(Ready<'_, L>) -> bool) {
        for slot in &self.open {
            if let Some(it) = &mut self.slots[*slot as usize]
                && it.may_be_relayed()
                && relay(it.ready())
            {
                it.clear();
            }
        }
    }

    /// Hands out all messages under construction.
    pub(super) fn flush(&mut self, mut send: impl FnMut(Ready<'_, L>)) {
        for slot in self.open.drain(..) {
            if let Some(it) = &mut self.slots[slot as usize] {
                it.hand_out(&mut send);
                it.message.shrink_to(KEPT_BUFFER_BYTES);
            }
        }
    }
}

impl<L: Copy> ReplyLink<L> {
    #[inline(always)]
    fn push(&mut self, replica: ReplicaId, reply: &Reply<'_>, send: &mut impl FnMut(Ready<'_, L>)) {
        let fits = self.message.len() + reply.result.len() <= REPLIES_TARGET_BYTES;
        if !self.message.is_empty() && (reply.view != self.view || !fits) {
            self.hand_out(send);
        }
        if self.message.is_empty() {
            self.view = reply.view;
            begin(&mut self.message, replica, reply.view);
        }
        append(
            &mut self.message,
            &ReplyEntry {
                index: reply.session.index(),
                tag: reply.tag,
                number: reply.number,
                status: reply.status,
                result: reply.result,
            },
        );
        self.replies += 1;
        self.may_be_relayed = self.trust.permits(reply.cause)
            || (mutants::active(Mutant::RelayedAlways) && reply.cause != Cause::Queried);
    }

    /// Under load a message to the client costs little, and the leader has enough to do.
    fn may_be_relayed(&self) -> bool {
        self.may_be_relayed && self.replies == 1 && self.message.len() <= RELAY_REPLIES_MAX
    }

    fn ready(&self) -> Ready<'_, L> {
        let Self { link, client, view, ref message, .. } = *self;
        Ready { link, client, view, message }
    }

    #[inline(never)]
    fn hand_out(&mut self, send: &mut impl FnMut(Ready<'_, L>)) {
        if self.replies > 0 {
            send(self.ready());
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.message.clear();
        self.replies = 0;
    }
}
