//! Two state stages that fetch from each other, with the network and execution played by the test.

use bytes::Bytes;

use super::*;
use crate::notice::{Notice, StatePart};
use crate::output::{Input, Network};
use crate::service::{PAGES_PER_GROUP, Pages};

const COUNT: u64 = 300;

/// Pages that tell versions, as those of one service.
struct Versioned {
    pages: Vec<(Bytes, u64)>,
}

impl Snapshot for Versioned {
    fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    fn page(&self, index: u64) -> Bytes {
        self.pages[index as usize].0.clone()
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        Some(self.pages[index as usize].1)
    }

    fn group_version(&self, group: u64) -> Option<u64> {
        let first = (group * PAGES_PER_GROUP) as usize;
        self.pages[first..].iter().take(PAGES_PER_GROUP as usize).map(|page| page.1).max()
    }
}

/// The content of a page that was last written at an order number.
fn content(index: u64, written: u64) -> Bytes {
    Bytes::from(format!("page {index} of {written}"))
}

/// The state at an order number, where page i is written at every multiple of i + 1 intervals.
fn state_at(order: u64) -> Arc<dyn Snapshot> {
    Arc::new(versioned_at(order))
}

fn versioned_at(order: u64) -> Versioned {
    let page = |index| {
        let step = 256 * (index + 1);
        let written = order / step * step;
        (content(index, written), written)
    };
    Versioned { pages: (0..COUNT).map(page).collect() }
}

fn taken(order: u64, service: Arc<dyn Snapshot>, installed: bool) -> ToState {
    let bookkeeping = Arc::new(Pages(vec![content(0, order)]));
    ToState::Taken(TakenSnapshot { order: OrderNumber(order), bookkeeping, service, installed })
}

fn stable(id: CheckpointId) -> ToState {
    ToState::Stable { id, certificate: Some(proof_of(id)) }
}

fn proof_of(id: CheckpointId) -> Arc<[u8]> {
    format!("proof of {}", id.order.0).into_bytes().into()
}

struct Pair {
    stages: [StateStage; 2],
    /// Pages that were asked for by the second one.
    fetched: Vec<u64>,
    /// What its operator is told.
    notices: Vec<Notice>,
    /// What it got, not taken in by execution yet.
    installs: Vec<(CheckpointId, Arc<TransferredState>)>,
}

impl Pair {
    fn new() -> Self {
        let config = Arc::new(GroupConfig::default());
        let stage = |id| StateStage::new(Arc::clone(&config), ReplicaId(id));
        Self {
            stages: [stage(0), stage(1)],
            fetched: Vec::new(),
            notices: Vec::new(),
            installs: Vec::new(),
        }
    }

    /// Hands an input to a stage and carries out what follows; returns the last checkpoint digested.
    fn handle(&mut self, at: usize, input: ToState) -> Option<CheckpointId> {
        let (mut digested, mut inputs) = (None, VecDeque::from([(at, input)]));
        while let Some((at, input)) = inputs.pop_front() {
            let mut out = Output::default();
            self.stages[at].handle(input, Time(1), &mut out);
            self.stages[at].work(Time(1), usize::MAX, &mut out);
            self.notices.append(&mut out.notices);
            for input in std::mem::take(&mut out.inputs) {
                match input {
                    Input::Control(ToControl::CheckpointTaken(id)) => digested = Some(id),
                    Input::Execution(ToExecution::Install { id, state }) => {
                        self.installs.push((id, state));
                    }
                    _ => {}
                }
            }
            for effect in std::mem::take(&mut out.network) {
                let Network::Send { to: Destination::Peer(to), message, tag, .. } = effect else {
                    panic!("a state stage talks to single peers");
                };
                if matches!(tag, SendTag::Answer(_)) {
                    // It leaves at once.
                    inputs.push_back((at, ToState::AnswersLeft { peer: to, answers: 1 }));
                }
                if let Ok(fetch) = Fetch::parse(&message) {
                    let pages = fetch.nodes.iter().filter(|node| place(**node) == (1, 0));
                    self.fetched.extend(pages.map(|node| node.index));
                }
                if to.0 < 2 {
                    let from = ReplicaId(at as u16);
                    inputs.push_back((usize::from(to.0), ToState::Message { from, message }));
                } else {
                    // The third replica holds nothing.
                    for node in Fetch::parse(&message).expect("only the second one asks").nodes {
                        let order = Fetch::parse(&message).expect("as above").order;
                        let message = Fetched { order, node, content: None }.encode();
                        let input = ToState::Message { from: ReplicaId(2), message };
                        inputs.push_back((at, input));
                    }
                }
            }
        }
        digested
    }

    fn take(&mut self, at: usize, order: u64) -> CheckpointId {
        self.handle(at, taken(order, state_at(order), false)).expect("it is digested at once")
    }

    fn fetched_pages(&mut self) -> Vec<u64> {
        let mut fetched = std::mem::take(&mut self.fetched);
        fetched.sort_unstable();
        fetched.dedup();
        fetched
    }

    /// Execution takes in what was transferred.
    fn install(&mut self) -> CheckpointId {
        let (id, state) = self.installs.pop().expect("a state was transferred");
        let order = id.order.0;
        let expected = state_at(order);
        for index in 0..COUNT {
            assert_eq!(state.service.page(index), expected.page(index));
        }
        self.handle(1, taken(order, expected, true)).expect("it is digested")
    }
}

fn written_between(from: u64, to: u64) -> Vec<u64> {
    (0..COUNT).filter(|i| from / (256 * (i + 1)) != to / (256 * (i + 1))).collect()
}

#[test]
fn only_what_differs_is_fetched_and_an_installed_state_is_a_base_too() {
    let mut pair = Pair::new();
    assert_eq!(pair.take(0, 256), pair.take(1, 256));
    let far = pair.take(0, 256 * 40);
    pair.handle(1, ToState::Transfer { id: far, whole: false });
    assert_eq!(pair.fetched_pages(), written_between(256, 256 * 40));
    let state = &pair.installs[0].1;
    assert_eq!(state.service.changed(), written_between(256, 256 * 40));
    assert_eq!(pair.install(), far);

    let next = pair.take(0, 256 * 41);
    pair.handle(1, ToState::Transfer { id: next, whole: false });
    assert_eq!(pair.fetched_pages(), written_between(256 * 40, 256 * 41));
    assert_eq!(pair.install(), next);
    assert_eq!(pair.stages[1].transfers(), 2);
}

#[test]
fn a_transfer_waits_until_the_installed_state_is_digested() {
    let mut pair = Pair::new();
    pair.take(1, 256);
    let far = pair.take(0, 256 * 40);
    pair.handle(1, ToState::Transfer { id: far, whole: false });
    pair.fetched_pages();
    let next = pair.take(0, 256 * 41);
    let (id, _) = pair.installs.pop().unwrap();
    let mut out = Output::default();
    let stage = &mut pair.stages[1];
    stage.handle(taken(id.order.0, state_at(id.order.0), true), Time(1), &mut out);
    stage.work(Time(1), 5, &mut out);
    // The control stage asks for the newest checkpoint as soon as a state is installed.
    stage.handle(ToState::Transfer { id: next, whole: false }, Time(1), &mut out);
    assert!(out.network.is_empty() && stage.transfer.is_none());
    // Nor does it fall victim to a newer checkpoint.
    stage.handle(taken(next.order.0 + 256, state_at(1), false), Time(1), &mut out);
    stage.handle(stable(CheckpointId { order: OrderNumber(1 << 20), ..next }), Time(1), &mut out);
    assert!(stage.is_digesting_installed());
    stage.jobs.pop_back();
    // Any input sees to it that the work goes on.
    pair.handle(1, stable(next));
    assert_eq!(pair.fetched_pages(), written_between(256 * 40, 256 * 41));
}

/// A transferred state is saved only when it is installed; by then the next checkpoint may be stable.
#[test]
fn a_checkpoint_is_saved_with_what_proves_it_and_with_nothing_else() {
    let saved = |stage: &mut StateStage, input| {
        let mut out = Output { logging: true, ..Output::default() };
        stage.handle(input, Time(1), &mut out);
        stage.work(Time(1), usize::MAX, &mut out);
        out.checkpoint.map(|it| (it.id, it.certificate))
    };
    let mut pair = Pair::new();
    let own = pair.take(1, 256);
    assert_eq!(saved(&mut pair.stages[1], stable(own)), Some((own, Some(proof_of(own)))));
    let far = pair.take(0, 256 * 40);
    assert_eq!(saved(&mut pair.stages[1], stable(far)), None);
    pair.handle(1, ToState::Transfer { id: far, whole: false });
    let later = CheckpointId { order: OrderNumber(256 * 41), ..far };
    assert_eq!(saved(&mut pair.stages[1], stable(later)), None);
    let installed = taken(far.order.0, state_at(far.order.0), true);
    assert_eq!(saved(&mut pair.stages[1], installed), Some((far, Some(proof_of(far)))));
    // Of one that is not known any more nothing is made up.
    let next = pair.take(1, 256 * 42);
    let unproved = ToState::Stable { id: next, certificate: None };
    assert_eq!(saved(&mut pair.stages[1], unproved), Some((next, None)));
}

#[test]
fn of_a_state_that_diverged_nothing_is_used() {
    let mut pair = Pair::new();
    let mut state = versioned_at(256 * 40);
    state.pages[299].0 = Bytes::from_static(b"wrong, and nobody noticed the change");
    pair.handle(1, taken(256 * 40, Arc::new(state), false));
    let far = pair.take(0, 256 * 41);
    pair.handle(1, ToState::Transfer { id: far, whole: true });
    assert_eq!(pair.fetched_pages(), (0..COUNT).collect::<Vec<_>>());
    let state = &pair.installs[0].1;
    assert!(state.service.base().is_none());
    // By its version page 299 is as it was: were that believed, the digest would differ.
    assert_eq!(pair.install(), far);
}

/// What a look for the first page that differs says, where the second stage has these pages.
fn first_difference(pages: Versioned, bookkeeping: Option<u64>) -> Option<(StatePart, u64)> {
    let order = 256 * 40;
    let mut pair = Pair::new();
    let theirs = pair.take(0, order);
    let mut own = taken(order, Arc::new(pages), false);
    if let (ToState::Taken(own), Some(written)) = (&mut own, bookkeeping) {
        own.bookkeeping = Arc::new(Pages(vec![content(0, written)]));
    }
    let own = pair.handle(1, own).expect("it is digested");
    assert_ne!(own, theirs);
    pair.handle(1, ToState::Compare { peer: ReplicaId(0), theirs });
    assert!(pair.stages[1].comparison.is_none(), "it is over");
    assert!(pair.fetched.is_empty(), "no page is fetched for it");
    match pair.notices[..] {
        [] => None,
        [Notice::FirstPageThatDiffers { order: at, peer: ReplicaId(0), part, page }] => {
            assert_eq!(at.0, order);
            Some((part, page))
        }
        ref more => panic!("{more:?}"),
    }
}

#[test]
fn the_first_page_that_differs_is_named() {
    let wrong = |pages: &[u64]| {
        let mut state = versioned_at(256 * 40);
        pages.iter().for_each(|page| state.pages[*page as usize].0 = Bytes::from_static(b"wrong"));
        state
    };
    for (pages, first) in [(&[0][..], 0), (&[299], 299), (&[298, 77, 150], 77), (&[64, 65], 64)] {
        assert_eq!(first_difference(wrong(pages), None), Some((StatePart::Service, first)));
    }
    // One page more or fewer.
    let mut longer = wrong(&[]);
    longer.pages.push((content(COUNT, 1), 1));
    assert_eq!(first_difference(longer, None), Some((StatePart::Service, COUNT)));
    let mut shorter = wrong(&[]);
    shorter.pages.pop();
    assert_eq!(first_difference(shorter, None), Some((StatePart::Service, COUNT - 1)));
    for count in [0, 1, 64] {
        let mut few = wrong(&[]);
        few.pages.truncate(count);
        assert_eq!(first_difference(few, None), Some((StatePart::Service, count as u64)));
    }
    assert_eq!(first_difference(wrong(&[]), Some(1)), Some((StatePart::Sessions, 0)));
    assert_eq!(first_difference(wrong(&[9]), Some(1)), Some((StatePart::Service, 9)));
}

#[test]
fn a_comparison_ends_when_the_peer_holds_nothing_or_says_nothing() {
    let mut pair = Pair::new();
    pair.take(1, 256);
    let id = CheckpointId { order: OrderNumber(256), digest: Digest([9; 32]) };
    // Replica 2 holds nothing; replica 0 holds another state than it claims.
    pair.handle(1, ToState::Compare { peer: ReplicaId(2), theirs: id });
    assert!(pair.stages[1].comparison.is_none() && pair.notices.is_empty());
    pair.take(0, 256);
    pair.handle(1, ToState::Compare { peer: ReplicaId(0), theirs: id });
    let stage = &mut pair.stages[1];
    let mut out = Output::default();
    let mut asked = 0;
    while let Some(at) = stage.deadline() {
        stage.tick(at, &mut out);
        asked += out.network.drain(..).count();
        assert!(asked < 10, "it asks for ever");
    }
    assert!(stage.comparison.is_none() && out.notices.is_empty());
}

/// The peer makes its tree as it likes: what cannot be one ends the look, and nothing else.
#[test]
fn a_peer_whose_tree_cannot_be_one_is_not_followed() {
    let order = OrderNumber(256);
    let children = |count: usize| Bytes::from(vec![7; 32 * count]);
    let root = |pages, node: &Bytes| {
        let roots = [Digest::default(), content_digest(node_of_service(1), node)];
        RootRecord { order, pages: [0, pages], roots }.encode()
    };
    for (pages, node, names) in [
        (1 << 60, children(64), None),
        (64, children(65), None),
        (64, children(63), None),
        (65, children(1), None),
        (64, Bytes::from_static(b"no digests"), None),
        (64, children(64), Some(0)),
        (2, children(2), Some(0)),
    ] {
        let mut pair = Pair::new();
        pair.take(1, order.0);
        let root = root(pages, &node);
        let theirs = CheckpointId { order, digest: content_digest(ROOT, &root) };
        let (stage, mut out) = (&mut pair.stages[1], Output::default());
        let peer = ReplicaId(0);
        stage.handle(ToState::Compare { peer, theirs }, Time(1), &mut out);
        for (at, content) in [(ROOT, root), (node_of_service(1), node)] {
            let message = Fetched { order, node: at, content: Some(content) }.encode();
            stage.handle(ToState::Message { from: peer, message }, Time(1), &mut out);
        }
        let named = out.notices.iter().find_map(|notice| match notice {
            Notice::FirstPageThatDiffers { part: StatePart::Service, page, .. } => Some(*page),
            _ => None,
        });
        // A tree of 65 pages has one level more, whose node is asked for and never comes.
        assert_eq!((named, stage.comparison.is_some()), (names, pages == 65), "{pages} pages");
    }
}

fn node_of_service(level: u8) -> NodeId {
    node(1, level, 0)
}

#[test]
fn the_replica_that_diverged_says_where_while_it_is_repaired() {
    let mut pair = Pair::new();
    let mut state = versioned_at(256 * 40);
    state.pages[130].0 = Bytes::from_static(b"wrong");
    pair.handle(1, taken(256 * 40, Arc::new(state), false));
    let theirs = pair.take(0, 256 * 40);
    let mut out = Output::default();
    let stage = &mut pair.stages[1];
    stage.handle(ToState::Compare { peer: ReplicaId(0), theirs }, Time(1), &mut out);
    stage.handle(ToState::Transfer { id: theirs, whole: true }, Time(1), &mut out);
    // The root is asked for twice, and may come once.
    let fetched = |content| {
        let (order, node) = (theirs.order, ROOT);
        let message = Fetched { order, node, content }.encode();
        ToState::Message { from: ReplicaId(0), message }
    };
    let root = pair.stages[0].held[&theirs.order].content(ROOT);
    pair.handle(1, fetched(root));
    let expected = Notice::FirstPageThatDiffers {
        order: theirs.order,
        peer: ReplicaId(0),
        part: StatePart::Service,
        page: 130,
    };
    assert_eq!(pair.notices, [expected]);
    assert_eq!(pair.install(), theirs);
}

#[test]
fn a_running_transfer_becomes_whole_when_the_state_diverges() {
    let mut pair = Pair::new();
    pair.take(1, 256);
    let far = pair.take(0, 256 * 40);
    let mut out = Output::default();
    pair.stages[1].handle(ToState::Transfer { id: far, whole: false }, Time(1), &mut out);
    assert!(!pair.stages[1].transfer.as_ref().unwrap().is_whole());
    pair.handle(1, ToState::Transfer { id: far, whole: true });
    assert_eq!(pair.fetched_pages(), (0..COUNT).collect::<Vec<_>>());
    assert_eq!(pair.install(), far);
}

/// Of five replicas two are dead, and one lacks the checkpoint: its holders are found, again and
/// again, wherever the turn begins (seed 811, where a transfer began again for ever).
#[test]
fn one_holder_among_the_dead_is_enough() {
    const HOLDER: u16 = 4;
    const LACKING: u16 = 3;
    let config = Arc::new(GroupConfig { replicas: 5, faults: 2, ..GroupConfig::default() });
    config.validate().unwrap();
    for order in (1..=24).map(|i| 256 * i + i) {
        let stage = |id| StateStage::new(Arc::clone(&config), ReplicaId(id));
        let (mut holder, mut behind) = (stage(HOLDER), stage(2));
        let mut out = Output::default();
        holder.handle(taken(order, state_at(order), false), Time(1), &mut out);
        holder.work(Time(1), usize::MAX, &mut out);
        let id = holder.latest.as_ref().expect("it is digested").id;
        out = Output::default();
        behind.handle(ToState::Transfer { id, whole: false }, Time(1), &mut out);
        let mut now = Time(1);
        while behind.transfers() == 0 {
            assert!(now < Time(60 * config.resend_us), "order {order}: no transfer");
            let mut answers = Output::default();
            for effect in std::mem::take(&mut out.network) {
                let Network::Send { to: Destination::Peer(to), message, .. } = effect else {
                    panic!("a state stage talks to single peers");
                };
                let fetch = Fetch::parse(&message).unwrap();
                match to.0 {
                    HOLDER => holder.fetch(ReplicaId(2), &message, now, &mut answers).unwrap(),
                    LACKING => {
                        for node in fetch.nodes {
                            let lacks = Fetched { order: fetch.order, node, content: None };
                            let message = lacks.encode();
                            let from = ReplicaId(LACKING);
                            behind.handle(ToState::Message { from, message }, now, &mut out);
                        }
                    }
                    _ => {}
                }
            }
            let mut left = VecDeque::from(answers.network);
            while let Some(effect) = left.pop_front() {
                let Network::Send { message, .. } = effect else { continue };
                let from = ReplicaId(HOLDER);
                behind.handle(ToState::Message { from, message }, now, &mut out);
                // It has left, so there is room for more.
                let mut more = Output::default();
                holder.handle(
                    ToState::AnswersLeft { peer: ReplicaId(2), answers: 1 },
                    now,
                    &mut more,
                );
                left.extend(more.network);
            }
            if out.network.is_empty() && behind.transfers() == 0 {
                now = behind.deadline().expect("it waits for answers");
                behind.tick(now, &mut out);
            }
        }
    }
}

/// Halts and states that a stage hands to its execution, in a word each.
fn handed(out: &mut Output) -> Vec<&'static str> {
    let inputs = std::mem::take(&mut out.inputs).into_iter();
    let words = inputs.filter_map(|input| match input {
        Input::Execution(ToExecution::Halt) => Some("halt"),
        Input::Execution(ToExecution::Install { .. }) => Some("install"),
        _ => None,
    });
    words.collect()
}

/// The execution stage is busy: until it has installed a state, that one is not fetched again, and a later
/// one is not fetched yet.
#[test]
fn a_state_that_waits_for_execution_is_not_fetched_again() {
    let mut pair = Pair::new();
    let id = pair.take(0, 256);
    pair.handle(1, ToState::Transfer { id, whole: false });
    assert_eq!((pair.installs.len(), pair.fetched_pages().len()), (1, COUNT as usize));
    let later = pair.take(0, 512);
    for wanted in [id, later, id] {
        pair.handle(1, ToState::Transfer { id: wanted, whole: false });
    }
    assert_eq!((pair.installs.len(), pair.fetched_pages().len()), (1, 0));
    assert_eq!(pair.install(), id);
    // Then the later one is compared with it.
    assert_eq!(pair.installs.len(), 1);
    assert!((1..COUNT as usize).contains(&pair.fetched_pages().len()));
}

/// Execution reached it by itself before it came to the state, and ignores that.
#[test]
fn a_state_that_execution_ignores_is_waited_for_no_more() {
    let mut pair = Pair::new();
    let id = pair.take(0, 256);
    pair.handle(1, ToState::Transfer { id, whole: false });
    pair.installs.clear();
    pair.take(1, 256);
    let later = pair.take(0, 512);
    pair.handle(1, ToState::Transfer { id: later, whole: false });
    assert_eq!(pair.installs.len(), 1);
}

/// The order to halt goes before the state that ends it, however often that state is asked for.
#[test]
fn execution_halts_once_before_a_diverged_state_is_replaced() {
    let mut pair = Pair::new();
    let id = pair.take(0, 256);
    let mut out = Output::default();
    let transfer = || ToState::Transfer { id, whole: true };
    pair.stages[1].handle(transfer(), Time(1), &mut out);
    pair.stages[1].handle(transfer(), Time(2), &mut out);
    assert_eq!(handed(&mut out), ["halt"]);
    // What execution took before it halted does not end the transfer.
    pair.stages[1].handle(taken(512, state_at(512), false), Time(3), &mut out);
    assert!(pair.stages[1].transfer.is_some());
    pair.stages[1].handed = Some(Handed { order: id.order, whole: true });
    pair.stages[1].transfer = None;
    pair.stages[1].handle(transfer(), Time(4), &mut out);
    assert_eq!(handed(&mut out), [] as [&str; 0]);
}
