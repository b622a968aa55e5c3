//! The fuzz targets on inputs made of their seeds with a fixed generator: the same under every
//! `cargo test`. `tests/fuzz/run` searches on with libFuzzer.
#![cfg(test)]

#[path = "fuzz/targets.rs"]
mod targets;

use std::thread;

use fastrand::Rng;
use targets::TARGETS;

const INPUTS_PER_TARGET: u64 = 4000;
const INPUT_BYTES_MAX: usize = 500;

/// Pieces that matter to one parser or another, and that no single byte makes.
const PIECES: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xfe",
    b"\\u",
    b"\\ud83d",
    b"\"",
    b"[",
    b"{",
    b"}",
    b":",
    b",",
    b"*",
    b"$",
    b"$-1",
    b"999999999999999999999",
    b"%2F",
    b"%",
    b"&channel=",
    b"HTTP/1.1\r\n",
    b"Content-Length: 1\r\n",
    b"\xef\xbb\xbf",
];

fn check(name: &str) {
    let (_, target, seeds) = TARGETS.iter().find(|target| target.0 == name).unwrap();
    for seed in *seeds {
        target(seed);
    }
    for number in 0..INPUTS_PER_TARGET {
        let input = Input(random_input(&mut Rng::with_seed(number), seeds));
        target(&input.0);
    }
}

/// An input, shown when the target panics over it.
struct Input(Vec<u8>);

impl Drop for Input {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("input: b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// One or two seeds, changed in a few places.
fn random_input(random: &mut Rng, seeds: &[&[u8]]) -> Vec<u8> {
    let mut input = random.choice(seeds).unwrap().to_vec();
    if random.u8(..4) == 0 {
        let other = random.choice(seeds).unwrap();
        let at = random.usize(..=input.len());
        input.splice(at.., other.iter().copied());
    }
    for _ in 0..random.u8(..8) {
        let start = random.usize(..=input.len());
        let end = (start + random.usize(..8)).min(input.len());
        match random.u8(..6) {
            0 => drop(input.drain(start..end)),
            1 => {
                let copy = input[start..end].repeat(random.usize(1..20));
                input.splice(start..start, copy);
            }
            2 => drop(input.splice(start..start, random.choice(PIECES).unwrap().iter().copied())),
            3 => input.insert(start, random.u8(..)),
            4 => input.truncate(start.max(1)),
            _ => input[start..end].iter_mut().for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

macro_rules! targets {
    ($($name:ident: $behaviour:ident;)*) => {
        $(#[test]
        fn $behaviour() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let names = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.0), names);
        }
    };
}

targets! {
    http_head: request_heads_do_not_depend_on_how_they_arrive;
    target: request_targets_stay_within_bounds;
    resp_request: commands_do_not_depend_on_how_they_arrive;
    resp_link: items_of_a_link_mean_what_redis_protocol_says;
    formats: payloads_are_what_a_browser_gets_of_them;
    encoder: events_are_read_back_as_they_were;
    history: envelopes_say_one_thing_only;
}
