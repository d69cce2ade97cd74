//! Every libFuzzer binary: its name says which target it is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let target = hybster_fuzz::find(env!("CARGO_BIN_NAME")).expect("a target of that name");
    (target.run)(data);
});
