//! The verbs that read and draw: check, graph, schema, init.

use quantmill::report::dag::{self, View};
use quantmill::schema;

use crate::bad::read;
use crate::space::{Ended, Space};
use crate::toy::KINDS;

const PIPELINE: &str = r#"
version: 1
inputs: { papers: "papers/*.pdf", bars: bars.csv }
stages:
  text: { uses: extract, from: papers }
  chunks: { uses: chunk, from: text }
  base: { uses: train, from: chunks }
  pairs: { uses: pairs, from: { prompts: bars, features: bars }, with: { ticker: SPY } }
  tuned: { uses: train, from: { base: base, pairs: pairs }, with: { method: dpo } }
  report:
    uses: command
    from: { model: tuned, log: tuned.log, bars: bars, notes: ./notes.md }
    with: { run: "cat {in.log} > {out.html}", outputs: { html: report.html } }
"#;

#[test]
fn init_writes_a_pipeline_that_runs_and_never_overwrites() {
    let space = Space::new("");
    space.quantmill(&["init", "new"]).ok();
    let ended = space.quantmill(&["check", "new"]).ok();
    assert_eq!(ended.out, "ok: new/pipeline.yaml (1 input, 3 stages, 3 outputs)\n");
    assert!(space.quantmill(&["run", "new"]).ok().ran(&["returns", "volatility", "summary"]));
    assert!(space.read("new/out/summary.txt").starts_with("days with a return: 59\n"));
    let again = space.quantmill(&["init", "new"]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("new/pipeline.yaml is there already"), "{}", again.err);
    assert_eq!(space.quantmill(&["init"]).code, 2, "the folder has a pipeline");
}

#[test]
fn check_reports_a_wrong_file_on_stderr_and_ends_with_2() {
    let space = Space::new("version: 1\nstages: { a: { uses: comand } }\n");
    let ended = space.quantmill(&["check"]);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    assert!(ended.err.contains("did you mean `command`?"), "{}", ended.err);
    assert!(ended.err.contains("pipeline.yaml:2:22"), "{}", ended.err);
    assert!(!ended.err.contains('\x1b'), "no colour in a pipe");
    assert_eq!(space.quantmill(&["check", "elsewhere"]).code, 2);
}

#[test]
fn check_names_every_missing_source() {
    let space = Space::new(
        r#"version: 1
inputs: { a: a.csv, b: "b/*.csv" }
stages:
  x:
    uses: command
    from: { a: a, c: ./c.txt }
    with: { run: "cat {in.a} > {out.x}", outputs: { x: x } }
"#,
    );
    let ended = space.quantmill(&["check"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("3 problems and 1 warning in"), "{}", ended.err);
    space.write("a.csv", "");
    space.write("b/1.csv", "");
    space.write("c.txt", "");
    space.quantmill(&["check"]).ok();
}

#[test]
fn pictures_show_every_stage() {
    let graph = read(std::path::Path::new("pipeline.yaml"), PIPELINE, &[]).unwrap();
    let view = View { graph: &graph, plan: None, cells: false };
    insta::assert_snapshot!("text", dag::text::text(&view, 100, true));
    insta::assert_snapshot!("list", dag::text::text(&view, 20, true));
    insta::assert_snapshot!("mermaid", dag::markup::mermaid(&view));
    insta::assert_snapshot!("dot", dag::markup::dot(&view));
    let svg = dag::svg::svg(&view);
    for node in &graph.nodes {
        assert!(svg.contains(&format!(">{}</text>", node.name)), "{}", node.name);
    }
    assert_eq!(svg.matches("class=\"head\"").count(), 9, "an arrow for each edge");
    assert_eq!(svg, dag::svg::svg(&view));
}

#[test]
fn the_schema_knows_the_parameters_of_each_kind() {
    let schema = schema::schema(KINDS);
    let chunk = &schema["$defs"]["chunk"];
    assert_eq!(chunk["properties"]["max_tokens"]["default"], 2000);
    assert_eq!(chunk["properties"]["max_tokens"]["description"], "Most tokens of a chunk.");
    let encoding = &chunk["properties"]["encoding"]["anyOf"];
    assert_eq!(encoding[0]["$ref"], "#/$defs/chunk.Encoding");
    assert_eq!(encoding[1]["type"], "string", "a variable may stand for it");
    let stage = &schema["$defs"]["stage"];
    assert_eq!(stage["allOf"][1]["if"]["properties"]["uses"]["const"], "chunk");
    assert_eq!(stage["allOf"][1]["then"]["properties"]["with"]["$ref"], "#/$defs/chunk");
    // What must be given is asked for apart, since an axis of a matrix may give it.
    assert!(schema["$defs"]["pairs"]["required"].is_null());
    let given = &stage["allOf"][KINDS.len()]["then"]["properties"]["with"];
    assert_eq!(given["required"], serde_json::json!(["ticker"]));
    let references = references(&schema);
    assert!(references.len() >= 9);
    for reference in references {
        let place = reference.strip_prefix('#').unwrap();
        assert!(schema.pointer(place).is_some(), "{reference} leads nowhere");
    }
}

/// What Python's `jsonschema` says of stages whose parameters an axis gives, or does not.
#[test]
fn a_parameter_may_come_from_an_axis_alone() {
    if std::env::var_os("QUANTMILL_TEST_JSONSCHEMA").is_none() {
        return crate::space::skip("QUANTMILL_TEST_JSONSCHEMA=1 needs Python's `jsonschema`");
    }
    let space = Space::new("");
    space.write("schema.json", &schema::text(KINDS));
    let right = [
        r#"{ "uses": "pairs", "with": { "ticker": "A" } }"#,
        r#"{ "uses": "pairs", "matrix": { "ticker": ["A", "B"] } }"#,
        r#"{ "uses": "pairs", "with": { "weights": { "a": 1 } }, "matrix": { "ticker": ["A", "B"] } }"#,
        r#"{ "uses": "pairs", "matrix": { "market": { "us": { "ticker": ["A", "B"] } } } }"#,
        r#"{ "uses": "pairs", "matrix": "${axes}" }"#,
        r#"{ "uses": "train" }"#,
    ];
    let wrong = [
        r#"{ "uses": "pairs" }"#,
        r#"{ "uses": "pairs", "with": {} }"#,
        r#"{ "uses": "pairs", "with": null }"#,
        r#"{ "uses": "pairs", "matrix": { "seed": [1, 2] } }"#,
        r#"{ "uses": "pairs", "with": { "ticker": 1, "wieghts": {} } }"#,
        r#"{ "uses": "command", "with": { "run": "x" } }"#,
    ];
    let program = "import json, sys, jsonschema\n\
        schema = json.load(open('schema.json'))\n\
        for stage in sys.argv[1:]:\n    \
            file = {'version': 1, 'stages': {'a': json.loads(stage)}}\n    \
            print(jsonschema.Draft202012Validator(schema).is_valid(file))\n";
    let judge = |stages: &[&str]| -> Vec<String> {
        let mut python = std::process::Command::new("python3");
        python.args(["-c", program]).args(stages).current_dir(space.path(""));
        let out = python.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    };
    assert_eq!(judge(&right), ["True"; 6]);
    assert_eq!(judge(&wrong), ["False"; 6]);
}

fn references(schema: &serde_json::Value) -> Vec<&str> {
    match schema {
        serde_json::Value::Array(items) => items.iter().flat_map(references).collect(),
        serde_json::Value::Object(map) => {
            let own = map.get("$ref").and_then(|reference| reference.as_str());
            own.into_iter().chain(map.values().flat_map(references)).collect()
        }
        _ => Vec::new(),
    }
}

/// Without the models some stages are missing, and with them their parameters.
#[cfg(feature = "models")]
#[test]
fn the_committed_schema_is_current() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/pipeline.schema.json");
    let committed = fs_err::read_to_string(path).unwrap();
    assert!(
        committed == schema::text(quantmill_stages::ALL),
        "run `quantmill schema > pipelines/pipeline.schema.json`"
    );
}

#[test]
fn every_pipeline_of_the_repository_is_right() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    for entry in fs_err::read_dir(folder).unwrap() {
        let file = entry.unwrap().path().join("pipeline.yaml");
        let Ok(text) = fs_err::read_to_string(&file) else { continue };
        // A build without the models lacks kinds that pipelines name; `uses` then is all it minds.
        let spec = quantmill::spec::parse(&file, &text, &[], quantmill_stages::ALL);
        let built = spec.and_then(|spec| quantmill::graph::build(spec, quantmill_stages::ALL));
        if let Err(problems) = built {
            let all = cfg!(feature = "models");
            let others = problems.iter().any(|p| all || p.code != "graph::unknown_kind");
            assert!(!others, "{}", problems.render(false, 100));
        }
    }
}

#[test]
fn pictures_tell_the_status_in_words_and_fold_cells() {
    let space = Space::new(
        r#"
version: 1
stages:
  data: { uses: command, from: { x: ./x.txt }, with: { run: "cat {in.x} > {out.d}", outputs: { d: out/data } } }
  model:
    uses: command
    from: { d: data }
    matrix: { lr: [1, 2, 3, 4] }
    with: { run: "echo ${matrix.lr} > {out.m}; cat {in.d} >> {out.m}", outputs: { m: "out/model-${matrix.lr}" } }
  all:
    uses: command
    from: { m: model@* }
    with: { run: "find {in.m} -type f | wc -l > {out.n}", outputs: { n: out/all } }
"#,
    );
    space.write("x.txt", "1");
    let plain = space.quantmill(&["graph"]).ok().out;
    assert!(plain.contains("│ model ×4 (command) │") && !plain.contains("run"), "{plain}");
    let cold = space.quantmill(&["graph", "--status"]).ok().out;
    assert!(
        cold.contains("data (command): run") && cold.contains("all (command): unknown"),
        "{cold}"
    );
    space.run().ok();
    let cells = space.quantmill(&["graph", "--status", "--cells", "--format", "svg"]).ok().out;
    assert_eq!(cells.matches("class=\"stage hit\"").count(), 6 + 1, "six stages and a legend");
    assert!(cells.contains(">model@lr=3</text>") && cells.contains("up to date</text>"), "{cells}");
    space.write("x.txt", "2");
    for (format, run, wait) in [
        ("svg", "class=\"stage run\"", "class=\"stage unknown\""),
        ("mermaid", "]:::run", "]:::unknown"),
        ("dot", "command · run\"", "command · unknown\""),
        ("text", "data (command): run", "model ×4 (command): unknown"),
    ] {
        let drawn = space.quantmill(&["graph", "--status", "--format", format]).ok().out;
        assert!(drawn.contains(run) && drawn.contains(wait), "{format}: {drawn}");
    }
}

#[test]
fn a_stage_that_is_not_there_is_answered_with_those_that_are() {
    let space = Space::new(
        "version: 1\nstages:\n  one: { uses: command, with: { run: 'echo > {out.a}', outputs: { a: a } } }\n",
    );
    let ended = space.quantmill(&["plan", ".", "else"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.ends_with("no stage `else`\n  hint: stages: `one`\n"), "{}", ended.err);
}

#[test]
fn a_kind_of_stage_tells_what_may_stand_where_and_its_ports() {
    let space = Space::new("version: 1\nstages: {}\n");
    let told = space.quantmill(&["stages", "forecast"]).ok().out;
    for part in [
        "inputs\n  features       features\n",
        "inputs with `model: ensemble`\n",
        "  model (required)  The model.\n    majority:  ",
        "      l2 [0.01]  ",
        "  class_weights [balanced]  ",
        "    equal  Each row counts the same.\n",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let space = Space::new("version: 1\nstages: {}\n");
    let ended = |to: std::process::Stdio| {
        Ended::of(space.command(&["stages", "featurize"]).stdout(to).output().unwrap())
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let head = ended(writer.into());
    assert_eq!((head.code, head.err.as_str()), (0, ""));
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let full = ended(full.into());
        assert_eq!(full.code, 70);
        assert!(full.err.contains("cannot write to stdout"), "{}", full.err);
    }
}

#[test]
fn a_script_that_fetches_what_is_missing_is_named() {
    let space = Space::new("version: 1\ninputs: { model: model }\nstages: {}\n");
    let missing = || space.quantmill(&["check"]).err;
    assert!(!missing().contains("fetch.sh"), "{}", missing());
    space.write("fetch.sh", "#!/bin/sh\n");
    assert!(missing().contains("fetch.sh fetches what is not committed"), "{}", missing());
}
