//! The session table: exactly once, eviction, pages.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;

const TAG: RequestTag = RequestTag::EMPTY;

fn config(window: u32, max: u32) -> GroupConfig {
    GroupConfig { session_window: window, max_sessions_per_client: max, ..GroupConfig::default() }
}

fn session(client: u32, index: u64) -> SessionId {
    SessionId { client: ClientId(client), session: index }
}

fn run(table: &mut SessionTable, id: SessionId, number: u64) -> Option<Vec<u8>> {
    let number = RequestNumber(number);
    let place = table.find(id);
    let at = match table.lookup_or_open(place, id, number, TAG) {
        Lookup::New(at) => at,
        _ => return None,
    };
    let result = number.0.to_le_bytes().to_vec();
    table.record(at, number, TAG, ReplyStatus::Done, &result);
    Some(result)
}

#[test]
fn a_number_runs_once_and_its_result_is_kept() {
    let mut table = SessionTable::new(&config(4, 10));
    let id = session(1, 5);
    for number in [1, 3, 2, 5] {
        assert!(run(&mut table, id, number).is_some());
        assert!(run(&mut table, id, number).is_none());
    }
    let result = 3u64.to_le_bytes();
    assert_eq!(
        table.lookup(id, RequestNumber(3), TAG),
        Some(Lookup::Executed(ReplyStatus::Done, &result))
    );
    assert_eq!(table.lookup(id, RequestNumber(1), TAG), Some(Lookup::Refused(ReplyStatus::Stale)));
    assert!(run(&mut table, id, 4).is_some(), "4 lies in the window and has not run");
}

#[test]
fn a_result_is_not_given_to_another_request_with_its_number() {
    let mut table = SessionTable::new(&config(2, 10));
    let id = session(1, 5);
    let [one, other] = [1, 2].map(RequestTag::new);
    let Lookup::New(at) = table.lookup_or_open(Place::UNKNOWN, id, RequestNumber(4), one) else {
        panic!("the session is new");
    };
    table.record(at, RequestNumber(4), one, ReplyStatus::Done, b"of one");
    let taken = Some(Lookup::Refused(ReplyStatus::NumberTaken));
    assert_eq!(table.lookup(id, RequestNumber(4), other), taken);
    let done = Some(Lookup::Executed(ReplyStatus::Done, b"of one"));
    assert_eq!(table.lookup(id, RequestNumber(4), one), done);
    // A copy of the table knows as much.
    let pages = table.snapshot(OrderNumber(9), 0, None);
    let (table, _, _) = SessionTable::restore(&config(2, 10), &pages, OrderNumber(9)).unwrap();
    assert_eq!(table.lookup(id, RequestNumber(4), other), taken);
    assert_eq!(table.lookup(id, RequestNumber(4), one), done);
}

#[test]
fn a_place_from_before_an_eviction_is_another_session_s() {
    let mut table = SessionTable::new(&config(4, 2));
    let [old, kept, new] = [1, 2, 3].map(|index| session(1, index));
    assert!(run(&mut table, old, 1).is_some() && run(&mut table, kept, 1).is_some());
    let places = [old, kept, new].map(|id| table.find(id));
    assert!(run(&mut table, new, 7).is_some());
    let mut judge =
        |place, id, number| match table.lookup_or_open(place, id, RequestNumber(number), TAG) {
            Lookup::New(at) => Ok(at),
            Lookup::Executed(status, _) | Lookup::Refused(status) => Err(status),
            Lookup::Administration => unreachable!("nobody administers this group"),
        };
    assert_eq!(judge(places[0], old, 2), Err(ReplyStatus::Evicted));
    assert_eq!(judge(places[1], kept, 1), Err(ReplyStatus::Done));
    assert_eq!(judge(places[2], new, 7), Err(ReplyStatus::Done));
    assert_eq!(judge(places[2], new, 8), judge(places[0], new, 8));
    assert_eq!(judge(places[0], kept, 2), judge(places[1], kept, 2));
    assert_ne!(judge(places[1], kept, 2), judge(places[2], new, 8));
}

#[test]
fn the_largest_number_is_a_number_like_others() {
    let mut table = SessionTable::new(&config(4, 10));
    let id = session(1, 5);
    assert!(run(&mut table, id, u64::MAX).is_some());
    assert!(run(&mut table, id, u64::MAX).is_none());
    assert!(run(&mut table, id, u64::MAX - 4).is_none(), "before the window");
    assert!(run(&mut table, id, u64::MAX - 3).is_some());
    assert!(run(&mut table, id, 0).is_none());
}

#[test]
fn an_evicted_session_stays_out() {
    let mut table = SessionTable::new(&config(1, 2));
    assert!(run(&mut table, session(1, 10), 1).is_some());
    assert!(run(&mut table, session(1, 11), 1).is_some());
    assert!(run(&mut table, session(2, 1), 1).is_some());
    assert!(run(&mut table, session(1, 10), 2).is_some());
    assert!(run(&mut table, session(1, 12), 1).is_some(), "evicts 11, used least recently");
    assert_eq!(
        table.lookup(session(1, 11), RequestNumber(1), TAG),
        Some(Lookup::Refused(ReplyStatus::Evicted))
    );
    assert!(run(&mut table, session(1, 11), 2).is_none());
    assert!(run(&mut table, session(1, 10), 3).is_some(), "still in the table");
    assert!(run(&mut table, session(2, 1), 2).is_some(), "another client's share");
    assert_eq!(table.len(), 3);
}

/// Against a list in order of use, for clients that open sessions and use old ones at random.
#[test]
fn the_least_recently_used_session_is_evicted() {
    let mut table = SessionTable::new(&config(1, 8));
    let mut models = [const { VecDeque::<u64>::new() }; 2];
    let mut random = 1_u64;
    for step in 1..5000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step);
        let (client, choice) = ((random >> 40) % 2, (random >> 33) % 16);
        let model = &mut models[client as usize];
        // Mostly one that is there, else a new one.
        let index = match model.get(choice as usize) {
            Some(_) => model.remove(choice as usize).expect("it is there"),
            None => step,
        };
        if model.len() == 8 {
            model.pop_front();
        }
        model.push_back(index);
        assert!(run(&mut table, session(client as u32, index), step).is_some());
        for (client, model) in models.iter().enumerate() {
            #[expect(clippy::disallowed_methods, reason = "sorted below")]
            let mut known: Vec<u64> = table
                .index
                .keys()
                .filter(|it| it.client.0 == client as u32)
                .map(|it| it.session)
                .collect();
            known.sort_unstable();
            let mut wanted: Vec<u64> = model.iter().copied().collect();
            wanted.sort_unstable();
            assert_eq!(known, wanted, "step {step}, client {client}");
            let by_use = table.clients.get(&ClientId(client as u32)).map(|it| it.by_use.len());
            assert_eq!(by_use.unwrap_or(0), model.len());
        }
    }
}

#[test]
fn a_restored_table_behaves_the_same() {
    let config = config(2, 40);
    let mut table = SessionTable::new(&config);
    for i in 0..500u64 {
        run(&mut table, session((i % 3) as u32, i * 7 % 61 + i / 4), i / 2 + 1);
    }
    let order = OrderNumber(256);
    let snapshot = table.snapshot(order, 7, None);
    let (mut other, time_ms, _) = SessionTable::restore(&config, &snapshot, order).unwrap();
    assert_eq!(time_ms, 7);
    for i in 500..900u64 {
        let id = session((i % 3) as u32, i * 7 % 61 + i / 4);
        assert_eq!(run(&mut table, id, i / 2 + 1), run(&mut other, id, i / 2 + 1));
    }
    let (a, b) = (table.snapshot(order, 7, None), other.snapshot(order, 7, None));
    assert_eq!(a.page_count(), b.page_count());
    for page in 0..a.page_count() {
        assert_eq!(a.page(page), b.page(page));
    }
    // The snapshot taken before is unchanged by what came after.
    let (again, _, _) = SessionTable::restore(&config, &snapshot, order).unwrap();
    assert!(again.clock < table.clock);
}

#[test]
fn copies_use_the_memory_of_pages_whose_snapshots_are_gone() {
    let mut table = SessionTable::new(&config(2, 40));
    let mut snapshots = VecDeque::new();
    let mut seen = std::collections::BTreeSet::new();
    for order in 1..100u64 {
        for client in 0..100 {
            run(&mut table, session(client, 1), order);
        }
        let pages = table.pages.iter().map(|held| held.page().entries.as_ptr() as usize);
        seen.extend(pages);
        let snapshot = table.snapshot(OrderNumber(order), 7, None);
        let content: Vec<Bytes> = (0..5).map(|page| snapshot.page(page)).collect();
        snapshots.push_back((snapshot, content));
        if snapshots.len() > Retired::SNAPSHOTS {
            // What was written since has not changed it.
            let (snapshot, content) = snapshots.pop_front().expect("it is not empty");
            assert!((0..5).all(|page| snapshot.page(page) == content[page as usize]));
        }
    }
    assert!(seen.len() <= 4 * (Retired::SNAPSHOTS + 1), "{} places", seen.len());
    assert!(table.retired.0.len() <= 4 * Retired::SNAPSHOTS);
}

#[test]
fn hostile_pages_are_errors() {
    let config = config(1, 40);
    let mut table = SessionTable::new(&config);
    run(&mut table, session(1, 1), 1);
    let snapshot = table.snapshot(OrderNumber(256), 7, None);
    assert!(SessionTable::restore(&config, &snapshot, OrderNumber(512)).is_err());
    let mut pages = crate::service::Pages(vec![snapshot.page(0), snapshot.page(1)]);
    pages.0[1] = pages.0[1].slice(..10);
    assert!(SessionTable::restore(&config, &pages, OrderNumber(256)).is_err());
    pages.0.pop();
    assert!(SessionTable::restore(&config, &pages, OrderNumber(256)).is_err());
}

/// A change of members is in the first page while it is pending, and nowhere else; without one the page is what
/// it always was.
#[test]
fn a_pending_change_is_part_of_the_first_page() {
    use crate::ids::ReplicaId;
    use crate::membership::{Administrator, Change, Ending, NextConfiguration};
    use hybster_tss::{ClientSigningKey, Digest, Life};

    let key = ClientSigningKey::from_bytes([5; 32]).public();
    let administrator = Some(Administrator { client: ClientId(7), key });
    let config = GroupConfig { administrator, ..config(1, 40) };
    let order = OrderNumber(256);
    let mut table = SessionTable::new(&config);
    run(&mut table, session(1, 1), 1);
    let next = NextConfiguration::replacing(&config, ReplicaId(1), Life(9), Bytes::new());
    let ending = Ending { boundary: OrderNumber(512), next: Digest([3; 32]) };
    let change = Change { ending, next: next.encode() };
    let (without, with) = (table.snapshot(order, 7, None), table.snapshot(order, 7, Some(&change)));
    assert_eq!(SessionTable::change_in(&without.page(0)), None);
    assert_eq!(SessionTable::change_in(&with.page(0)), Some(change.clone()));
    assert_eq!(with.page(1), without.page(1));
    for page in [with.page(0), without.page(0)] {
        assert_eq!(SessionTable::time_in(&page), Some(7));
    }
    let put = 44 + change.next.len();
    let (page, plain) = (with.page(0), without.page(0));
    assert_eq!((page[..4].to_vec(), plain[..4].to_vec()), (vec![4, 0, 0, 0], vec![3, 0, 0, 0]));
    assert_eq!((&page[4..64], &page[64 + put..]), (&plain[4..64], &plain[64..]));
    let (_, _, restored) = SessionTable::restore(&config, &with, order).unwrap();
    assert_eq!(restored, Some(change));
    for cut in 0..page.len() {
        assert!(SessionTable::change_in(&page[..cut]).is_none() || cut >= 64 + put);
    }
    // The administrator has no session, whatever comes from there.
    let (id, number) = (session(7, 1), RequestNumber(1));
    let lookup = table.lookup_or_open(Place::UNKNOWN, id, number, TAG);
    assert_eq!(lookup, Lookup::Administration);
    assert_eq!(table.len(), 1);
}
