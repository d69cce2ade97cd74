//! The messages that both ends exchange inside the TLS session, before the first frame.
//!
//! `net/WIRE.md` shows the bytes. The first eight bytes of a hello and the layout of a verdict are
//! the same in all versions, so that ends of different versions can still say that they differ.

use super::application::{APPLICATION_NAME_BYTES_MAX, Application};
use crate::cipher::LinkCipher;
use crate::keys::Identity;
use crate::reject::Reason;

/// The version of the link protocol: handshake, frames and message lists together.
pub const LINK_VERSION: u16 = 5;

/// The longest explanation in a verdict, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 512;

/// The longest plaintext that may wait inside the handshake, in bytes.
pub(super) const INBOX_BYTES_MAX: usize = 2 * (HEAD_BYTES + BODY_BYTES_MAX + 3 + TEXT_BYTES_MAX);

const MAGIC: [u8; 4] = *b"HYBN";
const HEAD_BYTES: usize = 8;
/// Without the application's name, which ends the body.
const BODY_BYTES: usize = 1 + 4 + 1 + 2 + 4 + 8 + 32 + 4 + 4 + 1;
/// A later version may have a longer body, which is skipped to read the verdict after it.
const BODY_BYTES_MAX: usize = 1024;

/// One end's claims about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub identity: Identity,
    pub cipher_code: u8,
    pub pillars: u16,
    pub frame_bytes_max: u32,
    pub incarnation: u64,
    pub group_digest: [u8; 32],
    pub application: Option<Application>,
}

/// The result of reading from the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    /// More bytes are needed.
    Partial,
    /// The message, and its length in bytes.
    Whole(T, usize),
    /// It is not well-formed.
    Bad,
    /// It is of another version.
    OtherVersion(u16),
}

impl Hello {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let application = self.application.as_ref();
        let name = application.map_or("", Application::name);
        let length = BODY_BYTES + name.len();
        let (role, id) = match self.identity {
            Identity::Replica(id) => (0, u32::from(id)),
            Identity::Client(id) => (1, id),
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&LINK_VERSION.to_le_bytes());
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.push(role);
        out.extend_from_slice(&id.to_le_bytes());
        out.push(self.cipher_code);
        out.extend_from_slice(&self.pillars.to_le_bytes());
        out.extend_from_slice(&self.frame_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.group_digest);
        let versions = application.map_or((0, 0), |it| (it.version(), it.compatible_from()));
        out.extend_from_slice(&versions.0.to_le_bytes());
        out.extend_from_slice(&versions.1.to_le_bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        assert_eq!(out.len() - start, HEAD_BYTES + length);
    }

    pub(super) fn read(data: &[u8]) -> Read<Self> {
        let Some((head, rest)) = data.split_first_chunk::<HEAD_BYTES>() else {
            return Read::Partial;
        };
        if head[..4] != MAGIC {
            return Read::Bad;
        }
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != LINK_VERSION {
            return Read::OtherVersion(version);
        }
        let length = usize::from(u16::from_le_bytes([head[6], head[7]]));
        if !(BODY_BYTES..=BODY_BYTES + APPLICATION_NAME_BYTES_MAX).contains(&length) {
            return Read::Bad;
        }
        let Some(body) = rest.get(..length) else {
            return Read::Partial;
        };
        let (body, name) = body.split_first_chunk().expect("no body is shorter");
        Self::read_body(body, name).map_or(Read::Bad, |it| Read::Whole(it, HEAD_BYTES + length))
    }

    fn read_body(body: &[u8; BODY_BYTES], name: &[u8]) -> Option<Self> {
        let mut rest = &body[..];
        let role = u8::from_le_bytes(take(&mut rest));
        let id = u32::from_le_bytes(take(&mut rest));
        let identity = match role {
            0 => Identity::Replica(u16::try_from(id).ok()?),
            1 => Identity::Client(id),
            _ => return None,
        };
        let cipher_code = u8::from_le_bytes(take(&mut rest));
        let pillars = u16::from_le_bytes(take(&mut rest));
        let frame_bytes_max = u32::from_le_bytes(take(&mut rest));
        let incarnation = u64::from_le_bytes(take(&mut rest));
        let group_digest = take(&mut rest);
        let versions = (u32::from_le_bytes(take(&mut rest)), u32::from_le_bytes(take(&mut rest)));
        if usize::from(u8::from_le_bytes(take(&mut rest))) != name.len() {
            return None;
        }
        let application = match (name, versions) {
            ([], (0, 0)) => None,
            // An empty one is refused here.
            (name, (version, from)) => {
                Some(Application::new(std::str::from_utf8(name).ok()?, version, from).ok()?)
            }
        };
        Some(Self {
            identity,
            cipher_code,
            pillars,
            frame_bytes_max,
            incarnation,
            group_digest,
            application,
        })
    }

    /// Compares the other end's hello with ours. `peer` is its identity by its key.
    pub(super) fn check(&self, theirs: &Self, peer: Identity) -> Result<(), (Reason, String)> {
        if theirs.identity != peer {
            let text = format!(
                "{peer} (by its public key) calls itself {}; the key rings of both sides differ",
                theirs.identity
            );
            return Err((Reason::UnknownKey, text));
        }
        if theirs.group_digest != self.group_digest {
            let text = format!(
                "peer {peer} runs another group configuration: digest {} there, {} here; \
                 distribute one group.toml to all",
                short_hex(&theirs.group_digest),
                short_hex(&self.group_digest)
            );
            return Err((Reason::ConfigurationMismatch, text));
        }
        if theirs.pillars != self.pillars {
            let text = format!(
                "peer {peer} runs {} pillars, {} here; distribute one group.toml to all",
                theirs.pillars, self.pillars
            );
            return Err((Reason::ConfigurationMismatch, text));
        }
        if theirs.cipher_code != self.cipher_code {
            let text = format!(
                "peer {peer} uses link cipher {}, {} here; set the same on both sides",
                LinkCipher::name_of_code(theirs.cipher_code),
                LinkCipher::name_of_code(self.cipher_code)
            );
            return Err((Reason::CipherMismatch, text));
        }
        if let (Some(own), Some(other)) = (&self.application, &theirs.application)
            && !own.goes_with(other)
        {
            let text = format!(
                "peer {peer} runs the service {other}, {own} here; run one service on all replicas, in \
                 versions that are compatible"
            );
            return Err((Reason::ServiceMismatch, text));
        }
        Ok(())
    }
}

/// Whether the other end is accepted, and if not why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused(Reason, String),
}

impl Verdict {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (code, text) = match self {
            Self::Accepted => (0, ""),
            Self::Refused(reason, text) => (reason.code(), text.as_str()),
        };
        let mut length = text.len().min(TEXT_BYTES_MAX);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        out.push(code);
        out.extend_from_slice(&(length as u16).to_le_bytes());
        out.extend_from_slice(&text.as_bytes()[..length]);
    }

    pub(super) fn read(data: &[u8]) -> Read<Self> {
        let Some((head, rest)) = data.split_first_chunk::<3>() else {
            return Read::Partial;
        };
        let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
        if length > TEXT_BYTES_MAX {
            return Read::Bad;
        }
        let Some(text) = rest.get(..length) else {
            return Read::Partial;
        };
        let verdict = match head[0] {
            0 => Self::Accepted,
            code => Self::Refused(Reason::from_code(code), printable(text)),
        };
        Read::Whole(verdict, head.len() + length)
    }
}

/// Makes a text from the other side safe to log: no control characters, no broken UTF-8.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

fn short_hex(digest: &[u8; 32]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("the body has a fixed length");
    *rest = tail;
    *head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            identity: Identity::Client(7),
            cipher_code: 1,
            pillars: 4,
            frame_bytes_max: 1 << 20,
            incarnation: 99,
            group_digest: [5; 32],
            application: None,
        }
    }

    fn bank(version: u32, compatible_from: u32) -> Option<Application> {
        Application::new("bank", version, compatible_from).ok()
    }

    #[test]
    fn a_hello_and_a_verdict_survive_the_wire() {
        let mut wire = Vec::new();
        hello().write(&mut wire);
        assert_eq!(wire.len(), 69);
        assert_eq!(Hello::read(&wire), Read::Whole(hello(), 69));
        assert_eq!(Hello::read(&wire[..68]), Read::Partial);
        wire.clear();
        let named = Hello { application: bank(3, 2), ..hello() };
        named.write(&mut wire);
        assert_eq!(wire.len(), 73);
        assert_eq!(Hello::read(&wire), Read::Whole(named, 73));
        assert_eq!(Hello::read(&wire[..72]), Read::Partial);
        wire.clear();
        let refused = Verdict::Refused(Reason::Capacity, "full".into());
        refused.write(&mut wire);
        assert_eq!(Verdict::read(&wire), Read::Whole(refused, 7));
    }

    #[test]
    fn the_bytes_on_the_wire_are_as_documented() {
        let mut wire = Vec::new();
        Hello { application: bank(3, 2), ..hello() }.write(&mut wire);
        let expected = [
            &b"HYBN"[..],
            &[5, 0, 65, 0],
            &[1, 7, 0, 0, 0],
            &[1, 4, 0],
            &[0, 0, 16, 0],
            &[99, 0, 0, 0, 0, 0, 0, 0],
            &[5; 32],
            &[3, 0, 0, 0, 2, 0, 0, 0],
            b"\x04bank",
        ];
        // A change here is a new version of the link protocol: see net/WIRE.md.
        assert_eq!(wire, expected.concat());
    }

    #[test]
    fn each_difference_is_named() {
        let check = |theirs: &Hello| hello().check(theirs, Identity::Client(7)).unwrap_err();
        let (reason, text) = check(&Hello { group_digest: [6; 32], ..hello() });
        assert_eq!(reason, Reason::ConfigurationMismatch);
        assert!(text.contains("0606060606060606 there, 0505050505050505 here"), "{text}");
        let (reason, text) = check(&Hello { pillars: 2, ..hello() });
        assert_eq!(reason, Reason::ConfigurationMismatch);
        assert!(text.contains("2 pillars, 4 here"), "{text}");
        let (reason, text) = check(&Hello { cipher_code: 3, ..hello() });
        assert_eq!(reason, Reason::CipherMismatch);
        assert!(text.contains("blake3, gmac here"), "{text}");
        let (reason, _) = check(&Hello { identity: Identity::Client(8), ..hello() });
        assert_eq!(reason, Reason::UnknownKey);
    }

    #[test]
    fn services_that_do_not_go_together_are_both_named() {
        let with = |application| Hello { application, ..hello() };
        let check = |own, theirs| with(own).check(&with(theirs), Identity::Client(7));
        let (reason, text) = check(bank(3, 2), bank(1, 1)).unwrap_err();
        assert_eq!(reason, Reason::ServiceMismatch);
        assert!(text.contains("bank version 1, bank version 3 (compatible from 2) here"), "{text}");
        assert_eq!(check(bank(3, 2), bank(2, 2)), Ok(()));
        // Who says nothing is not compared.
        assert_eq!(check(bank(3, 2), None), Ok(()));
        assert_eq!(check(None, bank(3, 2)), Ok(()));
    }

    #[test]
    fn a_name_that_is_not_one_and_a_wrong_length_of_it_are_refused() {
        let mut wire = Vec::new();
        Hello { application: bank(1, 1), ..hello() }.write(&mut wire);
        let length = wire.len();
        for (at, byte) in [(length - 1, b'\n'), (length - 1, 0xff), (length - 5, 3), (6, 64)] {
            let mut wrong = wire.clone();
            wrong[at] = byte;
            assert_eq!(Hello::read(&wrong), Read::Bad, "{at}");
        }
        // Versions without a name.
        wire.clear();
        hello().write(&mut wire);
        wire[60] = 1;
        assert_eq!(Hello::read(&wire), Read::Bad);
    }

    #[test]
    fn another_version_is_told_from_garbage() {
        let mut wire = Vec::new();
        hello().write(&mut wire);
        wire[4] = 9;
        assert_eq!(Hello::read(&wire), Read::OtherVersion(9));
        wire[0] = b'X';
        assert_eq!(Hello::read(&wire), Read::Bad);
    }

    #[test]
    fn a_verdict_cannot_write_control_characters_into_a_log() {
        let wire = [1, 5, 0, b'a', 0x1b, b'\n', 0xff, b'b'];
        let Read::Whole(Verdict::Refused(_, text), 8) = Verdict::read(&wire) else { panic!() };
        assert_eq!(text, "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = Hello::read(&data);
            let _ = Verdict::read(&data);
            let mut hello = MAGIC.to_vec();
            hello.extend_from_slice(&[5, 0, 65, 0]);
            hello.extend_from_slice(&data);
            let _ = Hello::read(&hello);
        }
    }
}
