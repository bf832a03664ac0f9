//! `quantmill serve` on a tiny model, by plain sockets; by the `openai` package where one is named.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::generate::space;
use crate::space::{Space, skip, wait_for};

/// A server, ended with its test.
struct Server {
    child: Child,
    port: u16,
    _space: Space,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
    /// The `data:` lines of a stream.
    fn events(&self) -> Vec<String> {
        self.body
            .split("\n\n")
            .filter_map(|e| e.strip_prefix("data: "))
            .map(str::to_owned)
            .collect()
    }
}

impl Server {
    fn start(extra: &[&str], token: Option<&str>) -> Server {
        let space = space();
        let mut command = space.command(&[&["serve", "m", "--port", "0"], extra].concat());
        command.env_remove("QUANTMILL_TOKEN");
        if let Some(token) = token {
            command.env("QUANTMILL_TOKEN", token);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut port = None;
        while port.is_none() {
            let mut line = String::new();
            assert!(err.read_line(&mut line).unwrap() > 0, "it ended");
            port = line
                .split_once("http://")
                .and_then(|(_, rest)| rest.split_once("/v1")?.0.rsplit_once(':')?.1.parse().ok());
        }
        // What it says later must not block it.
        std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
        Server { child, port: port.unwrap(), _space: space }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn send(&self, head: &str, body: &str) -> Response {
        let mut stream = self.connect();
        // It may answer before it has read all.
        let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
        receive(&mut stream)
    }

    fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"), "")
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.send(&post(path, body.to_string().len()), &body.to_string())
    }

    fn chat(&self, extra: Value) -> Response {
        self.post("/v1/chat/completions", &chat(extra))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    )
}

fn chat(extra: Value) -> Value {
    let mut body = json!({
        "model": "m", "max_tokens": 12, "temperature": 0,
        "messages": [{ "role": "user", "content": "Spread is wide." }],
    });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn receive(stream: &mut TcpStream) -> Response {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let head = head.to_ascii_lowercase();
    let mut body = rest.to_owned();
    if head.contains("transfer-encoding: chunked") {
        (body, _) = chunks(rest);
    }
    Response { status, head, body }
}

/// A chunked body, and whether it was whole.
fn chunks(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or("");
    }
    (body, false)
}

#[test]
fn chats_whole_and_streamed_are_the_same() {
    let server = Server::start(&[], None);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "m");
    assert_eq!(server.get("/v1/models/m").json()["object"], "model");
    let whole = server.chat(json!({}));
    assert_eq!(whole.status, 200, "{whole:?}");
    let answer = whole.json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let finish = &answer["choices"][0]["finish_reason"];
    assert!(!text.is_empty() && (finish == "length" || finish == "stop"));
    let usage = &answer["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    let streamed =
        server.chat(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    assert!(streamed.head.contains("content-type: text/event-stream"), "{streamed:?}");
    let mut events = streamed.events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let events: Vec<Value> = events.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let pieces: String =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(pieces, text);
    let ends: Vec<&Value> =
        events.iter().map(|e| &e["choices"][0]["finish_reason"]).filter(|f| !f.is_null()).collect();
    assert_eq!(ends, [finish]);
    let last = &events[events.len() - 1];
    assert_eq!(last["usage"]["completion_tokens"], usage["completion_tokens"]);
    // The second prompt began as the first: all but its last token was known.
    let known = last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(known + 1, usage["prompt_tokens"].as_u64().unwrap());
    assert!(events.len() > 3, "it came in pieces");
}

#[test]
fn completions_follow_prompts_seeds_stops_and_schemas() {
    let server = Server::start(&[], None);
    let ask = |extra: Value| {
        let mut body = json!({ "model": "m", "prompt": "Spread", "max_tokens": 10, "temperature": 1, "seed": 4 });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = server.post("/v1/completions", &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        choices.iter().map(|c| c["text"].as_str().unwrap().to_owned()).collect()
    };
    let two = texts(&ask(json!({ "n": 2 })));
    assert!(two.len() == 2 && two[0] != two[1]);
    assert_eq!(texts(&ask(json!({ "n": 2 }))), two);
    assert_ne!(texts(&ask(json!({ "n": 2, "seed": 5 }))), two);
    let four = texts(&ask(json!({ "n": 2, "prompt": ["Spread", "Decision"] })));
    assert_eq!(four[..2], two);
    let stop: String = two[0].chars().skip(1).take(1).collect();
    let cut = ask(json!({ "stop": [stop] }));
    assert_eq!(texts(&cut)[0], two[0].split(&stop).next().unwrap());
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    let logs = ask(json!({ "logprobs": 2, "temperature": 0 }));
    let logs = &logs["choices"][0]["logprobs"];
    assert_eq!(
        logs["tokens"].as_array().unwrap().concat_len(),
        texts(&ask(json!({ "temperature": 0 })))[0].len()
    );
    for (own, top) in logs["token_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .zip(logs["top_logprobs"].as_array().unwrap())
    {
        // Greedy: the likeliest is the one that was taken.
        let best =
            top.as_object().unwrap().values().map(|p| p.as_f64().unwrap()).fold(f64::MIN, f64::max);
        assert!((best - own.as_f64().unwrap()).abs() < 1e-6);
    }
    let schema = json!({ "type": "object", "properties": { "side": { "enum": ["buy", "sell"] } }, "required": ["side"], "additionalProperties": false });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "side", "schema": schema } });
    for seed in 0..5 {
        let answer = ask(
            json!({ "response_format": format, "temperature": 5, "seed": seed, "max_tokens": 40 }),
        );
        let value: Value = serde_json::from_str(&texts(&answer)[0]).unwrap();
        assert!(value["side"] == "buy" || value["side"] == "sell", "{answer}");
    }
}

trait ConcatLen {
    fn concat_len(&self) -> usize;
}

impl ConcatLen for Vec<Value> {
    fn concat_len(&self) -> usize {
        self.iter().map(|text| text.as_str().unwrap().len()).sum()
    }
}

#[test]
fn what_is_wrong_is_said_in_openais_words() {
    let server = Server::start(&["--max-body", "4000", "--read-timeout", "1"], None);
    let wrong = |response: Response, status: u16, said: &str| {
        assert_eq!(response.status, status, "{response:?}");
        let error = response.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        assert!(error["type"].is_string() && error.get("code").is_some(), "{error}");
        response.head
    };
    wrong(server.get("/v1/nothing"), 404, "no such path");
    wrong(server.get("/v1/completions"), 405, "use POST");
    wrong(server.get("/v1/models/x"), 404, "no such model");
    wrong(server.chat(json!({ "model": "gpt-4" })), 404, "here is `m`");
    wrong(server.chat(json!({ "tools": [{}] })), 400, "`tools` is not supported");
    wrong(server.chat(json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "system", "content": "b" }] })), 400, "the system comes first");
    let bad = json!({ "type": "json_schema", "json_schema": { "schema": { "type": "array", "uniqueItems": true } } });
    wrong(server.chat(json!({ "response_format": bad })), 400, "JSON schema: ");
    let long = "x ".repeat(1500);
    wrong(
        server.chat(json!({ "messages": [{ "role": "user", "content": long }] })),
        400,
        "leaves no room",
    );
    wrong(server.send(&post("/v1/completions", 2), "{]"), 400, "not JSON");
    let large = json!({ "prompt": "x".repeat(5000) });
    wrong(server.post("/v1/completions", &large), 413, "larger than 4000 bytes");
    // Without a length, too.
    let chunked =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    let body = format!("{:x}\r\n{}\r\n0\r\n\r\n", 6000, "x".repeat(6000));
    wrong(server.send(chunked, &body), 413, "larger than 4000 bytes");
    // A page in a browser that has got here by a name of its own.
    let elsewhere = server.send("GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n", "");
    wrong(elsewhere, 403, "only this machine");
    // A body that does not come, and a head that does not.
    wrong(server.send(&post("/v1/completions", 100), "{"), 408, "too long");
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nHo").unwrap();
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(begun.elapsed() < Duration::from_secs(20), "the connection was closed");
    let metrics = server.get("/metrics").body;
    assert!(
        metrics.contains("quantmill_requests_total{path=\"/v1/completions\",status=\"413\"} 2"),
        "{metrics}"
    );
}

#[test]
fn elsewhere_than_on_loopback_a_token_is_needed() {
    let space = space();
    let mut command = space.command(&["serve", "m", "--host", "0.0.0.0", "--port", "0"]);
    let out = command.env_remove("QUANTMILL_TOKEN").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2));
    assert!(err.contains("there is no token") && err.contains("set QUANTMILL_TOKEN"), "{err}");
    let server = Server::start(&["--host", "0.0.0.0"], Some("secret"));
    let with = |token: &str| {
        server.send(
            &format!("GET /v1/models HTTP/1.1\r\nHost: desk\r\nAuthorization: {token}\r\n"),
            "",
        )
    };
    assert_eq!(with("Bearer secret").status, 200);
    for token in ["Bearer secre", "Bearer secret2", "secret", "Bearer ", "Basic secret"] {
        let response = with(token);
        assert_eq!(response.status, 401, "{token}");
        assert_eq!(response.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_full_queue_says_so_and_empties() {
    let server = Server::start(&["--batch", "1", "--queue", "1", "--max-tokens", "900"], None);
    // Answers that take a while: a schema of a long list of numbers cannot end early.
    let numbers = json!({ "type": "array", "items": { "type": "integer", "minimum": 100, "maximum": 999 }, "minItems": 200, "maxItems": 200 });
    let format = json!({ "type": "json_schema", "json_schema": { "schema": numbers } });
    let long = chat(
        json!({ "max_tokens": 900, "temperature": 1, "stream": true, "response_format": format }),
    )
    .to_string();
    let open = || {
        let mut stream = server.connect();
        stream
            .write_all(format!("{}\r\n{long}", post("/v1/chat/completions", long.len())).as_bytes())
            .unwrap();
        stream
    };
    let first = open();
    let second = open();
    wait_for("both to be taken", || {
        server.get("/metrics").body.contains("quantmill_requests_taken 2")
    });
    let third = server.chat(json!({}));
    assert_eq!(third.status, 429, "{third:?}");
    assert!(third.head.contains("retry-after: 1"), "{third:?}");
    assert_eq!(third.json()["error"]["type"], "rate_limit_error");
    // Clients that go away make room.
    drop((first, second));
    wait_for("room", || server.get("/metrics").body.contains("quantmill_requests_taken 0"));
    assert_eq!(server.chat(json!({})).status, 200);
}

#[test]
fn many_clients_get_their_own_answers() {
    let server = Server::start(&["--batch", "4"], None);
    let one = |n: usize| {
        server.chat(json!({ "messages": [{ "role": "user", "content": format!("Spread is {n} bps.") }] })).json()["choices"].clone()
    };
    let alone: Vec<Value> = (0..16).map(one).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..16).map(|n| scope.spawn(move || one(n))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn term_lets_answers_end() {
    let mut server = Server::start(&["--max-tokens", "900"], None);
    let numbers = json!({ "type": "array", "items": { "type": "integer", "minimum": 100, "maximum": 999 }, "minItems": 60, "maxItems": 60 });
    let format = json!({ "type": "json_schema", "json_schema": { "schema": numbers } });
    let body = chat(
        json!({ "max_tokens": 900, "temperature": 1, "stream": true, "response_format": format }),
    )
    .to_string();
    let mut stream = server.connect();
    stream
        .write_all(format!("{}\r\n{body}", post("/v1/chat/completions", body.len())).as_bytes())
        .unwrap();
    let mut some = [0; 64];
    stream.read_exact(&mut some).unwrap();
    server.signal(Signal::TERM);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&some), String::from_utf8_lossy(&rest));
    assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
}

/// The real client. `QUANTMILL_TEST_OPENAI` names a Python that has the package.
#[test]
fn the_openai_package_is_content() {
    let Some(python) = std::env::var_os("QUANTMILL_TEST_OPENAI") else {
        return skip("set QUANTMILL_TEST_OPENAI to a Python with the package `openai`");
    };
    let server = Server::start(&[], Some("secret"));
    let script = r#"
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="secret")
assert [m.id for m in client.models.list()] == ["m"]
messages = [{"role": "system", "content": "Trade."}, {"role": "user", "content": "Spread is wide."}]
whole = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=12)
text = whole.choices[0].message.content
assert whole.usage.completion_tokens > 0 and whole.choices[0].finish_reason in ("stop", "length")
pieces = client.chat.completions.create(model="m", messages=messages, temperature=0, max_tokens=12, stream=True)
assert "".join(p.choices[0].delta.content or "" for p in pieces) == text
schema = {"type": "object", "properties": {"side": {"enum": ["buy", "sell"]}}, "required": ["side"], "additionalProperties": False}
fmt = {"type": "json_schema", "json_schema": {"name": "side", "schema": schema, "strict": True}}
said = client.chat.completions.create(model="m", messages=messages, temperature=2, seed=1, response_format=fmt)
assert json.loads(said.choices[0].message.content)["side"] in ("buy", "sell")
logs = client.chat.completions.create(model="m", messages=messages, max_tokens=3, logprobs=True, top_logprobs=2)
assert len(logs.choices[0].logprobs.content[0].top_logprobs) == 2
two = client.completions.create(model="m", prompt=["a", "b"], max_tokens=4, n=2)
assert [c.index for c in two.choices] == [0, 1, 2, 3]
for wrong, error in [({"model": "x"}, openai.NotFoundError), ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError)]:
    try:
        client.chat.completions.create(**{"model": "m", "messages": messages, **wrong})
        raise SystemExit("no error")
    except error:
        pass
try:
    openai.OpenAI(base_url=sys.argv[1], api_key="other", max_retries=0).models.list()
    raise SystemExit("no error")
except openai.AuthenticationError:
    print("ok")
"#;
    let url = format!("http://127.0.0.1:{}/v1", server.port);
    let out = Command::new(python).args(["-c", script, &url]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
