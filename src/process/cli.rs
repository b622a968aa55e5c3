//! The command line: flags, environment and configuration file become one checked [`Command`].

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::bench::options::{BenchOptions, FloorOptions};
use crate::bytes::history::HistoryOptions;
use crate::bytes::target::{Reserved, Routes};
use crate::ground::config::{Config, HistoryRules, ListenAddress, RequestLimits};
use crate::process::log::LogOptions;
use crate::process::publish::{EventFields, PublishOptions};

mod arguments;
mod bench;
mod layers;
mod redis;
#[cfg(test)]
mod tests;
mod values;

use arguments::{Arguments, PublishArguments, ServeArguments, Subcommand};
use layers::{Layers, variable};

/// What the process was asked to do.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Config>, LogOptions),
    Publish(PublishOptions),
    /// Print the library of functions.
    PrintFunction,
    Bench(Box<BenchOptions>),
    Floor(FloorOptions),
}

/// Why there is nothing to do but to say something.
#[derive(Debug)]
pub enum Exit {
    /// `--help` or `--version`.
    Shown(clap::Error),
    /// A bad value or option, in one line.
    Misused(String),
}

/// Reads the command line of a process, its own name first; `environment` looks up a variable.
///
/// # Errors
/// [`Exit`]: report it, and end with the code that says.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Exit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = Arguments::command();
    // Read twice: flags alone first, so that `--help` shows the defaults, an error is a flag's, and
    // the file is known; then with environment and file as the defaults.
    let matches = command
        .clone()
        .try_get_matches_from(&arguments)
        .map_err(|error| Exit::from_clap(error, &Layers::default()))?;
    let active = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    let file = active.get_one::<PathBuf>("config").cloned().or_else(|| {
        let path = environment(&variable("config")).filter(|path| !path.is_empty());
        path.map(PathBuf::from)
    });
    let layers = Layers::read(&command, &environment, file.as_deref()).map_err(Exit::Misused)?;
    let command = match matches.subcommand_name() {
        None => layers.apply(command, |_| true),
        Some("serve") => command.mut_subcommand("serve", |serve| layers.apply(serve, |_| true)),
        Some(tool) => command
            .mut_subcommand(tool, |tool| layers.apply(tool, |name| TOOL_SETTINGS.contains(&name))),
    };
    let arguments = command
        .try_get_matches_from(arguments)
        .and_then(|matches| Arguments::from_arg_matches(&matches))
        .map_err(|error| Exit::from_clap(error, &layers))?;
    match arguments.subcommand {
        None => serve(arguments.serve),
        Some(Subcommand::Serve(serve_arguments)) => serve(*serve_arguments),
        Some(Subcommand::Publish(publish_arguments)) => publish(*publish_arguments),
        Some(Subcommand::Bench(bench_arguments)) => bench_arguments.command(),
        Some(Subcommand::Floor(floor_arguments)) => Ok(floor_arguments.command()),
    }
    .map_err(Exit::Misused)
}

impl Exit {
    /// Says it: help and version on stdout with code 0, misuse on stderr with code 2.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            // A closed pipe (`corecast --help | head`) is nobody's error.
            Self::Shown(help) => {
                let _ = help.print();
                ExitCode::SUCCESS
            }
            Self::Misused(_) => {
                let _ = writeln!(std::io::stderr(), "corecast: {self}");
                ExitCode::from(2)
            }
        }
    }

    fn from_clap(error: clap::Error, layers: &Layers) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Shown(error),
            _ => Self::Misused(one_line(&error, layers)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(help) => help.fmt(f),
            Self::Misused(line) => f.write_str(line),
        }
    }
}

/// An error of clap's as one line: the option, the value, where it came from, what is allowed.
fn one_line(error: &clap::Error, layers: &Layers) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    if error.kind() == ErrorKind::ValueValidation {
        // "--listen <ADDR>", "[DATA]"
        let argument = context(ContextKind::InvalidArg);
        let option = argument.split(' ').next().unwrap_or_default();
        let value = values::redacted(option, &context(ContextKind::InvalidValue));
        let source = option.strip_prefix("--").and_then(|name| layers.source(name));
        let source = source.map(|source| format!(" (from {source})")).unwrap_or_default();
        let expected =
            std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        return format!("{option} {value:?}{source}: {expected}");
    }
    // clap writes paragraphs: what is wrong, tips, usage. The first ones say it all.
    let text = error.render().to_string();
    let paragraphs = text.split("\n\n").take_while(|paragraph| !paragraph.starts_with("Usage"));
    let paragraphs: Vec<String> = paragraphs
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !paragraph.is_empty() && !paragraph.starts_with("For more"))
        .collect();
    let line = paragraphs.join("; ");
    format!("{} (see corecast --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

fn serve(arguments: ServeArguments) -> Result<Command, String> {
    let log = LogOptions { format: arguments.log, level: arguments.log_level };
    let config = config(arguments)?;
    check(&config)?;
    Ok(Command::Serve(Box::new(config), log))
}

fn config(arguments: ServeArguments) -> Result<Config, String> {
    let workers = match arguments.workers {
        Some(workers) => workers,
        None => std::thread::available_parallelism()
            .map_err(|error| format!("--workers: cannot count the cores ({error}): give a number"))?
            .get(),
    };
    let strip_prefix = arguments.strip_prefix.into_bytes();
    check_prefixes("--history", arguments.history.iter().map(|rule| &*rule.prefix))?;
    Ok(Config {
        listen: arguments.listen,
        redis: redis::server(&arguments.redis)?,
        broker_listen: arguments.redis.broker_listen,
        broker_password: arguments.redis.broker_password,
        admin_listen: arguments.admin_listen,
        admin_token: arguments.admin_token,
        workers,
        pin: !arguments.no_pin,
        driver: arguments.driver,
        routes: arguments.routes,
        formats: arguments.formats,
        history: HistoryRules::new(arguments.history, &strip_prefix),
        history_ttl: arguments.history_ttl,
        broker_history_bytes: arguments.broker_history_bytes,
        strip_prefix,
        subscribe_ahead: arguments.subscribe_ahead.into_iter().map(String::into_bytes).collect(),
        heartbeat: non_zero(arguments.heartbeat),
        retry: arguments.retry,
        retry_jitter_percent: arguments.retry_jitter,
        max_connections: arguments.max_connections,
        limits: RequestLimits {
            head_bytes: arguments.max_head_bytes,
            channels: arguments.max_channels_per_connection,
            channel_bytes: arguments.max_channel_bytes,
        },
        max_event_bytes: arguments.max_event_bytes,
        head_timeout: arguments.head_timeout,
        max_pending_bytes: arguments.max_pending,
        max_intake_bytes: arguments.max_intake,
        dead_peer_timeout: non_zero(arguments.dead_peer_timeout),
        coalesce: arguments.coalesce,
        cors_origins: arguments.cors_origins,
        drain_time: arguments.drain_time,
    })
}

/// What holds between options.
fn check(config: &Config) -> Result<(), String> {
    let open = |listen: &str, address: &ListenAddress, secret: &str| {
        format!(
            "{listen} {address} needs {secret}: other hosts can reach it (without, only loopback \
             addresses and unix:/path are allowed)"
        )
    };
    if config.redis.is_none()
        && !config.broker_listen.is_local()
        && config.broker_password.is_none()
    {
        return Err(open("--broker-listen", &config.broker_listen, "--broker-password"));
    }
    if !config.admin_listen.is_local() && config.admin_token.is_none() {
        return Err(open("--admin-listen", &config.admin_listen, "--admin-token"));
    }
    check_prefixes("--format", config.formats.iter().map(|rule| &*rule.prefix))?;
    let reserved = Reserved::new(&config.subscribe_ahead, &config.strip_prefix);
    Routes::new(&config.routes, config.limits, reserved)
        .map(drop)
        .map_err(|error| format!("--route {error}"))
}

/// Refuses two rules for one prefix, of which one would be ignored.
fn check_prefixes<'a>(
    option: &str,
    prefixes: impl Iterator<Item = &'a [u8]>,
) -> Result<(), String> {
    let mut known = HashSet::new();
    for prefix in prefixes {
        if !known.insert(prefix) {
            let prefix = String::from_utf8_lossy(prefix);
            return Err(format!("{option}: two values for the prefix {prefix:?}: expected one"));
        }
    }
    Ok(())
}

fn publish(arguments: PublishArguments) -> Result<Command, String> {
    if arguments.print_function {
        return Ok(Command::PrintFunction);
    }
    let channel = arguments.channel.map(OsString::into_vec).unwrap_or_default();
    if channel.is_empty() {
        return Err("CHANNEL \"\": expected at least one byte".to_owned());
    }
    if arguments.history.is_some() && arguments.id.is_some() {
        return Err("--id: expected none beside --history, which gives the event its id".to_owned());
    }
    let ttl_ms = u64::try_from(arguments.history_ttl.as_millis()).unwrap_or(u64::MAX);
    let event_fields =
        EventFields { event: arguments.event, id: arguments.id, retry: arguments.retry };
    Ok(Command::Publish(PublishOptions {
        server: redis::server_or_broker(arguments.redis)?,
        channel,
        data: arguments.data.map(OsString::into_vec),
        event_fields,
        history: arguments.history.map(|kept| HistoryOptions { kept, ttl_ms }),
    }))
}

fn non_zero(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

/// The settings that the other subcommands share with `serve`. The `--retry` of `publish` is the
/// event's, not the streams', and its `--history` is of one channel.
const TOOL_SETTINGS: [&str; 7] = [
    "redis",
    "redis-ca",
    "redis-client-cert",
    "redis-client-key",
    "broker-listen",
    "broker-password",
    "history-ttl",
];
