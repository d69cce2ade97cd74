//! The bytes of typed operations and replies are a contract.

use hybster_proto::ids::{OrderNumber, RequestNumber, SessionId};

use super::*;
use crate::paged::{PagedCell, PagedMap};
use crate::testing::{Nondeterminism, check_deterministic};

/// Votes: each client once.
#[derive(Default)]
struct Poll {
    votes: PagedMap<u32, String>,
    changes: PagedCell<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Operation {
    Vote { voter: u32, choice: String },
    Count(String),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HasVoted(String);

impl Poll {
    fn count(&self, choice: &str) -> u64 {
        self.votes.iter().filter(|(_, vote)| *vote == choice).count() as u64
    }
}

impl TypedService for Poll {
    type Operation = Operation;
    type Reply = u64;
    type Refusal = HasVoted;

    fn execute(&mut self, _: &Context, operation: Operation) -> Result<u64, HasVoted> {
        match operation {
            Operation::Count(choice) => Ok(self.count(&choice)),
            Operation::Vote { voter, choice } => {
                if let Some(before) = self.votes.get(&voter) {
                    return Err(HasVoted(before.clone()));
                }
                *self.changes += 1;
                self.votes.insert(voter, choice);
                Ok(*self.changes)
            }
        }
    }

    fn query(&self, operation: &Operation) -> Option<Result<u64, HasVoted>> {
        match operation {
            Operation::Count(choice) => Some(Ok(self.count(choice))),
            Operation::Vote { .. } => None,
        }
    }

    fn state(&mut self) -> Vec<&mut dyn Paged> {
        vec![&mut self.votes, &mut self.changes]
    }
}

fn vote(voter: u32, choice: &str) -> Vec<u8> {
    encode(&Operation::Vote { voter, choice: choice.to_owned() })
}

fn run(service: &mut impl Service, operation: &[u8]) -> Vec<u8> {
    let context = Context::new(SessionId::default(), RequestNumber(1), OrderNumber(1));
    let mut reply = Vec::new();
    service.execute(&context, operation, &mut reply);
    reply
}

#[test]
fn operations_replies_and_refusals_have_the_bytes_that_they_had() {
    let mut poll = Typed::<Poll>::default();
    assert_eq!(vote(300, "yes"), [0, 0xac, 2, 3, b'y', b'e', b's']);
    assert_eq!(run(&mut poll, &vote(300, "yes")), [REPLY, 1]);
    assert_eq!(run(&mut poll, &vote(300, "no")), [REFUSAL, 3, b'y', b'e', b's']);
    for bad in [&b""[..], &[2], &[0, 1], &[0, 1, 200, 1], &[1, 0, 0]] {
        assert_eq!(run(&mut poll, bad), [MALFORMED], "{bad:?}");
    }
    let mut reply = Vec::new();
    assert!(poll.query(&encode(&Operation::Count("yes".to_owned())), &mut reply));
    assert_eq!(reply, [REPLY, 1]);
    reply.clear();
    assert!(!poll.query(&vote(1, "yes"), &mut reply) && !poll.query(&[9], &mut reply));
    assert!(reply.is_empty());
}

#[test]
fn a_typed_service_is_deterministic_if_it_names_all_its_state() {
    let votes: Vec<_> = (0..400).map(|i| vote(i % 300, ["yes", "no"][i as usize % 2])).collect();
    check_deterministic(Typed::<Poll>::default, &votes).unwrap();

    /// The same, and the counter is forgotten.
    #[derive(Default)]
    struct Forgetful(Poll);
    impl TypedService for Forgetful {
        type Operation = Operation;
        type Reply = u64;
        type Refusal = HasVoted;

        fn execute(&mut self, context: &Context, it: Operation) -> Result<u64, HasVoted> {
            self.0.execute(context, it)
        }

        fn state(&mut self) -> Vec<&mut dyn Paged> {
            vec![&mut self.0.votes]
        }
    }
    let found = check_deterministic(Typed::<Forgetful>::default, &votes).unwrap_err();
    assert!(matches!(found, Nondeterminism::Result { .. }), "{found}");
}
