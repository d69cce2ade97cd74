//! The handshake of a link. Sans-IO: received bytes go in, bytes to send come out.
//!
//! TLS 1.3 with raw public keys proves the identity of both ends and yields fresh link keys from
//! its exporter. Inside the TLS session, both ends then send a hello (version, group configuration,
//! identity, application) and a verdict on the other's hello. An acceptance is the last TLS record of its
//! sender; after it come frames. A refusal says what differs and is logged at both ends.
//!
//! ```text
//! connecting end                         accepting end
//!   ClientHello              ->
//!                            <-          ServerHello, key, proof, Finished
//!   key, proof, Finished     ->
//!   hello                    ->
//!                            <-          hello, verdict
//!   verdict                  ->
//!   frames                  <->          frames
//! ```

mod application;
mod hello;
mod tls;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::{AlertDescription, ClientConfig, ClientConnection, Connection};
use rustls::{ServerConfig, ServerConnection};
use zeroize::Zeroizing;

use self::hello::{Hello, INBOX_BYTES_MAX, Read, Verdict};
use crate::cipher::LinkCipher;
use crate::keys::{Identity, KeyRing, PublicKey, StaticKey};
use crate::link::Link;
use crate::reject::Reason;

pub use self::application::{APPLICATION_NAME_BYTES_MAX, Application, BadApplicationName};
pub use self::hello::LINK_VERSION;

/// The configuration that all handshakes of a process share.
#[derive(Debug)]
pub struct HandshakeConfig {
    /// The replica or client that this process is.
    pub identity: Identity,
    /// The key that proves `identity`.
    pub key: StaticKey,
    /// The public keys of everybody it accepts.
    pub keyring: Arc<KeyRing>,
    /// Digest of the group configuration; both ends must have the same.
    pub group_digest: [u8; 32],
    /// P, the number of pillars; both ends must have the same.
    pub pillars: u16,
    /// What runs over the links, which both ends compare if both say it.
    pub application: Option<Application>,
    /// Tells several connections of one client apart; zero for a replica.
    pub incarnation: u64,
    /// How frames are protected; both ends must use the same cipher.
    pub cipher: LinkCipher,
    /// Longest frame payload between replicas, in bytes.
    pub peer_frame_bytes: u32,
    /// Longest frame payload between a client and a replica, in bytes.
    pub client_frame_bytes: u32,
    /// Most bytes that a handshake accepts from the other side.
    pub handshake_bytes: usize,
}

impl HandshakeConfig {
    fn frame_bytes(&self, peer: Identity) -> u32 {
        match (self.identity, peer) {
            (Identity::Replica(_), Identity::Replica(_)) => self.peer_frame_bytes,
            _ => self.client_frame_bytes,
        }
    }

    fn hello(&self, peer: Identity) -> Hello {
        Hello {
            identity: self.identity,
            cipher_code: self.cipher.code(),
            pillars: self.pillars,
            frame_bytes_max: self.frame_bytes(peer),
            incarnation: self.incarnation,
            group_digest: self.group_digest,
            application: self.application.clone(),
        }
    }
}

/// Starts handshakes. Holds the TLS configurations, which are costly to make.
#[derive(Debug)]
pub struct Handshaker {
    config: Arc<HandshakeConfig>,
    server: Arc<ServerConfig>,
    clients: HashMap<Identity, Arc<ClientConfig>>,
}

impl Handshaker {
    /// Prepares handshakes.
    ///
    /// # Errors
    /// If the static key cannot be used.
    pub fn new(config: HandshakeConfig) -> Result<Self, HandshakeError> {
        let server = tls::server_config(&config.key, Arc::clone(&config.keyring))?;
        Ok(Self { config: Arc::new(config), server, clients: HashMap::new() })
    }

    /// A handshake with an end that connected to this one.
    ///
    /// # Errors
    /// If TLS refuses to start.
    pub fn accept(&self) -> Result<Handshake, HandshakeError> {
        let tls = ServerConnection::new(Arc::clone(&self.server))?;
        Ok(Handshake::new(Arc::clone(&self.config), tls.into(), None))
    }

    /// A handshake with `expected`, to which this side connected. Call [`Handshake::receive`] once
    /// with empty input to get the first bytes to send.
    ///
    /// # Errors
    /// If the key ring has no key for `expected`, or TLS refuses to start.
    pub fn connect(&mut self, expected: Identity) -> Result<Handshake, HandshakeError> {
        let key = self.config.keyring.key_of(expected).ok_or(HandshakeError::NoKey(expected))?;
        let client = match self.clients.get(&expected) {
            Some(client) => Arc::clone(client),
            None => {
                let client = tls::client_config(&self.config.key, key)?;
                self.clients.insert(expected, Arc::clone(&client));
                client
            }
        };
        let tls = ClientConnection::new(client, tls::server_name())?;
        Ok(Handshake::new(Arc::clone(&self.config), tls.into(), Some(expected)))
    }
}

/// How far a handshake is.
#[derive(Debug)]
pub enum Progress {
    /// It needs more bytes from the other end.
    Pending,
    /// The other end is known and its hello agrees with ours. Call [`Handshake::admit`] or
    /// [`Handshake::refuse`].
    Identified {
        /// The identity that the other end proved.
        peer: Identity,
        /// Tells several connections of one client apart; chosen by the client.
        incarnation: u64,
    },
    /// Both ends accepted. Bytes left in the input belong to the link.
    Established(Box<Established>),
}

/// A link that both ends accepted.
#[derive(Debug)]
pub struct Established {
    /// The link, with fresh keys.
    pub link: Link,
    /// The identity that the other end proved.
    pub peer: Identity,
    /// The other end's incarnation; of a replica, its epoch.
    pub incarnation: u64,
    /// Longest frame payload that may be sent, in bytes: the smaller of both ends' limits.
    pub send_frame_bytes: u32,
}

/// One handshake.
pub struct Handshake {
    config: Arc<HandshakeConfig>,
    tls: Connection,
    expected: Option<Identity>,
    state: State,
    /// Plaintext from TLS that is not parsed yet.
    inbox: Vec<u8>,
    received: usize,
}

#[derive(Debug)]
enum State {
    Tls,
    AwaitHello { peer: Identity },
    AwaitAdmission { peer: Identity, theirs: Hello },
    AwaitVerdict { peer: Identity, theirs: Hello },
    Over,
}

impl Handshake {
    fn new(config: Arc<HandshakeConfig>, tls: Connection, expected: Option<Identity>) -> Self {
        Self { config, tls, expected, state: State::Tls, inbox: Vec::new(), received: 0 }
    }

    /// The end that this side connected to; `None` if it accepted the connection.
    #[must_use]
    pub const fn expected(&self) -> Option<Identity> {
        self.expected
    }

    /// Takes the handshake's bytes from `data`, and appends the bytes to be sent to `out`, also if
    /// it fails.
    ///
    /// # Errors
    /// If the handshake failed. Send `out` nevertheless, then close the connection.
    pub fn receive(
        &mut self,
        data: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Progress, HandshakeError> {
        let result = self.advance(data);
        while self.tls.wants_write() {
            self.tls.write_tls(out).expect("writing to memory does not fail");
        }
        if result.is_err() {
            self.state = State::Over;
        }
        result
    }

    /// Accepts the other end. Call [`Self::receive`] next, with the remaining input.
    ///
    /// # Panics
    /// If the last call of [`Self::receive`] did not return [`Progress::Identified`].
    pub fn admit(&mut self) {
        let State::AwaitAdmission { peer, theirs } =
            std::mem::replace(&mut self.state, State::Over)
        else {
            panic!("no end waits to be admitted");
        };
        self.state = State::AwaitVerdict { peer, theirs };
        self.say(&Verdict::Accepted);
    }

    /// Refuses the other end, and tells it why. Send `out` and close the connection.
    pub fn refuse(&mut self, reason: Reason, text: &str, out: &mut Vec<u8>) {
        self.state = State::Over;
        self.say(&Verdict::Refused(reason, text.into()));
        while self.tls.wants_write() {
            self.tls.write_tls(out).expect("writing to memory does not fail");
        }
    }

    /// Ends the handshake for lack of room, and tells the other end. Send `out` and close the
    /// connection. Who the other end is has not been proved yet, so an alert says it; in a handshake
    /// it means nothing else.
    pub fn give_way(&mut self, out: &mut Vec<u8>) {
        self.state = State::Over;
        if self.received == 0 {
            // There are no keys yet.
            out.extend_from_slice(&ALERT_INTERNAL_ERROR);
            return;
        }
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            self.tls.write_tls(out).expect("writing to memory does not fail");
        }
    }

    fn advance(&mut self, data: &mut BytesMut) -> Result<Progress, HandshakeError> {
        loop {
            if let Some(progress) = self.step()? {
                return Ok(progress);
            }
            // One record at a time: after the last one come frames, which TLS must not see.
            if !self.feed_record(data)? {
                return Ok(Progress::Pending);
            }
        }
    }

    /// Advances as far as the received bytes allow. Returns `None` if it needs another record.
    fn step(&mut self) -> Result<Option<Progress>, HandshakeError> {
        if matches!(self.state, State::Tls) {
            if self.tls.is_handshaking() {
                return Ok(None);
            }
            let peer = self.peer()?;
            let mut hello = Vec::new();
            self.config.hello(peer).write(&mut hello);
            self.write(&hello);
            self.state = State::AwaitHello { peer };
        }
        if let State::AwaitHello { peer } = self.state {
            let Some(theirs) = self.read_hello(peer)? else {
                return Ok(None);
            };
            let incarnation = theirs.incarnation;
            self.state = State::AwaitAdmission { peer, theirs };
            return Ok(Some(Progress::Identified { peer, incarnation }));
        }
        if let State::AwaitVerdict { peer, theirs } = &self.state {
            let (peer, incarnation) = (*peer, theirs.incarnation);
            let send_frame_bytes = theirs.frame_bytes_max.min(self.config.frame_bytes(peer));
            if !self.read_verdict(peer)? {
                return Ok(None);
            }
            let link = self.link(peer)?;
            self.state = State::Over;
            let established = Established { link, peer, incarnation, send_frame_bytes };
            return Ok(Some(Progress::Established(Box::new(established))));
        }
        // AwaitAdmission: the caller has forgotten to decide. Over: it came back after the end.
        Err(HandshakeError::Malformed)
    }

    /// Hands one whole record to TLS. Returns `false` if there is none.
    fn feed_record(&mut self, data: &mut BytesMut) -> Result<bool, HandshakeError> {
        let is_alert = self.expected.is_some() && data.first() == Some(&RECORD_ALERT);
        if self.received == 0 && !data.is_empty() && data[0] != RECORD_HANDSHAKE && !is_alert {
            return Err(HandshakeError::Garbage);
        }
        let Some(&[kind, major, _, high, low]) = data.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(false);
        };
        let length = usize::from(u16::from_be_bytes([high, low])) + RECORD_HEADER_BYTES;
        if !(20..=23).contains(&kind) || major != 3 || length > RECORD_BYTES_MAX {
            return Err(HandshakeError::Garbage);
        }
        if self.received + length > self.config.handshake_bytes {
            return Err(HandshakeError::TooLong { limit: self.config.handshake_bytes });
        }
        if data.len() < length {
            return Ok(false);
        }
        self.received += length;
        let mut record = &data[..length];
        while !record.is_empty() {
            let taken = self.tls.read_tls(&mut record).map_err(|_| HandshakeError::Malformed)?;
            if taken == 0 {
                return Err(HandshakeError::Malformed);
            }
            let io = self.tls.process_new_packets().map_err(|error| self.explain(error))?;
            if io.peer_has_closed() {
                return Err(HandshakeError::Crowded);
            }
        }
        data.advance(length);
        self.collect_plaintext()?;
        Ok(true)
    }

    fn collect_plaintext(&mut self) -> Result<(), HandshakeError> {
        let mut chunk = [0; 512];
        // An error of the reader only means that there is no more plaintext yet.
        while let Ok(count @ 1..) = self.tls.reader().read(&mut chunk) {
            self.inbox.extend_from_slice(&chunk[..count]);
            if self.inbox.len() > INBOX_BYTES_MAX {
                return Err(HandshakeError::TooLong { limit: INBOX_BYTES_MAX });
            }
        }
        Ok(())
    }

    fn peer(&self) -> Result<Identity, HandshakeError> {
        let certificates = self.tls.peer_certificates().unwrap_or_default();
        let key = certificates.first().and_then(tls::public_key);
        let key = key.ok_or(HandshakeError::Malformed)?;
        let holder = self.config.keyring.holder(&key);
        holder.ok_or(HandshakeError::UnknownKey { key, expected: self.expected })
    }

    fn read_hello(&mut self, peer: Identity) -> Result<Option<Hello>, HandshakeError> {
        match Hello::read(&self.inbox) {
            Read::Partial => Ok(None),
            Read::Whole(theirs, length) => {
                self.inbox.drain(..length);
                if let Err((reason, text)) = self.config.hello(peer).check(&theirs, peer) {
                    self.say(&Verdict::Refused(reason, attribute(&text, peer, &self.config)));
                    return Err(HandshakeError::Mismatch { reason, text });
                }
                Ok(Some(theirs))
            }
            Read::OtherVersion(theirs) => {
                let text = format!(
                    "{} speaks link protocol version {LINK_VERSION}, {peer} version {theirs}; \
                     run the same release on both",
                    self.config.identity
                );
                self.say(&Verdict::Refused(Reason::Version, text.clone()));
                Err(HandshakeError::Mismatch { reason: Reason::Version, text })
            }
            Read::Bad => Err(HandshakeError::Malformed),
        }
    }

    /// Whether the other end has accepted; `false` if its verdict has not come yet.
    fn read_verdict(&mut self, peer: Identity) -> Result<bool, HandshakeError> {
        match Verdict::read(&self.inbox) {
            Read::Partial => Ok(false),
            Read::Whole(Verdict::Refused(reason, text), _) => {
                Err(HandshakeError::Refused { peer, reason, text })
            }
            Read::Whole(Verdict::Accepted, length) if length == self.inbox.len() => Ok(true),
            _ => Err(HandshakeError::Malformed),
        }
    }

    fn link(&self, peer: Identity) -> Result<Link, HandshakeError> {
        let context = [self.config.cipher.code()];
        let secrets = Zeroizing::new([0; 64]);
        let secrets = self.tls.export_keying_material(secrets, EXPORTER_LABEL, Some(&context))?;
        let (first, second) = secrets.split_at(32);
        let to_acceptor = first.try_into().expect("half of 64 bytes");
        let to_connector = second.try_into().expect("half of 64 bytes");
        let (send, receive) = match self.tls {
            Connection::Client(_) => (to_acceptor, to_connector),
            Connection::Server(_) => (to_connector, to_acceptor),
        };
        Ok(Link::new(self.config.cipher, send, receive, self.config.frame_bytes(peer)))
    }

    fn say(&mut self, verdict: &Verdict) {
        let mut bytes = Vec::new();
        verdict.write(&mut bytes);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("a few hundred bytes fit TLS's buffer");
    }

    fn explain(&self, error: rustls::Error) -> HandshakeError {
        if let Some(key) = tls::refused_key(&error) {
            return HandshakeError::UnknownKey { key, expected: self.expected };
        }
        match error {
            rustls::Error::AlertReceived(
                AlertDescription::CertificateUnknown | AlertDescription::AccessDenied,
            ) => HandshakeError::OwnKeyRefused {
                key: self.config.key.public(),
                identity: self.config.identity,
            },
            rustls::Error::AlertReceived(AlertDescription::InternalError) => {
                HandshakeError::Crowded
            }
            error => HandshakeError::Tls(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handshake({:?})", self.state)
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The first bytes were not TLS.
    #[error("the other side sent bytes that are not a TLS handshake; is it a Hybster process?")]
    Garbage,
    /// A message inside the TLS session broke this protocol.
    #[error("the other side does not follow the link handshake; is it a Hybster process?")]
    Malformed,
    /// The other side has no room for another handshake.
    #[error(
        "the other side closed this connection because too many are in their handshake there at the \
         same time, most of them from this address; it is tried again; if this goes on, start fewer \
         clients at once on this host, or look at the replica's log (\"capacity\") for who connects"
    )]
    Crowded,
    /// More bytes than a handshake may take.
    #[error("the other side sent more than the {limit} bytes that a handshake may take")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The key ring lacks a key.
    #[error("the key ring has no key for {0}; add it")]
    NoKey(Identity),
    /// The other side's key is not accepted.
    #[error("{}", unknown_key(key, *expected))]
    UnknownKey {
        /// The key that it proved to hold.
        key: PublicKey,
        /// The end that this side connected to, if it did.
        expected: Option<Identity>,
    },
    /// The other side does not accept our key.
    #[error(
        "the other side does not accept public key {key} of {identity}; \
         check that its key ring lists it"
    )]
    OwnKeyRefused {
        /// Our key.
        key: PublicKey,
        /// This side's identity.
        identity: Identity,
    },
    /// The two hellos do not fit.
    #[error("{text}")]
    Mismatch {
        /// The kind of difference, for the counter.
        reason: Reason,
        /// The difference and its cure, for people.
        text: String,
    },
    /// The other side refused us.
    #[error("{peer} refused the link ({reason}): {text}")]
    Refused {
        /// The other side.
        peer: Identity,
        /// The reason by its code on the wire.
        reason: Reason,
        /// Its explanation, made safe to log.
        text: String,
    },
}

impl HandshakeError {
    /// The reason under which this is counted.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Garbage => Reason::Garbage,
            Self::Malformed | Self::Tls(_) => Reason::HandshakeFailed,
            Self::TooLong { .. } => Reason::TooLong,
            Self::Crowded => Reason::Capacity,
            Self::NoKey(_) | Self::UnknownKey { .. } => Reason::UnknownKey,
            Self::Mismatch { reason, .. } => *reason,
            Self::OwnKeyRefused { .. } | Self::Refused { .. } => Reason::RefusedByPeer,
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

fn unknown_key(key: &PublicKey, expected: Option<Identity>) -> String {
    match expected {
        Some(peer) => format!(
            "{peer} should be there, but the process that answers has another public key, {key}; \
             check the address and the key ring"
        ),
        None => format!("public key {key} is not in the key ring; add it if it should be"),
    }
}

/// Marks our text about a mismatch ("peer X … there … here") as ours for the other side, so that
/// "here" and "there" are not misunderstood.
fn attribute(text: &str, peer: Identity, config: &HandshakeConfig) -> String {
    format!("{} says of {peer}: {text}", config.identity)
}

/// Parses what a peer may send inside TLS. For fuzz targets, which cannot get past TLS.
#[doc(hidden)]
pub fn fuzz_plaintext(data: &[u8]) {
    let mut again = Vec::new();
    if let Read::Whole(hello, length) = Hello::read(data) {
        hello.write(&mut again);
        assert_eq!(again, data[..length]);
        let _ = hello.check(&Hello { pillars: 1, ..hello.clone() }, Identity::Client(1));
    }
    again.clear();
    if let Read::Whole(verdict, length) = Verdict::read(data) {
        assert!(length <= data.len());
        // A text that was made safe to log stays as it is when it is sent on.
        verdict.write(&mut again);
        assert!(matches!(Verdict::read(&again), Read::Whole(..)));
    }
}

const EXPORTER_LABEL: &[u8] = b"EXPORTER-hybster-link-v1";
const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
/// RFC 8446, 5.1 and 6: a record of two bytes, a fatal alert.
const ALERT_INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];
const RECORD_HEADER_BYTES: usize = 5;
/// RFC 8446: 2^14 bytes and at most 256 of expansion.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 256;

#[cfg(test)]
mod tests;
