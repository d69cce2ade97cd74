//! Two processes of one client key that start at the same microsecond, and two copies of one process: what
//! is acknowledged was executed, for each of them.
//!
//! Their clock, and for copies their random source, is replaced by a library that is loaded before libc.
#![cfg(target_os = "linux")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Finished, Group, hybster_with};

const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *at) {
    if (id != CLOCK_REALTIME) return syscall(SYS_clock_gettime, id, at);
    at->tv_sec = 1800000000;
    at->tv_nsec = 123456000;
    return 0;
}

#ifdef SAME_RANDOM
ssize_t getrandom(void *bytes, size_t count, unsigned int flags) {
    memset(bytes, 0x5a, count);
    return count;
}
#endif
"#;

/// Builds the library; `None` where there is no C compiler.
fn library(dir: &Path, options: &[&str]) -> Option<PathBuf> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(options);
    match compiler.status() {
        Ok(status) => assert!(status.success(), "the library is built"),
        Err(error) => {
            println!("skipped: no C compiler ({error})");
            return None;
        }
    }
    Some(library)
}

/// Runs two commands at the same time of day, one after the other.
fn both(group: &Group, library: &Path, first: &[&str], second: &[&str]) -> [Finished; 2] {
    let path = group.path_text();
    [first, second].map(|command| {
        let mut arguments = vec!["kv", "--group", &path];
        arguments.extend(command);
        hybster_with(&arguments, |process| {
            process.env("LD_PRELOAD", library);
        })
    })
}

/// A lost operation with exit status 0 is the only thing that must not be: `second` ran if it says so.
fn check(group: &Group, key: &str, first: &Finished, second: &Finished, after: Option<&str>) {
    assert!(first.status.success(), "{first:?}");
    let found = group.kv(&["get", key]);
    let value = found.status.success().then(|| found.stdout.trim_end().to_owned());
    if second.status.success() {
        assert_eq!(value.as_deref(), after, "it was acknowledged: {second:?}");
    } else {
        assert_eq!(value.as_deref(), Some("one"), "it was refused: {second:?}");
    }
}

fn run(options: &[&str]) -> Option<Vec<Finished>> {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), options)?;
    let group = Group::start(&[]);
    let [first, second] = both(&group, &library, &["put", "a", "one"], &["put", "a", "two"]);
    check(&group, "a", &first, &second, Some("two"));
    let [put, deleted] = both(&group, &library, &["put", "b", "one"], &["del", "b"]);
    // For copies, the first of these two has been preceded by others as well.
    if put.status.success() {
        check(&group, "b", &put, &deleted, None);
    }
    Some(vec![second, put, deleted])
}

#[test]
fn processes_that_start_at_the_same_time_are_told_apart() {
    for finished in run(&[]).into_iter().flatten() {
        assert!(finished.status.success(), "{finished:?}");
    }
}

/// Nobody can tell copies of a process from one process; but their operations differ, and so all but the
/// first are refused.
#[test]
fn copies_of_a_process_are_refused_or_served_and_never_taken_for_each_other() {
    for finished in run(&["-DSAME_RANDOM"]).into_iter().flatten() {
        println!("{finished:?}");
    }
}
