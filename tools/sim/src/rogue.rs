//! Byzantine clients: they hold a key of their own and use it as they like.

use std::ops::Range;

use hybster_proto::client::FIRST_NUMBER_MIN;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{ClientId, RequestNumber, SessionId};
use hybster_proto::output::ClientLink;
use hybster_proto::wire::kind;
use hybster_proto::wire::request::{
    REQUESTS_HEAD, append_proved, requests_head, retransmission_head,
};
use hybster_tss::{ClientKey, RequestKey};

use crate::keys::Keys;
use crate::random::Random;
use crate::store::{Action, Operation};

/// A behaviour of a Byzantine client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RogueTrick {
    /// Different operations under one number, to different replicas.
    TwoFaced,
    /// The numbers 0, the largest one, and others out of order.
    Numbers,
    /// Requests with a false proof, or in another client's name.
    Forged,
    /// The same request again and again, to everybody.
    Storm,
    /// Opens sessions without end, so that old ones are evicted, and uses those again.
    Sessions,
    /// Bytes that are no requests, requests that are too long.
    Garbage,
    /// Ordinary requests in great number; no answer is ever waited for.
    Flood,
    /// Requests of all its sessions to everybody, as if they had been sent before: new ones, and then the
    /// same again. Never drawn: it floods, where others are a nuisance.
    Reminders,
    /// Long requests to the first leader, more than can be ordered. Never drawn either.
    Volume,
    /// New requests, each of another session, to all but the first leader, as if they had been sent before: each
    /// replica that gets them has to see to it that they are ordered. Never drawn either.
    Detour,
}

impl RogueTrick {
    /// Those that are drawn.
    pub const ALL: [Self; 7] = [
        Self::TwoFaced,
        Self::Numbers,
        Self::Forged,
        Self::Storm,
        Self::Sessions,
        Self::Garbage,
        Self::Flood,
    ];
}

/// A Byzantine client as data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoguePlan {
    /// Its behaviour.
    pub tricks: Vec<RogueTrick>,
    /// How often, in microseconds.
    pub every_us: u64,
    /// How often altogether; then it vanishes.
    pub times: u32,
}

/// A request that a client signed.
pub(crate) struct Signed {
    pub session: SessionId,
    pub number: RequestNumber,
    pub operation: Vec<u8>,
}

pub(crate) struct Rogue {
    pub(crate) link: ClientLink,
    pub(crate) plan: RoguePlan,
    pub(crate) done: u32,
    key: RequestKey,
    random: Random,
    /// It keeps to registers of its own, so that others' histories can be checked.
    first_key: u16,
    sessions: u32,
    number: u64,
    /// Messages that it sent.
    sent: Vec<Vec<u8>>,
    /// What it reminds everybody of.
    reminder: Vec<u8>,
}

/// Requests in one message of [`RogueTrick::Reminders`].
const REMINDED: u32 = 600;
/// Requests in one message of [`RogueTrick::Volume`].
const VOLUME: u32 = 200;
/// Requests in one message of [`RogueTrick::Detour`].
const DETOUR: u32 = 10;

/// Messages that a rogue has for replicas, and what it signed for them.
#[derive(Default)]
pub(crate) struct Mischief {
    pub messages: Vec<(u16, Vec<u8>)>,
    pub signed: Vec<Signed>,
}

impl Rogue {
    pub(crate) fn new(
        client: u32,
        plan: RoguePlan,
        first_key: u16,
        config: &GroupConfig,
        keys: &Keys,
        mut random: Random,
    ) -> Self {
        let link = ClientLink { client: ClientId(client), incarnation: random.between(1, 1 << 30) };
        Self {
            link,
            plan,
            done: 0,
            key: keys.client(config, client),
            random,
            first_key,
            sessions: 1,
            number: FIRST_NUMBER_MIN,
            sent: Vec::new(),
            reminder: Vec::new(),
        }
    }

    fn operation(&mut self) -> Vec<u8> {
        let key = self.first_key + self.random.below(4) as u16;
        let action = Action::Put(self.random.next());
        Operation { key, action }.encode(self.random.below(40) as usize)
    }

    fn session(&self, index: u32) -> SessionId {
        SessionId::new(self.link.client, self.link.incarnation, index)
    }

    /// A REQUESTS message with one signed request.
    fn signed(
        &mut self,
        session: SessionId,
        number: u64,
        again: bool,
        out: &mut Mischief,
    ) -> Vec<u8> {
        let operation = self.operation();
        let head = if again { retransmission_head() } else { requests_head(kind::REQUESTS) };
        let mut message = Vec::from(head);
        let number = RequestNumber(number);
        append_proved(&mut message, session, number, &operation, &self.key);
        out.signed.push(Signed { session, number, operation });
        message
    }

    fn broadcast(&mut self, config: &GroupConfig, message: Vec<u8>, out: &mut Mischief) {
        for replica in config.all_replicas() {
            out.messages.push((replica.0, message.clone()));
        }
        if self.sent.len() >= 64 {
            let at = self.random.index(self.sent.len());
            self.sent.swap_remove(at);
        }
        self.sent.push(message);
    }

    /// One act.
    pub(crate) fn act(&mut self, config: &GroupConfig) -> Mischief {
        self.done += 1;
        let mut out = Mischief::default();
        let trick = *self.random.pick(&self.plan.tricks.clone());
        let again = self.random.chance(600_000);
        let own = self.session(0);
        match trick {
            RogueTrick::TwoFaced => {
                self.number += 1;
                for replica in config.all_replicas() {
                    let message = self.signed(own, self.number, again, &mut out);
                    out.messages.push((replica.0, message.clone()));
                    self.sent.push(message);
                }
            }
            RogueTrick::Numbers => {
                let numbers = [0, 1, u64::MAX, u64::MAX - 1, self.number, self.number + 1_000];
                let number = *self.random.pick(&numbers);
                let index = self.random.between(1, 3) as u32;
                let message = self.signed(self.session(index), number, again, &mut out);
                self.broadcast(config, message, &mut out);
            }
            RogueTrick::Forged => self.forged(config, &mut out),
            RogueTrick::Storm => {
                if let Some(at) =
                    (!self.sent.is_empty()).then(|| self.random.index(self.sent.len()))
                {
                    let message = self.sent[at].clone();
                    for _ in 0..self.random.between(1, 6) {
                        for replica in config.all_replicas() {
                            out.messages.push((replica.0, message.clone()));
                        }
                    }
                } else {
                    self.number += 1;
                    let message = self.signed(own, self.number, again, &mut out);
                    self.broadcast(config, message, &mut out);
                }
            }
            RogueTrick::Sessions => {
                let index = if self.random.chance(700_000) {
                    self.sessions += 1;
                    self.sessions
                } else {
                    self.random.below(u64::from(self.sessions) + 1) as u32
                };
                let message = self.signed(self.session(index), FIRST_NUMBER_MIN, again, &mut out);
                self.broadcast(config, message, &mut out);
            }
            RogueTrick::Garbage => self.garbage(config, &mut out),
            RogueTrick::Flood => {
                for _ in 0..self.random.between(2, 12) {
                    self.number += 1;
                    let message = self.signed(own, self.number, again, &mut out);
                    self.broadcast(config, message, &mut out);
                }
            }
            RogueTrick::Reminders => {
                if self.done % 4 == 1 {
                    self.reminder = self.many(0..REMINDED, true, 0, &mut out);
                }
                for replica in config.all_replicas() {
                    out.messages.push((replica.0, self.reminder.clone()));
                }
            }
            RogueTrick::Volume => {
                let message = self.many(0..VOLUME, false, 900, &mut out);
                out.messages.push((0, message));
            }
            RogueTrick::Detour => {
                let first = self.done * DETOUR;
                let message = self.many(first..first + DETOUR, true, 10_000, &mut out);
                let followers = config.all_replicas().skip(1);
                out.messages.extend(followers.map(|to| (to.0, message.clone())));
            }
        }
        out
    }

    /// A REQUESTS message with a request of each of many sessions.
    fn many(
        &mut self,
        sessions: Range<u32>,
        again: bool,
        padding: usize,
        out: &mut Mischief,
    ) -> Vec<u8> {
        let head = if again { retransmission_head() } else { requests_head(kind::REQUESTS) };
        let mut message = Vec::from(head);
        self.number += 1;
        for index in sessions {
            let (session, number) = (self.session(index), RequestNumber(self.number));
            let key = self.first_key + self.random.below(4) as u16;
            let action = Action::Put(self.random.next());
            let operation = Operation { key, action }.encode(padding);
            append_proved(&mut message, session, number, &operation, &self.key);
            out.signed.push(Signed { session, number, operation });
        }
        message
    }

    fn forged(&mut self, config: &GroupConfig, out: &mut Mischief) {
        let mut ignored = Mischief::default();
        self.number += 1;
        let mut message = self.signed(self.session(0), self.number, true, &mut ignored);
        let forms = if matches!(self.key, RequestKey::Mac(_)) { 4 } else { 5 };
        match self.random.below(forms) {
            // A false proof, next to a correct request.
            0 => {
                let last = message.len() - 1;
                message[last] ^= 1;
                self.number += 1;
                let right = self.signed(self.session(0), self.number, true, out);
                message.extend_from_slice(&right[8..]);
            }
            1 => {
                let last = message.len() - 1;
                message[last] ^= 1;
                message[1] = 0;
            }
            // Another client's name, and one that is no client's.
            2 => message[12] ^= 1,
            3 => message[15] = 0x7f,
            // Where clients sign: the MAC that would do elsewhere.
            _ => {
                let (session, number) = (self.session(0), RequestNumber(self.number));
                let key = ClientKey::from_bytes(config.mac, *self.key.expose_bytes());
                message.truncate(REQUESTS_HEAD);
                append_proved(&mut message, session, number, b"", &key.into());
            }
        }
        self.broadcast(config, message, out);
    }

    fn garbage(&mut self, config: &GroupConfig, out: &mut Mischief) {
        let mut ignored = Mischief::default();
        self.number += 1;
        let mut message = self.signed(self.session(0), self.number, false, &mut ignored);
        match self.random.below(5) {
            0 => message.truncate(message.len() / 2),
            1 => message[0] = *self.random.pick(&[0, kind::QUERIES, kind::PREPARE, 99, 255]),
            2 => message[self.random.index(20)] ^= 0x80,
            3 => {
                // Longer than the group allows, but authentic.
                let operation = vec![9; config.max_operation_bytes as usize + 1];
                let number = RequestNumber(self.number);
                message = Vec::from(requests_head(kind::REQUESTS));
                append_proved(&mut message, self.session(0), number, &operation, &self.key);
            }
            _ => {
                message[0] = kind::QUERIES;
                message.truncate(message.len() - 1);
            }
        }
        self.broadcast(config, message, out);
    }
}
