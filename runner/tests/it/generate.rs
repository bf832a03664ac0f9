//! `quantmill generate` on a tiny model.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::models::tiny;
use crate::space::{Ended, Space};

pub fn space() -> Space {
    let space = Space::new("");
    tiny(&space.path("m"));
    space
}

pub fn piped(space: &Space, arguments: &[&str], input: &str) -> Ended {
    let mut child = space
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    Ended {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_text_goes_on_the_same_from_flag_and_pipe() {
    let space = space();
    let args = ["generate", "m", "--max-tokens", "12"];
    let flag = space.quantmill(&[&args[..], &["--prompt", "Spread is wide"]].concat()).ok();
    assert!(flag.out.ends_with('\n') && flag.out.len() > 2, "{:?}", flag.out);
    let pipe = piped(&space, &args, "Spread is wide\n").ok();
    assert_eq!(pipe.out, flag.out);
    assert!(pipe.err.contains("tokens/s"), "{}", pipe.err);
    assert!(!pipe.err.contains('\x1b'));
    let quiet = piped(&space, &[&args[..], &["-q"]].concat(), "Spread is wide").ok();
    assert_eq!((quiet.out, quiet.err.as_str()), (pipe.out, ""));
}

/// On a machine without the driver; where there is one, the text is that of the CPU.
#[test]
fn a_device_that_is_not_there_is_said_with_what_to_do() {
    let space = space();
    let args = ["generate", "m", "--prompt", "Spread", "--max-tokens", "8", "-q", "--device"];
    let ended = space.quantmill(&[&args[..], &["cuda"]].concat());
    if ended.code == 0 {
        assert_eq!(ended.out, space.quantmill(&[&args[..], &["cpu"]].concat()).ok().out);
    } else {
        assert!(ended.err.contains("`cuda`"), "{}", ended.err);
        let hint = ended.err.contains("--device cpu") || ended.err.contains("feature `gpu`");
        assert!(hint && !ended.err.contains("panicked"), "{}", ended.err);
    }
    let ended = space.quantmill(&[&args[..], &["tpu"]].concat());
    assert!(ended.code == 2 && ended.err.contains("cpu, wgpu, cuda"), "{}", ended.err);
}

#[test]
fn samples_follow_their_seed() {
    let space = space();
    let texts = |extra: &[&str]| {
        let args = ["generate", "m", "--prompt", "Spread", "--json", "--max-tokens", "8"];
        let ended = space.quantmill(&[&args[..], extra].concat()).ok();
        lines(&ended.out).iter().map(|line| line["text"].clone()).collect::<Vec<_>>()
    };
    let four = texts(&["-n", "4", "--temperature", "1", "--seed", "3"]);
    assert_eq!(four.len(), 4);
    assert!(four[1..].iter().any(|text| *text != four[0]));
    assert_eq!(texts(&["-n", "4", "--temperature", "1", "--seed", "3"]), four);
    // The second sample is the second of two as of four.
    assert_eq!(texts(&["-n", "2", "--temperature", "1", "--seed", "3"]), four[..2]);
    assert_ne!(texts(&["-n", "4", "--temperature", "1", "--seed", "4"]), four);
    let greedy = texts(&["-n", "2"]);
    assert_eq!(greedy[0], greedy[1]);
}

#[test]
fn many_prompts_come_out_in_order_whatever_the_batch() {
    let space = space();
    let mut file = String::new();
    for n in 0..12 {
        file.push_str(&format!("{}\n", json!({ "id": format!("d{n}"), "prompt": format!("Spread is {n} bps.{}", " x".repeat(n % 5 * 3)) })));
    }
    file.push_str("\nplain text\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n");
    space.write("prompts.jsonl", &file);
    let run = |batch: &str| {
        let args = [
            "generate",
            "m",
            "--file",
            "prompts.jsonl",
            "--json",
            "--max-tokens",
            "10",
            "--batch",
            batch,
        ];
        lines(&space.quantmill(&args).ok().out)
    };
    let one = run("1");
    assert_eq!(one.len(), 14);
    assert_eq!((&one[3]["id"], &one[12]["id"]), (&json!("d3"), &json!(12)));
    assert_eq!(run("5"), one);
    let dash = piped(&space, &["generate", "m", "--file", "-", "--max-tokens", "10"], &file).ok();
    let texts: String =
        one.iter().map(|line| format!("{}\n", line["text"].as_str().unwrap())).collect();
    assert_eq!(dash.out, texts);
}

#[test]
fn schemas_and_stops_hold() {
    let space = space();
    let schema = json!({
        "type": "object",
        "properties": { "side": { "enum": ["buy", "sell"] }, "bps": { "type": "integer", "minimum": 1, "maximum": 50 } },
        "required": ["side", "bps"], "additionalProperties": false,
    });
    space.write("schema.json", &schema.to_string());
    let args =
        ["generate", "m", "--prompt", "x", "--json-schema", "schema.json", "--json", "-n", "20"];
    let ended = space.quantmill(&[&args[..], &["--temperature", "2"]].concat()).ok();
    for line in lines(&ended.out) {
        let value: Value = serde_json::from_str(line["text"].as_str().unwrap()).unwrap();
        assert!(matches!(value["side"].as_str(), Some("buy" | "sell")), "{value}");
        assert!((1..=50).contains(&value["bps"].as_i64().unwrap()));
        assert!(line["forced"].as_i64() > Some(0));
        assert_eq!(line["finish"], "stop");
    }
    assert!(ended.err.contains("forced by the grammar"), "{}", ended.err);
    space.write("schema.json", r#"{ "type": "array", "uniqueItems": true }"#);
    let refused = space.quantmill(&args);
    assert_eq!(refused.code, 1);
    assert!(
        refused.err.contains("JSON schema: ") && refused.err.contains("hint: "),
        "{}",
        refused.err
    );
    // A stop text that the model is known to write.
    let all = ["generate", "m", "--prompt", "Spread", "--max-tokens", "30", "-q"];
    let text = space.quantmill(&all).ok().out;
    let text = text.trim_end_matches('\n');
    let middle = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
    let stop: String = text[middle..].chars().take(2).collect();
    let cut = space.quantmill(&[&all[..], &["--stop", &stop]].concat()).ok().out;
    assert_eq!(
        cut.trim_end_matches('\n'),
        &text[..text.find(&stop).unwrap()].trim_end_matches('\n').to_owned()
    );
}

#[test]
fn chats_go_through_the_template() {
    let space = space();
    let ask = |args: &[&str]| {
        let base = ["generate", "m", "--max-tokens", "6", "--json"];
        lines(&space.quantmill(&[&base[..], args].concat()).ok().out).remove(0)
    };
    let chat = ask(&["--prompt", "hi", "--system", "Trade."]);
    let text = ask(&["--prompt", "<system>Trade.\n<user>hi\n<assistant>"]);
    assert_eq!(chat["text"], text["text"]);
    space.write("bad.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"b\"}]}\n");
    let bad = space.quantmill(&["generate", "m", "--file", "bad.jsonl"]);
    assert_eq!(bad.code, 1);
    assert!(
        bad.err.contains("prompt 1: chat template: line 1: the system comes first"),
        "{}",
        bad.err
    );
}

#[test]
fn mistakes_are_told_before_a_model_is_opened() {
    let space = space();
    for (args, said) in [
        (vec!["generate", "none", "--prompt", "x"], "no model at none"),
        (vec!["generate", "m", "--prompt", "x", "--top-p", "0"], "--top-p must be above 0"),
        (
            vec!["generate", "m", "--prompt", "x", "--temperature", "-1"],
            "--temperature must be 0 or more",
        ),
        (
            vec!["generate", "m", "--prompt", "x", "--repeat-penalty", "0"],
            "--repeat-penalty must be above 0",
        ),
        (vec!["generate", "m", "--prompt", "x", "-n", "0"], "0 is not in 1..=1024"),
    ] {
        let ended = space.quantmill(&args);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{}", ended.err);
        assert!(ended.err.contains(said), "{}", ended.err);
    }
    let line = piped(&space, &["generate", "m", "--file", "-"], "ok\n{\"prompt\": 3}\n");
    assert!(line.code == 2 && line.err.contains("-:2: "), "{}", line.err);
    let long = "x ".repeat(2000);
    let ended = piped(&space, &["generate", "m"], &long);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("leaves no room in a context of 1024"), "{}", ended.err);
}
