//! The wires of a local cluster: relays on loopback that can delay or hold what they carry, or break.
//!
//! Each has a listener of its own that lives as long as the cluster, on a port that the system has
//! chosen: so no port is looked for, and none is taken by somebody else while its replica is stopped.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hybster_proto::ids::ReplicaId;
use parking_lot::{Condvar, Mutex};

/// How long a connection on loopback may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes that are carried at a time.
const PIECE: usize = 64 << 10;
/// Pieces that are on their way in one direction of a slow connection, at most.
const PIECES: usize = 64;
/// The shortest wait for bytes, since a socket takes none of no length.
const SHORTEST: Duration = Duration::from_millis(1);

/// What the wires of a replica do. A wire does the worse of what its two ends do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    #[default]
    Open,
    /// What is carried takes this much longer, in each direction.
    Slow(Duration),
    /// What is on its way stays there.
    Paused,
    /// Connections are broken, and new ones too.
    Cut,
}

/// A wire to a replica, from another one or from clients.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) from: Option<ReplicaId>,
    pub(super) to: ReplicaId,
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    has_ended: bool,
    /// Where the replica listens while it runs.
    target: Option<SocketAddr>,
    /// The open connections with their numbers, both ends of each, and the threads that carry their bytes.
    open: Vec<(u64, [TcpStream; 2])>,
    next: u64,
    carrying: Vec<JoinHandle<()>>,
}

impl Wire {
    pub(super) fn new(from: Option<ReplicaId>, to: ReplicaId) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("wire to {}", to.0))
                .spawn(move || shared.accept(&listener))?
        };
        Ok(Self { from, to, address, shared, accepting: Some(accepting) })
    }

    /// Whether it ends at the replica.
    pub(super) fn touches(&self, replica: ReplicaId) -> bool {
        self.to == replica || self.from == Some(replica)
    }

    /// Where the replica listens now, if it runs.
    pub(super) fn leads_to(&self, target: Option<SocketAddr>) {
        self.shared.state.lock().target = target;
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        let mut state = self.shared.state.lock();
        state.mode = mode;
        if mode == Mode::Cut {
            state.break_all();
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.has_ended = true;
        state.break_all();
        drop(state);
        self.shared.changed.notify_all();
        // Somebody has to come, or the listener would wait.
        let woken = TcpStream::connect_timeout(&self.address, CONNECT).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| woken) {
            let _ = accepting.join();
        }
        let carrying = std::mem::take(&mut self.shared.state.lock().carrying);
        for thread in carrying {
            let _ = thread.join();
        }
    }
}

impl State {
    fn break_all(&mut self) {
        for end in self.open.drain(..).flat_map(|(_, ends)| ends) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            let mut state = self.state.lock();
            if state.has_ended {
                return;
            }
            let Ok((near, _)) = accepted else {
                drop(state);
                // No file is left for it, say.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let target = state.target.filter(|_| state.mode != Mode::Cut);
            let Some(target) = target else { continue };
            state.carrying.retain(|thread| !thread.is_finished());
            drop(state);
            // Whoever comes to nothing sees a broken connection, and tries again.
            let _ = self.join(near, target);
        }
    }

    /// Carries what two ends say to each other.
    fn join(self: &Arc<Self>, near: TcpStream, target: SocketAddr) -> io::Result<()> {
        let far = TcpStream::connect_timeout(&target, CONNECT)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let pairs = [(near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?)];
        let mut state = self.state.lock();
        if state.has_ended || state.mode == Mode::Cut || state.target != Some(target) {
            return Ok(());
        }
        let number = state.next;
        state.next += 1;
        for (from, to) in pairs {
            let shared = Arc::clone(self);
            let carry = move || shared.carry(number, from, to);
            let spawned = thread::Builder::new().name("wire".into()).spawn(carry);
            match spawned {
                Ok(thread) => state.carrying.push(thread),
                Err(error) => {
                    let _ = near.shutdown(Shutdown::Both);
                    let _ = far.shutdown(Shutdown::Both);
                    return Err(error);
                }
            }
        }
        state.open.push((number, [near, far]));
        Ok(())
    }

    fn carry(&self, number: u64, from: TcpStream, to: TcpStream) {
        // An error is the end of the connection.
        let _ = self.carry_all(&from, &to);
        // Both directions end with the first.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
        self.state.lock().open.retain(|(of, _)| *of != number);
    }

    fn carry_all(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut on_the_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut patience = None;
        loop {
            let delay = self.delay();
            while let Some((since, bytes)) = on_the_way.front()
                && since.elapsed() >= delay
            {
                if !self.may_go_on() {
                    return Ok(());
                }
                to.write_all(bytes)?;
                on_the_way.pop_front();
            }
            let first = on_the_way.front();
            let wait = first.map(|(since, _)| delay.saturating_sub(since.elapsed()).max(SHORTEST));
            if let Some(wait) = wait.filter(|_| on_the_way.len() == PIECES) {
                self.changed.wait_for(&mut self.state.lock(), wait);
                continue;
            }
            if patience != wait {
                from.set_read_timeout(wait)?;
                patience = wait;
            }
            match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) if on_the_way.is_empty() && self.delay().is_zero() => {
                    if !self.may_go_on() {
                        return Ok(());
                    }
                    to.write_all(&piece[..length])?;
                }
                Ok(length) => on_the_way.push_back((Instant::now(), piece[..length].to_vec())),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// How much longer what is carried takes now.
    fn delay(&self) -> Duration {
        match self.state.lock().mode {
            Mode::Slow(delay) => delay,
            Mode::Open | Mode::Paused | Mode::Cut => Duration::ZERO,
        }
    }

    /// Waits while the wire is paused; tells whether what was read may be written.
    fn may_go_on(&self) -> bool {
        let mut state = self.state.lock();
        while state.mode == Mode::Paused && !state.has_ended {
            self.changed.wait(&mut state);
        }
        state.mode != Mode::Cut && !state.has_ended
    }
}
