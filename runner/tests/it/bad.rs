//! Every file of `tests/bad` is wrong; its snapshot is what a user sees of it.
//!
//! A first line `# --set a=b c=d` stands for the command line.

use std::path::Path;

use quantmill::{graph, spec};

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
    assert!(files.len() >= 20, "{}", files.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(&folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for file in files {
        let text = fs_err::read_to_string(&file).unwrap();
        let set = text.lines().next().and_then(|line| line.strip_prefix("# --set "));
        let set: Vec<&str> = set.unwrap_or_default().split_whitespace().collect();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let drawn = read(Path::new(file.file_name().unwrap()), &text, &set).expect_err(name);
        settings.bind(|| insta::assert_snapshot!(name, drawn));
    }
}
