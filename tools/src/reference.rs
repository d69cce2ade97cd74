//! `tools/CONFIGURATION.md`, made from the code: the keys of the group file, the options of the commands
//! that run replicas, environment variables, and limits that are fixed.
//!
//! Names, defaults and meanings come from the code itself. What it does not have in a form that can be read,
//! units, bounds and what a setting costs, stands here; the tests hold the bounds to what a group file is
//! refused for.

use std::fmt::Write as _;

use clap::CommandFactory;
use hybster::group::{CreateOptions, generate};
use hybster::logging::{FILTER_VARIABLE, FORMAT_VARIABLE};
use hybster::{Group, GroupConfig};
use hybster_net::Limits;

use crate::document;

/// Which values a key of the group file may have.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// All of these, whatever the other keys are at their defaults.
    Range(u64, u64),
    /// In relation to other keys: the words, a value that may be and one that may not.
    Words(&'static str, &'static str, &'static str),
}

/// What the code does not say of a key.
struct Setting {
    key: &'static str,
    unit: &'static str,
    bound: Bound,
    cost: &'static str,
}

const fn setting(
    key: &'static str,
    unit: &'static str,
    bound: Bound,
    cost: &'static str,
) -> Setting {
    Setting { key, unit, bound, cost }
}

use Bound::{Range, Words};

/// All keys of the top level, in the order of the file.
const SETTINGS: &[Setting] = &[
    setting("format", "", Words("1", "1", "2"), "nothing"),
    setting(
        "group",
        "",
        Words("32 hexadecimal digits", "\"00112233445566778899aabbccddeeff\"", "\"short\""),
        "keys of one group are of no use in another",
    ),
    setting(
        "epoch",
        "",
        Words("as the key files were made for", "0", "-1"),
        "that of the group's first members: replicas know of later epochs by themselves (OPERATIONS.md, A lost replica)",
    ),
    setting(
        "protocol",
        "",
        Words("hybster, pbft", "\"hybster\"", "\"other\""),
        "pbft: another replica per fault, twice the messages, signed requests, and no restarts",
    ),
    setting(
        "faults",
        "replicas",
        Words("2f+1 at most the replicas; with pbft 3f+1", "1", "2"),
        "each fault more needs two replicas more: traffic and signatures grow with their number",
    ),
    setting(
        "service",
        "",
        Words("1 to 64 letters, digits, dots, hyphens, underscores", "\"bank-2\"", "\"a bank\""),
        "nothing; without the line any service may run, and replicas compare what theirs say",
    ),
    setting(
        "service_version",
        "",
        Range(0, 4_294_967_295),
        "nothing; without the line any version may run, and replicas compare what theirs say",
    ),
    setting(
        "initial_state",
        "",
        Words(
            "a line of `hybster restore`",
            "\"512 0000000000000000000000000000000000000000000000000000000000000000\"",
            "\"512\"",
        ),
        "nothing; there is no such line in a group that began with nothing",
    ),
    setting(
        "administrator",
        "",
        Words(
            "a line of `hybster init --administrator`",
            "\"1 5866666666666666666666666666666666666666666666666666666666666666\"",
            "\"1\"",
        ),
        "nothing; without the line no replica can be replaced. It needs durability \"sync\"",
    ),
    setting(
        "pillars",
        "",
        Words("1 to 256, and checkpoint_interval a multiple", "256", "257"),
        "a core each in the layout split; with fewer cores they gain nothing",
    ),
    setting(
        "window",
        "order numbers",
        Words("a multiple of checkpoint_interval, at least twice", "512", "256"),
        "memory of every replica: messages and batches of two windows",
    ),
    setting(
        "checkpoint_interval",
        "order numbers",
        Words("a multiple of pillars, at most half the window", "512", "255"),
        "shorter: more snapshots and writes of changed pages; longer: a longer log to read at a start",
    ),
    setting(
        "batch_max_requests",
        "requests",
        Range(1, 65_536),
        "larger: fewer messages per request under load, more memory per slot",
    ),
    setting(
        "batch_max_bytes",
        "bytes",
        Range(1, 16 << 20),
        "memory per slot, and the longest time that one message holds a link",
    ),
    setting(
        "session_window",
        "requests",
        Range(1, 1024),
        "as many results are kept for each session",
    ),
    setting(
        "max_sessions_per_client",
        "sessions",
        Range(1, 1 << 20),
        "entries of the session table, which is part of each checkpoint",
    ),
    setting(
        "max_clients",
        "clients",
        Range(1, 262_143),
        "numbers that can be given; entries of tables",
    ),
    setting(
        "max_operation_bytes",
        "bytes",
        Range(0, 8 << 20),
        "the longest frame of a client, and with it memory per link",
    ),
    setting(
        "max_reply_bytes",
        "bytes",
        Range(0, 8 << 20),
        "the same for replies; a longer result becomes an error",
    ),
    setting(
        "kept_result_bytes",
        "bytes",
        Words("at least 16 of the longest results", "16777216", "16777215"),
        "memory of every replica, and part of each checkpoint",
    ),
    setting(
        "mac",
        "",
        Words("aegis-128l, blake3, hmac-sha256", "\"blake3\"", "\"md5\""),
        "CPU: aegis-128l is the fastest where the processor has AES",
    ),
    setting(
        "request_authenticator",
        "",
        Words("mac, ed25519", "\"mac\"", "\"rsa\""),
        "ed25519: 7 to 15 µs of CPU per request at every replica, 17 µs at the client",
    ),
    setting(
        "request_timeout_us",
        "microseconds",
        Range(1, 3_600_000_000),
        "shorter: a dead leader is replaced sooner, a slow one too often",
    ),
    setting(
        "view_timeout_us",
        "microseconds",
        Range(1, 3_600_000_000),
        "the same for a leader that does not begin its view",
    ),
    setting(
        "resend_us",
        "microseconds",
        Range(1, 3_600_000_000),
        "shorter: losses are mended sooner, with more messages",
    ),
    setting(
        "max_clock_skew_ms",
        "milliseconds",
        Range(1, 315_360_000_000),
        "how wrong the time may be that operations see; shorter: clocks must agree better",
    ),
    setting(
        "link_cipher",
        "",
        Words("aegis-128x2, aes-128-gcm, gmac, blake3", "\"gmac\"", "\"rot13\""),
        "CPU per byte; gmac and blake3 do not encrypt",
    ),
    setting(
        "layout",
        "",
        Words("auto, fused, split", "\"split\"", "\"cubist\""),
        "split: a thread for each stage, and the cores for them",
    ),
    setting(
        "durability",
        "",
        Words(
            "sync, async, none; with an administrator sync; with pbft none",
            "\"sync\"",
            "\"perhaps\"",
        ),
        "sync: latency of a sync of the disk; none: a replica starts once",
    ),
];

/// What names in the environment do.
fn variables() -> [(&'static str, &'static str); 5] {
    [
        (
            FILTER_VARIABLE,
            "log lines to write, if no `--log` says so: `info`, `warn,hybster_net=debug`",
        ),
        (FORMAT_VARIABLE, "their form, if no `--log-format` says so: `text` or `json`"),
        ("RUST_LOG", "the same as the first, of a replica only; what cannot be read is ignored"),
        ("NOTIFY_SOCKET", "set by systemd: where a replica says that it is ready, lives, stops"),
        ("WATCHDOG_USEC", "set by systemd: how often it wants signs of life"),
    ]
}

/// A key of the group file with its value and the comment above it.
struct Written {
    key: String,
    value: String,
    comment: String,
}

/// The keys above the first table.
fn written(text: &str) -> Vec<Written> {
    let mut keys = Vec::new();
    let mut comment = Vec::new();
    for line in text.lines().take_while(|line| !line.starts_with("[[")) {
        if let Some(words) = line.strip_prefix("# ") {
            comment.push(words);
        } else if let Some((key, value)) = line.split_once(" = ") {
            let comment = std::mem::take(&mut comment).join(" ");
            keys.push(Written { key: key.to_owned(), value: value.to_owned(), comment });
        } else {
            comment.clear();
        }
    }
    keys
}

fn usual_group() -> Group {
    let service = "kv".parse().ok();
    let config = GroupConfig { service, ..GroupConfig::default() };
    let options = CreateOptions {
        config,
        service_version: Some(1),
        // The only client, so that the least of the bounds on clients holds.
        administrator: true,
        clients: 0,
        ..CreateOptions::default()
    };
    let text = generate(&options).unwrap().group.to_text();
    // As of a group that was restored, so that all keys are there.
    let initial = format!("initial_state = \"512 {}\"\n", "0".repeat(64));
    Group::from_text(&format!("{initial}{text}")).unwrap()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn group_file() -> String {
    let mut table = String::from("| Key | Unit | Default | Bound | Meaning | What it costs |\n");
    table += "|---|---|---|---|---|---|\n";
    for (written, setting) in written(&usual_group().to_text()).iter().zip(SETTINGS) {
        assert_eq!(written.key, setting.key, "SETTINGS has the keys of the file, in its order");
        let bound = match setting.bound {
            Range(from, to) => format!("{from} to {to}"),
            Words(words, ..) => words.to_owned(),
        };
        let default = match written.key.as_str() {
            "group" => "random".to_owned(),
            "service" | "service_version" => "of `--service`".to_owned(),
            "initial_state" | "administrator" => "none".to_owned(),
            _ => format!("`{}`", written.value.trim_matches('"')),
        };
        let _ = writeln!(
            table,
            "| `{}` | {} | {default} | {bound} | {} | {} |",
            written.key,
            setting.unit,
            cell(&written.comment),
            setting.cost
        );
    }
    table
}

fn options(command: &str) -> String {
    let mut cli = crate::Cli::command();
    cli.build();
    let command = cli.find_subcommand(command).unwrap();
    let mut table = String::from("| Option | Value | Default | Meaning |\n|---|---|---|---|\n");
    for argument in command.get_arguments().filter(|it| it.get_id() != "help") {
        let name = argument
            .get_long()
            .map_or_else(|| format!("`{}`", argument.get_id()), |long| format!("`--{long}`"));
        let takes = argument.get_action().takes_values();
        let values: Vec<String> = if takes {
            let names = argument.get_value_names().unwrap_or_default();
            names.iter().map(|it| format!("`{it}`")).collect()
        } else {
            Vec::new()
        };
        let default: Vec<String> = argument
            .get_default_values()
            .iter()
            .filter(|_| takes && !argument.is_hide_default_value_set())
            .map(|it| format!("`{}`", it.to_string_lossy()))
            .collect();
        let help = argument.get_long_help().or(argument.get_help());
        let help = help.map_or_else(String::new, ToString::to_string);
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} |",
            values.join(" "),
            default.join(" "),
            cell(&help)
        );
    }
    table
}

fn environment() -> String {
    let mut table = String::from("| Variable | Meaning |\n|---|---|\n");
    for (name, meaning) in variables() {
        let _ = writeln!(table, "| `{name}` | {meaning} |");
    }
    table
}

/// Limits of links that no option changes. Taken apart, so that a new one is not forgotten.
fn fixed() -> String {
    let Limits {
        peer_frame_bytes,
        client_frame_bytes,
        frame_target_bytes,
        link_window_bytes,
        peer_queue_bytes,
        client_queue_bytes,
        client_stall,
        turn_bytes,
        clients,
        links_per_client,
        handshakes,
        handshakes_per_peer,
        handshake_timeout,
        handshake_bytes,
        backoff_min,
        backoff_max,
        pool_bytes,
        // An option has it.
        busy_poll: _,
        log_lines_per_second,
    } = usual_group().link_limits();
    let rows = [
        ("peer_frame_bytes", peer_frame_bytes.to_string(), "the longest frame from a replica"),
        (
            "client_frame_bytes",
            client_frame_bytes.to_string(),
            "the longest frame from a client: the longest operation or result, and 256 KiB",
        ),
        (
            "frame_target_bytes",
            frame_target_bytes.to_string(),
            "a frame of several messages is sealed when it has this many",
        ),
        ("link_window_bytes", link_window_bytes.to_string(), "sealed bytes in flight on a link"),
        ("peer_queue_bytes", peer_queue_bytes.to_string(), "unsealed bytes that wait for one peer"),
        (
            "client_queue_bytes",
            client_queue_bytes.to_string(),
            "bytes that wait for one client; from half of it on its replies wait as names",
        ),
        (
            "client_stall",
            format!("{client_stall:?}"),
            "a client that takes nothing for so long is disconnected",
        ),
        (
            "turn_bytes",
            turn_bytes.to_string(),
            "what one peer or client is read of before the others have their turn",
        ),
        ("clients", clients.to_string(), "live links of clients"),
        ("links_per_client", links_per_client.to_string(), "live links of one client"),
        ("handshakes", handshakes.to_string(), "connections in their handshake"),
        (
            "handshakes_per_peer",
            handshakes_per_peer.to_string(),
            "places for these that are kept for each peer's address",
        ),
        (
            "handshake_timeout",
            format!("{handshake_timeout:?}"),
            "connecting and the handshake together",
        ),
        (
            "handshake_bytes",
            handshake_bytes.to_string(),
            "bytes that a handshake takes from the other side",
        ),
        ("backoff_min", format!("{backoff_min:?}"), "first pause before a link is tried again"),
        ("backoff_max", format!("{backoff_max:?}"), "longest pause before a link is tried again"),
        ("pool_bytes", pool_bytes.to_string(), "unused send buffers kept for reuse"),
        (
            "log_lines_per_second",
            log_lines_per_second.to_string(),
            "log lines about refused or lost connections",
        ),
    ];
    let mut table = String::from("| Limit | Value | Meaning |\n|---|---|---|\n");
    for (name, value, meaning) in rows {
        let _ = writeln!(table, "| `{name}` | {value} | {meaning} |");
    }
    table
}

#[test]
fn the_reference_is_what_the_code_says() {
    document::has_part("CONFIGURATION.md", "group file", &group_file());
    document::has_part("CONFIGURATION.md", "init", &options("init"));
    document::has_part("CONFIGURATION.md", "replica", &options("replica"));
    document::has_part("CONFIGURATION.md", "environment", &environment());
    document::has_part("CONFIGURATION.md", "fixed", &fixed());
}

#[test]
fn a_group_file_is_refused_beyond_the_bounds_and_taken_within() {
    let usual = usual_group().to_text();
    let is_taken = |setting: &Setting, value: &str| {
        let line = written(&usual).into_iter().find(|it| it.key == setting.key).unwrap();
        let old = format!("\n{} = {}\n", line.key, line.value);
        assert!(usual.contains(&old), "{old}");
        let new = format!("\n{} = {value}\n", line.key);
        Group::from_text(&usual.replace(&old, &new)).is_ok()
    };
    for setting in SETTINGS {
        let (taken, refused) = match setting.bound {
            Range(from, to) => {
                let below = from.checked_sub(1).map(|it| it.to_string());
                let refused = below.into_iter().chain([(to + 1).to_string()]).collect();
                (vec![from.to_string(), to.to_string()], refused)
            }
            Words(_, taken, refused) => (vec![taken.to_owned()], vec![refused.to_owned()]),
        };
        for value in taken {
            assert!(is_taken(setting, &value), "{} = {value} is refused", setting.key);
        }
        for value in refused {
            assert!(!is_taken(setting, &value), "{} = {value} is taken", setting.key);
        }
    }
}
