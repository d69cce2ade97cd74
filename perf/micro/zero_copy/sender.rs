//! A connection with its own ring for sending: the only code of this benchmark that hands pointers
//! to the kernel.
//!
//! A buffer is *free* or *lent*. It is lent from the submission of its send until the kernel has
//! said that it will not read it again: with the result of a plain send, or with the notification
//! that follows the result of a send without a copy. Only free buffers are written. Buffers are
//! freed when the kernel is done with all of them, or never: a sender that fails leaks them.

use std::io;
use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Buffers that one sender has.
const BUFFERS: usize = 32;
/// The time without work after which a polled ring's thread sleeps.
const POLL_IDLE_MS: u32 = 10;
/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied after all.
const REPORT_USAGE: u16 = 1 << 3;
/// `IORING_NOTIF_USAGE_ZC_COPIED`.
const COPIED: u32 = 1 << 31;

/// How to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    ZeroCopy,
    ZeroCopyRegistered,
    PlainPolled,
}

impl Way {
    /// All ways; the others are compared with the first.
    pub(crate) const ALL: [Self; 4] =
        [Self::Plain, Self::ZeroCopy, Self::ZeroCopyRegistered, Self::PlainPolled];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ZeroCopy => "zero-copy",
            Self::ZeroCopyRegistered => "zero-copy, registered",
            Self::PlainPolled => "plain, polled ring",
        }
    }

    const fn is_zero_copy(self) -> bool {
        matches!(self, Self::ZeroCopy | Self::ZeroCopyRegistered)
    }
}

/// One connection, its ring and its buffers.
pub(crate) struct Sender {
    ring: IoUring,
    stream: TcpStream,
    way: Way,
    /// Not dropped before the kernel is done with them: see [`Sender::finish`].
    buffers: ManuallyDrop<Vec<Box<[u8]>>>,
    lent: [bool; BUFFERS],
    sends: u64,
    copied: u64,
}

impl Sender {
    #[allow(unsafe_code)]
    pub(crate) fn new(stream: TcpStream, way: Way, size: usize) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer();
        match way {
            Way::PlainPolled => builder.setup_sqpoll(POLL_IDLE_MS),
            _ => builder.setup_defer_taskrun(),
        };
        let ring = builder.build(BUFFERS as u32)?;
        let mut buffers: Vec<Box<[u8]>> = vec![vec![0; size].into(); BUFFERS];
        if way == Way::ZeroCopyRegistered {
            let slice = |buffer: &mut Box<[u8]>| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let slices: Vec<_> = buffers.iter_mut().map(slice).collect();
            // SAFETY: the addresses are those of boxed slices, which stay where they are until
            // `finish`, which closes the ring first. The kernel only reads, and only for sends.
            unsafe { ring.submitter().register_buffers(&slices)? };
        }
        let buffers = ManuallyDrop::new(buffers);
        Ok(Self { ring, stream, way, buffers, lent: [false; BUFFERS], sends: 0, copied: 0 })
    }

    /// Writes a buffer and sends it; returns when it is sent, though a notification may be due.
    pub(crate) fn send(&mut self) -> io::Result<usize> {
        let at = self.free_buffer()?;
        self.sends += 1;
        self.buffers[at].fill(self.sends as u8);
        self.lent[at] = true;
        self.submit(at)?;
        loop {
            if let Some(bytes) = self.take_completed()? {
                return Ok(bytes);
            }
            self.ring.submit_and_wait(1)?;
        }
    }

    /// Waits until the kernel is done with all buffers. Says what share of sends it copied.
    pub(crate) fn finish(mut self) -> io::Result<f64> {
        while self.lent.contains(&true) {
            self.take_completed()?;
            if self.lent.contains(&true) {
                self.ring.submit_and_wait(1)?;
            }
        }
        let Self { ring, buffers, sends, copied, way, .. } = self;
        drop(ring);
        drop(ManuallyDrop::into_inner(buffers));
        Ok(if way.is_zero_copy() { copied as f64 / sends as f64 } else { 1.0 })
    }

    fn free_buffer(&mut self) -> io::Result<usize> {
        loop {
            if let Some(at) = self.lent.iter().position(|is_lent| !is_lent) {
                return Ok(at);
            }
            self.ring.submit_and_wait(1)?;
            self.take_completed()?;
        }
    }

    #[allow(unsafe_code)]
    fn submit(&mut self, at: usize) -> io::Result<()> {
        let (socket, buffer) = (Fd(self.stream.as_raw_fd()), &self.buffers[at]);
        let (address, length) = (buffer.as_ptr(), buffer.len() as u32);
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry: squeue::Entry = if self.way.is_zero_copy() {
            let index = (self.way == Way::ZeroCopyRegistered).then_some(at as u16);
            let send = opcode::SendZc::new(socket, address, length).flags(flags);
            send.buf_index(index).zc_flags(REPORT_USAGE).build()
        } else {
            opcode::Send::new(socket, address, length).flags(flags).build()
        };
        // SAFETY: the buffer is lent from here on, so it is neither written nor freed before the
        // kernel is done with it.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(at as u64)) };
        pushed.expect("one send at a time fits");
        self.ring.submit_and_wait(1)?;
        Ok(())
    }

    /// The bytes of the send under way, if its result is there. Buffers become free here only.
    fn take_completed(&mut self) -> io::Result<Option<usize>> {
        let mut sent = None;
        for entry in self.ring.completion() {
            let at = entry.user_data() as usize;
            if cqueue::notif(entry.flags()) {
                self.copied += u64::from(entry.result() as u32 & COPIED != 0);
                self.lent[at] = false;
                continue;
            }
            self.lent[at] = cqueue::more(entry.flags());
            let bytes = usize::try_from(entry.result());
            sent = Some(bytes.map_err(|_| io::Error::from_raw_os_error(-entry.result()))?);
        }
        Ok(sent)
    }
}
