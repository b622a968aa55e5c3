//! The embedded broker answers, byte for byte, what a real redis-server answers.
//!
//! Each script runs against both, step by step, over connections of its own; after every step each
//! connection must have received the same bytes from both. What differs on purpose is written down
//! in `support/pair.rs` and in the tests that speak to the broker alone.
#![cfg(test)]

mod support;

use std::fmt::Write as _;

use support::broker::PAYLOAD_BYTES_MAX;
use support::pair::Pair;

#[test]
fn commands_are_answered_alike() {
    let pair = Pair::start(None);
    for script in [
        "0 PING\n0 ping hello\n0 PING a b\n0 ECHO \"two words\"\n0 ECHO\n0 ECHO a b",
        "0 SELECT 3\n0 SELECT -1\n0 SELECT abc\n0 SELECT 1x\n0 SELECT",
        "0 GET key\n0 GET\n0 CONFIG GET nonsense\n0 CONFIG GET\n0 CONFIG\n0 TIME x",
        "0 PUBLISH ch\n0 PUBLISH ch m\n0 PUBLISH ch m m\n0 PUBLISH",
        "0 CLIENT GETNAME\n0 CLIENT SETNAME me\n0 CLIENT GETNAME\n0 CLIENT SETNAME \"a b\"\n\
         0 CLIENT SETNAME \"\"\n0 CLIENT GETNAME\n0 CLIENT SETNAME\n0 CLIENT ID x\n0 CLIENT",
        "0 CLIENT NO-EVICT on\n0 CLIENT NO-EVICT off\n0 CLIENT NO-EVICT maybe\n0 client no-evict",
        "0 CLIENT NONSENSE\n0 client nonsense a b\n0 CONFIG NONSENSE\n0 PUBSUB NONSENSE\n\
         0 SCRIPT NONSENSE x\n0 COMMAND NONSENSE",
        "0 NONSENSE\n0 nonsense a b\n0 nonsense \"with\\r\\nlines\\r\\n\" \"\" \"nul\\x00behind\"",
        "0 HELLO\n0 HELLO 2\n0 HELLO 3\n0 HELLO 4\n0 HELLO x\n0 HELLO 1\n0 HELLO 03\n0 HELLO 3 x",
        "0 HELLO 3 SETNAME me\n0 CLIENT GETNAME\n0 HELLO 2 SETNAME \"a b\"\n0 HELLO 2 AUTH\n\
         0 HELLO 3 AUTH default any\n0 HELLO 3 AUTH other any\n0 HELLO 2 SETNAME",
        "0 HELLO 3\n0 GET key\n0 CLIENT GETNAME\n0 CONFIG GET nonsense\n0 PUBLISH ch m\n0 PING\n\
         0 PING x\n0 EVAL \"for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end\" 0 x",
        "0 AUTH any\n0 AUTH default any\n0 AUTH other any\n0 AUTH a b c\n0 AUTH",
        "0 RESET\n0 RESET x\n0 HELLO 3\n0 CLIENT SETNAME me\n0 RESET\n0 CLIENT GETNAME",
        "0 QUIT\n0 PING",
        "0 QUIT now",
    ] {
        pair.check_lines(script);
    }
}

#[test]
fn subscriptions_are_answered_alike() {
    let pair = Pair::start(None);
    for hello in ["", "0 HELLO 3\n"] {
        for script in [
            "0 SUBSCRIBE a\n0 SUBSCRIBE a b a\n0 SUBSCRIBE\n1 PUBLISH a one\n1 PUBLISH b two\n\
             1 PUBLISH c three\n0 UNSUBSCRIBE a nobody\n1 PUBLISH a four\n1 PUBLISH b five\n\
             0 UNSUBSCRIBE\n1 PUBLISH b six\n0 UNSUBSCRIBE\n0 PING",
            "0 PSUBSCRIBE a* x*\n1 PUBLISH ab one\n1 PUBLISH xb two\n1 PUBLISH x three\n\
             0 SUBSCRIBE ab\n1 PUBLISH ab four\n0 PUNSUBSCRIBE a*\n1 PUBLISH ab five\n\
             0 PUNSUBSCRIBE\n0 UNSUBSCRIBE\n0 PUNSUBSCRIBE\n0 PING",
            "0 SSUBSCRIBE a b\n1 PUBLISH a one\n1 SPUBLISH a two\n1 SPUBLISH c three\n\
             0 PSUBSCRIBE a\n1 SPUBLISH a four\n1 PUBLISH a five\n0 SUNSUBSCRIBE a\n\
             0 SUNSUBSCRIBE\n0 SUNSUBSCRIBE\n0 PUNSUBSCRIBE\n0 PING",
            "0 SUBSCRIBE a\n0 PING\n0 PING x\n0 PING x y\n0 GET key\n0 PUBSUB NUMPAT\n0 NONSENSE\n\
             0 ECHO x\n0 MULTI\n0 CLIENT GETNAME\n0 RESET\n0 GET key\n1 PUBLISH a one",
            "0 SUBSCRIBE a\n0 QUIT\n1 PUBLISH a one",
            "0 SUBSCRIBE \"\"\n1 PUBLISH \"\" \"\"\n0 PSUBSCRIBE *\n1 PUBLISH \"\" \"\"",
            "0 SUBSCRIBE a\n1 PUBSUB NUMSUB a b\n1 PUBSUB NUMSUB\n1 PUBSUB CHANNELS\n\
             1 PUBSUB CHANNELS b*\n1 PUBSUB CHANNELS a b\n1 PUBSUB NUMPAT\n1 PUBSUB NUMPAT x\n\
             0 PSUBSCRIBE x y\n1 PUBSUB NUMPAT\n1 PUBSUB\n0 SSUBSCRIBE s\n1 PUBSUB SHARDCHANNELS\n\
             1 PUBSUB SHARDCHANNELS x\n1 PUBSUB SHARDNUMSUB s a\n1 PUBSUB CHANNELS s",
            "0 SUBSCRIBE a\n1 SUBSCRIBE a\n2 PUBLISH a one\n1 HELLO 3\n2 PUBLISH a two\n\
             2 PUBSUB NUMSUB a",
            "0 SUBSCRIBE a\n0 HELLO 3\n1 PUBLISH a one\n0 HELLO 2\n1 PUBLISH a two\n0 PING",
        ] {
            pair.check_lines(&format!("{hello}{script}"));
        }
    }
}

#[test]
fn transactions_are_answered_alike() {
    let pair = Pair::start(None);
    for hello in ["", "0 HELLO 3\n"] {
        for script in [
            "0 MULTI\n0 PING\n0 PUBLISH a one\n0 ECHO x\n0 GET key\n0 EXEC\n0 PING",
            "0 MULTI\n0 EXEC\n0 EXEC\n0 DISCARD\n0 MULTI\n0 DISCARD\n0 PING",
            "0 MULTI\n0 MULTI\n0 PING\n0 EXEC",
            "0 MULTI\n0 NONSENSE\n0 PING\n0 EXEC\n0 PING",
            "0 MULTI\n0 PUBLISH a\n0 EXEC\n0 PING",
            "0 MULTI\n0 PING a b\n0 PING\n0 EXEC",
            "0 MULTI\n0 PING\n0 EXEC x\n0 PING\n0 EXEC x\n0 DISCARD x\n0 MULTI x",
            "0 MULTI\n0 CLIENT NONSENSE\n0 DISCARD\n0 EXEC",
            "0 MULTI\n0 HELLO 3\n0 GET key\n0 HELLO 2\n0 EXEC",
            "0 MULTI\n0 RESET\n0 EXEC\n0 MULTI\n0 QUIT",
            "0 MULTI\n0 SUBSCRIBE a\n0 PING\n0 UNSUBSCRIBE a\n0 EXEC\n0 PING",
            "0 MULTI\n0 SUBSCRIBE a\n0 EXEC\n1 PUBLISH a one\n0 EXEC\n0 PING",
            "1 SUBSCRIBE a\n0 MULTI\n0 PUBLISH a one\n0 PUBLISH a two\n1 PING\n0 EXEC\n1 PING",
            "0 MULTI\n0 SELECT 1\n0 CLIENT SETNAME x\n0 CLIENT GETNAME\n0 CONFIG GET nonsense\n\
             0 PUBSUB NUMSUB a\n0 TIME x\n0 EXEC",
        ] {
            pair.check_lines(&format!("{hello}{script}"));
        }
    }
}

#[test]
fn the_publish_script_is_answered_alike() {
    let pair = Pair::start(None);
    let script = "for i = 2, #ARGV do\\n  redis.call('publish', ARGV[i], ARGV[1])\\nend";
    let eval = format!("EVAL \"{script}\"");
    let sha1 = "6f799f6e3f4ab9f8b891f6405d5fc1348a6a0595";
    pair.check_lines(&format!(
        "1 SUBSCRIBE a b
         1 PSUBSCRIBE b*
         0 {eval} 0 one a b c
         0 {eval} 1 a two b
         0 {eval} 0
         0 {eval} 0 one
         0 {eval} 1
         0 {eval} -1
         0 {eval} x
         0 {eval} 2 a
         0 {eval}
         0 EVAL
         0 EVALSHA {sha1} 0 three a
         0 EVALSHA {upper} 0 four b
         0 EVALSHA {sha1} 2 a
         0 EVALSHA {sha1}
         0 EVALSHA {zeros} 0
         0 EVALSHA nonsense 0
         0 SCRIPT EXISTS {sha1} {zeros} x
         0 SCRIPT EXISTS
         0 SCRIPT LOAD \"{script}\"
         0 SCRIPT LOAD
         0 MULTI
         0 {eval} 0 five a
         0 EXEC",
        upper = sha1.to_ascii_uppercase(),
        zeros = "0".repeat(40),
    ));
}

#[test]
fn passwords_are_asked_for_alike() {
    let pair = Pair::start(Some("s3cret"));
    let mut script = "0 PING\n0 NONSENSE\n0 PUBLISH a\n0 HELLO\n0 HELLO 3\n0 HELLO 3 SETNAME x\n\
                      0 MULTI\n0 EXEC\n0 EXEC x\n0 SUBSCRIBE a\n0 AUTH wrong\n0 AUTH other s3cret\n\
                      0 AUTH default wrong\n0 AUTH default\n0 AUTH \"\"\n0 AUTH s3cretx\n\
                      0 AUTH s3cre\n0 AUTH s3crets3cret\n0 HELLO 3 AUTH default wrong\n0 PING\n"
        .to_owned();
    for (index, login) in ["AUTH s3cret", "AUTH default s3cret", "HELLO 3 AUTH default s3cret"]
        .into_iter()
        .enumerate()
    {
        let client = index + 1;
        let _ =
            write!(script, "{client} {login}\n{client} PING\n{client} AUTH wrong\n{client} PING\n");
        let _ = write!(script, "{client} RESET\n{client} PING\n{client} {login}\n");
        let _ = write!(script, "{client} MULTI\n{client} RESET\n{client} PING\n{client} QUIT\n");
    }
    // The control connection can't PING, but any answer will do.
    pair.check_lines(&script);
    for broken in ["*11\r\n", "*1\r\n$16385\r\n", "*2\r\n$4\r\nAUTH\r\n$20000\r\n"] {
        pair.check(&[(0, broken.into())]);
    }
}

#[test]
fn broken_input_is_answered_alike() {
    let pair = Pair::start(None);
    let ping = "*1\r\n$4\r\nPING\r\n";
    for broken in [
        "*x\r\n",
        "*\r\n",
        "*01\r\n",
        "*+1\r\n",
        "*99999999999\r\n",
        "*99999999999999999999999999\r\n",
        "*1\r\n*1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n\r\n",
        "*2\r\n$4\r\nPING\r\nPING\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$007\r\n",
        "*1\r\n$1048577\r\n",
        "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$10737418240\r\n",
        "*1\r\n$99999999999999999999999\r\n",
        "ECHO \"a\r\n",
        "ECHO 'a\r\n",
        "ECHO \"a\"b\r\n",
        "POST / HTTP/1.1\r\n",
        "Host: localhost:6379\r\n",
        "*1\r\n$4\r\npost\r\n",
    ] {
        for before in ["", ping, "SUBSCRIBE a\r\n", "MULTI\r\nPING\r\n"] {
            pair.check(&[(0, before.into()), (0, broken.into())]);
            if !broken.contains("ost") {
                // Redis forgets the answers before, when it closes on a request of a browser.
                pair.check(&[(0, format!("{before}{broken}{ping}").into_bytes())]);
            }
        }
    }
    pair.check(&[(0, "x".repeat(70_000).into_bytes())]);
}

#[test]
fn harmless_input_is_answered_alike() {
    let pair = Pair::start(None);
    for input in [
        "\r\n",
        "\n\n \t \r\nPING\n",
        "*0\r\n*-1\r\n*-5\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n",
        "ECHO \"\\x41\\n\\\"\\q\" \r\nECHO '\\'\\n'\nECHO pre\"fix\"\nECHO \"\"\n",
        "$4\r\nPING\r\n",
        "+OK\r\nping\r\nPiNg\r\n",
    ] {
        pair.check(&[(0, input.into())]);
        pair.check(&input.bytes().map(|byte| (0, vec![byte])).collect::<Vec<_>>());
    }
    let long = "x".repeat(60_000);
    pair.check(&[(0, format!("ECHO {long}\r\n").into_bytes())]);
    let mut command =
        format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${PAYLOAD_BYTES_MAX}\r\n").into_bytes();
    command.resize(command.len() + PAYLOAD_BYTES_MAX, b'x');
    command.extend_from_slice(b"\r\n");
    pair.check(&[(1, b"SUBSCRIBE c\r\n".to_vec()), (0, command)]);
}

#[test]
fn unknown_commands_are_quoted_alike() {
    let pair = Pair::start(None);
    for lengths in [vec![127], vec![128], vec![129], vec![60, 60, 60], vec![1; 60], vec![0; 60]] {
        let words = lengths.iter().map(|length| format!("\"{}\"", "y".repeat(*length)));
        let words = words.collect::<Vec<_>>().join(" ");
        for name in ["x".to_owned(), "x".repeat(127), "x".repeat(129), "\"\"".to_owned()] {
            pair.check_lines(&format!("0 {name} {words}\n0 CLIENT {name} {words}"));
        }
    }
}

/// What a session's publisher may send. It never subscribes: Redis before 7.2 sends it its own
/// messages before the reply.
const PUBLISHING: &[&str] = &[
    "PUBLISH a 1",
    "PUBLISH b 22",
    "PUBLISH ab \"\"",
    "SPUBLISH a 3",
    "PING",
    "MULTI",
    "EXEC",
    "DISCARD",
    "HELLO 3",
    "HELLO 2",
    "NONSENSE x",
    "PUBLISH a",
    "PUBSUB NUMSUB a b",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDNUMSUB a",
    "RESET",
    "ECHO x",
    "CLIENT GETNAME",
    "CLIENT SETNAME x",
    "",
    "GET x",
];

/// What a session's subscribers may send. No two of their patterns match one channel: their order
/// is up to the server.
const SUBSCRIBING: &[&str] = &[
    "SUBSCRIBE a",
    "SUBSCRIBE b a",
    "UNSUBSCRIBE a",
    "UNSUBSCRIBE b",
    "PSUBSCRIBE a*",
    "PSUBSCRIBE b* c*",
    "PUNSUBSCRIBE a*",
    "PUNSUBSCRIBE b* a*",
    "SSUBSCRIBE a",
    "SUNSUBSCRIBE a",
    "PING",
    "PING x",
    "MULTI",
    "EXEC",
    "DISCARD",
    "HELLO 3",
    "HELLO 2",
    "NONSENSE",
    "RESET",
    "ECHO x",
    "GET x",
    "PUBSUB NUMSUB a",
    "",
    "SUBSCRIBE",
];

/// A typed line as programs send it.
fn as_array(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        let word = word.trim_matches('"');
        let _ = write!(bytes, "${}\r\n{word}\r\n", word.len());
    }
    bytes.into_bytes()
}

#[test]
fn random_sessions_are_answered_alike() {
    let pair = Pair::start(None);
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut script = Vec::new();
        for _ in 0..40 {
            let connection = random.usize(..3);
            let commands: &[&str] = if connection == 0 { PUBLISHING } else { SUBSCRIBING };
            let commands = (0..1 + random.usize(..3)).map(|_| *random.choice(commands).unwrap());
            let commands: Vec<&str> = commands.collect();
            let bytes: Vec<u8> = commands
                .iter()
                .flat_map(|command| {
                    if random.bool() { as_array(command) } else { format!("{command}\r\n").into() }
                })
                .collect();
            let (first, second) = bytes.split_at(random.usize(..=bytes.len()));
            script.push((connection, first.to_vec()));
            script.push((connection, second.to_vec()));
        }
        pair.check(&script);
    }
}

/// Whole lines, because Redis looks at none before it ends; and no argument that is longer than its
/// length says, because Redis does not notice.
#[test]
fn random_garbage_is_answered_alike() {
    let pair = Pair::start(None);
    let tokens = [
        "*",
        "$",
        "0",
        "1",
        "2",
        "3",
        "-",
        "+",
        ":",
        "%",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        " ",
        "\t",
        "\"",
        "'",
        "\\",
        "x",
        "*1\r\n",
        "*2\r\n",
        "*3\r\n",
        "$4\r\nPING\r\n",
        "$4\r\nECHO\r\n",
        "$7\r\nPUBLISH\r\n",
        "$1\r\na\r\n",
        "PING",
        "ECHO ",
        "MULTI\r\n",
        "EXEC\r\n",
        "HELLO 3\r\n",
    ];
    for seed in 0..2000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = 1 + random.usize(..14);
        let garbage: String = (0..count).map(|_| *random.choice(&tokens).unwrap()).collect();
        pair.check(&[(0, format!("{garbage}\r\n").into_bytes())]);
    }
}

#[test]
fn patterns_match_alike() {
    let pair = Pair::start(None);
    let mut random = fastrand::Rng::with_seed(1);
    let mut word = |symbols: &str, length: usize| -> String {
        let symbols: Vec<char> = symbols.chars().collect();
        let length = random.usize(..length);
        (0..length).map(|_| *random.choice(&symbols).unwrap()).collect()
    };
    for _ in 0..40 {
        let channel = word("ab-]", 5);
        let patterns: Vec<String> = (0..40).map(|_| word("ab*?[]^-\\", 8)).collect();
        let quote = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\"));
        let mut script = format!("0 SUBSCRIBE {}\n", quote(&channel));
        for pattern in &patterns {
            let _ = writeln!(script, "1 PUBSUB CHANNELS {}", quote(pattern));
        }
        pair.check_lines(&script);
    }
}
