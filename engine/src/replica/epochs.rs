//! Which epoch a replica is in, and how it goes on to the next (`engine/proto/EPOCHS.md`).
//!
//! Beside the key file of a replica is `replica-N.epochs`, with what proves the end of each epoch so far. A switch has
//! these steps, each durable before the next; a crash between any two is continued by the next start:
//!
//! 1. The end of the epoch goes into that file. From here on no start begins in the old epoch.
//! 2. The replica stops: [`ReplicaError::EpochOver`](super::ReplicaError::EpochOver). The next start makes a directory
//!    for the data of the new epoch, with the checkpoint that it begins with, if the replica has it.
//! 3. The key file is sealed again for the new epoch, as used. From here on no start makes that directory once more, as
//!    counters would begin again: it is there, or the start is refused.
//! 4. The stages begin, and certify.
//!
//! A replica stops only when the last checkpoint is on its disk, unless it has not got that far: f+1 replicas have
//! vouched for it, so a correct one has it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster_net::{AnyTransport, Event, Hub, Source};
use hybster_proto::epochs::{EpochMessage, MAX_EPOCH_BYTES};
use hybster_tss::Life;

use super::StartError;
use super::stages::{beginning_of_epoch, next_epoch};
use crate::durable;
use crate::group::{Group, GroupError, ReplicaKeys};
use crate::runtime::{EpochWatch, Failure, OtherEpochs, Said, Shared};

/// What the file of ends begins with.
const MAGIC: &[u8; 8] = b"HYBEPOCH";
const FORMAT: u32 = 1;
/// How often a replica looks whether it can leave its epoch.
const LOOK: Duration = Duration::from_millis(50);
/// How long a replica that has not executed up to the end of its epoch goes on with it: peers that are still there may
/// help. Then it fetches the last checkpoint in the next epoch.
const EXECUTE: Duration = Duration::from_secs(1);
/// How long a replica waits for its own last checkpoint to be on its disk. Something is wrong with it then, or with its
/// state.
const SAVE: Duration = Duration::from_secs(600);

/// Where a replica of a group whose members can change is.
#[derive(Clone)]
pub(super) struct Present {
    /// The group in the epoch that the replica is in.
    pub(super) group: Group,
    /// How the epochs before have ended.
    ends: Vec<EpochMessage>,
    /// The file of ends.
    file: PathBuf,
    /// Whether the replica is none of this epoch's members: it waits for a later one.
    pub(super) is_early: bool,
}

/// Finds out which epoch the replica is in; `None` if the group's members never change.
pub(super) fn present(group: &Group, keys: &ReplicaKeys) -> Result<Option<Present>, StartError> {
    if group.config().administrator.is_none() {
        return Ok(None);
    }
    let id = keys.id;
    let file = keys.epochs_file().ok_or(GroupError::KeysInNoFile { id: id.0 })?;
    let ends = read(&file)?;
    let mut group = group.clone();
    for end in &ends {
        let next = next_epoch(&group, keys, end).map_err(|what| StartError::Epochs {
            path: file.clone(),
            what: format!("it does not prove that epoch {} is over: {what}", end.epoch),
        })?;
        group = group.in_epoch(next);
    }
    let config = group.config();
    let is_early = config.epoch < keys.epoch();
    if !is_early && config.life_of(id) != keys.life {
        return Err(StartError::Replaced { id: id.0, epoch: config.epoch });
    }
    Ok(Some(Present { group, ends, file, is_early }))
}

/// The group in the epoch that a replica is in.
///
/// # Errors
/// If its file of ends is damaged, or another replica is in its place.
pub(crate) fn present_group(group: &Group, keys: &ReplicaKeys) -> Result<Group, StartError> {
    Ok(present(group, keys)?.map_or_else(|| group.clone(), |it| it.group))
}

impl Present {
    /// What watches over the end of this epoch.
    pub(super) fn watch(&self, keys: &ReplicaKeys) -> Arc<EpochWatch> {
        let (group, keys) = (self.group.clone(), keys.clone());
        let prove = move |end: &EpochMessage| next_epoch(&group, &keys, end).ok();
        let epoch = self.group.config().epoch;
        Arc::new(EpochWatch::new(epoch, self.ends.clone(), Box::new(prove)))
    }

    /// Starts the thread that stops a replica when its epoch is over.
    pub(super) fn follow(self, shared: &Arc<Shared>, life: Life) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(shared);
        let name = format!("r{}-epochs", shared.replica.0);
        thread::Builder::new().name(name).spawn(move || {
            let Some(watch) = shared.epochs.clone() else { return };
            while !shared.is_stopping() {
                let Some(end) = watch.wait(LOOK) else { continue };
                if may_leave(&shared, &end.next, end.since, life) {
                    self.leave(&shared, &end.message);
                    return;
                }
                thread::sleep(LOOK);
            }
        })
    }

    /// Starts the thread of a replica that is no member yet: it waits to be told that this epoch is over.
    pub(super) fn join(
        self,
        shared: &Arc<Shared>,
        mut hub: Hub<AnyTransport>,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(shared);
        let name = format!("r{}-joins", shared.replica.0);
        thread::Builder::new().name(name).spawn(move || {
            let Some(watch) = shared.epochs.clone() else { return };
            let mut links = OtherEpochs::new(Arc::clone(&watch), &shared.config);
            let mut events = Vec::new();
            while !shared.is_stopping() {
                if let Err(error) = hub.poll(Some(LOOK), Instant::now(), &mut events) {
                    shared.fail(Failure::Transport(error));
                    return;
                }
                for event in events.drain(..) {
                    self.hear(event, &shared, &mut links, &mut hub);
                }
                if let Some(end) = watch.wait(Duration::ZERO) {
                    self.leave(&shared, &end.message);
                    return;
                }
            }
        })
    }

    fn hear(
        &self,
        event: Event,
        shared: &Shared,
        links: &mut OtherEpochs,
        hub: &mut Hub<AnyTransport>,
    ) {
        // The hub reports what could not be sent.
        let mut send = |to, message: Bytes| {
            let _ = hub.send_to_peer(to, message);
        };
        match event {
            Event::PeerUp { peer, incarnation } => {
                let id = shared.replica.0;
                log::info!("replica {id}: a link to replica {peer} is up, in epoch {incarnation}");
                if let (_, Some(message)) = links.up(peer, incarnation) {
                    send(peer, message);
                }
            }
            Event::PeerDown { peer, .. } => drop(links.down(peer)),
            Event::Messages { from: Source::Peer(peer), messages } => {
                let from = hybster_proto::ids::ReplicaId(peer);
                // Peers in this epoch talk to a member, which this is not yet.
                if !links.is_elsewhere(from) {
                    return;
                }
                for message in messages.iter() {
                    let bytes = messages.slice(message);
                    if let Said::Answer(answer) = links.message(from, &bytes, shared.clock.now()) {
                        send(peer, answer);
                    }
                }
            }
            _ => {}
        }
    }

    /// Step 1: this epoch is over for good.
    fn leave(&self, shared: &Shared, end: &EpochMessage) {
        let ends = self.ends.iter().chain(std::iter::once(end));
        match write(&self.file, ends) {
            Ok(()) => shared.leave_for_epoch(end.epoch + 1),
            Err(error) => {
                let what = format!(
                    "{}: the end of epoch {} cannot be kept: {error}; make room, and start the replica again",
                    self.file.display(),
                    end.epoch
                );
                shared.fail(Failure::Disk(what));
            }
        }
    }
}

/// Has a replica begin the epoch that its group is in, with its data at `path`, unless it has begun it already: steps 2 and
/// 3. `before` is where the data of the epoch is that its key was for. Returns its keys for this epoch.
pub(super) fn begin_epoch(
    group: &Group,
    keys: &ReplicaKeys,
    path: &Path,
    before: Option<PathBuf>,
) -> Result<ReplicaKeys, StartError> {
    let config = group.config();
    let goes_on = keys.epoch() < config.epoch;
    let is_first = keys.has_started()? == Some(false);
    if !goes_on && !is_first {
        return Ok(keys.clone());
    }
    let before = before.filter(|_| goes_on);
    // It was made as a whole, or is not there. Nothing was certified with it, as the key says.
    if !path.exists() {
        let (mode, records) = (group.durability(), beginning_of_epoch(config));
        durable::begin_epoch(path, mode, config, keys.id, &records, before.as_deref())?;
    }
    if !goes_on {
        // Its first start uses up the key as any other.
        return Ok(keys.clone());
    }
    let keys = keys.advance(config.epoch)?;
    // The data of the epoch that is over is of no use to anybody.
    for part in before.iter().flat_map(|it| [it.join("log"), it.join("state")]) {
        if part.exists()
            && let Err(error) = fs::remove_dir_all(&part)
        {
            log::warn!("{}: cannot be removed, and is not needed: {error}", part.display());
        }
    }
    if let Some(before) = before {
        // Unless the new one is in it.
        let _ = fs::remove_dir(before);
    }
    Ok(keys)
}

/// Whether a replica can leave its epoch, whose end was known `since` then.
fn may_leave(
    shared: &Shared,
    next: &hybster_proto::GroupConfig,
    since: Instant,
    life: Life,
) -> bool {
    let Some(durable) = &shared.durable else { return true };
    let boundary = next.membership.beginning.order.0;
    if durable.saved() >= boundary || next.life_of(shared.replica) != life {
        return true;
    }
    let has_executed = shared.counters.execution.executed.get() >= boundary;
    since.elapsed() >= if has_executed { SAVE } else { EXECUTE }
}

/// Reads the file of ends; there are none if it is missing. Whether they prove anything is not looked at.
fn read(path: &Path) -> Result<Vec<EpochMessage>, StartError> {
    let wrong = |what: &str| StartError::Epochs { path: path.to_owned(), what: what.to_owned() };
    let content = match fs::read(path) {
        Ok(content) => Bytes::from(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(&error.to_string())),
    };
    let number = |at: usize| {
        let bytes = content.get(at..at + 4).and_then(|it| it.try_into().ok());
        bytes.map(u32::from_le_bytes)
    };
    if content.get(..8) != Some(MAGIC) || number(8) != Some(FORMAT) {
        return Err(wrong("it is no file of the ends of epochs, or of another version"));
    }
    let (mut ends, mut at) = (Vec::new(), 12);
    while at < content.len() {
        let length = number(at).map(|it| it as usize).filter(|it| *it <= MAX_EPOCH_BYTES);
        let until = length.map(|it| at + 4 + it).filter(|until| *until <= content.len());
        let until = until.ok_or_else(|| wrong("it is cut off"))?;
        let end = EpochMessage::parse(&content.slice(at + 4..until));
        ends.push(end.map_err(|error| wrong(&error.to_string()))?);
        at = until;
    }
    Ok(ends)
}

/// Puts a file with these ends in the place of the one that is there.
fn write<'a>(path: &Path, ends: impl Iterator<Item = &'a EpochMessage>) -> io::Result<()> {
    let mut content = MAGIC.to_vec();
    content.extend(FORMAT.to_le_bytes());
    for end in ends {
        let message = end.encode();
        content.extend((message.len() as u32).to_le_bytes());
        content.extend(&message[..]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new-{}", std::process::id()));
    let mut file = File::create(&new)?;
    file.write_all(&content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(epoch: u32) -> EpochMessage {
        let (certificate, next) = (Bytes::from_static(b"proof"), Bytes::from_static(b"next"));
        EpochMessage { epoch, certificate, next }
    }

    #[test]
    fn ends_are_kept_and_a_file_that_is_damaged_is_refused() {
        let dir = std::env::temp_dir().join(format!("hybster-ends-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        let path = dir.join("replica-1.epochs");
        assert_eq!(read(&path).unwrap(), []);
        let ends = [end(0), end(1)];
        write(&path, ends[..1].iter()).unwrap();
        write(&path, ends.iter()).unwrap();
        assert_eq!(read(&path).unwrap(), ends);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).filter(|it| !matches!(it, 12 | 37)) {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(read(&path), Err(StartError::Epochs { .. })), "{length}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
