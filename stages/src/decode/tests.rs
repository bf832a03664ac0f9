use std::sync::Arc;

use rand::Rng;
use serde_json::{Value, json};

use super::decoder::{Decoder, Finish, Next, Wanted};
use super::grammar::{Constraint, Grammar, Grammars};
use super::sampling::{Sampling, stream};
use super::vocabulary::Vocabulary;
use crate::model::Tokenizer;
use crate::pairs::decision::{Allowed, Decision, Form};

/// A tokenizer that has learnt some words of the answers, and so can cut them in many ways.
fn vocabulary() -> Arc<Vocabulary> {
    let allowed = Allowed { offsets_bps: vec![5, 10, 25, 100], max_size: 12, resting: true };
    let mut texts: Vec<String> = Vec::new();
    for decision in allowed.of_one_unit() {
        let forms = [Form::Words, Form::Json, Form::Code];
        texts.extend(forms.map(|form| format!("Decision: {}\n", decision.write(form))));
    }
    texts.push("naïve – σ² ≤ 3 €, 日本 \" \\ é".repeat(3));
    let tokenizer = Tokenizer::train(texts.iter().map(String::as_str), 400).unwrap();
    Arc::new(Vocabulary::new(&tokenizer).unwrap())
}

/// More logits than tokens, as in most models.
const LOGITS: usize = 416;

fn wanted(temperature: f32, seed: u64, vocabulary: &Vocabulary) -> Wanted {
    let stop = vocabulary.tokenizer().eos();
    let sampling = Sampling { temperature, ..Sampling::greedy(200, stop) };
    Wanted { sampling, stop: vec![], seed, sample: 0, likeliest: None }
}

/// Decodes with random logits; the text, and how many times a model would have been asked.
fn decode(
    vocabulary: &Arc<Vocabulary>,
    wanted: Wanted,
    constraint: Option<Constraint>,
) -> (Decoder, usize) {
    let mut rng = stream(wanted.seed, 99);
    let (mut decoder, mut next) = Decoder::begin(vocabulary, &[1, 2], wanted, constraint).unwrap();
    let mut asked = 0;
    while let Next::Read(_) = next {
        asked += 1;
        let logits: Vec<f32> =
            (0..LOGITS).map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 24.0).collect();
        next = decoder.step(&logits).unwrap();
    }
    (decoder, asked)
}

#[test]
fn ten_thousand_answers_to_random_logits_all_parse() {
    let vocabulary = vocabulary();
    let grammars = Grammars::new(&vocabulary, LOGITS).unwrap();
    let kinds = [
        Allowed { offsets_bps: vec![5, 10, 25, 100], max_size: 1, resting: false },
        Allowed { offsets_bps: vec![7], max_size: 40, resting: true },
        Allowed { offsets_bps: vec![], max_size: 1000, resting: true },
    ];
    let heats = [0.0, 0.3, 1.0, 3.0, 100.0];
    let mut counts = [0; 3];
    for (at, form) in [Form::Json, Form::Code, Form::Words].into_iter().enumerate() {
        for allowed in &kinds {
            for lead in ["", " "] {
                let grammar = Grammar::decision(allowed, form, lead);
                let constraint = grammars.compile(&grammar).unwrap();
                for i in 0..1670 {
                    let wanted = wanted(heats[i % heats.len()], i as u64, &vocabulary);
                    let (decoder, _) = decode(&vocabulary, wanted, Some(constraint.clone()));
                    let text = decoder.text();
                    let read = text.strip_prefix(lead).and_then(Decision::read);
                    let decision = read.unwrap_or_else(|| panic!("{text:?}"));
                    assert!(allowed.allows(decision), "{text:?}");
                    assert_eq!(decoder.finish(), Some(Finish::Stop), "{text:?}");
                    // What is written is what is read: one form, one text.
                    assert_eq!(decision.write(form), text.strip_prefix(lead).unwrap());
                    let tokens: Vec<u32> = decoder.tokens().iter().map(|t| t.id).collect();
                    assert_eq!(vocabulary.tokenizer().decode(&tokens).unwrap(), text);
                    counts[at] += 1;
                }
            }
        }
    }
    assert!(counts.iter().all(|n| *n >= 10_000), "{counts:?}");
}

#[test]
fn every_decision_can_be_said_and_nothing_else() {
    let vocabulary = vocabulary();
    let grammars = Grammars::new(&vocabulary, LOGITS).unwrap();
    let says = |constraint: &Constraint, text: &str| {
        let mut constraint = constraint.clone();
        let mut said: Vec<u8> = Vec::new();
        for token in vocabulary.tokenizer().encode(text).unwrap() {
            // Forced tokens may have said it already.
            if said.len() > text.len() || !text.as_bytes().starts_with(&said) {
                return false;
            }
            if text.as_bytes()[..said.len()].len() >= text.len() {
                break;
            }
            if constraint.accept(token).is_err() {
                return false;
            }
            said.extend_from_slice(vocabulary.bytes(token));
        }
        constraint.complete()
    };
    for max_size in [1, 2, 9, 10, 57, 100, 999, 1000] {
        for offsets in [vec![], vec![5, 10, 500]] {
            let allowed = Allowed { offsets_bps: offsets, max_size, resting: false };
            for form in [Form::Json, Form::Code, Form::Words] {
                let grammar = Grammar::decision(&allowed, form, "");
                let constraint = grammars.compile(&grammar).unwrap();
                let mut others: Vec<Decision> = (1..=1001)
                    .map(|n| Decision::Market(crate::pairs::action::Side::Buy, n))
                    .collect();
                others.extend(
                    (1..=502).map(|n| Decision::Limit(crate::pairs::action::Side::Sell, n, 1)),
                );
                others.extend([Decision::Flat, Decision::Hold, Decision::Cancel]);
                for decision in others {
                    let text = decision.write(form);
                    assert_eq!(says(&constraint, &text), allowed.allows(decision), "{text}");
                }
            }
        }
    }
}

#[test]
fn forced_tokens_are_not_asked_for() {
    let vocabulary = vocabulary();
    let grammars = Grammars::new(&vocabulary, LOGITS).unwrap();
    let allowed = Allowed { offsets_bps: vec![10, 25], max_size: 1, resting: false };
    let constraint = grammars.compile(&Grammar::decision(&allowed, Form::Json, " ")).unwrap();
    let (mut asked, mut said) = (0, 0);
    for seed in 0..200 {
        let wanted = wanted(1.0, seed, &vocabulary);
        let (decoder, times) = decode(&vocabulary, wanted, Some(constraint.clone()));
        asked += times;
        said += decoder.tokens().len();
        let drawn = decoder.tokens().iter().filter(|token| !token.forced).count();
        assert_eq!(drawn, times);
        // What is forced is certain.
        assert!(decoder.tokens().iter().all(|t| !t.forced || t.log_prob == 0.0));
    }
    assert!(asked * 2 < said, "{asked} of {said}");
    // One that leaves no choice asks nothing.
    let only = grammars.compile(&Grammar::json(json!({ "const": { "a": [1, true] } }))).unwrap();
    let (decoder, times) = decode(&vocabulary, wanted(1.0, 0, &vocabulary), Some(only));
    assert_eq!((decoder.text().as_str(), times), (r#"{"a":[1,true]}"#, 0));
}

#[test]
fn schemas_of_users() {
    let vocabulary = vocabulary();
    let grammars = Grammars::new(&vocabulary, LOGITS).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "side": { "enum": ["buy", "sell"] },
            "why": { "type": "string", "maxLength": 12 },
            "levels": { "type": "array", "items": { "type": "number", "minimum": 0, "maximum": 99 }, "minItems": 1, "maxItems": 3 },
        },
        "required": ["side", "why", "levels"],
        "additionalProperties": false,
    });
    let constraint = grammars.compile(&Grammar::json(schema)).unwrap();
    let mut whole = 0;
    for seed in 0..300 {
        let wanted = wanted(2.0, seed, &vocabulary);
        let (decoder, _) = decode(&vocabulary, wanted, Some(constraint.clone()));
        // A number may go on for ever: then it is cut, and says so.
        if decoder.finish() == Some(Finish::Length) {
            continue;
        }
        whole += 1;
        let value: Value = serde_json::from_str(&decoder.text()).unwrap();
        assert!(matches!(value["side"].as_str(), Some("buy" | "sell")));
        assert!(value["why"].as_str().unwrap().chars().count() <= 12);
        assert!((1..=3).contains(&value["levels"].as_array().unwrap().len()));
    }
    assert!(whole > 200, "{whole}");
    for wrong in [
        json!({ "type": "strnig" }),
        json!(["type"]),
        json!({ "type": "array", "uniqueItems": true }),
        json!({ "type": "object", "propertyNames": { "pattern": "a" } }),
        json!({ "not": { "type": "string" } }),
        json!({ "$ref": "https://example.org/schema.json" }),
    ] {
        assert!(grammars.compile(&Grammar::json(wrong.clone())).is_err(), "{wrong}");
    }
}

#[test]
fn text_comes_out_whole() {
    let vocabulary = vocabulary();
    let tokenizer = vocabulary.tokenizer();
    let text = "naïve – 日本 €. END of it";
    let tokens = tokenizer.encode(text).unwrap();
    let likely = |token: u32| {
        let mut logits = vec![0.0; LOGITS];
        logits[token as usize] = 50.0;
        logits
    };
    let run = |stop: &[&str], most: usize| {
        let mut wanted = wanted(0.0, 0, &vocabulary);
        wanted.stop = stop.iter().map(|s| (*s).to_owned()).collect();
        wanted.sampling.max_tokens = most;
        let (mut decoder, _) = Decoder::begin(&vocabulary, &[], wanted, None).unwrap();
        let (mut parts, mut finish) = (String::new(), None);
        for token in tokens.iter().copied().chain(tokenizer.eos().iter().copied()) {
            if let Next::Done(done) = decoder.step(&likely(token)).unwrap() {
                finish = Some(done);
            }
            let part = decoder.told();
            assert!(!part.contains('\u{fffd}'), "{part}");
            // Nothing that a stop text begins with gets out before it is known.
            assert!(!stop.iter().any(|stop| part.contains(stop)));
            parts.push_str(&part);
            if finish.is_some() {
                break;
            }
        }
        assert_eq!(parts, decoder.text());
        (parts, finish.unwrap(), decoder.tokens().len())
    };
    assert_eq!(run(&[], 200), (text.to_owned(), Finish::Stop, tokens.len() + 1));
    let (cut, finish, _) = run(&["END", "never"], 200);
    assert_eq!((cut.as_str(), finish), ("naïve – 日本 €. ", Finish::Stop));
    assert_eq!(run(&["ä", "€. ENDE"], 200).0, text);
    let (_, finish, count) = run(&[], 3);
    assert_eq!((finish, count), (Finish::Length, 3));
}

#[test]
fn samples_do_not_depend_on_their_number() {
    let vocabulary = vocabulary();
    let text = |sample| {
        let wanted = Wanted { sample, ..wanted(1.0, 5, &vocabulary) };
        let (decoder, _) = decode(&vocabulary, wanted, None);
        decoder.text()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(0), text(1));
}
