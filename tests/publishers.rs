//! Applications publish as they always did: unmodified libraries, a real Redis, raw streams.
#![cfg(test)]

mod support;

use serde_json::json;
use support::clients::{python, redis_cli};
use support::event_source::Message;
use support::process::Process;
use support::redis::Redis;
use support::server::Server;

/// Runs one of the publishing programs of `tests/clients` to its end.
fn publish(redis: &Redis, environment: &str, program: &str, calls: &serde_json::Value) {
    let mut command = python(environment, program);
    Process::start(command.arg(redis.port.to_string()).arg(calls.to_string())).finish();
}

fn message(event: &str, data: &str) -> Message {
    Message { event: event.into(), data: data.into(), last_event_id: String::new() }
}

/// Asserts what an event says, whatever id it leaves the stream with.
#[track_caller]
fn assert_says(mut actual: Message, event: &str, data: &str) {
    actual.last_event_id.clear();
    assert_eq!(actual, message(event, data));
}

#[test]
fn django_sse_wrapper_reaches_the_stream_of_its_course() {
    let redis = Redis::start();
    let server = Server::with_redis(
        &redis,
        &[
            "--route",
            "/course-state-stream/{ext}/=course-state/{ext}",
            "--format",
            "course-state/=django-sse",
        ],
    );
    let mut stream = server.open("/course-state-stream/42/");
    let mut other = server.open("/course-state-stream/43/");

    let calls = json!([
        ["state", "started", "course-state/42"],
        ["state", "two\nlines", "course-state/42"],
        ["state", ["a", "list"], "course-state/42"],
        ["état", "naïve \u{1F600} \u{2028}", "course-state/42"],
        ["state", {"a": [1, 2.5, null]}, "course-state/42"],
        ["state", "stopped", "course-state/43"],
    ]);
    publish(&redis, "django-sse-wrapper", "publish_django_sse_wrapper.py", &calls);

    assert_says(stream.next_message(), "state", "started");
    assert_says(stream.next_message(), "state", "two\nlines");
    assert_says(stream.next_message(), "state", "a\nlist");
    assert_says(stream.next_message(), "état", "naïve \u{1F600} \u{2028}");
    assert_says(stream.next_message(), "state", r#"{"a": [1, 2.5, null]}"#);
    assert_says(other.next_message(), "state", "stopped");
}

#[test]
fn flask_sse_sends_all_four_fields() {
    let redis = Redis::start();
    let server = Server::with_redis(
        &redis,
        &["--format", "sse=flask-sse", "--route", "/stream={?channel=sse}"],
    );
    let mut stream = server.open("/stream");

    let calls = json!([
        {"data": {"message": "Hello!"}, "type": "greeting"},
        {"data": "plain", "id": "7", "retry": 1234},
    ]);
    publish(&redis, "flask-sse", "publish_flask_sse.py", &calls);

    assert_says(stream.next_message(), "greeting", r#"{"message": "Hello!"}"#);
    let second = stream.next_message();
    assert_eq!(second.last_event_id, "7");
    assert_says(second, "message", "plain");
    assert_eq!(stream.retry(), 1234);
}

#[test]
fn flask_sse_reaches_a_channel_named_by_the_query() {
    let redis = Redis::start();
    let server =
        Server::with_redis(&redis, &["--format", "flask-sse", "--route", "/stream={?channel=sse}"]);
    let mut stream = server.open("/stream?channel=user.7");

    let calls = json!([{"data": 1}, {"data": 2, "channel": "user.7"}]);
    publish(&redis, "flask-sse", "publish_flask_sse.py", &calls);

    assert_says(stream.next_message(), "message", "2");
}

#[test]
fn django_eventstream_is_routed_by_the_channel_inside() {
    let redis = Redis::start();
    let server = Server::with_redis(
        &redis,
        &["--subscribe-ahead", "events_channel", "--format", "events_channel=django-eventstream"],
    );
    let mut stream = server.open("/events/orders");
    let mut both = server.open("/events?channel=stock&channel=orders");

    let calls = json!([
        ["orders", "message", {"text": "hello"}],
        ["stock", "update", "a\nb"],
        ["orders", "update", 3],
    ]);
    publish(&redis, "django-eventstream", "publish_django_eventstream.py", &calls);

    assert_says(stream.next_message(), "message", r#"{"text": "hello"}"#);
    assert_says(stream.next_message(), "update", "3");
    assert_says(both.next_message(), "message", r#"{"text": "hello"}"#);
    // django-eventstream sends the JSON text of what it is given.
    assert_says(both.next_message(), "update", r#""a\nb""#);
    assert_says(both.next_message(), "update", "3");
}

#[test]
fn laravel_reaches_its_channels_without_their_prefix() {
    let redis = Redis::start();
    let server = Server::with_redis(
        &redis,
        &["--format", "laravel-database-=laravel", "--strip-prefix", "laravel-database-"],
    );
    let mut orders = server.open("/events/orders");
    let mut private = server.open("/events/private-user.7");

    let event = "App\\Events\\OrderShipped";
    let channels = ["laravel-database-orders", "laravel-database-private-user.7"];
    let calls = json!([[channels, event, {"socket": null, "url": "https://example.org/7"}]]);
    publish(&redis, "redis-py-8", "publish_laravel.py", &calls);

    let data = r#"{"socket":null,"url":"https:\/\/example.org\/7"}"#;
    assert_says(orders.next_message(), event, data);
    assert_says(private.next_message(), event, data);
}

#[test]
fn redis_py_publishes_alone_and_in_a_transaction() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &[]);
    let mut stream = server.open("/events/orders");

    let port = redis.port.to_string();
    Process::start(python("redis-py-8", "redis_py.py").args([&port, "", "publish"])).finish();

    assert_says(stream.next_message(), "message", "one");
    assert_says(stream.next_message(), "message", "two");
    assert_says(stream.next_message(), "message", "three\nlines\n");
}

#[test]
fn redis_cli_publishes() {
    let redis = Redis::start();
    let server = Server::with_redis(&redis, &[]);
    let mut stream = server.open("/events/course-state/42");

    Process::start(redis_cli(&redis.address()).args(["publish", "course-state/42", "started"]))
        .finish();

    assert_says(stream.next_message(), "message", "started");
}
