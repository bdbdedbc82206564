//! libFuzzer's program for one of the targets, which the variable FUZZ_TARGET names.

#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = targets::ALL.iter().find(|(known, _)| *known == name);
    target
        .unwrap_or_else(|| panic!("FUZZ_TARGET is {name:?}, expected one of {:?}", targets::ALL.map(|(name, _)| name)))
        .1
});

fuzz_target!(|data: &[u8]| TARGET(data));
