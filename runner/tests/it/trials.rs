//! The ledger, and what it makes of a trial: counted by data, shown beside the outputs and never in them.

use std::collections::BTreeMap;

use clap::Parser;
use quantmill::commands::run::{Run, run};
use quantmill::event::{Event, Finished, Outcome};
use quantmill::experiment::ledger::{self, Ledger};
use quantmill::experiment::trials;
use quantmill_cache::{ActionKey, Artifact, Digest};
use quantmill_stages::command::Command;
use quantmill_stages::{CONFIGURATIONS, Context, Format, Judged, Kind, Port, Result, Stage, Tried};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::space::Space;

const KINDS: &[Kind] = &[Kind::of::<Score>(), Kind::of::<Command>()];

/// Scores a file by its length, with a say in it: a trial.
struct Score;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    factor: f64,
}

impl Stage for Score {
    const NAME: &'static str = "score";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "a score";
    const TRIAL: bool = true;
    type Params = Params;
    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("data", Format::Any), Port::optional("model", Format::Model)]
    }
    fn outputs(_: &Params) -> Vec<Port> {
        vec![Port::file("report", Format::Report, "report.html")]
    }
    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let score = params.factor * fs_err::read(ctx.file("data")?)?.len() as f64;
        ctx.metric("score", score);
        Ok(fs_err::write(ctx.output("report")?, score.to_string())?)
    }
    fn judge(tried: &[Tried], own: Option<usize>) -> Result<Option<Judged>> {
        let mut scores: Vec<f64> = tried.iter().map(|t| t.metrics["score"]).collect();
        let own = own.map_or_else(|| "the best".to_owned(), |own| scores[own].to_string());
        scores.sort_by(f64::total_cmp);
        let line = format!("{own} of {scores:?}");
        Ok(Some(Judged { page: format!("<p>{line}</p>"), line, ..Judged::default() }))
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    run: Run,
}

/// A run in this process, with the kinds above.
fn try_out(space: &Space, arguments: &[&str]) {
    let pipeline = space.path("").display().to_string();
    let arguments = [&["run", pipeline.as_str()], arguments].concat();
    assert!(run(&Cli::parse_from(arguments).run, KINDS).is_ok());
}

const PIPELINE: &str = r#"
version: 1
vars: { width: 2 }
inputs: { bars: data/bars.csv, text: data/text }
stages:
  features:
    uses: command
    from: { bars: bars }
    with: { run: "head -c ${width} {in.bars} > {out.f}", outputs: { f: out/f } }
  report: { uses: score, from: { data: features }, with: { factor: 1 } }
  other: { uses: score, from: { data: text }, with: { factor: 1 } }
"#;

fn space() -> Space {
    let space = Space::new(PIPELINE);
    space.write("data/bars.csv", "a,b,c");
    space.write("data/text", "0123456789");
    space
}

#[test]
fn a_page_beside_the_output_counts_all_trials_on_the_same_sources() {
    let space = space();
    let page = || space.read("out/report/report.trials.html");
    try_out(&space, &[]);
    assert_eq!(page(), "<p>2 of [2.0]</p>");
    assert_eq!(space.read("out/other/report.trials.html"), "<p>10 of [10.0]</p>");
    let lock = space.read("pipeline.lock");
    // Other parameters, and other data that were made from the same source.
    try_out(&space, &["--set", "report.factor=3"]);
    try_out(&space, &["--set", "width=1"]);
    assert_eq!(page(), "<p>1 of [1.0, 2.0, 6.0]</p>");
    // What nothing was changed of is a hit that finds a longer ledger: its bytes stay.
    try_out(&space, &[]);
    assert_eq!(page(), "<p>2 of [1.0, 2.0, 6.0]</p>");
    assert_eq!(space.read("out/report/report.html"), "2");
    assert_eq!(space.read("pipeline.lock"), lock);
    // A day more is no fresh data.
    space.write("data/bars.csv", "a,b,c,d");
    try_out(&space, &["--set", "width=7"]);
    assert_eq!(page(), "<p>7 of [1.0, 2.0, 6.0, 7.0]</p>");
    assert_eq!(space.read("out/other/report.trials.html"), "<p>10 of [10.0]</p>");
    let trials = ledger::read(&space.path(".quantmill")).unwrap();
    let groups = trials::groups(&trials);
    let counts: Vec<_> = groups.iter().map(|g| (g.trials, g.ran, g.data["data"].len())).collect();
    assert_eq!(counts, [(1, 1, 1), (4, 4, 3)]);
}

#[test]
fn a_run_with_nothing_to_do_still_sees_a_trial_of_another() {
    let space = space();
    try_out(&space, &[]);
    try_out(&space, &[]);
    let page = || space.read("out/report/report.trials.html");
    assert_eq!(page(), "<p>2 of [2.0]</p>");
    // Outputs of a sweep's trials stay in the store.
    try_out(&space, &["--set", "report.factor=3", "--sweep", "s", "--run-id", "r"]);
    assert_eq!(page(), "<p>2 of [2.0]</p>");
    try_out(&space, &[]);
    assert_eq!(page(), "<p>2 of [2.0, 6.0]</p>");
}

#[test]
fn a_page_that_cannot_be_written_is_no_failure() {
    let space = space();
    fs_err::create_dir_all(space.path("out/report/report.trials.html")).unwrap();
    try_out(&space, &[]);
    assert_eq!(space.read("out/report/report.html"), "2");
    assert!(space.leftovers().is_empty());
}

#[test]
fn the_ledger_counts_configurations_on_the_same_data() {
    let home = tempfile::tempdir().unwrap();
    let artifact = |name: &str| Artifact::Tree(Digest::of(name.as_bytes()));
    let train = |rate: f64, corpus: &str, base: Option<&str>, outcome: Outcome| {
        let mut inputs = BTreeMap::from([("corpus".to_owned(), artifact(corpus))]);
        inputs.extend(base.map(|base| ("base".to_owned(), artifact(base))));
        let params = serde_json::json!({ "method": "sft", "learning_rate": rate, "lora": null });
        Event::StageFinished(Box::new(Finished {
            stage: "model".into(),
            outcome,
            key: ActionKey {
                stage: "train".into(),
                version: 1,
                params,
                inputs,
                ..ActionKey::default()
            },
            outputs: BTreeMap::from([
                ("model".into(), artifact(&rate.to_string())),
                ("log".into(), artifact("log")),
            ]),
            metrics: BTreeMap::from([("loss".into(), rate)]),
            ran: usize::from(outcome == Outcome::Ran),
            cached: 0,
            millis: 5,
        }))
    };
    let note = |run: &str, events: &[Event]| {
        let pipeline = std::path::Path::new("/p/pipeline.yaml");
        let ledger = Ledger::new(home.path(), run, pipeline, crate::toy::KINDS, BTreeMap::new());
        events.iter().for_each(|event| ledger.note(event).unwrap());
    };
    note(
        "1",
        &[
            train(0.1, "a", None, Outcome::Ran),
            train(0.1, "a", None, Outcome::Hit),
            train(0.2, "a", None, Outcome::Ran),
        ],
    );
    note(
        "2",
        &[
            train(0.2, "a", None, Outcome::Ran),
            train(0.2, "a", Some("m"), Outcome::Ran),
            train(0.2, "b", None, Outcome::Ran),
        ],
    );
    // A kind that tries nothing out.
    let chunk = ActionKey { stage: "chunk".into(), version: 1, ..ActionKey::default() };
    let Event::StageFinished(mut done) = train(0.1, "a", None, Outcome::Ran) else { panic!() };
    done.key = chunk;
    note("2", &[Event::StageFinished(done)]);
    // A line that a crash cut off.
    let mut text = fs_err::read_to_string(ledger::place(home.path())).unwrap();
    text.push_str("{\"at\":1");
    fs_err::write(ledger::place(home.path()), text).unwrap();
    let trials = ledger::read(home.path()).unwrap();
    assert_eq!(trials.len(), 5);
    assert_eq!(trials[0].data, BTreeMap::from([("corpus".to_owned(), artifact("a"))]));
    assert_eq!(trials[0].made, BTreeMap::from([("model".to_owned(), artifact("0.1"))]));
    assert_eq!(trials[3].given, BTreeMap::from([("base".to_owned(), artifact("m"))]));
    assert_eq!((trials[0].run.as_str(), trials[4].run.as_str()), ("1", "2"));
    let counts: Vec<(usize, usize)> =
        trials::groups(&trials).iter().map(|group| (group.trials, group.ran)).collect();
    assert_eq!(counts, [(3, 4), (1, 1)], "0.1, 0.2, and 0.2 upon another model; then other data");
    // A stage that searches by itself says how many it tried; run again, they are the same ones.
    let mut search = train(0.3, "a", None, Outcome::Ran);
    if let Event::StageFinished(done) = &mut search {
        done.metrics.insert(CONFIGURATIONS.into(), 12.0);
    }
    note("3", &[search.clone(), search]);
    let trials = ledger::read(home.path()).unwrap();
    let group = &trials::groups(&trials)[0];
    assert_eq!((group.trials, group.ran), (3 + 12, 6));
}
