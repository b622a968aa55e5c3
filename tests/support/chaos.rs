//! Several servers on one Redis, some of them behind a proxy, and everything that can go wrong with
//! such a system.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use corecast::bytes::history::{self, EventId};
use rustix::process::Signal;

use super::address::Address;
use super::channels;
use super::clock::{let_pass, now, time_of_day_ms};
use super::fault_proxy::{FaultProxy, Way};
use super::http;
use super::intruder::EVENT_BYTES_MAX;
use super::judge::Reset;
use super::ledger::Notice;
use super::process::Process;
use super::redis::{Client, Redis, Reply, free_ports};
use super::resumption::{add_user, url_of};
use super::server::command;

/// Servers of a system.
const SERVERS: usize = 3;

/// Links of a server: one of each worker.
const LINKS: u64 = 2;

/// How the servers call themselves to Redis.
const USER: &str = "sse";

/// Milliseconds that Redis may be away from a server, each way.
const DISTANCE_MS_MAX: u64 = 50;

/// The metric of lost links, by reason.
const LOSSES: &str = "corecast_link_losses_total{reason=\"";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// CLIENT KILL of all subscribed connections, or of one of them.
    KillLinks { all: bool },
    /// CLIENT PAUSE, of everything or of writes.
    Pause { all: bool, ms: u64 },
    /// SIGSTOP of Redis, and SIGCONT.
    Freeze { ms: u64 },
    /// XTRIM of a channel.
    Trim { channel: usize, kept: usize },
    /// The links of a server behind a proxy.
    Link { proxy: usize, fault: LinkFault, ms: u64 },
    /// How far Redis is from a server behind a proxy, in milliseconds each way.
    Distance { proxy: usize, ms: [u64; 2] },
    /// The end of a server, by SIGKILL or SIGTERM, and its return.
    Restart { server: usize, kill: bool, ms: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkFault {
    Cut,
    End(Way),
    BlackHole,
    HalfBlackHole(Way),
    Refuse,
    Delay(Way),
    Slow(Way),
    Dribble(Way),
    Spoil(Way),
}

impl Fault {
    /// Draws the same number of times from `random`, whatever comes out.
    pub(crate) fn draw(random: &mut fastrand::Rng) -> Self {
        let kind = random.u32(0..110);
        let (choice, is_long) = (random.usize(0..1000), random.u32(0..10) == 0);
        let share = random.u64(0..1000);
        let all = choice % 2 == 0;
        let way = if choice % 2 == 0 { Way::ToServer } else { Way::ToClient };
        let between = |least: u64, most: u64| least + (most - least) * share / 1000;
        let link = |fault, ms| Self::Link { proxy: choice / 2 % 2, fault, ms };
        match kind {
            0..=19 => Self::KillLinks { all: choice % 4 == 0 },
            20..=29 => Self::Pause { all, ms: between(80, if is_long { 1000 } else { 300 }) },
            30..=39 => Self::Freeze { ms: between(20, if is_long { 3000 } else { 500 }) },
            40..=45 => Self::Trim { channel: choice % channels::OPEN, kept: 1 + choice / 20 },
            46..=60 => link(LinkFault::Cut, 0),
            61..=65 => link(LinkFault::End(way), 0),
            66..=69 => {
                link(LinkFault::BlackHole, between(100, if is_long { 12_000 } else { 2000 }))
            }
            70..=73 => link(LinkFault::HalfBlackHole(way), between(100, 2000)),
            74..=76 => link(LinkFault::Refuse, between(50, 1500)),
            77..=80 => link(LinkFault::Delay(way), between(200, 2000)),
            81..=83 => link(LinkFault::Slow(way), between(200, 2000)),
            84..=86 => link(LinkFault::Dribble(way), between(100, 1000)),
            87..=93 => link(LinkFault::Spoil(way), 0),
            100..=109 => Self::Distance {
                proxy: choice / 2 % 2,
                ms: [between(0, DISTANCE_MS_MAX), choice as u64 % (1 + DISTANCE_MS_MAX)],
            },
            _ => Self::Restart { server: choice % SERVERS, kill: all, ms: between(0, 1000) },
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillLinks { .. } => "CLIENT KILL",
            Self::Pause { .. } => "CLIENT PAUSE",
            Self::Freeze { .. } => "SIGSTOP of Redis",
            Self::Trim { .. } => "XTRIM",
            Self::Distance { .. } => "distance",
            Self::Restart { kill: true, .. } => "SIGKILL of a server",
            Self::Restart { kill: false, .. } => "SIGTERM of a server",
            Self::Link { fault, .. } => match fault {
                LinkFault::Cut => "cut",
                LinkFault::End(_) => "end of one half",
                LinkFault::BlackHole => "black hole",
                LinkFault::HalfBlackHole(_) => "black hole one way",
                LinkFault::Refuse => "refusal",
                LinkFault::Delay(_) => "delay",
                LinkFault::Slow(_) => "low rate",
                LinkFault::Dribble(_) => "writes of one byte",
                LinkFault::Spoil(_) => "spoiled byte",
            },
        }
    }
}

/// A server on ports that stay.
pub(crate) struct Node {
    pub(crate) listen: SocketAddr,
    admin: Address,
    redis_url: String,
    process: Option<Process>,
    is_ending: bool,
    /// Links that its earlier processes have lost, by reason.
    losses: BTreeMap<String, u64>,
}

impl Node {
    fn start(redis_url: String, ports: &[u16; 2]) -> Self {
        let [listen, admin] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut node = Self {
            listen,
            admin: Address::Tcp(admin),
            redis_url,
            process: None,
            is_ending: false,
            losses: BTreeMap::new(),
        };
        node.run();
        node
    }

    fn run(&mut self) {
        let (listen, admin) = (self.listen.to_string(), self.admin.tcp().to_string());
        let options = ["--redis", &self.redis_url, "--listen", &listen, "--admin-listen", &admin];
        let (workers, bytes_max) = (LINKS.to_string(), EVENT_BYTES_MAX.to_string());
        let more = ["--workers", &workers, "--history", "1000000", "--heartbeat", "1s"];
        let quiet = ["--drain-time", "200ms", "--log-level", "warn", "--max-pending", "1MiB"];
        let bounds = ["--max-event-bytes", &bytes_max];
        let options = [&options[..], &more, &quiet, &bounds].concat();
        self.is_ending = false;
        self.process = Some(Process::start(&mut command(&[], &options)));
    }

    fn is_ready(&self) -> bool {
        self.admin.connect().is_ok() && http::get(&self.admin, "/readyz").head.status == 200
    }

    /// Links that it has lost, by reason, those of its earlier processes included.
    fn losses(&self) -> BTreeMap<String, u64> {
        let mut losses = self.losses.clone();
        // One that has just been started, or is about to end, has nobody to ask.
        if self.admin.connect().is_err() {
            return losses;
        }
        let text = http::get(&self.admin, "/metrics").body;
        for sample in text.lines().filter_map(|line| line.strip_prefix(LOSSES)) {
            let (reason, count) = sample.split_once("\"} ").unwrap();
            *losses.entry(reason.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
        losses
    }

    /// Nothing but a signal ends it, and no worker dies.
    fn check(&self) {
        let Some(process) = &self.process else { return };
        let is_well = (self.is_ending || !process.has_ended())
            && process.errors.find_within(Duration::from_millis(1), is_panic).is_none();
        assert!(is_well, "{}", process.transcript());
    }
}

fn is_panic(line: &str) -> Option<()> {
    line.contains("panic").then_some(())
}

/// What is to be undone, when its time has come.
#[derive(Clone, Copy)]
enum Repair {
    Heal { proxy: usize },
    Run { server: usize },
}

/// Servers on one Redis: the first is connected to it directly, the others by way of proxies.
pub(crate) struct System {
    pub(crate) redis: Redis,
    control: Client,
    proxies: Vec<FaultProxy>,
    pub(crate) nodes: Vec<Node>,
    repairs: Vec<(Instant, Repair)>,
    /// Channels that were trimmed, and the latest event of each that is gone.
    pub(crate) trimmed: HashMap<usize, EventId>,
    /// How often each fault was made.
    pub(crate) faults: BTreeMap<&'static str, usize>,
    /// The same of those that were the end of links: of any server, …
    killed: u64,
    /// … and of each server behind a proxy.
    spoiled: [u64; SERVERS - 1],
}

impl System {
    pub(crate) fn start() -> Self {
        let redis = Redis::start();
        let mut control = redis.client();
        add_user(&mut control, USER, &channels::RIGHTS);
        // Each server knows from its beginning that these have messages which are not kept.
        for channel in channels::MIXED {
            let mut mark = Vec::new();
            history::encode_mark(channels::name(channel).as_bytes(), &mut mark);
            control.send_bytes(&mark).unwrap();
            control.reply().unwrap();
        }
        let proxy = || FaultProxy::start(redis.address().tcp());
        let proxies: Vec<FaultProxy> = (1..SERVERS).map(|_| proxy()).collect();
        let urls = [redis.url()].into_iter().chain(proxies.iter().map(FaultProxy::url));
        let ports = free_ports::<{ 2 * SERVERS }>();
        let (ports, _) = ports.as_chunks();
        let nodes = urls.zip(ports).map(|(url, ports)| Node::start(url_of(USER, &url), ports));
        let nodes = nodes.collect();
        Self {
            control,
            redis,
            proxies,
            nodes,
            repairs: Vec::new(),
            faults: BTreeMap::new(),
            trimmed: HashMap::new(),
            killed: 0,
            spoiled: [0; SERVERS - 1],
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.nodes.iter().all(Node::is_ready)
    }

    /// Makes the fault, unless its victim lies down already. The judge is told of events that go.
    pub(crate) fn inflict(&mut self, fault: Fault, notices: &Sender<Notice>) {
        let is_made = match fault {
            Fault::KillLinks { all } => self.kill_links(all),
            Fault::Pause { all, ms } => {
                let (ms, kind) = (ms.to_string(), if all { "ALL" } else { "WRITE" });
                self.command(&["CLIENT", "PAUSE", &ms, kind]) == Reply::Simple("OK".to_owned())
            }
            Fault::Freeze { ms } => {
                self.redis.signal(Signal::STOP);
                let_pass(Duration::from_millis(ms));
                self.redis.signal(Signal::CONT);
                true
            }
            Fault::Trim { channel, kept } => {
                let tell = |until_ms| _ = notices.send(Notice::Trimmed { channel, until_ms });
                tell(u64::MAX);
                let is_made = self.trim(channel, kept);
                tell(time_of_day_ms());
                is_made
            }
            Fault::Distance { proxy, ms } => {
                for (way, ms) in [Way::ToServer, Way::ToClient].into_iter().zip(ms) {
                    self.proxies[proxy].set_distance(way, Duration::from_millis(ms));
                }
                true
            }
            Fault::Link { proxy, fault, ms } => self.disturb(proxy, fault, ms),
            Fault::Restart { server, kill, ms } => self.end(server, kill, ms),
        };
        if is_made {
            *self.faults.entry(fault.name()).or_default() += 1;
        }
    }

    fn command(&mut self, words: &[&str]) -> Reply {
        let arguments: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.control.command(&arguments)
    }

    fn trim(&mut self, channel: usize, kept: usize) -> bool {
        let key = history::stream_key(channels::name(channel).as_bytes());
        let key = String::from_utf8(key).unwrap();
        let trimmed = self.command(&["XTRIM", &key, "MAXLEN", &kept.to_string()]);
        let Reply::Integer(1..) = trimmed else { return false };
        // The oldest event that is left tells the id of the one before it.
        let oldest = self.command(&["XRANGE", &key, "-", "+", "COUNT", "1"]);
        let previous = array(&oldest).first().and_then(|entry| array(entry).get(1)).map(array);
        match previous.and_then(|fields| fields.get(1)) {
            Some(Reply::Bulk(Some(id))) => {
                self.trimmed.insert(channel, EventId::parse(id).unwrap());
                true
            }
            _ => panic!("XRANGE answered {oldest:?}"),
        }
    }

    /// Whether there is a cause for this reset: the judge's, or that its client missed something
    /// that is gone.
    pub(crate) fn explains(&self, reset: &Reset) -> bool {
        let is_gone = self.trimmed.get(&reset.channel).is_some_and(|id| reset.cursor < *id);
        reset.cause.is_some() || reset.reason == "history-trimmed" && is_gone
    }

    /// How many events Redis keeps of a channel of which nothing was trimmed.
    pub(crate) fn kept_of(&mut self, channel: usize) -> Option<usize> {
        if self.trimmed.contains_key(&channel) {
            return None;
        }
        let key = String::from_utf8(history::stream_key(channels::name(channel).as_bytes()));
        match self.command(&["XLEN", &key.unwrap()]) {
            Reply::Integer(length) => usize::try_from(length).ok(),
            reply => panic!("XLEN answered {reply:?}"),
        }
    }

    fn kill_links(&mut self, all: bool) -> bool {
        if all {
            let reply = self.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            self.killed += LINKS;
            return matches!(reply, Reply::Integer(killed) if killed > 0);
        }
        self.killed += 1;
        let Reply::Bulk(Some(list)) = self.command(&["CLIENT", "LIST", "TYPE", "pubsub"]) else {
            return false;
        };
        let list = String::from_utf8(list).unwrap();
        let first = list.strip_prefix("id=").and_then(|rest| rest.split(' ').next());
        first.is_some_and(|id| self.command(&["CLIENT", "KILL", "ID", id]) == Reply::Integer(1))
    }

    fn disturb(&mut self, index: usize, fault: LinkFault, ms: u64) -> bool {
        let is_victim = |(_, repair): &(Instant, Repair)| match repair {
            Repair::Heal { proxy } => *proxy == index,
            _ => false,
        };
        if self.repairs.iter().any(is_victim) {
            return false;
        }
        let proxy = &self.proxies[index];
        match fault {
            LinkFault::Cut => proxy.cut(),
            LinkFault::End(way) => proxy.end(way),
            LinkFault::BlackHole => proxy.hold_both(true),
            LinkFault::HalfBlackHole(way) => proxy.hold(way, true),
            LinkFault::Refuse => {
                proxy.refuse(true);
                proxy.cut();
            }
            LinkFault::Delay(way) => proxy.delay(way, Duration::from_millis(1 + ms / 40)),
            LinkFault::Slow(way) => proxy.limit(way, 20_000),
            LinkFault::Dribble(way) => proxy.dribble(way, true),
            // No payload has one, so whoever reads it notices.
            LinkFault::Spoil(way) => {
                proxy.spoil(way, b'\r');
                self.spoiled[index] += 1;
            }
        }
        if ms > 0 {
            let until = now() + Duration::from_millis(ms);
            self.repairs.push((until, Repair::Heal { proxy: index }));
        }
        true
    }

    fn end(&mut self, server: usize, kill: bool, ms: u64) -> bool {
        self.nodes[server].check();
        let node = &mut self.nodes[server];
        let is_down = self
            .repairs
            .iter()
            .any(|repair| matches!(repair.1, Repair::Run { server: other } if other == server));
        let Some(process) = node.process.as_ref().filter(|_| !is_down) else { return false };
        node.losses = node.losses();
        if kill {
            node.process = None;
        } else {
            process.signal(Signal::TERM);
            node.is_ending = true;
        }
        self.repairs.push((now() + Duration::from_millis(ms), Repair::Run { server }));
        true
    }

    /// Undoes what has lasted long enough; `all`: everything.
    pub(crate) fn repair(&mut self, all: bool) {
        let now = now();
        let (due, later) = std::mem::take(&mut self.repairs)
            .into_iter()
            .partition(|(until, _)| all || *until <= now);
        self.repairs = later;
        for (_, repair) in due {
            match repair {
                Repair::Heal { proxy } => self.proxies[proxy].heal(),
                Repair::Run { server } => {
                    let node = &mut self.nodes[server];
                    if let Some(process) = node.process.take() {
                        let status = process.wait();
                        assert!(status.success(), "{status}\n{}", process.transcript());
                    }
                    node.run();
                }
            }
        }
    }

    pub(crate) fn check(&self) {
        self.nodes.iter().for_each(Node::check);
    }

    /// Links that each server has lost, by reason: the first is connected to Redis directly.
    pub(crate) fn losses(&self) -> Vec<BTreeMap<String, u64>> {
        self.nodes.iter().map(Node::losses).collect()
    }

    /// What these losses have that no fault can have been the reason for.
    pub(crate) fn unexplained_losses(&self, losses: &[BTreeMap<String, u64>]) -> Vec<String> {
        let mut unexplained = Vec::new();
        for (server, losses) in losses.iter().enumerate() {
            let of = |reasons: &[&str]| -> u64 {
                reasons.iter().filter_map(|reason| losses.get(*reason)).sum()
            };
            let spoiled = server.checked_sub(1).map(|proxy| self.spoiled[proxy]);
            let mut most = vec![
                // A byte that was spoiled is one of one link, in a question or in an answer.
                (&["protocol", "refused"][..], spoiled.unwrap_or(0)),
                (&["unreachable", "tls", "moved", "behind"], 0),
            ];
            if server == 0 {
                // Nothing is between it and Redis, which is never silent for long.
                most.push((&["closed"], self.killed));
                most.push((&["undelivered"], 0));
            }
            for (reasons, most) in most.into_iter().filter(|(reasons, most)| of(reasons) > *most) {
                let count = of(reasons);
                unexplained.push(format!("server {server}: {count} {reasons:?}, {most} at most"));
            }
        }
        unexplained
    }

    /// The sum of a metric over all servers as they run now.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let texts = self.nodes.iter().map(|node| http::get(&node.admin, "/metrics").body);
        let sum = |text: String| -> f64 {
            let samples = text.lines().filter(|line| line.starts_with(name));
            samples.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
        };
        texts.map(sum).sum()
    }
}

fn array(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(parts) => parts,
        _ => &[],
    }
}
