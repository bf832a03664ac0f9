//! The language of pipeline files: matrix, foreach, when, map, include, and what a stage needs.

use std::path::Path;
use std::time::Duration;

use quantmill::graph::{From, Graph, Needs, Node};
use quantmill_stages::{Items, Sandbox};
use serde_json::json;

use crate::bad::read;
use crate::space::Space;

fn good(text: &str, set: &[&str]) -> Graph {
    read(Path::new("pipeline.yaml"), text, set).unwrap_or_else(|drawn| panic!("{drawn}"))
}

fn names(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.name.as_str()).collect()
}

fn node<'g>(graph: &'g Graph, name: &str) -> &'g Node {
    let found = graph.nodes.iter().find(|node| node.name == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {:?}", names(graph)))
}

/// The name of the stage that feeds a port.
fn fed<'g>(graph: &'g Graph, name: &str, port: &str) -> Vec<&'g str> {
    let from = node(graph, name).input(port);
    from.into_iter().flat_map(From::nodes).map(|place| graph.nodes[place].name.as_str()).collect()
}

const SWEEP: &str = r#"
version: 1
vars: { rates: [1e-4, 3e-4] }
inputs: { papers: papers }
stages:
  text: { uses: extract, from: papers }
  chunks: { uses: chunk, from: text }
  model:
    uses: train
    from: chunks
    with: { lora: { alpha: 16 } }
    matrix: { learning_rate: "${rates}", lora: { r: [8, 16] }, seed: [1], exclude: [{ learning_rate: 3e-4, lora: { r: 8 } }] }
  score:
    uses: command
    from: { model: model }
    with: { run: "eval {in.model} > {out.s}", outputs: { s: "s/${matrix.learning_rate}-${matrix.lora.r}.json" } }
  best:
    uses: command
    from: { scores: score@*, one: "model.log@lora.r=16,learning_rate=1e-4,seed=*" }
    with: { run: "best {in.scores} {in.one} > {out.b}", outputs: { b: best.json } }
  by_rate:
    uses: command
    from: { scores: "score@lora.r=*" }
    with: { run: "mean {in.scores} > {out.m}", outputs: { m: "m/${matrix.learning_rate}.json" } }
"#;

#[test]
fn a_matrix_gives_a_node_a_cell_and_those_behind_it_follow() {
    let graph = good(SWEEP, &[]);
    let cells = ["0.0001,lora.r=8", "0.0001,lora.r=16", "0.0003,lora.r=16"];
    let model = |cell: &str| format!("model@learning_rate={cell},seed=1");
    for cell in cells {
        let name = model(cell);
        let node = node(&graph, &name);
        assert_eq!(node.base, "model");
        assert_eq!(node.seed, 1);
        assert_eq!(node.outputs[0].dest, Path::new("out").join(&name).join("model"));
        let score = format!("score@learning_rate={cell},seed=1");
        assert_eq!(fed(&graph, &score, "model"), [name]);
    }
    let first = node(&graph, &model(cells[0]));
    assert_eq!(first.params()["learning_rate"], json!(1e-4));
    assert_eq!(first.params()["lora"], json!({"r": 8, "alpha": 16.0}));
    assert_eq!(first.cell["lora.r"], "8");
    assert_eq!(graph.nodes.iter().filter(|node| node.base == "score").count(), 3);
}

#[test]
fn cells_are_gathered_and_picked() {
    let graph = good(SWEEP, &[]);
    let Some(From::Cells { nodes, port }) = node(&graph, "best").input("scores") else { panic!() };
    let labels: Vec<&str> = nodes.keys().map(String::as_str).collect();
    assert_eq!(port, "s");
    let (low, high) =
        ("learning_rate=0.0001,lora.r=8,seed=1", "learning_rate=0.0003,lora.r=16,seed=1");
    assert_eq!(labels, ["learning_rate=0.0001,lora.r=16,seed=1", low, high]);
    let Some(From::Cells { nodes, .. }) = node(&graph, "best").input("one") else { panic!() };
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["seed=1"]);
    // `seed` is not picked, and has one value: it is handed on.
    let rate = "by_rate@learning_rate=0.0001,seed=1";
    let Some(From::Cells { nodes, .. }) = node(&graph, rate).input("scores") else { panic!() };
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["lora.r=16", "lora.r=8"]);
    assert_eq!(fed(&graph, "by_rate@learning_rate=0.0003,seed=1", "scores").len(), 1);
}

#[test]
fn set_changes_an_axis() {
    let graph = good(SWEEP, &["stages.model.matrix.learning_rate=[1e-4, 7]"]);
    assert_eq!(graph.nodes.iter().filter(|node| node.base == "model").count(), 4);
    let graph = good(SWEEP, &["model.learning_rate=1e-4", "model.lora.r=16"]);
    let models: Vec<&str> = names(&graph).into_iter().filter(|n| n.starts_with("model")).collect();
    assert_eq!(models, ["model@learning_rate=0.0001,lora.r=16,seed=1"]);
}

const ITEMS: &str = r#"
version: 1
vars: { quick: true, least: 3 }
inputs: { fees: fees.csv }
stages:
  load:
    uses: command
    foreach: { btc: { symbol: BTCUSDT, scale: 2 }, "ETH/USD": { symbol: ETH, scale: 8 } }
    with: { run: "load ${item.symbol} ${item.scale} > {out.bars}", outputs: { bars: "bars/${key}" } }
  clean:
    uses: command
    from: load
    when: "item.scale > least"
    with: { run: "clean {in.bars} > {out.c}", outputs: { c: "clean/${item.symbol}.csv" } }
  join:
    uses: command
    from: { all: clean@*, btc: load@btc, fees: fees }
    with: { run: "cat {in.all} > {out.j}", outputs: { j: joined.csv } }
  more:
    uses: command
    from: { raw: "load.bars@ETH/USD" }
    when: "not ${quick}"
    with: { run: "cat {in.raw} > {out.m}", outputs: { m: more.csv } }
  after:
    uses: command
    from: { more: more, joined: join }
    with: { run: "cat {in.more} > {out.a}", outputs: { a: after.csv } }
  report:
    uses: command
    from: { more: more, joined: join }
    with: { run: "cat {in.joined} > {out.r}", outputs: { r: report.txt } }
"#;

#[test]
fn foreach_gives_a_node_an_item_and_when_leaves_some_out() {
    let graph = good(ITEMS, &[]);
    assert_eq!(names(&graph), ["load@btc", "load@ETH-USD", "clean@ETH-USD", "join", "report"]);
    let eth = node(&graph, "load@ETH-USD");
    assert_eq!(eth.params()["run"], "load ETH 8 > {out.bars}");
    assert_eq!(eth.cell["item"], "ETH-USD");
    let Some(From::Cells { nodes, .. }) = node(&graph, "join").input("all") else { panic!() };
    assert_eq!(nodes.keys().collect::<Vec<_>>(), ["ETH-USD"]);
    assert_eq!(fed(&graph, "join", "btc"), ["load@btc"]);
    assert!(node(&graph, "report").input("more").is_none(), "an optional port is left unfed");
    let told: Vec<_> = graph.warnings.iter().map(|p| (p.code, &*p.message)).collect();
    assert_eq!(told, [("graph::left_out", "`after` is left out, because it needs `more`")]);
    let graph = good(ITEMS, &["quick=false", "least=1"]);
    assert_eq!(graph.nodes.len(), 8);
    assert_eq!(fed(&graph, "more", "raw"), ["load@ETH-USD"]);
    assert!(graph.warnings.is_empty());
}

#[test]
fn a_variable_may_name_the_member_of_another() {
    let text = r#"
version: 1
vars:
  scale: smoke
  sizes: { smoke: { rows: 10 }, full: { rows: 5000 } }
stages:
  a: { uses: command, with: { run: "head -${sizes[scale].rows} > {out.x}", outputs: { x: x } } }
"#;
    assert_eq!(good(text, &[]).nodes[0].params()["run"], "head -10 > {out.x}");
    assert_eq!(good(text, &["scale=full"]).nodes[0].params()["run"], "head -5000 > {out.x}");
}

#[test]
fn two_stages_that_exclude_each_other_may_share_a_place() {
    let text = r#"
version: 1
vars: { mode: fast }
stages:
  a: { uses: command, when: "mode == 'fast'", with: { run: "a > {out.x}", outputs: { x: x } } }
  b: { uses: command, when: "mode != 'fast'", with: { run: "b > {out.x}", outputs: { x: x } } }
"#;
    assert_eq!(names(&good(text, &[])), ["a"]);
    assert_eq!(names(&good(text, &["mode=slow"])), ["b"]);
}

#[test]
fn a_stage_says_what_it_needs_and_keeps() {
    let text = r#"
version: 1
sandbox: trace
vars: { hours: 2 }
stages:
  a:
    uses: command
    with: { run: "a > {out.x}", outputs: { x: x } }
    env: [TZ, LANG, TZ]
    secrets: [TOKEN]
    frozen: true
    retries: 2
    timeout: 1h30m
    needs: { cpu: 4, gpu: 1, memory: 1.5GiB, time: "${hours}h" }
    sandbox: off
  b: { uses: command, always: true, with: { run: "b > {out.y}", outputs: { y: y } } }
"#;
    let graph = good(text, &[]);
    let [a, b] = graph.nodes.as_slice() else { panic!() };
    assert_eq!((a.frozen, a.always, a.retries), (true, false, 2));
    assert_eq!(a.timeout, Some(Duration::from_secs(5400)));
    assert_eq!(a.needs, Needs { cpu: 4, gpu: 1, memory: 3 << 29 });
    assert_eq!(a.time, Some(Duration::from_secs(7200)));
    assert_eq!((a.sandbox, b.sandbox), (Sandbox::Off, Sandbox::Trace));
    assert_eq!(
        (a.env.as_slice(), a.secrets.as_slice()),
        (&["LANG".into(), "TZ".into()][..], &["TOKEN".into()][..])
    );
    assert_eq!((b.always, b.retries, b.needs, b.timeout), (true, 0, Needs::default(), None));
    assert_eq!(good(text, &["sandbox=strict"]).nodes[1].sandbox, Sandbox::Strict);
}

#[test]
fn map_feeds_the_port_item() {
    let text = r#"
version: 1
inputs: { days: "days/*.csv", script: clean.py }
stages:
  clean:
    uses: command
    map: days
    from: { script: script }
    with: { run: "python {in.script} {in.item} > {out.clean}", outputs: { clean: "clean/{stem}.csv" } }
  glob:
    uses: command
    map: ./raw/*.txt
    with: { run: "wc {in.item} > {out.n}", outputs: { n: "n/{name}" } }
"#;
    let graph = good(text, &[]);
    let [clean, glob] = graph.nodes.as_slice() else { panic!() };
    assert_eq!((clean.items, glob.items), (Some(Items::of("item")), Some(Items::of("item"))));
    assert_eq!(clean.input("item"), Some(&From::Input("days".into())));
    assert_eq!(glob.input("item"), Some(&From::Path("./raw/*.txt".into())));
}

#[test]
fn files_are_included_from_the_folder_of_the_pipeline() {
    let space = Space::new(
        r#"version: 1
include: [common/base.yaml, common/more.yaml]
stages:
  c:
    uses: command
    from: { a: a, word: word }
    with: { run: "cat {in.a} {in.word} > {out.c}; echo ${name} >> {out.c}", outputs: { c: c.txt } }
"#,
    );
    space.write("word.txt", "word\n");
    space.write(
        "common/base.yaml",
        "version: 1\nvars: { name: x, unused: 1 }\ninputs: { word: word.txt }\n",
    );
    space.write(
        "common/more.yaml",
        "include: [common/base.yaml]\nstages:\n  a: { uses: command, with: { run: \"echo a > {out.a}\", outputs: { a: a.txt } } }\n",
    );
    let checked = space.quantmill(&["check"]).ok();
    assert_eq!(checked.out, "ok: ./pipeline.yaml (1 input, 2 stages, 2 outputs)\n");
    space.run().ok();
    assert_eq!(space.read("c.txt"), "a\nword\nx\n");
    space.quantmill(&["run", "--set", "name=y"]).ok();
    assert_eq!(space.read("c.txt"), "a\nword\ny\n");
}
