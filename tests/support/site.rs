//! An application's web server: one page, a place for the page to report to, and every other path
//! passed byte for byte to the server under test, as a reverse proxy on the same origin would.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use serde_json::Value;

use super::clock::PATIENCE;

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    reports: Receiver<Value>,
}

impl Site {
    /// Binds a port for the site, so that its origin is known before anything else starts.
    pub(crate) fn bind() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        (listener, origin)
    }

    /// Serves `page` at `/`, and passes other paths to `backend`.
    pub(crate) fn serve(listener: TcpListener, page: String, backend: SocketAddr) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (page, sender) = (page.clone(), sender.clone());
                // A browser may end any connection at any moment.
                thread::spawn(move || _ = answer(socket, &page, backend, &sender));
            }
        });
        Self { address, reports }
    }

    /// What the page reports next.
    pub(crate) fn next_report(&self) -> Option<Value> {
        self.reports.recv_timeout(PATIENCE).ok()
    }
}

fn answer(
    mut socket: TcpStream,
    page: &str,
    backend: SocketAddr,
    reports: &Sender<Value>,
) -> io::Result<()> {
    let (head, mut body) = read_head(&mut socket)?;
    let target = head.split(' ').nth(1).unwrap_or_default();
    match target {
        "/" => respond(&mut socket, "text/html; charset=utf-8", page),
        "/favicon.ico" => respond(&mut socket, "image/x-icon", ""),
        "/report" => {
            while body.len() < content_length(&head) {
                let mut buffer = [0; 4096];
                let length = socket.read(&mut buffer)?;
                body.extend_from_slice(&buffer[..length]);
            }
            // The test may be over.
            let _ = reports.send(serde_json::from_slice(&body)?);
            respond(&mut socket, "text/plain", "")
        }
        _ => {
            let mut upstream = TcpStream::connect(backend)?;
            upstream.write_all(head.as_bytes())?;
            upstream.write_all(&body)?;
            let (from, to) = (socket.try_clone()?, upstream.try_clone()?);
            thread::spawn(move || splice(from, to));
            splice(upstream, socket);
            Ok(())
        }
    }
}

/// The head as text, its empty line included, and what came behind it.
fn read_head(socket: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..length]);
        if let Some(end) = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
    }
}

fn content_length(head: &str) -> usize {
    let find = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(find).unwrap_or(0)
}

fn respond(socket: &mut TcpStream, content_type: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    socket.write_all(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .as_bytes(),
    )
}

/// Copies until either side ends, and passes the end on.
fn splice(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
