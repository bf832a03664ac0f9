//! Every file of `tests/bad` is wrong; its snapshot is what a user sees of it.
//!
//! A first line `# --set a=b c=d` stands for the command line.

use std::path::Path;

use quantmill::diagnostic::Problems;
use quantmill::{graph, spec};

use crate::space::Space;
use crate::toy::KINDS;

/// What `check` prints of a file, or the graph.
pub fn read(path: &Path, text: &str, set: &[&str]) -> Result<graph::Graph, String> {
    let set: Vec<(String, String)> = set
        .iter()
        .filter_map(|arg| arg.split_once('='))
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect();
    spec::parse(path, text, &set, KINDS)
        .and_then(|spec| graph::build(spec, KINDS))
        .map_err(|problems| problems.render(false, 100))
}

#[test]
fn every_mistake_is_drawn() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<_> = fs_err::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 45, "{}", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for file in files {
        let text = fs_err::read_to_string(&file).unwrap();
        let set = text.lines().next().and_then(|line| line.strip_prefix("# --set "));
        let set: Vec<&str> = set.unwrap_or_default().split_whitespace().collect();
        let name = file.file_stem().unwrap().to_str().unwrap();
        // What is included is looked for beside it.
        let path = match name.starts_with("include") {
            true => Path::new("tests/bad").join(file.file_name().unwrap()),
            false => file.file_name().unwrap().into(),
        };
        let drawn = read(&path, &text, &set).map(|graph| {
            assert!(!graph.warnings.is_empty(), "{name} is right");
            Problems::new(graph.sources, graph.warnings).render(false, 100)
        });
        let drawn = drawn.unwrap_or_else(|drawn| drawn);
        settings.bind(|| insta::assert_snapshot!(name, drawn));
    }
}

/// A code that no snapshot shows is a message that nobody has read.
#[test]
fn every_code_is_drawn() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folder: &Path, end: &str| -> String {
        let mut folders = vec![folder.to_owned()];
        let mut all = String::new();
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == end) {
                    all.push_str(&fs_err::read_to_string(path).unwrap());
                }
            }
        }
        all
    };
    let sources = read(&root.join("src"), "rs");
    let drawn = read(&root.join("tests/bad"), "snap");
    let drawn: Vec<&str> = drawn.lines().collect();
    let made = ["Problem::new(", "Problem::warning("].into_iter().flat_map(|made| {
        sources
            .split(made)
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
    });
    // What is found when a run is planned is no mistake of the language.
    let codes: std::collections::BTreeSet<&str> =
        made.filter(|code| !code.starts_with("plan::")).collect();
    assert!(codes.len() > 40, "{}", codes.len());
    let undrawn: Vec<_> = codes.into_iter().filter(|code| !drawn.contains(code)).collect();
    assert_eq!(undrawn, [""; 0]);
}

#[test]
fn a_missing_source_is_drawn_with_the_rest() {
    let space = Space::new(
        r#"version: 1
inputs: { prices: data/price.csv, days: "days/*.csv" }
stages:
  a:
    uses: command
    from: { prices: prices, days: days, script: ./script.awk }
    with: { run: "awk -f {in.script} {in.prices} > {out.x}", outputs: { x: x.txt } }
    seed: none
"#,
    );
    space.write("data/prices.csv", "");
    let ended = space.quantmill(&["check", "pipeline.yaml"]);
    assert_eq!(ended.code, 2);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../bad");
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!("missing_source", ended.err));
    let listed = space.quantmill(&["check", "pipeline.yaml", "--json"]);
    assert_eq!((listed.code, listed.err.as_str()), (2, ""));
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let first = &listed[0];
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(2), Some(19)));
    assert_eq!((first["end_line"].as_u64(), first["end_column"].as_u64()), (Some(2), Some(33)));
    assert_eq!((&first["code"], &first["severity"]), (&"input::missing".into(), &"error".into()));
    assert_eq!(first["file"], "pipeline.yaml");
    assert_eq!(first["help"], "did you mean `data/prices.csv`?");
    assert_eq!(listed.as_array().map(Vec::len), Some(4));
}
