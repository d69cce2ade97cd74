//! Every example runs, and says of itself whether it came out as it should.

#[path = "../examples/accounts.rs"]
mod accounts;
#[path = "../examples/counter.rs"]
mod counter;
#[path = "../examples/locks.rs"]
mod locks;
#[path = "../examples/queue.rs"]
mod queue;
#[path = "../examples/rate_limiter.rs"]
mod rate_limiter;
#[path = "../examples/web.rs"]
mod web;

#[cfg(feature = "simulator")]
#[path = "../examples/simulated.rs"]
mod simulated;

#[test]
fn accounts() {
    accounts::main().unwrap();
}

#[test]
fn counter() {
    counter::main().unwrap();
}

#[test]
fn locks() {
    locks::main().unwrap();
}

#[test]
fn queue() {
    queue::main().unwrap();
}

#[test]
fn rate_limiter() {
    rate_limiter::main().unwrap();
}

#[cfg(feature = "simulator")]
#[test]
fn simulated() {
    simulated::main().unwrap();
}

#[test]
fn web() {
    web::main().unwrap();
}
