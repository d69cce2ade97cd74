//! The handshake of a link. Sans-IO: received bytes go in, bytes to send come out.
//!
//! TLS 1.3 with raw public keys proves who both ends are and yields fresh link keys from its
//! exporter. Inside the TLS session both ends then send a hello (version, group configuration, who
//! they are) and a verdict about the other's hello. An acceptance is the last TLS record of its
//! sender: what follows on the connection are frames. Refusals name what differs and go to both
//! logs.
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

pub use self::hello::LINK_VERSION;

/// What all handshakes of a process share.
#[derive(Debug)]
pub struct HandshakeConfig {
    /// Who this process is.
    pub identity: Identity,
    /// Its static key.
    pub key: StaticKey,
    /// Whom it accepts.
    pub keyring: Arc<KeyRing>,
    /// Digest of the group configuration.
    pub group_digest: [u8; 32],
    /// P, the number of pillars.
    pub pillars: u16,
    /// Tells several connections of one client apart; zero for a replica.
    pub incarnation: u64,
    /// How frames are protected.
    pub cipher: LinkCipher,
    /// Longest frame payload between replicas, in bytes.
    pub peer_frame_bytes: u32,
    /// Longest frame payload between a client and a replica, in bytes.
    pub client_frame_bytes: u32,
    /// Bytes that a handshake may take from the other side.
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
        }
    }
}

/// Begins handshakes; keeps the TLS configurations.
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

    /// A handshake with whoever connected.
    ///
    /// # Errors
    /// If TLS refuses to start.
    pub fn accept(&self) -> Result<Handshake, HandshakeError> {
        let tls = ServerConnection::new(Arc::clone(&self.server))?;
        Ok(Handshake::new(Arc::clone(&self.config), tls.into(), None))
    }

    /// A handshake with `expected`, to whom this side connected. [`Handshake::receive`] must be
    /// called once with nothing received, to get the first bytes to send.
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
    /// More bytes must be received.
    Pending,
    /// The other end is known and its hello fits ours. Call [`Handshake::admit`] or
    /// [`Handshake::refuse`].
    Identified {
        /// Who it is.
        peer: Identity,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Both ends agreed. The bytes left in the input belong to the link.
    Established(Box<Established>),
}

/// A link that both ends agreed on.
#[derive(Debug)]
pub struct Established {
    /// The link, with fresh keys.
    pub link: Link,
    /// Who is at the other end.
    pub peer: Identity,
    /// The other end's incarnation.
    pub incarnation: u64,
    /// Longest frame payload that may be sent: the smaller one of both sides' limits, in bytes.
    pub send_frame_bytes: u32,
}

/// One handshake.
pub struct Handshake {
    config: Arc<HandshakeConfig>,
    tls: Connection,
    expected: Option<Identity>,
    state: State,
    /// Plaintext out of TLS, not yet read.
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

    /// Whom this side connected to; `None` if it accepted.
    #[must_use]
    pub const fn expected(&self) -> Option<Identity> {
        self.expected
    }

    /// Takes from `data` what belongs to the handshake and appends to `out` what must be sent,
    /// also if it fails: then send `out` and close the connection.
    ///
    /// # Errors
    /// If there will be no link.
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

    /// Accepts the other end. Call [`Self::receive`] next, with what is left to receive.
    ///
    /// # Panics
    /// If the last call of [`Self::receive`] did not return [`Progress::Identified`].
    pub fn admit(&mut self) {
        let State::AwaitAdmission { peer, theirs } =
            std::mem::replace(&mut self.state, State::Over)
        else {
            panic!("nobody waits to be admitted");
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

    fn advance(&mut self, data: &mut BytesMut) -> Result<Progress, HandshakeError> {
        loop {
            if let Some(progress) = self.step()? {
                return Ok(progress);
            }
            // One record at a time: behind the last one, frames follow that TLS must not see.
            if !self.feed_record(data)? {
                return Ok(Progress::Pending);
            }
        }
    }

    /// Goes as far as what has been received allows. `None`: needs another record.
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

    /// Hands one whole TLS record to TLS. False: there is none.
    fn feed_record(&mut self, data: &mut BytesMut) -> Result<bool, HandshakeError> {
        if self.received == 0 && !data.is_empty() && data[0] != RECORD_HANDSHAKE {
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
                return Err(HandshakeError::Malformed);
            }
        }
        data.advance(length);
        self.collect_plaintext()?;
        Ok(true)
    }

    fn collect_plaintext(&mut self) -> Result<(), HandshakeError> {
        let mut chunk = [0; 512];
        // An error of the reader only says that there is no more plaintext yet.
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

    /// True: the other end accepted. False: it has not said yet.
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
            error => HandshakeError::Tls(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handshake({:?})", self.state)
    }
}

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Not TLS.
    #[error("the other side sent bytes that are no TLS handshake; is it a Hybster process?")]
    Garbage,
    /// Inside TLS, but against this protocol.
    #[error("the other side does not follow the link handshake; is it a Hybster process?")]
    Malformed,
    /// More bytes than a handshake may take.
    #[error("the other side sent more than the {limit} bytes that a handshake may take")]
    TooLong {
        /// The limit.
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
        /// The key.
        key: PublicKey,
        /// Whom this side connected to, if it did.
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
        /// Who we are.
        identity: Identity,
    },
    /// The two hellos do not fit.
    #[error("{text}")]
    Mismatch {
        /// The kind of difference.
        reason: Reason,
        /// What differs.
        text: String,
    },
    /// The other side refused us.
    #[error("{peer} refused the link ({reason}): {text}")]
    Refused {
        /// The other side.
        peer: Identity,
        /// The kind.
        reason: Reason,
        /// What it said.
        text: String,
    },
}

impl HandshakeError {
    /// Under which reason this is counted.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Garbage => Reason::Garbage,
            Self::Malformed | Self::Tls(_) => Reason::HandshakeFailed,
            Self::TooLong { .. } => Reason::TooLong,
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
            "{peer} should be there, but whoever answers has another public key, {key}; \
             check the address and the key ring"
        ),
        None => format!("public key {key} is not in the key ring; add it if it should be"),
    }
}

/// Our text about a mismatch says "peer X … there … here". The other side gets it marked as said
/// by us, so that "here" and "there" are not taken for its own.
fn attribute(text: &str, peer: Identity, config: &HandshakeConfig) -> String {
    format!("{} says of {peer}: {text}", config.identity)
}

/// Reads what a peer that has passed TLS may say next. For fuzz targets, which cannot get past TLS.
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
        // What goes to a log can be told to the next one.
        verdict.write(&mut again);
        assert!(matches!(Verdict::read(&again), Read::Whole(..)));
    }
}

const EXPORTER_LABEL: &[u8] = b"EXPORTER-hybster-link-v1";
const RECORD_HANDSHAKE: u8 = 22;
const RECORD_HEADER_BYTES: usize = 5;
/// RFC 8446: 2^14 bytes and at most 256 of expansion.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 256;

#[cfg(test)]
mod tests;
