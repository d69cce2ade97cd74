//! Groups of real `hybster` processes for tests. Every wait has a limit, and every process is ended
//! by its id when its guard is dropped.

// Each test program uses a part of this.
#![allow(dead_code)]

#[cfg(target_os = "linux")]
pub(crate) mod sandbox;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hybster");
/// Much longer than anything here takes on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The output of a finished command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Expects success; gives what was printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }

    /// Expects failure with a message that holds all of these; gives the message.
    #[track_caller]
    pub(crate) fn fails_with(self, parts: &[&str]) -> String {
        self.ends_with(1, parts)
    }

    /// The same for options that cannot be used.
    #[track_caller]
    pub(crate) fn refuses_options(self, parts: &[&str]) -> String {
        self.ends_with(2, parts)
    }

    #[track_caller]
    fn ends_with(self, status: i32, parts: &[&str]) -> String {
        assert_eq!(self.status.code(), Some(status), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in: {}", self.stderr);
        }
        self.stderr
    }
}

/// Waits for something, with a limit.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs `hybster` to its end.
#[track_caller]
pub(crate) fn hybster(arguments: &[&str]) -> Finished {
    hybster_with(arguments, |_| {})
}

/// The same in a process that was changed before it starts.
#[track_caller]
pub(crate) fn hybster_with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Finished {
    let mut process = Process::spawn_with(arguments, Stdio::piped(), change);
    let (mut out, mut err) =
        (process.child.stdout.take().unwrap(), process.child.stderr.take().unwrap());
    let read = |pipe: &mut dyn Read| {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text).unwrap()
    };
    // The output of these commands fits into a pipe, so it can be read at the end.
    let status = process.wait();
    Finished { status, stdout: read(&mut out), stderr: read(&mut err) }
}

/// A process that is killed and reaped when the guard is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    fn spawn(arguments: &[&str], stderr: impl Into<Stdio>) -> Self {
        Self::spawn_with(arguments, stderr, |_| {})
    }

    fn spawn_with(
        arguments: &[&str],
        stderr: impl Into<Stdio>,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        change(&mut command);
        Self { child: command.spawn().unwrap() }
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A group directory and its running replicas.
pub(crate) struct Group {
    pub replicas: Vec<Option<Process>>,
    pub addresses: Vec<SocketAddr>,
    dir: TempDir,
}

impl Group {
    /// Makes a group of three with these further options of `hybster init`.
    #[track_caller]
    pub(crate) fn init(options: &[&str]) -> Self {
        Self::make("init", options)
    }

    /// The same with another command that makes a group.
    #[track_caller]
    pub(crate) fn make(command: &str, options: &[&str]) -> Self {
        Self::make_of(3, command, options)
    }

    /// The same with so many replicas.
    #[track_caller]
    pub(crate) fn make_of(count: usize, command: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = free_addresses(count);
        let list: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let path = dir.path().join("group");
        let list = list.join(",");
        let mut arguments = vec![command, path.to_str().unwrap(), "--addresses", &list];
        arguments.extend(options);
        hybster(&arguments).ok();
        Self { replicas: (0..count).map(|_| None).collect(), addresses, dir }
    }

    /// The same with all replicas started.
    #[track_caller]
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut group = Self::init(options);
        group.start_all();
        group
    }

    /// Starts all replicas.
    #[track_caller]
    pub(crate) fn start_all(&mut self) {
        for id in 0..self.replicas.len() {
            self.start_replica(id);
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("group")
    }

    pub(crate) fn path_text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    /// A copy of the group directory, to be changed.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.dir.path().join(name);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(self.path()).unwrap() {
            let entry = entry.unwrap();
            // Without the data of replicas.
            if entry.file_type().unwrap().is_file() {
                // Keeps the mode.
                fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
        }
        copy
    }

    #[track_caller]
    pub(crate) fn start_replica(&mut self, id: usize) {
        let path = self.path();
        self.start_replica_from(id, &path);
    }

    /// Starts a replica with another directory and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_replica_from(&mut self, id: usize, path: &Path) {
        self.start_replica_with(id, path, &[]);
    }

    /// The same with further options of `hybster replica`.
    #[track_caller]
    pub(crate) fn start_replica_with(&mut self, id: usize, path: &Path, options: &[&str]) {
        self.start_changed(id, path, options, |_| {});
    }

    /// The same with the group's own directory, in a process that was changed before it starts.
    #[track_caller]
    pub(crate) fn start_replica_changed(
        &mut self,
        id: usize,
        options: &[&str],
        change: impl FnOnce(&mut Command),
    ) {
        let path = self.path();
        self.start_changed(id, &path, options, change);
    }

    #[track_caller]
    fn start_changed(
        &mut self,
        id: usize,
        path: &Path,
        options: &[&str],
        change: impl FnOnce(&mut Command),
    ) {
        let number = id.to_string();
        let log = File::create(self.log_path(id)).unwrap();
        let mut arguments = vec!["replica", "--group", path.to_str().unwrap(), "--id", &number];
        arguments.push("--exit-with-parent");
        arguments.extend(options);
        let mut process = Process::spawn_with(&arguments, log, change);
        let stdout = process.child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = lines.recv_timeout(PATIENCE);
        let expected = format!("ready replica {id} on {}", self.addresses[id]);
        assert_eq!(line.as_deref(), Ok(expected.as_str()), "{}", self.log(id));
        self.replicas[id] = Some(process);
    }

    /// Starts a gateway with these further options of `hybster gateway`, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_gateway(&self, options: &[&str]) -> Process {
        let path = self.path_text();
        let mut arguments = vec!["gateway", "--group", &path];
        arguments.extend(options);
        let mut process = Process::spawn(&arguments, Stdio::inherit());
        let mut line = String::new();
        let stdout = process.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready gateway on "), "{line:?}");
        process
    }

    fn log_path(&self, id: usize) -> PathBuf {
        self.dir.path().join(format!("replica-{id}.log"))
    }

    /// The log of a replica so far.
    pub(crate) fn log(&self, id: usize) -> String {
        fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, id: usize) {
        self.replicas[id] = None;
    }

    /// `hybster kv` with these arguments.
    #[track_caller]
    pub(crate) fn kv(&self, arguments: &[&str]) -> Finished {
        let path = self.path_text();
        let mut all = vec!["kv", "--group", &path, "--timeout", "50"];
        all.extend(arguments);
        hybster(&all)
    }

    /// `hybster status --json`, whether all is well or not.
    #[track_caller]
    pub(crate) fn status(&self) -> serde_json::Value {
        let path = self.path_text();
        let finished = hybster(&["status", "--group", &path, "--json"]);
        // 4: it answers, and says that not all is well.
        assert!(matches!(finished.status.code(), Some(0 | 4)), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// The group still takes a write and answers a read.
    #[track_caller]
    pub(crate) fn goes_on(&self, value: &str) {
        self.kv(&["put", "still", value]).ok();
        assert_eq!(self.kv(&["get", "still"]).ok().trim_end(), value);
    }
}

/// Loopback addresses whose ports were free a moment ago.
pub(crate) fn free_addresses(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // All are kept open until the last is chosen, so that none is chosen twice.
    let mut listeners = Vec::new();
    while listeners.len() < count {
        // Below the range of ports that Linux uses for outgoing connections. Tests that run at the
        // same time, as threads or processes, try different ones first.
        let step = std::process::id().wrapping_mul(61);
        let step = step.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (step % 20_000) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push(listener);
        }
    }
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}
