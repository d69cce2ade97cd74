//! Damage is found and named, wherever it is: no page is ever read otherwise than it was written.

mod common;

use common::{campaign, damaged};

#[test]
fn random_damage() {
    let seeds = std::env::var("HYBSTER_STORE_SEEDS").ok().and_then(|n| n.parse().ok());
    if let Err(error) = campaign(damaged, 0..seeds.unwrap_or(4_000)) {
        panic!("{error}");
    }
}
