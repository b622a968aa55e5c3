//! The binary under test: the real one, on ports of its own.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;

use super::address::Address;
use super::clock::eventually;
use super::http::{self, Response};
use super::process::Process;
use super::redis::{Client, Redis};
use super::stream::Stream;

pub(crate) struct Server {
    process: Process,
    /// Public listeners in the order of the banner.
    pub(crate) listeners: Vec<Address>,
    /// The embedded broker, or the Redis.
    pub(crate) broker: Address,
    pub(crate) admin: Address,
}

impl Server {
    /// Starts with the embedded broker, and waits until it is ready. What `options` leave open is
    /// chosen here: free ports, and the driver that `CORECAST_TEST_DRIVER` names.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_under(&[], options)
    }

    /// Starts on `redis`.
    pub(crate) fn with_redis(redis: &Redis, options: &[&str]) -> Self {
        let url = redis.url();
        Self::start(&[&["--redis", &url], options].concat())
    }

    /// Starts by way of another program, which is given the server's command line.
    pub(crate) fn start_under(wrapper: &[&str], options: &[&str]) -> Self {
        Self::run(&mut command(wrapper, options))
    }

    /// Starts with variables in its environment.
    pub(crate) fn with_environment(variables: &[(&str, &str)], options: &[&str]) -> Self {
        Self::run(command(&[], options).envs(variables.iter().copied()))
    }

    /// [`Self::start`], without the wait for links that may never be ready.
    pub(crate) fn start_unready(options: &[&str]) -> Self {
        Self::show(&mut command(&[], options))
    }

    fn run(command: &mut Command) -> Self {
        let server = Self::show(command);
        server.wait_ready();
        server
    }

    /// Starts, and reads the addresses in the banner.
    fn show(command: &mut Command) -> Self {
        let process = Process::start(command);
        let (mut listeners, mut broker) = (Vec::new(), None);
        let admin = process.output.find(|line| {
            let mut words = line.split_whitespace();
            let (word, address) = (words.next()?, words.next()?);
            match word {
                "streams" => listeners.push(Address::parse(address)?),
                "publish" => broker = Address::parse(address),
                "admin" => return Address::parse(address),
                _ => {}
            }
            None
        });
        let (Some(admin), Some(broker)) = (admin, broker) else {
            panic!("the server did not show its addresses\n{}", process.transcript());
        };
        Self { process, listeners, broker, admin }
    }

    /// Waits until every worker's link is subscribed.
    pub(crate) fn wait_ready(&self) {
        eventually("the server is ready", || {
            assert!(!self.process.has_ended(), "the server ended");
            (self.admin("/readyz").head.status == 200).then_some(())
        });
    }

    /// The first public listener.
    pub(crate) fn listener(&self) -> &Address {
        &self.listeners[0]
    }

    pub(crate) fn open(&self, target: &str) -> Stream {
        Stream::open(self.listener(), target)
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        http::get(self.listener(), target)
    }

    pub(crate) fn admin(&self, target: &str) -> Response {
        http::get(&self.admin, target)
    }

    /// A client of the embedded broker, or of the Redis.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.broker).unwrap()
    }

    pub(crate) fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) -> i64 {
        self.client().publish(channel, payload)
    }

    /// The sum of all samples whose name and labels begin with `name`; 0 where there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").body;
        let samples = text.lines().filter(|line| line.starts_with(name));
        samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// The first line of the log that has all of these words in it.
    pub(crate) fn log_line(&self, words: &[&str]) -> Option<String> {
        let matches = |line: &str| words.iter().all(|word| line.contains(word));
        self.process.errors.find(|line| matches(line).then(|| line.to_owned()))
    }

    pub(crate) fn banner_line(&self, words: &[&str]) -> Option<String> {
        let matches = |line: &str| words.iter().all(|word| line.contains(word));
        self.process.output.find(|line| matches(line).then(|| line.to_owned()))
    }

    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    pub(crate) fn wait_exit(&self) -> ExitStatus {
        self.process.wait()
    }

    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    pub(crate) fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }
}

/// The server's command line, with what `options` leave open filled in.
pub(crate) fn command(wrapper: &[&str], options: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_corecast");
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(binary);
            command
        }
        None => Command::new(binary),
    };
    let has = |option: &str| options.contains(&option);
    if !has("--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if !has("--admin-listen") {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    if !has("--redis") && !has("--broker-listen") {
        command.args(["--broker-listen", "127.0.0.1:0"]);
    }
    if let (false, Ok(driver)) = (has("--driver"), std::env::var("CORECAST_TEST_DRIVER")) {
        command.args(["--driver", &driver]);
    }
    command.args(options);
    command
}
