//! A queue, first in, first out, with a visibility timeout: whoever takes a job has some time to say that
//! it is done; otherwise the job is there again for the next one.

use std::time::Duration;

use hybster::Context;
use hybster::paged::{Paged, PagedCell, PagedMap};
use hybster::testing::LocalCluster;
use hybster::typed::{OperationError, Typed, TypedService};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Queue {
    /// The jobs by number, and how often each was taken.
    jobs: PagedMap<u64, (String, u32)>,
    /// The numbers of jobs that nobody has.
    visible: PagedMap<u64, ()>,
    /// The times at which those that somebody has are visible again, with their numbers.
    hidden: PagedMap<(u64, u64), ()>,
    last: PagedCell<u64>,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Push(String),
    Take { hide_ms: u64 },
    Done(Receipt),
}

/// What the taker of a job has to show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    job: u64,
    taken: u32,
    until_ms: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Reply {
    Pushed(u64),
    Taken(String, Receipt),
    Done,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    /// Nothing is visible.
    Empty,
    /// It took too long: the job is somebody else's, or is visible again.
    Late,
}

impl Queue {
    /// Makes visible again what was hidden until now.
    fn show(&mut self, now_ms: u64) {
        while let Some((&(until_ms, job), ())) = self.hidden.first()
            && until_ms <= now_ms
        {
            self.hidden.remove(&(until_ms, job));
            self.visible.insert(job, ());
        }
    }
}

impl TypedService for Queue {
    type Operation = Operation;
    type Reply = Reply;
    type Refusal = Refusal;

    fn execute(&mut self, context: &Context, operation: Operation) -> Result<Reply, Refusal> {
        self.show(context.time_ms);
        match operation {
            Operation::Push(job) => {
                *self.last += 1;
                self.jobs.insert(*self.last, (job, 0));
                self.visible.insert(*self.last, ());
                Ok(Reply::Pushed(*self.last))
            }
            Operation::Take { hide_ms } => {
                let (job, ()) = self.visible.pop_first().ok_or(Refusal::Empty)?;
                let until_ms = context.time_ms.saturating_add(hide_ms);
                self.hidden.insert((until_ms, job), ());
                let take = |(name, taken): &mut (String, u32)| {
                    *taken = taken.saturating_add(1);
                    (name.clone(), *taken)
                };
                let (name, taken) = self.jobs.modify(&job, take).ok_or(Refusal::Empty)?;
                Ok(Reply::Taken(name, Receipt { job, taken, until_ms }))
            }
            Operation::Done(Receipt { job, taken, until_ms }) => {
                let is_own = self.jobs.get(&job).is_some_and(|(_, last)| *last == taken);
                if !is_own || self.hidden.remove(&(until_ms, job)).is_none() {
                    return Err(Refusal::Late);
                }
                self.jobs.remove(&job);
                Ok(Reply::Done)
            }
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.jobs, &mut self.visible, &mut self.hidden, &mut self.last]
    }
}

/// Runs the example.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = LocalCluster::start(Typed::<Queue>::default)?;
    let queue = cluster.client()?.typed::<Queue>();
    for job in ["sweep", "polish"] {
        queue.call(&Operation::Push(job.to_owned()))?;
    }
    let take = |hide_ms| loop {
        match queue.call(&Operation::Take { hide_ms }) {
            Ok(Reply::Taken(job, receipt)) => break Ok((job, receipt)),
            Ok(other) => break Err(format!("{other:?} is no reply to Take").into()),
            Err(OperationError::Refused(Refusal::Empty)) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => break Err(Box::<dyn std::error::Error>::from(error)),
        }
    };
    // The first taker has no time at all, so that the job is there again for the second one.
    let (sweep, too_late) = take(0)?;
    let (again, receipt) = take(60_000)?;
    assert_eq!((sweep.as_str(), again.as_str(), receipt.taken), ("sweep", "sweep", 2));
    let late = queue.call(&Operation::Done(too_late));
    assert!(matches!(late, Err(OperationError::Refused(Refusal::Late))));
    println!("{again} is done: {:?}", queue.call(&Operation::Done(receipt))?);
    let (job, receipt) = take(60_000)?;
    println!("{job} is done: {:?}", queue.call(&Operation::Done(receipt))?);
    Ok(())
}
