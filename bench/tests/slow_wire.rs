//! A group over a slow wire: all its processes in a network namespace of their own, whose loopback
//! device carries 10 Mbit/s.

#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};

use hybster_bench::report::RunReport;

/// What the loopback device of the namespace carries, in bits per second.
const RATE: &str = "10mbit";
/// Bytes per second of it.
const BYTES_PER_S: f64 = 1_250_000.0;
/// Bytes of a request.
const REQUEST: u32 = 1_000;

/// Runs a program in a network namespace with a slow loopback device, from where nothing else can be
/// reached. `None` with a word why, if this process may not make one.
fn in_slow_namespace(program: &str, arguments: &[&str]) -> Result<Command, String> {
    let limit = format!(
        "ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate {RATE} burst 8kb latency 400ms"
    );
    let mut trial = Command::new("unshare");
    trial.args(["--net", "sh", "-c", &limit]).stdin(Stdio::null());
    let tried = trial.output().map_err(|error| format!("unshare: {error}"))?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned());
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &format!("{limit} && exec \"$@\""), "sh", program]);
    command.args(arguments);
    Ok(command)
}

/// Without pacing by what a wire carries, a group did 26 of these operations per second here, after
/// several views.
#[test]
fn a_slow_wire_is_used_well_and_nobody_leaves_the_view() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let size = REQUEST.to_string();
    let arguments = [
        &["run", "--clients", "64", "--request-size", &size, "--warmup", "2", "--duration", "6"][..],
        &["--json", file.to_str().unwrap()],
    ];
    let made = in_slow_namespace(env!("CARGO_BIN_EXE_hybster-bench"), &arguments.concat());
    let mut command = match made {
        Ok(command) => command,
        Err(why) => {
            println!("skipped: no network namespace with a slow wire: {why}");
            return;
        }
    };
    // It ends by itself: the benchmark bounds each of its waits.
    let output = command.env("TMPDIR", directory.path()).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {text}", output.status);
    let report: RunReport = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report.errors, 0, "{report:?}");
    assert!(report.replicas.iter().all(|replica| replica.view == 0), "{:?}", report.replicas);
    // All hosts share this wire: a request goes over it three times. This is no matter of the machine's speed.
    let possible = BYTES_PER_S / (3.0 * f64::from(REQUEST) + 700.0);
    assert!(report.throughput_ops_s >= 0.5 * possible, "{} operations/s", report.throughput_ops_s);
}
