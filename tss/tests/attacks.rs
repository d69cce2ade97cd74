//! The attacks on a published TrInX that this one must refuse, by name.

use std::cell::{Cell, RefCell};

use hybster_tss::{
    Answer, Command, ContinuingCertificate, Counter, CounterValue, Digest, GroupKey,
    InProcessTrInX, InProcessVerifier, IndependentCertificate, InstanceId, Life, MacAlgorithm,
    Proof, Refusal, TrInX, TrustedMac, Verifier,
};

const GROUP: Digest = Digest([0x11; 32]);
const INSTANCE: InstanceId = InstanceId { replica: 1, pillar: 0, epoch: 0, life: Life(9) };
const DIGEST: Digest = Digest([0x22; 32]);

fn group_key() -> GroupKey {
    GroupKey::from_bytes([0x33; 32])
}

fn trinx(algorithm: MacAlgorithm) -> InProcessTrInX {
    InProcessTrInX::new(&group_key(), algorithm, GROUP, INSTANCE)
}

fn verifier(algorithm: MacAlgorithm) -> InProcessVerifier {
    InProcessVerifier::new(&group_key(), algorithm, GROUP)
}

/// Instances and values that an attacker would try first: its own, its neighbours', the extremes.
fn targets() -> Vec<(InstanceId, Counter, CounterValue, CounterValue)> {
    let mut targets = Vec::new();
    for replica in [0, 1, 2, u16::MAX] {
        for pillar in [0, 1, u16::MAX] {
            for (epoch, life) in [(0, 0), (0, 9), (1, 9), (u32::MAX, u64::MAX)] {
                let instance = InstanceId { replica, pillar, epoch, life: Life(life) };
                for counter in Counter::ALL {
                    for value in VALUES {
                        for previous in VALUES {
                            targets.push((instance, counter, value, previous));
                        }
                    }
                }
            }
        }
    }
    targets
}

const VALUES: [CounterValue; 4] =
    [CounterValue::ZERO, CounterValue::new(0, 1), CounterValue::new(1, 0), CounterValue::MAX];

/// Attack 1: the host asks for a trusted MAC, which uses no counter, and presents its proof as the
/// proof of a counter certificate. In the published form the host chose the MACed bytes, so they
/// could be those of a certificate of any instance.
#[test]
fn trusted_mac_passed_off_as_a_counter_certificate() {
    for algorithm in MacAlgorithm::ALL {
        let (mut trinx, verifier) = (trinx(algorithm), verifier(algorithm));
        let mac = trinx.certify_mac(&DIGEST).unwrap();
        assert!(verifier.verify_mac(&mac, &DIGEST));
        for (instance, counter, value, previous) in targets() {
            let proof = mac.proof;
            let independent = IndependentCertificate { instance, counter, value, proof };
            let continuing = ContinuingCertificate { instance, counter, value, previous, proof };
            assert!(!verifier.verify_independent(&independent, &DIGEST));
            assert!(!verifier.verify_continuing(&continuing, &DIGEST));
        }
    }
}

/// Attack 1, as it was really done: the host MACs the digest of the very bytes of a certificate.
#[test]
fn trusted_mac_over_the_bytes_of_a_counter_certificate() {
    for algorithm in MacAlgorithm::ALL {
        let (mut trinx, verifier) = (trinx(algorithm), verifier(algorithm));
        for (instance, counter, value, previous) in targets() {
            let proof = Proof([0; 32]);
            let mut independent = IndependentCertificate { instance, counter, value, proof };
            let bytes = independent.certified_bytes(&GROUP, &DIGEST);
            independent.proof = trinx.certify_mac(&Digest::of(&bytes)).unwrap().proof;
            assert!(!verifier.verify_independent(&independent, &DIGEST));

            let mut continuing =
                ContinuingCertificate { instance, counter, value, previous, proof };
            let bytes = continuing.certified_bytes(&GROUP, &DIGEST);
            continuing.proof = trinx.certify_mac(&Digest::of(&bytes)).unwrap().proof;
            assert!(!verifier.verify_continuing(&continuing, &DIGEST));
        }
    }
}

/// The same the other way round, and between the two kinds of counter certificate.
#[test]
fn no_kind_of_certificate_passes_for_another() {
    for algorithm in MacAlgorithm::ALL {
        let (mut trinx, verifier) = (trinx(algorithm), verifier(algorithm));
        let counter = Counter::Ordering;
        let value = CounterValue::new(0, 1);
        let independent = trinx.certify_independent(counter, value, &DIGEST).unwrap();
        let continuing = trinx.certify_continuing(counter, value, &DIGEST).unwrap();
        for proof in [independent.proof, continuing.proof] {
            assert!(!verifier.verify_mac(&TrustedMac { instance: INSTANCE, proof }, &DIGEST));
        }
        for previous in VALUES {
            let forged = ContinuingCertificate {
                instance: INSTANCE,
                counter,
                value,
                previous,
                proof: independent.proof,
            };
            assert!(!verifier.verify_continuing(&forged, &DIGEST));
        }
        let forged = IndependentCertificate { proof: continuing.proof, ..independent };
        assert!(!verifier.verify_independent(&forged, &DIGEST));
    }
}

/// Attack 2: bytes move from the end of the header to the start of the body, or back, so that the
/// same bytes read as another value and another message. Here every field has its place: a
/// certificate read at any other offset is another statement.
#[test]
fn certificate_shifted_by_moving_bytes_between_header_and_body() {
    for algorithm in MacAlgorithm::ALL {
        let (mut trinx, verifier) = (trinx(algorithm), verifier(algorithm));
        let counter = Counter::Ordering;
        let value = CounterValue::from_u128(0x0102_0304_0506_0708);
        let honest = trinx.certify_independent(counter, value, &DIGEST).unwrap();
        assert!(verifier.verify_independent(&honest, &DIGEST));

        // Value and digest, in either byte order, as one string that is cut elsewhere.
        for value_bytes in [value.as_u128().to_le_bytes(), value.as_u128().to_be_bytes()] {
            let mut joined = [value_bytes.as_slice(), DIGEST.as_bytes()].concat();
            for _ in 1..joined.len() {
                joined.rotate_left(1);
                let shifted: [u8; 16] = joined[..16].try_into().unwrap();
                let digest = Digest(joined[16..].try_into().unwrap());
                for number in [u128::from_le_bytes(shifted), u128::from_be_bytes(shifted)] {
                    let value = CounterValue::from_u128(number);
                    if (value, digest) == (honest.value, DIGEST) {
                        continue;
                    }
                    let forged = IndependentCertificate { value, ..honest };
                    assert!(!verifier.verify_independent(&forged, &digest));
                }
            }
        }
    }
}

/// Attack 2, between neighbouring header fields: previous and new value, replica and pillar, a
/// value of zero and no value.
#[test]
fn certificate_shifted_between_header_fields() {
    for algorithm in MacAlgorithm::ALL {
        let verifier = verifier(algorithm);
        let instance = InstanceId { replica: 1, pillar: 2, epoch: 3, life: Life(4) };
        let mut trinx = InProcessTrInX::new(&group_key(), algorithm, GROUP, instance);
        let counter = Counter::NewView;
        trinx.forward(counter, CounterValue::new(1, 0)).unwrap();
        let value = CounterValue::new(2, 0);
        let honest = trinx.certify_continuing(counter, value, &DIGEST).unwrap();
        assert!(verifier.verify_continuing(&honest, &DIGEST));

        let forged =
            ContinuingCertificate { value: honest.previous, previous: honest.value, ..honest };
        assert!(!verifier.verify_continuing(&forged, &DIGEST));
        let swapped = [
            InstanceId { replica: 2, pillar: 1, ..instance },
            InstanceId { pillar: 3, epoch: 2, ..instance },
            InstanceId { replica: 0x0201, pillar: 0x0300, epoch: 0, ..instance },
            InstanceId { epoch: 4, life: Life(3), ..instance },
        ];
        for instance in swapped {
            assert!(
                !verifier.verify_continuing(&ContinuingCertificate { instance, ..honest }, &DIGEST)
            );
        }
    }
}

/// Attack 3: a call with a bad value is refused, but a careless subsystem has moved its counter or
/// its nonce by then, and the next honest certificate is lost.
#[test]
fn a_rejected_call_does_not_spoil_the_next_honest_certificate() {
    for algorithm in MacAlgorithm::ALL {
        let verifier = verifier(algorithm);
        let (mut attacked, mut undisturbed) = (trinx(algorithm), trinx(algorithm));
        let counter = Counter::Ordering;
        let value = CounterValue::new(3, 5);
        attacked.certify_independent(counter, value, &DIGEST).unwrap();
        undisturbed.certify_independent(counter, value, &DIGEST).unwrap();

        let below = CounterValue::new(2, u64::MAX);
        let evil = Digest([0xee; 32]);
        assert_eq!(
            attacked.certify_independent(counter, value, &evil),
            Err(Refusal::NotAboveCurrent { counter, current: value, asked: value })
        );
        let refusal = Refusal::BelowCurrent { counter, current: value, asked: below };
        assert_eq!(attacked.certify_continuing(counter, below, &evil), Err(refusal));
        assert_eq!(attacked.forward(counter, below), Err(refusal));
        assert_eq!(attacked.current(counter), value);
        assert_eq!(attacked.current(Counter::NewView), CounterValue::ZERO);

        let next = CounterValue::new(3, 6);
        let certificate = attacked.certify_independent(counter, next, &DIGEST).unwrap();
        assert!(verifier.verify_independent(&certificate, &DIGEST));
        assert_eq!(
            certificate,
            undisturbed.certify_independent(counter, next, &DIGEST).unwrap(),
            "as if the refused calls had never been made"
        );
        let above = CounterValue::new(4, 0);
        assert_eq!(
            attacked.certify_continuing(counter, above, &DIGEST),
            undisturbed.certify_continuing(counter, above, &DIGEST)
        );
    }
}

/// Attack 3 in a batch: the refused command is in the middle.
#[test]
fn a_rejected_command_does_not_spoil_the_rest_of_its_batch() {
    let mut trinx = trinx(MacAlgorithm::default());
    let verifier = verifier(MacAlgorithm::default());
    let counter = Counter::Ordering;
    let independent = |order| Command::Independent {
        counter,
        value: CounterValue::new(0, order),
        digest: DIGEST,
    };
    let mut answers = vec![Ok(Answer::Forwarded); 9];
    trinx.certify_batch(
        &[independent(1), independent(1), Command::Mac { digest: DIGEST }, independent(2)],
        &mut answers,
    );
    let [Ok(Answer::Independent(first)), Err(refusal), Ok(Answer::Mac(mac)), Ok(last)] =
        &answers[..]
    else {
        panic!("unexpected answers: {answers:?}");
    };
    assert!(verifier.verify_independent(first, &DIGEST));
    assert!(matches!(refusal, Refusal::NotAboveCurrent { .. }));
    assert!(verifier.verify_mac(mac, &DIGEST));
    let Answer::Independent(last) = last else { panic!("unexpected answer: {last:?}") };
    assert!(verifier.verify_independent(last, &DIGEST));
}

/// Attack 4: the host changes the arguments after they were checked and before they are used.
///
/// In process, the type system refuses it: a command is plain data that is copied (`Copy`, no
/// references, no interior mutability), the digest comes by a shared reference, and a batch is
/// borrowed for the whole call, so that its owner cannot change it meanwhile.
#[test]
fn arguments_changed_between_check_and_use() {
    const fn plain_data<T: Copy + Send + Sync + Eq + 'static>() {}
    plain_data::<Command>();

    let (mut trinx, verifier) = (trinx(MacAlgorithm::default()), verifier(MacAlgorithm::default()));
    let counter = Counter::Ordering;
    let honest = Command::Independent { counter, value: CounterValue::new(0, 1), digest: DIGEST };
    let evil_digest = Digest([0xee; 32]);
    let evil =
        Command::Independent { counter, value: CounterValue::new(9, 9), digest: evil_digest };

    // One command in memory that the host can write: what is used is the copy that was taken.
    let shared = Cell::new(honest);
    let command = shared.get();
    shared.set(evil);
    let Ok(Answer::Independent(certificate)) = trinx.apply(command) else { panic!("refused") };
    assert_eq!(certificate.value, CounterValue::new(0, 1));
    assert!(verifier.verify_independent(&certificate, &DIGEST));
    assert!(!verifier.verify_independent(&certificate, &evil_digest));

    // A batch in memory that the host can write: it is borrowed until the last command is done.
    let next = Command::Independent { counter, value: CounterValue::new(0, 2), digest: DIGEST };
    let buffer = RefCell::new(vec![next, next]);
    let mut answers = Vec::new();
    let borrowed = buffer.borrow();
    let mut watched = Watched { inner: trinx, buffer: &buffer };
    watched.certify_batch(&borrowed, &mut answers);
    drop(borrowed);
    buffer.borrow_mut()[0] = evil;
    let Ok(Answer::Independent(certificate)) = answers[0] else { panic!("refused") };
    assert_eq!(certificate.value, CounterValue::new(0, 2));
    assert!(verifier.verify_independent(&certificate, &DIGEST));
    assert!(matches!(answers[1], Err(Refusal::NotAboveCurrent { .. })));
}

/// Tries to change the caller's buffer in the middle of each call of a batch.
struct Watched<'a> {
    inner: InProcessTrInX,
    buffer: &'a RefCell<Vec<Command>>,
}

impl Watched<'_> {
    /// The batch loop of the trait, with the attacker at work before each step.
    fn certify_batch(&mut self, commands: &[Command], answers: &mut Vec<Result<Answer, Refusal>>) {
        let mut one = Vec::new();
        for command in commands {
            assert!(self.buffer.try_borrow_mut().is_err(), "the buffer is borrowed all along");
            self.inner.certify_batch(std::slice::from_ref(command), &mut one);
            answers.append(&mut one);
        }
    }
}

/// The control experiment: a TrInX that could be cloned would certify one value twice.
#[cfg(feature = "testing")]
#[test]
fn a_cloned_trinx_equivocates() {
    let mut original = trinx(MacAlgorithm::default());
    let mut clone = original.cloned_for_attack();
    let verifier = verifier(MacAlgorithm::default());
    let (counter, value) = (Counter::Ordering, CounterValue::new(0, 1));
    let other = Digest([0x44; 32]);
    let one = original.certify_independent(counter, value, &DIGEST).unwrap();
    let two = clone.certify_independent(counter, value, &other).unwrap();
    assert!(verifier.verify_independent(&one, &DIGEST));
    assert!(verifier.verify_independent(&two, &other));
}

/// What is over stays over: neither a counter nor a trusted MAC of an earlier epoch can be had again, and what
/// was made there is nothing in the next one, nor the other way round.
#[test]
fn an_epoch_that_is_over_certifies_nothing() {
    const NEXT: Digest = Digest([0x77; 32]);
    for algorithm in MacAlgorithm::ALL {
        let (old, new) =
            (verifier(algorithm), InProcessVerifier::new(&group_key(), algorithm, NEXT));
        let mut trinx = InProcessTrInX::new(&group_key(), algorithm, GROUP, INSTANCE);
        let counter = Counter::Ordering;
        let value = CounterValue::new(0, 7);
        let (mac, before) = (
            trinx.certify_mac(&DIGEST).unwrap(),
            trinx.certify_independent(counter, value, &DIGEST).unwrap(),
        );
        trinx.advance_epoch(1, &NEXT).unwrap();
        assert_eq!(trinx.instance(), InstanceId { epoch: 1, ..INSTANCE });
        assert_eq!(Counter::ALL.map(|counter| trinx.current(counter)), [CounterValue::ZERO; 2]);
        for epoch in [0, 1] {
            let refused = trinx.advance_epoch(epoch, &GROUP);
            assert_eq!(refused, Err(Refusal::EpochPassed { current: 1, asked: epoch }));
        }
        let (mac_after, after) = (
            trinx.certify_mac(&DIGEST).unwrap(),
            trinx.certify_independent(counter, value, &DIGEST).unwrap(),
        );
        assert!(old.verify_mac(&mac, &DIGEST) && new.verify_mac(&mac_after, &DIGEST));
        let pretended = TrustedMac { instance: mac_after.instance, ..mac };
        assert!(!new.verify_mac(&mac, &DIGEST) && !new.verify_mac(&pretended, &DIGEST));
        let pretended = TrustedMac { instance: mac.instance, ..mac_after };
        assert!(!old.verify_mac(&mac_after, &DIGEST) && !old.verify_mac(&pretended, &DIGEST));
        assert!(!new.verify_independent(&before, &DIGEST));
        assert!(!old.verify_independent(&after, &DIGEST));
    }
}

/// Another life of the same replica is another instance, whatever else is equal.
#[test]
fn lives_are_told_apart() {
    let verifier = verifier(MacAlgorithm::default());
    let make = |life| {
        let instance = InstanceId { life: Life(life), ..INSTANCE };
        InProcessTrInX::new(&group_key(), MacAlgorithm::default(), GROUP, instance)
    };
    let mac = make(1).certify_mac(&DIGEST).unwrap();
    assert!(verifier.verify_mac(&mac, &DIGEST));
    let other = TrustedMac { instance: make(2).instance(), ..mac };
    assert!(!verifier.verify_mac(&other, &DIGEST));
    assert_ne!(Life::generate().unwrap(), Life::generate().unwrap());
}
