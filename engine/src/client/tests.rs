//! Clients against fake replicas over real TCP: there is no protocol, but the links are real.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Waker;
use std::thread;

use hybster_net::limits::PollLimits;
use hybster_net::{Event, Hub, HubConfig, Identity, LinkId, PollTransport, Source};
use hybster_proto::client::{Completions, Outcome};
use hybster_proto::ids::{ClientId, ReplicaId, RequestNumber, View};
use hybster_proto::wire::relay::relayed_head;
use hybster_proto::wire::reply::{append, begin};
use hybster_proto::wire::request::requests_body;
use hybster_proto::wire::{ReplyEntry, ReplyStatus, RequestTag, Requests, kind, kind_of};

use super::*;
use crate::group::{Addresses, CreateOptions, ReplicaKeys, create};

/// Commands to the fake group.
enum Order {
    Stop(u16),
    Start(u16),
    /// Answer requests with this outcome, in this view; the result of `Done` is the operation.
    Answer(Option<ReplyStatus>, u64),
    /// This replica answers queries with something else.
    Liar(u16),
    /// Replies of replica 1 are relayed by replica 0, which damages them or not.
    Relay {
        damaged: bool,
    },
    /// Sessions of incarnations so far are evicted.
    Evict,
    End,
}

/// Replicas that share requests in memory, and all answer them.
struct World {
    group: Group,
    dir: PathBuf,
    /// Each with whom to tell that it was carried out.
    orders: Sender<(Order, Sender<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn new(replicas: u16, start: &[u16]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "hybster-client-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        let sockets: Vec<_> =
            (0..replicas).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        drop(sockets);
        let config = GroupConfig {
            replicas,
            faults: (replicas - 1) / 2,
            session_window: 4,
            ..GroupConfig::default()
        };
        let addresses = Addresses::List(addresses);
        let options = CreateOptions { config, addresses, ..CreateOptions::default() };
        let group = create(&dir, &options).unwrap();
        let (orders, inbox) = channel();
        let mut replicas = Replicas {
            group: group.clone(),
            dir: dir.clone(),
            hubs: (0..replicas).map(|_| None).collect(),
            links: (0..replicas).map(|_| HashMap::new()).collect(),
            answer: Some(ReplyStatus::Done),
            view: 0,
            liar: None,
            relayed: None,
            evicted: 0,
            seen: 0,
        };
        let thread = Some(thread::spawn(move || replicas.run(&inbox)));
        let world = Self { group, dir, orders, thread };
        start.iter().for_each(|r| world.order(Order::Start(*r)));
        world
    }

    /// Returns when it was carried out: what reaches the replicas from then on finds it so.
    fn order(&self, order: Order) {
        let (done, told) = channel();
        self.orders.send((order, done)).unwrap();
        told.recv_timeout(PATIENCE).unwrap();
    }

    fn keys(&self) -> ClientKeys {
        ClientKeys::load(&self.group, &self.dir, ClientId(0)).unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(&self.group, &self.keys(), options()).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.orders.send((Order::End, channel().0));
        let ended = self.thread.take().unwrap().join();
        let _ = std::fs::remove_dir_all(&self.dir);
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// Much longer than anything here takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// For clients that are to succeed.
fn options() -> ClientOptions {
    ClientOptions {
        sessions: 4,
        request_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        ..ClientOptions::default()
    }
}

struct Replicas {
    group: Group,
    dir: PathBuf,
    hubs: Vec<Option<Hub<PollTransport>>>,
    /// Per replica the links by incarnation.
    links: Vec<HashMap<u64, LinkId>>,
    answer: Option<ReplyStatus>,
    view: u64,
    liar: Option<u16>,
    /// Whether replica 0 damages the replies of replica 1, if it relays them.
    relayed: Option<bool>,
    /// Incarnations up to this one are evicted; the highest one seen.
    evicted: u64,
    seen: u64,
}

impl Replicas {
    fn run(&mut self, inbox: &Receiver<(Order, Sender<()>)>) {
        loop {
            while let Ok((order, done)) = inbox.try_recv() {
                match order {
                    Order::Start(r) => self.start(r),
                    Order::Stop(r) => {
                        self.hubs[usize::from(r)] = None;
                        self.links[usize::from(r)].clear();
                    }
                    Order::Answer(status, view) => (self.answer, self.view) = (status, view),
                    Order::Liar(r) => self.liar = Some(r),
                    Order::Relay { damaged } => self.relayed = Some(damaged),
                    Order::Evict => self.evicted = self.seen,
                    Order::End => return,
                }
                let _ = done.send(());
            }
            for r in 0..self.hubs.len() {
                self.poll(r);
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn start(&mut self, r: u16) {
        let keys = ReplicaKeys::load(&self.group, &self.dir, ReplicaId(r)).unwrap();
        let config = HubConfig {
            identity: Identity::Replica(r),
            key: keys.link,
            keyring: self.group.key_ring().unwrap().into(),
            group_digest: self.group.config().digest().0,
            pillars: self.group.config().pillars,
            incarnation: 0,
            application: None,
            cipher: self.group.link_cipher(),
            listen: self.group.replicas()[usize::from(r)].address.ip(),
            peers: Vec::new(),
            limits: self.group.link_limits(),
            jitter_seed: None,
        };
        let transport = PollTransport::new(PollLimits::default()).unwrap();
        self.hubs[usize::from(r)] = Some(Hub::new(transport, config).unwrap());
    }

    fn poll(&mut self, r: usize) {
        let Some(hub) = &mut self.hubs[r] else { return };
        let mut events = Vec::new();
        hub.poll(Some(Duration::ZERO), Instant::now(), &mut events).unwrap();
        for event in events {
            match event {
                Event::ClientUp { incarnation, link, .. } => {
                    self.links[r].insert(incarnation, link);
                    self.seen = self.seen.max(incarnation);
                }
                Event::ClientDown { link, .. } => self.links[r].retain(|_, l| *l != link),
                Event::Messages { from: Source::Client { .. }, messages } => {
                    messages.iter().for_each(|message| self.message(r, message));
                }
                _ => {}
            }
        }
    }

    fn message(&mut self, r: usize, message: &[u8]) {
        let query = kind_of(message) == kind::QUERIES;
        let Ok(body) = requests_body(message) else {
            return;
        };
        for request in Requests::new(body) {
            let request = request.unwrap();
            for q in 0..self.hubs.len() {
                let (Some(hub), Some(status)) = (&mut self.hubs[q], self.answer) else {
                    continue;
                };
                let Some(link) = self.links[q].get(&request.session.incarnation()) else {
                    continue;
                };
                // All replicas answer a request; a query only the one that it reaches.
                if query && q != r {
                    continue;
                }
                let lies = self.liar == Some(q as u16);
                let evicted = request.session.incarnation() <= self.evicted;
                let entry = ReplyEntry {
                    index: request.session.index(),
                    tag: match query {
                        true => RequestTag::of_query(request.covered),
                        false => request.tag(),
                    },
                    number: request.number,
                    status: if evicted { ReplyStatus::Evicted } else { status },
                    result: if lies { b"a lie" } else { request.operation },
                };
                let mut reply = Vec::new();
                begin(&mut reply, ReplicaId(q as u16), View(self.view));
                append(&mut reply, &entry);
                match self.relayed.filter(|_| q == 1) {
                    None => {
                        let _ = hub.send_to_client(*link, &reply);
                    }
                    Some(damaged) => {
                        let mut relayed = Vec::from(relayed_head(ReplicaId(1)));
                        assert!(hub.seal_for_client(*link, &reply, &mut relayed));
                        *relayed.last_mut().unwrap() ^= u8::from(damaged);
                        let link = self.links[0][&request.session.incarnation()];
                        let carrier = self.hubs[0].as_mut().unwrap();
                        carrier.relay_to_client(link, |writer| writer.put(&relayed)).unwrap();
                    }
                }
            }
        }
    }
}

/// A driver polls until a request has ended, or a relayed reply could not be opened.
fn poll_until(driver: &mut ClientDriver, number: RequestNumber) -> Option<Outcome> {
    let (mut completions, end) = (Completions::default(), Instant::now() + PATIENCE);
    while Instant::now() < end {
        driver.poll(Duration::from_millis(10)).unwrap();
        driver.take_completions(&mut completions);
        if let Some(done) = completions.iter().find(|done| done.number == number) {
            return Some(done.outcome);
        }
        if driver.unopened() > 0 {
            return None;
        }
    }
    panic!("neither of them came");
}

/// Two of three replicas run, so the client needs the replies of both.
#[test]
fn a_carried_reply_counts_for_its_replica_and_a_damaged_one_for_nobody() {
    let world = World::new(3, &[0, 1]);
    let mut driver = ClientDriver::connect(&world.group, &world.keys(), &options()).unwrap();
    driver.await_links(PATIENCE).unwrap();
    let mut call = |damaged| {
        world.order(Order::Relay { damaged });
        let number = driver.submit(0, b"op", RequestKind::Ordered).unwrap();
        poll_until(&mut driver, number)
    };
    assert_eq!((call(false), call(true)), (Some(Outcome::Done), None));
    assert_eq!(driver.stats().accepted, 1);
}

#[test]
fn calls_queries_and_tickets_bring_results() {
    let world = World::new(3, &[0, 1, 2]);
    let client = world.client();
    assert_eq!(client.call(b"one").unwrap(), b"one");
    assert_eq!(client.query(b"two").unwrap(), b"two");
    assert_eq!(client.call(b"").unwrap(), b"");
    let long = vec![7; 1 << 20];
    assert_eq!(client.call(&long).unwrap(), long);
    // More than sessions and their windows can take at a time.
    let all: Vec<_> = (0..200u8).map(|i| client.submit(&vec![i; usize::from(i) * 20])).collect();
    for (i, pending) in all.into_iter().enumerate() {
        assert_eq!(pending.wait().unwrap(), vec![i as u8; i * 20]);
    }
    let (sender, receiver) = channel();
    client
        .submit_with(b"back", RequestKind::Ordered, move |result| sender.send(result).unwrap())
        .unwrap();
    assert_eq!(receiver.recv().unwrap().unwrap(), b"back");
    assert!(matches!(client.call(&[0; (1 << 20) + 1]), Err(CallError::TooLong { .. })));
}

#[test]
fn a_ticket_is_a_future() {
    let world = World::new(1, &[0]);
    let client = world.client();
    let results = run_all([client.submit(b"x")]);
    assert_eq!(results[0].as_ref().unwrap(), b"x");
}

#[test]
fn a_query_that_not_all_answer_equally_is_ordered() {
    let world = World::new(3, &[0, 1, 2]);
    world.order(Order::Liar(1));
    let client = world.client();
    assert_eq!(client.query(b"q").unwrap(), b"q");
    world.order(Order::Stop(2));
    // With a liar and a stopped replica nothing is certain.
    let pending = client.submit_query(b"q");
    let pending = pending.wait_timeout(Duration::from_millis(300)).unwrap_err();
    world.order(Order::Start(2));
    assert_eq!(pending.wait().unwrap(), b"q");
}

#[test]
fn clients_survive_stopped_and_restarted_replicas_and_a_new_leader() {
    let world = World::new(3, &[0, 1]);
    let client = world.client();
    assert_eq!(client.call(b"without r2").unwrap(), b"without r2");
    world.order(Order::Start(2));
    world.order(Order::Answer(Some(ReplyStatus::Done), 1));
    world.order(Order::Stop(0));
    for i in 0..50u8 {
        assert_eq!(client.call(&[i]).unwrap(), [i]);
    }
    // All stop, and come back.
    (1..3).for_each(|r| world.order(Order::Stop(r)));
    let pending = client.submit(b"later");
    let pending = pending.wait_timeout(Duration::from_millis(200)).unwrap_err();
    (0..3).for_each(|r| world.order(Order::Start(r)));
    assert_eq!(pending.wait().unwrap(), b"later");
}

/// What `attempt` says when it gets more and more time: until it says what is waited for. On a busy
/// machine a short limit can pass before anything has happened.
fn with_time_enough<T: std::fmt::Debug>(
    mut attempt: impl FnMut(Duration) -> T,
    is_awaited: impl Fn(&T) -> bool,
) -> T {
    let mut limit = Duration::from_millis(200);
    loop {
        let said = attempt(limit);
        if is_awaited(&said) {
            return said;
        }
        assert!(limit < PATIENCE, "said in {limit:?}: {said:?}");
        limit *= 2;
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let world = World::new(3, &[0]);
    let connect_within = |connect_timeout| {
        let quick = ClientOptions { connect_timeout, ..options() };
        Client::connect(&world.group, &world.keys(), quick).unwrap_err()
    };
    let counts = |error: &ClientError| match error {
        ClientError::Unreachable(it) => (it.connected, it.needed, it.missing.len()),
        error => panic!("{error}"),
    };
    let error = with_time_enough(connect_within, |error| counts(error).0 > 0);
    assert_eq!(counts(&error), (1, 2, 2));
    assert!(error.to_string().contains("replica 1 at 127.0.0.1:"), "{error}");

    (1..3).for_each(|r| world.order(Order::Start(r)));
    let call_within = |request_timeout| {
        let quick = ClientOptions { request_timeout, ..options() };
        let client = Client::connect(&world.group, &world.keys(), quick).unwrap();
        client.call(b"x").unwrap_err()
    };
    world.order(Order::Answer(None, 0));
    let error = call_within(Duration::from_millis(400));
    assert!(matches!(error, CallError::Timeout), "{error}");
    let client = world.client();
    world.order(Order::Answer(Some(ReplyStatus::TooLong), 0));
    assert!(matches!(client.call(b"x"), Err(CallError::ResultTooLong)));

    let quick = ClientOptions { request_timeout: Duration::from_millis(400), ..options() };
    let quick = Client::connect(&world.group, &world.keys(), quick).unwrap();
    (0..3).for_each(|r| world.order(Order::Stop(r)));
    let error = quick.call(b"x").unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(u) if u.missing.len() == 3), "{error}");
    // It would wait for an answer much longer.
    let pending = client.submit(b"x");
    client.shutdown();
    assert!(matches!(pending.wait(), Err(CallError::Shutdown)));
    assert!(matches!(client.call(b"x"), Err(CallError::Shutdown)));

    let wrong = ClientOptions { sessions: 1 << 15, ..options() };
    let error = ClientDriver::connect(&world.group, &world.keys(), &wrong).unwrap_err();
    assert!(matches!(error, ClientError::Options { option: "sessions", .. }), "{error}");
}

#[test]
fn an_unknown_key_is_refused_at_once_with_the_reason() {
    let world = World::new(3, &[0, 1, 2]);
    let stranger = ClientKeys { link: hybster_net::StaticKey::generate().unwrap(), ..world.keys() };
    let start = Instant::now();
    let error = Client::connect(&world.group, &stranger, options()).unwrap_err();
    let ClientError::Unreachable(missing) = &error else { panic!("{error}") };
    assert!(missing.missing.iter().filter(|m| m.is_lasting()).count() >= 2, "{error}");
    assert!(start.elapsed() < options().connect_timeout, "{:?}", start.elapsed());
}

#[test]
fn an_evicted_client_begins_again() {
    let world = World::new(3, &[0, 1, 2]);
    let client = world.client();
    assert_eq!(client.call(b"x").unwrap(), b"x");
    world.order(Order::Evict);
    // Each session learns it once; then there are new ones.
    let evicted = (0..20).filter(|_| matches!(client.call(b"x"), Err(CallError::Evicted))).count();
    assert!((1..=4).contains(&evicted), "{evicted}");
    assert_eq!(client.call(b"x").unwrap(), b"x");
}

#[test]
fn a_full_queue_is_busy_or_waits() {
    let world = World::new(1, &[0]);
    let small = ClientOptions { sessions: 1, queue: 2, ..options() };
    let client = Client::connect(&world.group, &world.keys(), small).unwrap();
    world.order(Order::Answer(None, 0));
    // Four in the session's window, then two that wait.
    let mut all: Vec<_> = (0..6).map(|_| client.submit(b"x")).collect();
    let refused = client.try_submit(b"x", RequestKind::Ordered);
    assert!(matches!(refused, Err(CallError::Busy { limit: 2 })));
    world.order(Order::Answer(Some(ReplyStatus::Done), 0));
    all.push(client.submit(b"x"));
    all.into_iter().for_each(|pending| assert_eq!(pending.wait().unwrap(), b"x"));
}

struct Unpark(thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls all of them until they have ended; on this thread, as a runtime would.
fn run_all<F: Future + Unpin>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut outcomes = Vec::new();
    while outcomes.len() < running.len() {
        let before = outcomes.len();
        for slot in &mut running {
            if let Some(future) = slot
                && let std::task::Poll::Ready(outcome) =
                    std::pin::Pin::new(future).poll(&mut context)
            {
                outcomes.push(outcome);
                *slot = None;
            }
        }
        if outcomes.len() == before {
            thread::park_timeout(PATIENCE);
        }
    }
    outcomes
}

/// As so many tasks on one client: more than its queue, its sessions and their windows take.
#[test]
fn of_ten_thousand_futures_none_is_busy_and_none_is_lost() {
    let world = World::new(3, &[0, 1, 2]);
    let client = world.client();
    let numbers = 0..10_000u32;
    let outcomes = run_all(numbers.clone().map(|number| client.submit(&number.to_le_bytes())));
    let mut results: Vec<u32> = outcomes
        .into_iter()
        .map(|outcome| u32::from_le_bytes(outcome.unwrap().try_into().unwrap()))
        .collect();
    results.sort_unstable();
    assert!(results.into_iter().eq(numbers));
    assert_eq!(client.waiting(), 0);
}

/// A program that gives up by itself, again and again, while the group does not answer.
#[test]
fn what_nobody_waits_for_any_more_is_withdrawn() {
    let world = World::new(1, &[0]);
    let small = ClientOptions { sessions: 1, ..options() };
    let client = Client::connect(&world.group, &world.keys(), small).unwrap();
    world.order(Order::Answer(None, 0));
    let first: Vec<_> = (0..4).map(|_| client.submit(b"under way")).collect();
    let kept = client.submit(b"kept");
    let deadline = Instant::now() + PATIENCE;
    while client.waiting() > 1 {
        assert!(Instant::now() < deadline, "four have sessions");
        thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..20_000 {
        drop(client.submit(&[7; 1000]));
    }
    let inner = client.inner.shared.lengths();
    assert!(inner.0 == 1 && inner.1 < 200, "{inner:?}");
    client.submit(b"goes on").detach();
    assert_eq!(client.waiting(), 2);
    world.order(Order::Answer(Some(ReplyStatus::Done), 0));
    assert_eq!(kept.wait().unwrap(), b"kept");
    first.into_iter().for_each(|pending| assert_eq!(pending.wait().unwrap(), b"under way"));
}

#[test]
fn a_request_ends_at_its_own_deadline_in_the_queue_and_under_way() {
    let world = World::new(1, &[0]);
    let small = ClientOptions { sessions: 1, ..options() };
    let client = Client::connect(&world.group, &world.keys(), small).unwrap();
    world.order(Order::Answer(None, 0));
    let soon = Duration::from_millis(50);
    let ended = client.request(b"alone").timeout(soon).call();
    assert!(matches!(ended, Err(CallError::Timeout)), "{ended:?}");
    // Behind others that have all sessions, and more time.
    let others: Vec<_> = (0..9).map(|_| client.submit(b"other")).collect();
    let ended = run_all([client.request(b"behind").read_only().timeout(soon).submit()]);
    assert!(matches!(ended[..], [Err(CallError::Timeout)]), "{ended:?}");
    world.order(Order::Answer(Some(ReplyStatus::Done), 0));
    others.into_iter().for_each(|pending| assert_eq!(pending.wait().unwrap(), b"other"));
    assert_eq!(client.request(b"in time").timeout(PATIENCE).call().unwrap(), b"in time");
    assert_eq!(client.inner.shared.lengths(), (0, 0, 0));
}

#[test]
fn a_client_can_be_awaited_and_an_attempt_dropped() {
    let world = World::new(3, &[0, 1, 2]);
    let connecting = Client::connect_async(&world.group, &world.keys(), options());
    let client = run_all([connecting]).remove(0).unwrap();
    assert_eq!(client.call(b"x").unwrap(), b"x");
    let mut dropped = Client::connect_async(&world.group, &world.keys(), options());
    let thread = dropped.take_thread().unwrap();
    drop(dropped);
    // With or without replicas, it does not wait for the end of its time.
    thread.join().unwrap();
    (0..3).for_each(|r| world.order(Order::Stop(r)));
    let mut dropped = Client::connect_async(&world.group, &world.keys(), options());
    let thread = dropped.take_thread().unwrap();
    fn may_go_to_another_task(_: &(impl Send + Sync + Unpin)) {}
    may_go_to_another_task(&dropped);
    may_go_to_another_task(&client.submit(b"x"));
    drop(dropped);
    thread.join().unwrap();
    let wrong = ClientOptions { queue: 0, ..options() };
    let error = Client::connect_async(&world.group, &world.keys(), wrong).wait().unwrap_err();
    assert!(matches!(error, ClientError::Options { option: "queue", .. }), "{error}");
}

#[test]
fn results_that_differ_are_told_from_silence() {
    let world = World::new(3, &[0, 1]);
    world.order(Order::Liar(1));
    let call_within = |request_timeout| {
        let quick = ClientOptions { request_timeout, ..options() };
        let client = Client::connect(&world.group, &world.keys(), quick).unwrap();
        client.call(b"x").unwrap_err()
    };
    let differ = |error: &CallError| matches!(error, CallError::RepliesDiffer);
    with_time_enough(call_within, differ);
}
