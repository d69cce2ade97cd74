//! Properties that hold for every sequence of calls and every forgery of one bit.

use std::collections::HashSet;

use hybster_tss::{
    Answer, Command, ContinuingCertificate, Counter, CounterValue, Digest, GroupKey,
    InProcessTrInX, InProcessVerifier, IndependentCertificate, InstanceId, Life, MacAlgorithm,
    RequestVerifier, TrInX, TrustedMac, Verifier,
};
use proptest::{collection::vec, prelude::*};

fn counter() -> impl Strategy<Value = Counter> {
    prop_oneof![Just(Counter::Ordering), Just(Counter::NewView)]
}

fn algorithm() -> impl Strategy<Value = MacAlgorithm> {
    proptest::sample::select(MacAlgorithm::ALL.to_vec())
}

/// Few values, so that calls meet; and the largest one.
fn value() -> impl Strategy<Value = CounterValue> {
    prop_oneof![
        9 => (0..4_u64, 0..6_u64).prop_map(|(view, order)| CounterValue::new(view, order)),
        1 => Just(CounterValue::MAX),
    ]
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn instance() -> impl Strategy<Value = InstanceId> {
    any::<(u16, u16, u32, u64)>().prop_map(|(replica, pillar, epoch, life)| InstanceId {
        replica,
        pillar,
        epoch,
        life: Life(life),
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (counter(), value(), digest()).prop_map(|(counter, value, digest)| Command::Independent {
            counter,
            value,
            digest
        }),
        (counter(), value(), digest()).prop_map(|(counter, value, digest)| Command::Continuing {
            counter,
            value,
            digest
        }),
        digest().prop_map(|digest| Command::Mac { digest }),
        (counter(), value()).prop_map(|(counter, value)| Command::Forward { counter, value }),
    ]
}

/// What TR listing 10 says the command does to the counters, or `None` if it must be refused.
fn model(current: [CounterValue; 2], command: Command) -> Option<[CounterValue; 2]> {
    let (counter, value, allowed) = match command {
        Command::Mac { .. } => return Some(current),
        Command::Independent { counter, value, .. } => {
            (counter, value, value > current[index(counter)])
        }
        Command::Continuing { counter, value, .. } | Command::Forward { counter, value } => {
            (counter, value, value >= current[index(counter)])
        }
    };
    let mut next = current;
    next[index(counter)] = value;
    allowed.then_some(next)
}

fn index(counter: Counter) -> usize {
    usize::from(counter.wire()) - 1
}

/// A statement of any kind, as a verifier sees it, with every bit within reach.
#[derive(Clone, Copy, Debug)]
enum Statement {
    Independent(IndependentCertificate),
    Continuing(ContinuingCertificate),
    Mac(TrustedMac),
}

impl Statement {
    fn holds(&self, verifier: &InProcessVerifier, digest: &Digest) -> bool {
        match self {
            Self::Independent(certificate) => verifier.verify_independent(certificate, digest),
            Self::Continuing(certificate) => verifier.verify_continuing(certificate, digest),
            Self::Mac(mac) => verifier.verify_mac(mac, digest),
        }
    }

    fn parts(&mut self) -> (&mut InstanceId, &mut [u8; 32]) {
        match self {
            Self::Independent(it) => (&mut it.instance, &mut it.proof.0),
            Self::Continuing(it) => (&mut it.instance, &mut it.proof.0),
            Self::Mac(it) => (&mut it.instance, &mut it.proof.0),
        }
    }

    /// Every statement that differs from this one in exactly one bit, or in the counter.
    fn neighbours(self) -> Vec<Self> {
        let mut all = Vec::new();
        for bit in 0..256 {
            let mut flipped = self;
            flipped.parts().1[bit / 8] ^= 1 << (bit % 8);
            all.push(flipped);
        }
        for bit in 0..128 {
            let mut flipped = self;
            let id = flipped.parts().0;
            match bit {
                0..16 => id.replica ^= 1 << bit,
                16..32 => id.pillar ^= 1 << (bit - 16),
                32..64 => id.epoch ^= 1 << (bit - 32),
                _ => id.life.0 ^= 1 << (bit - 64),
            }
            all.push(flipped);
        }
        for bit in 0..128 {
            let flip = |value: CounterValue| CounterValue::from_u128(value.as_u128() ^ (1 << bit));
            match self {
                Self::Independent(it) => {
                    let value = flip(it.value);
                    all.push(Self::Independent(IndependentCertificate { value, ..it }));
                }
                Self::Continuing(it) => {
                    let value = flip(it.value);
                    all.push(Self::Continuing(ContinuingCertificate { value, ..it }));
                    let previous = flip(it.previous);
                    all.push(Self::Continuing(ContinuingCertificate { previous, ..it }));
                }
                Self::Mac(_) => {}
            }
        }
        for counter in Counter::ALL {
            match self {
                Self::Independent(it) if it.counter != counter => {
                    all.push(Self::Independent(IndependentCertificate { counter, ..it }));
                }
                Self::Continuing(it) if it.counter != counter => {
                    all.push(Self::Continuing(ContinuingCertificate { counter, ..it }));
                }
                _ => {}
            }
        }
        all
    }
}

fn flips(digest: Digest) -> impl Iterator<Item = Digest> {
    (0..256).map(move |bit| {
        let mut flipped = digest;
        flipped.0[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Counters never decrease, an independent certificate never repeats a value, what is refused
    /// changes nothing, and every certificate that comes out is valid.
    #[test]
    fn every_sequence_of_calls_keeps_to_listing_10(
        algorithm in algorithm(),
        commands in vec(command(), 0..60),
    ) {
        let key = GroupKey::from_bytes([5; 32]);
        let group = Digest([6; 32]);
        let name = InstanceId { replica: 2, pillar: 1, epoch: 4, life: Life(8) };
        let mut trinx = InProcessTrInX::new(&key, algorithm, group, name);
        let mut batched = InProcessTrInX::new(&key, algorithm, group, name);
        let verifier = InProcessVerifier::new(&key, algorithm, group);
        let mut current = [CounterValue::ZERO; 2];
        let mut used = HashSet::new();
        let mut one_by_one = Vec::new();
        for &command in &commands {
            let expected = model(current, command);
            let answer = trinx.apply(command);
            prop_assert_eq!(answer.is_ok(), expected.is_some());
            let before = current;
            current = expected.unwrap_or(current);
            for counter in Counter::ALL {
                prop_assert_eq!(trinx.current(counter), current[index(counter)]);
                prop_assert!(current[index(counter)] >= before[index(counter)]);
            }
            match (answer, command) {
                (Ok(Answer::Independent(it)), Command::Independent { counter, value, digest }) => {
                    prop_assert_eq!((it.instance, it.counter, it.value), (name, counter, value));
                    prop_assert!(used.insert((counter, value)), "a value was certified twice");
                    prop_assert!(verifier.verify_independent(&it, &digest));
                }
                (Ok(Answer::Continuing(it)), Command::Continuing { counter, value, digest }) => {
                    prop_assert_eq!((it.instance, it.counter, it.value), (name, counter, value));
                    prop_assert_eq!(it.previous, before[index(counter)]);
                    prop_assert!(verifier.verify_continuing(&it, &digest));
                }
                (Ok(Answer::Mac(it)), Command::Mac { digest }) => {
                    prop_assert!(verifier.verify_mac(&it, &digest));
                }
                (Ok(Answer::Forwarded), Command::Forward { .. }) | (Err(_), _) => {}
                (answer, _) => prop_assert!(false, "the wrong kind of answer: {answer:?}"),
            }
            one_by_one.push(answer);
        }
        let mut answers = Vec::new();
        batched.certify_batch(&commands, &mut answers);
        prop_assert_eq!(answers, one_by_one);
    }

    /// Any single flipped bit of a certificate, digest, group digest or key, and any other
    /// algorithm, is refused.
    #[test]
    fn every_flipped_bit_is_refused(
        algorithm in algorithm(),
        key in any::<[u8; 32]>(),
        (group, digest, name) in (digest(), digest(), instance()),
        counter in counter(),
        (previous, step) in (0..u128::MAX / 2, 1..u128::MAX / 2),
    ) {
        let group_key = GroupKey::from_bytes(key);
        let mut trinx = InProcessTrInX::new(&group_key, algorithm, group, name);
        let value = CounterValue::from_u128(previous + step);
        trinx.forward(counter, CounterValue::from_u128(previous)).unwrap();
        let statements = [
            Statement::Mac(trinx.certify_mac(&digest).unwrap()),
            Statement::Independent(trinx.certify_independent(counter, value, &digest).unwrap()),
            Statement::Continuing(trinx.certify_continuing(counter, value, &digest).unwrap()),
        ];
        let verifier = InProcessVerifier::new(&group_key, algorithm, group);
        for statement in statements {
            prop_assert!(statement.holds(&verifier, &digest));
            for forged in statement.neighbours() {
                prop_assert!(!forged.holds(&verifier, &digest), "{forged:?}");
            }
            for flipped in flips(digest) {
                prop_assert!(!statement.holds(&verifier, &flipped));
            }
            for other in MacAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
                let verifier = InProcessVerifier::new(&group_key, other, group);
                prop_assert!(!statement.holds(&verifier, &digest));
            }
        }
        for flipped in flips(group) {
            let verifier = InProcessVerifier::new(&group_key, algorithm, flipped);
            prop_assert!(statements.iter().all(|it| !it.holds(&verifier, &digest)));
        }
        for flipped in flips(Digest(key)) {
            let other = GroupKey::from_bytes(flipped.0);
            let verifier = InProcessVerifier::new(&other, algorithm, group);
            prop_assert!(statements.iter().all(|it| !it.holds(&verifier, &digest)));
        }
    }

    /// An instance that is restored at its counters answers as the one that was never stopped.
    #[test]
    fn a_restored_instance_goes_on_where_it_was(
        before in vec(command(), 0..12),
        after in vec(command(), 1..12),
    ) {
        let (group_key, group) = (GroupKey::from_bytes([6; 32]), Digest([7; 32]));
        let (algorithm, name) = (MacAlgorithm::ALL[0], InstanceId::default());
        let mut trinx = InProcessTrInX::new(&group_key, algorithm, group, name);
        let (mut answers, mut again) = (Vec::new(), Vec::new());
        trinx.certify_batch(&before, &mut answers);
        let counters = Counter::ALL.map(|counter| trinx.current(counter));
        let mut restored =
            InProcessTrInX::restored(&group_key, algorithm, group, name, counters);
        trinx.certify_batch(&after, &mut answers);
        restored.certify_batch(&after, &mut again);
        prop_assert_eq!(answers, again);
    }

    /// A client MAC holds for this client, this message and this algorithm only.
    #[test]
    fn every_flipped_bit_of_a_client_request_is_refused(
        algorithm in algorithm(),
        client in any::<u32>(),
        message in vec(any::<u8>(), 1..200),
    ) {
        let group_key = GroupKey::from_bytes([8; 32]);
        let verifier = InProcessVerifier::new(&group_key, algorithm, Digest::default());
        let mac = group_key.client_key(algorithm, client).tag(&message);
        prop_assert!(verifier.verify_client(client, &message, &mac));
        for bit in 0..128 {
            let mut flipped = mac;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verifier.verify_client(client, &message, &flipped));
        }
        for bit in 0..32 {
            prop_assert!(!verifier.verify_client(client ^ (1 << bit), &message, &mac));
        }
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!verifier.verify_client(client, &flipped, &mac));
        }
        for other in MacAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let tag = group_key.client_key(other, client).tag(&message);
            prop_assert!(!verifier.verify_client(client, &message, &tag));
        }
        let bad = [0; 16];
        let good = (client, message.as_slice(), &mac);
        prop_assert_eq!(verifier.verify_client_batch(&[]), Ok(()));
        prop_assert_eq!(verifier.verify_client_batch(&[good, good]), Ok(()));
        let wrong = (client, message.as_slice(), &bad);
        prop_assert_eq!(verifier.verify_client_batch(&[good, wrong, wrong]), Err(1));
    }
}
