//! The server: what it listens on, what its threads start with, and how many streams fit.
//!
//! `main` makes what crosses threads (bells, listeners that are shared), starts a thread for the
//! embedded broker, one for the admin listener and one for each worker, and then only waits: see
//! [`supervisor`](super::supervisor).

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;

use tracing::warn;

use crate::admin::{self, Overview};
use crate::broker::{self, BrokerCounters, BrokerListener, BrokerOptions};
use crate::bytes::format::Formats;
use crate::bytes::target::{Reserved, Routes};
use crate::ground::config::{
    Config, Driver, ListenAddress, RedisAddress, RedisEndpoint, Sentinels,
};
use crate::ground::ids::WorkerId;
use crate::ground::limits::{CONNECTION_MEMORY_BYTES, DESCRIPTORS_RESERVED};
use crate::io::prober::{self, ProbeLine, Probes};
use crate::io::redis::Redis;
use crate::io::wake::Wake;
use crate::process::banner::{Banner, DEFAULT_PATH};
use crate::process::error::ServeError;
use crate::process::supervisor::{Ending, Supervisor};
use crate::state::counters::Counters;
use crate::sys::runtime::{self, DriverKind};
use crate::sys::thread::spawn;
use crate::sys::{host, raw, socket};
use crate::worker::{Capacity, ListenerSetup, Mailbox, Setup};

/// Serves, and says on stderr why if it can't.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    match serve(config) {
        Ok(Ending::Drained) => ExitCode::SUCCESS,
        Ok(Ending::CutShort) => ExitCode::FAILURE,
        Err(error) => {
            // Not a log line: whoever starts the server by hand wants to read it as it is.
            eprintln!("corecast: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`] says what kept the server from starting or from going on.
pub fn serve(config: Config) -> Result<Ending, ServeError> {
    // Before any thread: they inherit the mask, so that only this one hears signals.
    let signals = raw::signals()?;
    let descriptors = host::raise_descriptor_limit();
    let driver = choose_driver(config.driver)?;
    let has_private_tables = can_have_private_tables(descriptors);
    let reserved = Reserved::new(&config.subscribe_ahead, &config.strip_prefix);
    let routes = Arc::new(Routes::new(&config.routes, config.limits, reserved)?);
    let formats = Arc::new(Formats::new(&config.formats, &config.strip_prefix));

    let public = Public::listen(&config.listen)?;
    let broker = match &config.redis {
        Some(_) => None,
        None => Some(Broker::start(&config, has_private_tables)?),
    };
    let (redis, publish) = match (&config.redis, &broker) {
        (Some(redis), _) => (redis.clone(), redis_url(redis)),
        (None, Some(broker)) => (broker.address.clone(), broker.name.clone()),
        (None, None) => return Err(ServeError::Thread("broker")),
    };
    let redis = Redis::new(redis)?;
    let room = Room::new(&config, descriptors, has_private_tables);
    let workers: Arc<[Arc<Counters>]> = (0..config.workers).map(|_| Arc::default()).collect();
    let capacity = room.capacity(&workers);
    let bell = Arc::new(Wake::new()?);
    let mut setups = Vec::with_capacity(config.workers);
    let config = Arc::new(config);
    let probes = Arc::new(Probes::new(config.workers)?);
    for (number, counters) in workers.iter().enumerate() {
        let id = WorkerId(u16::try_from(number).unwrap_or(u16::MAX));
        setups.push(Setup {
            id,
            config: Arc::clone(&config),
            routes: Arc::clone(&routes),
            formats: Arc::clone(&formats),
            redis: redis.clone(),
            probes: ProbeLine::new(Arc::clone(&probes), id),
            driver,
            listeners: public.setups.clone(),
            capacity: capacity.clone(),
            counters: Arc::clone(counters),
            mailbox: Arc::new(Mailbox::new(Arc::clone(&bell))?),
        });
    }
    let counted = broker.as_ref().map(|broker| Arc::clone(&broker.counters));
    let overview =
        Arc::new(Overview::new(workers, counted, Arc::clone(&probes), config.admin_token.clone()));
    let admin = start_admin(&config.admin_listen, &overview, has_private_tables)?;
    let banner = Banner {
        workers: config.workers,
        driver,
        capacity: room.process,
        streams: public.names.clone(),
        path: config.routes.first().map_or(DEFAULT_PATH, |route| &route.path).to_owned(),
        publish,
        broker_port: broker.as_ref().and_then(|broker| broker.port),
        is_embedded: broker.is_some(),
        admin,
    };
    let prober = spawn("prober", has_private_tables, move || prober::run(&redis, &probes))?;
    let supervisor = Supervisor::start(setups, bell, overview, has_private_tables)?;
    let mut threads = vec![("prober", &prober)];
    threads.extend(broker.as_ref().map(|broker| ("broker", &broker.thread)));
    let mut stdout = io::stdout().lock();
    supervisor.run(&signals, &threads, &config, || {
        // Nobody may be reading; the server serves all the same.
        let _ = write!(stdout, "{banner}").and_then(|()| stdout.flush());
    })
}

/// The public listeners, as far as they belong to the process.
struct Public {
    setups: Vec<ListenerSetup>,
    names: Vec<String>,
    /// Ports and unix sockets, for the life of the process.
    held: Vec<Held>,
}

/// Keeps an address ours.
enum Held {
    Port { _socket: OwnedFd },
    Unix { _listener: UnixListener, path: PathBuf },
}

impl Public {
    fn listen(addresses: &[ListenAddress]) -> Result<Self, ServeError> {
        let mut public = Self { setups: Vec::new(), names: Vec::new(), held: Vec::new() };
        for address in addresses {
            let failed = |error| listen_error("--listen", address, error);
            match address {
                ListenAddress::Tcp(address) => {
                    let (held, found) = socket::reserve_tcp(*address).map_err(failed)?;
                    public.setups.push(ListenerSetup::Own(found));
                    public.names.push(format!("http://{found}"));
                    public.held.push(Held::Port { _socket: held });
                }
                ListenAddress::Unix(path) => {
                    let listener = socket::listen_unix(path).map_err(failed)?;
                    public.setups.push(ListenerSetup::Shared(listener.as_raw_fd()));
                    public.names.push(format!("unix:{}", path.display()));
                    public.held.push(Held::Unix { _listener: listener, path: path.clone() });
                }
            }
        }
        Ok(public)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Self::Unix { path, .. } = self {
            // Already gone is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The embedded broker, running.
struct Broker {
    thread: JoinHandle<io::Result<()>>,
    counters: Arc<BrokerCounters>,
    /// Where the workers' links find it.
    address: RedisAddress,
    /// As the banner shows it.
    name: String,
    port: Option<u16>,
}

impl Broker {
    fn start(config: &Config, private_table: bool) -> Result<Self, ServeError> {
        let failed = |error| listen_error("--broker-listen", &config.broker_listen, error);
        let (listener, endpoint, name, port) = match &config.broker_listen {
            ListenAddress::Tcp(address) => {
                let listener = socket::listen_tcp_alone(*address).map_err(failed)?;
                let found = listener.local_addr().map_err(failed)?;
                let host = reachable(found.ip()).to_string();
                let endpoint = RedisEndpoint::Tcp { host, port: found.port() };
                (
                    BrokerListener::Tcp(listener),
                    endpoint,
                    format!("redis://{found}"),
                    Some(found.port()),
                )
            }
            ListenAddress::Unix(path) => {
                let listener = socket::listen_unix(path).map_err(failed)?;
                let name = format!("unix://{}", path.display());
                (BrokerListener::Unix(listener), RedisEndpoint::Unix(path.clone()), name, None)
            }
        };
        let options = BrokerOptions {
            password: config.broker_password.clone(),
            payload_bytes_max: config.max_event_bytes,
            history: config.history.clone(),
            history_ttl: config.history_ttl,
            history_bytes_max: config.broker_history_bytes,
        };
        let password = config.broker_password.clone();
        let counters = Arc::new(BrokerCounters::default());
        let counted = Arc::clone(&counters);
        let thread = spawn("broker", private_table, move || {
            // Nobody rings: the broker ends with the process, after the last event is out.
            let never = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
            broker::run(listener, options, never, counted)
        })?;
        let address = RedisAddress { endpoint, username: None, password, database: 0, tls: None };
        Ok(Self { thread, counters, address, name, port })
    }
}

/// Starts the admin listener and returns where it is, as a URL.
fn start_admin(
    address: &ListenAddress,
    overview: &Arc<Overview>,
    private_table: bool,
) -> Result<String, ServeError> {
    let failed = |error| listen_error("--admin-listen", address, error);
    let (listener, name): (OwnedFd, String) = match address {
        ListenAddress::Tcp(address) => {
            let listener = socket::listen_tcp_alone(*address).map_err(failed)?;
            let found = listener.local_addr().map_err(failed)?;
            (listener.into(), format!("http://{found}/metrics"))
        }
        ListenAddress::Unix(path) => {
            let listener = socket::listen_unix(path).map_err(failed)?;
            (listener.into(), format!("unix:{}", path.display()))
        }
    };
    let overview = Arc::clone(overview);
    spawn("admin", private_table, move || admin::run(&listener, &overview))?;
    Ok(name)
}

fn choose_driver(wanted: Driver) -> Result<DriverKind, ServeError> {
    match (wanted, wanted != Driver::Epoll && runtime::has_uring()) {
        (_, true) => Ok(DriverKind::Uring),
        (Driver::Epoll, false) => Ok(DriverKind::Epoll),
        (Driver::Uring, false) => Err(ServeError::NoUring),
        (Driver::Auto, false) => {
            warn!("this host refuses io_uring (kernel, sysctl or seccomp): running on epoll");
            Ok(DriverKind::Epoll)
        }
    }
}

/// Whether threads can have descriptor tables of their own. Tried by a thread that ends with it.
fn can_have_private_tables(descriptors: usize) -> bool {
    let tried = std::thread::spawn(raw::make_descriptor_table_private).join();
    if matches!(tried, Ok(Ok(()))) {
        return true;
    }
    warn!(
        "this host refuses private descriptor tables (close_range, unshare): the workers run on \
         one shared table of {descriptors} descriptors"
    );
    false
}

/// How many connections fit.
struct Room {
    /// Into one worker's descriptor table.
    worker: usize,
    /// Into the process: what was asked for, within what descriptors and memory allow.
    process: usize,
}

impl Room {
    fn new(config: &Config, descriptors: usize, has_private_tables: bool) -> Self {
        let table = if has_private_tables { descriptors } else { descriptors / config.workers };
        let worker = table.saturating_sub(DESCRIPTORS_RESERVED).max(1);
        let all = worker.saturating_mul(config.workers);
        let by_memory =
            host::available_memory().map_or(usize::MAX, |bytes| bytes / CONNECTION_MEMORY_BYTES);
        let possible = all.min(by_memory).max(1);
        let wanted = config.max_connections.unwrap_or(possible);
        if wanted > possible {
            warn!(
                "--max-connections {wanted} is more than fits: descriptors allow {all} (nofile \
                 {descriptors}, {} workers), memory {by_memory}",
                config.workers
            );
        }
        Self { worker, process: wanted.min(possible) }
    }

    /// What a worker is told. It looks at the others only where they may take its room.
    fn capacity(&self, workers: &Arc<[Arc<Counters>]>) -> Capacity {
        let is_shared = self.process < self.worker.saturating_mul(workers.len());
        let process = is_shared.then(|| (self.process, Arc::clone(workers)));
        Capacity { worker: self.worker, process }
    }
}

/// An address under which a listener on `ip` is found from this host.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// A Redis address without credentials.
fn redis_url(address: &RedisAddress) -> String {
    let scheme = if address.tls.is_some() { "rediss" } else { "redis" };
    match &address.endpoint {
        RedisEndpoint::Unix(path) => format!("unix://{}", path.display()),
        RedisEndpoint::Sentinel(sentinels) => {
            let Sentinels { hosts, master, .. } = &**sentinels;
            let host = |(host, port): &(String, u16)| {
                RedisEndpoint::Tcp { host: host.clone(), port: *port }.to_string()
            };
            let hosts: Vec<String> = hosts.iter().map(host).collect();
            format!("{scheme}+sentinel://{}/{master}", hosts.join(","))
        }
        tcp @ RedisEndpoint::Tcp { .. } => format!("{scheme}://{tcp}"),
    }
}

fn listen_error(option: &'static str, address: &ListenAddress, error: io::Error) -> ServeError {
    let address = match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    ServeError::Listen { option, address, error }
}
