//! Chat templates: messages to the text that a model was trained to answer.
//!
//! A template is Jinja as HF's transformers runs it: `trim_blocks` and `lstrip_blocks`, loop controls,
//! `raise_exception`, `tojson` that leaves `<` and what is not ASCII alone, the methods of Python's
//! strings and dictionaries, `bos_token`, `eos_token` and `add_generation_prompt`. The marks
//! `{% generation %}` of training are passed over. Tools and documents are not given to it. A
//! template comes with a model, from anywhere: how much it may compute is bounded.
//!
//! `strftime_now` is there only where the caller gives a clock: what is trained must not depend on the
//! day, and templates that ask for it (Llama 3.2's) then take a date of their own.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};

use crate::{Result, StageError};

/// A turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// Instructions that a template may take, and what each message adds to them. Those of known models
/// take some hundred a message.
const FUEL: u64 = 1_000_000;
const FUEL_OF_A_MESSAGE: u64 = 10_000;

/// The text of a conversation, without a clock. `add_generation_prompt` opens the assistant's turn.
///
/// # Errors
/// The template is wrong, or raises an exception, as where roles do not alternate.
pub fn render(
    template: &str,
    messages: &[Message],
    add_generation_prompt: bool,
    bos: &str,
    eos: &str,
) -> Result<String> {
    render_at(template, messages, add_generation_prompt, (bos, eos), None)
}

/// [`render`] with a clock: it writes the time of now in strftime's format.
///
/// # Errors
/// As [`render`].
pub fn render_at(
    template: &str,
    messages: &[Message],
    add_generation_prompt: bool,
    (bos, eos): (&str, &str),
    now: Option<fn(&str) -> String>,
) -> Result<String> {
    let template = without_generation(template);
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL + FUEL_OF_A_MESSAGE * messages.len() as u64));
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    environment.set_syntax(syntax.build().map_err(|e| StageError::failed(e.to_string()))?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    if let Some(now) = now {
        environment.add_function("strftime_now", move |format: &str| now(format));
    }
    let filled = environment.render_str(
        &template,
        minijinja::context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            bos_token => bos,
            eos_token => eos,
        },
    );
    filled.map_err(|error| {
        let line = error.line().map(|line| format!(" line {line}:")).unwrap_or_default();
        if error.kind() == ErrorKind::OutOfFuel {
            let message = format!("chat template:{line} it computes more than a template may");
            return StageError::failed(message)
                .hint("the template that came with the model is broken: put a good one beside it");
        }
        let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        StageError::failed(format!("chat template:{line} {said}"))
            .hint("the model's own template decides which roles there are and in which order")
    })
}

/// Python's `json.dumps(x, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let failed = |e: serde_json::Error| {
        Error::new(ErrorKind::BadSerialization, "not to be written as JSON").with_source(e)
    };
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    match indent {
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            let format = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut to = serde_json::Serializer::with_formatter(&mut out, format);
            value.serialize(&mut to).map_err(failed)?;
        }
        None => {
            let mut to = serde_json::Serializer::with_formatter(&mut out, Spaced);
            value.serialize(&mut to).map_err(failed)?;
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Python's separators: `, ` and `: `.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        to: &mut W,
    ) -> std::io::Result<()> {
        to.write_all(b": ")
    }
}

/// HF's own tags `{% generation %}` and `{% endgeneration %}` as a block that is always taken.
fn without_generation(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = tag[2..end].trim_matches(['-', '+']).trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Vec<Message> {
        vec![
            Message::new("system", "Trade."),
            Message::new("user", "  <Spread> is 3 bps – wide.  "),
            Message::new("assistant", "flat"),
            Message::new("user", "And now?"),
        ]
    }

    fn said(template: &str, messages: &[Message], add: bool) -> Result<String> {
        render(template, messages, add, "<s>", "</s>")
    }

    #[test]
    fn chatml() {
        let template = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let text = said(template, &talk()[..2], true).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nTrade.<|im_end|>\n<|im_start|>user\n  <Spread> is 3 bps – wide.  <|im_end|>\n<|im_start|>assistant\n"
        );
        assert!(!said(template, &talk()[..2], false).unwrap().contains("assistant"));
    }

    #[test]
    fn what_templates_of_models_use() {
        // Blocks on lines of their own leave no blank lines; loop controls; namespaces; Python's methods.
        let template = "\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'].strip() %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- set ns = namespace(turns=0) %}
{% for message in messages %}
    {% if message.role == 'assistant' %}
        {% continue %}
    {% endif %}
    {% set ns.turns = ns.turns + 1 %}
[{{ message.role.upper() }}] {{ message.content.strip() | trim }}
{% endfor %}
{{ ns.turns }} {{ system_message }} {{ messages[0] | tojson }}{{ eos_token }}";
        let text = said(template, &talk(), false).unwrap();
        assert_eq!(
            text,
            "<s>[USER] <Spread> is 3 bps – wide.\n[USER] And now?\n2 Trade. {\"role\": \"user\", \"content\": \"  <Spread> is 3 bps – wide.  \"}</s>"
        );
        let text = said("{{ {'a': [1, 2]} | tojson(indent=2) }}", &[], false).unwrap();
        assert_eq!(text, "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
        let text = said("a{%- generation -%} b {%- endgeneration %} c", &[], false).unwrap();
        assert_eq!(text, "ab c");
    }

    #[test]
    fn exceptions_and_mistakes_are_told() {
        let raise = "{% if messages[0].role != 'user' %}\n{{ raise_exception('roles must alternate') }}{% endif %}";
        let error = said(raise, &talk(), true).unwrap_err();
        assert_eq!(error.to_string(), "chat template: line 2: roles must alternate");
        assert!(said("{% for %}", &talk(), true).is_err());
        assert!(said("{{ messages | nothing }}", &talk(), true).is_err());
        assert!(said("{% generation ", &talk(), true).is_err());
    }

    #[test]
    fn a_template_that_never_ends_is_stopped_and_long_talks_are_not() {
        let forever = "{% for a in range(9999) %}{% for b in range(9999) %}{% set x = a %}{% endfor %}{% endfor %}";
        let error = said(forever, &talk(), true).unwrap_err();
        assert!(error.to_string().contains("more than a template may"), "{error}");
        assert!(error.help().unwrap().contains("put a good one"));
        let long: Vec<Message> = (0..5000).map(|_| Message::new("user", "one more")).collect();
        let each =
            "{% for m in messages %}{{ m.role | upper }}: {{ m.content.strip() }}\n{% endfor %}";
        assert_eq!(said(each, &long, false).unwrap().lines().count(), 5000);
    }

    #[test]
    fn the_day_comes_from_the_caller_alone() {
        let template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}26 Jul 2024{% endif %}";
        assert_eq!(said(template, &[], false).unwrap(), "26 Jul 2024");
        let now = |format: &str| format.replace('%', "");
        let text = render_at(template, &[], false, ("", ""), Some(now)).unwrap();
        assert_eq!(text, "d b Y");
    }
}
