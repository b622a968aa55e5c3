//! The fuzz targets under libFuzzer, which `tests/fuzz/run` builds and runs. `FUZZ_TARGET` chooses
//! one; its seeds are put into the directory `FUZZ_CORPUS`.
#![no_main]

mod targets;

use std::sync::OnceLock;

use targets::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        let (_, target, seeds) =
            TARGETS.iter().find(|target| target.0 == name).expect("no such target");
        TARGET.get_or_init(|| *target);
        let corpus = std::env::var("FUZZ_CORPUS").expect("FUZZ_CORPUS names a directory");
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(format!("{corpus}/seed-{number}"), seed).expect("a seed is written");
        }
    },
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(input);
        }
    }
);
