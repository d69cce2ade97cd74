//! Look-ups of the names of hosts, away from the thread of the hub: the operating system may take
//! many seconds for one, and offers no way to wait for it with sockets.
//!
//! Each look-up has a thread that ends with it, so that a name server that does not answer for one
//! name holds up no other. There is one at a time for each peer, so there are no more threads than
//! peers. Their results wait in a channel, and the hub's poll is woken.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::transport::Waker;

/// Addresses of one name that are kept.
const MOST_ADDRESSES: usize = 16;
/// Bytes of the stack of a thread that looks a name up: modules of the C library may keep much there.
const STACK_BYTES: usize = 1 << 20;

/// What looks names up; tests bring their own.
pub(super) type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The end of a look-up.
#[derive(Debug)]
pub(super) struct LookedUp {
    pub(super) peer: u16,
    /// At least one address.
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
}

/// Looks names up, each in a thread.
pub(super) struct Resolver {
    look_up: Arc<LookUp>,
    waker: Waker,
    done: Receiver<LookedUp>,
    /// For the threads.
    tell: Sender<LookedUp>,
    /// Look-ups under way: nearly always none, and then nobody has to look into the channel.
    under_way: u32,
}

impl Resolver {
    /// Asks the operating system, and wakes with `waker`.
    pub(super) fn new(waker: Waker) -> Self {
        Self::with(Arc::new(ask_system), waker)
    }

    pub(super) fn with(look_up: Arc<LookUp>, waker: Waker) -> Self {
        let (tell, done) = channel();
        Self { look_up, waker, done, tell, under_way: 0 }
    }

    /// Starts a look-up; a peer must have no other one under way.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(&mut self, peer: u16, name: Arc<str>, port: u16) -> io::Result<()> {
        let (look_up, tell, waker) =
            (Arc::clone(&self.look_up), self.tell.clone(), self.waker.clone());
        let thread = thread::Builder::new().name("resolve".into()).stack_size(STACK_BYTES);
        thread.spawn(move || {
            let addresses = look_up(&name, port).and_then(|mut addresses| {
                addresses.truncate(MOST_ADDRESSES);
                let none = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
                if addresses.is_empty() { Err(none()) } else { Ok(addresses) }
            });
            // The hub may be gone.
            if tell.send(LookedUp { peer, addresses }).is_ok() {
                waker.wake();
            }
        })?;
        self.under_way += 1;
        Ok(())
    }

    /// A look-up that has ended since the last call.
    #[inline]
    pub(super) fn ended(&mut self) -> Option<LookedUp> {
        if self.under_way == 0 {
            return None;
        }
        let ended = self.done.try_recv().ok()?;
        self.under_way -= 1;
        Some(ended)
    }
}

fn ask_system(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
