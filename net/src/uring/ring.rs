//! The ring itself: the one place that hands pointers to the kernel.
//!
//! **What the kernel may touch, and when.** Two kinds of memory: the bytes of sends and the receive
//! buffers. Both belong to the [`Ring`] while the kernel may touch them.
//!
//! - *Sends* are moved into the ring with [`Ring::send`] and leave it through [`Ring::take_sends`],
//!   which panics while anything is unsubmitted. A send is submitted with `MSG_DONTWAIT`: the
//!   kernel carries it out, wholly, partly or not at all, before the submitting system call
//!   returns, and neither parks it on the socket nor gives it to a worker. So no send is under way
//!   between two calls.
//! - *Receive buffers* are written by receives that stay armed. The ring is set up with
//!   `DEFER_TASKRUN`, so armed operations make progress only inside our own `io_uring_enter`; when
//!   the ring is closed they are cancelled and make none. Fields are dropped in the order of their
//!   declaration: the ring is closed before its buffers are freed. [`Ring::drop`] cancels what is
//!   armed and waits for it beforehand, so that sockets are closed when it returns.
//! - *After an error* of the system call the ring is not entered again. Sends that were not submitted
//!   stay where they are until it is closed, and the kernel has not seen them.
//!
//! Everything else is passed by value: descriptors (the kernel holds its own reference to the file
//! of a running operation) and numbers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::buffers::Buffers;
use super::features::{check, explain};
use crate::blocks::Blocks;
use crate::limits::UringLimits;

/// Most buffers in one send.
const SLICES: usize = 64;
/// The group of receive buffers.
const GROUP: u16 = 0;
/// A ring that is dropped waits for the operations that it cancelled: this long at a time, and at
/// most [`LAST_WAITS`] times.
const LAST_WAIT: Duration = Duration::from_millis(10);
const LAST_WAITS: usize = 20;

/// Names the owner of a completion: 60 bits, chosen by the user of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token(pub(super) u64);

/// What an armed operation reported.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes arrived. Never empty.
    Received { token: Token, data: BytesMut },
    /// A receive is no longer armed: the stream ended (`Ok(true)`), an error occurred, or it was
    /// cancelled or found no buffer (`Ok(false)`).
    ReceiveEnded { token: Token, end: io::Result<bool> },
    /// A connection was accepted. After an error, the accept is no longer armed.
    Accepted { token: Token, socket: io::Result<OwnedFd> },
    /// An accept is no longer armed.
    AcceptEnded { token: Token },
    /// A descriptor became ready. Reported once.
    Ready { token: Token },
    /// The other side closed or reset the connection, or the system gave up. Reported once.
    HungUp { token: Token },
    /// The end of a connection is no longer watched for: the system could not, or it was cancelled.
    /// It says nothing about the connection.
    Unwatched { token: Token },
    /// The event descriptor is no longer watched.
    WatchEnded,
}

/// A send that has been carried out, with its buffers.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) token: Token,
    pub(super) buffers: VecDeque<Vec<u8>>,
    /// Bytes handed to the kernel.
    pub(super) offered: usize,
    /// Bytes sent: fewer than `offered` if the socket had no more room.
    pub(super) result: io::Result<usize>,
}

/// A send under way, at an address that does not change.
struct Send {
    sent: Sent,
    slices: [libc::iovec; SLICES],
    header: libc::msghdr,
}

/// An `io_uring` that belongs to one thread.
pub(super) struct Ring {
    // Declared before what the kernel may touch, so closed before that is freed.
    io: IoUring,
    buffers: Buffers,
    // Boxed: the kernel gets addresses inside them, which must not change when the vector grows.
    #[expect(clippy::vec_box, reason = "their addresses must not change")]
    sends: Vec<Box<Send>>,
    #[expect(clippy::vec_box, reason = "as above")]
    spare: Vec<Box<Send>>,
    /// How many operations are armed.
    armed: usize,
    /// When the timer goes off, if it is armed.
    timer: Option<Instant>,
    /// What the kernel reads when it arms the timer.
    time: Box<Timespec>,
    owner: ThreadId,
    /// System calls made so far.
    pub(super) enters: u64,
    /// A system call failed. What is left in the submission queue must never be submitted.
    is_broken: bool,
    /// The error of the next system call, which is then not made.
    #[cfg(test)]
    pub(super) fail_next: Option<i32>,
}

impl Ring {
    /// A ring for the calling thread.
    ///
    /// # Errors
    /// If the kernel lacks a feature, or the process may not use `io_uring`.
    #[allow(unsafe_code)]
    pub(super) fn new(limits: &UringLimits) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(limits.completions.max(limits.submissions))
            .dontfork()
            .build(limits.submissions)
            .map_err(|error| explain("set up a ring of one thread with deferred work", &error))?;
        check(&io)?;
        let mut ring = Self {
            io,
            buffers: Buffers::new(limits.buffers, limits.buffer_bytes),
            sends: Vec::new(),
            spare: Vec::new(),
            armed: 0,
            timer: None,
            time: Box::default(),
            owner: thread::current().id(),
            enters: 0,
            is_broken: false,
            #[cfg(test)]
            fail_next: None,
        };
        // SAFETY: `io` is declared before `buffers`, so the ring is closed before they are dropped.
        unsafe { ring.buffers.register(&ring.io.submitter(), GROUP) }
            .map_err(|error| explain("register receive buffers", &error))?;
        Ok(ring)
    }

    /// Tells the ring how many connections there are, so that each finds a receive buffer.
    pub(super) fn serve(&mut self, connections: usize) {
        self.buffers.use_at_least(connections);
    }

    /// Whether the calling thread is the one that may use the ring.
    pub(super) fn is_mine(&self) -> bool {
        self.owner == thread::current().id()
    }

    /// Receives from a socket until cancelled.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.arm(
            opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build(),
            Kind::Receive,
            token,
        )
    }

    /// Accepts from a listening socket until cancelled.
    pub(super) fn accept(&mut self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        self.arm(accept.build(), Kind::Accept, token)
    }

    /// Reports once that a socket can be written to, or has failed.
    pub(super) fn when_writable(&mut self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLOUT as u32);
        self.arm(poll.build(), Kind::Ready, token)
    }

    /// Reports once that the other side will send nothing more, or that the socket has failed.
    pub(super) fn when_hung_up(&mut self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLRDHUP as u32);
        self.arm(poll.build(), Kind::HangUp, token)
    }

    /// Ends [`Ring::enter`] whenever an event descriptor is written to.
    pub(super) fn watch(&mut self, event: BorrowedFd<'_>) -> io::Result<()> {
        let poll = opcode::PollAdd::new(Fd(event.as_raw_fd()), libc::POLLIN as u32).multi(true);
        self.arm(poll.build(), Kind::Wake, Token(0))
    }

    /// Cancels all operations that are armed under a token.
    pub(super) fn cancel(&mut self, token: Token) -> io::Result<()> {
        [Kind::Receive, Kind::Ready, Kind::HangUp]
            .into_iter()
            .try_for_each(|kind| self.cancel_one(kind, token))
    }

    /// Cancels the receive that is armed under a token.
    pub(super) fn cancel_receive(&mut self, token: Token) -> io::Result<()> {
        self.cancel_one(Kind::Receive, token)
    }

    fn cancel_one(&mut self, kind: Kind, token: Token) -> io::Result<()> {
        let cancel = opcode::AsyncCancel::new(kind.data(token.0)).build();
        self.push(cancel.user_data(Kind::Cancel.data(0)))
    }

    /// Queues a send of `buffers`, from byte `skip` of the first on. The next [`Ring::enter`] sends
    /// as much as the socket has room for, and [`Ring::take_sends`] gives the buffers back. Returns
    /// whether one send takes all of them.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        token: Token,
        buffers: VecDeque<Vec<u8>>,
        skip: usize,
    ) -> io::Result<bool> {
        let is_whole = buffers.len() <= SLICES;
        let index = self.sends.len() as u64;
        let mut send = self.spare.pop().unwrap_or_else(Send::new);
        let entry = send.fill(Fd(socket.as_raw_fd()), token, buffers, skip);
        // The ring must own it before the kernel sees it.
        self.sends.push(send);
        self.push(entry.user_data(Kind::Send.data(index)))?;
        Ok(is_whole)
    }

    /// Sends that have been carried out since the last call.
    pub(super) fn take_sends(&mut self) -> impl Iterator<Item = Sent> + '_ {
        assert!(self.io.submission().is_empty(), "sends are taken back after they are submitted");
        let Self { sends, spare, .. } = self;
        sends.drain(..).map(|mut send| {
            let sent = send.take();
            spare.push(send);
            sent
        })
    }

    /// Whether something can be reported without waiting.
    pub(super) fn is_pending(&mut self) -> bool {
        self.io.submission().taskrun() || !self.io.completion().is_empty()
    }

    /// Submits everything, waits for an event for as long as `wait` says (`None`: not at all), and
    /// appends what happened to `events`. It may return early.
    pub(super) fn enter(
        &mut self,
        wait: Option<Option<Duration>>,
        blocks: &mut Blocks,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        let is_needed = wait.is_some() || !self.io.submission().is_empty();
        if is_needed || self.io.submission().taskrun() {
            if let Some(timeout) = wait.flatten() {
                self.set_timer(timeout)?;
            }
            self.submit(wait.is_some().into())?;
        }
        self.drain(blocks, events);
        // Results that overflowed the queue may belong to sends, so they are fetched now.
        while self.io.submission().cq_overflow() {
            self.submit(0)?;
            self.drain(blocks, events);
        }
        Ok(())
    }

    /// Makes the next wait end in time. The timer stays armed over many waits and now and then ends
    /// one early, which is cheaper than setting a timer for each wait.
    fn set_timer(&mut self, timeout: Duration) -> io::Result<()> {
        let Some(due) = Instant::now().checked_add(timeout) else {
            return Ok(());
        };
        match self.timer {
            Some(armed) if armed <= due => return Ok(()),
            // If it has just gone off, its completion ends the wait.
            Some(_) => {
                *self.time = Timespec::from(timeout);
                let update = opcode::TimeoutUpdate::new(Kind::Timer.data(0), &raw const *self.time);
                let entry = update.build().flags(squeue::Flags::SKIP_SUCCESS);
                self.push(entry.user_data(Kind::Cancel.data(0)))?;
            }
            None => {
                *self.time = Timespec::from(timeout);
                let timer = opcode::Timeout::new(&raw const *self.time).build();
                self.arm(timer, Kind::Timer, Token(0))?;
            }
        }
        self.timer = Some(due);
        Ok(())
    }

    /// Takes completions without a system call. Any thread may do this.
    pub(super) fn take_completed(&mut self, blocks: &mut Blocks, events: &mut Vec<Event>) {
        self.drain(blocks, events);
    }

    /// Hands everything in the submission queue to the kernel. After an error the ring can only be
    /// dropped.
    fn submit(&mut self, want: usize) -> io::Result<()> {
        assert!(!self.is_broken, "a ring is not entered again after an error");
        let submitted = self.try_submit(want);
        self.is_broken = submitted.is_err();
        submitted
    }

    fn try_submit(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..SUBMIT_ATTEMPTS {
            self.enters += 1;
            match self.call(want) {
                Ok(_) => {}
                // A signal came, or the completion queue is full.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                    ) => {}
                Err(error) => return Err(error),
            }
            if self.io.submission().is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel does not take what is submitted to its io_uring"))
    }

    fn call(&mut self, want: usize) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(code) = self.fail_next.take() {
            return Err(io::Error::from_raw_os_error(code));
        }
        self.io.submitter().submit_and_wait(want)
    }

    /// Takes what has completed.
    fn drain(&mut self, blocks: &mut Blocks, events: &mut Vec<Event>) {
        let mut lent = false;
        let Self { io, buffers, sends, armed, timer, .. } = self;
        for entry in io.completion() {
            let (kind, number) = Kind::of(entry.user_data());
            let more = cqueue::more(entry.flags());
            if kind.stays_armed() && !more {
                *armed -= 1;
            }
            let token = Token(number);
            let result = outcome(entry.result());
            match kind {
                Kind::Receive => {
                    if let Some(id) = cqueue::buffer_select(entry.flags()) {
                        let length = *result.as_ref().unwrap_or(&0) as usize;
                        let data = buffers.take(id, length);
                        if !data.is_empty() {
                            events.push(Event::Received { token, data: blocks.copy(data) });
                        }
                        buffers.lend(id);
                        lent = true;
                    }
                    if !more {
                        events.push(Event::ReceiveEnded { token, end: receive_end(result) });
                    }
                }
                Kind::Accept => {
                    match result {
                        Ok(socket) => {
                            let socket = Ok(own(socket));
                            events.push(Event::Accepted { token, socket });
                        }
                        Err(error) => {
                            events.push(Event::Accepted { token, socket: Err(error) });
                        }
                    }
                    if !more {
                        events.push(Event::AcceptEnded { token });
                    }
                }
                // After an error the user tries, and finds out what the socket can do.
                Kind::Ready => events.push(Event::Ready { token }),
                Kind::HangUp if result.is_err() => events.push(Event::Unwatched { token }),
                Kind::HangUp => events.push(Event::HungUp { token }),
                // A send reports only if it was not carried out wholly.
                Kind::Send => sends[number as usize].sent.result = short(result),
                Kind::Timer => *timer = None,
                Kind::Wake if !more => events.push(Event::WatchEnded),
                Kind::Wake | Kind::Cancel => {}
            }
        }
        if lent {
            buffers.publish();
        }
    }

    fn arm(&mut self, entry: squeue::Entry, kind: Kind, token: Token) -> io::Result<()> {
        self.push(entry.user_data(kind.data(token.0)))?;
        self.armed += 1;
        Ok(())
    }

    #[allow(unsafe_code)]
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        if self.io.submission().is_full() {
            self.submit(0)?;
        }
        // SAFETY: entries are made in this file only. They refer to open descriptors, to the
        // registered buffers, which `self` owns, to the buffers, slices and header of a `Send`,
        // which `self.sends` owns until `take_sends`, after the submitting call has returned, and
        // to `self.time`, which is read by the submitting call. The module's comment says why the
        // kernel is done with each when it is freed.
        let pushed = unsafe { self.io.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("the submission queue is full after a submission"))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Another thread cannot submit, and after an error nothing may be; there, closing the ring
        // cancels everything.
        if !self.is_mine() || self.is_broken {
            return;
        }
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        let mut pushed = self.push(cancel.user_data(Kind::Cancel.data(0)));
        let (mut blocks, mut events) = (Blocks::new(0, 1), Vec::new());
        for _ in 0..LAST_WAITS {
            if pushed.is_err() || self.armed == 0 {
                return;
            }
            pushed = self.enter(Some(Some(LAST_WAIT)), &mut blocks, &mut events);
            events.clear();
        }
        log::debug!("{} operations of an io_uring were not cancelled in time", self.armed);
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("armed", &self.armed).finish_non_exhaustive()
    }
}

// SAFETY: the pointers in `io` are into maps that it owns; those of `sends` and `spare` are into
// buffers that the same `Send` owns. The kernel refuses system calls of a thread that the ring does
// not belong to, so a ring that was moved can only be read and closed.
#[allow(unsafe_code)]
unsafe impl std::marker::Send for Ring {}

impl Send {
    fn new() -> Box<Self> {
        let sent = Sent { token: Token(0), buffers: VecDeque::new(), offered: 0, result: Ok(0) };
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Box::new(Self { sent, slices: [none; SLICES], header: empty_header() })
    }

    /// Prepares a send. The buffers stay in `self`, and `self` in its box, until it is carried out.
    fn fill(
        &mut self,
        socket: Fd,
        token: Token,
        buffers: VecDeque<Vec<u8>>,
        mut skip: usize,
    ) -> squeue::Entry {
        let (mut count, mut offered) = (0, 0);
        for (slice, buffer) in self.slices.iter_mut().zip(&buffers) {
            let rest = &buffer[std::mem::take(&mut skip)..];
            slice.iov_base = rest.as_ptr().cast_mut().cast();
            slice.iov_len = rest.len();
            offered += rest.len();
            count += 1;
        }
        // Without a completion, all was sent.
        self.sent = Sent { token, buffers, offered, result: Ok(offered) };
        // WAITALL makes a short send count as failed, so that it reports.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = if count == 1 && offered <= u32::MAX as usize {
            let slice = &self.slices[0];
            opcode::Send::new(socket, slice.iov_base.cast(), slice.iov_len as u32)
                .flags(flags)
                .build()
        } else {
            self.header.msg_iov = self.slices.as_mut_ptr();
            self.header.msg_iovlen = count as _;
            opcode::SendMsg::new(socket, &raw const self.header).flags(flags as u32).build()
        };
        entry.flags(squeue::Flags::SKIP_SUCCESS)
    }

    fn take(&mut self) -> Sent {
        let nothing = Sent { token: Token(0), buffers: VecDeque::new(), offered: 0, result: Ok(0) };
        std::mem::replace(&mut self.sent, nothing)
    }
}

/// What an operation is; the top bits of its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Cancel,
    Receive,
    Accept,
    Ready,
    Wake,
    Send,
    Timer,
    HangUp,
}

impl Kind {
    const SHIFT: u32 = 60;

    const fn data(self, number: u64) -> u64 {
        assert!(number >> Self::SHIFT == 0, "a token has 60 bits");
        (self as u64) << Self::SHIFT | number
    }

    fn of(data: u64) -> (Self, u64) {
        let kinds = [
            Self::Cancel,
            Self::Receive,
            Self::Accept,
            Self::Ready,
            Self::Wake,
            Self::Send,
            Self::Timer,
            Self::HangUp,
        ];
        (kinds[(data >> Self::SHIFT) as usize], data & ((1 << Self::SHIFT) - 1))
    }

    const fn stays_armed(self) -> bool {
        !matches!(self, Self::Cancel | Self::Send)
    }
}

fn outcome(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn receive_end(result: io::Result<u32>) -> io::Result<bool> {
    match result {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOBUFS | libc::ECANCELED | libc::EAGAIN | libc::EINTR) => Ok(false),
            _ => Err(error),
        },
    }
}

fn short(result: io::Result<u32>) -> io::Result<usize> {
    match result {
        Ok(bytes) => Ok(bytes as usize),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Ok(0),
            _ => Err(error),
        },
    }
}

#[allow(unsafe_code)]
fn own(descriptor: u32) -> OwnedFd {
    let descriptor = i32::try_from(descriptor).expect("descriptors are small");
    // SAFETY: an accept has just returned it, so it is open and has no other owner.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

#[allow(unsafe_code)]
fn empty_header() -> libc::msghdr {
    // SAFETY: a C structure of integers and pointers, for which zero means absent.
    unsafe { std::mem::zeroed() }
}

/// Most system calls for one submission, which signals and full queues may interrupt.
const SUBMIT_ATTEMPTS: usize = 1000;
