//! How messages are published: commands or requests out, answers in. Pure functions over bytes.

use memchr::memmem;

use super::options::Sink;
use crate::bytes::history::{Call, HistoryOptions, Publication, encode_publication};
use crate::bytes::resp::encode_command;
use crate::ground::limits::RESP_LINE_BYTES_MAX;

/// Answers that have arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) count: u32,
    /// The other side will answer no more on this connection.
    pub(super) closes: bool,
}

impl Sink {
    /// Messages that may wait for their answers.
    pub(super) fn unanswered_max(&self) -> u32 {
        match self {
            Self::Redis { .. } => 1024,
            Self::Http(posting) => posting.unanswered_max,
        }
    }

    /// Appends what publishes a message.
    pub(super) fn encode(&self, channel: u32, payload: &[u8], output: &mut Vec<u8>) {
        match self {
            Self::Redis { channel: template, history, .. } => {
                let name = template.text(channel);
                let channel = name.as_bytes();
                match *history {
                    None => encode_command(&[b"PUBLISH", channel, payload], output),
                    Some(HistoryOptions { kept, ttl_ms }) => {
                        let publication = Publication {
                            channel,
                            kept,
                            ttl_ms,
                            payload,
                            event: b"",
                            bytes_max: None,
                        };
                        encode_publication(Call::Function, &publication, output);
                    }
                }
            }
            Self::Http(posting) => {
                let (before, behind) = (&posting.body.before, &posting.body.behind);
                let length = before.len() + payload.len() + behind.len();
                output.extend_from_slice(&posting.target.publish_request(channel, length));
                for part in [before.as_bytes(), payload, behind.as_bytes()] {
                    output.extend_from_slice(part);
                }
            }
        }
    }

    /// Takes whole answers from the front of the input.
    ///
    /// # Errors
    /// The answer, if it is none that says that a message was published.
    pub(super) fn take_answers(&self, input: &mut Vec<u8>) -> Result<Answers, String> {
        let mut answers = Answers::default();
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            let answer = match self {
                Self::Redis { .. } => redis_answer(rest)?,
                Self::Http(_) => http_answer(rest)?,
            };
            let Some((length, closes)) = answer else { break };
            taken += length;
            answers.count += 1;
            answers.closes |= closes;
        }
        input.drain(..taken);
        Ok(answers)
    }
}

/// The length of an answer to PUBLISH (a number) or FCALL (an id), and whether the connection ends
/// with it.
fn redis_answer(input: &[u8]) -> Result<Option<(usize, bool)>, String> {
    let Some(end) = memmem::find(input, b"\r\n") else {
        return if input.len() > RESP_LINE_BYTES_MAX { Err(shown(input)) } else { Ok(None) };
    };
    match input.first() {
        Some(b':') => Ok(Some((end + 2, false))),
        Some(b'$') => {
            let rest = input.get(end + 2..).unwrap_or_default();
            Ok(memmem::find(rest, b"\r\n").map(|id_end| (end + 2 + id_end + 2, false)))
        }
        _ => Err(shown(input.get(..end).unwrap_or_default())),
    }
}

fn http_answer(input: &[u8]) -> Result<Option<(usize, bool)>, String> {
    let Some(head_end) = memmem::find(input, b"\r\n\r\n").map(|end| end + 4) else {
        return if input.len() > RESP_LINE_BYTES_MAX { Err(shown(input)) } else { Ok(None) };
    };
    let (head, body) = input.split_at_checked(head_end).unwrap_or_default();
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).unwrap_or_default();
    if !status_line.starts_with("http/1.") || !status.starts_with('2') {
        return Err(status_line.to_owned());
    }
    let fields: Vec<(&str, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n, v.trim())).collect();
    let field = |name| fields.iter().find(|field| field.0 == name).map(|field| field.1);
    let body_length = match (field("content-length"), field("transfer-encoding")) {
        (_, Some("chunked")) => memmem::find(body, LAST_CHUNK).map(|at| at + LAST_CHUNK.len()),
        (Some(length), _) => {
            let length: usize = length.parse().map_err(|_| status_line.to_owned())?;
            (length <= body.len()).then_some(length)
        }
        (None, _) => Some(0),
    };
    let closes = field("connection").is_some_and(|value| value == "close");
    Ok(body_length.map(|length| (head_end + length, closes)))
}

fn shown(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer.get(..answer.len().min(200)).unwrap_or_default());
    text.trim_start_matches('-').trim_end().replace(['\r', '\n'], " ")
}

/// As short answers have it; a body with these bytes in it is nothing that a publisher is told.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::super::options::{Posting, Wrapping};
    use super::super::target::{Target, Template};
    use super::*;
    use crate::ground::config::{RedisAddress, RedisEndpoint};

    fn redis() -> Sink {
        let endpoint = RedisEndpoint::Tcp { host: "127.0.0.1".to_owned(), port: 6379 };
        let server =
            RedisAddress { endpoint, username: None, password: None, database: 0, tls: None };
        Sink::Redis { server, channel: Template::new("a-{n}"), history: None }
    }

    fn http() -> Sink {
        let body = Wrapping::parse("<{message}>").unwrap();
        let target = Target::parse("http://h:1/pub/{n}").unwrap();
        Sink::Http(Box::new(Posting { target, body, unanswered_max: 1 }))
    }

    /// Reads answers that arrive cut in two at every byte.
    #[track_caller]
    fn check(sink: &Sink, answers: &str, expected: Result<u32, &str>) {
        for cut in 0..=answers.len() {
            let (first, second) = answers.as_bytes().split_at(cut);
            let mut input = first.to_vec();
            let counted = sink.take_answers(&mut input).and_then(|before| {
                input.extend_from_slice(second);
                Ok(before.count + sink.take_answers(&mut input)?.count)
            });
            assert_eq!(counted.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e));
        }
    }

    #[test]
    fn redis_answers_with_a_number_of_receivers() {
        check(&redis(), ":0\r\n:12\r\n:", Ok(2));
        check(&redis(), ":0\r\n-NOPERM no\r\n", Err("NOPERM no"));
        check(&redis(), "+OK\r\n", Err("+OK"));
    }

    #[test]
    fn redis_answers_with_an_id() {
        check(&redis(), "$3\r\n7-0\r\n$4\r\n70-1\r\n$3\r\n8-", Ok(2));
        check(&redis(), "$3\r\n7-0\r\n-ERR no\r\n", Err("ERR no"));
    }

    #[test]
    fn http_answers_have_a_status_and_perhaps_a_body() {
        let ok = "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let none = "HTTP/1.1 204 No Content\r\n\r\n";
        check(&http(), &format!("{ok}{none}{chunked}HTTP"), Ok(3));
        check(&http(), "HTTP/1.1 404 No\r\n\r\n", Err("http/1.1 404 no"));
        let mut closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        assert!(http().take_answers(&mut closing).unwrap().closes);
    }

    #[test]
    fn messages_go_to_their_channel() {
        let mut output = Vec::new();
        redis().encode(3, b"x", &mut output);
        assert_eq!(output, b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na-3\r\n$1\r\nx\r\n");
        output.clear();
        http().encode(3, b"xy", &mut output);
        let text = String::from_utf8(output).unwrap();
        assert!(text.starts_with("POST /pub/3 HTTP/1.1\r\nHost: h:1\r\n"), "{text}");
        assert!(text.ends_with("Content-Length: 4\r\n\r\n<xy>"), "{text}");
    }
}
