//! Fixtures of everything that two processes must compute alike. A change here is a decision: it
//! needs a new format version, because replicas of both kinds refuse each other's certificates.

use hybster_tss::{
    Counter, CounterValue, Digest, GroupKey, InProcessTrInX, InstanceId, MacAlgorithm, TrInX,
};

#[test]
fn proofs_and_client_macs_are_pinned() {
    let group_key = GroupKey::from_bytes(core::array::from_fn(|index| index as u8));
    let group = Digest([0x11; 32]);
    let digest = Digest::of(b"a message");
    let instance = InstanceId { replica: 1, pillar: 2, epoch: 3 };
    let mut lines = Vec::new();
    for algorithm in MacAlgorithm::ALL {
        let mut trinx = InProcessTrInX::new(&group_key, algorithm, group, instance);
        let counter = Counter::Ordering;
        let independent =
            trinx.certify_independent(counter, CounterValue::new(4, 5), &digest).unwrap().proof;
        let continuing =
            trinx.certify_continuing(counter, CounterValue::new(6, 0), &digest).unwrap().proof;
        let mac = trinx.certify_mac(&digest).unwrap().proof;
        let tag = group_key.client_key(algorithm, 7).tag(b"a request");
        for proof in [independent, continuing, mac] {
            lines.push(format!("{algorithm} {}", Digest(proof.0)));
        }
        lines.push(format!("{algorithm} {:032x}", u128::from_be_bytes(tag)));
    }
    assert_eq!(lines, PINNED);
}

/// For each algorithm: independent, continuing, trusted MAC, client MAC.
const PINNED: [&str; 12] = [
    "blake3 ffc5e329b7a9d2b035f0f17e8adcfec234edabab995de2837ffd2bb44be9ae2a",
    "blake3 8e1c688d2be03fc41a352bfb67f47db1e9c27991aa1e2d6ab0333239a1e1cbba",
    "blake3 d34961a2c1edd39543111829fd2509a2860ab4c4fe35f5b23bac4a00a9d851e2",
    "blake3 86919cf1371dbfdab0545d2ba98b8d29",
    "hmac-sha256 c6caec3aa4e6a6b0586c4414cd39cd5702f391ffac67ee817af945d71c1b5d70",
    "hmac-sha256 64be753debf113e1a69104bab568116ce3a3d85a87c662b38e82f32ef1c2a74a",
    "hmac-sha256 de67123977bc118fa5e217e5e07db31c0ba22b22029b6ccd53138b1718b82e90",
    "hmac-sha256 9da0657f7cb40dca85ed62d9d84b0de6",
    "aegis-128l e58e054243c1743504dc944afea3b204a0fc8eb6d31ca7d0045d55488dd0d703",
    "aegis-128l 933099db2ecd6b4cf499b6e5e8ff16974f30ab4dcabcc359fe76d73e4bd0a78a",
    "aegis-128l 4548aef8f60f4a873531b8eb627eee14358fca2b4e27f68bb2ae268f3cdbfcb5",
    "aegis-128l daa654947961e955a349bc2b056abb24",
];
