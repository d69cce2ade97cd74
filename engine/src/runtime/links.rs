//! Client links, and the REPLIES messages under construction on them.

use hybster_net::LinkId;
use hybster_proto::ids::{ClientId, ReplicaId, View};
use hybster_proto::output::{ClientLink, Reply};
use hybster_proto::relay_trust::Trust;
use hybster_proto::wire::ReplyEntry;
use hybster_proto::wire::relay::RELAY_REPLIES_MAX;
use hybster_proto::wire::reply::{append, begin};

/// A REPLIES message is closed when it reaches this, in bytes.
const REPLIES_TARGET_BYTES: usize = 64 << 10;

/// A link keeps a buffer of at most this size for its next message, in bytes.
const KEPT_BUFFER_BYTES: usize = 256 << 10;

/// The live links of clients, found by id and by client without hashing, and for each the message
/// that collects its replies until the next flush.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// By [`LinkId::slot`].
    by_slot: Vec<Option<ReplyLink>>,
    /// By client identity: incarnation and slot of each of its links.
    by_client: Vec<Vec<(u64, u32)>>,
    /// Slots of links whose message is not empty, each once.
    open: Vec<u32>,
    /// The link of the reply before: replies come in runs.
    last: Option<(ClientLink, u32)>,
    live: u64,
}

#[derive(Debug)]
struct ReplyLink {
    id: LinkId,
    client: ClientLink,
    view: View,
    message: Vec<u8>,
    /// Replies in the message.
    replies: u32,
    /// Whether the last of them may go through the leader.
    may_be_relayed: bool,
    trust: Trust,
}

/// A REPLIES message that is complete.
#[derive(Debug)]
pub(crate) struct Ready<'a> {
    /// Where it goes.
    pub(crate) link: LinkId,
    /// Who is there.
    pub(crate) client: ClientLink,
    /// The view in which it was written.
    pub(crate) view: View,
    /// The message.
    pub(crate) message: &'a [u8],
    /// Whether it may go through the leader.
    pub(crate) may_be_relayed: bool,
}

impl Links {
    /// A link is up. A link of the same client and incarnation gives way to it.
    pub(crate) fn up(&mut self, client: ClientLink, id: LinkId) {
        if let Some(old) = self.find(client) {
            self.down(old);
        }
        let (slot, index) = (id.slot(), client.client.0 as usize);
        if let Some(stale) = self.by_slot.get(slot).and_then(|link| link.as_ref().map(|l| l.id)) {
            self.down(stale);
        }
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        if self.by_client.len() <= index {
            self.by_client.resize_with(index + 1, Vec::new);
        }
        self.by_slot[slot] = Some(ReplyLink {
            id,
            client,
            view: View(0),
            message: Vec::new(),
            replies: 0,
            may_be_relayed: false,
            trust: Trust::default(),
        });
        self.by_client[index].push((client.incarnation, slot as u32));
        self.live += 1;
    }

    /// A link is gone. What is under construction for it is lost; the client asks again.
    pub(crate) fn down(&mut self, id: LinkId) {
        let slot = id.slot();
        let Some(link) = self.by_slot.get_mut(slot).and_then(|l| l.take_if(|l| l.id == id)) else {
            return;
        };
        self.last = None;
        self.live -= 1;
        let of_client = &mut self.by_client[link.client.client.0 as usize];
        of_client.retain(|(_, of)| *of as usize != slot);
        self.open.retain(|of| *of as usize != slot);
    }

    /// Who is at the other end.
    pub(crate) fn client(&self, id: LinkId) -> Option<ClientLink> {
        let link = self.by_slot.get(id.slot())?.as_ref()?;
        (link.id == id).then_some(link.client)
    }

    /// The link of a client's incarnation.
    pub(crate) fn find(&self, client: ClientLink) -> Option<LinkId> {
        let slot = self.slot_of(client)?;
        self.by_slot[slot as usize].as_ref().map(|link| link.id)
    }

    /// How many links are up.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    fn slot_of(&self, client: ClientLink) -> Option<u32> {
        let of_client = self.by_client.get(client.client.0 as usize)?;
        of_client.iter().find(|(i, _)| *i == client.incarnation).map(|(_, slot)| *slot)
    }

    /// Appends a reply to the message of its link. Returns false if the link is gone. `send` takes
    /// messages that are complete.
    #[inline]
    pub(crate) fn push(
        &mut self,
        replica: ReplicaId,
        reply: &Reply<'_>,
        send: impl FnMut(Ready<'_>),
    ) -> bool {
        let client = reply.link();
        let slot = match self.last {
            Some((last, slot)) if last == client => slot,
            _ => match self.slot_of(client) {
                Some(slot) => {
                    self.last = Some((client, slot));
                    slot
                }
                None => return false,
            },
        };
        let link = self.by_slot[slot as usize].as_mut().expect("the link was found");
        if link.message.is_empty() {
            self.open.push(slot);
        }
        link.push(replica, reply, send);
        true
    }

    /// Hands out all messages under construction.
    pub(crate) fn flush(&mut self, mut send: impl FnMut(Ready<'_>)) {
        for slot in self.open.drain(..) {
            if let Some(link) = &mut self.by_slot[slot as usize] {
                link.hand_out(&mut send);
                link.message.shrink_to(KEPT_BUFFER_BYTES);
            }
        }
    }
}

impl ReplyLink {
    fn push(&mut self, replica: ReplicaId, reply: &Reply<'_>, mut send: impl FnMut(Ready<'_>)) {
        let fits = self.message.len() + reply.result.len() <= REPLIES_TARGET_BYTES;
        if !self.message.is_empty() && (reply.view != self.view || !fits) {
            self.hand_out(&mut send);
        }
        if self.message.is_empty() {
            self.view = reply.view;
            begin(&mut self.message, replica, reply.view);
        }
        append(
            &mut self.message,
            &ReplyEntry {
                session: reply.session.session,
                number: reply.number,
                status: reply.status,
                result: reply.result,
            },
        );
        self.replies += 1;
        self.may_be_relayed = self.trust.permits(reply.cause);
    }

    fn hand_out(&mut self, send: &mut impl FnMut(Ready<'_>)) {
        // Under load a message to the client costs little, and the leader has enough to do.
        let is_single = self.replies == 1 && self.message.len() <= RELAY_REPLIES_MAX;
        send(Ready {
            link: self.id,
            client: self.client,
            view: self.view,
            message: &self.message,
            may_be_relayed: self.may_be_relayed && is_single,
        });
        self.message.clear();
        self.replies = 0;
    }
}

/// The link that a hub announced.
pub(crate) fn client_link(client: u32, incarnation: u64) -> ClientLink {
    ClientLink { client: ClientId(client), incarnation }
}
