//! The trace file of a running group, and what it costs.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Scratch, free_addresses};
use hybster::client::{Client, ClientDriver, ClientOptions, Completions, RequestKind};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::services::NullService;
use hybster::{ClientId, ClientKeys, Group, GroupConfig, Layout, Replica, ReplicaKeys};
use hybster::{ReplicaId, RunningReplica};
use hybster_proto::trace::file::{Entry, Trace, Writer};
use hybster_proto::trace::{Proposal, TraceEvent};

struct Traced {
    scratch: Scratch,
    group: Group,
    replicas: Vec<RunningReplica>,
}

impl Traced {
    fn start(name: &str, layout: Layout, tracing: bool) -> Self {
        let scratch = Scratch::new(name);
        let config = GroupConfig::default();
        let addresses = Addresses::List(free_addresses(config.replicas));
        let options = CreateOptions { config, addresses, clients: 2, layout, ..Default::default() };
        let group = create(scratch.path(), &options).unwrap();
        let start = |id: ReplicaId| {
            let keys = ReplicaKeys::load(&group, scratch.path(), id).unwrap();
            let builder = Replica::builder(group.clone(), keys).service(NullService::new(0));
            let file = scratch.path().join(format!("{}.trace", id.0));
            let builder = if tracing { builder.trace_file(file) } else { builder };
            builder.start().unwrap()
        };
        let replicas = group.config().all_replicas().map(start).collect();
        Self { scratch, group, replicas }
    }

    fn keys(&self, client: u32) -> ClientKeys {
        ClientKeys::load(&self.group, self.scratch.path(), ClientId(client)).unwrap()
    }

    fn file(&self, replica: u16) -> PathBuf {
        self.scratch.path().join(format!("{replica}.trace"))
    }

    fn shutdown(&mut self) {
        self.replicas.drain(..).for_each(|replica| replica.shutdown().unwrap());
    }
}

#[test]
fn the_traces_of_a_group_agree() {
    for layout in [Layout::Fused, Layout::Split] {
        let mut traced = Traced::start(&format!("trace-{layout}"), layout, true);
        let client =
            Client::connect(&traced.group, &traced.keys(0), ClientOptions::default()).unwrap();
        for _ in 0..50 {
            client.call(b"operation").unwrap();
        }
        drop(client);
        traced.shutdown();
        let (mut committed, mut results) = (BTreeMap::new(), BTreeMap::new());
        let mut executed = [0_u64; 3];
        for replica in 0..3 {
            let bytes = std::fs::read(traced.file(replica)).unwrap();
            let mut trace = Trace::read(&bytes).unwrap();
            assert_eq!(trace.header().writer, Writer::Replica);
            assert_eq!(trace.header().group, traced.group.config().digest());
            let quorum = usize::from(trace.header().quorums.commit);
            for entry in trace.by_ref() {
                let Entry { replica: by, event, .. } = entry.unwrap();
                assert_eq!(by.0, replica);
                match event {
                    TraceEvent::Certified { proposal, voters, .. } => {
                        assert!(voters.len() >= quorum, "{voters:?}");
                        let Proposal { first, batch, .. } = proposal;
                        assert_eq!(*committed.entry(first).or_insert(batch), batch);
                    }
                    TraceEvent::Executed { order, ran, results: answers, .. } => {
                        executed[usize::from(replica)] += u64::from(ran);
                        assert_eq!(*results.entry(order).or_insert(answers), answers);
                    }
                    _ => {}
                }
            }
            assert!(!trace.is_cut() && trace.lost() == 0);
        }
        // A client has its answer when two of the three replicas have executed.
        assert!(executed.iter().filter(|count| **count == 50).count() >= 2, "{executed:?}");
    }
}

/// CPU seconds of this process so far, as Linux counts them (in hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time are the 14th and 15th field; the first two are cut off.
    fields.skip(11).take(2).map(|field| field.parse().unwrap_or(0.0)).sum::<f64>() / 100.0
}

/// Operations per second and CPU seconds per million of them, with `sessions` in a closed loop.
fn measure(sessions: u32, tracing: bool, number: usize) -> (f64, f64) {
    const SECONDS: u64 = 3;
    let mut traced = Traced::start(&format!("cost-{number}"), Layout::Fused, tracing);
    let options = ClientOptions { sessions, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(&traced.group, &traced.keys(0), &options).unwrap();
    driver.await_links(Duration::from_secs(5)).unwrap();
    for session in 0..sessions {
        driver.submit(session, b"", RequestKind::Ordered).unwrap();
    }
    let (cpu, begin) = (cpu_seconds(), Instant::now());
    let mut completions = Completions::default();
    let mut completed = 0;
    while begin.elapsed() < Duration::from_secs(SECONDS) {
        driver.poll(Duration::from_millis(100)).unwrap();
        driver.take_completions(&mut completions);
        for completion in completions.iter() {
            completed += 1;
            driver.submit(completion.session, b"", RequestKind::Ordered).unwrap();
        }
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    traced.shutdown();
    (f64::from(completed) / seconds, cpu * 1e6 / f64::from(completed))
}

/// `cargo test --release -p hybster --test trace -- --ignored --nocapture`
#[test]
#[ignore = "measures; run it alone and with --release"]
fn cost_of_tracing() {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for sessions in [16, 1024] {
        let (mut speed, mut cpu) = (Vec::new(), Vec::new());
        for round in 0..9 {
            // Interleaved, and each one first in turn.
            let run = |tracing| measure(sessions, tracing, round);
            let (on, off) = if round % 2 == 0 {
                let on = run(true);
                (on, run(false))
            } else {
                let off = run(false);
                (run(true), off)
            };
            println!("{sessions} sessions: on {on:?}, off {off:?}");
            speed.push(on.0 / off.0);
            cpu.push(on.1 / off.1);
        }
        println!(
            "{sessions} sessions: with the trace {:.3} of the throughput, {:.3} of the CPU time",
            median(speed),
            median(cpu)
        );
    }
}
