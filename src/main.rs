//! The binary: allocator, and the way into [`corecast::process`].

use std::process::ExitCode;

use corecast::bench::{self, floor};
use corecast::process::cli::{self, Command};
use corecast::process::{log, publish, server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(exit) => return exit.report(),
    };
    match command {
        Command::Publish(options) => publish::run(&options),
        Command::PrintFunction => publish::print_function(),
        Command::Bench(options) => bench::run(&options),
        Command::Floor(options) => floor::run(&options),
        Command::Serve(config, logging) => {
            log::init(&logging);
            server::run(*config)
        }
    }
}
