//! Where the streams are: a URL whose path may hold the number of a stream's channel.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use percent_encoding::percent_decode_str;

use crate::bytes::history::EventId;

/// A text in which `{n}` stands for the number of a channel, `{nnn}` for one of three digits or
/// more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As the `Host` field has it.
    authority: String,
    path: Template,
}

impl Template {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether each number gives another text.
    #[must_use]
    pub fn has_number(&self) -> bool {
        placeholder(&self.0).is_some()
    }

    #[must_use]
    pub fn text(&self, number: u32) -> String {
        let (mut text, mut rest) = (String::new(), self.0.as_str());
        while let Some((before, digits, after)) = placeholder(rest) {
            text += before;
            text += &format!("{number:0digits$}");
            rest = after;
        }
        text + rest
    }
}

impl Target {
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST[:PORT]/PATH".to_owned();
        if text.starts_with("https://") {
            return Err(format!("https is not supported; {}", expected()));
        }
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(format!("{} in printable ASCII without a fragment", expected()));
        }
        let slash = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(slash).ok_or_else(expected)?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(expected)?)
            }
            _ => (authority, 80),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains('@') {
            return Err(expected());
        }
        let path = Template::new(if path.is_empty() { "/" } else { path });
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), path })
    }

    /// The same path of another server.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
            authority: address.to_string(),
            path: self.path.clone(),
        }
    }

    /// Whether each channel has a URL of its own.
    #[must_use]
    pub fn has_number(&self) -> bool {
        self.path.has_number()
    }

    /// Whether a stream of several channels has a URL: its query is repeated for each.
    #[must_use]
    pub fn has_number_in_query_alone(&self) -> bool {
        let (path, query) = self.path.0.split_once('?').unwrap_or_default();
        placeholder(path).is_none() && placeholder(query).is_some()
    }

    /// The channel that the default routes of corecast stream at this URL.
    #[must_use]
    pub fn default_channel(&self) -> Option<Template> {
        let (path, query) = self.path.0.split_once('?').unwrap_or((&self.path.0, ""));
        let channel = match path {
            "/events" => query.split('&').find_map(|pair| pair.strip_prefix("channel="))?,
            _ => path.strip_prefix("/events/")?,
        };
        let channel = percent_decode_str(channel).decode_utf8().ok()?;
        (!channel.is_empty()).then(|| Template::new(&channel))
    }

    /// # Errors
    /// What the resolver answers, or that the name has no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let no_address = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(no_address)
    }

    /// The request of a stream of these channels, as a browser's EventSource sends it: that of one
    /// that comes back has the id of the last event it had.
    #[must_use]
    pub fn stream_request(
        &self,
        numbers: impl Iterator<Item = u32>,
        last: Option<EventId>,
    ) -> Vec<u8> {
        let mut path = String::new();
        for number in numbers {
            let text = self.path.text(number);
            match text.split_once('?') {
                Some((_, query)) if !path.is_empty() => {
                    path.push('&');
                    path.push_str(query);
                }
                _ => path = text,
            }
        }
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{last}\r\n",
            self.authority
        )
        .into_bytes()
    }

    /// The head of a request that publishes `bytes` bytes on channel `number`.
    #[must_use]
    pub fn publish_request(&self, number: u32, bytes: usize) -> Vec<u8> {
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
             Content-Length: {bytes}\r\n\r\n",
            self.path.text(number),
            self.authority
        )
        .into_bytes()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path.0)
    }
}

/// What stands before the first placeholder of a text, its number of digits, and what follows.
fn placeholder(text: &str) -> Option<(&str, usize, &str)> {
    let mut braces = text.match_indices('{').filter_map(|(start, _)| text.split_at_checked(start));
    braces.find_map(|(before, rest)| {
        let inner = rest.strip_prefix('{')?;
        let after = inner.trim_start_matches('n');
        let digits = inner.len() - after.len();
        (digits > 0).then_some((before, digits, after.strip_prefix('}')?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_path() {
        for (url, host, port, path) in [
            ("http://127.0.0.1:8080/events/a", "127.0.0.1", 8080, "/events/a"),
            ("http://example.org", "example.org", 80, "/"),
            ("http://[::1]:81/a?b=c", "::1", 81, "/a?b=c"),
            ("http://[::1]/", "::1", 80, "/"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
            assert_eq!(target.path.0, path, "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "",
            "127.0.0.1:8080",
            "https://example.org/",
            "http://",
            "http:///a",
            "http://a:b/",
            "http://a:0/",
            "http://a:99999/",
            "http://user@a/",
            "http://a/b c",
            "http://a/b\r\nX: y",
            "http://a/#b",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_number_of_the_channel_stands_in_the_path() {
        let target = Target::parse("http://h:1/events/a-{n}/{n}").unwrap();
        assert!(target.has_number());
        let request = |target: &Target, numbers: &[u32], last| {
            String::from_utf8(target.stream_request(numbers.iter().copied(), last)).unwrap()
        };
        let new = request(&target, &[12], None);
        assert!(new.starts_with("GET /events/a-12/12 HTTP/1.1\r\nHost: h:1\r\n"), "{new}");
        assert!(new.ends_with("no-cache\r\n\r\n"));
        let back = request(&target, &[12], Some(EventId { ms: 7, seq: 1 }));
        assert!(back.ends_with("no-cache\r\nLast-Event-ID: 7-1\r\n\r\n"));
        let query = Target::parse("http://h:1/events?channel=a-{n}").unwrap();
        let several = request(&query, &[9, 0], None);
        assert!(several.starts_with("GET /events?channel=a-9&channel=a-0 HTTP"), "{several}");
        for (url, is_in_query) in [("http://h/{n}?a={n}", false), ("http://h/a?b", false)] {
            assert_eq!(Target::parse(url).unwrap().has_number_in_query_alone(), is_in_query);
        }
        assert!(query.has_number_in_query_alone() && !target.has_number_in_query_alone());
        assert_eq!(target.default_channel().unwrap().text(3), "a-3/3");
        let other = target.at("127.0.0.1:9".parse().unwrap());
        assert_eq!(other.to_string(), "http://127.0.0.1:9/events/a-{n}/{n}");
    }

    #[test]
    fn numbers_may_have_leading_zeros() {
        for (text, expected) in [
            ("{n}", "42"),
            ("a{nnn}b{n}", "a042b42"),
            ("{nnnnn}{{n}}", "00042{42}"),
            ("{}{x}{nx}{n", "{}{x}{nx}{n"),
        ] {
            assert_eq!(Template::new(text).text(42), expected);
            assert_eq!(Template::new(text).has_number(), text != expected);
        }
    }

    #[test]
    fn the_default_routes_tell_the_channel() {
        let channel = |url| Target::parse(url).unwrap().default_channel();
        assert_eq!(channel("http://h/events/a%20b?x=y"), Some(Template::new("a b")));
        assert_eq!(channel("http://h/events?a=b&channel=c%2F{n}"), Some(Template::new("c/{n}")));
        assert_eq!(channel("http://h/events?a=b"), None);
        assert_eq!(channel("http://h/events/"), None);
        assert_eq!(channel("http://h/stream/a"), None);
    }
}
