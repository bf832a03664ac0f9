//! HTTP/1.1: who may ask, how much, and for how long; whole answers and streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use quantmill_stages::decode::{Hear, Job};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::Server;
use super::api::{Bounds, Choice, Head, Kind, Request, Said, Usage, Wrong, read};
use super::worker::Ask;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Serves a connection until it ends, or until the server is to stop and the answer under way is out.
pub async fn connection(
    server: Arc<Server>,
    stream: TcpStream,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let time = Duration::from_secs(u64::from(server.arguments.read_timeout));
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(respond(server, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(time)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // How a connection ends badly is its client's affair.
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// The paths, as the metrics name them.
fn path(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" => "/v1/chat/completions",
        "/v1/completions" => "/v1/completions",
        "/v1/models" => "/v1/models",
        "/health" => "/health",
        "/metrics" => "/metrics",
        p if p.starts_with("/v1/models/") => "/v1/models/",
        _ => "other",
    }
}

async fn respond(server: Arc<Server>, request: hyper::Request<Incoming>) -> Answer {
    let path = path(request.uri().path());
    let answer = match route(&server, path, request).await {
        Ok(answer) => answer,
        Err(wrong) => refused(&wrong),
    };
    server.metrics.request(path, answer.status().as_u16());
    answer
}

async fn route(
    server: &Arc<Server>,
    path: &'static str,
    request: hyper::Request<Incoming>,
) -> Result<Answer, Wrong> {
    if path == "/health" {
        only(&Method::GET, request.method())?;
        return Ok(whole(200, &json!({ "status": "ok" })));
    }
    admit(server, request.headers())?;
    let describe = || {
        json!({
            "id": server.name, "object": "model", "created": server.began, "owned_by": "quantmill",
        })
    };
    match path {
        "/v1/chat/completions" | "/v1/completions" => {
            only(&Method::POST, request.method())?;
            let kind = if path == "/v1/completions" { Kind::Text } else { Kind::Chat };
            complete(server, kind, request).await
        }
        "/v1/models" => {
            only(&Method::GET, request.method())?;
            Ok(whole(200, &json!({ "object": "list", "data": [describe()] })))
        }
        "/v1/models/" => {
            only(&Method::GET, request.method())?;
            match request.uri().path().strip_prefix("/v1/models/") == Some(server.name.as_str()) {
                true => Ok(whole(200, &describe())),
                false => Err(Wrong::new(404, "no such model").code("model_not_found")),
            }
        }
        "/metrics" => {
            only(&Method::GET, request.method())?;
            let all = usize::from(server.arguments.batch + server.arguments.queue);
            let text = server.metrics.text(all - server.places.available_permits());
            Ok(answer(200, "text/plain; version=0.0.4", Bytes::from(text)))
        }
        _ => Err(Wrong::new(404, format!("no such path: {}", request.uri().path()))),
    }
}

fn only(wanted: &Method, given: &Method) -> Result<(), Wrong> {
    match wanted == given {
        true => Ok(()),
        false => Err(Wrong::new(405, format!("{given} is not allowed here; use {wanted}"))),
    }
}

/// Whether a client may ask at all: it brings the token; or there is none, and it names this very
/// machine, so that no page in a browser gets here by a name of its own.
fn admit(server: &Server, headers: &HeaderMap) -> Result<(), Wrong> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(token) = &server.token {
        let given = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let same = given.is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into());
        return match same {
            true => Ok(()),
            false => Err(Wrong::new(401, "a token is needed: `Authorization: Bearer ...`")
                .code("invalid_api_key")),
        };
    }
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host }
    });
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let own = name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback());
    match own {
        true => Ok(()),
        false => {
            Err(Wrong::new(403, "without a token only this machine is served, as `localhost`"))
        }
    }
}

/// What the thread that computes tells.
enum Event {
    Some { index: usize, choice: Choice, tokens: usize, cached: usize },
    Failed(String),
}

/// An answer under way.
struct Running {
    head: Head,
    request: Request,
    events: UnboundedReceiver<Event>,
    usage: Usage,
    begun: Instant,
    until: tokio::time::Instant,
}

async fn complete(
    server: &Arc<Server>,
    kind: Kind,
    request: hyper::Request<Incoming>,
) -> Result<Answer, Wrong> {
    let begun = Instant::now();
    let body = body(server, request).await?;
    let bounds = Bounds {
        model: &server.name,
        max_tokens: server.arguments.max_tokens as usize,
        samples: usize::from(server.arguments.batch),
    };
    let mut request = read(kind, &body, bounds)?;
    // Held by those who hear: the place is free once the last sample has ended.
    let place = Arc::new(server.places.clone().try_acquire_owned().map_err(|_| {
        Wrong::new(429, "too many requests wait already: come back later").code("queue_full")
    })?);
    let (sender, events) = unbounded_channel();
    let of = server.clone();
    let prepared = tokio::task::spawn_blocking(move || {
        let usage = ask(&of, &mut request, &sender, begun, &place);
        usage.map(|usage| (request, usage))
    });
    let failed = |error: tokio::task::JoinError| Wrong::new(500, error.to_string());
    let (request, usage) = prepared.await.map_err(failed)??;
    let until = Duration::from_secs(u64::from(server.arguments.timeout));
    let until = tokio::time::Instant::from_std(begun + until);
    let head = Head::new(kind, &server.name);
    let running = Running { head, request, events, usage, begun, until };
    if running.request.stream {
        let (sender, receiver) = unbounded_channel();
        let server = server.clone();
        tokio::spawn(async move { stream(&server, running, &sender).await });
        let body = Pieces(receiver).boxed();
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return Ok(answer);
    }
    collect(server, running).await
}

/// The body, within its bounds of length and time.
async fn body(server: &Server, request: hyper::Request<Incoming>) -> Result<Bytes, Wrong> {
    let most = server.arguments.max_body;
    let large = || Wrong::new(413, format!("the body is larger than {most} bytes"));
    if request.body().size_hint().lower() > most as u64 {
        return Err(large());
    }
    let time = Duration::from_secs(u64::from(server.arguments.read_timeout));
    match timeout(time, Limited::new(request.into_body(), most).collect()).await {
        Err(_) => Err(Wrong::new(408, "the body took too long")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(large()),
        Ok(Err(error)) => Err(Wrong::new(400, format!("the body broke off: {error}"))),
    }
}

/// Hands the samples of a request to the thread that computes.
fn ask(
    server: &Arc<Server>,
    request: &mut Request,
    sender: &UnboundedSender<Event>,
    begun: Instant,
    place: &Arc<tokio::sync::OwnedSemaphorePermit>,
) -> Result<Usage, Wrong> {
    let model = &server.worker.model;
    let wrong = |error: quantmill_stages::StageError| Wrong::new(400, error.to_string());
    let constraint = match &request.grammar {
        None => None,
        Some(grammar) => Some(model.constraint(grammar).map_err(wrong)?),
    };
    request.wanted.sampling.stop = model.engine().tokenizer().eos().to_vec();
    let mut prompts = Vec::new();
    for prompt in &request.prompts {
        prompts.push(model.tokens(prompt).map_err(wrong)?);
    }
    let usage = Usage { prompt: prompts.iter().map(Vec::len).sum(), ..Usage::default() };
    for (at, prompt) in prompts.into_iter().enumerate() {
        let (n, wanted, constraint) = (request.n, request.wanted.clone(), constraint.clone());
        let length = prompt.len();
        let job = Job { prompt, n, wanted, constraint };
        let hear = hear(server.clone(), at * n, length, begun, sender.clone(), place.clone());
        if !server.worker.ask(Ask { job, hear }) {
            return Err(Wrong::new(500, "the model has stopped"));
        }
    }
    Ok(usage)
}

/// Hears of the samples of a prompt, whose numbers in the answer begin with `base`.
fn hear(
    server: Arc<Server>,
    base: usize,
    prompt: usize,
    begun: Instant,
    sender: UnboundedSender<Event>,
    place: Arc<tokio::sync::OwnedSemaphorePermit>,
) -> Hear {
    let mut first = true;
    let mut counted = false;
    Box::new(move |told| {
        let _ = &place;
        if let Some(error) = told.error {
            return sender.send(Event::Failed(error.to_string())).is_ok();
        }
        let forced = told.tokens.iter().filter(|token| token.forced).count();
        server.metrics.tokens(told.tokens.len(), forced);
        let mut cached = 0;
        if !counted && !told.tokens.is_empty() {
            counted = true;
            cached = told.cached.min(prompt);
            server.metrics.prompt(prompt, cached);
        }
        if first && base == 0 && !told.tokens.is_empty() {
            first = false;
            server.metrics.first(begun.elapsed());
        }
        let model = &server.worker.model;
        // Where no log-probabilities were asked for, no token has the model's opinion.
        let asked = told.tokens.iter().any(|token| token.model.is_some());
        let said = told.tokens.iter().filter_map(|token| Said::of(model, token));
        let tokens = if asked { said.collect() } else { Vec::new() };
        let choice = Choice { text: told.text, finish: told.finish, tokens };
        let index = base + told.sample;
        sender.send(Event::Some { index, choice, tokens: told.tokens.len(), cached }).is_ok()
    })
}

impl Running {
    /// The next of an answer; `None` at its end.
    async fn next(&mut self) -> Result<Option<(usize, Choice)>, Wrong> {
        match timeout_at(self.until, self.events.recv()).await {
            Err(_) => Err(Wrong::new(504, "the answer took too long").code("timeout")),
            Ok(None) => Ok(None),
            Ok(Some(Event::Failed(message))) => Err(Wrong::new(500, message)),
            Ok(Some(Event::Some { index, choice, tokens, cached })) => {
                self.usage.answer += tokens;
                self.usage.cached += cached;
                Ok(Some((index, choice)))
            }
        }
    }

    fn samples(&self) -> usize {
        self.request.n * self.request.prompts.len()
    }
}

const BROKEN: &str = "the model has stopped";

async fn collect(server: &Server, mut running: Running) -> Result<Answer, Wrong> {
    let mut choices = vec![Choice::default(); running.samples()];
    while let Some((index, piece)) = running.next().await? {
        let Some(choice) = choices.get_mut(index) else { continue };
        choice.text.push_str(&piece.text);
        choice.tokens.extend(piece.tokens);
        choice.finish = piece.finish;
    }
    if choices.iter().any(|choice| choice.finish.is_none()) {
        return Err(Wrong::new(500, BROKEN));
    }
    server.metrics.whole(running.begun.elapsed());
    Ok(whole(200, &running.head.whole(choices, running.usage)))
}

async fn stream(server: &Server, mut running: Running, to: &UnboundedSender<Bytes>) {
    let send = |value: &Value| to.send(Bytes::from(format!("data: {value}\n\n"))).is_ok();
    let mut begun = vec![false; running.samples()];
    let mut open = begun.len();
    loop {
        match running.next().await {
            Err(wrong) => {
                send(&wrong.body());
                return;
            }
            Ok(None) if open > 0 => {
                send(&Wrong::new(500, BROKEN).body());
                return;
            }
            Ok(None) => break,
            Ok(Some((index, piece))) => {
                let Some(begun) = begun.get_mut(index) else { continue };
                let nothing = piece.text.is_empty() && piece.tokens.is_empty();
                // Asks whether the client still listens, too.
                if nothing && piece.finish.is_none() {
                    if to.is_closed() {
                        return;
                    }
                    continue;
                }
                let Choice { text, tokens, finish } = piece;
                if !nothing {
                    let piece = Choice { text, tokens, finish: None };
                    if !send(&running.head.piece(index, !*begun, &piece)) {
                        return;
                    }
                    *begun = true;
                }
                if finish.is_some() {
                    let last = Choice { finish, ..Choice::default() };
                    open -= 1;
                    if !send(&running.head.piece(index, !*begun, &last)) {
                        return;
                    }
                }
            }
        }
    }
    server.metrics.whole(running.begun.elapsed());
    if running.request.usage && !send(&running.head.usage(running.usage)) {
        return;
    }
    let _ = to.send(Bytes::from_static(b"data: [DONE]\n\n"));
}

/// The pieces of a stream as a body.
struct Pieces(UnboundedReceiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn answer(status: u16, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn whole(status: u16, body: &Value) -> Answer {
    answer(status, "application/json", Bytes::from(body.to_string()))
}

fn refused(wrong: &Wrong) -> Answer {
    let mut answer = whole(wrong.status, &wrong.body());
    let headers = answer.headers_mut();
    if wrong.status == 429 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if wrong.status == 401 {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // What is left of the body is not read.
    if matches!(wrong.status, 408 | 413) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
