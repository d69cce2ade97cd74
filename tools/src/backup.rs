//! `hybster backup` and `hybster restore`: a service's state outside of its group, and a new group that begins with it.

use std::path::PathBuf;

use clap::Args;
use hybster::backup::{self, Backup};
use hybster::{Group, GroupConfig, ReplicaId, ReplicaKeys};
use hybster_tss::Digest;

use crate::init::{self, InitArgs};
use crate::{Done, Failure};

/// Options of `hybster backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it on the replica's host, as the replica's user. The replica need not stop. Keep the digest that \
    is printed apart from the backup: `hybster restore` wants it, or a key of this group."
)]
pub(crate) struct BackupArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// The replica whose last checkpoint is saved; its key is replica-N.key in the group directory.
    #[arg(long, value_name = "N")]
    id: u16,
    /// The directory of the replica's log and checkpoints, if it is not replica-N.epoch-E.data in the group
    /// directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The directory to make.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Options of `hybster restore`.
#[derive(Debug, Args)]
#[command(
    after_help = "The new group has new keys. Besides its key file each replica needs the replica-N.epoch-0.data that is \
    made for it. Constants that no option sets are those of the old group."
)]
pub(crate) struct RestoreArgs {
    /// The directory that `hybster backup` made.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The digest that `hybster backup` printed.
    #[arg(long, value_name = "HEX", required_unless_present = "old_group")]
    digest: Option<String>,
    /// The directory of the old group, with the key of one of its replicas (--old-id): the certificate of the
    /// state is checked with it.
    #[arg(long, value_name = "DIR", requires = "old_id")]
    old_group: Option<PathBuf>,
    /// The replica of the old group whose key is there.
    #[arg(long, value_name = "N", requires = "old_group")]
    old_id: Option<u16>,
    #[command(flatten)]
    init: InitArgs,
}

/// Saves a state.
pub(crate) fn backup(args: &BackupArgs) -> Result<Done, Failure> {
    let group = Group::load(&args.group)?;
    let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(args.id))?;
    let saved = backup::save(&group, &keys, args.data.as_deref(), &args.to)?;
    println!("Saved {} into {}", told(&saved), args.to.display());
    println!("digest {}", saved.digest());
    Ok(Done::Yes)
}

/// Makes a group that begins with a saved state.
pub(crate) fn restore(args: &RestoreArgs) -> Result<Done, Failure> {
    let backup = Backup::open(&args.from)?;
    if let Some(digest) = &args.digest {
        backup.check_digest(digest)?;
    }
    if let (Some(dir), Some(id)) = (&args.old_group, args.old_id) {
        let group = Group::load(dir)?;
        let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(id))?;
        backup.check_certificate(&group, &keys)?;
    }
    let old = backup.group().config().as_ref().clone();
    let base = GroupConfig { epoch: 0, request_keys: Digest::default(), ..old };
    let group = backup.restore(&args.init.dir, &init::options(&args.init, base)?)?;
    println!("Restored {}", told(&backup));
    print!("{}", init::next_steps(&args.init, &group));
    println!(
        "Each replica also needs its replica-N.epoch-0.data, made for it in {}: bring it with its key.\n\
         Do not start the old group again.",
        args.init.dir.display(),
    );
    Ok(Done::Yes)
}

fn told(backup: &Backup) -> String {
    let group = backup.group();
    let service = group.config().service.as_ref();
    format!(
        "the state behind order {} of group {} (service {}): {} pages, {} bytes",
        backup.order().0,
        group.name(),
        service.map_or("not named", |name| name.as_str()),
        backup.pages(),
        backup.bytes(),
    )
}
