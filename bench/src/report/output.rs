//! Where reports go: a file, whole or not at all; or what is there already, a pipe or a device.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Error;

/// A named pipe that nobody reads is waited for this long.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks whether it has a reader.
const LOOK: Duration = Duration::from_millis(20);

/// Whether a path means standard output.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Checks before the measurement, and not after it, that a report can be written.
///
/// # Errors
/// If it cannot; the text names the option and the file.
pub fn check_writable(option: &str, path: Option<&Path>) -> Result<(), Error> {
    let Some(path) = path.filter(|path| !is_stdout(path)) else { return Ok(()) };
    let refuse = |why: &dyn std::fmt::Display| {
        let text =
            format!("give {option} a file in an existing directory, or - for standard output");
        Err(Error::new(format!("cannot write {}: {why}; {text}", path.display())))
    };
    match std::fs::metadata(path) {
        Ok(data) if data.is_dir() => refuse(&"it is a directory"),
        // A pipe is opened when there is something to write.
        Ok(data) if !data.is_file() => Ok(()),
        Ok(_) => match OpenOptions::new().append(true).open(path) {
            Ok(_) => Ok(()),
            Err(error) => refuse(&error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder_of(path) {
            folder if folder.is_dir() => Ok(()),
            folder => refuse(&format!("{} is not a directory", folder.display())),
        },
        Err(error) => refuse(&error),
    }
}

/// Makes the directory of `--report` before the measurement, so that it does not fail after it.
///
/// # Errors
/// If it cannot be made.
pub fn check_directory(path: Option<&Path>) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    std::fs::create_dir_all(path).map_err(|e| {
        let text = "give --report a directory that can be made or written";
        Error::new(format!("cannot make {}: {e}; {text}", path.display()))
    })
}

/// Writes a report as JSON.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|e| Error::new(format!("cannot put the report into JSON: {e}")))?;
    text.push('\n');
    write_text(path, &text)
}

/// Writes a text: to standard output for `-`; into what is no regular file (a pipe, a terminal, what
/// /dev/fd names) as it is; else into a file, whole or not at all, where a symbolic link is followed.
///
/// # Errors
/// If it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let written = if is_stdout(path) {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    } else {
        write(path, text.as_bytes())
    };
    written.map_err(|e| Error::new(format!("cannot write {}: {e}", path.display())))
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(data) if !data.is_file() => write_into(path, data.file_type(), text),
        // The shell has opened this file already, perhaps to append: another one in its place would
        // not be the one that it means.
        Ok(_) if is_descriptor(path) => OpenOptions::new().append(true).open(path)?.write_all(text),
        Ok(_) => replace(&path.canonicalize()?, text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link to a file that is not there yet: that file is made.
            if path.is_symlink() {
                File::create(path)?.write_all(text)
            } else {
                replace(path, text)
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether a path names an open file of this process, such as /dev/fd/3 or /dev/stdout.
fn is_descriptor(path: &Path) -> bool {
    let names =
        |path: &Path| ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder));
    names(path) || std::fs::read_link(path).is_ok_and(|target| names(&target))
}

/// Writes into a pipe or a device. The wait for a pipe's reader has an end.
fn write_into(path: &Path, kind: FileType, text: &[u8]) -> io::Result<()> {
    if !kind.is_fifo() {
        return OpenOptions::new().write(true).open(path)?.write_all(text);
    }
    let no_reader = Some(rustix::io::Errno::NXIO.raw_os_error());
    let deadline = Instant::now() + READER_PATIENCE;
    let mut pipe = loop {
        // Without "non-blocking" this would wait for a reader for ever.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(pipe) => break pipe,
            Err(error) if error.raw_os_error() == no_reader && Instant::now() < deadline => {
                std::thread::sleep(LOOK);
            }
            Err(error) if error.raw_os_error() == no_reader => {
                let seconds = READER_PATIENCE.as_secs();
                let text = format!("nobody has read this pipe for {seconds} s");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error),
        }
    };
    let flags = rustix::fs::fcntl_getfl(&pipe)?;
    rustix::fs::fcntl_setfl(&pipe, flags - rustix::fs::OFlags::NONBLOCK)?;
    pipe.write_all(text)
}

/// Puts a file in the place of one that may be there, so that no reader sees half of it.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mode = std::fs::metadata(path).map_or(0o644, |data| data.permissions().mode() & 0o777);
    let made = tempfile::Builder::new()
        .permissions(PermissionsExt::from_mode(mode))
        .tempfile_in(folder_of(path));
    match made {
        Ok(mut file) => {
            file.write_all(text)?;
            file.persist(path).map(|_| ()).map_err(|e| e.error)
        }
        // The file may be written, but none may be made beside it.
        Err(_) if path.exists() => File::create(path)?.write_all(text),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_link_is_followed_and_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| directory.path().join(name));
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        write_text(&link, "new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&file).unwrap();
        write_text(&link, "made").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "made");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            2,
            "a temporary file stays"
        );
    }

    #[test]
    fn a_pipe_gets_the_text_and_stays_a_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(check_writable("--json", Some(&pipe)).is_ok());
        let text = "line\n".repeat(50_000);
        let reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().unwrap();
        let reading = std::thread::spawn(move || reader.wait_with_output().unwrap().stdout);
        write_text(&pipe, &text).unwrap();
        assert_eq!(reading.join().unwrap(), text.as_bytes());
        assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn devices_are_written_to() {
        write_text(Path::new("/dev/null"), "text").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let error = write_text(Path::new("/dev/full"), "text").unwrap_err().to_string();
        assert!(error.contains("/dev/full") && error.contains("space"), "{error}");
    }

    #[test]
    fn an_open_file_is_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "before\n").unwrap();
        let open = OpenOptions::new().append(true).open(&file).unwrap();
        let name = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        write_text(Path::new(&name), "after\n").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before\nafter\n");
    }

    #[test]
    fn what_cannot_be_written_is_told_before() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("/nonexistent/x.json"), Path::new("/dev/null/x")] {
            let error = check_writable("--json", Some(path)).unwrap_err().to_string();
            assert!(error.contains("give --json a file"), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        for path in ["-", "/dev/null", "/dev/stdout", "report.json"] {
            assert!(check_writable("--json", Some(Path::new(path))).is_ok(), "{path}");
        }
    }
}
