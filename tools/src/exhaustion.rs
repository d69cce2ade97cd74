//! What a replica says when its memory ends, and when it starts with less than it may need.

use std::path::Path;

use hybster::Group;
use hybster::memory::Memory;
use rustix::process::{Resource, getrlimit};

use crate::Failure;
use crate::memory::size;

/// Address space that a replica needs before it has served anything, in bytes: program, libraries,
/// stacks and first buffers.
const LEAST_BYTES: u64 = 64 << 20;
/// The same for each pillar, which may have a thread of its own.
const LEAST_BYTES_PER_PILLAR: u64 = 4 << 20;

/// Prepares the message of a process whose memory ends, and logs the limit that it has, if any.
///
/// # Errors
/// If the replica cannot even start with so little. It has not used its right to start then.
pub(crate) fn prepare(directory: &Path, group: &Group) -> Result<(), Failure> {
    let memory = Memory::of(group);
    let limit = getrlimit(Resource::As).current;
    if let Some(limit) = limit.filter(|limit| *limit < memory.bounded_bytes) {
        log::info!(
            "the address space is limited to {limit} bytes, and the buffers may hold {} bytes; should \
             they need more than the limit, the replica ends with an error",
            memory.bounded_bytes
        );
    }
    let advice = advice(directory, &memory, limit);
    let least = LEAST_BYTES + LEAST_BYTES_PER_PILLAR * u64::from(group.config().pillars);
    if limit.is_some_and(|limit| limit < least) {
        let text = format!("not started, which takes at least {least} bytes of memory: {advice}");
        return Err(Failure::new(text));
    }
    hybster::heap::explain_exhaustion(advice);
    Ok(())
}

fn advice(directory: &Path, memory: &Memory, limit: Option<u64>) -> String {
    let why = match limit {
        Some(limit) => format!(
            "the address space of this process is limited to {limit} bytes (prlimit --as, ulimit -v)"
        ),
        None => "the system or a control group has no more memory for this process".to_owned(),
    };
    format!(
        "{why}. The buffers of a replica of this group may hold {} in sum ({} bytes), and {} of them have \
         no bound: `hybster status --memory --group {}` lists them. Raise the limit, or make a group \
         with a smaller window, smaller batches, operations and results",
        size(memory.bounded_bytes),
        memory.bounded_bytes,
        memory.open(),
        directory.display(),
    )
}
