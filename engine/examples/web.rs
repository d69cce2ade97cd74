//! A web service in front of a group, in axum: handlers that await the client's results.
//!
//! The client's tickets are plain futures, so a handler awaits them and holds no thread meanwhile; any number of
//! handlers share one client. It has a thread of its own and needs nothing of the runtime.

use std::error::Error;
use std::future::IntoFuture;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
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
type Answer = (StatusCode, String);

/// Whoever asks is answered in this time, if only by an error.
const PATIENCE: Duration = Duration::from_secs(20);
const VISITORS: usize = 20;

async fn visit(State(visits): State<Visits>, Path(page): Path<String>) -> Answer {
    match visits.submit_within(&Operation::Visit(page), PATIENCE).await {
        Ok(count) => (StatusCode::OK, count.to_string()),
        // Nothing is known of whether the visit counts: a client that must know sends a number with it.
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn count(State(visits): State<Visits>, Path(page): Path<String>) -> Answer {
    match visits.submit_query(&Operation::Count(page)).await {
        Ok(count) => (StatusCode::OK, count.to_string()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

/// What a browser does.
fn ask(server: SocketAddr, method: &str, page: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    write!(stream, "{method} {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Many visitors at once, and one who looks at the count.
fn visit_all(server: SocketAddr) -> Result<(), String> {
    thread::scope(|scope| {
        let visitors: Vec<_> =
            (0..VISITORS).map(|_| scope.spawn(|| ask(server, "POST", "/news"))).collect();
        for visitor in visitors {
            let answer = visitor.join().map_err(|_| "a visitor panicked")?;
            let answer = answer.map_err(|error| error.to_string())?;
            if !answer.starts_with("HTTP/1.1 200") {
                return Err(answer);
            }
        }
        Ok(())
    })?;
    let answer = ask(server, "GET", "/news").map_err(|error| error.to_string())?;
    println!("{answer}");
    match answer.ends_with(&format!("\r\n\r\n{VISITORS}")) {
        true => Ok(()),
        false => Err(answer),
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let cluster = LocalCluster::start(Typed::<Counts>::default)?;
    let visits = cluster.client()?.typed::<Counts>();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let router = Router::new().route("/{page}", get(count).post(visit)).with_state(visits);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let server = listener.local_addr()?;
        let serving = tokio::spawn(axum::serve(listener, router).into_future());
        let outcome = tokio::task::spawn_blocking(move || visit_all(server)).await?;
        serving.abort();
        Ok(outcome?)
    })
}
