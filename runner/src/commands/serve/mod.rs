//! `quantmill serve`: a language model over HTTP, in the words of OpenAI's API.
//!
//! `POST /v1/chat/completions` and `/v1/completions` (whole or streamed), `GET /v1/models`, `/health`
//! and `/metrics`. One thread computes, for all requests in one batch; HTTP runs beside it. What comes
//! from outside is bounded: connections, waiting requests (429), bodies (413), the time to send a head
//! or a body (408), the time of an answer, tokens. What a request asks for and is not here (tools,
//! penalties, biases) is an error and never left out.
//!
//! It listens on loopback unless told otherwise, and elsewhere only with a token. There is no TLS: put
//! a proxy in front.

mod api;
mod http;
mod metrics;
mod worker;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::models::Which;
use crate::exit::{Failure, code};
use crate::report::text::count;
use metrics::Metrics;
use worker::Worker;

/// Arguments of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    which: Which,
    /// Where to listen; any but a loopback address needs a token
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one and says which
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// The environment variable that holds the token that clients must bring
    #[arg(long, value_name = "NAME", default_value = "QUANTMILL_TOKEN")]
    token_env: String,
    /// The name that clients know the model by [default: that of its file or folder]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Samples that run at once
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Requests that wait for their turn; more are told to come back (429)
    #[arg(long, value_name = "N", default_value_t = 64)]
    queue: u16,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Most tokens of an answer, and how many where a request names no number
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Largest body of a request, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_body: usize,
    /// Longest time of an answer with its waiting, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
    /// Longest time to send a head or a body, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15,
        value_parser = clap::value_parser!(u32).range(1..))]
    read_timeout: u32,
}

/// The examples of `serve --help`.
pub const EXAMPLES: &str = "\
Examples:
  quantmill serve smollm2.gguf
  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"model\": \"smollm2.gguf\", \"messages\": [{\"role\": \"user\", \"content\": \"What is a spread?\"}]}'
  QUANTMILL_TOKEN=$(cat token) quantmill serve out/model --host 0.0.0.0 --name desk
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python client.py

Ctrl-C or TERM: no new connections, answers under way are finished; again: at once.";

/// What all connections share.
struct Server {
    arguments: Serve,
    name: String,
    token: Option<String>,
    worker: Worker,
    /// Requests that run or wait.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    began: u64,
}

/// Serves until a signal.
pub fn serve(arguments: &Serve) -> Result<(), Failure> {
    let token = std::env::var(&arguments.token_env).ok().filter(|token| !token.is_empty());
    let addresses = addresses(arguments)?;
    if token.is_none() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        let help = format!(
            "set {}, which clients then send as `Authorization: Bearer ...`; or keep to 127.0.0.1",
            arguments.token_env
        );
        let message =
            format!("{} is not a loopback address, and there is no token", arguments.host);
        return Err(Failure::usage(message, Some(help)));
    }
    let model = Arc::new(arguments.which.open(false)?);
    let metrics = Arc::new(Metrics::default());
    let server = Server {
        name: arguments.name.clone().unwrap_or_else(|| arguments.which.name()),
        token,
        worker: Worker::start(model, usize::from(arguments.batch), metrics.clone())?,
        places: Arc::new(Semaphore::new(usize::from(arguments.batch + arguments.queue))),
        metrics,
        began: api::now(),
        arguments: arguments.clone(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(listen(Arc::new(server), &addresses))?;
    // What still runs was given its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

fn addresses(arguments: &Serve) -> Result<Vec<SocketAddr>, Failure> {
    let host = arguments.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, arguments.port)]);
    }
    let found = (host, arguments.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Failure::usage(format!("no such host: {host}"), None)),
    }
}

async fn listen(server: Arc<Server>, addresses: &[SocketAddr]) -> Result<(), Failure> {
    let listener = TcpListener::bind(addresses).await.map_err(|error| {
        let help = "another program may listen there: choose another --port, or 0 for a free one";
        let what = format!("{}:{}: {error}", server.arguments.host, server.arguments.port);
        Failure::usage(what, Some(help.into()))
    })?;
    let place = listener.local_addr()?;
    eprintln!("`{}` at http://{place}/v1", server.name);
    let (stop, stopped) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(usize::from(server.arguments.connections)));
    let asked = crate::interrupt::asked();
    tokio::pin!(asked);
    loop {
        // More connections than that wait in the kernel's queue.
        let accepted = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut asked => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = http::connection(server.clone(), stream, stopped.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Too many open files, or a client that is gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let most = u32::from(server.arguments.connections);
    let open = most as usize - connections.available_permits();
    if open > 0 {
        eprintln!("finishing {}; again to end at once", count(open, "connection"));
    }
    let time = Duration::from_secs(u64::from(server.arguments.timeout));
    tokio::select! {
        _ = tokio::time::timeout(time, connections.acquire_many(most)) => {}
        () = crate::interrupt::asked() => std::process::exit(code::INTERRUPTED.into()),
    }
    Ok(())
}
