//! Crashes, losses of power, failing and full disks: there is the old checkpoint or the new one.

mod common;

use common::{ENDS, End, Outcome, World, campaign, lives, sizes};
use hybster_disk::Faults;

#[test]
fn random_lives() {
    let seeds = std::env::var("HYBSTER_STORE_SEEDS").ok().and_then(|n| n.parse().ok());
    if let Err(error) = campaign(lives, 0..seeds.unwrap_or(600)) {
        panic!("{error}");
    }
}

#[test]
fn the_file_shrinks_with_the_state() {
    if let Err(error) = campaign(sizes, 0..100) {
        panic!("{error}");
    }
}

/// The same life each time, up to a crash at this operation of the disk; then a start that crashes at that
/// one, and a start. Tells how many operations there were.
fn crash_at(seed: u64, in_life: u64, in_start: u64, ends: [End; 2]) -> Outcome<[u64; 2]> {
    let mut world = World::new(seed);
    world.crash_after(in_life);
    if let Some(store) = world.try_open()? {
        world.live(store, 4)?;
    }
    let life = world.disk.operations();
    world.end(Some(ends[0]));
    world.crash_after(in_start);
    world.try_open()?;
    let start = world.disk.operations();
    world.end(Some(ends[1]));
    world.disk.set_faults(Faults::default());
    let store = world.try_open()?.ok_or("no crash was due")?;
    // It can be written to, whatever there was.
    world.live(store, 2)?;
    Ok([life, start])
}

#[test]
fn a_crash_at_every_operation_of_a_life_and_of_the_start_behind_it() {
    for seed in 0..6_u64 {
        let [life, _] = crash_at(seed, u64::MAX, u64::MAX, ENDS).unwrap();
        assert!(life > 40, "a life of {life} operations is too short");
        for at in 0..=life {
            for first in ENDS {
                for second in ENDS {
                    let in_start = (at * 7 + seed) % 20;
                    let outcome = crash_at(seed, at, in_start, [first, second]);
                    assert!(outcome.is_ok(), "seed {seed}, {at}, {in_start}: {outcome:?}");
                }
            }
        }
        let [_, start] = crash_at(seed, life / 2, u64::MAX, ENDS).unwrap();
        for in_start in 0..=start {
            for ends in [[ENDS[0]; 2], [ENDS[1]; 2], ENDS] {
                let outcome = crash_at(seed, life / 2, in_start, ends);
                assert!(outcome.is_ok(), "seed {seed}, start {in_start}: {outcome:?}");
            }
        }
    }
}
