//! Crashes, losses of power and failing disks: what was promised is there, in order, without a hole.

mod common;

use common::{End, Outcome, World, campaign, lives};
use hybster_disk::{Crash, Faults};
use hybster_log::{Durability, Options, WhenFull};

#[test]
fn random_lives() {
    let seeds = std::env::var("HYBSTER_LOG_SEEDS").ok().and_then(|n| n.parse().ok());
    if let Err(error) = campaign(lives, 0..seeds.unwrap_or(3_000)) {
        panic!("{error}");
    }
}

fn options(durability: Durability) -> Options {
    Options {
        durability,
        buffer_bytes: 8192,
        segment_bytes: 3 * 4096,
        reserve_bytes: 4096,
        longest_record: 1_500,
        when_full: WhenFull::Refuse,
    }
}

/// The same life each time, up to a crash at this operation of the disk; then a start that crashes at that
/// one, and a start. Tells how many operations there were.
fn crash_at(
    durability: Durability,
    seed: u64,
    in_life: u64,
    in_start: u64,
    ends: [End; 2],
) -> Outcome<[u64; 2]> {
    let mut world = World::with(seed, options(durability));
    let open = world.try_open()?.ok_or("no crash was due")?;
    let crash =
        |after_operations| Faults { crash: Some(Crash { after_operations }), ..Faults::default() };
    world.disk.set_faults(crash(in_life));
    let _ = world.live(open, 120)?;
    let life = world.disk.operations();
    world.end(Some(ends[0]));
    world.disk.set_faults(crash(in_start));
    let opened = world.try_open()?;
    let start = world.disk.operations();
    if opened.is_some() {
        world.model.was_closed = false;
    }
    world.end(Some(ends[1]));
    world.try_open()?.ok_or("no crash was due")?;
    Ok([life, start])
}

#[test]
fn a_crash_at_every_operation_of_a_life_and_of_the_start_behind_it() {
    for durability in [
        Durability::Sync,
        Durability::Async { window_ms: 20, window_bytes: 4096 },
        Durability::None,
    ] {
        let all = [End::Killed, End::PowerLost];
        let [life, _] = crash_at(durability, 1, u64::MAX, u64::MAX, all).unwrap();
        assert!(life > 60, "a life of {life} operations is too short");
        for seed in [1, 2] {
            for first in all {
                for at in 0..=life {
                    // A start has some 30 operations: one of them after each.
                    let in_start = (at * 7 + seed) % 40;
                    for second in all {
                        let outcome = crash_at(durability, seed, at, in_start, [first, second]);
                        assert!(outcome.is_ok(), "{durability:?} {at} {in_start}: {outcome:?}");
                    }
                }
            }
        }
        let [_, start] = crash_at(durability, 1, life / 2, u64::MAX, [all[1]; 2]).unwrap();
        for in_start in 0..=start {
            for ends in [[all[0], all[0]], [all[0], all[1]], [all[1], all[0]], [all[1], all[1]]] {
                let outcome = crash_at(durability, 3, life / 2, in_start, ends);
                assert!(outcome.is_ok(), "{durability:?} start {in_start}: {outcome:?}");
            }
        }
    }
}
