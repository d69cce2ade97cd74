//! Fixtures of everything that two processes must compute alike. A change here is a decision: it
//! needs a new format version, because replicas of both kinds refuse each other's certificates.

use hybster_tss::{
    Counter, CounterValue, Digest, GroupKey, InProcessTrInX, InstanceId, Life, MacAlgorithm, TrInX,
};

#[test]
fn proofs_and_client_macs_are_pinned() {
    let group_key = GroupKey::from_bytes(core::array::from_fn(|index| index as u8));
    let group = Digest([0x11; 32]);
    let digest = Digest::of(b"a message");
    let instance = InstanceId { replica: 1, pillar: 2, epoch: 3, life: Life(4) };
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
    "blake3 fe51b776c8684acddcd9a566369b4b411c85b9ef5f10e40d8a39a07a3ea587eb",
    "blake3 6356aca318a5cc5c74de7b4594c2a7c6f8dad75fe15d662c5b2293b26062f890",
    "blake3 7936d3624f31cc407ab99dd21b3d4680c61d5aaa38eae0eb461ad6e8de64dbea",
    "blake3 86919cf1371dbfdab0545d2ba98b8d29",
    "hmac-sha256 de017e7669accef68bd56e157cce293789babf3a217a0803fdee2d89819d103a",
    "hmac-sha256 ffa5d9b406565435a1f44977a3178fccb3cfc05aabefc9e087e33a1181588aa2",
    "hmac-sha256 7ee679aa9750882a7e2b91b1ad680b7e1c08c8b4aad85fd5149ce131d8593443",
    "hmac-sha256 9da0657f7cb40dca85ed62d9d84b0de6",
    "aegis-128l f66bbbe2511e1ec8df51f6cdb8c2a247207192aa7bd42debb2a881e8f6aeb60d",
    "aegis-128l 3b6c9df6c3d7510739004db6496cb185b1b159e1ce906535cedb18577040a74d",
    "aegis-128l f8ba12fa2db6fc6a66daa9383982e581294ac384478cc36f886448a9d499a44e",
    "aegis-128l daa654947961e955a349bc2b056abb24",
];
