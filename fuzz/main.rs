//! libFuzzer's program for one of the targets, which the variable FUZZ_TARGET names.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use ppo_train::panics::are_expected;
use std::panic;
use std::sync::LazyLock;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = targets::ALL.iter().find(|(known, _)| *known == name);
    target
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, expected one of {:?}", targets::ALL.map(|(name, _)| name)))
        .1
});

fuzz_target!(
    init: {
        // libFuzzer's crate ends the process at every panic; some of them become errors.
        let end = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !are_expected() {
                end(info);
            }
        }));
    },
    |data: &[u8]| TARGET(data)
);
