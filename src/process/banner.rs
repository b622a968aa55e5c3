//! What the server says on stdout once it serves: where what is, and two commands to try.

use std::fmt;

use crate::sys::runtime::DriverKind;

#[derive(Debug)]
pub(super) struct Banner {
    pub(super) workers: usize,
    pub(super) driver: DriverKind,
    pub(super) capacity: usize,
    /// Public listeners, as URLs.
    pub(super) streams: Vec<String>,
    /// First route, as a path.
    pub(super) path: String,
    /// Where to publish, as a URL without credentials.
    pub(super) publish: String,
    /// Port of the embedded broker; none where there is a Redis, or a unix socket.
    pub(super) broker_port: Option<u16>,
    pub(super) is_embedded: bool,
    pub(super) admin: String,
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        let driver = match self.driver {
            DriverKind::Uring => "io_uring",
            DriverKind::Epoll => "epoll",
        };
        let plural = if self.workers == 1 { "" } else { "s" };
        writeln!(
            f,
            "corecast {version}: {} worker{plural} on {driver}, up to {} connections",
            self.workers, self.capacity
        )?;
        for listener in &self.streams {
            let path = if listener.starts_with("http") { &self.path } else { "" };
            writeln!(f, "  streams  {listener}{path}")?;
        }
        let embedded = if self.is_embedded { " (embedded broker)" } else { "" };
        writeln!(f, "  publish  {}{embedded}", self.publish)?;
        writeln!(f, "  admin    {}", self.admin)?;
        let stream = self.streams.iter().find(|url| url.starts_with("http"));
        if let Some(stream) = stream
            && self.path == DEFAULT_PATH
        {
            writeln!(f, "Try:")?;
            writeln!(f, "  curl -N {stream}/events/news")?;
            match self.broker_port {
                Some(6379) => writeln!(f, "  redis-cli PUBLISH news hello")?,
                Some(port) => writeln!(f, "  redis-cli -p {port} PUBLISH news hello")?,
                None if self.publish.contains("+sentinel:") => {
                    writeln!(f, "  corecast publish --redis {} news hello", self.publish)?;
                }
                None => writeln!(f, "  redis-cli -u {} PUBLISH news hello", self.publish)?,
            }
        }
        Ok(())
    }
}

/// What the banner shows of the default routes.
pub(super) const DEFAULT_PATH: &str = "/events/{channel}";
