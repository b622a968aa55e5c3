//! URLs and files, and what becomes of them.

use super::super::tests::{check_misused, config_in};
use super::*;

#[test]
fn redis_urls_name_a_server_and_a_user() {
    let redis = |url: &str| config_in(&format!("--redis {url}"), &[]).redis.unwrap();
    let address =
        |host: &str, port, username: Option<&str>, password: Option<&str>, database| RedisAddress {
            endpoint: RedisEndpoint::Tcp { host: host.to_owned(), port },
            username: username.map(str::to_owned),
            password: password.map(Into::into),
            database,
            tls: None,
        };
    assert_eq!(redis("redis://h"), address("h", 6379, None, None, 0));
    assert_eq!(redis("redis://h/"), address("h", 6379, None, None, 0));
    assert_eq!(redis("redis://h.example:1/15"), address("h.example", 1, None, None, 15));
    assert_eq!(redis("redis://[::1]"), address("::1", 6379, None, None, 0));
    assert_eq!(redis("redis://[::1]:1"), address("::1", 1, None, None, 0));
    assert_eq!(redis("redis://:p@h"), address("h", 6379, None, Some("p"), 0));
    assert_eq!(redis("redis://u:p@h"), address("h", 6379, Some("u"), Some("p"), 0));
    assert_eq!(redis("redis://u:@h"), address("h", 6379, Some("u"), Some(""), 0));
    assert_eq!(redis("redis://:a@b:c@h"), address("h", 6379, None, Some("a@b:c"), 0));
    assert_eq!(redis("redis://u%3A:%2F%40@h"), address("h", 6379, Some("u:"), Some("/@"), 0));
    let unix = |username: Option<&str>, password: Option<&str>| RedisAddress {
        endpoint: RedisEndpoint::Unix("/run/r s".into()),
        ..address("", 0, username, password, 0)
    };
    assert_eq!(redis("unix:///run/r%20s"), unix(None, None));
    assert_eq!(redis("unix://:p@/run/r%20s"), unix(None, Some("p")));
}

#[test]
fn redis_urls_that_this_version_cannot_serve_are_refused() {
    for url in [
        "h",
        "redis:h",
        "redis://",
        "redis://:6379",
        "redis://h:x",
        "redis://h:0",
        "redis://h:65536",
        "redis://h/x",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://h/4294967296",
        "redis://::1",
        "http://h",
        "redis+unix://h",
        "redis+sentinel://h",
        "redis+sentinel:///m",
        "redis+sentinel://h,/m",
        "redis+sentinel://h/m/x",
        "unix://run/r",
        "unix://",
        "unix:///",
    ] {
        check_misused(&format!("--redis {url}"), &format!("--redis {url:?}: {EXPECTED}"));
    }
    check_misused(
        "--redis redis+cluster://h",
        &format!(
            "--redis \"redis+cluster://h\": redis+cluster:// is not supported by this version; \
             {EXPECTED}"
        ),
    );
    check_misused(
        "--redis redis://h?db=1",
        &format!("--redis \"redis://h?db=1\": parameters (?) are not supported; {EXPECTED}"),
    );
    check_misused(
        "--redis redis://u@h",
        "--redis \"redis://***@h\": a user needs a password, user:password@; a password alone is \
         :password@",
    );
}

#[test]
fn redis_urls_name_sentinels() {
    let redis = |url: &str| config_in(&format!("--redis {url}"), &[]).redis.unwrap();
    let address = redis("redis+sentinel://u:p@a,b:1,[::1]:2/mymaster/3?sentinel_password=s%40");
    assert_eq!(address.username.as_deref(), Some("u"));
    assert_eq!(address.password.as_deref(), Some("p"));
    assert_eq!((address.database, &address.tls), (3, &None));
    let hosts = [("a", SENTINEL_PORT), ("b", 1), ("::1", 2)];
    let sentinels = Sentinels {
        hosts: hosts.map(|(host, port)| (host.to_owned(), port)).to_vec(),
        master: "mymaster".to_owned(),
        password: Some("s@".into()),
    };
    assert_eq!(address.endpoint, RedisEndpoint::Sentinel(Box::new(sentinels)));
    assert!(redis("rediss+sentinel://a/m").tls.is_some());
}

#[test]
fn bad_urls_of_sentinels_do_not_show_their_password() {
    let url = "redis+sentinel://a?sentinel_password=hunter2";
    let shown = "redis+sentinel://a?sentinel_password=***";
    check_misused(&format!("--redis {url}"), &format!("--redis {shown:?}: {EXPECTED}"));
}

#[test]
fn files_of_tls_are_there_or_the_server_does_not_start() {
    check_misused(
        "--redis rediss://h --redis-ca /nonexistent/ca",
        "--redis-ca /nonexistent/ca: expected a PEM file: I/O error: No such file or directory \
         (os error 2)",
    );
    check_misused(
        "--redis rediss://h --redis-ca /dev/null",
        "--redis-ca /dev/null: expected a PEM file: no items found",
    );
    check_misused(
        "--redis rediss://h --redis-client-cert /dev/null --redis-client-key /dev/null",
        "--redis-client-cert /dev/null: expected a PEM file: no items found",
    );
    check_misused(
        "--redis rediss://h --redis-client-cert /dev/null",
        "--redis-client-cert needs --redis-client-key",
    );
    check_misused(
        "--redis rediss://h --redis-client-key /dev/null",
        "--redis-client-key needs --redis-client-cert",
    );
    check_misused(
        "--redis redis://h --redis-ca /dev/null",
        "--redis-ca, --redis-client-cert and --redis-client-key need --redis rediss://…, which is \
         TLS",
    );
}

#[test]
fn tools_that_speak_in_the_clear_say_so() {
    for url in ["rediss://h", "redis+sentinel://h/m"] {
        check_misused(
            &format!("bench http://h/events/a --redis {url}"),
            "--redis: bench takes redis:// or unix:// only",
        );
    }
}
