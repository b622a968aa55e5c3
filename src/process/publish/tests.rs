//! Publishing to a server that only the tests know.

use std::io::{BufReader, Read};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;
use crate::ground::config::{RedisEndpoint, Secret};

/// A server that takes one connection, hears all that is sent and answers a line to each command:
/// the first ones as given, the rest with 2 receivers.
struct Server {
    address: RedisAddress,
    thread: JoinHandle<Vec<Vec<Vec<u8>>>>,
}

impl Server {
    fn answering(first: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = RedisEndpoint::Tcp { host: "127.0.0.1".to_owned(), port };
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            let mut answers = first.iter();
            let mut commands = Vec::new();
            let mut input = BufReader::new(stream);
            while let Some(command) = read_command(&mut input) {
                commands.push(command);
                match answers.next() {
                    Some(&"") => break,
                    answer => {
                        let answer = answer.unwrap_or(&":2\r\n").as_bytes();
                        input.get_mut().write_all(answer).unwrap();
                    }
                }
            }
            commands
        });
        Self {
            address: RedisAddress {
                endpoint,
                username: None,
                password: None,
                database: 0,
                tls: None,
            },
            thread,
        }
    }

    fn options(&self, data: Option<&[u8]>) -> PublishOptions {
        PublishOptions {
            server: self.address.clone(),
            channel: b"news".to_vec(),
            data: data.map(<[u8]>::to_vec),
            event_fields: EventFields::default(),
            history: None,
        }
    }

    /// The commands it heard, each as its arguments.
    fn commands(self) -> Vec<Vec<Vec<u8>>> {
        self.thread.join().unwrap()
    }

    /// The payloads that were published.
    fn payloads(self) -> Vec<Vec<u8>> {
        let commands = self.commands().into_iter();
        let payload = |command: Vec<Vec<u8>>| {
            assert_eq!(command[..2], [b"PUBLISH".to_vec(), b"news".to_vec()]);
            command[2].clone()
        };
        commands.map(payload).collect()
    }
}

/// An array of bulk strings; `None` at the end of input.
fn read_command(input: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let mut number = |kind: u8| {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let digits = line.strip_prefix(char::from(kind))?.trim_end().to_owned();
        let number: usize = digits.parse().unwrap();
        if kind == b'*' {
            return Some((number, Vec::new()));
        }
        let mut bytes = vec![0; number + 2];
        input.read_exact(&mut bytes).unwrap();
        bytes.truncate(number);
        Some((number, bytes))
    };
    let (arguments, _) = number(b'*')?;
    (0..arguments).map(|_| number(b'$').map(|(_, bytes)| bytes)).collect()
}

/// Input that arrives in these pieces.
struct Pieces<'a>(Vec<&'a [u8]>);

impl Read for Pieces<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("only buffered reads"))
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.retain(|piece| !piece.is_empty());
        Ok(self.0.first().copied().unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        if let Some(piece) = self.0.first_mut() {
            *piece = &piece[amount..];
        }
    }
}

fn no_input() -> Pieces<'static> {
    Pieces(Vec::new())
}

#[test]
fn data_is_published_as_it_is() {
    for data in [b"Hello".as_slice(), b"", b"a\r\nb\0\xff", b"{\"data\": 1}"] {
        let server = Server::answering(&[]);
        let published = publish(&server.options(Some(data)), &mut no_input()).unwrap();
        assert_eq!(published, Published { events: 1, receivers: 2, last_id: None });
        assert_eq!(server.payloads(), [data]);
    }
}

#[test]
fn event_fields_make_an_envelope_that_every_format_reads() {
    use crate::bytes::format::{Format, decode};

    let server = Server::answering(&[]);
    let event_fields = EventFields {
        event: Some("tick".to_owned()),
        id: Some("7".to_owned()),
        retry: Some(Duration::from_millis(1500)),
    };
    let options = PublishOptions { event_fields, ..server.options(Some(b"a\"\\\n\xff")) };
    publish(&options, &mut no_input()).unwrap();
    let payloads = server.payloads();
    for format in [Format::Raw, Format::DjangoSse, Format::Anycable] {
        let event = decode(format, &payloads[0]).unwrap().event;
        assert_eq!(*event.event, *b"tick");
        assert_eq!(*event.data, *"a\"\\\n\u{fffd}".as_bytes());
        assert_eq!(event.id.as_deref(), Some(b"7".as_slice()));
        assert_eq!(event.retry_ms, Some(1500));
    }
}

#[test]
fn lines_are_events_however_they_arrive() {
    let text = b"one\n\ntwo \xff\r\n\r\nlast";
    let lines = [b"one".as_slice(), b"", b"two \xff", b"", b"last"];
    for at in 0..=text.len() {
        let (before, after) = text.split_at(at);
        let server = Server::answering(&[]);
        let published = publish(&server.options(None), &mut Pieces(vec![before, after])).unwrap();
        assert_eq!(published, Published { events: 5, receivers: 10, last_id: None });
        assert_eq!(server.payloads(), lines, "split at {at}");
    }
}

#[test]
fn line_that_has_arrived_does_not_wait_for_the_next() {
    struct Conversation(mpsc::Receiver<Vec<u8>>, Vec<u8>);

    impl Read for Conversation {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("only buffered reads"))
        }
    }

    impl BufRead for Conversation {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            if self.1.is_empty() {
                self.1 = self.0.recv().unwrap_or_default();
            }
            Ok(&self.1)
        }

        fn consume(&mut self, amount: usize) {
            self.1.drain(..amount);
        }
    }

    use std::sync::mpsc;

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (lines, input) = mpsc::channel();
    let heard = thread::spawn(move || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let mut heard = Vec::new();
        // The second line is written only once the first has been heard.
        for line in [b"one\n".to_vec(), b"two\n".to_vec()] {
            lines.send(line).unwrap();
            heard.push(read_command(&mut stream).unwrap().remove(2));
            stream.get_mut().write_all(b":0\r\n").unwrap();
        }
        heard
    });
    let options = PublishOptions {
        history: None,
        server: RedisAddress {
            endpoint: RedisEndpoint::Tcp { host: "localhost".to_owned(), port },
            username: None,
            password: None,
            database: 0,
            tls: None,
        },
        channel: b"news".to_vec(),
        data: None,
        event_fields: EventFields::default(),
    };
    let published = publish(&options, &mut Conversation(input, Vec::new())).unwrap();
    assert_eq!(published, Published { events: 2, receivers: 0, last_id: None });
    assert_eq!(heard.join().unwrap(), [b"one", b"two"]);
}

#[test]
fn many_and_large_lines_pass_in_bounded_batches() {
    let mut text = b"x\n".repeat(3 * BATCH_EVENTS_MAX + 1);
    let large = vec![b'y'; 3 * BATCH_BYTES_MAX];
    text.extend_from_slice(&large);
    text.push(b'\n');
    let server = Server::answering(&[]);
    let published = publish(&server.options(None), &mut BufReader::new(text.as_slice())).unwrap();
    assert_eq!(published.events, 3 * 1024 + 2);
    assert_eq!(server.payloads().last(), Some(&large));
}

#[test]
fn password_goes_first() {
    for (username, expected) in
        [(None, vec!["AUTH", "p"]), (Some("u".to_owned()), vec!["AUTH", "u", "p"])]
    {
        let server = Server::answering(&["+OK\r\n"]);
        let mut options = server.options(Some(b"x"));
        options.server.username = username;
        options.server.password = Some(Secret::from("p"));
        assert_eq!(publish(&options, &mut no_input()).unwrap().receivers, 2);
        assert_eq!(server.commands()[0], expected.iter().map(|s| s.as_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn failures_say_what_is_wrong_and_what_was_done() {
    let failure = |answers: &'static [&'static str], password: Option<&str>, lines: &[u8]| {
        let server = Server::answering(answers);
        let mut options = server.options(None);
        options.server.password = password.map(Secret::from);
        let error = publish(&options, &mut BufReader::new(lines)).unwrap_err().to_string();
        error.replace(&options.server.endpoint.to_string(), "SERVER")
    };
    assert_eq!(
        failure(&["-NOAUTH Authentication required.\r\n"], None, b"x\n"),
        "SERVER wants a password: give it with --broker-password, or in --redis \
         redis://user:password@host"
    );
    assert_eq!(
        failure(&["-WRONGPASS invalid username-password pair\r\n"], Some("p"), b"x\n"),
        "SERVER refused the user or the password"
    );
    assert_eq!(
        failure(&[":1\r\n", "-ERR no\r\n"], None, b"x\ny\nz\n"),
        "SERVER refused: ERR no (1 event published before)"
    );
    assert_eq!(
        failure(&[":1\r\n", ":0\r\n", ""], None, b"x\ny\nz\n"),
        "SERVER closed the connection (2 events published before)"
    );
    for nonsense in [&["HTTP/1.1 400 Bad Request\r\n"], &["\r\n"], &["+OK\r\n"], &[":x\r\n"]] {
        assert_eq!(failure(nonsense, None, b"x\n"), "SERVER does not speak the Redis protocol");
    }
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let refused = |endpoint: RedisEndpoint| {
        let options = PublishOptions {
            history: None,
            server: RedisAddress {
                endpoint,
                username: None,
                password: None,
                database: 0,
                tls: None,
            },
            channel: b"news".to_vec(),
            data: Some(b"x".to_vec()),
            event_fields: EventFields::default(),
        };
        publish(&options, &mut no_input()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(RedisEndpoint::Tcp { host: "127.0.0.1".to_owned(), port }),
        format!(
            "cannot reach 127.0.0.1:{port}: Connection refused (os error 111); is corecast (or \
             Redis) running there? \
             (--redis or --broker-listen name another address)"
        )
    );
    let line = refused(RedisEndpoint::Unix("/nonexistent/redis".into()));
    assert!(line.starts_with("cannot reach unix:/nonexistent/redis: No such file"), "{line}");
}

const KEPT: HistoryOptions = HistoryOptions { kept: 7, ttl_ms: 600 };

/// Publishes these lines to history, and returns what became of it and the commands' first words.
fn publish_to_history(
    answers: &'static [&'static str],
    lines: &[u8],
) -> (Result<Published, String>, Vec<String>) {
    let server = Server::answering(answers);
    let options = PublishOptions { history: Some(KEPT), ..server.options(None) };
    let published = publish(&options, &mut Pieces(vec![lines]));
    let words = |command: Vec<Vec<u8>>| {
        let words = command[..2].iter().map(|word| String::from_utf8_lossy(word).into_owned());
        words.collect::<Vec<_>>().join(" ")
    };
    let commands = server.commands().into_iter().map(words).collect();
    (published.map_err(|error| error.to_string()), commands)
}

#[test]
fn events_go_to_history_by_the_function() {
    let answers = &["$3\r\n5-1\r\n", "$3\r\n5-2\r\n", "$3\r\n5-3\r\n"];
    let (published, commands) = publish_to_history(answers, b"a\nb\nc\n");
    let last_id = EventId::parse(b"5-3");
    assert_eq!(published, Ok(Published { events: 3, receivers: 0, last_id }));
    assert_eq!(commands, ["FCALL corecast_publish"; 3]);
}

#[test]
fn a_missing_function_is_loaded() {
    let answers = &["-ERR Function not found\r\n", "$8\r\ncorecast\r\n", "$3\r\n5-1\r\n"];
    let (published, commands) = publish_to_history(answers, b"a");
    assert_eq!(published.unwrap().events, 1);
    let call = "FCALL corecast_publish";
    assert_eq!(commands, [call, "FUNCTION LOAD", call]);
}

#[test]
fn where_there_are_no_functions_there_is_a_script() {
    for refusals in [
        &["-ERR unknown command 'FCALL', with args beginning with: \r\n"][..],
        &["-NOPERM this user has no permissions to run the 'fcall' command\r\n"],
        &["-ERR Function not found\r\n", "-NOPERM no permissions to run 'function|load'\r\n"],
    ] {
        let rest = ["$3\r\nabc\r\n", "$3\r\n5-1\r\n", "$3\r\n5-2\r\n"];
        let answers = [refusals, &rest].concat().leak();
        let (published, commands) = publish_to_history(answers, b"a\nb");
        assert_eq!(published.unwrap().events, 2);
        assert_eq!(commands[refusals.len()..], ["SCRIPT LOAD", "EVALSHA abc", "EVALSHA abc"]);
    }
}

#[test]
fn what_a_server_says_against_history_is_told() {
    let (published, _) = publish_to_history(&["-OOM command not allowed\r\n"], b"a");
    assert!(published.unwrap_err().ends_with(" refused: OOM command not allowed"));
    let answers = &["-NOPERM function\r\n", "-NOPERM script\r\n"];
    let (published, _) = publish_to_history(answers, b"a");
    let error = published.unwrap_err();
    let expected = "lets this user neither load the function that keeps events (NOPERM function) \
                    nor run its script (NOPERM script): let another user load it, by ";
    assert!(error.contains(expected), "{error}");
    let (published, _) = publish_to_history(&["$3\r\n5-1\r\n", "-OOM no\r\n"], b"a\nb\n");
    assert!(published.unwrap_err().ends_with(" refused: OOM no (1 event published before)"));
    for nonsense in [&["$3\r\nabc\r\n"], &["$4\r\n5-1\r\n"], &["$-1\r\n5-1\r\n"]] {
        let (published, _) = publish_to_history(nonsense, b"a");
        assert!(published.unwrap_err().ends_with("does not speak the Redis protocol"));
    }
}

#[test]
fn a_type_alone_is_an_argument_of_its_own() {
    let retry = Some(Duration::from_secs(1));
    let event = || Some("state".to_owned());
    let plain = EventFields::default;
    let cases: [(EventFields, &[&[u8]]); 4] = [
        (EventFields { event: event(), ..plain() }, &[b"x", b"state"]),
        (plain(), &[b"x"]),
        (EventFields { retry, ..plain() }, &[b"\0{\"data\": \"x\", \"retry\": 1000}"]),
        (
            EventFields { event: event(), retry, ..plain() },
            &[b"\0{\"data\": \"x\", \"event\": \"state\", \"retry\": 1000}"],
        ),
    ];
    for (event_fields, expected) in cases {
        let server = Server::answering(&["$3\r\n5-1\r\n"]);
        let options = server.options(Some(b"x"));
        let options = PublishOptions { event_fields, history: Some(KEPT), ..options };
        publish(&options, &mut no_input()).unwrap();
        let commands = server.commands();
        let arguments: Vec<&[u8]> = commands[0].iter().map(Vec::as_slice).collect();
        let head: [&[u8]; 8] = [
            b"FCALL",
            b"corecast_publish",
            b"2",
            b"corecast:{news}",
            b"corecast:clock",
            b"news",
            b"7",
            b"600",
        ];
        assert_eq!(arguments, [&head, expected].concat());
    }
}
