//! Where Redis is, from a URL and the options beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use percent_encoding::percent_decode_str;

use super::values::{self, host_and_port};
use crate::ground::config::{
    ListenAddress, RedisAddress, RedisEndpoint, Secret, Sentinels, TlsFiles,
};
use crate::io::redis::Redis;

#[cfg(test)]
mod tests;

/// Where events come from: shared by `serve` and `publish`.
#[derive(Args)]
pub(super) struct RedisArguments {
    /// Redis server: redis://[user:password@]host[:port][/database], rediss:// for TLS,
    /// unix:///path, or redis+sentinel://[user:password@]host[:port],…/master[/database]
    /// [?sentinel_password=…] [default: the broker that is part of corecast]
    #[arg(long, value_name = "URL", help_heading = REDIS, value_parser = redis_url)]
    pub(super) redis: Option<RedisAddress>,
    /// PEM file of the certificate authorities to trust on rediss:// [default: this host's]
    #[arg(long, value_name = "FILE", help_heading = REDIS, value_parser = values::pem_file)]
    pub(super) redis_ca: Option<PathBuf>,
    /// PEM file of our certificate on rediss:// [default: none]
    #[arg(long, value_name = "FILE", help_heading = REDIS, value_parser = values::pem_file)]
    pub(super) redis_client_cert: Option<PathBuf>,
    /// PEM file of the key to our certificate [default: none]
    #[arg(long, value_name = "FILE", help_heading = REDIS, value_parser = values::pem_file)]
    pub(super) redis_client_key: Option<PathBuf>,
    /// Address of the broker, where any Redis client can publish: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR", help_heading = REDIS)]
    #[arg(value_parser = values::listen_address, default_value = "127.0.0.1:6380")]
    pub(super) broker_listen: ListenAddress,
    /// Password of the broker; required beyond loopback and unix sockets [default: none]
    #[arg(long, value_name = "PASSWORD", help_heading = REDIS, value_parser = values::secret)]
    pub(super) broker_password: Option<Secret>,
}

pub(super) const REDIS: &str = "Redis";

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const EXPECTED: &str = "expected redis://[user:password@]host[:port][/database], rediss:// (TLS), \
                        unix:///path or redis+sentinel://[user:password@]host[:port],…/master";

/// `redis://[user:password@]host[:port][/database]`, the same with `rediss`,
/// `unix://[user:password@]/path`, or `redis+sentinel://` (`rediss+sentinel://`) with several hosts
/// and the name of the master before the database.
pub(super) fn redis_url(text: &str) -> Result<RedisAddress, String> {
    let expected = || EXPECTED.to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
    let (secure, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
        ("unix", "") => (false, Kind::Unix),
        ("redis", "") => (false, Kind::Tcp),
        ("rediss", "") => (true, Kind::Tcp),
        ("redis", "sentinel") => (false, Kind::Sentinel),
        ("rediss", "sentinel") => (true, Kind::Sentinel),
        ("redis" | "rediss", "cluster") => {
            return Err(format!("{scheme}:// is not supported by this version; {EXPECTED}"));
        }
        _ => return Err(expected()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let sentinel_password = match (&kind, query.strip_prefix("sentinel_password=")) {
        (Kind::Sentinel, Some(password)) if !password.contains(['&', '#']) => {
            Some(Secret::from(decoded(password)?))
        }
        _ if query.is_empty() && !text.contains(['?', '#']) => None,
        _ => return Err(format!("parameters (?) are not supported; {EXPECTED}")),
    };
    let (authority, path) = match rest.find('/').and_then(|at| rest.split_at_checked(at)) {
        Some(parts) => parts,
        None => (rest, ""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (username, password) = redis_user(user)?;
    let (endpoint, database) = match kind {
        Kind::Unix => {
            let path = decoded(path)?;
            if !host.is_empty() || path.len() < 2 {
                return Err(expected());
            }
            (RedisEndpoint::Unix(PathBuf::from(path)), Some(0))
        }
        Kind::Tcp => {
            let (host, port) = redis_host(host, REDIS_PORT).ok_or_else(expected)?;
            (RedisEndpoint::Tcp { host, port }, number(path.strip_prefix('/').unwrap_or_default()))
        }
        Kind::Sentinel => {
            let path = path.strip_prefix('/').unwrap_or_default();
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            let hosts: Option<Vec<_>> =
                host.split(',').map(|host| redis_host(host, SENTINEL_PORT)).collect();
            let (master, hosts) = (decoded(master)?, hosts.ok_or_else(expected)?);
            if master.is_empty() {
                return Err(expected());
            }
            let sentinels = Sentinels { hosts, master, password: sentinel_password };
            (RedisEndpoint::Sentinel(Box::new(sentinels)), number(database))
        }
    };
    let database = database.ok_or_else(expected)?;
    let tls = secure.then(Box::default);
    Ok(RedisAddress { endpoint, username, password, database, tls })
}

enum Kind {
    Unix,
    Tcp,
    Sentinel,
}

/// The Redis server that was named, with the files of its TLS, all of which are there.
pub(super) fn server(arguments: &RedisArguments) -> Result<Option<RedisAddress>, String> {
    let mut redis = arguments.redis.clone();
    let files = TlsFiles {
        authorities: arguments.redis_ca.clone(),
        certificate: match (&arguments.redis_client_cert, &arguments.redis_client_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(_), None) => return Err("--redis-client-cert needs --redis-client-key".into()),
            (None, Some(_)) => return Err("--redis-client-key needs --redis-client-cert".into()),
        },
    };
    match redis.as_mut().and_then(|redis| redis.tls.as_mut()) {
        Some(tls) => **tls = files,
        None if files == TlsFiles::default() => {}
        None => {
            let options = "--redis-ca, --redis-client-cert and --redis-client-key";
            return Err(format!("{options} need --redis rediss://…, which is TLS"));
        }
    }
    if let Some(redis) = &redis {
        Redis::new(redis.clone()).map_err(|error| error.to_string())?;
    }
    Ok(redis)
}

/// Where to publish: at the Redis server, or at the broker; its wildcard addresses mean this host.
pub(super) fn server_or_broker(arguments: RedisArguments) -> Result<RedisAddress, String> {
    if let Some(redis) = server(&arguments)? {
        return Ok(redis);
    }
    let endpoint = match arguments.broker_listen {
        ListenAddress::Unix(path) => RedisEndpoint::Unix(path),
        ListenAddress::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            RedisEndpoint::Tcp { host: ip.to_string(), port: address.port() }
        }
    };
    let password = arguments.broker_password;
    Ok(RedisAddress { endpoint, username: None, password, database: 0, tls: None })
}

/// For tools that know only what is near and in the clear.
pub(super) fn plain_only(redis: Option<&RedisAddress>) -> Result<(), String> {
    match redis {
        Some(RedisAddress { endpoint: RedisEndpoint::Sentinel(_), .. })
        | Some(RedisAddress { tls: Some(_), .. }) => {
            Err("--redis: bench takes redis:// or unix:// only".to_owned())
        }
        _ => Ok(()),
    }
}

fn number(digits: &str) -> Option<u32> {
    match digits {
        "" => Some(0),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

fn redis_user(user: &str) -> Result<(Option<String>, Option<Secret>), String> {
    if user.is_empty() {
        return Ok((None, None));
    }
    let Some((name, password)) = user.split_once(':') else {
        return Err(
            "a user needs a password, user:password@; a password alone is :password@".to_owned()
        );
    };
    let name = decoded(name)?;
    let password = decoded(password)?;
    if name.is_empty() && password.is_empty() {
        return Ok((None, None));
    }
    Ok((Some(name).filter(|name| !name.is_empty()), Some(Secret::from(password))))
}

fn redis_host(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = host_and_port(text)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.unwrap_or(default_port)))
}

fn decoded(text: &str) -> Result<String, String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("expected percent-encoded UTF-8".to_owned()),
    }
}
