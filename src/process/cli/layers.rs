//! Settings that are no flags: the environment, and below it the configuration file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Values by the long name of their option; where both the environment and the file have one, that
/// of the environment.
#[derive(Debug, Default)]
pub(super) struct Layers {
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug)]
struct Setting {
    values: Vec<String>,
    /// Where they were read.
    source: String,
}

impl Layers {
    /// Reads a value for each option of `command` (those of `serve`: all that a file may hold).
    ///
    /// # Errors
    /// One line that names the variable, or the file and its line or key.
    pub(super) fn read(
        command: &Command,
        environment: &dyn Fn(&str) -> Option<OsString>,
        file: Option<&Path>,
    ) -> Result<Self, String> {
        let options: Vec<&Arg> = command.get_arguments().filter(|arg| is_setting(arg)).collect();
        let mut settings = BTreeMap::new();
        if let Some(path) = file {
            read_file(path, &options, &mut settings)
                .map_err(|problem| format!("--config {}: {problem}", path.display()))?;
        }
        for option in options {
            let name = option.get_long().unwrap_or_default();
            let variable = variable(name);
            let Some(value) = environment(&variable).filter(|value| !value.is_empty()) else {
                continue;
            };
            let value = value.into_string().map_err(|_| format!("{variable}: expected UTF-8"))?;
            let values = if is_repeatable(option) {
                value.split_whitespace().map(str::to_owned).collect()
            } else {
                vec![value]
            };
            if !values.is_empty() {
                settings.insert(name.to_owned(), Setting { values, source: variable });
            }
        }
        Ok(Self { settings })
    }

    /// Makes the values the defaults of their options, of those whose names are `wanted`.
    pub(super) fn apply(&self, command: Command, wanted: impl Fn(&str) -> bool) -> Command {
        command.mut_args(|arg| {
            let name = arg.get_long().filter(|name| wanted(name));
            match name.and_then(|name| self.settings.get(name)) {
                Some(setting) => arg.default_values(setting.values.clone()),
                None => arg,
            }
        })
    }

    /// Where the value of an option came from, unless it was a flag.
    pub(super) fn source(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|setting| setting.source.as_str())
    }
}

/// The environment variable of an option.
pub(super) fn variable(name: &str) -> String {
    format!("CORECAST_{}", name.to_ascii_uppercase().replace('-', "_"))
}

fn read_file(
    path: &Path,
    options: &[&Arg],
    settings: &mut BTreeMap<String, Setting>,
) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let table: Table = toml::from_str(&text).map_err(|error| {
        let start = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = start.matches('\n').count() + 1;
        format!("line {line}: {}", error.message().replace('\n', " "))
    })?;
    for (key, value) in table {
        let find = |option: &&&Arg| option.get_long() == Some(key.as_str());
        let Some(option) = options.iter().find(find) else {
            let known: Vec<_> = options.iter().filter_map(|option| option.get_long()).collect();
            return Err(format!("unknown key {key:?}: expected one of {}", known.join(", ")));
        };
        let values = match value {
            Value::Array(values) if is_repeatable(option) => {
                values.into_iter().map(scalar).collect()
            }
            value => scalar(value).map(|value| vec![value]),
        };
        let values = values.ok_or_else(|| match is_repeatable(option) {
            true => format!("key {key:?}: expected a string, or an array of strings"),
            false => format!("key {key:?}: expected a string, a whole number, true or false"),
        })?;
        if !values.is_empty() {
            settings.insert(key, Setting { values, source: path.display().to_string() });
        }
    }
    Ok(())
}

/// A value as it would stand behind its flag.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn is_setting(arg: &Arg) -> bool {
    let names_an_action = matches!(arg.get_long(), None | Some("config" | "help" | "version"));
    !names_an_action
}

fn is_repeatable(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}
