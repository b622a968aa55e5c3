//! Other people's programs, installed by `tests/install`: Python, Node, Chromium, redis-cli.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::address::Address;

/// A Python program of `tests/clients` in the environment of that name.
pub(crate) fn python(environment: &str, program: &str) -> Command {
    let interpreter = tests().join(".venv").join(environment).join("bin/python");
    assert!(interpreter.exists(), "{} is missing; see tests/install", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg(clients().join(program));
    command
}

/// A Node program of `tests/clients`.
pub(crate) fn node(program: &str) -> Command {
    let packages = clients().join("node_modules");
    assert!(packages.exists(), "{} is missing; see tests/install", packages.display());
    let mut command = Command::new("node");
    command.current_dir(clients()).arg(program);
    command
}

/// `redis-cli` on a Redis, or on what claims to be one.
pub(crate) fn redis_cli(address: &Address) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string()]);
    command
}

/// A Python program of `tests/clients` that needs nothing but Python, as words of a command line.
pub(crate) fn plain_python(program: &str) -> [String; 2] {
    ["python3".to_owned(), clients().join(program).display().to_string()]
}

/// Headless Chromium on `url`, with a profile in `profile`.
pub(crate) fn chromium(profile: &Path, url: &str) -> Command {
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update"])
        .args(["--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url);
    command
}

/// An empty directory of the test's own, under cargo's directory for such things.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    // Left over by an earlier process of the same number.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn clients() -> PathBuf {
    tests().join("clients")
}
