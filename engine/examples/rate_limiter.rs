//! A rate limiter for a whole fleet: buckets of tokens that fill by the time on which the replicas agree.

use std::time::Duration;

use hybster::Context;
use hybster::paged::{Paged, PagedMap};
use hybster::testing::LocalCluster;
use hybster::typed::{OperationError, Typed, TypedService};
use serde::{Deserialize, Serialize};

/// Tokens that a bucket holds at most.
const MOST: u64 = 5;
/// Time in which one more comes.
const TOKEN_MS: u64 = 200;

/// The buckets by name. One that is not there is full.
#[derive(Default)]
struct Limiter {
    buckets: PagedMap<String, Bucket>,
}

/// By its time of being full again it says how many tokens it has, whatever the time is now.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Bucket {
    full_at_ms: u64,
}

/// Takes a token out of a bucket.
#[derive(Serialize, Deserialize)]
struct Take {
    bucket: String,
}

/// There will be one after this time.
#[derive(Debug, Serialize, Deserialize)]
struct Wait {
    ms: u64,
}

impl TypedService for Limiter {
    type Operation = Take;
    type Reply = ();
    type Refusal = Wait;

    fn execute(&mut self, context: &Context, Take { bucket }: Take) -> Result<(), Wait> {
        // The agreed time never falls, and is the same on all replicas; no clock is.
        let now = context.time_ms;
        let full_at_ms = self.buckets.get(&bucket).map_or(now, |it| it.full_at_ms.max(now));
        let full_at_ms = full_at_ms + TOKEN_MS;
        let missing_ms = full_at_ms - now;
        match missing_ms.checked_sub(MOST * TOKEN_MS) {
            None | Some(0) => {
                self.buckets.insert(bucket, Bucket { full_at_ms });
                Ok(())
            }
            Some(ms) => Err(Wait { ms }),
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.buckets]
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::start(Typed::<Limiter>::default)?;
    let limiter = cluster.client()?.typed::<Limiter>();
    let take = Take { bucket: "api".to_owned() };
    let mut taken = 0;
    while taken < 2 * MOST {
        match limiter.call(&take) {
            Ok(()) => taken += 1,
            Err(OperationError::Refused(Wait { ms })) => {
                println!("{taken} requests so far; the next one in {ms} ms");
                std::thread::sleep(Duration::from_millis(ms));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
