//! A TCP proxy that can be cut: what a client's network is to its server.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: Arc<Mutex<Network>>,
}

/// The connections that pass; `None`: none may.
type Network = Option<Vec<TcpStream>>;

impl Proxy {
    /// Passes connections to `backend`.
    pub(crate) fn start(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(Mutex::new(Some(Vec::new())));
        let shared = Arc::clone(&network);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A connection that can't be passed is closed.
                let _ = pass(socket, backend, &shared);
            }
        });
        Self { address, network }
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        for socket in self.network.lock().unwrap().take().into_iter().flatten() {
            // It may have ended.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Passes new connections again.
    pub(crate) fn mend(&self) {
        self.network.lock().unwrap().get_or_insert_default();
    }
}

fn pass(client: TcpStream, backend: SocketAddr, network: &Mutex<Network>) -> io::Result<()> {
    let mut network = network.lock().unwrap();
    let Some(sockets) = &mut *network else { return Ok(()) };
    let server = TcpStream::connect(backend)?;
    sockets.extend([client.try_clone()?, server.try_clone()?]);
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || splice(from, to));
    thread::spawn(move || splice(server, client));
    Ok(())
}

/// Copies until either side ends, and passes the end on.
pub(super) fn splice(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
