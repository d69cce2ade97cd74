//! A small HTTP server with one thread: GET and HEAD, one request per connection.
//!
//! It is bounded in everything that somebody outside decides: connections, bytes of a request, and how
//! long a connection may last. The packages for this (`tiny_http`, `hyper` with a runtime) start
//! threads per connection or bring a runtime with them; `httparse`, the parser of `hyper`, over the sockets
//! of `mio` that the links use, is a page and has the bounds.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

/// Connections at a time; one more ends the oldest.
const MAX_CONNECTIONS: usize = 16;
/// Bytes of a request's head; a longer one is refused.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// Bytes that may follow it, which nobody looks at.
const MAX_REST_BYTES: usize = 64 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// How long a connection may last, from its first byte to its last.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(5);
/// Wait before connections are accepted again after the system refused one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// The server cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The address cannot be had.
    #[error(
        "cannot listen on {address} for --metrics: {error}; choose an address of this machine and a port that \
         is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The system gave no thread or no files.
    #[error(
        "the thread for --metrics cannot be started: {0}; check the limits of files and threads"
    )]
    Thread(std::io::Error),
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A running server. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and answers each path as `answer` says; `None` is 404.
    ///
    /// # Errors
    /// If the address or the thread cannot be had.
    pub(crate) fn start(
        address: SocketAddr,
        answer: impl Fn(&str) -> Option<Answer> + Send + 'static,
    ) -> Result<Self, ServerError> {
        let listen = |error| ServerError::Listen { address, error };
        let mut listener = TcpListener::bind(address).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let poll = Poll::new().map_err(ServerError::Thread)?;
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(ServerError::Thread)?;
        let waker = Waker::new(registry, WAKER).map_err(ServerError::Thread)?;
        let stop = Arc::new(AtomicBool::new(false));
        let state = Connections { poll, listener, open: VecDeque::new(), next: FIRST_CONNECTION };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("metrics".into())
            .spawn(move || state.run(&stopped, &answer))
            .map_err(ServerError::Thread)?;
        Ok(Self { address, stop, waker, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It cannot fail for want of room; if it does, the thread ends with the process.
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

type Answers<'a> = &'a dyn Fn(&str) -> Option<Answer>;

struct Connections {
    poll: Poll,
    listener: TcpListener,
    /// The oldest first.
    open: VecDeque<Connection>,
    next: usize,
}

impl Connections {
    fn run(mut self, stop: &AtomicBool, answers: Answers<'_>) {
        let mut events = Events::with_capacity(2 * MAX_CONNECTIONS);
        let mut accept_again = None;
        while !stop.load(Ordering::SeqCst) {
            let oldest = self.open.front().map(|connection| connection.deadline);
            let wake_at = [accept_again, oldest].into_iter().flatten().min();
            let timeout = wake_at.map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("metrics are not served any more: {error}");
                    return;
                }
                _ => {}
            }
            let now = Instant::now();
            self.open.retain(|connection| now < connection.deadline);
            for event in &events {
                let id = event.token();
                self.open.retain_mut(|it| it.id != id || it.advance(answers));
            }
            // Always, since an event is not told again.
            accept_again = self.accept(now, answers).err().map(|_| now + ACCEPT_AGAIN);
        }
    }

    /// Accepts all that wait.
    fn accept(&mut self, now: Instant, answers: Answers<'_>) -> std::io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                    _ => return Err(error),
                },
            };
            let id = Token(self.next);
            self.next = self.next.wrapping_add(1).max(FIRST_CONNECTION);
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, id, both)?;
            if self.open.len() == MAX_CONNECTIONS {
                self.open.pop_front();
            }
            let mut connection = Connection {
                id,
                stream,
                deadline: now + MAX_CONNECTION_TIME,
                head: Vec::new(),
                out: None,
                written: 0,
                rest: 0,
            };
            if connection.advance(answers) {
                self.open.push_back(connection);
            }
        }
    }
}

struct Connection {
    id: Token,
    stream: TcpStream,
    deadline: Instant,
    head: Vec<u8>,
    /// The whole response, once the request has been read.
    out: Option<Vec<u8>>,
    written: usize,
    /// Bytes read after the head.
    rest: usize,
}

impl Connection {
    /// Does what can be done without waiting; false if the connection has ended.
    fn advance(&mut self, answers: Answers<'_>) -> bool {
        if self.out.is_none() {
            match self.read_head() {
                Ok(Some(request)) => self.out = Some(request.respond(answers)),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        let out = self.out.as_deref().unwrap_or_default();
        while self.written < out.len() {
            match self.stream.write(&out[self.written..]) {
                Ok(0) => return false,
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.written == out.len() && self.stream.shutdown(Shutdown::Write).is_err() {
                return false;
            }
        }
        // Closing with bytes unread would take the response from the other side.
        self.drain()
    }

    /// The request, once its head is complete.
    fn read_head(&mut self) -> std::io::Result<Option<Request>> {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.head.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
            let request = Request::parse(&self.head);
            if request.is_some() {
                return Ok(request);
            }
        }
    }

    /// Reads until the other side has closed as well; false once it has.
    fn drain(&mut self) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.rest += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            if self.rest > MAX_REST_BYTES {
                return false;
            }
        }
    }
}

/// What was asked for, or why it is refused.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Get(String),
    Head(String),
    Refused(u16),
}

impl Request {
    /// `None` if more must be read.
    fn parse(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if head.len() < MAX_HEAD_BYTES => return None,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Some(Self::Refused(431));
            }
            Err(_) => return Some(Self::Refused(400)),
        }
        let path = request.path.unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Some(match request.method {
            Some("GET") => Self::Get(path),
            Some("HEAD") => Self::Head(path),
            _ => Self::Refused(405),
        })
    }

    fn respond(self, answers: Answers<'_>) -> Vec<u8> {
        let refused = |status, text: &str| Answer {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{text}\n"),
        };
        let found = |path: &str| {
            answers(path).unwrap_or_else(|| refused(404, "here are /metrics, /health and /ready"))
        };
        let (answer, with_body) = match self {
            Self::Get(path) => (found(&path), true),
            Self::Head(path) => (found(&path), false),
            Self::Refused(405) => (refused(405, "only GET and HEAD"), true),
            Self::Refused(431) => (refused(431, "the request's head is too long"), true),
            Self::Refused(status) => (refused(status, "this is no HTTP request"), true),
        };
        let reason = match answer.status {
            200 => "OK",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            _ => "Bad Request",
        };
        let Answer { status, content_type, body } = answer;
        let mut response = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if with_body {
            response += &body;
        }
        response.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn server() -> Server {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let answer = |path: &str| {
            let answer =
                Answer { status: 200, content_type: "text/plain", body: "x".repeat(1 << 20) };
            (path == "/long").then_some(answer)
        };
        Server::start(local, answer).unwrap()
    }

    fn connect(server: &Server) -> TcpStream {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(server: &Server, request: &[u8]) -> String {
        let mut stream = connect(server);
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn paths_methods_and_garbage_are_answered() {
        let server = server();
        let long = ask(&server, b"GET /long?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(long.starts_with("HTTP/1.1 200 OK\r\n") && long.len() > 1 << 20);
        let head = ask(&server, b"HEAD /long HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 1048576") && head.ends_with("\r\n\r\n"));
        for (request, status) in [
            (&b"GET /other HTTP/1.1\r\n\r\n"[..], "404"),
            (b"PUT /long HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
            (b"\x16\x03\x01\x00\xff", "400"),
        ] {
            let text = ask(&server, request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {text}");
        }
        let headers = "a: b\r\n".repeat(MAX_HEADERS + 1);
        let many = ask(&server, format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes());
        assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD_BYTES));
        assert!(ask(&server, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn who_connects_and_says_nothing_keeps_nobody_out() {
        let server = server();
        let mut silent: Vec<TcpStream> =
            (0..3 * MAX_CONNECTIONS).map(|_| connect(&server)).collect();
        for half in &mut silent {
            // The server may have closed it.
            let _ = half.write_all(b"GET /lo");
        }
        assert!(ask(&server, b"GET /long HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 "));
        // The oldest went first, and all end by themselves.
        for mut stream in silent {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn an_address_in_use_is_an_error_that_says_what_to_do() {
        let server = server();
        let error = Server::start(server.address(), |_| None).unwrap_err().to_string();
        assert!(error.contains("--metrics") && error.contains("free"), "{error}");
    }
}
