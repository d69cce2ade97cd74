//! Clients whose link a replica closes for what is in their requests.
//!
//! Their links stay up here, so that they go on with it; the oracle is that it happens to none that
//! keeps to the rules, whatever liars forward in its name.

use crate::world::World;

impl World {
    /// A replica closes the link to a client.
    pub(crate) fn closes_client(&mut self, replica: usize, end: usize) {
        self.counters.clients_expelled += 1;
        let is_rogue = end >= self.replicas.len() + self.clients.len();
        if self.replicas[replica].honest() && !is_rogue {
            let story = format!("r{replica} closed the link of an honest client, {:?}", {
                self.client_link(end - self.replicas.len())
            });
            self.violate(("honest clients keep their links", story, vec![replica as u16]));
        }
    }
}
