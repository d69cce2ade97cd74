//! A leader that leaves out a client, and orders what others want.

use bytes::Bytes;
use hybster_proto::output::ClientLink;
use hybster_proto::wire::request::{REQUESTS_HEAD, requests_head};
use hybster_proto::wire::{Requests, kind, kind_of};

use super::{Host, Scene};

pub(super) struct LeavesOut {
    pub client: u32,
}

impl Host for LeavesOut {
    /// Followers forward requests of several clients in one message.
    fn incoming(
        &mut self,
        _: &mut Scene<'_>,
        _: hybster_proto::ids::ReplicaId,
        message: Bytes,
    ) -> Option<Bytes> {
        if kind_of(&message) != kind::REQUESTS {
            return Some(message);
        }
        let mut left = requests_head(kind::REQUESTS).to_vec();
        for request in Requests::new(message.get(REQUESTS_HEAD..)?).flatten() {
            if request.session.client.0 != self.client {
                left.extend_from_slice(request.record);
            }
        }
        (left.len() > REQUESTS_HEAD).then(|| left.into())
    }

    fn request(&mut self, _: &mut Scene<'_>, link: ClientLink, message: Bytes) -> Option<Bytes> {
        let is_left_out = kind_of(&message) == kind::REQUESTS && link.client.0 == self.client;
        (!is_left_out).then_some(message)
    }
}
