//! Files that have each killed some PDF reader, and the measures of the benchmark.

#[allow(dead_code)]
#[path = "../../benches/extract/hard.rs"]
mod hard;
#[allow(dead_code)]
#[path = "../../benches/extract/measure.rs"]
mod measure;
#[path = "../../benches/extract/source.rs"]
mod source;

use std::collections::BTreeMap;

use hard::Want;
use quantmill_stages::{ALL, Cancel, Context, Input, Job, Progress, Sink, StageError};

struct Silent;

impl Sink for Silent {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, _: &str) {}
    fn output(&self, _: &str) {}
}

fn extract(bytes: &[u8]) -> Result<String, StageError> {
    let kind = ALL.iter().find(|kind| kind.name == "extract").expect("the stage");
    let params = (kind.resolve)(&serde_json::json!({})).expect("defaults");
    let folder = tempfile::tempdir()?;
    let (pdf, text) = (folder.path().join("a.pdf"), folder.path().join("text"));
    fs_err::write(&pdf, bytes)?;
    fs_err::create_dir(&text)?;
    let input = Input { files: [("a.pdf".to_owned(), pdf)].into_iter().collect(), tree: false };
    let job = Job {
        kind: kind.name.into(),
        params,
        inputs: BTreeMap::from([("documents".into(), input)]),
        outputs: BTreeMap::from([("text".into(), text.clone())]),
        ..Job::default()
    };
    (kind.run)(&job.params, &Context::new(&job, &Silent, Cancel::default()))?;
    Ok(fs_err::read_to_string(text.join("a.txt"))?)
}

#[test]
fn bombs_cycles_and_nesting_end_in_a_text_or_a_reason() {
    for case in hard::cases() {
        match (extract(&case.bytes), case.want) {
            (Ok(text), Want::Text(words)) => assert!(text.contains(words), "{}: {text}", case.name),
            (Err(error), Want::Reason(words)) => {
                assert!(error.to_string().contains(words), "{}: {error}", case.name);
                assert!(error.help().is_some(), "{}: no hint", case.name);
            }
            (Err(error), Want::Either) => assert!(error.help().is_some(), "{}: no hint", case.name),
            (Ok(_), Want::Either) => {}
            (got, want) => panic!("{}: {got:?}, not {want:?}", case.name),
        }
    }
}

#[test]
fn prose_is_what_prints_as_it_is_written() {
    let tex = "\\begin{document}\nThe \\emph{well-known} model~of $x$-ray Poincar\\'e is \
               \\cite[p.~2]{a}, 50\\% of% no\n all.\n\n<<echo=TRUE>>=\nx <- 1\n@\n\\section{A title} \
               Next\\footnote{Below it.} one.\\end{document} gone";
    let runs: Vec<String> = source::prose(tex).iter().map(|run| run.join(" ")).collect();
    assert_eq!(runs, ["the wellknown model of", "is", "of all", "a title", "below it", "one"]);
}

#[test]
fn words_are_the_same_whoever_joins_them() {
    let text = "the vola-\ntility e\u{fb03}cient x_{t} don’t Poincar´e";
    let want = ["the", "volatility", "efficient", "xt", "dont", "poincare"];
    assert_eq!(measure::words(text), want);
    assert_eq!(measure::words("a - b well-known 3.2"), ["a", "b", "wellknown"]);
}

#[test]
fn recall_and_f1_of_known_texts() {
    let runs = vec!["a b c d e f".split(' ').map(str::to_owned).collect::<Vec<_>>()];
    let text = measure::words("x a b c d e y");
    assert_eq!(measure::five_grams(&runs, &text).ratio(), Some(0.5));
    let glued = measure::glued(&runs, &Default::default(), &measure::words("ab c xy"));
    assert_eq!((glued.part, glued.whole), (1.0, 3.0));
    let bag = |text: &str| measure::count(measure::words(text).into_iter());
    assert_eq!(measure::f1(&bag("a b b"), &bag("b c")), 0.4);
}
