//! The trait of all TrInX back ends, and the trait of what checks their certificates.

use alloc::{boxed::Box, vec::Vec};

use thiserror::Error;

use crate::{
    certificate::{ContinuingCertificate, IndependentCertificate, TrustedMac},
    counter::{Counter, CounterValue, InstanceId},
    digest::Digest,
};

/// One TrInX instance: its counters and the right to certify with them (TR listing 10).
///
/// A refused call changes nothing: the next honest call succeeds as if the refused one had never
/// been made. One pillar owns the instance, so calls need no lock.
///
/// # For authors of back ends
/// - Read every argument *once*, before the first check, and use that copy from then on. Memory
///   that the host can write may change between check and use.
/// - Move the counter in the same step that makes the proof, and release no proof if that fails.
/// - A back end in another address space overrides [`certify_batch`](TrInX::certify_batch), so that
///   the boundary is crossed once per batch.
pub trait TrInX: Send {
    /// The name of this instance, which is part of each of its certificates.
    fn instance(&self) -> InstanceId;

    /// The value of `counter`: the highest one ever used or skipped.
    fn current(&self, counter: Counter) -> CounterValue;

    /// Binds `digest` to `value`, which must be above the current one, and moves the counter there
    /// (`createIndependentCertificate`, TR listing 10).
    fn certify_independent(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<IndependentCertificate, Refusal>;

    /// Binds `digest` to the step from the current value to `value`, which must not be below it,
    /// and moves the counter there (`createContinuingCertificate`, TR listing 10).
    fn certify_continuing(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<ContinuingCertificate, Refusal>;

    /// Vouches for `digest` without any counter.
    fn certify_mac(&mut self, digest: &Digest) -> Result<TrustedMac, Refusal>;

    /// Moves the counter to `value`, which must not be below the current one, and certifies nothing
    /// (`forwardCounter`, TR listing 10).
    fn forward(&mut self, counter: Counter, value: CounterValue) -> Result<(), Refusal>;

    /// Goes on to a later epoch of the group, whose configuration has this digest: its counters, which begin
    /// at zero, are those of another [`InstanceId`]. Nothing of an earlier epoch is certified any more, trusted MACs
    /// included, which no counter would stop.
    fn advance_epoch(&mut self, epoch: u32, group: &Digest) -> Result<(), Refusal>;

    /// Carries out one command.
    fn apply(&mut self, command: Command) -> Result<Answer, Refusal> {
        match command {
            Command::Independent { counter, value, digest } => {
                self.certify_independent(counter, value, &digest).map(Answer::Independent)
            }
            Command::Continuing { counter, value, digest } => {
                self.certify_continuing(counter, value, &digest).map(Answer::Continuing)
            }
            Command::Mac { digest } => self.certify_mac(&digest).map(Answer::Mac),
            Command::Forward { counter, value } => {
                self.forward(counter, value).map(|()| Answer::Forwarded)
            }
        }
    }

    /// Carries out `commands` in order. `answers` is emptied first and then holds one answer for
    /// each command, in the same order; a refused command does not stop the ones after it.
    fn certify_batch(&mut self, commands: &[Command], answers: &mut Vec<Result<Answer, Refusal>>) {
        answers.clear();
        answers.reserve(commands.len());
        for command in commands {
            let command = *command; // The one copy: checked, certified and answered from here on.
            answers.push(self.apply(command));
        }
    }
}

/// One call of a [`TrInX`], as plain data.
///
/// It is [`Copy`] and holds no reference: a back end copies it once out of the caller's memory,
/// and then checks and uses that copy only. This is what keeps a host from changing arguments
/// between check and use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// [`TrInX::certify_independent`].
    Independent {
        /// The counter to use.
        counter: Counter,
        /// The value to bind, above the current one.
        value: CounterValue,
        /// The digest of the message.
        digest: Digest,
    },
    /// [`TrInX::certify_continuing`].
    Continuing {
        /// The counter to use.
        counter: Counter,
        /// The value to move to, not below the current one.
        value: CounterValue,
        /// The digest of the message.
        digest: Digest,
    },
    /// [`TrInX::certify_mac`].
    Mac {
        /// The digest of the message.
        digest: Digest,
    },
    /// [`TrInX::forward`].
    Forward {
        /// The counter to move.
        counter: Counter,
        /// The value to move to, not below the current one.
        value: CounterValue,
    },
}

/// The result of a [`Command`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Command::Independent`].
    Independent(IndependentCertificate),
    /// To [`Command::Continuing`].
    Continuing(ContinuingCertificate),
    /// To [`Command::Mac`].
    Mac(TrustedMac),
    /// To [`Command::Forward`].
    Forwarded,
}

/// Why a TrInX refused a command. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An independent certificate needs a fresh value.
    #[error(
        "counter {counter} is at {current}, and an independent certificate for {asked} needs a \
         value above it: certify a higher value, or send the certificate that was made for {asked}"
    )]
    NotAboveCurrent {
        /// The counter that was named.
        counter: Counter,
        /// Its value.
        current: CounterValue,
        /// The value that was asked for.
        asked: CounterValue,
    },
    /// A counter never goes back.
    #[error(
        "counter {counter} is at {current} and cannot go back to {asked}: continue from its \
         current value"
    )]
    BelowCurrent {
        /// The counter that was named.
        counter: Counter,
        /// Its value.
        current: CounterValue,
        /// The value that was asked for.
        asked: CounterValue,
    },
    /// An epoch that is over does not come back.
    #[error("epoch {current} has begun, and epochs rise: {asked} is over, or has begun before")]
    EpochPassed {
        /// The epoch of the instance.
        current: u32,
        /// The one that was asked for.
        asked: u32,
    },
    /// An isolated back end does not answer.
    #[error(
        "the trusted subsystem does not answer any more: stop this replica and start it again \
         in a new life"
    )]
    Unavailable,
}

/// Checks certificates of every instance of the group.
///
/// It needs no counter, so any thread may own one. Every check includes the group digest that the
/// verifier was made with, so a certificate of a group with another configuration is refused.
pub trait Verifier: Send {
    /// Whether `certificate` was made by the instance it names, for the message with this digest
    /// (`verifyCertificate`, TR listing 10).
    #[must_use]
    fn verify_independent(&self, certificate: &IndependentCertificate, digest: &Digest) -> bool;

    /// Whether `certificate` was made by the instance it names, for the message with this digest
    /// (`verifyCertificate`, TR listing 10).
    #[must_use]
    fn verify_continuing(&self, certificate: &ContinuingCertificate, digest: &Digest) -> bool;

    /// Whether `mac` was made by the instance it names, for the message with this digest.
    #[must_use]
    fn verify_mac(&self, mac: &TrustedMac, digest: &Digest) -> bool;
}

impl<T: TrInX + ?Sized> TrInX for Box<T> {
    fn instance(&self) -> InstanceId {
        (**self).instance()
    }

    fn current(&self, counter: Counter) -> CounterValue {
        (**self).current(counter)
    }

    fn certify_independent(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<IndependentCertificate, Refusal> {
        (**self).certify_independent(counter, value, digest)
    }

    fn certify_continuing(
        &mut self,
        counter: Counter,
        value: CounterValue,
        digest: &Digest,
    ) -> Result<ContinuingCertificate, Refusal> {
        (**self).certify_continuing(counter, value, digest)
    }

    fn certify_mac(&mut self, digest: &Digest) -> Result<TrustedMac, Refusal> {
        (**self).certify_mac(digest)
    }

    fn forward(&mut self, counter: Counter, value: CounterValue) -> Result<(), Refusal> {
        (**self).forward(counter, value)
    }

    fn advance_epoch(&mut self, epoch: u32, group: &Digest) -> Result<(), Refusal> {
        (**self).advance_epoch(epoch, group)
    }

    fn apply(&mut self, command: Command) -> Result<Answer, Refusal> {
        (**self).apply(command)
    }

    fn certify_batch(&mut self, commands: &[Command], answers: &mut Vec<Result<Answer, Refusal>>) {
        (**self).certify_batch(commands, answers);
    }
}

impl<V: Verifier + ?Sized> Verifier for Box<V> {
    fn verify_independent(&self, certificate: &IndependentCertificate, digest: &Digest) -> bool {
        (**self).verify_independent(certificate, digest)
    }

    fn verify_continuing(&self, certificate: &ContinuingCertificate, digest: &Digest) -> bool {
        (**self).verify_continuing(certificate, digest)
    }

    fn verify_mac(&self, mac: &TrustedMac, digest: &Digest) -> bool {
        (**self).verify_mac(mac, digest)
    }
}
