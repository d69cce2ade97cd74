//! TrInX, the trusted subsystem of Hybster: counters that can only rise, and certificates that
//! bind a message to a counter value (TR section 4.3, listing 10).
//!
//! A replica host may lie; its TrInX may crash but never lies. Because a value of a counter is
//! certified at most once, a host cannot tell two replicas two different things about one order
//! number, and that is why 2f+1 replicas are enough.
//!
//! # Contents
//! - [`TrInX`] is the one trait of all back ends; [`Command`] and [`Answer`] are its batch form.
//! - [`Verifier`] checks certificates of every instance of the group. It needs no counter, so every
//!   thread may own one. [`RequestVerifier`] checks what proves the requests of clients.
//! - [`InProcessTrInX`] is the fast back end. It protects against nothing but bugs.
//! - [`GroupKey`] is the one secret that all instances of a group share; everything else is
//!   derived.
//! - [`MacKey`] and [`MacAlgorithm`] are the deterministic, nonce-free MACs underneath, and the
//!   module [`mac`] says why a MAC with a nonce would be unsafe here.
//! - [`ClientSigningKey`] and [`ClientPublicKeys`] are for groups whose requests are signed
//!   instead; the module [`signature`] compares the two forms and says why ZIP 215.
//! - [`RandomnessKey`] makes the random bytes that replicas agree on; the module [`randomness`]
//!   says who can foresee them.
//! - `lanes` makes several MACs at once if the CPU can; it has the crate's only unsafe code.
//! - [`keyfile`] (feature `std`) keeps the group key on disk, sealed for one replica.
//!
//! # Back ends to come
//! The trait says nothing about where keys and counters live. An isolated process answers whole
//! batches of [`Command`]s through shared memory, and an enclave does the same through its call
//! gate. For both there is the batch form, and a command is plain data that is [`Copy`]. They use
//! the crate without the feature `std`.
//!
//! # What is certified
//! The module [`certificate`] holds the byte diagram.
// `lanes` alone needs it.
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod certificate;
pub mod client_mac;
mod counter;
mod digest;
pub mod in_process;
#[cfg(feature = "std")]
pub mod keyfile;
mod keys;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod lanes;
pub mod mac;
pub mod randomness;
mod requests;
pub mod signature;
mod trinx;

pub use certificate::{ContinuingCertificate, IndependentCertificate, Proof, TrustedMac};
pub use client_mac::ClientKey;
pub use counter::{Counter, CounterValue, InstanceId, Life};
pub use digest::Digest;
pub use in_process::{InProcessTrInX, InProcessVerifier};
#[cfg(feature = "std")]
pub use keyfile::{KeyFileError, SealingSecret};
pub use keys::{GroupKey, RandomSourceError};
pub use mac::{MacAlgorithm, MacKey, UnknownMacAlgorithm};
pub use randomness::RandomnessKey;
pub use requests::{RequestVerifier, SignedRequests};
pub use signature::{
    ClientPublicKey, ClientPublicKeys, ClientSigningKey, RequestAuthenticator, RequestKey,
    SIGNATURE_BYTES,
};
pub use trinx::{Answer, Command, Refusal, TrInX, Verifier};
