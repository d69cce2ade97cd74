//! A child process that never outlives its owner.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::Error;
use crate::stop::Stop;

/// A child gets this long to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a child's log that an error shows.
const LOG_TAIL: usize = 2000;

/// Whether a child has ended by itself.
#[derive(Debug)]
pub enum End {
    /// It has not.
    Runs,
    /// It has, with this status and log.
    Ended(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runs => f.write_str("runs"),
            Self::Ended(said) => write!(f, "ended: {said}"),
        }
    }
}

/// A running child.
///
/// It is stopped in three ways: by an end of file on its standard input (also when this process
/// dies), by the kernel's parent-death signal (which the child asks for), and by [`Drop`], which
/// kills and reaps it.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
    reaped: bool,
}

impl Child {
    /// Starts `command` with its standard error in the file `log`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self, Error> {
        let failed = |e| Error::new(format!("cannot start {name}: {e}"));
        let stderr = File::create(log).map_err(failed)?;
        // A process group of its own: Ctrl-C reaches this process alone, which stops the children.
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::sync_channel(16);
        let drain = move || {
            // Reads to the end, so that the child never blocks on a full pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        };
        let child =
            Self { name: name.into(), process, stdin, lines, log: log.into(), reaped: false };
        std::thread::Builder::new()
            .name(format!("stdout of {name}"))
            .spawn(drain)
            .map_err(failed)?;
        Ok(child)
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its process id until it is known to have ended; then the kernel may give it to another process.
    #[must_use]
    pub fn pid_while_running(&self) -> Option<u32> {
        (!self.reaped).then(|| self.pid())
    }

    /// The name in reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the child prints a line that starts with "ready".
    ///
    /// # Errors
    /// If it ends before that, is not ready in time, or the stop flag is raised.
    pub fn wait_ready(&mut self, patience: Duration, stop: &Stop) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        loop {
            stop.check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) if line.starts_with("ready") => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let after = format!("was not ready after {} s", patience.as_secs());
                    return Err(self.failure(&after));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let how = match self.wait_until(Instant::now() + PATIENCE) {
                        Some(status) => format!("ended before it was ready ({status})"),
                        None => "closed its output before it was ready".into(),
                    };
                    return Err(self.failure(&how));
                }
            }
        }
    }

    /// Says something on the child's standard input.
    ///
    /// # Errors
    /// If it has ended.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        let said =
            self.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        match said {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure("does not listen any more")),
        }
    }

    /// The next line that it has said, if there is one.
    pub fn next_line(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Whether it has ended, and well.
    ///
    /// # Errors
    /// With its log, if it has ended with an error.
    pub fn has_ended(&mut self) -> Result<bool, Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(false),
            Ok(Some(status)) => {
                self.reaped = true;
                if status.success() {
                    Ok(true)
                } else {
                    Err(self.failure(&format!("ended with an error ({status})")))
                }
            }
            Err(e) => Err(Error::new(format!("cannot ask for the state of {}: {e}", self.name))),
        }
    }

    /// An error that shows the end of the child's log.
    #[must_use]
    pub fn failure(&self, what: &str) -> Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]);
        let tail = tail.trim();
        if tail.is_empty() {
            Error::new(format!("{} {what}; it logged nothing", self.name))
        } else {
            Error::new(format!("{} {what}; it logged:\n{tail}", self.name))
        }
    }

    /// Fails if the child has ended.
    ///
    /// # Errors
    /// With its log.
    pub fn expect_running(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.reaped = true;
                Err(self.failure(&format!("ended unexpectedly ({status})")))
            }
            Err(e) => Err(Error::new(format!("cannot ask for the state of {}: {e}", self.name))),
        }
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// If the stop flag is raised.
    pub fn see_end(&mut self, patience: Duration, stop: &Stop) -> Result<End, Error> {
        let deadline = Instant::now() + patience;
        loop {
            stop.check()?;
            let slice = deadline.min(Instant::now() + Duration::from_millis(50));
            if let Some(status) = self.wait_until(slice) {
                let said = self.failure(&format!("has ended ({status})"));
                return Ok(End::Ended(said.to_string()));
            }
            if Instant::now() >= deadline {
                return Ok(End::Runs);
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the child has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        // Until it is reaped, no other process can have its id.
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        match pid {
            Some(pid) if !self.reaped => rustix::process::kill_process(pid, signal)
                .map_err(|e| Error::new(format!("cannot send a signal to {}: {e}", self.name))),
            _ => Err(Error::new(format!("{} has ended already", self.name))),
        }
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        if !self.reaped {
            let _ = self.process.kill();
            let _ = self.process.wait();
            self.reaped = true;
        }
    }

    /// Tells the child to end.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, and kills it if that takes too long.
    ///
    /// # Errors
    /// If it did not end by itself or not successfully.
    pub fn wait_stopped(&mut self) -> Result<(), Error> {
        self.ask_to_stop();
        if self.reaped {
            return Ok(());
        }
        let Some(status) = self.wait_until(Instant::now() + PATIENCE) else {
            self.kill();
            let what = format!("did not stop within {} s and was killed", PATIENCE.as_secs());
            return Err(self.failure(&what));
        };
        if status.success() {
            Ok(())
        } else {
            Err(self.failure(&format!("ended with an error ({status})")))
        }
    }

    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                self.reaped = true;
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Result<Child, Error>) {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let child = Child::spawn("child", &mut command, &dir.path().join("log"));
        (dir, child)
    }

    #[test]
    fn a_child_that_is_dropped_is_gone() {
        let (_dir, child) = shell("echo ready; exec sleep 1000");
        let mut child = child.unwrap();
        child.wait_ready(Duration::from_secs(60), &Stop::new()).unwrap();
        let pid = child.pid();
        assert!(crate::process::is_running(pid));
        assert_eq!(child.pid_while_running(), Some(pid));
        child.kill();
        assert_eq!(child.pid_while_running(), None);
        drop(child);
        assert!(!crate::process::is_running(pid));
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let (_dir, child) = shell("echo the port is taken >&2; exit 3");
        let error = child.unwrap().wait_ready(Duration::from_secs(60), &Stop::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the port is taken") && text.contains('3'), "{text}");
    }

    #[test]
    fn the_end_of_its_input_tells_a_child_to_stop() {
        let (_dir, child) = shell("echo ready; cat > /dev/null");
        let mut child = child.unwrap();
        child.wait_ready(Duration::from_secs(60), &Stop::new()).unwrap();
        child.wait_stopped().unwrap();
        assert!(!crate::process::is_running(child.pid()));
    }
}
