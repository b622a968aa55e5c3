//! A browser's own EventSource, and Node's, against applications that publish through a real Redis:
//! events arrive, and go on arriving after the server was stopped and started again; with history,
//! what was published in between arrives too.
#![cfg(test)]

mod support;

use corecast::bytes::history;
use serde_json::{Value, json};
use support::clients::{chromium, node, python, scratch};
use support::fault_proxy::FaultProxy;
use support::process::Process;
use support::redis::{Redis, Reply};
use support::server::Server;
use support::site::Site;

/// What a page of an application would do, and a report of all that it sees, in order.
const PAGE: &str = "<!doctype html><meta charset=utf-8><title>stream</title><script>
let reports = Promise.resolve();
function report(what) {
    const body = JSON.stringify(what);
    reports = reports.then(() => fetch('/report', { method: 'POST', body }));
}
const source = new EventSource(URL_OF_STREAM, { withCredentials: WITH_CREDENTIALS });
source.onopen = () => report(['open']);
source.onerror = () => report(['error', source.readyState]);
for (const type of ['message', 'stream-reset', EVENT]) {
    source.addEventListener(type, (event) => report([event.type, event.data]));
}
</script>";

/// The values of `EventSource.readyState` that an error may leave.
const CONNECTING: u8 = 0;
const CLOSED: u8 = 2;

fn page(url: &str, event: &str, with_credentials: bool) -> String {
    PAGE.replace("URL_OF_STREAM", &json!(url).to_string())
        .replace("WITH_CREDENTIALS", &with_credentials.to_string())
        .replace("EVENT)", &format!("{})", json!(event)))
        .replace("EVENT]", &format!("{}]", json!(event)))
}

/// Chromium on a page of its own site.
struct Browser {
    process: Process,
    site: Site,
}

impl Browser {
    fn open(name: &str, site: Site) -> Self {
        let url = format!("http://{}/", site.address);
        let process = Process::start(&mut chromium(&scratch(name), &url));
        Self { process, site }
    }

    #[track_caller]
    fn expect(&self, report: &Value) {
        let actual = self.site.next_report();
        assert_eq!(actual.as_ref(), Some(report), "{}", self.process.transcript());
    }
}

/// How an application publishes, and what its page must see of it.
struct Application {
    name: &'static str,
    options: &'static [&'static str],
    stream: &'static str,
    environment: &'static str,
    program: &'static str,
    /// The calls that publish the first and the second event, and the event that each makes.
    calls: [Value; 2],
    events: [Value; 2],
}

impl Application {
    fn publish(&self, redis: &Redis, index: usize) {
        let mut command = python(self.environment, self.program);
        let calls = json!([self.calls[index]]).to_string();
        Process::start(command.arg(redis.port.to_string()).arg(calls)).finish();
    }
}

/// The page gets an event, loses its server, comes back by itself, and gets the next event.
fn check(application: &Application) {
    let redis = Redis::start();
    let options = [application.options, &["--retry", "200ms", "--drain-time", "100ms"]].concat();
    let server = Server::with_redis(&redis, &options);
    let port = server.listener().port();
    let event = application.events[0][0].as_str().unwrap();
    let (listener, _) = Site::bind();
    let page = page(application.stream, event, false);
    let site = Site::serve(listener, page, server.listener().tcp());
    let browser = Browser::open(application.name, site);

    browser.expect(&json!(["open"]));
    application.publish(&redis, 0);
    browser.expect(&application.events[0]);

    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(0));
    browser.expect(&json!(["error", CONNECTING]));
    let again = format!("127.0.0.1:{port}");
    let _server = Server::with_redis(&redis, &[&options[..], &["--listen", &again]].concat());

    // Attempts while there was no server may have failed in between.
    let mut report = browser.site.next_report().unwrap();
    while report == json!(["error", CONNECTING]) {
        report = browser.site.next_report().unwrap();
    }
    assert_eq!(report, json!(["open"]));
    let reset = browser.site.next_report().unwrap();
    assert_eq!(reset[0], "stream-reset");
    assert!(reset[1].as_str().unwrap().contains("no-history"), "{reset}");
    application.publish(&redis, 1);
    browser.expect(&application.events[1]);
}

#[test]
fn page_of_django_sse_wrapper_goes_on_after_a_restart() {
    check(&Application {
        name: "django-sse-wrapper",
        options: &[
            "--route",
            "/course-state-stream/{ext}/=course-state/{ext}",
            "--format",
            "course-state/=django-sse",
        ],
        stream: "/course-state-stream/42/",
        environment: "django-sse-wrapper",
        program: "publish_django_sse_wrapper.py",
        calls: [
            json!(["state", "started", "course-state/42"]),
            json!(["state", "stopped", "course-state/42"]),
        ],
        events: [json!(["state", "started"]), json!(["state", "stopped"])],
    });
}

#[test]
fn page_of_flask_sse_goes_on_after_a_restart() {
    check(&Application {
        name: "flask-sse",
        options: &["--format", "sse=flask-sse", "--route", "/stream={?channel=sse}"],
        stream: "/stream",
        environment: "flask-sse",
        program: "publish_flask_sse.py",
        calls: [
            json!({"data": {"message": "Hello!"}, "type": "greeting"}),
            json!({"data": "plain\ntext"}),
        ],
        events: [
            json!(["greeting", r#"{"message": "Hello!"}"#]),
            json!(["message", "plain\ntext"]),
        ],
    });
}

#[test]
fn page_of_django_eventstream_goes_on_after_a_restart() {
    check(&Application {
        name: "django-eventstream",
        options: &[
            "--subscribe-ahead",
            "events_channel",
            "--format",
            "events_channel=django-eventstream",
        ],
        stream: "/events/orders",
        environment: "django-eventstream",
        program: "publish_django_eventstream.py",
        calls: [json!(["orders", "update", {"n": 1}]), json!(["orders", "update", {"n": 2}])],
        events: [json!(["update", r#"{"n": 1}"#]), json!(["update", r#"{"n": 2}"#])],
    });
}

#[test]
fn page_of_laravel_goes_on_after_a_restart() {
    let channels = ["laravel-database-orders"];
    check(&Application {
        name: "laravel",
        options: &["--format", "laravel-database-=laravel", "--strip-prefix", "laravel-database-"],
        stream: "/events/orders",
        environment: "redis-py-8",
        program: "publish_laravel.py",
        calls: [
            json!([channels, "App\\Events\\Shipped", {"order": 1}]),
            json!([channels, "App\\Events\\Shipped", {"order": "ü"}]),
        ],
        events: [
            json!(["App\\Events\\Shipped", r#"{"order":1}"#]),
            json!(["App\\Events\\Shipped", r#"{"order":"\u00fc"}"#]),
        ],
    });
}

/// The page's connection is cut, and what `publish` keeps meanwhile arrives once it is mended, by
/// the browser's own Last-Event-ID: that of the stream's start first, then that of an event.
fn check_missed_events_arrive(name: &str, server: &Server, publish: impl Fn(&str)) {
    let proxy = FaultProxy::start(server.listener().tcp());
    let (listener, _) = Site::bind();
    // Listens to messages anyway, and a second listener would report them twice.
    let page = page("/events/news", "other", false);
    let browser = Browser::open(name, Site::serve(listener, page, proxy.address));
    let message = |data: &str| json!(["message", data]);
    browser.expect(&json!(["open"]));
    for cut in 1..=2 {
        proxy.refuse(true);
        proxy.cut();
        browser.expect(&json!(["error", CONNECTING]));
        let missed: Vec<String> = (1..=3).map(|number| format!("{cut}.{number}")).collect();
        missed.iter().for_each(|data| publish(data));
        proxy.refuse(false);
        // Attempts before may have failed.
        let mut report = browser.site.next_report().unwrap();
        while report == json!(["error", CONNECTING]) {
            report = browser.site.next_report().unwrap();
        }
        assert_eq!(report, json!(["open"]));
        for data in &missed {
            browser.expect(&message(data));
        }
        publish("live");
        browser.expect(&message("live"));
    }
}

#[test]
fn page_gets_what_it_missed_from_redis() {
    let redis = Redis::start();
    let options = ["--history", "10", "--retry", "100ms"];
    let server = Server::with_redis(&redis, &options);
    let library = ["FUNCTION", "LOAD", "REPLACE", history::LIBRARY_CODE].map(str::as_bytes);
    assert!(matches!(redis.client().command(&library), Reply::Bulk(Some(_))));
    check_missed_events_arrive("history-redis", &server, |data| {
        let keys = ["2", "corecast:{news}", "corecast:clock"];
        let arguments = ["news", "10", "60000", data];
        let call = [&["FCALL", "corecast_publish"][..], &keys, &arguments].concat();
        let call: Vec<&[u8]> = call.into_iter().map(str::as_bytes).collect();
        let reply = redis.client().command(&call);
        assert!(matches!(reply, Reply::Bulk(Some(_))), "{reply:?}");
    });
}

#[test]
fn page_gets_what_it_missed_from_the_broker() {
    let server = Server::start(&["--history", "10", "--retry", "100ms"]);
    check_missed_events_arrive("history-broker", &server, |data| {
        server.publish("news", data);
    });
}

#[test]
fn page_of_an_allowed_origin_may_read_the_stream() {
    for with_credentials in [false, true] {
        let (listener, origin) = Site::bind();
        let server = Server::start(&["--cors-origin", &origin]);
        let address = server.listener().tcp();
        let page = page(&format!("http://{address}/events/a"), "message", with_credentials);
        let browser = Browser::open("cors-allowed", Site::serve(listener, page, address));

        browser.expect(&json!(["open"]));
        server.publish("a", "hello");
        browser.expect(&json!(["message", "hello"]));
    }
}

#[test]
fn page_of_another_origin_is_refused_by_the_browser() {
    let (listener, _) = Site::bind();
    let server = Server::start(&["--cors-origin", "https://example.org"]);
    let address = server.listener().tcp();
    let page = page(&format!("http://{address}/events/a"), "message", false);
    let browser = Browser::open("cors-refused", Site::serve(listener, page, address));

    browser.expect(&json!(["error", CLOSED]));
}

#[test]
fn page_comes_back_to_a_full_server_once_it_has_room() {
    let server = Server::start(&["--max-connections", "1", "--retry", "100ms"]);
    let occupant = server.open("/events/a");
    let (listener, _) = Site::bind();
    let page = page("/events/a", "message", false);
    let site = Site::serve(listener, page, server.listener().tcp());
    let browser = Browser::open("capacity", site);

    // Turned away with a reconnection time, not for good.
    browser.expect(&json!(["open"]));
    browser.expect(&json!(["error", CONNECTING]));
    drop(occupant);
    let mut report = browser.site.next_report().unwrap();
    while report == json!(["open"]) || report == json!(["error", CONNECTING]) {
        server.publish("a", "hello");
        report = browser.site.next_report().unwrap();
    }
    assert_eq!(report, json!(["message", "hello"]));
}

#[test]
fn node_eventsource_returns_with_its_last_event_id() {
    let redis = Redis::start();
    let options = ["--format", "json", "--retry", "100ms", "--drain-time", "100ms"];
    let server = Server::with_redis(&redis, &options);
    let address = server.listener().tcp().to_string();
    let url = format!("http://{address}/events/orders");
    let client = Process::start(node("eventsource.mjs").arg(&url));
    let next = || -> Value {
        let line = client.output.next().unwrap_or_else(|| panic!("{}", client.transcript()));
        serde_json::from_str(&line).unwrap()
    };

    assert_eq!(next(), json!(["open", null]));
    redis.publish("orders", r#"{"data": "one", "id": "41", "event": "update"}"#);
    assert_eq!(next(), json!(["update", "one", "41"]));

    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(0));
    assert_eq!(next(), json!(["error", null]));
    let _server = Server::with_redis(&redis, &[&options[..], &["--listen", &address]].concat());

    let mut report = next();
    while report == json!(["error", "41"]) {
        report = next();
    }
    assert_eq!(report, json!(["open", "41"]));
    let reset = next();
    assert_eq!(reset[0], "stream-reset");
    assert!(reset[1].as_str().unwrap().contains("no-history"), "{reset}");
    redis.publish("orders", r#"{"data": "two", "id": "42", "event": "update"}"#);
    assert_eq!(next(), json!(["update", "two", "42"]));
}
