//! What a client costs in latency when it is used from axum: the time from a submit to its result at full load, in threads
//! that block, in tasks of a runtime, and in handlers of an axum server, in turns.
//!
//! `cargo run --release -p hybster --example web_load`. With `-- ROUNDS SECONDS` other than 6 rounds of 3 seconds each.
//! Group, server and load share this machine, so the figures compare ways of use and say nothing else. What the
//! visitor of the server waits is longer than what its handler does, by what HTTP takes; it is shown, too.

use std::error::Error;
use std::future::IntoFuture;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use hybster::client::Client;
use hybster::services::{CounterService, counter};
use hybster::testing::LocalCluster;

/// Requests that are under way at a time: as many as the client has sessions.
const AT_ONCE: usize = 64;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

type Times = Vec<Duration>;
type Failed = Box<dyn Error + Send + Sync>;

/// A share of all times, in microseconds.
fn percentile_us(times: &mut Times, of_thousand: usize) -> u128 {
    times.sort_unstable();
    times.get(times.len() * of_thousand / 1000).map_or(0, Duration::as_micros)
}

/// Threads that call and wait.
fn blocking(client: &Client, until: Instant) -> Result<Times, Failed> {
    thread::scope(|scope| {
        let callers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut times = Times::new();
                    while Instant::now() < until {
                        let began = Instant::now();
                        client.call(&counter::encode_add(1))?;
                        times.push(began.elapsed());
                    }
                    Ok::<_, Failed>(times)
                })
            })
            .collect();
        let mut all = Times::new();
        for caller in callers {
            all.extend(caller.join().map_err(|_| "a caller panicked")??);
        }
        Ok(all)
    })
}

/// Tasks that await.
async fn tasks(client: &Client, until: Instant) -> Result<Times, Failed> {
    let callers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut times = Times::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    client.submit(&counter::encode_add(1)).await?;
                    times.push(began.elapsed());
                }
                Ok::<_, Failed>(times)
            })
        })
        .collect();
    let mut all = Times::new();
    for caller in callers {
        all.extend(caller.await??);
    }
    Ok(all)
}

#[derive(Clone)]
struct Served {
    client: Client,
    times: Arc<Mutex<Times>>,
}

async fn add(State(served): State<Served>) -> (StatusCode, &'static str) {
    let began = Instant::now();
    let result = served.client.submit(&counter::encode_add(1)).await;
    let took = began.elapsed();
    served.times.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(took);
    match result {
        Ok(_) => (StatusCode::OK, "done"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "lost"),
    }
}

/// One visitor's requests, one after the other on one connection.
fn visit(server: SocketAddr, until: Instant) -> io::Result<Times> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut times, mut buffer) = (Times::new(), [0; 4096]);
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")?;
        let mut filled = 0;
        while !buffer[..filled].ends_with(b"\r\n\r\ndone") {
            match stream.read(&mut buffer[filled..])? {
                0 => return Err(io::Error::other("the server refused, or closed the connection")),
                count => filled += count,
            }
        }
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Handlers of a server: what they waited, and what their visitors did.
async fn server(client: &Client, until: Instant) -> Result<[Times; 2], Failed> {
    let served = Served { client: client.clone(), times: Arc::default() };
    let router = Router::new().route("/", post(add)).with_state(served.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    let visitors: Vec<_> =
        (0..AT_ONCE).map(|_| thread::spawn(move || visit(address, until))).collect();
    let visited = tokio::task::spawn_blocking(move || {
        let mut all = Times::new();
        for visitor in visitors {
            all.extend(visitor.join().map_err(|_| "a visitor panicked")??);
        }
        Ok::<_, Failed>(all)
    });
    let visited = visited.await??;
    serving.abort();
    let times = std::mem::take(&mut *served.times.lock().unwrap_or_else(|it| it.into_inner()));
    Ok([times, visited])
}

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1).map(|it| it.parse::<u64>());
    let rounds = arguments.next().transpose()?.unwrap_or(6).max(1);
    let seconds = arguments.next().transpose()?.unwrap_or(3).max(1);
    let cluster = LocalCluster::start(CounterService::new)?;
    let client = cluster.client()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let until = || Instant::now() + Duration::from_secs(seconds);
    let names = ["threads", "tasks", "axum, handler", "axum, visitor"];
    let mut p99 = [const { Vec::new() }; 4];
    for round in 0..rounds {
        let in_threads = blocking(&client, until())?;
        let in_tasks = runtime.block_on(tasks(&client, until()))?;
        let [handlers, visitors] = runtime.block_on(server(&client, until()))?;
        let all = [in_threads, in_tasks, handlers, visitors];
        for ((mut times, name), p99) in all.into_iter().zip(names).zip(&mut p99) {
            let (half, most) = (percentile_us(&mut times, 500), percentile_us(&mut times, 990));
            let rate = times.len() as u64 / seconds;
            println!("{round}  {name:<14} {rate:>8}/s  p50 {half:>6} µs  p99 {most:>6} µs");
            p99.push(most);
        }
    }
    let medians = p99.map(|mut of| {
        of.sort_unstable();
        of[of.len() / 2]
    });
    for (name, median) in names.into_iter().zip(medians) {
        let ratio = median as f64 / medians[0].max(1) as f64;
        println!("median of p99  {name:<14} {median:>6} µs, {ratio:.2} of threads");
    }
    Ok(())
}
