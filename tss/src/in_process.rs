//! The back end inside the host's process, which protects against nothing but bugs.
//!
//! Keys and counters are in the memory of the replica. A malicious host can read the group key
//! there and forge anything. Use it for tests, for measurements, and where hosts are trusted not to
//! lie; elsewhere, use an isolated back end.

use alloc::sync::Arc;
use core::fmt;

use crate::{
    certificate::{
        ContinuingCertificate, IndependentCertificate, Proof, TrustedMac, continuing_bytes,
        independent_bytes, mac_bytes,
    },
    client_mac::ClientVerifier,
    counter::{Counter, CounterValue, InstanceId},
    digest::Digest,
    keys::{CertificateKeys, GroupKey},
    mac::{MacAlgorithm, MacKey, equal},
    requests::RequestVerifier,
    signature::{ClientPublicKeys, SIGNATURE_BYTES, SignedRequest},
    trinx::{Refusal, TrInX, Verifier},
};

/// Protects against nothing but bugs, not against a malicious host: keys and counters are in its
/// memory.
///
/// It is the fastest [`TrInX`]: a certificate is one MAC of 116 bytes. It is not `Clone`, because
/// two copies could certify one value twice; the simulator uses `cloned_for_attack` (feature
/// `testing`) to show what that breaks.
pub struct InProcessTrInX {
    instance: InstanceId,
    group: Digest,
    keys: CertificateKeys,
    current: [CounterValue; Counter::ALL.len()],
}

impl InProcessTrInX {
    /// A new instance with all counters at zero.
    ///
    /// `group` is the digest of the group's configuration. `instance` must never have been used
    /// before with this key and group: a host that was started again takes a new [`Life`](crate::Life), or
    /// comes back by [`InProcessTrInX::restored`].
    pub fn new(
        group_key: &GroupKey,
        algorithm: MacAlgorithm,
        group: Digest,
        instance: InstanceId,
    ) -> Self {
        Self {
            instance,
            group,
            keys: CertificateKeys::new(group_key, algorithm),
            current: [CounterValue::ZERO; Counter::ALL.len()],
        }
    }

    /// The instance of a host that was started again, with its counters where its log says.
    ///
    /// `counters` are the values of [`Counter::ALL`]. They must be the highest that are in any
    /// certificate of this instance that has ever left the host, or higher: with lower ones a value
    /// could be certified twice, and a correct replica would equivocate. So the log must prove it: every
    /// certificate was durable there before it left. Where that is in doubt, the instance must not come
    /// back; the replica needs a new life.
    pub fn restored(
        group_key: &GroupKey,
        algorithm: MacAlgorithm,
        group: Digest,
        instance: InstanceId,
        counters: [CounterValue; Counter::ALL.len()],
    ) -> Self {
        Self { current: counters, ..Self::new(group_key, algorithm, group, instance) }
    }

    /// A second instance with the same name, keys and counters, which a correct TrInX never allows.
    ///
    /// For the control experiment that a cloned TrInX breaks agreement.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn cloned_for_attack(&self) -> Self {
        Self {
            instance: self.instance,
            group: self.group,
            keys: self.keys.clone(),
            current: self.current,
        }
    }

    fn not_below_current(
        &self,
        counter: Counter,
        asked: CounterValue,
    ) -> Result<CounterValue, Refusal> {
        let current = self.current(counter);
        if asked < current {
            return Err(Refusal::BelowCurrent { counter, current, asked });
        }
        Ok(current)
    }
}

impl TrInX for InProcessTrInX {
    fn instance(&self) -> InstanceId {
        self.instance
    }

    fn current(&self, counter: Counter) -> CounterValue {
        self.current[counter.index()]
    }

    fn certify_independent(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<IndependentCertificate, Refusal> {
        let current = self.current(counter);
        // TR listing 10, line 20: tv' > ctr(tc)
        if value <= current {
            return Err(Refusal::NotAboveCurrent { counter, current, asked: value });
        }
        let bytes = independent_bytes(&self.group, self.instance, counter, value, digest);
        let proof = Proof(self.keys.independent.tag32(&bytes));
        self.current[counter.index()] = value;
        Ok(IndependentCertificate { instance: self.instance, counter, value, proof })
    }

    fn certify_continuing(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<ContinuingCertificate, Refusal> {
        // TR listing 10, line 11: tv' >= ctr(tc)
        let previous = self.not_below_current(counter, value)?;
        let bytes = continuing_bytes(&self.group, self.instance, counter, value, previous, digest);
        let proof = Proof(self.keys.continuing.tag32(&bytes));
        self.current[counter.index()] = value;
        Ok(ContinuingCertificate { instance: self.instance, counter, value, previous, proof })
    }

    fn certify_mac(&mut self, digest: &Digest) -> Result<TrustedMac, Refusal> {
        let bytes = mac_bytes(&self.group, self.instance, digest);
        Ok(TrustedMac { instance: self.instance, proof: Proof(self.keys.mac.tag32(&bytes)) })
    }

    fn forward(&mut self, counter: Counter, value: CounterValue) -> Result<(), Refusal> {
        // TR listing 10, line 31: tv' >= ctr(tc)
        self.not_below_current(counter, value)?;
        self.current[counter.index()] = value;
        Ok(())
    }

    fn advance_epoch(&mut self, epoch: u32, group: &Digest) -> Result<(), Refusal> {
        let current = self.instance.epoch;
        if epoch <= current {
            return Err(Refusal::EpochPassed { current, asked: epoch });
        }
        (self.instance.epoch, self.group) = (epoch, *group);
        self.current = [CounterValue::ZERO; Counter::ALL.len()];
        Ok(())
    }
}

/// Shows the name and the counters, never a key.
impl fmt::Debug for InProcessTrInX {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessTrInX")
            .field("instance", &self.instance)
            .field("group", &self.group)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

/// Protects against nothing but bugs, not against a malicious host: it holds keys that can forge.
///
/// A symmetric key that can check can also certify, so the warning of [`InProcessTrInX`] holds
/// here.
#[derive(Clone)]
pub struct InProcessVerifier {
    group: Digest,
    keys: CertificateKeys,
    clients: ClientVerifier,
    /// The clients' keys if they sign their requests; then a MAC proves nothing.
    signers: Option<Arc<ClientPublicKeys>>,
}

impl InProcessVerifier {
    /// A verifier for the certificates of all instances of the group and the MACs of all its
    /// clients.
    pub fn new(group_key: &GroupKey, algorithm: MacAlgorithm, group: Digest) -> Self {
        Self {
            group,
            keys: CertificateKeys::new(group_key, algorithm),
            clients: ClientVerifier::new(group_key, algorithm),
            signers: None,
        }
    }

    /// The same for a group whose clients sign their requests with these keys, and in no other way.
    #[must_use]
    pub fn with_signers(self, signers: Arc<ClientPublicKeys>) -> Self {
        Self { signers: Some(signers), ..self }
    }
}

impl Verifier for InProcessVerifier {
    fn verify_independent(&self, certificate: &IndependentCertificate, digest: &Digest) -> bool {
        let bytes = certificate.certified_bytes(&self.group, digest);
        proves(&self.keys.independent, &bytes, &certificate.proof)
    }

    fn verify_continuing(&self, certificate: &ContinuingCertificate, digest: &Digest) -> bool {
        let bytes = certificate.certified_bytes(&self.group, digest);
        proves(&self.keys.continuing, &bytes, &certificate.proof)
    }

    fn verify_mac(&self, mac: &TrustedMac, digest: &Digest) -> bool {
        proves(&self.keys.mac, &mac.certified_bytes(&self.group, digest), &mac.proof)
    }
}

impl RequestVerifier for InProcessVerifier {
    fn verify_client(&self, client: u32, message: &[u8], mac: &[u8; 16]) -> bool {
        self.signers.is_none() && self.clients.verify(client, message, mac)
    }

    fn verify_client_batch(&self, requests: &[(u32, &[u8], &[u8; 16])]) -> Result<(), usize> {
        if self.signers.is_some() && !requests.is_empty() {
            return Err(0);
        }
        self.clients.verify_batch(requests)
    }

    fn verify_signed(
        &self,
        client: u32,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> bool {
        self.signers.as_ref().is_some_and(|keys| keys.verify(client, message, signature))
    }

    fn verify_signed_batch(&self, requests: &[SignedRequest<'_>]) -> bool {
        self.signers.as_ref().is_some_and(|keys| keys.verify_batch(requests))
    }
}

impl fmt::Debug for InProcessVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessVerifier").field("group", &self.group).finish_non_exhaustive()
    }
}

/// Compares in constant time, so that it does not leak how much of a guessed proof is right.
fn proves(key: &MacKey, bytes: &[u8], proof: &Proof) -> bool {
    equal(&key.tag32(bytes), &proof.0)
}
