//! The corrections to the TR, message by message: each test fails when its rule is left out.

use super::*;
use crate::hybster::wire::checkpoint::CheckpointCertificate;
use crate::hybster::wire::view::{Link, Part, PartScope};
use crate::wire::CheckpointId;
use hybster_tss::{GroupKey, InProcessTrInX, InProcessVerifier, MacAlgorithm, Proof, TrInX};

/// n = 3, f = 1, P = 1, with a real TrInX instance per replica.
struct Group {
    config: GroupConfig,
    trinx: Vec<InProcessTrInX>,
    verifier: InProcessVerifier,
}

const PILLAR: PillarId = PillarId(0);

fn group() -> Group {
    let config =
        GroupConfig { pillars: 1, window: 16, checkpoint_interval: 8, ..GroupConfig::default() };
    let key = GroupKey::from_bytes([7; 32]);
    let algorithm = MacAlgorithm::default();
    let digest = config.digest();
    let trinx = config
        .all_replicas()
        .map(|r| InProcessTrInX::new(&key, algorithm, digest, config.instance(r, PILLAR)))
        .collect();
    Group { trinx, verifier: InProcessVerifier::new(&key, algorithm, digest), config }
}

impl Group {
    fn batch(&mut self, view: u64, order: u64, content: u8) -> PrepareHeader {
        let mut header = PrepareHeader {
            pillar: PILLAR,
            noop: false,
            requests: 1,
            view: View(view),
            first: OrderNumber(order),
            last: OrderNumber(order),
            time_ms: 1_000 * order,
            batch: Digest([content; 32]),
            previous: CounterValue::ZERO,
            proof: Proof([0; 32]),
        };
        let leader = self.config.leader(header.view);
        let trinx = &mut self.trinx[usize::from(leader.0)];
        let digest = header.digest();
        header.proof =
            trinx.certify_independent(Counter::Ordering, header.value(), &digest).unwrap().proof;
        header
    }

    /// What a follower's COMMIT does to its counter.
    fn acknowledge(&mut self, replica: u16, view: u64, order: u64) {
        let value = CounterValue::new(view, order);
        let trinx = &mut self.trinx[usize::from(replica)];
        trinx.certify_independent(Counter::Ordering, value, &Digest([1; 32])).unwrap();
    }

    /// A VIEW-CHANGE as a host makes it that can choose everything but its counter.
    fn view_change(
        &mut self,
        replica: u16,
        from: u64,
        to: u64,
        earlier: &[Link],
        prepared: &[PrepareHeader],
    ) -> ViewChange {
        let checkpoint = CheckpointCertificate::default();
        let (sender, from, to) = (ReplicaId(replica), View(from), View(to));
        let scope = PartScope { sender, from, to, checkpoint: &checkpoint };
        let digest = scope.digest(PILLAR, earlier, prepared);
        let trinx = &mut self.trinx[usize::from(replica)];
        let certificate = trinx
            .certify_continuing(Counter::Ordering, CounterValue::new(to.0, 0), &digest)
            .unwrap();
        let mut chain = earlier.to_vec();
        let previous = certificate.previous;
        chain.push(Link { to, previous, digest, proof: certificate.proof });
        let parts = vec![Part { chain, prepared: prepared.to_vec() }];
        ViewChange { sender, from, to, checkpoint, parts }
    }

    fn verify(&self, change: &ViewChange) -> Result<(), Reject> {
        verify_view_change(&self.verifier, &self.config, change)
    }
}

/// First correction: of the abort states only those of the largest vouched view count.
///
/// View 0 prepared A at order 1 at replica 0 alone; view 1 (established by 1 and 2 without
/// knowing A) prepared and committed B there. A union over all views would find both.
#[test]
fn only_the_largest_vouched_view_contributes_prepares() {
    let mut group = group();
    let stale = group.batch(0, 1, 0xa);
    let committed = group.batch(1, 1, 0xb);
    group.acknowledge(2, 1, 1);
    let old = group.view_change(0, 0, 2, &[], &[stale]);
    let of_leader = group.view_change(1, 1, 2, &[], &[committed]);
    let of_follower = group.view_change(2, 1, 2, &[], &[committed]);
    for change in [&old, &of_leader, &of_follower] {
        assert_eq!(group.verify(change), Ok(()));
    }
    let to = View(2);
    let all = [&old, &of_leader, &of_follower];
    let found = transition(&group.config, to, &all, &[]).unwrap();
    assert_eq!(found.from, View(1));
    assert_eq!(found.prepared, vec![vec![committed]]);
    // The same with a quorum that holds the stale abort state: one replica does not vouch enough
    // for view 1, and without view 1 nothing may be decided.
    let mixed = transition(&group.config, to, &[&old, &of_follower], &[]);
    assert_eq!(mixed, Err(Reject::BadQuorum));
}

/// Second correction, first half: as the TR prints it, the second VIEW-CHANGE in a row is invalid,
/// because it discloses 1|0 and not a value of v_from = 0.
#[test]
fn a_second_view_change_in_a_row_is_valid() {
    let mut group = group();
    let prepared = [group.batch(0, 1, 0xa), group.batch(0, 2, 0xb)];
    group.acknowledge(1, 0, 1);
    group.acknowledge(1, 0, 2);
    let first = group.view_change(1, 0, 1, &[], &prepared);
    assert_eq!(group.verify(&first), Ok(()));
    let second = group.view_change(1, 0, 2, &first.parts[0].chain, &prepared);
    assert_eq!(group.verify(&second), Ok(()));
}

/// Second correction, second half: the last link alone would let a replica hide what it took
/// part in, by leaving for one view honestly and for the next with an empty prepared set.
#[test]
fn the_last_link_alone_is_not_enough() {
    let mut group = group();
    let prepared = [group.batch(0, 1, 0xa)];
    group.acknowledge(1, 0, 1);
    let first = group.view_change(1, 0, 1, &[], &prepared);
    // The chain is there, but the set does not reach what its first link discloses.
    let hiding = group.view_change(1, 0, 2, &first.parts[0].chain, &[]);
    assert_eq!(group.verify(&hiding), Err(Reject::BadPreparedSet));
    // The chain is cut off: its first link does not disclose a value of v_from.
    let cut = group.view_change(1, 0, 3, &[], &[]);
    assert_eq!(group.verify(&cut), Err(Reject::BadChain));
}

/// A chain that leads over v_from proves that nothing was certified there: the case of a replica
/// that acknowledged a NEW-VIEW belatedly.
#[test]
fn a_chain_may_lead_over_a_view_that_was_entered_belatedly() {
    let mut group = group();
    let old = [group.batch(0, 1, 0xa)];
    group.acknowledge(2, 0, 1);
    let first = group.view_change(2, 0, 2, &[], &old);
    // Replica 2 is on its way to view 2 when the NEW-VIEW of view 1 arrives, with B at order 1.
    let again = [group.batch(1, 1, 0xb)];
    let next = group.view_change(2, 1, 3, &first.parts[0].chain, &again);
    assert_eq!(group.verify(&next), Ok(()));
    // But a replica that certified in view 1 cannot pretend that it led over it.
    let mut group = self::group();
    let old = [group.batch(0, 1, 0xa)];
    let first = group.view_change(2, 0, 1, &[], &old);
    group.batch(1, 1, 0xb);
    group.acknowledge(2, 1, 1);
    let lie = group.view_change(2, 0, 2, &first.parts[0].chain, &old);
    assert_eq!(group.verify(&lie), Err(Reject::BadChain));
}

#[test]
fn links_must_rise_and_join() {
    let link = |previous, to| Link {
        to: View(to),
        previous,
        digest: Digest::default(),
        proof: Proof([0; 32]),
    };
    let at = CounterValue::new;
    let (from, to) = (View(0), View(3));
    assert_eq!(check_chain(&[link(at(0, 5), 3)], from, to), Ok(OrderNumber(5)));
    assert_eq!(check_chain(&[link(at(0, 5), 1), link(at(1, 0), 3)], from, to), Ok(OrderNumber(5)));
    for wrong in [
        vec![],
        vec![link(at(0, 5), 2)],
        vec![link(at(0, 5), 1), link(at(1, 1), 3)],
        vec![link(at(0, 5), 1), link(at(2, 0), 3)],
        vec![link(at(0, 5), 3), link(at(3, 0), 3)],
        vec![link(at(1, 0), 3)],
    ] {
        assert_eq!(check_chain(&wrong, from, to), Err(Reject::BadChain), "{wrong:?}");
    }
    assert_eq!(check_chain(&[link(at(1, 4), 4)], View(2), View(4)), Ok(OrderNumber(0)));
    assert_eq!(check_chain(&[link(at(1, 4), 2)], View(2), View(2)), Err(Reject::BadChain));
}

/// A no-op covers several orders with one certificate. Were that certificate independent, a
/// leader could certify order 2 first and then cover it again, in another follower's log.
#[test]
fn a_noop_cannot_cover_an_order_that_was_certified_before() {
    let mut group = group();
    let header = |previous, proof| PrepareHeader {
        pillar: PILLAR,
        noop: true,
        requests: 0,
        view: View(0),
        first: OrderNumber(1),
        last: OrderNumber(5),
        time_ms: 0,
        batch: crate::wire::digest(&[]),
        previous,
        proof,
    };
    let blank = header(CounterValue::ZERO, Proof([0; 32]));
    group.batch(0, 2, 0xa);
    let trinx = &mut group.trinx[0];
    let continuing =
        trinx.certify_continuing(Counter::Ordering, blank.value(), &blank.digest()).unwrap();
    let honest = header(continuing.previous, continuing.proof);
    let valid = |h: &PrepareHeader| verify_prepare(&group.verifier, &group.config, h, &h.digest());
    assert!(!valid(&honest), "it discloses that order 2 was certified");
    let forged = header(CounterValue::ZERO, continuing.proof);
    assert!(!valid(&forged), "the disclosed value is certified");
    // An independent certificate of the same no-op is refused as well.
    let mut group = self::group();
    let independent = group.trinx[0]
        .certify_independent(Counter::Ordering, blank.value(), &blank.digest())
        .unwrap();
    let passed_off = header(CounterValue::ZERO, independent.proof);
    assert!(!verify_prepare(&group.verifier, &group.config, &passed_off, &passed_off.digest()));
    // And the plain case is fine.
    let mut group = self::group();
    let continuing = group.trinx[0]
        .certify_continuing(Counter::Ordering, blank.value(), &blank.digest())
        .unwrap();
    let fine = header(continuing.previous, continuing.proof);
    assert!(verify_prepare(&group.verifier, &group.config, &fine, &fine.digest()));
}

#[test]
fn checkpoint_certificates_need_f_plus_one_valid_votes() {
    let mut group = group();
    let id = CheckpointId { order: OrderNumber(8), digest: Digest([3; 32]) };
    let vote = |group: &mut Group, r: u16| {
        let digest = Checkpoint::certified(ReplicaId(r), PILLAR, &id, None);
        let proof = group.trinx[usize::from(r)].certify_mac(&digest).unwrap().proof;
        (ReplicaId(r), proof)
    };
    let votes = vec![vote(&mut group, 0), vote(&mut group, 2)];
    let certificate = CheckpointCertificate { id, ending: None, votes };
    let verify = |c| verify_checkpoint_certificate(&group.verifier, &group.config, c);
    assert_eq!(verify(&certificate), Ok(()));
    let mut few = certificate.clone();
    few.votes.pop();
    assert_eq!(verify(&few), Err(Reject::BadQuorum));
    let mut stolen = certificate.clone();
    stolen.votes[1].0 = ReplicaId(1);
    assert_eq!(verify(&stolen), Err(Reject::BadCertificate));
}
