//! YAML as a tree in which every key and value knows its place.
//!
//! What most files are written in is read by `fast`, the rest by serde_yaml (serde-saphyr) in
//! `general`; both keep what stands there, duplicate keys included, so that checks can go on after
//! the first mistake. Scalars that YAML 1.1 and 1.2, or a person and YAML, read differently are
//! refused: `NO`, `on`, `True`, `NULL`, `007` without quotes.

mod fast;
mod general;
mod recover;
mod scalar;

use serde_json::Number;

use crate::diagnostic::{Problem, Span};
use scalar::Scalars;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Yaml {
    /// What it is.
    pub value: Value,
    /// Where it is: all of a scalar, the start of a list or a map.
    pub span: Span,
}

/// What a YAML node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; integers stay integers.
    Number(Number),
    /// Text.
    String(String),
    /// A list.
    Seq(Vec<Yaml>),
    /// Entries in the order of the file. Keys that are not text keep how they are written.
    Map(Vec<(Key, Yaml)>),
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it is.
    pub span: Span,
}

impl Yaml {
    /// `a map`, `a list`, `text`, ...
    pub fn noun(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
    /// The entries, where it is a map.
    pub fn map(&self) -> Option<&[(Key, Yaml)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }
    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Yaml> {
        self.map()?.iter().find(|(k, _)| k.name == key).map(|(_, value)| value)
    }
    /// The same as JSON.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::String(s) => Json::String(s.clone()),
            Value::Seq(items) => Json::Array(items.iter().map(Yaml::json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(k, v)| (k.name.clone(), v.json())).collect())
            }
        }
    }
}

/// Reads one document. `source` is what its spans will say. Problems that leave a tree are added to
/// `problems`; `None` where there is no tree.
pub fn read(text: &str, source: usize, problems: &mut Vec<Problem>) -> Option<Yaml> {
    match fast::read(text, source) {
        Some((tree, found)) => {
            problems.extend(found);
            Some(tree)
        }
        None => recover::read(text, source, problems),
    }
}

/// How many nodes a tree has.
pub fn size(yaml: &Yaml) -> usize {
    1 + match &yaml.value {
        Value::Seq(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, value)| size(value)).sum::<usize>(),
        _ => 0,
    }
}

/// A key that a map has twice.
fn duplicate(key: &Key, first: Span) -> Problem {
    let problem =
        Problem::new("yaml::duplicate_key", key.span, format!("`{}` is given twice", key.name));
    problem.label("again here").also(first, "first here").help("keep one of the two")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Yaml, Vec<Problem>) {
        let mut problems = Vec::new();
        let tree = read(text, 0, &mut problems).expect("a tree");
        (tree, problems)
    }

    #[test]
    fn scalars_keep_their_types_and_places() {
        let text = "é: 3\nb: 3.0\nc: 1e-4\nd: \"5\"\ne: true\nf:\ng: -7\nh: [x, {i: 1}]\n1: z\n";
        let (tree, problems) = tree(text);
        assert_eq!(problems, []);
        let json = serde_json::json!({"é": 3, "b": 3.0, "c": 1e-4, "d": "5", "e": true, "f": null,
            "g": -7, "h": ["x", {"i": 1}], "1": "z"});
        assert_eq!(tree.json(), json);
        let spans: Vec<&str> = (tree.map().expect("a map").iter())
            .flat_map(|(k, v)| [&text[k.span.start..k.span.end], &text[v.span.start..v.span.end]])
            .collect();
        assert_eq!(spans[..8], ["é", "3", "b", "3.0", "c", "1e-4", "d", "\"5\""]);
    }

    #[test]
    fn a_duplicate_is_found_at_any_depth_and_the_rest_is_read() {
        let (tree, problems) = tree("a: {x: 1, x: 2}\nb: 1\na: 3\nb: 4\n");
        let codes: Vec<_> = problems.iter().map(|p| (p.code, &p.message)).collect();
        assert_eq!(codes.len(), 3, "{codes:?}");
        assert_eq!(tree.json(), serde_json::json!({"a": {"x": 1}, "b": 1}));
    }

    #[test]
    fn traps_ask_for_quotes() {
        for trap in ["NO", "yes", "On", "OFF", "True", "NULL", "007", "-01"] {
            assert_eq!(tree(&format!("ticker: {trap}")).1.len(), 1, "{trap}");
            assert_eq!(tree(&format!("ticker: \"{trap}\"")).1, [], "{trap}");
        }
        for fine in ["true", "null", "~", "0", "-0", "0.5", "0x1f", "nope", "2024-01-02"] {
            assert_eq!(tree(&format!("ticker: {fine}")).1, [], "{fine}");
        }
    }

    #[test]
    fn anchors_and_merges_work() {
        let (tree, problems) = tree("base: &b {x: 1}\nc: {<<: *b, y: 2}\nd: *b\n");
        assert_eq!(problems, []);
        assert_eq!(tree.get("c").map(Yaml::json), Some(serde_json::json!({"x": 1, "y": 2})));
        assert_eq!(tree.get("d").map(Yaml::json), Some(serde_json::json!({"x": 1})));
    }

    #[test]
    fn after_a_syntax_error_the_rest_is_read() {
        let text = "a: [1, 2\nb: 3\nc: { x: 1 ]\nd: 4\n";
        let mut problems = Vec::new();
        let tree = read(text, 0, &mut problems).expect("a tree");
        let lines: Vec<usize> = (problems.iter())
            .map(|problem| text[..problem.span.start].matches('\n').count())
            .collect();
        assert_eq!(lines.len(), 2, "{problems:?}");
        assert_eq!(lines[1], 2);
        let json = serde_json::json!({"a": null, "b": 3, "c": null, "d": 4});
        assert_eq!(tree.json(), json);
    }

    const CORPUS: &str = r##"# a comment
version: 1

vars: { most: 1500, rates: [1e-5, .5, -3, "x\n", 'it''s'], half: "${most}" } # more
inputs:
  papers: "papers/**/*.pdf"   # behind
  é: data/ß.csv
stages:
  text: {uses: extract, from: papers}
  big:
    uses: command
    from: { x: a.b, y: ./c,
            z: http://x:1 }
    with:
      run: |
        cat {in.x} > {out.y}   # not a comment

          deeper: [
        end
      outputs:
        y: out/s1
    env:
    - TZ
    - LANG
    when: a - b > 3
  list:
    - one
    - two: 2
      three: [a, {b: c}, []]
    -
      four: {}
    - - 5
      - 0x1f
  sandbox: off
  traps: [NO, 007, 12:30:00, True, 2024-01-02, 10m]
"##;

    /// What both readers say of a text, where the fast one says anything.
    fn both(text: &str) -> Option<()> {
        let (tree, problems) = fast::read(text, 0)?;
        let mut others = Vec::new();
        let other = general::read(text, 0, &mut others);
        let sorted = |mut problems: Vec<Problem>| {
            problems.sort_by_key(|problem| (problem.span, problem.code));
            problems
        };
        assert_eq!(Some(tree), other, "{text}");
        assert_eq!(sorted(problems), sorted(others), "{text}");
        Some(())
    }

    #[test]
    fn both_readers_agree_on_what_people_write() {
        assert_eq!(both(CORPUS), Some(()));
        for text in ["a: 1", "a: 1\n", "- a\n- b", "[1, 2]", "'x'", "a:\n  b: |-\n    x\n  c: 1\n"]
        {
            assert_eq!(both(text), Some(()), "{text}");
        }
        let others = [
            "",
            "a:",
            "a: b: c",
            "? a",
            "a: &x 1",
            "a: >\n  b\n",
            "a: b\n c",
            "a\t: 1",
            "---\na: 1",
        ];
        for text in others {
            assert_eq!(both(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 1000, ..Default::default() })]

        #[test]
        fn both_readers_agree_after_any_edit(
            edits in proptest::collection::vec(
                (0usize..1000, 0usize..9, "[-a1 :,\\[\\]{}#|>'\"\n&*!?.~%@_é]{0,3}"), 1..4
            )
        ) {
            let mut text: Vec<char> = CORPUS.chars().collect();
            for (at, drop, insert) in edits {
                let at = at % text.len();
                let end = (at + drop).min(text.len());
                text.splice(at..end, insert.chars());
            }
            both(&text.into_iter().collect::<String>());
        }
    }
}
