//! `hybster replace-replica`: puts another replica in the place of one whose disk or host is lost.
//!
//! The administrator's key signs a change of the group's members: the replica's trusted counters get another life,
//! under which no certificate exists. The group orders the change as any request and goes on in a new epoch
//! (`engine/proto/EPOCHS.md`). Here are the keys made that the new replica needs, and nothing else: its state it
//! fetches from the others.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hybster::client::{Client, ClientOptions};
use hybster::duration::{DurationError, DurationRange};
use hybster::group::{AdministratorKeys, GROUP_FILE};
use hybster::{Group, GroupConfig, ReplicaId, ReplicaKeys};
use hybster_proto::membership::{NextConfiguration, ReconfigReply, reconfig};
use hybster_tss::Life;
use hybster_tss::keyfile::write_private;

use crate::{Done, Failure};

/// Time between two questions whether the new epoch has begun.
const LOOK: Duration = Duration::from_millis(200);
/// The file beside the administrator's key with the members that this command has brought about.
const MEMBERS: &str = "administrator.members";

/// Options of `hybster replace-replica`.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it where administrator.key is, which `hybster init --administrator` has made. The group must \
    run without the lost replica. If it is cut off, run it again with the same options: it goes on with the keys that \
    it has made."
)]
pub(crate) struct ReplaceArgs {
    /// The group directory, with administrator.key.
    #[arg(long)]
    group: PathBuf,
    /// The number of the replica that is lost.
    #[arg(long, value_name = "N")]
    id: u16,
    /// The directory to make for the new replica: bring it to the new host, and nowhere else.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// How long to wait for the group, such as 60s; a plain number means seconds.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = timeout)]
    timeout: Duration,
}

fn timeout(text: &str) -> Result<Duration, DurationError> {
    DurationRange::seconds(Duration::from_millis(1), Duration::from_secs(86_400)).parse(text)
}

/// Replaces the replica.
pub(crate) fn replace(args: &ReplaceArgs) -> Result<Done, Failure> {
    let group = Group::load(&args.group)?;
    let keys = AdministratorKeys::load(&group, group.directory())?;
    let id = ReplicaId(args.id);
    if args.id >= group.config().replicas {
        let count = group.config().replicas;
        return Err(Failure::options(format!("--id: the group has {count} replicas, from 0")));
    }
    let members = Members::read(group.directory(), group.config())?;
    let new = new_keys(args, &group, &keys, members.epoch)?;
    let present = members.config(group.config());
    let next = NextConfiguration::replacing(&present, id, new.life(), Default::default());
    let after = Members { epoch: next.epoch, lives: next.lives.clone() };
    let options = ClientOptions {
        sessions: 1,
        request_timeout: args.timeout,
        connect_timeout: args.timeout,
        ..ClientOptions::default()
    };
    let client = Client::connect(&group, &keys.client, options)?;
    let ask = |operation: &[u8]| -> Result<ReconfigReply, Failure> {
        let result = client.call(operation)?;
        ReconfigReply::parse(&result)
            .map_err(|error| Failure::new(format!("the group's answer cannot be read: {error}")))
    };
    let change = reconfig(&present, &next, &keys.signing);
    let deadline = Instant::now() + args.timeout;
    let mut is_told = false;
    loop {
        match ask(&change)? {
            ReconfigReply::Pending { boundary } => {
                if !std::mem::replace(&mut is_told, true) {
                    println!(
                        "The change is ordered. It holds from order number {} on.",
                        boundary.0 + 1
                    );
                }
            }
            ReconfigReply::OtherEpoch { epoch } if epoch == next.epoch => break,
            refused => return Err(told(refused, &members, group.directory())),
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                "the group has not come to the new epoch in time; look at `hybster status`, and run this again",
            ));
        }
        thread::sleep(LOOK);
    }
    // The epoch has the right number; it must be this one. What changes nothing is refused there, and only there.
    let same = NextConfiguration { epoch: next.epoch + 1, ..next };
    let probe = reconfig(&after.config(group.config()), &same, &keys.signing);
    match ask(&probe)? {
        ReconfigReply::NotPermitted => {}
        refused => return Err(told(refused, &after, group.directory())),
    }
    after.write(group.directory())?;
    let to = args.to.display();
    println!(
        "Epoch {} has begun: the old replica {} counts no more. Bring {to} to the host of the new one,\n\
         where the group's file says that it is, and nowhere else; then start it there:\n    \
         hybster replica --group {to} --id {}",
        after.epoch, args.id, args.id,
    );
    Ok(Done::Yes)
}

/// What is to be done about an answer that is none of a change that goes on.
fn told(reply: ReconfigReply, members: &Members, dir: &Path) -> Failure {
    let file = dir.join(MEMBERS);
    let file = file.display();
    Failure::new(match reply {
        ReconfigReply::OtherEpoch { epoch } => format!(
            "{file} says that the group is in epoch {}, and with other members it is in epoch {epoch}: the file is \
             older, or another administrator's. Take the newest copy of it",
            members.epoch
        ),
        ReconfigReply::AnotherPending { boundary } => format!(
            "another change is under way, up to order number {}: one at a time. Try again in a moment",
            boundary.0
        ),
        ReconfigReply::NotPermitted => "the group refuses the change".to_owned(),
        _ => "the group refuses the administrator's signature".to_owned(),
    })
}

/// The keys of the new replica: those that are in its directory already, if this command was cut off, or new ones.
fn new_keys(
    args: &ReplaceArgs,
    group: &Group,
    keys: &AdministratorKeys,
    epoch: u32,
) -> Result<ReplicaKeys, Failure> {
    let (id, dir, next) = (ReplicaId(args.id), &args.to, epoch + 1);
    let path = ReplicaKeys::path(dir, id);
    if !path.exists() {
        let life = Life::generate()?;
        let new = keys.replacement(group, id, life, next);
        fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
        let file = dir.join(GROUP_FILE);
        fs::write(&file, group.to_text()).map_err(|error| failed(&file, &error))?;
        write_private(&path, new.to_text()?.as_bytes())?;
        return Ok(new);
    }
    let new = ReplicaKeys::load(group, dir, id)?;
    if new.epoch() == next && new.life() != Life::FIRST {
        return Ok(new);
    }
    Err(Failure::options(format!(
        "--to: {} is the key of a replica from epoch {} on, and the next epoch is {next}: name a new directory",
        path.display(),
        new.epoch(),
    )))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Who the members are, as far as this command knows.
#[derive(Debug, PartialEq, Eq)]
struct Members {
    epoch: u32,
    lives: Vec<Life>,
}

impl Members {
    /// The constants of this epoch.
    fn config(&self, first: &GroupConfig) -> GroupConfig {
        if self.epoch == first.epoch {
            return first.clone();
        }
        let Self { epoch, lives } = self;
        let details = Default::default();
        NextConfiguration { epoch: *epoch, lives: lives.clone(), details }.after(first)
    }

    fn read(dir: &Path, first: &GroupConfig) -> Result<Self, Failure> {
        let file = dir.join(MEMBERS);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let lives = first.all_replicas().map(|id| first.life_of(id)).collect();
                return Ok(Self { epoch: first.epoch, lives });
            }
            Err(error) => return Err(failed(&file, &error)),
        };
        let parsed = Self::parse(&text).filter(|it| it.lives.len() == usize::from(first.replicas));
        parsed.ok_or_else(|| {
            let file = file.display();
            Failure::new(format!("{file}: is damaged; restore it from your backup"))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let epoch = lines.next()?.strip_prefix("epoch ")?.parse().ok()?;
        let life = |line: &str| {
            let digits = line.strip_prefix("life ")?;
            Some(Life(u64::from_str_radix(digits, 16).ok()?))
        };
        Some(Self { epoch, lives: lines.map(life).collect::<Option<_>>()? })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# The members of the group, as `hybster replace-replica` has left them: the epoch, and the life of each\n\
             # replica's trusted counters. Keep it beside administrator.key.\nepoch {}\n",
            self.epoch
        );
        for life in &self.lives {
            let _ = writeln!(text, "life {life}");
        }
        text
    }

    fn write(&self, dir: &Path) -> Result<(), Failure> {
        let file = dir.join(MEMBERS);
        let new = dir.join(format!(".{MEMBERS}.new"));
        let written = fs::File::create(&new).and_then(|mut to| {
            to.write_all(self.text().as_bytes())?;
            to.sync_all()?;
            fs::rename(&new, &file)?;
            // Else a loss of power could bring the old members back, and nobody else knows the new life.
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            fs::File::open(dir)?.sync_all()
        });
        written.map_err(|error| failed(&file, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_survive_the_round_trip() {
        let members = Members { epoch: 3, lives: vec![Life::FIRST, Life(0xabc), Life(u64::MAX)] };
        assert_eq!(Members::parse(&members.text()), Some(members));
        for text in ["", "epoch x\n", "epoch 1\nlife\n", "epoch 1\nlife 12345678901234567\n"] {
            assert_eq!(Members::parse(text), None, "{text:?}");
        }
    }
}
