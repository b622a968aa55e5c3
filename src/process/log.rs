//! Logs on stderr: lines of text, or of JSON.

use std::io::{self, IsTerminal};

use tracing::{Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    pub format: LogFormat,
    /// The least severe level that is logged.
    pub level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, message and fields; coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// The same as one JSON object a line.
    Json,
}

/// Sends the logs of every thread to stderr. Only the first call of a process counts.
pub fn init(options: &LogOptions) {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = io::stderr().is_terminal() && !no_color;
    // It fails if logs have a way already: the first call's.
    let _ = tracing::subscriber::set_global_default(subscriber(options, colours, io::stderr));
}

fn subscriber<W>(
    options: &LogOptions,
    colours: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_max_level(options.level)
        .with_target(false)
        .with_ansi(colours)
        .with_writer(writer);
    match options.format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc;

    use super::*;

    struct Lines(mpsc::Sender<Vec<u8>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What two records, of which one is too detailed, become.
    fn logged(format: LogFormat) -> String {
        let (sender, receiver) = mpsc::channel();
        let options = LogOptions { format, level: Level::INFO };
        let subscriber = subscriber(&options, false, move || Lines(sender.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("too detailed");
            tracing::warn!(channel = "a\nb", count = 3, "dropped");
        });
        String::from_utf8(receiver.into_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn text_has_time_level_message_and_fields() {
        let text = logged(LogFormat::Text);
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, " WARN dropped channel=\"a\\nb\" count=3\n");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json);
        assert_eq!(text.lines().count(), 1, "{text}");
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["level"], "WARN");
        assert_eq!(record["message"], "dropped");
        assert_eq!(record["channel"], "a\nb");
        assert_eq!(record["count"], 3);
        assert!(record["timestamp"].is_string());
    }
}
