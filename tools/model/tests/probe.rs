use hybster_model::{Bounds, CoreModel};
use stateright::{Checker, HasDiscoveries, Model};
use std::time::Instant;

#[test]
#[ignore]
fn probe() {
    let var = |n: &str, d: u64| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let faulty = var("F", 0);
    let bounds = Bounds {
        faulty: (faulty < 3).then_some(faulty as u16),
        pillars: var("P", 1) as u16,
        slots: var("S", 1),
        views: var("V", 1),
        requests: var("R", 2) as u8,
        noops: var("N", 0) > 0,
        checkpoints: var("K", 0) > 0,
        slow_batches: var("B", 0) > 0,
        early: var("E", 0) > 0,
        faulty_changes: var("C", 255) as u8,
        mutant: None,
    };
    let start = Instant::now();
    let checker = CoreModel::new(bounds)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(var("T", 4_000_000) as usize)
        .spawn_bfs()
        .join();
    println!(
        "unique {} total {} depth {} done {} in {:?}; {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.is_done(),
        start.elapsed(),
        checker.model().effort()
    );
    for (name, path) in checker.discoveries() {
        println!("{name}: {} steps", path.clone().into_actions().len());
        if var("SHOW", 0) > 0 {
            println!("{}", checker.model().schedule(&path.into_actions()));
        }
    }
}
