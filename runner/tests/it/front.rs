//! Pipelines that are right: what the graph says of them.

use std::path::Path;

use quantmill::graph::{From, Graph};
use serde_json::json;

use crate::bad::read;

fn good(text: &str, set: &[&str]) -> Graph {
    read(Path::new("dir/pipeline.yaml"), text, set).unwrap_or_else(|drawn| panic!("{drawn}"))
}

const CORPUS: &str = r#"
version: 1
seed: 7
vars: { most: 1500, rates: { slow: 1e-5 }, half: "${most}" }
inputs: { papers: "papers/**/*.pdf" }
stages:
  model:
    uses: train
    from: { corpus: chunks }
    with: { learning_rate: "${rates.slow}", lora: { r: 8 } }
    to: { log: "logs/${half}.jsonl" }
  text: { uses: extract, from: papers }
  chunks: { uses: chunk, from: text, with: { max_tokens: "${half}" }, seed: 3 }
  count:
    uses: command
    from: { chunks: chunks, index: chunks.index, notes: ./notes.md }
    with:
      run: "n=$${x}; wc {in.chunks} {in.index} {in.notes} > {out.n}"
      outputs: { n: counts/n.txt }
    env: [TZ, LANG]
"#;

#[test]
fn a_graph_is_complete() {
    let graph = good(CORPUS, &[]);
    let names: Vec<_> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["text", "chunks", "model", "count"]);
    let [text, chunks, model, count] = graph.nodes.as_slice() else { panic!() };
    assert_eq!(graph.dir, Path::new("dir"));
    assert_eq!(text.input("documents"), Some(&From::Input("papers".into())));
    assert_eq!(chunks.input("text"), Some(&From::Output { node: 0, port: "text".into() }));
    assert_eq!(chunks.params()["max_tokens"], json!(1500));
    assert_eq!(chunks.params()["min_tokens"], json!(800));
    assert_eq!((chunks.seed, model.seed), (3, 7));
    assert_eq!(model.params()["learning_rate"], json!(1e-5));
    let places: Vec<_> = model.outputs.iter().map(|out| out.dest.to_str().unwrap()).collect();
    assert_eq!(places, ["out/model/model", "logs/1500.jsonl"]);
    assert_eq!(count.input("index"), Some(&From::Output { node: 1, port: "index".into() }));
    assert_eq!(count.input("notes"), Some(&From::Path("./notes.md".into())));
    assert_eq!(count.outputs[0].dest, Path::new("counts/n.txt"));
    assert_eq!(count.env, ["LANG", "TZ"]);
    assert!(count.params()["run"].as_str().unwrap().starts_with("n=${x}; wc "));
    let edges: Vec<_> = (graph.dag.edge_indices())
        .map(|e| graph.dag.edge_endpoints(e).unwrap())
        .map(|(a, b)| (graph.dag[a], graph.dag[b]))
        .collect();
    assert_eq!(edges, [(0, 1), (1, 2), (1, 3)]);
}

#[test]
fn set_reaches_variables_and_parameters() {
    let set = ["most=900", "chunks.min_tokens=5", "stages.model.with.lora.r=2", "rates.slow=0.5"];
    let graph = good(CORPUS, &set);
    assert_eq!(graph.nodes[1].params()["max_tokens"], json!(900));
    assert_eq!(graph.nodes[1].params()["min_tokens"], json!(5));
    assert_eq!(graph.nodes[2].params()["lora"]["r"], json!(2));
    assert_eq!(graph.nodes[2].params()["learning_rate"], json!(0.5));
    let graph = good(CORPUS, &["seed=9", "inputs.papers=one.pdf", "model.method=sft"]);
    assert_eq!((graph.nodes[1].seed, graph.nodes[2].seed), (3, 9));
    assert_eq!(graph.inputs["papers"].pattern, "one.pdf");
}

#[test]
fn a_command_with_one_source_reads_it_at_its_first_placeholder() {
    let text = r#"
version: 1
stages:
  a: { uses: command, with: { run: "date > {out.x}", outputs: { x: x } } }
  b: { uses: command, from: a, with: { run: "cat {in.x} > {out.y}", outputs: { y: y } } }
  c: { uses: command, from: b.y, with: { run: "cp y z", outputs: { z: z } } }
"#;
    let graph = good(text, &[]);
    assert_eq!(graph.nodes[1].input("x"), Some(&From::Output { node: 0, port: "x".into() }));
    assert_eq!(graph.nodes[2].input("y"), Some(&From::Output { node: 1, port: "y".into() }));
}

#[test]
fn ten_thousand_stages_in_a_chain_are_in_order() {
    let mut text = String::from("version: 1\nstages:\n");
    for i in (0..10_000).rev() {
        let from = if i > 0 { format!("from: s{}, ", i - 1) } else { String::new() };
        text.push_str(&format!("  s{i}: {{ uses: command, {from}with: {{ run: "));
        text.push_str(&format!("\"echo > {{out.x}}\", outputs: {{ x: o/{i} }} }} }}\n"));
    }
    let graph = good(&text, &[]);
    assert_eq!(graph.nodes.len(), 10_000);
    assert!(graph.nodes.iter().enumerate().all(|(i, node)| node.name == format!("s{i}")));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, ..Default::default() })]

    /// Whatever a hand does to a pipeline file, it is read or refused, and every place that a
    /// problem names lies in its text.
    #[test]
    fn no_edit_makes_it_panic(
        edits in proptest::collection::vec((0usize..1000, 0usize..12, "[ -~éß\t\n]{0,4}"), 1..6)
    ) {
        let mut text: Vec<char> = CORPUS.chars().collect();
        for (at, drop, insert) in edits {
            let at = at % text.len();
            let end = (at + drop).min(text.len());
            text.splice(at..end, insert.chars());
            if text.is_empty() {
                text.push('a');
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(drawn) = read(Path::new("pipeline.yaml"), &text, &["most=3"]) {
            proptest::prop_assert!(drawn.contains(" in pipeline.yaml"));
            proptest::prop_assert!(!drawn.contains("[Failed to read contents"), "{}", drawn);
        }
    }
}
