//! Command lines, variables and files, and what becomes of them.

use std::collections::BTreeMap;
use std::fs;

use clap::ArgAction;

use super::*;
use crate::bench::options::{Choice, Closing, Load, Sink};
use crate::ground::config::{Driver, Format, FormatRule, RouteTemplate};
use crate::process::log::LogFormat;

/// Reads `line`, divided at white space, in an environment of these variables only.
fn parse_in(line: &str, environment: &[(&str, &str)]) -> Result<Command, Exit> {
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    let arguments = std::iter::once("corecast").chain(line.split_whitespace());
    parse(arguments.map(OsString::from), |name| environment.get(name).map(OsString::from))
}

#[track_caller]
pub(super) fn config_in(line: &str, environment: &[(&str, &str)]) -> Config {
    match parse_in(line, environment) {
        Ok(Command::Serve(config, _)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn config(line: &str) -> Config {
    config_in(line, &[])
}

#[track_caller]
fn publish_in(line: &str, environment: &[(&str, &str)]) -> PublishOptions {
    match parse_in(line, environment) {
        Ok(Command::Publish(options)) => options,
        other => panic!("{line}: {other:?}"),
    }
}

/// The line that a misuse is answered with.
#[track_caller]
fn misused_in(line: &str, environment: &[(&str, &str)]) -> String {
    match parse_in(line, environment) {
        Err(Exit::Misused(message)) => {
            assert!(!message.contains('\n'), "{message}");
            message
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
pub(super) fn check_misused(line: &str, expected: &str) {
    assert_eq!(misused_in(line, &[]), expected, "{line}");
}

/// A file in a directory of its own, which goes with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("corecast-cli-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn tcp(text: &str) -> ListenAddress {
    ListenAddress::Tcp(text.parse().unwrap())
}

#[test]
fn nothing_given_is_a_server_of_this_host_with_its_own_broker() {
    for line in ["", "serve"] {
        let config = config(line);
        assert_eq!(config.listen, [tcp("127.0.0.1:8080")]);
        assert_eq!(config.redis, None);
        assert_eq!(config.broker_listen, tcp("127.0.0.1:6380"));
        assert_eq!(config.admin_listen, tcp("127.0.0.1:9180"));
        assert!(config.workers >= 1);
        assert!(config.pin);
        assert_eq!(config.driver, Driver::Auto);
        assert_eq!(config.routes, []);
        assert_eq!(config.formats, [FormatRule { prefix: vec![], format: Format::Raw }]);
        assert_eq!(config.strip_prefix, b"");
        assert_eq!(config.subscribe_ahead, Vec::<Vec<u8>>::new());
        assert_eq!(config.heartbeat, Some(Duration::from_secs(15)));
        assert_eq!(config.retry, Duration::from_secs(2));
        assert_eq!(config.retry_jitter_percent, 50);
        assert_eq!(config.max_connections, None);
        assert_eq!(config.limits.head_bytes, 8 * 1024);
        assert_eq!(config.limits.channels, 32);
        assert_eq!(config.limits.channel_bytes, 256);
        assert_eq!(config.max_event_bytes, 1024 * 1024);
        assert_eq!(config.head_timeout, Duration::from_secs(10));
        assert_eq!(config.max_pending_bytes, 64 * 1024);
        assert_eq!(config.max_intake_bytes, 64 * 1024 * 1024);
        assert_eq!(config.dead_peer_timeout, Some(Duration::from_secs(30)));
        assert_eq!(config.coalesce, Duration::ZERO);
        assert_eq!(config.cors_origins, Vec::<String>::new());
        assert!(config.history.is_empty());
        assert_eq!(config.history_ttl, Duration::from_secs(600));
        assert_eq!(config.broker_history_bytes, 256 * 1024 * 1024);
        assert_eq!(config.drain_time, Duration::from_secs(10));
    }
    let Ok(Command::Serve(_, log)) = parse_in("", &[]) else { panic!() };
    assert_eq!(log, LogOptions { format: LogFormat::Text, level: tracing::Level::INFO });
}

#[test]
fn every_option_is_taken() {
    let line = "--listen 0.0.0.0:80 --listen unix:/run/s --redis redis://h --broker-listen \
        [::1]:1 --broker-password p --admin-listen localhost:2 --admin-token t --workers 3 \
        --no-pin --driver epoll --route /a=b --route /s={?c=d=e} --format json --format a:=laravel \
        --strip-prefix p- --subscribe-ahead x --subscribe-ahead y --heartbeat 0 --retry 1m \
        --retry-jitter 0 --max-connections 5 --max-channels-per-connection 6 --max-channel-bytes \
        7 --max-event-bytes 2MiB --max-head-bytes 16KiB --head-timeout 500ms --max-pending 8 \
        --max-intake 1GiB --dead-peer-timeout 0 --coalesce 10ms --cors-origin https://a.example \
        --history 10 --history a/=500 --history a/b=0 --history-ttl 1h --broker-history-bytes 1MiB \
        --drain-time 1h --log json --log-level debug";
    for line in [line.to_owned(), format!("serve {line}")] {
        let config = config(&line);
        assert_eq!(config.listen, [tcp("0.0.0.0:80"), ListenAddress::Unix("/run/s".into())]);
        assert!(config.redis.is_some());
        assert_eq!(config.broker_listen, tcp("[::1]:1"));
        assert_eq!(config.broker_password.as_deref(), Some("p"));
        assert_eq!(config.admin_listen, tcp("127.0.0.1:2"));
        assert_eq!(config.admin_token.as_deref(), Some("t"));
        assert_eq!(config.workers, 3);
        assert!(!config.pin);
        assert_eq!(config.driver, Driver::Epoll);
        let route = |path: &str, channel: &str| RouteTemplate {
            path: path.to_owned(),
            channel: channel.to_owned(),
        };
        assert_eq!(config.routes, [route("/a", "b"), route("/s", "{?c=d=e}")]);
        let format = |prefix: &str, format| FormatRule { prefix: prefix.into(), format };
        assert_eq!(config.formats, [format("", Format::Json), format("a:", Format::Laravel)]);
        assert_eq!(config.strip_prefix, b"p-");
        assert_eq!(config.subscribe_ahead, [b"x", b"y"]);
        assert_eq!(config.heartbeat, None);
        assert_eq!(config.retry, Duration::from_secs(60));
        assert_eq!(config.retry_jitter_percent, 0);
        assert_eq!(config.max_connections, Some(5));
        assert_eq!(config.limits.channels, 6);
        assert_eq!(config.limits.channel_bytes, 7);
        assert_eq!(config.max_event_bytes, 2 * 1024 * 1024);
        assert_eq!(config.limits.head_bytes, 16 * 1024);
        assert_eq!(config.head_timeout, Duration::from_millis(500));
        assert_eq!(config.max_pending_bytes, 8);
        assert_eq!(config.max_intake_bytes, 1 << 30);
        assert_eq!(config.dead_peer_timeout, None);
        assert_eq!(config.coalesce, Duration::from_millis(10));
        assert_eq!(config.cors_origins, ["https://a.example"]);
        let kept = [b"x".as_slice(), b"a/x", b"p-a/x", b"a/b"].map(|name| config.history.of(name));
        assert_eq!(kept, [Some(10), Some(500), Some(500), None]);
        assert_eq!(config.history_ttl, Duration::from_secs(3600));
        assert_eq!(config.broker_history_bytes, 1024 * 1024);
        assert_eq!(config.drain_time, Duration::from_secs(3600));
        let Ok(Command::Serve(_, log)) = parse_in(&line, &[]) else { panic!() };
        assert_eq!(log, LogOptions { format: LogFormat::Json, level: tracing::Level::DEBUG });
    }
}

#[test]
fn every_option_reads_its_variable_and_its_key() {
    for (name, repeatable) in Arguments::command().get_arguments().filter_map(|arg| {
        let is_repeatable = matches!(arg.get_action(), ArgAction::Append);
        arg.get_long().map(|name| (name.to_owned(), is_repeatable))
    }) {
        if matches!(name.as_str(), "config" | "help" | "version" | "strip-prefix") {
            continue;
        }
        // No option takes this, and each says by its own name where it was read.
        let bad = "\u{1}";
        let line = misused_in("", &[(&variable(&name), bad)]);
        assert!(line.starts_with(&format!("--{name} ")), "{line}");
        assert!(line.contains(&format!(" (from {}): expected ", variable(&name))), "{line}");

        let value = if repeatable { "[\"\\u0001\"]" } else { "\"\\u0001\"" };
        let file = File::new(&name, &format!("{name} = {value}"));
        let line = misused_in(&format!("--config {}", file.path()), &[]);
        assert!(line.starts_with(&format!("--{name} ")), "{line}");
        assert!(line.contains(&format!(" (from {}): expected ", file.path())), "{line}");
    }
    assert_eq!(config_in("", &[("CORECAST_STRIP_PREFIX", "p-")]).strip_prefix, b"p-");
}

#[test]
fn flag_counts_before_environment_before_file_before_default() {
    let file =
        File::new("order", "workers = 2\nretry = '2h'\nretry-jitter = 20\nmax-connections = 200\n");
    let variables = [
        ("CORECAST_CONFIG", file.path()),
        ("CORECAST_RETRY", "3h"),
        ("CORECAST_RETRY_JITTER", "30"),
        ("CORECAST_MAX_CONNECTIONS", ""),
    ];
    for line in ["--retry-jitter 40", "serve --retry-jitter 40"] {
        let config = config_in(line, &variables);
        assert_eq!(config.retry_jitter_percent, 40);
        assert_eq!(config.retry, Duration::from_secs(3 * 3600));
        assert_eq!(config.workers, 2);
        assert_eq!(config.max_connections, Some(200), "an empty variable counts as unset");
        assert_eq!(config.heartbeat, Some(Duration::from_secs(15)));
    }
    let other = File::new("other", "workers = 5");
    let config = config_in(&format!("--config {}", other.path()), &variables);
    assert_eq!((config.workers, config.max_connections), (5, None));
}

#[test]
fn repeatable_options_replace_each_other_layer_by_layer() {
    let file = File::new("repeatable", "listen = ['[::1]:1', 'unix:/a b']\nroute = '/f=f'");
    let line = format!("--config {}", file.path());
    let read = config(&line);
    assert_eq!(read.listen, [tcp("[::1]:1"), ListenAddress::Unix("/a b".into())]);
    assert_eq!(read.routes.len(), 1);
    let variables = [("CORECAST_LISTEN", " 127.0.0.1:2\n127.0.0.1:3 "), ("CORECAST_ROUTE", " \n")];
    let read = config_in(&line, &variables);
    assert_eq!(read.listen, [tcp("127.0.0.1:2"), tcp("127.0.0.1:3")]);
    assert_eq!(read.routes.len(), 1, "white space alone is no value");
    let read = config_in(&format!("{line} --listen 127.0.0.1:4"), &variables);
    assert_eq!(read.listen, [tcp("127.0.0.1:4")]);
}

#[test]
fn switches_read_truth_from_environment_and_file() {
    assert!(!config_in("", &[("CORECAST_NO_PIN", "true")]).pin);
    assert!(!config_in("", &[("CORECAST_NO_PIN", "1")]).pin);
    assert!(config_in("", &[("CORECAST_NO_PIN", "false")]).pin);
    assert!(!config_in("--no-pin", &[("CORECAST_NO_PIN", "0")]).pin);
    let file = File::new("switch", "no-pin = true");
    assert!(!config(&format!("--config {}", file.path())).pin);
}

#[test]
fn variables_of_other_programs_are_ignored() {
    // What Kubernetes sets for a service with the name `corecast`.
    let config = config_in("", &[("CORECAST_PORT", "tcp://10.0.0.1:80"), ("WORKERS", "x")]);
    assert_eq!(config.listen, [tcp("127.0.0.1:8080")]);
}

#[test]
fn bad_files_are_refused_by_name_and_line() {
    let check = |name: &str, text: &str, expected: &str| {
        let file = File::new(name, text);
        let line = misused_in("", &[("CORECAST_CONFIG", file.path())]);
        let line = line.strip_prefix(&format!("--config {}: ", file.path())).expect(&line);
        assert!(line.starts_with(expected), "{line}");
    };
    check("syntax", "workers = 1\nretry == 2", "line 2: ");
    check("twice", "workers = 1\nworkers = 2", "line 2: ");
    check("unknown", "worker = 1", "unknown key \"worker\": expected one of listen, ");
    check("underscore", "max_pending = 1", "unknown key \"max_pending\": expected one of ");
    check("config", "config = 'x'", "unknown key \"config\": expected one of ");
    check("table", "[limits]\nworkers = 1", "unknown key \"limits\": expected one of ");
    check(
        "float",
        "workers = 1.5",
        "key \"workers\": expected a string, a whole number, true or false",
    );
    check("array", "workers = [1]", "key \"workers\": expected a string, a whole number");
    check(
        "nested",
        "listen = [['a']]",
        "key \"listen\": expected a string, or an array of strings",
    );
    let line = misused_in("--config /nonexistent/corecast.toml", &[]);
    let expected = "--config /nonexistent/corecast.toml: cannot be read: No such file or directory";
    assert!(line.starts_with(expected), "{line}");
}

#[test]
fn bad_values_are_answered_with_what_is_allowed() {
    let address = "expected an IP address (or localhost) and a port, such as 0.0.0.0:8080 or \
        [::1]:8080, or unix:/path";
    for value in
        ["8080", ":8080", "example.org:80", "[::1]", "unix:", "localhost:x", "1.2.3.4:65536"]
    {
        check_misused(&format!("--listen {value}"), &format!("--listen {value:?}: {address}"));
    }
    for value in ["0", "-1", "1025", "x", "1.5", "99999999999999999999"] {
        let expected = "expected a whole number from 1 to 1024";
        check_misused(&format!("--workers={value}"), &format!("--workers {value:?}: {expected}"));
    }
    for value in ["101", "256", "-1", "50%"] {
        let expected = "expected a whole number from 0 to 100";
        let line = format!("--retry-jitter={value}");
        check_misused(&line, &format!("--retry-jitter {value:?}: {expected}"));
    }
    for value in ["0", "513MiB", "1TiB", "1.5MiB", "64K", "KiB", "-1", "99999999999GiB"] {
        let expected = "expected a size such as 1000, 64KiB or 1MiB, from 1 to 512MiB";
        let line = format!("--max-event-bytes={value}");
        check_misused(&line, &format!("--max-event-bytes {value:?}: {expected}"));
    }
    for value in ["0", "0s", "99ms", "25h", "15", "1d", "1.5s", "s", "-1s", "99999999999999999999s"]
    {
        let expected = "expected a time such as 500ms, 15s, 2m or 1h, from 100ms to 24h";
        let line = format!("--head-timeout={value}");
        check_misused(&line, &format!("--head-timeout {value:?}: {expected}"));
    }
    check_misused(
        "--heartbeat 1ms",
        "--heartbeat \"1ms\": expected a time such as 500ms, 15s, 2m or 1h, from 100ms to 24h, \
         or 0",
    );
    check_misused("--driver x", "--driver \"x\": expected auto, uring or epoll");
    check_misused("--log x", "--log \"x\": expected text or json");
    check_misused("--log-level x", "--log-level \"x\": expected error, warn, info, debug or trace");
    for value in ["a=x", "-1", "1000001", "a="] {
        check_misused(
            &format!("--history={value}"),
            &format!(
                "--history {value:?}: expected [PREFIX=]N, the number of events from 0 to 1000000"
            ),
        );
    }
    check_misused(
        "--history 1 --history 2",
        "--history: two values for the prefix \"\": expected one",
    );
    check_misused(
        "--format a=x",
        "--format \"a=x\": expected [PREFIX=]FORMAT, the format one of raw, json, django-sse, \
         flask-sse, django-eventstream, laravel, anycable",
    );
    check_misused(
        "--admin-token=",
        "--admin-token \"\": expected at least one character, and no control characters",
    );
    check_misused(
        "--subscribe-ahead=",
        "--subscribe-ahead \"\": expected a channel: at least one byte, and no control bytes",
    );
}

#[test]
fn sizes_and_times_take_units() {
    for (text, bytes) in [
        ("1", 1),
        ("1000", 1000),
        ("10B", 10),
        ("64KiB", 64 * 1024),
        ("64kib", 64 * 1024),
        ("2MiB", 2 * 1024 * 1024),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("3MB", 3_000_000),
        ("512MiB", 512 * 1024 * 1024),
    ] {
        assert_eq!(config(&format!("--max-event-bytes {text}")).max_event_bytes, bytes, "{text}");
    }
    for (text, milliseconds) in
        [("0", 0), ("0s", 0), ("1ms", 1), ("15s", 15_000), ("2m", 120_000), ("24h", 86_400_000)]
    {
        let expected = Duration::from_millis(milliseconds);
        assert_eq!(config(&format!("--drain-time {text}")).drain_time, expected, "{text}");
    }
}

#[test]
fn secrets_never_show() {
    for url in
        ["rediss://u:hunter2@", "redis://:hunter2@h/x", "redis://:hunter2/@h", "x://hunter2@"]
    {
        let line = misused_in(&format!("--redis {url}"), &[]);
        assert!(!line.contains("hunter2") && line.contains("***@"), "{line}");
    }
    for option in ["CORECAST_BROKER_PASSWORD", "CORECAST_ADMIN_TOKEN"] {
        let line = misused_in("", &[(option, "hunter2\u{1}")]);
        assert!(!line.contains("hunter2") && line.contains("\"***\" (from "), "{line}");
    }
    let variables = [
        ("CORECAST_REDIS", "redis://u:hunter2@h"),
        ("CORECAST_BROKER_PASSWORD", "hunter2"),
        ("CORECAST_ADMIN_TOKEN", "hunter2"),
    ];
    let debug = format!("{:?}", config_in("", &variables));
    assert_eq!((debug.contains("hunter2"), debug.matches("***").count()), (false, 3));
    let Err(help) = parse_in("--help", &variables) else { panic!() };
    assert!(!help.to_string().contains("hunter2"));
}

#[test]
fn origins_are_exact_and_written_as_browsers_do() {
    for (given, origin) in [
        ("https://www.example.org", "https://www.example.org"),
        ("HTTPS://WWW.Example.Org:443", "https://www.example.org"),
        ("http://a:80", "http://a"),
        ("http://a:443", "http://a:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
    ] {
        assert_eq!(config(&format!("--cors-origin {given}")).cors_origins, [origin]);
    }
    let expected = "expected an exact origin without a path, such as https://www.example.org";
    for origin in
        ["a.example", "https://", "https://a/", "https://a/b", "https://a:x", "null", "http://é"]
    {
        let line = format!("--cors-origin {origin}");
        check_misused(&line, &format!("--cors-origin {origin:?}: {expected}"));
    }
    for origin in ["*", "https://*.example.org"] {
        check_misused(
            &format!("--cors-origin {origin}"),
            &format!(
                "--cors-origin {origin:?}: patterns (*) are not supported by this version; \
                 {expected}"
            ),
        );
    }
}

#[test]
fn addresses_that_other_hosts_reach_need_a_secret() {
    let allowed = "other hosts can reach it (without, only loopback addresses and unix:/path are \
        allowed)";
    check_misused(
        "--broker-listen 0.0.0.0:6380",
        &format!("--broker-listen 0.0.0.0:6380 needs --broker-password: {allowed}"),
    );
    check_misused(
        "--admin-listen [::]:9180",
        &format!("--admin-listen [::]:9180 needs --admin-token: {allowed}"),
    );
    config("--broker-listen 0.0.0.0:6380 --broker-password p");
    config("--admin-listen [::]:9180 --admin-token t");
    config("--broker-listen unix:/b --admin-listen unix:/a");
    // With a Redis server there is no broker.
    config("--broker-listen 0.0.0.0:6380 --redis redis://h");
}

#[test]
fn routes_and_formats_are_checked_together() {
    check_misused(
        "--route /a",
        "--route \"/a\": expected PATH=CHANNEL, such as /course/{id}=course-{id} or \
         /stream={?channel=sse}",
    );
    check_misused(
        "--route /a/{x}={y}",
        "--route /a/{x}={y}: the channel has {y}, which the path has not (a query parameter is \
         {?y})",
    );
    check_misused(
        "--route /a=b --route /a=c",
        "--route /a=c: the path matches the same requests as the route of /a",
    );
    check_misused(
        "--route /a=b --subscribe-ahead b",
        "--route /a=b: every request would be refused: channel b is reserved: it cannot be \
         subscribed to",
    );
    check_misused(
        "--format a=json --format a=raw",
        "--format: two values for the prefix \"a\": expected one",
    );
}

#[test]
fn unknown_words_are_refused_in_one_line() {
    check_misused("--nonsense", "unexpected argument '--nonsense' found (see corecast --help)");
    check_misused("nonsense", "unrecognized subcommand 'nonsense' (see corecast --help)");
    check_misused(
        "--worker 1",
        "unexpected argument '--worker' found; tip: a similar argument exists: '--workers' (see \
         corecast --help)",
    );
    check_misused(
        "--retry 1s --retry 2s",
        "the argument '--retry <TIME>' cannot be used multiple times (see corecast --help)",
    );
    check_misused(
        "--workers",
        "a value is required for '--workers <N>' but none was supplied (see corecast --help)",
    );
    check_misused(
        "publish",
        "the following required arguments were not provided: <CHANNEL> (see corecast --help)",
    );
    for later in ["--max-connections-per-ip 1", "--slow-consumer latest", "bench u"] {
        misused_in(later, &[]);
    }
}

#[test]
fn help_and_version_are_shown() {
    let shown = |line: &str| match parse_in(line, &[("CORECAST_WORKERS", "x")]) {
        Err(Exit::Shown(text)) => text.to_string(),
        other => panic!("{line}: {other:?}"),
    };
    let help = shown("--help");
    for word in
        ["serve", "publish", "bench", "--max-pending <SIZE>", "[default: 64KiB]", "Examples:"]
    {
        assert!(help.contains(word), "{word}");
    }
    assert_eq!(shown("-h"), help);
    assert!(shown("publish --help").contains("[DATA]"));
    let bench = shown("bench --help");
    assert!(bench.contains("--compare-floor <ROUNDS>"));
    // clap would break the line at this.
    for word in ["PATH; {n} in it is", "URL has {n}, in turn", "publish to; {n} as", "bench-{n}'"] {
        assert!(bench.contains(word), "{word}: {bench}");
    }
    let is_listed = |name: &str| help.lines().any(|line| line.trim_start().starts_with(name));
    assert!(is_listed("bench") && !is_listed("floor"), "an inner part of bench");
    assert_eq!(shown("--version"), concat!("corecast ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn publish_takes_a_channel_and_perhaps_data() {
    let options = publish_in("publish news", &[]);
    assert_eq!(options.channel, b"news");
    assert_eq!(options.data, None);
    assert_eq!(options.event_fields, EventFields::default());
    assert_eq!(options.server.endpoint.to_string(), "127.0.0.1:6380");

    let line = "publish --event e --id 7 --retry 1s --redis redis://:p@h news data";
    let options = publish_in(line, &[]);
    assert_eq!(options.data.as_deref(), Some(b"data".as_slice()));
    let event_fields = EventFields {
        event: Some("e".to_owned()),
        id: Some("7".to_owned()),
        retry: Some(Duration::from_secs(1)),
    };
    assert_eq!(options.event_fields, event_fields);
    assert_eq!(options.server.endpoint.to_string(), "h:6379");
    assert_eq!(options.server.password.as_deref(), Some("p"));

    assert_eq!(publish_in("publish a -1.5", &[]).data.as_deref(), Some(b"-1.5".as_slice()));
    assert_eq!(publish_in("publish a -- --x", &[]).data.as_deref(), Some(b"--x".as_slice()));
}

#[test]
fn publish_keeps_events_if_asked() {
    let history = |line: &str| publish_in(line, &[("CORECAST_HISTORY", "7")]).history;
    let kept = |kept, ttl_ms| Some(HistoryOptions { kept, ttl_ms });
    assert_eq!(history("publish a b"), None, "the variable is the server's");
    assert_eq!(history("publish a b --history"), kept(100, 600_000));
    assert_eq!(history("publish --history 5 --history-ttl 1m a b"), kept(5, 60_000));
    let options = publish_in("publish a --history", &[("CORECAST_HISTORY_TTL", "1h")]);
    assert_eq!((options.data, options.history), (None, kept(100, 3_600_000)));
    check_misused(
        "publish a --history b",
        "--history \"b\": expected a whole number from 1 to 1000000",
    );
    check_misused(
        "publish a b --history --id 7",
        "--id: expected none beside --history, which gives the event its id",
    );
    let printed = parse_in("publish --print-function", &[]);
    assert!(matches!(printed, Ok(Command::PrintFunction)));
}

#[test]
fn publish_finds_the_broker_by_the_settings_of_the_server() {
    let file =
        File::new("publish", "broker-listen = '0.0.0.0:1'\nbroker-password = 'p'\nworkers = 2");
    let variables = [
        ("CORECAST_CONFIG", file.path()),
        ("CORECAST_RETRY", "5s"),
        ("CORECAST_LISTEN", "no address, but that is the server's business"),
    ];
    let options = publish_in("publish a b", &variables);
    assert_eq!(options.server.endpoint.to_string(), "127.0.0.1:1");
    assert_eq!(options.server.password.as_deref(), Some("p"));
    assert_eq!(options.event_fields.retry, None, "--retry of publish is the event's");
    let server = |listen: &str| publish_in(&format!("publish --broker-listen {listen} a b"), &[]);
    assert_eq!(server("[::]:1").server.endpoint.to_string(), "[::1]:1");
    assert_eq!(server("unix:/b").server.endpoint.to_string(), "unix:/b");
    let options = publish_in("publish a b", &[("CORECAST_REDIS", "redis://h")]);
    assert_eq!(options.server.endpoint.to_string(), "h:6379");
}

#[test]
fn publish_refuses_what_cannot_be_an_event() {
    let run = |arguments: &[&str]| {
        let arguments = ["corecast", "publish"].iter().chain(arguments).map(OsString::from);
        match parse(arguments, |_| None) {
            Err(Exit::Misused(line)) => line,
            other => panic!("{other:?}"),
        }
    };
    let expected = "expected one line: CR, LF and NUL are not allowed";
    assert_eq!(run(&["a", "--id", "1\n2"]), format!("--id \"1\\n2\": {expected}"));
    assert_eq!(run(&["a", "--event", "1\r"]), format!("--event \"1\\r\": {expected}"));
    assert_eq!(run(&[""]), "CHANNEL \"\": expected at least one byte");
}

#[test]
fn bench_takes_a_url_and_a_load() {
    let bench = |line: &str| match parse_in(line, &[("CORECAST_REDIS", "redis://h:7")]) {
        Ok(Command::Bench(options)) => *options,
        other => panic!("{line}: {other:?}"),
    };
    let options = bench("bench http://127.0.0.1:8080/events/a%20b");
    assert_eq!((options.streams, options.channels, options.threads), (1000, 1, None));
    let Load::Publish(publication) = &options.load else { panic!("{options:?}") };
    assert_eq!((publication.messages, publication.bytes), (20, 200));
    assert_eq!(publication.schedule.interval, Some(Duration::from_millis(100)));
    let Sink::Redis { server, channel, history: None } = &publication.sink else {
        panic!("{publication:?}")
    };
    assert_eq!((server.endpoint.to_string().as_str(), channel.text(0).as_str()), ("h:7", "a b"));

    let options = bench("bench http://h/{n} --channel c-{n} --streams 9 --rate max --burst 3");
    assert_eq!(options.channels, 9);
    let Load::Publish(publication) = &options.load else { panic!("{options:?}") };
    assert_eq!((publication.schedule.interval, publication.schedule.burst), (None, 3));
    assert_eq!((publication.connections, publication.choice), (1, Choice::InTurn));
    assert_eq!(publication.closing, None);
    let options =
        bench("bench http://h/events/{n} --publishers 9 --order random --closing-after 1s");
    let Load::Publish(publication) = &options.load else { panic!("{options:?}") };
    assert_eq!((publication.connections, publication.choice), (9, Choice::Random));
    let closing = Closing { after: Duration::from_secs(1), interval: Duration::from_micros(100) };
    assert_eq!(publication.closing, Some(closing));
    assert_eq!(bench("bench http://h/events/{n} --channels 4").channels, 4);
    let several = "bench http://h/events?channel={n} --channels 4 --channels-per-stream 4";
    assert_eq!(bench(several).channels_per_stream, 4);
    let options = bench("bench http://h/x --listen-only 2s --server-pid 1 --server-pid 2");
    assert!(matches!(options.load, Load::Listen(time) if time == Duration::from_secs(2)));
    assert_eq!(options.server_pids, [1, 2]);

    let options = bench("bench http://h/events/{n} --resume --history 50");
    let Load::Publish(publication) = &options.load else { panic!("{options:?}") };
    let Sink::Redis { history, .. } = &publication.sink else { panic!("{publication:?}") };
    assert_eq!(*history, Some(HistoryOptions { kept: 50, ttl_ms: 600_000 }));
    assert!(options.resumes && publication.messages == 0 && publication.closing.is_some());
}
