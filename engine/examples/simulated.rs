//! A service in simulated groups with faults: a FIFO queue that is right, and one that forgets something.
use hybster::Context;
use hybster::paged::{Paged, PagedCell, PagedMap};
use hybster::testing::{Random, simulate};
use hybster::typed::{NoRefusal, Typed, TypedService, encode};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Queue {
    waiting: PagedMap<u64, u64>,
    next: PagedCell<u64>,
    /// In no page, so a replica that gets its state from another one does not have it.
    taken: u64,
    tells_taken: bool,
}

#[derive(Serialize, Deserialize)]
enum Operation {
    Put(u64),
    Take,
}

impl TypedService for Queue {
    type Operation = Operation;
    type Reply = Option<u64>;
    type Refusal = NoRefusal;

    fn execute(&mut self, _: &Context, operation: Operation) -> Result<Option<u64>, NoRefusal> {
        match operation {
            Operation::Put(value) => {
                self.waiting.insert(*self.next, value);
                *self.next += 1;
                Ok(None)
            }
            Operation::Take => {
                let first = self.waiting.iter().next().map(|(place, value)| (*place, *value));
                let taken = first.map(|(place, value)| {
                    self.waiting.remove(&place);
                    value
                });
                self.taken += 1;
                Ok(if self.tells_taken { Some(self.taken) } else { taken })
            }
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.waiting, &mut self.next]
    }
}

fn operation(random: &mut Random) -> Vec<u8> {
    encode(&if random.chance(500_000) {
        Operation::Put(random.below(100))
    } else {
        Operation::Take
    })
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let done = simulate(Typed::<Queue>::default, operation, 0..40)?;
    println!("{done:?}");
    let forgetful = || Typed(Queue { tells_taken: true, ..Queue::default() });
    let found = simulate(forgetful, operation, 0..200).expect_err("a transfer shows it");
    println!("seed {}: {}: {}", found.seed, found.violation.property, found.violation.story);
    Ok(())
}
