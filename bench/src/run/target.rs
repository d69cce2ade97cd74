//! The group that a load goes to: one that was started for it, or one that runs elsewhere.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::engine::{self, Monitor};
use crate::launch::{Group, LOAD, usage_of};
use crate::options::{RunOptions, ServiceKind};
use crate::report::{ProcessReport, StagesReport, TargetReport};
use crate::spec::{GroupSpec, StagesSpec};
use crate::stages::{self, Sample, file};
use crate::stop::Stop;

/// The group that a load goes to.
#[derive(Debug)]
pub(super) struct Target {
    /// The group's files.
    directory: PathBuf,
    spec: GroupSpec,
    /// If it was started for the load.
    started: Option<Group>,
    /// Where its replicas write what they know of the requests that are followed.
    stamps: Option<tempfile::TempDir>,
    /// The client identity of the first connection.
    pub(super) first_client: u32,
    /// Names and ids of load processes beside this one.
    pub(super) loads: Vec<(String, u32)>,
}

impl Target {
    /// Starts a group, or reads the files of the one that the options name.
    ///
    /// # Errors
    /// If the group does not start, or its files are not such a group's.
    pub(super) fn open(
        options: &RunOptions,
        service: ServiceKind,
        connections: u32,
        stop: &Stop,
    ) -> Result<Self, Error> {
        let Some(directory) = &options.group_directory else {
            let mut spec = GroupSpec::new(&options.group, service, connections + 1)?;
            let stamps = options.stages.map(|_| tempfile::tempdir()).transpose();
            let stamps = stamps.map_err(|e| Error::new(format!("--stages: no directory: {e}")))?;
            spec.stages = options.stages.zip(stamps.as_ref()).map(|(every, directory)| {
                StagesSpec { every, directory: directory.path().to_owned() }
            });
            spec.has_wires = options.needs_network();
            let started = Group::launch(&spec, stop)?;
            let directory = started.path();
            let (started, loads) = (Some(started), Vec::new());
            return Ok(Self { directory, spec, started, stamps, first_client: 0, loads });
        };
        let facts = engine::read_group(directory)?;
        let spec = GroupSpec::of_group(&options.group, &facts, service, connections)?;
        let first_client = options.first_client;
        let last = u64::from(first_client) + u64::from(connections) - 1;
        if last >= facts.clients.into() {
            let (directory, clients) = (directory.display(), facts.clients);
            return Err(Error::new(format!(
                "--group {directory}: {connections} connections need the clients {first_client} to {last}, and \
                 the group has {clients}, counted from 0: give fewer --connections or another \
                 --first-client, or make a group with `hybster init --clients {}`",
                last + 2
            )));
        }
        let directory = directory.clone();
        let loads = Vec::new();
        Ok(Self { directory, spec, started: None, stamps: None, first_client, loads })
    }

    /// The group directory.
    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    pub(super) fn spec(&self) -> &GroupSpec {
        &self.spec
    }

    /// The group, if it was started for the load.
    pub(super) fn started(&mut self) -> Option<&mut Group> {
        self.started.as_mut()
    }

    /// Stops the group if it was started for the load, except for replicas that were killed.
    ///
    /// # Errors
    /// If one has ended with an error or does not stop.
    pub(super) fn stop(&mut self, dead: &[u16]) -> Result<(), Error> {
        self.started.take().map_or(Ok(()), |group| group.shutdown_except(dead))
    }

    /// Where the latency went of the requests that were followed, once the group is stopped.
    ///
    /// # Errors
    /// If a file of a replica cannot be read.
    pub(super) fn stages(&self, samples: &[Sample]) -> Result<Option<StagesReport>, Error> {
        let Some(stages) = self.spec.stages.as_ref().filter(|_| self.stamps.is_some()) else {
            return Ok(None);
        };
        let (mut replicas, mut lost) = (Vec::new(), 0);
        for replica in 0..self.spec.replicas {
            let (stamps, missing) = file::read(&stages.file(replica))?;
            replicas.push(stamps);
            lost += missing;
        }
        let quorum = self.spec.protocol.rules().quorum;
        let votes = quorum.of(self.spec.replicas, self.spec.faults).saturating_sub(1);
        Ok(Some(stages::report(stages.every, samples, &replicas, votes, lost)))
    }

    /// What asks the replicas for their counters. A group elsewhere may have no client left for that.
    pub(super) fn monitor(&self, connections: u32) -> Result<Option<Monitor>, Error> {
        let identity = self.first_client + connections;
        if self.started.is_none() && !engine::has_client(&self.directory, identity) {
            eprintln!(
                "the replicas' counters are left out: there is no key of client {identity} to ask for them"
            );
            return Ok(None);
        }
        Monitor::open(&self.directory, identity).map(Some)
    }

    /// Name and id of every process that can be watched: of a group elsewhere, the load alone.
    pub(super) fn processes(&self) -> Vec<(String, u32)> {
        let alone = || vec![(LOAD.to_owned(), std::process::id())];
        let mut processes = self.started.as_ref().map_or_else(alone, Group::processes);
        processes.extend(self.loads.iter().cloned());
        processes
    }

    /// What each of these processes has used.
    pub(super) fn usage(&mut self) -> Result<Vec<ProcessReport>, Error> {
        let mut used = match &mut self.started {
            Some(group) => group.usage()?,
            None => vec![usage_of(LOAD, std::process::id())?],
        };
        for (name, pid) in &self.loads {
            used.push(usage_of(name, *pid)?);
        }
        Ok(used)
    }

    /// Fails if a replica that was started, and is not in `dead`, has ended.
    pub(super) fn expect_running(&mut self, dead: &[u16]) -> Result<(), Error> {
        self.started.as_mut().map_or(Ok(()), |group| group.expect_running(dead))
    }

    /// What the report says of it.
    pub(super) fn report(&self) -> Result<TargetReport, Error> {
        Ok(TargetReport {
            group: engine::read_group(&self.directory)?.name,
            is_elsewhere: self.started.is_none(),
            first_client: self.first_client,
        })
    }
}
