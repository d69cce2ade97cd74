//! Groups of replica processes that a benchmark starts and stops.

mod child;
mod directory;
mod namespaces;
mod replica;

pub use child::{Child, End};
pub use namespaces::{Namespaces, enter};
pub use replica::run_replica;

use directory::Directory;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hybster::duration::Human;
use rustix::process::Signal;

use crate::Error;
use crate::engine;
use crate::process::{cpu_time, memory};
use crate::report::ProcessReport;
use crate::spec::GroupSpec;
use crate::stop::Stop;
use crate::workload::Random;

/// How often ports are chosen, in case another process takes one in the meantime.
const LAUNCH_ATTEMPTS: u32 = 5;
/// Longest time that a replica needs to be ready.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The same of one that another program runs, and may slow down many times.
const WRAPPED_START_PATIENCE: Duration = Duration::from_secs(300);

/// The name of this process in reports.
pub const LOAD: &str = "load";

/// A running group in a temporary directory; dropping it kills its processes.
#[derive(Debug)]
pub struct Group {
    // Declared first, so that the processes end before their directory is removed.
    replicas: Vec<Child>,
    directory: Directory,
    spec: GroupSpec,
    /// If replicas have wires of their own.
    network: Option<Namespaces>,
}

impl Group {
    /// Makes a group directory, starts all replicas as children of this process and waits until
    /// they are ready.
    ///
    /// # Errors
    /// With the log of the replica at fault.
    pub fn launch(spec: &GroupSpec, stop: &Stop) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::launch_once(spec, stop) {
                // Another process took a port between its choice and its use.
                Err(e) if attempt < LAUNCH_ATTEMPTS && e.to_string().contains("cannot listen") => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn launch_once(spec: &GroupSpec, stop: &Stop) -> Result<Self, Error> {
        let directory = Directory::new()?;
        let network = spec.has_wires.then(Namespaces::new).transpose()?;
        let addresses = match network {
            Some(_) => Namespaces::addresses(spec.replicas),
            None => free_addresses(spec.replicas)?,
        };
        let mut group = Self { replicas: Vec::new(), directory, spec: spec.clone(), network };
        engine::create_group(&group.path(), spec, &addresses)?;
        for replica in 0..spec.replicas {
            let child = group.spawn(replica, None)?;
            group.replicas.push(child);
        }
        let patience = match spec.replica_wrapper {
            Some(_) => WRAPPED_START_PATIENCE,
            None => START_PATIENCE,
        };
        for child in &mut group.replicas {
            child.wait_ready(patience, stop)?;
        }
        Ok(group)
    }

    fn spawn(&mut self, replica: u16, data: Option<&Path>) -> Result<Child, Error> {
        let program = std::env::current_exe()
            .map_err(|e| Error::new(format!("cannot find this program itself: {e}")))?;
        let spec = &self.spec;
        let begin = spec.replica_wrapper.as_ref().map_or(program.as_os_str(), |w| w.as_os_str());
        let mut command = match &self.network {
            Some(_) => Namespaces::wrap(begin),
            None => Command::new(begin),
        };
        if spec.replica_wrapper.is_some() {
            command.arg(&program);
        }
        command.arg("replica").arg("--group").arg(self.path());
        command.args(["--id", &replica.to_string(), "--layout", spec.layout.name()]);
        command.args(["--transport", spec.transport.name()]);
        command.args(["--busy-poll", &Human(spec.busy_poll).to_string()]);
        command.args(["--service", spec.service.name()]);
        command.args(["--reply-size", &spec.reply_size.to_string()]);
        if let Some(cores) = spec.cores.replicas.get(usize::from(replica)) {
            let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
            command.args(["--cores", &cores.join(",")]);
        }
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        if spec.unreplicated {
            command.arg("--unreplicated");
        }
        if let Some(directory) = &spec.trace {
            command.arg("--trace").arg(directory.join(format!("replica-{replica}.trace")));
        }
        if let Some(stages) = &spec.stages {
            command.args(["--stages", &stages.every.to_string()]);
            command.arg("--stage-file").arg(stages.file(replica));
        }
        let name = if spec.unreplicated { "server".into() } else { format!("replica {replica}") };
        let log = self.directory.path().join(format!("replica-{replica}.log"));
        let mut child = Child::spawn(&name, &mut command, &log)?;
        if let Some(network) = &mut self.network {
            network.attach(replica, child.pid())?;
            child.say("go")?;
        }
        Ok(child)
    }

    /// The wires of replicas.
    ///
    /// # Errors
    /// If they have none of their own.
    pub fn network(&self) -> Result<&Namespaces, Error> {
        let none = || Error::new("the replicas have no wires of their own");
        self.network.as_ref().ok_or_else(none)
    }

    /// The group directory.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("group")
    }

    /// The specification that it was launched with.
    #[must_use]
    pub fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// The processes, in the order of the replicas' numbers.
    pub fn children(&mut self) -> &mut [Child] {
        &mut self.replicas
    }

    /// Kills a replica with SIGKILL, as a crash would.
    pub fn kill(&mut self, replica: u16) {
        self.replicas[usize::from(replica)].kill();
    }

    /// Starts a replica again that was killed, and waits until it is ready.
    ///
    /// # Errors
    /// With its log.
    pub fn restart(&mut self, replica: u16, stop: &Stop) -> Result<(), Error> {
        self.restart_with(replica, None, stop)
    }

    /// The same, with its data in another place.
    ///
    /// # Errors
    /// With its log.
    pub fn restart_with(
        &mut self,
        replica: u16,
        data: Option<&Path>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let mut child = self.spawn(replica, data)?;
        child.wait_ready(START_PATIENCE, stop)?;
        self.replicas[usize::from(replica)] = child;
        Ok(())
    }

    /// Starts a replica again that was killed and perhaps refuses to start: waits until it is ready or has
    /// ended.
    ///
    /// # Errors
    /// If it is neither in time, or the stop flag is raised.
    pub fn start_and_see(
        &mut self,
        replica: u16,
        data: Option<&Path>,
        patience: Duration,
        stop: &Stop,
    ) -> Result<End, Error> {
        let child = self.spawn(replica, data)?;
        self.replicas[usize::from(replica)] = child;
        let child = &mut self.replicas[usize::from(replica)];
        match child.wait_ready(patience, stop) {
            Ok(()) => Ok(End::Runs),
            Err(error) => match child.see_end(Duration::ZERO, stop)? {
                End::Runs => Err(error),
                ended => Ok(ended),
            },
        }
    }

    /// Waits for a replica to end by itself.
    ///
    /// # Errors
    /// If the stop flag is raised.
    pub fn see_end(&mut self, replica: u16, patience: Duration, stop: &Stop) -> Result<End, Error> {
        self.replicas[usize::from(replica)].see_end(patience, stop)
    }

    /// Where a replica's log and checkpoints are.
    #[must_use]
    pub fn data(&self, replica: u16) -> PathBuf {
        engine::data_directory(&self.path(), replica)
    }

    /// Pauses a replica with SIGSTOP.
    ///
    /// # Errors
    /// If the replica has ended.
    pub fn pause(&mut self, replica: u16) -> Result<(), Error> {
        self.replicas[usize::from(replica)].signal(Signal::STOP)
    }

    /// Resumes a paused replica with SIGCONT.
    ///
    /// # Errors
    /// If the replica has ended.
    pub fn resume(&mut self, replica: u16) -> Result<(), Error> {
        self.replicas[usize::from(replica)].signal(Signal::CONT)
    }

    /// Fails if a replica other than those in `dead` has ended.
    ///
    /// # Errors
    /// With its log.
    pub fn expect_running(&mut self, dead: &[u16]) -> Result<(), Error> {
        let alive = self.replicas.iter_mut().enumerate();
        alive
            .filter(|(replica, _)| !dead.iter().any(|d| usize::from(*d) == *replica))
            .try_for_each(|(_, child)| child.expect_running())
    }

    /// CPU time so far and memory of every replica that runs, and of this process.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn usage(&mut self) -> Result<Vec<ProcessReport>, Error> {
        let mut list = Vec::with_capacity(self.replicas.len() + 1);
        for child in &self.replicas {
            if let Ok(usage) = usage_of(child.name(), child.pid()) {
                list.push(usage);
            }
        }
        list.push(usage_of(LOAD, std::process::id())?);
        Ok(list)
    }

    /// Name and process id of every replica that runs, and of this process.
    #[must_use]
    pub fn processes(&self) -> Vec<(String, u32)> {
        let replicas = self.replicas.iter();
        replicas
            .filter_map(|child| Some((child.name().to_owned(), child.pid_while_running()?)))
            .chain([(LOAD.to_owned(), std::process::id())])
            .collect()
    }

    /// CPU time so far and memory of one replica, if it runs.
    #[must_use]
    pub fn usage_of(&self, replica: u16) -> Option<ProcessReport> {
        let child = self.replicas.get(usize::from(replica))?;
        usage_of(child.name(), child.pid()).ok()
    }

    /// Stops all replicas in order.
    ///
    /// # Errors
    /// If one ended with an error or had to be killed; the others are stopped nevertheless.
    pub fn shutdown(self) -> Result<(), Error> {
        self.shutdown_except(&[])
    }

    /// Stops all replicas in order, except for some that were killed.
    ///
    /// # Errors
    /// As [`Group::shutdown`].
    pub fn shutdown_except(mut self, dead: &[u16]) -> Result<(), Error> {
        let mut alive: Vec<&mut Child> = self
            .replicas
            .iter_mut()
            .enumerate()
            .filter(|(replica, _)| !dead.iter().any(|d| usize::from(*d) == *replica))
            .map(|(_, child)| child)
            .collect();
        alive.iter_mut().for_each(|child| child.ask_to_stop());
        let results: Vec<_> = alive.iter_mut().map(|child| child.wait_stopped()).collect();
        results.into_iter().collect()
    }
}

/// What a process has used so far.
///
/// # Errors
/// If it is gone, or `/proc` cannot be read.
pub fn usage_of(name: &str, pid: u32) -> Result<ProcessReport, Error> {
    let (cpu, memory) = (cpu_time(pid)?, memory(pid)?);
    Ok(ProcessReport {
        name: name.into(),
        cpu_s: cpu.as_secs_f64(),
        rss_bytes: memory.rss_bytes,
        peak_rss_bytes: memory.peak_rss_bytes,
    })
}

/// Loopback addresses whose ports were free a moment ago.
fn free_addresses(count: u16) -> Result<Vec<SocketAddr>, Error> {
    let failed = |e| Error::new(format!("cannot find free ports on 127.0.0.1: {e}"));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = Random::new(clock.as_nanos() as u64 ^ u64::from(std::process::id()) << 32);
    // All are kept open until the last is chosen, so that none is chosen twice.
    let mut listeners = Vec::new();
    let mut attempts = 0;
    while listeners.len() < usize::from(count) {
        // Below the range of ports that Linux uses for outgoing connections.
        let port = 10_000 + random.below(20_000) as u16;
        attempts += 1;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => listeners.push(listener),
            Err(e) if attempts > 1000 => return Err(failed(e)),
            Err(_) => {}
        }
    }
    listeners.iter().map(|l| l.local_addr().map_err(failed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ() {
        let mut addresses = free_addresses(7).unwrap();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 7);
    }
}
