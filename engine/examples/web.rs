//! A web service in front of a group: handlers that await the client's results.
//!
//! The client needs no particular runtime. This server is the least there can be, with a thread for each connection, so
//! that the example needs no other crate; `handle` is what stays with a framework. In axum it would be a handler
//! `async fn visit(State(visits): State<Visits>, Path(page): Path<String>)`, with a clone of the client as the state.

use std::error::Error;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Task, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use hybster::Context;
use hybster::paged::{Paged, PagedMap};
use hybster::testing::LocalCluster;
use hybster::typed::{NoRefusal, Typed, TypedClient, TypedService};
use serde::{Deserialize, Serialize};

/// Visits of each page.
#[derive(Default)]
struct Counts(PagedMap<String, u64>);

#[derive(Serialize, Deserialize)]
enum Operation {
    Visit(String),
    Count(String),
}

impl TypedService for Counts {
    type Operation = Operation;
    type Reply = u64;
    type Refusal = NoRefusal;

    fn execute(&mut self, _: &Context, operation: Operation) -> Result<u64, NoRefusal> {
        let (page, more) = match operation {
            Operation::Visit(page) => (page, 1),
            Operation::Count(page) => (page, 0),
        };
        let count = self.0.get(&page).copied().unwrap_or(0).saturating_add(more);
        if more > 0 {
            self.0.insert(page, count);
        }
        Ok(count)
    }

    fn query(&self, operation: &Operation) -> Option<Result<u64, NoRefusal>> {
        match operation {
            Operation::Visit(_) => None,
            Operation::Count(page) => Some(Ok(self.0.get(page).copied().unwrap_or(0))),
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.0]
    }
}

type Visits = TypedClient<Counts>;

/// Whoever asks is answered in this time, if only by an error.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a request that are read, at most.
const REQUEST_BYTES: u64 = 8 << 10;
const VISITORS: usize = 20;

/// The handler: status and body. It waits for nothing but the group, and holds no thread of the client's.
async fn handle(visits: &Visits, method: &str, page: &str) -> (u16, String) {
    let page = page.to_owned();
    let count = match method {
        "POST" => visits.submit_within(&Operation::Visit(page), PATIENCE).await,
        "GET" => visits.submit_query(&Operation::Count(page)).await,
        _ => return (405, "GET or POST\n".to_owned()),
    };
    match count {
        Ok(count) => (200, format!("{count}\n")),
        // Nothing is known of whether the visit counts: a client that must know sends a number with it.
        Err(error) => (503, format!("{error}\n")),
    }
}

/// One request on a connection.
fn serve(visits: &Visits, stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(REQUEST_BYTES)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
    let mut words = first.split_whitespace();
    let (method, page) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = block_on(handle(visits, method, page));
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} \r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An executor of one task: its thread sleeps until the client wakes it.
fn block_on<F: Future>(task: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut task, mut context) = (pin!(task), Task::from_waker(&waker));
    loop {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// What a browser does.
fn ask(server: SocketAddr, method: &str, page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    write!(stream, "{method} {page} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Many visitors at once, and one who looks at the count.
fn visit(server: SocketAddr) -> Result<(), Box<dyn Error>> {
    thread::scope(|scope| {
        let visitors: Vec<_> =
            (0..VISITORS).map(|_| scope.spawn(|| ask(server, "POST", "/news"))).collect();
        for visitor in visitors {
            let answer = visitor.join().map_err(|_| "a visitor panicked")??;
            if !answer.starts_with("HTTP/1.1 200") {
                return Err(answer.into());
            }
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    let answer = ask(server, "GET", "/news")?;
    println!("{answer}");
    match answer.ends_with(&format!("\r\n\r\n{VISITORS}\n")) {
        true => Ok(()),
        false => Err(answer.into()),
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let cluster = LocalCluster::start(Typed::<Counts>::default)?;
    let visits = cluster.client()?.typed::<Counts>();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming().flatten() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let visits = visits.clone();
                // A connection that breaks is its visitor's loss.
                scope.spawn(move || serve(&visits, &stream));
            }
        });
        let outcome = visit(server);
        is_over.store(true, Ordering::Relaxed);
        // Somebody has to come, or the listener would wait.
        TcpStream::connect_timeout(&server, PATIENCE)?;
        outcome
    })
}
