//! MACs that are made later, several at a time. [`Client::sent`] checks each.

use super::*;

impl Client {
    /// Two replicas, so one correct at least, report that view.
    fn report_view(&mut self, view: u64, session: u32, number: u64) {
        for r in [1, 2] {
            // Different results, so that the request does not end.
            let entry = ReplyEntry { result: &[r as u8], ..self.entry(session, number) };
            self.reply_from(r, r, view, &entry);
        }
    }
}

#[test]
fn every_number_of_requests_of_every_length_gets_its_macs() {
    for count in 0..40 {
        let mut c = Client::new(3, 1, 1);
        for session in 0..count {
            // Some groups are of one length, some are not.
            let length = if count % 2 == 0 { 50 } else { session as usize * 7 % 50 };
            c.submit(session, &vec![3; length]);
        }
        assert_eq!(c.sent().len(), count as usize);
        c.submit(50, b"later");
        assert_eq!(c.sent().len(), 1);
    }
}

/// Records with their proof go behind those without: to several replicas while the leader is not
/// connected, and to one of them alone when it leads later.
#[test]
fn a_change_of_leader_between_requests_leaves_none_without_its_mac() {
    let mut c = Client::new(3, 1, 1);
    let first = c.submit(0, b"to replica 0");
    c.report_view(1, 0, first);
    assert_eq!(c.core.leader(), ReplicaId(1));
    c.core.replica_down(ReplicaId(1), c.now, &mut c.out);
    c.submit(1, b"to replicas 0 and 2");
    c.report_view(3, 0, first);
    assert_eq!(c.core.leader(), ReplicaId(0));
    c.submit(2, b"to replica 0");
    let sent = c.sent();
    let of = |session: u64| -> Vec<u16> {
        let index = |s: &Seen| s.session & ((1 << SessionId::INDEX_BITS) - 1);
        sent.iter().filter(|s| index(s) == session && !s.again).map(|s| s.replica).collect()
    };
    assert_eq!((of(1), of(2)), (vec![0, 2], vec![0]));
    assert_eq!(of(0)[0], 0);
}

#[test]
fn messages_that_are_forgotten_take_what_has_no_mac_along() {
    let mut c = Client::new(3, 1, 1);
    c.submit(0, b"lost");
    c.out.clear_messages();
    c.submit(1, b"sent");
    assert_eq!(c.sent().len(), 1);
}
