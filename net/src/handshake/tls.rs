//! rustls with raw public keys (RFC 7250): Ed25519, TLS 1.3 only, no tickets, no resumption.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer};
use rustls::pki_types::{PrivatePkcs8KeyDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::keys::{KeyRing, PublicKey, StaticKey};

/// The configuration for accepting: any key in the ring.
pub(super) fn server_config(
    key: &StaticKey,
    keyring: Arc<KeyRing>,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = Arc::new(Verifier { accepted: Accepted::Ring(keyring) });
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified_key(key)?);
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    // A ticket would be a TLS record after the handshake, where only frames are allowed.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The configuration for connecting to the holder of exactly one key.
pub(super) fn client_config(
    key: &StaticKey,
    expected: PublicKey,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(Verifier { accepted: Accepted::One(expected) });
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified_key(key)?);
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // It is safe here: the verifier below accepts one key only.
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(resolver));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// TLS requires a server name. The key identifies the server, so this name has no meaning.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from("hybster.invalid").expect("a valid name")
}

/// The key inside a "certificate", which with raw public keys is a SubjectPublicKeyInfo.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let key = certificate.as_ref().strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(PublicKey)
}

/// A key that is not accepted, as an error that passes through rustls.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyNotAccepted(pub(super) PublicKey);

impl fmt::Display for KeyNotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "public key {} is not accepted", self.0)
    }
}

impl std::error::Error for KeyNotAccepted {}

/// Finds the refused key in an error of rustls.
pub(super) fn refused_key(error: &Error) -> Option<PublicKey> {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else {
        return None;
    };
    cause.downcast_ref().map(|&KeyNotAccepted(key)| key)
}

/// RFC 8410: an Ed25519 SubjectPublicKeyInfo is this and the key.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![provider::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![provider::kx_group::X25519],
        ..provider::default_provider()
    })
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider::default_provider().signature_verification_algorithms
}

fn certified_key(key: &StaticKey) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = key.to_pkcs8();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&pkcs8[..]));
    let signer = provider::sign::any_supported_type(&der)?;
    let mut spki = SPKI_PREFIX.to_vec();
    spki.extend_from_slice(&key.public().0);
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

#[derive(Debug)]
enum Accepted {
    Ring(Arc<KeyRing>),
    One(PublicKey),
}

#[derive(Debug)]
struct Verifier {
    accepted: Accepted,
}

impl Verifier {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let key = public_key(certificate)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let accepted = match &self.accepted {
            Accepted::Ring(ring) => ring.holder(&key).is_some(),
            Accepted::One(expected) => *expected == key,
        };
        if accepted {
            return Ok(());
        }
        let cause = OtherError(Arc::new(KeyNotAccepted(key)));
        Err(Error::InvalidCertificate(CertificateError::Other(cause)))
    }

    fn check_signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &spki,
            signature,
            &algorithms(),
        )
    }

    fn no_tls12() -> Error {
        Error::General("TLS 1.2 is not spoken here".into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
