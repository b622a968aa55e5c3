//! `corecast publish`: one event, or one per line of standard input, to Redis or the broker.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::bytes::event_stream::Event;
use crate::bytes::format::encode_envelope;
use crate::bytes::history::{EventId, HistoryOptions, LIBRARY_CODE, Publication};
use crate::bytes::quantity::count;
use crate::bytes::resp::{Reply, Value, encode_command};
use crate::ground::config::RedisAddress;
use crate::ground::limits::LINK_DEADLINE;
use crate::io::redis::{Client, ClientError, Redis};
use crate::io::tls::TlsError;

mod history;
#[cfg(test)]
mod tests;

use history::Method;

/// What to publish, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOptions {
    pub server: RedisAddress,
    pub channel: Vec<u8>,
    /// `None`: every line of standard input is an event.
    pub data: Option<Vec<u8>>,
    pub event_fields: EventFields,
    /// `None`: a plain PUBLISH, which the embedded broker may keep all the same.
    pub history: Option<HistoryOptions>,
}

/// The fields of an event beside its data. With any of them the payload is an envelope, which every
/// format reads; without, it is the data as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFields {
    pub event: Option<String>,
    pub id: Option<String>,
    pub retry: Option<Duration>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    pub events: u64,
    /// Subscribers of Redis, summed over the events: workers of corecast that have the channel.
    /// Those of events in history are not known.
    pub receivers: u64,
    /// The id of the last event, in history.
    pub last_id: Option<EventId>,
}

/// Why publishing ended early.
#[derive(Debug)]
pub struct PublishError {
    server: String,
    problem: Box<Problem>,
    published: Published,
}

#[derive(Debug)]
enum Problem {
    Tls(TlsError),
    Redis(ClientError),
    /// The server's reasons against the function and against the script.
    NoHistory {
        function: String,
        script: String,
    },
    Input(io::Error),
    LineTooLong,
}

/// Publishes, and says on stdout or stderr what became of it; code 1 if it failed.
#[must_use]
pub fn run(options: &PublishOptions) -> ExitCode {
    match publish(options, &mut io::stdin().lock()) {
        Ok(published) => {
            let receivers = count(published.receivers, "receiver");
            let events = count(published.events, "event");
            // A closed pipe changes nothing about what was published.
            let _ = match (&options.data, published.last_id) {
                (Some(_), Some(id)) => writeln!(io::stdout(), "{id}"),
                (Some(_), None) => writeln!(io::stdout(), "{receivers}"),
                (None, Some(id)) => writeln!(io::stdout(), "{events}, the last is {id}"),
                (None, None) => writeln!(io::stdout(), "{events}, {receivers} in all"),
            };
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "corecast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the library of functions, for FUNCTION LOAD.
#[must_use]
pub fn print_function() -> ExitCode {
    // A closed pipe is nobody's error.
    let _ = io::stdout().write_all(LIBRARY_CODE.as_bytes());
    ExitCode::SUCCESS
}

/// Publishes the data of `options`, or else the lines of `input`: those that have arrived together
/// leave together, and none waits for one that has not arrived. A line ends in LF or CR LF.
///
/// # Errors
/// [`PublishError`], which says how many events were published before.
pub fn publish(
    options: &PublishOptions,
    input: &mut impl BufRead,
) -> Result<Published, PublishError> {
    let mut published = Published::default();
    publish_to(options, input, &mut published).map_err(|problem| PublishError {
        server: options.server.endpoint.to_string(),
        problem: Box::new(problem),
        published,
    })?;
    Ok(published)
}

fn publish_to(
    options: &PublishOptions,
    input: &mut impl BufRead,
    published: &mut Published,
) -> Result<(), Problem> {
    let redis = Redis::new(options.server.clone()).map_err(Problem::Tls)?;
    let client = Client::open(&redis).map_err(Problem::Redis)?;
    let mut link =
        Link { client, commands: Vec::new(), unanswered: 0, method: Method::Unknown, published };
    match &options.data {
        Some(data) => link.add(options, data)?,
        None => link.add_lines(options, input)?,
    }
    link.flush()
}

/// A connection to Redis, with the commands that are yet to be sent.
struct Link<'a> {
    client: Client,
    commands: Vec<u8>,
    /// Invariant: the number of events in `commands`, at most [`BATCH_EVENTS_MAX`].
    unanswered: usize,
    /// How events come into history.
    method: Method,
    published: &'a mut Published,
}

impl Link<'_> {
    fn add(&mut self, options: &PublishOptions, data: &[u8]) -> Result<(), Problem> {
        match options.history {
            Some(HistoryOptions { kept, ttl_ms }) => {
                let (event, payload) = event_and_payload(data, &options.event_fields);
                let channel = &options.channel;
                let publication = Publication {
                    channel,
                    kept,
                    ttl_ms,
                    payload: &payload,
                    event: event.as_bytes(),
                    bytes_max: None,
                };
                self.add_to_history(&publication)?;
            }
            None => {
                let payload = payload(data, &options.event_fields);
                encode_command(&[b"PUBLISH", &options.channel, &payload], &mut self.commands);
                self.unanswered += 1;
            }
        }
        if self.unanswered >= BATCH_EVENTS_MAX || self.commands.len() >= BATCH_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn add_lines(
        &mut self,
        options: &PublishOptions,
        input: &mut impl BufRead,
    ) -> Result<(), Problem> {
        // The start of a line whose end has not arrived.
        let mut start = Vec::new();
        loop {
            let chunk = match input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk.map_err(Problem::Input)?,
            };
            if chunk.is_empty() {
                break;
            }
            for piece in chunk.split_inclusive(|&byte| byte == b'\n') {
                match piece.strip_suffix(b"\n") {
                    Some(line) if start.is_empty() => self.add(options, without_cr(line))?,
                    Some(end) => {
                        start.extend_from_slice(end);
                        self.add(options, without_cr(&start))?;
                        start.clear();
                    }
                    None => start.extend_from_slice(piece),
                }
            }
            let consumed = chunk.len();
            input.consume(consumed);
            if start.len() > LINE_BYTES_MAX {
                return Err(Problem::LineTooLong);
            }
            self.flush()?;
        }
        if start.is_empty() { Ok(()) } else { self.add(options, without_cr(&start)) }
    }

    /// Sends what is there and waits for the answers.
    fn flush(&mut self) -> Result<(), Problem> {
        self.send()?;
        while self.unanswered > 0 {
            let reply = self.read_reply()?;
            if self.method == Method::Unknown {
                self.published.add_receivers(&reply)?;
            } else {
                self.published.add_id(&reply)?;
            }
            self.unanswered -= 1;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Problem> {
        self.client.send(&self.commands).map_err(Problem::Redis)?;
        self.commands.clear();
        Ok(())
    }

    /// A reply: a number, a word, or a string, as all those to our commands are.
    fn read_reply(&mut self) -> Result<String, Problem> {
        let text = self.client.reply(|reply| match reply {
            Reply::Simple(text) | Reply::Other(Value::String(text)) => {
                Some(String::from_utf8_lossy(text).into_owned())
            }
            Reply::Other(Value::Integer(number)) => Some(number.to_string()),
            _ => None,
        });
        text.map_err(Problem::Redis)?.ok_or(Problem::Redis(ClientError::NotRedis))
    }
}

impl Published {
    /// Counts an event by the answer to its PUBLISH.
    fn add_receivers(&mut self, answer: &str) -> Result<(), Problem> {
        self.receivers +=
            answer.parse::<u64>().map_err(|_| Problem::Redis(ClientError::NotRedis))?;
        self.events += 1;
        Ok(())
    }

    /// Counts an event in history, whose id is the answer.
    fn add_id(&mut self, answer: &str) -> Result<(), Problem> {
        let id = EventId::parse(answer.as_bytes()).ok_or(Problem::Redis(ClientError::NotRedis))?;
        self.last_id = Some(id);
        self.events += 1;
        Ok(())
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.problem {
            Problem::Tls(error) => write!(f, "{error}"),
            Problem::Redis(error) => show_redis(f, &self.server, error),
            Problem::NoHistory { function, script } => write!(
                f,
                "{} lets this user neither load the function that keeps events ({function}) nor \
                 run its script ({script}): let another user load it, by corecast publish \
                 --print-function | redis-cli -x FUNCTION LOAD REPLACE",
                self.server
            ),
            Problem::Input(error) => write!(f, "standard input cannot be read: {error}"),
            Problem::LineTooLong => {
                write!(f, "line too long: at most {LINE_BYTES_MAX} bytes are allowed")
            }
        }?;
        match self.published.events {
            0 => Ok(()),
            events => write!(f, " ({} published before)", count(events, "event")),
        }
    }
}

impl std::error::Error for PublishError {}

fn show_redis(f: &mut fmt::Formatter<'_>, server: &str, error: &ClientError) -> fmt::Result {
    match error {
        ClientError::Locate(error) => write!(f, "cannot find {server}: {error}"),
        ClientError::Unreachable(error) => write!(
            f,
            "cannot reach {server}: {error}; is corecast (or Redis) running there? (--redis or \
             --broker-listen name another address)"
        ),
        ClientError::Tls(error) => write!(f, "no TLS with {server}: {error}"),
        ClientError::Lost(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            write!(f, "{server} did not answer within {} s", LINK_DEADLINE.as_secs())
        }
        ClientError::Lost(error) => write!(f, "connection to {server} lost: {error}"),
        ClientError::Closed => write!(f, "{server} closed the connection"),
        ClientError::Refused(reply) if reply.starts_with("NOAUTH") => write!(
            f,
            "{server} wants a password: give it with --broker-password, or in --redis \
             redis://user:password@host"
        ),
        ClientError::Refused(reply) if reply.starts_with("WRONGPASS") => {
            write!(f, "{server} refused the user or the password")
        }
        ClientError::Refused(reply) => write!(f, "{server} refused: {reply}"),
        ClientError::NotRedis => write!(f, "{server} does not speak the Redis protocol"),
        ClientError::NotMaster => write!(f, "{server} is no master any more"),
    }
}

/// How an event's type and data stand in history: apart, unless there is a third field.
fn event_and_payload<'a>(data: &'a [u8], fields: &'a EventFields) -> (&'a str, Cow<'a, [u8]>) {
    match (&fields.event, &fields.id, fields.retry) {
        (Some(event), None, None) => (event, Cow::Borrowed(data)),
        _ => ("", payload(data, fields)),
    }
}

fn payload<'a>(data: &'a [u8], fields: &EventFields) -> Cow<'a, [u8]> {
    if *fields == EventFields::default() {
        return Cow::Borrowed(data);
    }
    let mut payload = Vec::new();
    let event = Event {
        event: fields.event.as_deref().unwrap_or_default().as_bytes().into(),
        data: data.into(),
        id: fields.id.as_ref().map(|id| id.as_bytes().into()),
        retry_ms: fields.retry.map(|retry| u64::try_from(retry.as_millis()).unwrap_or(u64::MAX)),
    };
    encode_envelope(&event, &mut payload);
    Cow::Owned(payload)
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Events and bytes sent before their answers are read: so few answers fit into socket buffers, and
/// neither side waits for the other to read.
const BATCH_EVENTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// What Redis takes as one argument (proto-max-bulk-len).
const LINE_BYTES_MAX: usize = 512 * 1024 * 1024;
