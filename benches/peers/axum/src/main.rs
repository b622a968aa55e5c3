//! What a Rust team would write to stream Redis channels to browsers: axum's `Sse`, a tokio
//! broadcast channel per Redis channel, the redis client. `axum-baseline LISTEN REDIS_URL WORKERS`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{Receiver, Sender, error::RecvError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages that a slow stream may be behind.
const MESSAGES_BEHIND_MAX: usize = 1024;

/// The broadcast of each channel that somebody has asked for.
#[derive(Clone, Default)]
struct Channels(Arc<RwLock<HashMap<String, Sender<Event>>>>);

impl Channels {
    fn subscribe(&self, channel: String) -> Receiver<Event> {
        let mut channels = self.0.write().unwrap();
        channels.entry(channel).or_insert_with(|| Sender::new(MESSAGES_BEHIND_MAX)).subscribe()
    }

    /// Encodes once; each stream takes a copy.
    fn publish(&self, channel: &str, payload: &str) {
        if let Some(sender) = self.0.read().unwrap().get(channel) {
            // Fails only if nobody listens.
            let _ = sender.send(Event::default().data(payload));
        }
    }
}

async fn events(
    State(channels): State<Channels>,
    Path(channel): Path<String>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(channels.subscribe(channel), |mut receiver| async {
        loop {
            match receiver.recv().await {
                Ok(event) => return Some((Ok(event), receiver)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

async fn serve(listen: &str, redis: &str) -> Result<(), Box<dyn Error>> {
    let channels = Channels::default();
    let mut pubsub = redis::Client::open(redis)?.get_async_pubsub().await?;
    pubsub.psubscribe("*").await?;
    let own = channels.clone();
    tokio::spawn(async move {
        let mut messages = pubsub.on_message();
        while let Some(message) = messages.next().await {
            let payload = String::from_utf8_lossy(message.get_payload_bytes());
            own.publish(message.get_channel_name(), &payload);
        }
        // Streams without messages would look alive.
        std::process::exit(1);
    });
    let router = Router::new().route("/events/{channel}", get(events)).with_state(channels);
    let listener = TcpListener::bind(listen).await?.tap_io(|socket| {
        // Only makes it slower.
        let _ = socket.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, redis, workers] = arguments.as_slice() else {
        return Err("usage: axum-baseline LISTEN REDIS_URL WORKERS".into());
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers.parse()?).enable_all().build()?.block_on(serve(listen, redis))
}
