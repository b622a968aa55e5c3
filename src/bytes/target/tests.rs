//! Route templates, and what targets ask for by them.

use proptest::prelude::*;

use super::*;

const LIMITS: RequestLimits = RequestLimits { head_bytes: 8192, channels: 4, channel_bytes: 16 };

fn compile(templates: &[(&str, &str)], reserved: Reserved) -> Result<Routes, RouteError> {
    let templates: Vec<_> = templates
        .iter()
        .map(|(path, channel)| RouteTemplate {
            path: (*path).to_owned(),
            channel: (*channel).to_owned(),
        })
        .collect();
    Routes::new(&templates, LIMITS, reserved)
}

fn routes(templates: &[(&str, &str)]) -> Routes {
    compile(templates, Reserved::default()).unwrap()
}

/// What `target` asks for: its channels, or `404`, or the line that says what is wrong.
fn channels(routes: &Routes, target: &str) -> String {
    match routes.resolve(target.as_bytes()) {
        Resolved::Stream(request) => {
            assert!(!request.channels.is_empty(), "{target}");
            let names = request.channels.iter().map(|name| String::from_utf8_lossy(name));
            names.collect::<Vec<_>>().join(" ")
        }
        Resolved::NotFound => "404".to_owned(),
        Resolved::Bad(bad) => bad.to_string(),
    }
}

#[track_caller]
fn check(templates: &[(&str, &str)], expectations: &[(&str, &str)]) {
    let routes = routes(templates);
    for (target, expected) in expectations {
        assert_eq!(channels(&routes, target), *expected, "{target}");
    }
}

#[track_caller]
fn refused(templates: &[(&str, &str)]) -> String {
    compile(templates, Reserved::default()).expect_err(&format!("{templates:?}")).to_string()
}

const EMPTY: &str = "empty channel: expected at least one byte";
const MISSING: &str = "no channel: expected a query parameter, ?channel=CHANNEL";
const ESCAPE: &str = "bad percent-encoding: expected two hexadecimal digits behind each %";

#[test]
fn default_route_streams_the_rest_of_the_path() {
    check(
        &[],
        &[
            ("/events/a", "a"),
            ("/events/a/b", "a/b"),
            ("/events/a/", "a/"),
            ("/events//a", "/a"),
            ("/events/a%2Fb", "a/b"),
            ("/events/%61%C3%a9", "aé"),
            ("/events/a+b", "a+b"),
            ("/events/a%20b", "a b"),
            ("/events/a?channel=b", "a"),
            ("/events/a?", "a"),
            ("/events/a?b=%", "a"),
            ("/events/{x}", "{x}"),
            ("/events/../a", "../a"),
        ],
    );
}

#[test]
fn default_routes_stream_the_channels_of_the_query() {
    for path in ["/events", "/events/"] {
        for (query, expected) in [
            ("?channel=a", "a"),
            ("?channel=a&channel=b", "a b"),
            ("?channel=b&x=y&channel=a&channel=b", "b a"),
            ("?x&&=&channel=a&", "a"),
            ("?ch%61nnel=a", "a"),
            ("?channel=a/b", "a/b"),
            ("?channel=a%2Fb%26c%3D", "a/b&c="),
            ("?channel=a=b", "a=b"),
            ("?channel=a?b", "a?b"),
            ("?channel=a+b%2B", "a b+"),
            ("?channel=&channel=a", "a"),
            ("", MISSING),
            ("?", MISSING),
            ("?Channel=a", MISSING),
            ("?ch%nnel=a", MISSING),
            ("?channel", EMPTY),
            ("?channel=", EMPTY),
            ("?channel=a&channel=%", ESCAPE),
        ] {
            check(&[], &[(&format!("{path}{query}"), expected)]);
        }
    }
}

#[test]
fn other_paths_are_not_found() {
    let other = ["/", "", "/event", "/eventsa", "/Events/a", "/x/events/a", "/%65vents/a", "*"];
    check(&[], &other.map(|target| (target, "404")));
    check(&[("/a", "a")], &[("/events/a", "404"), ("/events?channel=a", "404"), ("/a", "a")]);
}

#[test]
fn path_placeholders_fill_the_channel() {
    check(
        &[("/course-state-stream/{ext}/", "course-state/{ext}")],
        &[
            ("/course-state-stream/12/", "course-state/12"),
            ("/course-state-stream/12/?x=y", "course-state/12"),
            ("/course-state-stream/1%202/", "course-state/1 2"),
            ("/course-state-stream/12", "404"),
            ("/course-state-stream//", "404"),
            ("/course-state-stream/1/2/", "404"),
            ("/course-state-stream/1%2F2/", "bad path: ext must not contain a percent-encoded /"),
            ("/course-state-stream/%/", ESCAPE),
            ("/course-state-stream/%2/", ESCAPE),
            ("/course-state-stream/%2g/", ESCAPE),
            ("/course-state-stream/%%/", ESCAPE),
        ],
    );
    check(&[("/a/{x}/b/{y}", "{y}:{x}")], &[("/a/1/b/2", "2:1"), ("/a/1/b/2/", "404")]);
    check(&[("/f-{x}.txt", "{x}")], &[("/f-1.txt", "1"), ("/f-1.tx", "404")]);
    check(&[("/all/{x}", "all")], &[("/all/1", "all"), ("/all/%2F", "all")]);
    check(
        &[("/r/{*rest}", "a/{rest}"), ("/s/{*rest}", "b/{*rest}")],
        &[("/r/1/2%2F3", "a/1/2/3"), ("/s/1/2", "b/1/2"), ("/r/", "404")],
    );
}

#[test]
fn query_placeholders_fill_the_channel() {
    check(
        &[("/stream", "{?channel=sse}")],
        &[
            ("/stream", "sse"),
            ("/stream?", "sse"),
            ("/stream?channel=", "sse"),
            ("/stream?channel=a", "a"),
            ("/stream?channel=a&channel=b", "a b"),
            ("/stream/", "404"),
        ],
    );
    check(
        &[("/a/{x}", "a/{x}/{?y}")],
        &[
            ("/a/1?y=2", "a/1/2"),
            ("/a/1?y=2&y=3&y=2", "a/1/2 a/1/3"),
            ("/a/1", "no channel: expected a query parameter, ?y=CHANNEL"),
            ("/a/1?y=", EMPTY),
        ],
    );
    check(&[("/d", "{?c=a=b+%20}")], &[("/d", "a=b+%20")]);
}

#[test]
fn literal_braces_are_doubled() {
    check(&[("/a", "{{a}}{{"), ("/b/{x}", "{{{x}}}")], &[("/a", "{a}{"), ("/b/1", "{1}")]);
}

#[test]
fn static_routes_win_over_placeholders() {
    check(
        &[("/{*rest}", "rest/{rest}"), ("/{x}", "one/{x}"), ("/a", "a")][1..],
        &[("/a", "a"), ("/b", "one/b")],
    );
    check(
        &[("/{*rest}", "rest/{rest}"), ("/a/{x}/c", "c/{x}")],
        &[("/a/1/c", "c/1"), ("/a/1/d", "rest/a/1/d"), ("/", "404")],
    );
}

#[test]
fn channels_are_bounded_in_length_and_number() {
    let too_long = "channel too long: at most 16 bytes are allowed";
    let too_many = "too many channels: at most 4 are allowed for one stream";
    check(
        &[],
        &[
            ("/events/0123456789abcdef", "0123456789abcdef"),
            ("/events/%30123456789abcdef", "0123456789abcdef"),
            ("/events/0123456789abcdefg", too_long),
            ("/events?channel=a&channel=0123456789abcdefg", too_long),
            ("/events?channel=a&channel=b&channel=c&channel=d&channel=a", "a b c d"),
            ("/events?channel=a&channel=b&channel=c&channel=d&channel=e", too_many),
        ],
    );
}

#[test]
fn channels_are_any_bytes_but_control_bytes() {
    let routes = routes(&[]);
    for byte in 0..=u8::MAX {
        let resolved = routes.resolve(format!("/events/x%{byte:02X}").as_bytes());
        let expected = if byte < 0x20 || byte == 0x7f {
            Resolved::Bad(BadTarget::ControlByte)
        } else {
            let channels = vec![vec![b'x', byte]];
            Resolved::Stream(StreamRequest { channels, last_event_id: None, begin: Begin::Present })
        };
        assert_eq!(resolved, expected, "{byte:#x}");
    }
}

#[test]
fn reserved_channels_are_refused_by_every_way() {
    let ahead = [b"events_channel".to_vec(), b"app-all".to_vec()];
    let routes = compile(&[], Reserved::new(&ahead, b"app-")).unwrap();
    for channel in ["events_channel", "app-all", "all", "__x", "__", "corecast:", "corecast:probe"]
    {
        let expected = format!("channel {channel} is reserved: it cannot be subscribed to");
        assert_eq!(channels(&routes, &format!("/events/{channel}")), expected);
        assert_eq!(channels(&routes, &format!("/events?channel=a&channel={channel}")), expected);
    }
    assert_eq!(channels(&routes, "/events/%5F_x"), channels(&routes, "/events/__x"));
    for channel in ["_x", "corecast", "app-", "app-x", "events_channels", "Corecast:"] {
        assert_eq!(channels(&routes, &format!("/events/{channel}")), channel);
    }
}

#[test]
fn last_event_id_comes_by_three_names() {
    let routes = routes(&[]);
    let id = |target: &str| match routes.resolve(target.as_bytes()) {
        Resolved::Stream(request) => {
            request.last_event_id.map(|id| String::from_utf8_lossy(&id).into_owned())
        }
        other => panic!("{target}: {other:?}"),
    };
    for name in ["lastEventId", "last_event_id", "last-event-id", "last%2Devent-id"] {
        assert_eq!(id(&format!("/events/a?{name}=7")).as_deref(), Some("7"));
        assert_eq!(id(&format!("/events?{name}=7%2B+8&channel=a")).as_deref(), Some("7+ 8"));
        assert_eq!(id(&format!("/events/a?{name}=")), None);
        assert_eq!(id(&format!("/events/a?{name}")), None);
    }
    assert_eq!(id("/events/a"), None);
    assert_eq!(id("/events/a?LastEventId=7"), None);
    assert_eq!(id("/events/a?lastEventId=7&last_event_id=8").as_deref(), Some("8"));
    assert_eq!(channels(&routes, "/events/a?lastEventId=%"), ESCAPE);
}

#[test]
fn paths_beyond_ascii_are_refused() {
    let bad = "bad path: bytes beyond ASCII must be percent-encoded";
    assert_eq!(channels(&routes(&[]), "/events/é"), bad);
    assert_eq!(routes(&[]).resolve(b"/events/\xff"), Resolved::Bad(BadTarget::NotAscii));
}

#[test]
fn templates_that_mean_nothing_are_refused_by_name() {
    let braces = "bad braces in the path: expected {name} or {*rest}, the name of letters, \
        digits, - and _ (a literal brace is %7B or %7D)";
    let channel_braces = "the channel has unbalanced braces: expected {name}, {?parameter} or \
        {?parameter=default} (a literal brace is {{ or }})";
    let parameter = "a query parameter has an empty name or default: expected {?parameter} or \
        {?parameter=default}";
    for (path, channel, problem) in [
        ("a", "a", "the path must begin with /"),
        ("", "a", "the path must begin with /"),
        ("/{x", "a", braces),
        ("/x}", "a", braces),
        ("/{}", "a", braces),
        ("/{*}", "a", braces),
        ("/{x{y}}", "a", braces),
        ("/{{x}}", "a", braces),
        ("/{x}}}", "a", braces),
        ("/{a.b}", "a", braces),
        ("/{x}{y}", "a", "the path has two placeholders between slashes: only one is allowed"),
        ("/{*x}/y", "a", "{*rest} must be the end of the path"),
        ("/{x}/{x}", "a", "the path has two placeholders with the name x"),
        ("/a", "", "the channel is empty"),
        ("/a", "{x", channel_braces),
        ("/a", "x}", channel_braces),
        ("/{x}", "{x{x}", channel_braces),
        ("/{x}", "{y}", "the channel has {y}, which the path has not (a query parameter is {?y})"),
        (
            "/{x}",
            "{*x}",
            "the channel has {*x}, which the path has not (a query parameter is {?*x})",
        ),
        ("/a", "{}", "the channel has {}, which the path has not (a query parameter is {?})"),
        ("/a", "{?}", parameter),
        ("/a", "{?=b}", parameter),
        ("/a", "{?b=}", parameter),
        ("/a", "{?b}{?c}", "the channel has two query parameters: only one is allowed"),
        (
            "/a",
            "__a",
            "every request would be refused: channel __a is reserved: it cannot be subscribed to",
        ),
        (
            "/a",
            "0123456789abcdefg",
            "every request would be refused: channel too long: at most 16 bytes are allowed",
        ),
        ("/a", "a\n", "every request would be refused: bad channel: control bytes are not allowed"),
    ] {
        assert_eq!(refused(&[(path, channel)]), format!("{path}={channel}: {problem}"));
    }
    for path in ["/a?b", "/a#b", "/é", "/a b", "/a\n"] {
        let line = refused(&[(path, "a")]);
        assert!(line.contains("the path must be what requests send"), "{line}");
    }
    let many: String = (0..17).map(|n| format!("/{{n{n}}}")).collect();
    let line = refused(&[(&many, "a")]);
    assert!(line.ends_with("the path has too many placeholders: at most 16 are allowed"), "{line}");
}

#[test]
fn templates_of_the_same_paths_are_refused_with_both_names() {
    for (first, second) in [("/a", "/a"), ("/a/{x}", "/a/{y}"), ("/a/{*x}", "/a/{*y}")] {
        assert_eq!(
            refused(&[(first, "1"), (second, "2")]),
            format!("{second}=2: the path matches the same requests as the route of {first}")
        );
    }
}

proptest! {
    #[test]
    fn any_channel_survives_percent_encoding(channel in prop::collection::vec(0x20..0x7fu8, 1..16)) {
        prop_assume!(!Reserved::default().contains(&channel));
        let encoded: String = channel.iter().map(|byte| format!("%{byte:02x}")).collect();
        let expected = StreamRequest { channels: vec![channel], last_event_id: None, begin: Begin::Present };
        for target in [format!("/events/{encoded}"), format!("/events?channel={encoded}")] {
            prop_assert_eq!(
                routes(&[]).resolve(target.as_bytes()),
                Resolved::Stream(expected.clone())
            );
        }
    }

    #[test]
    fn any_bytes_are_answered(target in prop::collection::vec(any::<u8>(), 0..60)) {
        let target = [b"/events".as_slice(), &target].concat();
        let _ = routes(&[]).resolve(&target);
    }

    #[test]
    fn any_template_is_compiled_or_refused(
        path in "/[a{}*/x?=-]{0,12}",
        other in "/[a{}*/x]{0,12}",
        channel in "[a{}*/x?=]{0,12}",
        target in "/[a%/x?=&]{0,12}",
    ) {
        if let Ok(routes) = compile(&[(&path, &channel), (&other, "b")], Reserved::default()) {
            let _ = routes.resolve(target.as_bytes());
        }
    }
}
