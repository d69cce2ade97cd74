//! Whether a replica takes part in the group's work, as far as it knows itself.

use hybster::Status;

/// Why a replica is not ready, in words; empty if it is.
///
/// A replica that a later view has left behind does not know it before somebody tells it: what all
/// replicas say together is `hybster status`.
pub(super) fn why_not_ready(status: &Status, peers_needed: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut refuse = |is_so: bool, reason: String| {
        if is_so {
            reasons.push(reason);
        }
    };
    refuse(
        status.halted,
        "the replicas' states differ, and nothing can be ordered any more".to_owned(),
    );
    refuse(
        status.current_view > status.view,
        format!("out of view: it left view {} for {}", status.view, status.current_view),
    );
    refuse(status.transferring, "its state is behind, and is being transferred".to_owned());
    refuse(status.diverged, "its state differs from the others', and is being repaired".to_owned());
    let up = status.peers.iter().filter(|peer| peer.up).count();
    refuse(
        status.replicated && up < peers_needed,
        format!("links to {up} peers are up, and a quorum needs {peers_needed}"),
    );
    let full = status.disk.as_ref().is_some_and(|disk| disk.holds_clients);
    refuse(full, "the disk is full: clients are refused until there is room".to_owned());
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(fields: serde_json::Value) -> Status {
        let mut all = serde_json::json!({
            "replicated": true, "view": 3, "current_view": 3,
            "peers": [{ "replica": 0, "up": true }, { "replica": 1, "up": false }],
        });
        let fields = fields.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_replica_is_ready_if_it_can_take_part() {
        assert_eq!(why_not_ready(&status(serde_json::json!({})), 1), [""; 0]);
        for (fields, reason) in [
            (serde_json::json!({ "current_view": 4 }), "out of view"),
            (serde_json::json!({ "transferring": true }), "behind"),
            (serde_json::json!({ "diverged": true }), "differs"),
            (serde_json::json!({ "halted": true }), "nothing can be ordered"),
            (serde_json::json!({ "peers": [] }), "links to 0 peers"),
            (serde_json::json!({ "disk": { "holds_clients": true } }), "disk is full"),
        ] {
            let reasons = why_not_ready(&status(fields), 1);
            assert!(reasons.len() == 1 && reasons[0].contains(reason), "{reason}: {reasons:?}");
        }
        let alone = status(serde_json::json!({ "replicated": false, "peers": [] }));
        assert_eq!(why_not_ready(&alone, 1), [""; 0], "an unreplicated server has no peers");
    }
}
