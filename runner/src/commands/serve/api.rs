//! The words of OpenAI's API: what a request asks, and how answers and errors are written.
//!
//! Fields that change an answer and are not known here are refused. Those that only name a user or
//! the like are passed over. Beyond OpenAI's there are `top_k`, `min_p` and `repetition_penalty`.

use std::time::{SystemTime, UNIX_EPOCH};

use quantmill_stages::decode::{Finish, Grammar, Model, Prompt, Sampling, Token, Wanted};
use quantmill_stages::model::chat::Message;
use rand::Rng;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// An error as a client sees it.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong.
    pub message: String,
    /// The field that is.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl Wrong {
    /// Of a status.
    pub fn new(status: u16, message: impl Into<String>) -> Wrong {
        Wrong { status, message: message.into(), param: None, code: None }
    }
    /// Of a field.
    fn field(param: &str, message: impl Into<String>) -> Wrong {
        Wrong { param: Some(param.to_owned()), ..Wrong::new(400, message) }
    }
    /// Adds a word for programs.
    pub fn code(mut self, code: &'static str) -> Wrong {
        self.code = Some(code);
        self
    }
    /// The body.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            401 | 403 => "authentication_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        }})
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// What a request asks.
#[derive(Debug)]
pub struct Request {
    /// The prompts; of a chat one.
    pub prompts: Vec<Prompt>,
    /// Samples of each.
    pub n: usize,
    /// How they are drawn; without the tokens that end a text.
    pub wanted: Wanted,
    /// What they keep to.
    pub grammar: Option<Grammar>,
    /// Piece by piece.
    pub stream: bool,
    /// A stream ends with the numbers of tokens.
    pub usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format {
    Text,
    JsonObject,
    JsonSchema { json_schema: Named },
}

#[derive(Deserialize)]
struct Named {
    schema: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Streamed {
    include_usage: bool,
}

/// Fields that do not change an answer.
const HARMLESS: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
    "model",
];

/// The fields of a request, taken one by one.
struct Fields(Map<String, Value>);

impl Fields {
    fn take<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Result<Option<T>, Wrong> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|error| Wrong::field(name, format!("`{name}`: {error}"))),
        }
    }

    /// A field that must have one value, which is also what it means where it is left out.
    fn only(&mut self, name: &str, values: &[Value]) -> Result<(), Wrong> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if values.contains(&value) => Ok(()),
            Some(_) => Err(Wrong::field(name, format!("`{name}` is not supported"))
                .code("unsupported_parameter")),
        }
    }
}

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// The name of the model.
    pub model: &'a str,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Most samples of a request.
    pub samples: usize,
}

/// Reads a request.
///
/// # Errors
/// It is not JSON, is wrong, or asks for what there is not.
pub fn read(kind: Kind, body: &[u8], bounds: Bounds) -> Result<Request, Wrong> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Wrong::new(400, format!("the body is not JSON: {error}")))?;
    let Value::Object(fields) = value else {
        return Err(Wrong::new(400, "the body is not a JSON object"));
    };
    let mut fields = Fields(fields);
    if let Some(name) = fields.take::<String>("model")?
        && name != bounds.model
    {
        let message = format!("no model `{name}`; here is `{}`", bounds.model);
        return Err(Wrong { status: 404, ..Wrong::field("model", message) }.code("model_not_found"));
    }
    let prompts = match kind {
        Kind::Chat => vec![chat(&mut fields)?],
        Kind::Text => texts(&mut fields)?,
    };
    let n = fields.take::<usize>("n")?.unwrap_or(1);
    if n == 0 || n.saturating_mul(prompts.len()) > bounds.samples {
        let message = format!("`n` must be 1 or more, and all samples {} at most", bounds.samples);
        return Err(Wrong::field("n", message));
    }
    let stop = match fields.take::<OneOrMany>("stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) => texts,
    };
    if stop.len() > 16 || stop.iter().any(|text| text.is_empty() || text.len() > 1024) {
        let message = "`stop` is at most 16 texts, none empty or longer than 1024 bytes";
        return Err(Wrong::field("stop", message));
    }
    let max_tokens = most(kind, &mut fields, bounds)?;
    let sampling = Sampling {
        temperature: fields.take("temperature")?.unwrap_or(1.0),
        top_k: fields.take("top_k")?.unwrap_or(0),
        top_p: fields.take("top_p")?.unwrap_or(1.0),
        min_p: fields.take("min_p")?.unwrap_or(0.0),
        repetition_penalty: fields.take("repetition_penalty")?.unwrap_or(1.0),
        max_tokens,
        stop: Vec::new(),
    };
    sampling.check().map_err(|(name, why)| Wrong::field(name, format!("`{name}` {why}")))?;
    let seed =
        fields.take::<i64>("seed")?.map_or_else(|| rand::rng().next_u64(), i64::cast_unsigned);
    let likeliest = likeliest(kind, &mut fields)?;
    let grammar = match fields.take::<Format>("response_format")? {
        None | Some(Format::Text) => None,
        Some(Format::JsonObject) => Some(Grammar::json(json!({ "type": "object" }))),
        Some(Format::JsonSchema { json_schema }) => Some(Grammar::json(json_schema.schema)),
    };
    let stream = fields.take("stream")?.unwrap_or(false);
    let usage = fields.take::<Streamed>("stream_options")?.unwrap_or_default().include_usage;
    let zero = [json!(0), json!(0.0)];
    fields.only("presence_penalty", &zero)?;
    fields.only("frequency_penalty", &zero)?;
    for name in ["logit_bias", "tools", "functions"] {
        fields.only(name, &[json!({}), json!([])])?;
    }
    fields.only("tool_choice", &[json!("none"), json!("auto")])?;
    fields.only("echo", &[json!(false)])?;
    fields.only("best_of", &[json!(1)])?;
    if let Some(name) = fields.0.keys().find(|name| !HARMLESS.contains(&name.as_str())) {
        let wrong = Wrong::field(name, format!("`{name}` is not a field that is known here"));
        return Err(wrong.code("unknown_parameter"));
    }
    let wanted = Wanted { sampling, stop, seed, sample: 0, likeliest };
    Ok(Request { prompts, n, wanted, grammar, stream, usage })
}

fn chat(fields: &mut Fields) -> Result<Prompt, Wrong> {
    let turns: Vec<Turn> = fields.take("messages")?.unwrap_or_default();
    if turns.is_empty() {
        return Err(Wrong::field("messages", "`messages` must have one at least"));
    }
    let message = |(at, turn): (usize, Turn)| {
        let param = format!("messages[{at}]");
        let role = match turn.role.as_str() {
            "system" | "user" | "assistant" => turn.role,
            // OpenAI's later name for it.
            "developer" => "system".to_owned(),
            other => return Err(Wrong::field(&param, format!("no role `{other}` is known here"))),
        };
        let content = match turn.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                    let message = format!("content of type `{}` is not supported", part.kind);
                    return Err(Wrong::field(&param, message));
                }
                parts.into_iter().map(|part| part.text).collect()
            }
        };
        Ok(Message { role, content })
    };
    turns.into_iter().enumerate().map(message).collect::<Result<_, _>>().map(Prompt::Chat)
}

fn texts(fields: &mut Fields) -> Result<Vec<Prompt>, Wrong> {
    let wrong = || Wrong::field("prompt", "`prompt` must be a text, or a list of texts");
    let texts = match fields.take::<OneOrMany>("prompt").map_err(|_| wrong())? {
        Some(OneOrMany::One(text)) => vec![text],
        Some(OneOrMany::Many(texts)) if !texts.is_empty() => texts,
        _ => return Err(wrong()),
    };
    fields.only("suffix", &[json!("")])?;
    Ok(texts.into_iter().map(Prompt::Text).collect())
}

fn most(kind: Kind, fields: &mut Fields, bounds: Bounds) -> Result<usize, Wrong> {
    let old = fields.take::<usize>("max_tokens")?;
    let new = match kind {
        Kind::Chat => fields.take::<usize>("max_completion_tokens")?,
        Kind::Text => None,
    };
    let max_tokens = new.or(old).unwrap_or(bounds.max_tokens);
    if max_tokens == 0 || max_tokens > bounds.max_tokens {
        let message = format!("`max_tokens` must lie between 1 and {}", bounds.max_tokens);
        return Err(Wrong::field("max_tokens", message));
    }
    Ok(max_tokens)
}

fn likeliest(kind: Kind, fields: &mut Fields) -> Result<Option<usize>, Wrong> {
    let n = match kind {
        Kind::Text => fields.take::<usize>("logprobs")?,
        Kind::Chat => {
            let top = fields.take::<usize>("top_logprobs")?;
            let on = fields.take::<bool>("logprobs")?.unwrap_or(false);
            if top.is_some() && !on {
                return Err(Wrong::field("top_logprobs", "`top_logprobs` needs `logprobs`"));
            }
            on.then(|| top.unwrap_or(0))
        }
    };
    if n.is_some_and(|n| n > 20) {
        return Err(Wrong::field("top_logprobs", "at most 20 log-probabilities a token"));
    }
    Ok(n)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What is constant in the answers to a request.
#[derive(Clone, Debug)]
pub struct Head {
    id: String,
    kind: Kind,
    created: u64,
    model: String,
}

impl Head {
    /// Of a new answer.
    pub fn new(kind: Kind, model: &str) -> Head {
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:016x}", rand::rng().next_u64());
        Head { id, kind, created: now(), model: model.to_owned() }
    }

    fn wrap(&self, chunk: bool, choices: Value) -> Value {
        let object = match (self.kind, chunk) {
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Text, _) => "text_completion",
        };
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": choices,
        })
    }

    /// A whole answer.
    pub fn whole(&self, choices: Vec<Choice>, usage: Usage) -> Value {
        let choices = choices.into_iter().enumerate().map(|(index, choice)| {
            let finish = choice.finish.map(finish);
            let log_probs = choice.log_probs(self.kind);
            match self.kind {
                Kind::Chat => json!({
                    "index": index, "finish_reason": finish, "logprobs": log_probs,
                    "message": { "role": "assistant", "content": choice.text, "refusal": null },
                }),
                Kind::Text => json!({
                    "index": index, "finish_reason": finish, "logprobs": log_probs,
                    "text": choice.text,
                }),
            }
        });
        let mut whole = self.wrap(false, choices.collect());
        whole["usage"] = usage.value();
        whole
    }

    /// A piece of a stream. A chat's first piece names the role.
    pub fn piece(&self, index: usize, first: bool, choice: &Choice) -> Value {
        let log_probs = choice.log_probs(self.kind);
        let finish = choice.finish.map(finish);
        let choice = match self.kind {
            Kind::Chat => {
                let mut delta = Map::new();
                if first {
                    delta.insert("role".into(), json!("assistant"));
                }
                if first || !choice.text.is_empty() {
                    delta.insert("content".into(), json!(choice.text));
                }
                json!({ "index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish })
            }
            Kind::Text => json!({
                "index": index, "text": choice.text, "logprobs": log_probs, "finish_reason": finish,
            }),
        };
        self.wrap(true, json!([choice]))
    }

    /// The last piece of a stream that asked for it.
    pub fn usage(&self, usage: Usage) -> Value {
        let mut piece = self.wrap(true, json!([]));
        piece["usage"] = usage.value();
        piece
    }
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Of the prompts.
    pub prompt: usize,
    /// Of these, known from earlier ones.
    pub cached: usize,
    /// Of the answers.
    pub answer: usize,
}

impl Usage {
    fn value(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
            "prompt_tokens_details": { "cached_tokens": self.cached },
        })
    }
}

/// A sample, or a piece of one.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Where the request asks: its tokens.
    pub tokens: Vec<Said>,
}

/// A token as a client sees it.
#[derive(Clone, Debug)]
pub struct Said {
    bytes: Vec<u8>,
    log_prob: f64,
    likeliest: Vec<(Vec<u8>, f64)>,
}

impl Said {
    /// Of a token whose log-probability is asked for. One that a grammar forces is certain.
    pub fn of(model: &Model, token: &Token) -> Option<Said> {
        let bytes = |id: u32| model.vocabulary().bytes(id).to_vec();
        let opinion = match &token.model {
            None if !token.forced => return None,
            opinion => opinion.clone().unwrap_or_default(),
        };
        let likeliest = opinion.likeliest.into_iter().map(|(id, p)| (bytes(id), p)).collect();
        Some(Said { bytes: bytes(token.id), log_prob: opinion.log_prob, likeliest })
    }
}

impl Choice {
    fn log_probs(&self, kind: Kind) -> Value {
        if self.tokens.is_empty() {
            return Value::Null;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match kind {
            Kind::Chat => {
                let entry = |bytes: &Vec<u8>, p: f64| json!({ "token": text(bytes), "logprob": p, "bytes": bytes });
                let each = self.tokens.iter().map(|said| {
                    let mut all = entry(&said.bytes, said.log_prob);
                    all["top_logprobs"] =
                        said.likeliest.iter().map(|(bytes, p)| entry(bytes, *p)).collect();
                    all
                });
                json!({ "content": each.collect::<Vec<_>>(), "refusal": null })
            }
            Kind::Text => {
                let top = |said: &Said| {
                    // Bytes that are no text look alike: the likeliest of them stands for all.
                    let mut each = Map::new();
                    for (bytes, p) in &said.likeliest {
                        each.entry(text(bytes)).or_insert_with(|| json!(p));
                    }
                    Value::Object(each)
                };
                json!({
                    "tokens": self.tokens.iter().map(|said| text(&said.bytes)).collect::<Vec<_>>(),
                    "token_logprobs": self.tokens.iter().map(|said| said.log_prob).collect::<Vec<_>>(),
                    "top_logprobs": self.tokens.iter().map(top).collect::<Vec<_>>(),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { model: "m", max_tokens: 100, samples: 4 };

    fn asked(kind: Kind, body: Value) -> Result<Request, Wrong> {
        read(kind, body.to_string().as_bytes(), BOUNDS)
    }

    #[test]
    fn chats_are_read() {
        let request = asked(
            Kind::Chat,
            json!({
                "model": "m", "n": 2, "stop": "\n", "seed": -1, "max_completion_tokens": 7,
                "temperature": 0.5, "top_p": 0.9, "stream": true, "user": "me", "tools": [],
                "stream_options": { "include_usage": true }, "frequency_penalty": 0,
                "messages": [
                    { "role": "developer", "content": "Trade." },
                    { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                ],
                "response_format": { "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": { "type": "object" } } },
            }),
        )
        .unwrap();
        let messages = vec![Message::new("system", "Trade."), Message::new("user", "ab")];
        assert_eq!(request.prompts, [Prompt::Chat(messages)]);
        assert_eq!((request.n, request.stream, request.usage), (2, true, true));
        assert_eq!(request.wanted.seed, u64::MAX);
        assert_eq!(request.wanted.sampling.max_tokens, 7);
        assert_eq!(request.grammar, Some(Grammar::json(json!({ "type": "object" }))));
    }

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        let base = json!({ "messages": [{ "role": "user", "content": "a" }] });
        for (field, value, status) in [
            ("model", json!("other"), 404),
            ("tools", json!([{ "type": "function" }]), 400),
            ("logit_bias", json!({ "1": 100 }), 400),
            ("presence_penalty", json!(0.5), 400),
            ("temperature", json!(-1), 400),
            ("temperature", json!("hot"), 400),
            ("top_p", json!(0), 400),
            ("n", json!(5), 400),
            ("n", json!(0), 400),
            ("max_tokens", json!(101), 400),
            ("max_tokens", json!(0), 400),
            ("top_logprobs", json!(3), 400),
            ("stop", json!([""]), 400),
            ("response_format", json!({ "type": "xml" }), 400),
            ("temprature", json!(1), 400),
        ] {
            let mut body = base.clone();
            body[field] = value;
            let wrong = asked(Kind::Chat, body).unwrap_err();
            assert_eq!((wrong.status, wrong.param.as_deref()), (status, Some(field)), "{wrong:?}");
        }
        for body in [json!([]), json!({}), json!({ "messages": [] })] {
            assert_eq!(asked(Kind::Chat, body).unwrap_err().status, 400);
        }
        let image =
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] });
        assert!(asked(Kind::Chat, image).unwrap_err().message.contains("image_url"));
        for prompt in [json!(null), json!([]), json!([1, 2]), json!(3)] {
            assert!(asked(Kind::Text, json!({ "prompt": prompt })).is_err());
        }
        assert_eq!(read(Kind::Text, b"{", BOUNDS).unwrap_err().status, 400);
    }
}
