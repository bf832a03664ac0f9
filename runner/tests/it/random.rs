//! Random pipelines, random edits, injected failures, and an oracle that knows what every output
//! must be and which stages must run.
//!
//! Every stage computes a small number from small numbers, so that equal outputs (early cutoff) and
//! values that come again (hits) are frequent. The oracle is a model of a dozen lines that knows
//! nothing of digests: a stage runs if it never ended well with this command and these inputs.
//! 24 cases by default; thousands with `QUANTMILL_TEST_LONG=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::space::{Ended, Space, long};

/// What feeds a stage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    /// A file, by number.
    File(usize),
    /// The folder of all files.
    Folder,
    /// A stage, by its number.
    Stage(usize),
}

#[derive(Clone, Debug)]
struct Stage {
    inputs: Vec<From>,
    salt: u8,
    modulus: u8,
    /// It writes a folder and not a file.
    folder: bool,
}

/// A pipeline with its files, and what is known of it.
struct World {
    space: Space,
    files: Vec<u8>,
    /// Every edge goes from a smaller to a larger number.
    stages: BTreeMap<usize, Stage>,
    fails: BTreeSet<usize>,
    /// Command and inputs of all that ever ended well.
    known: BTreeSet<String>,
}

/// Something done to a world. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Edit {
    File(usize, u8),
    Touch(usize),
    DeleteOutput(usize),
    DeleteAll,
    Tamper(usize),
    Salt(usize, u8),
    AddStage(Vec<usize>, u8, u8, bool),
    RemoveStage(usize),
    AddEdge(usize, usize),
    RemoveEdge(usize),
    Fail(usize),
    Mend,
    LoseIndex,
    LoseLock,
}

/// Some edits, and a run.
#[derive(Clone, Debug)]
struct Round {
    edits: Vec<Edit>,
    jobs: u8,
    keep_going: bool,
    /// A value given by `--set` for this run.
    set: Option<(usize, u8)>,
}

fn edit() -> impl Strategy<Value = Edit> {
    let any = any::<usize>;
    prop_oneof![
        6 => (any(), 0..6u8).prop_map(|(i, v)| Edit::File(i, v)),
        1 => any().prop_map(Edit::Touch),
        1 => any().prop_map(Edit::DeleteOutput),
        1 => Just(Edit::DeleteAll),
        2 => any().prop_map(Edit::Tamper),
        2 => (any(), 0..3u8).prop_map(|(i, v)| Edit::Salt(i, v)),
        3 => add(),
        1 => any().prop_map(Edit::RemoveStage),
        2 => (any(), any()).prop_map(|(i, j)| Edit::AddEdge(i, j)),
        1 => any().prop_map(Edit::RemoveEdge),
        2 => any().prop_map(Edit::Fail),
        3 => Just(Edit::Mend),
        1 => Just(Edit::LoseIndex),
        1 => Just(Edit::LoseLock),
    ]
}

fn add() -> impl Strategy<Value = Edit> {
    let modulus = prop_oneof![Just(2), Just(5), Just(101)];
    (prop::collection::vec(any::<usize>(), 0..4), 0..3u8, modulus, any::<bool>())
        .prop_map(|(inputs, salt, modulus, folder)| Edit::AddStage(inputs, salt, modulus, folder))
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = |edits: BoxedStrategy<Vec<Edit>>| {
        let set = prop::option::weighted(0.2, (any::<usize>(), 0..3u8));
        (edits, 1..9u8, any::<bool>(), set).prop_map(|(edits, jobs, keep_going, set)| Round {
            edits,
            jobs,
            keep_going,
            set,
        })
    };
    let first = round(prop::collection::vec(add(), 2..9).boxed());
    let rest = prop::collection::vec(round(prop::collection::vec(edit(), 0..4).boxed()), 1..7);
    (first, rest).prop_map(|(first, rest)| [vec![first], rest].concat())
}

impl World {
    fn new() -> World {
        let world = World {
            space: Space::quick(""),
            files: vec![1, 2, 3],
            stages: BTreeMap::new(),
            fails: BTreeSet::new(),
            known: BTreeSet::new(),
        };
        (0..world.files.len()).for_each(|i| world.write(i));
        world
    }

    fn write(&self, file: usize) {
        self.space.write(&format!("src/f{file}"), &format!("{}\n", self.files[file]));
    }

    /// The stage that a number means, if there is any.
    fn pick(&self, number: usize) -> Option<usize> {
        self.stages.keys().nth(number % self.stages.len().max(1)).copied()
    }

    /// What a number means as an input of a stage.
    fn source(&self, number: usize, stage: usize) -> From {
        let before: Vec<usize> = self.stages.keys().copied().filter(|&s| s < stage).collect();
        match number % (before.len() + self.files.len() + 1) {
            0 => From::Folder,
            n if n <= self.files.len() => From::File(n - 1),
            n => From::Stage(before[n - self.files.len() - 1]),
        }
    }

    fn apply(&mut self, edit: &Edit) {
        match *edit {
            Edit::File(i, value) => {
                let i = i % self.files.len();
                self.files[i] = value;
                self.write(i);
            }
            Edit::Touch(i) => self.write(i % self.files.len()),
            Edit::DeleteOutput(i) => {
                if let Some(stage) = self.pick(i) {
                    let _ = fs_err::remove_file(self.output(stage));
                }
            }
            Edit::DeleteAll => drop(fs_err::remove_dir_all(self.space.path("out"))),
            Edit::Tamper(i) => {
                if let Some(path) = self.pick(i).map(|i| self.output(i)).filter(|p| p.exists()) {
                    fs_err::write(path, "9\n").unwrap();
                }
            }
            Edit::Salt(i, salt) => {
                if let Some(stage) = self.pick(i).and_then(|i| self.stages.get_mut(&i)) {
                    stage.salt = salt;
                }
            }
            Edit::AddStage(ref inputs, salt, modulus, folder) => {
                let new = self.stages.keys().last().map_or(0, |last| last + 1);
                let mut found = Vec::new();
                for source in inputs.iter().map(|&i| self.source(i, new)) {
                    if !found.contains(&source) {
                        found.push(source);
                    }
                }
                self.stages.insert(new, Stage { inputs: found, salt, modulus, folder });
            }
            Edit::RemoveStage(i) => {
                // A pipeline has at least one stage.
                if let Some(stage) = self.pick(i).filter(|_| self.stages.len() > 1) {
                    self.stages.remove(&stage);
                    for other in self.stages.values_mut() {
                        other.inputs.retain(|from| *from != From::Stage(stage));
                    }
                }
            }
            Edit::AddEdge(i, j) => {
                let Some(at) = self.pick(i) else { return };
                let source = self.source(j, at);
                let inputs = self.stages.get_mut(&at).map(|stage| &mut stage.inputs);
                if let Some(inputs) = inputs.filter(|inputs| !inputs.contains(&source)) {
                    inputs.push(source);
                }
            }
            Edit::RemoveEdge(i) => {
                if let Some(stage) = self.pick(i).and_then(|i| self.stages.get_mut(&i)) {
                    stage.inputs.pop();
                }
            }
            Edit::Fail(i) => {
                if let Some(stage) = self.pick(i) {
                    self.space.write(&format!("fail/s{stage}"), "");
                    self.fails.insert(stage);
                }
            }
            Edit::Mend => {
                let _ = fs_err::remove_dir_all(self.space.path("fail"));
                self.fails.clear();
            }
            Edit::LoseIndex => {
                for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
                    let _ = fs_err::remove_file(self.space.path(".quantmill").join(file));
                }
            }
            Edit::LoseLock => drop(fs_err::remove_file(self.space.path("pipeline.lock"))),
        }
    }

    /// The file with a stage's number.
    fn output(&self, stage: usize) -> std::path::PathBuf {
        let folder = self.stages[&stage].folder;
        self.space.path(&format!("out/s{stage}{}", if folder { "d/v" } else { "" }))
    }

    /// The command of a stage, but for its salt.
    fn line(&self, number: usize) -> String {
        let stage = &self.stages[&number];
        let (mut read, mut sum) = (String::new(), String::new());
        for (i, from) in stage.inputs.iter().enumerate() {
            let _ = match from {
                From::Folder => write!(
                    read,
                    "i{i}=0; for f in {{in.i{i}}}/*; do read n < $f; i{i}=$((i{i}+n)); done; "
                ),
                From::Stage(s) if self.stages[s].folder => {
                    write!(read, "read i{i} < {{in.i{i}}}/v; ")
                }
                _ => write!(read, "read i{i} < {{in.i{i}}}; "),
            };
            let _ = write!(sum, "i{i}*{} + ", i + 2);
        }
        let to = if stage.folder { "{out.x}/v" } else { "{out.x}" };
        format!(
            "echo s{number} >> log; {read}if [ -e fail/s{number} ]; then echo half > {to}; exit 9; fi; \
             echo $(( ({sum}${{v{number}}}) % {} )) > {to}",
            stage.modulus
        )
    }

    fn pipeline(&self) -> String {
        let mut text = String::from("version: 1\nvars:\n  none: 0\n");
        for (number, stage) in &self.stages {
            let _ = writeln!(text, "  v{number}: {}", stage.salt);
        }
        text.push_str("stages:\n");
        for (number, stage) in &self.stages {
            let from: Vec<String> = stage
                .inputs
                .iter()
                .enumerate()
                .map(|(i, from)| match from {
                    From::File(file) => format!("i{i}: ./src/f{file}"),
                    From::Folder => format!("i{i}: ./src"),
                    From::Stage(stage) => format!("i{i}: s{stage}"),
                })
                .collect();
            let to = if stage.folder { "d/" } else { "" };
            let _ = writeln!(text, "  s{number}:\n    uses: command");
            if !from.is_empty() {
                let _ = writeln!(text, "    from: {{ {} }}", from.join(", "));
            }
            let _ = writeln!(
                text,
                "    with:\n      run: '{}'\n      outputs: {{ x: out/s{number}{to} }}",
                self.line(*number)
            );
        }
        text
    }

    /// What stages must give: the value of each that ends well (the flag: it runs), and those that
    /// run and fail.
    fn expect(&self, set: Option<(usize, u8)>) -> Expected {
        let mut expected = Expected::default();
        for (&number, stage) in &self.stages {
            let mut values = Vec::new();
            let mut key = self.line(number);
            for from in &stage.inputs {
                let value = match from {
                    From::File(file) => Some(u64::from(self.files[*file])),
                    From::Folder => Some(self.files.iter().map(|&f| u64::from(f)).sum()),
                    From::Stage(s) => expected.values.get(s).map(|(value, _, _)| *value),
                };
                let Some(value) = value else { break };
                values.push(value);
                let _ = match from {
                    From::Folder => write!(key, " {:?}", self.files),
                    _ => write!(key, " {value}"),
                };
            }
            if values.len() < stage.inputs.len() {
                continue;
            }
            let salt = set.filter(|(s, _)| *s == number).map_or(stage.salt, |(_, salt)| salt);
            let _ = write!(key, " salt {salt}");
            let hit = self.known.contains(&key);
            if !hit && self.fails.contains(&number) {
                expected.fails.insert(number);
                continue;
            }
            let sum: u64 = (2..).zip(&values).map(|(factor, value)| factor * value).sum();
            let value = (sum + u64::from(salt)) % u64::from(stage.modulus);
            expected.values.insert(number, (value, !hit, key));
        }
        expected
    }

    /// Runs, and holds what happened against what must happen.
    fn run(&mut self, round: &Round) {
        self.space.write("pipeline.yaml", &self.pipeline());
        let _ = fs_err::remove_file(self.space.path("log"));
        let set = round.set.and_then(|(i, salt)| Some((self.pick(i)?, salt)));
        let expected = self.expect(set);
        let before: BTreeMap<usize, Option<String>> =
            self.stages.keys().map(|&s| (s, self.value(s))).collect();
        let jobs = round.jobs.to_string();
        let mut arguments = vec!["run".to_owned(), "-j".into(), jobs];
        arguments.extend(round.keep_going.then(|| "--keep-going".to_owned()));
        if let Some((stage, salt)) = set {
            arguments.extend(["--set".into(), format!("v{stage}={salt}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = self.space.quantmill(&arguments);
        assert_eq!(ended.code, i32::from(!expected.fails.is_empty()), "{ended:?}");

        let ran = stages(&ended, "done ");
        let failed = stages(&ended, "failed ");
        let there: BTreeSet<usize> =
            ["done ", "cached ", "restore "].iter().flat_map(|word| stages(&ended, word)).collect();
        let must = |runs: bool| -> BTreeSet<usize> {
            let all = expected.values.iter();
            all.filter(|(_, (_, run, _))| *run == runs).map(|(&stage, _)| stage).collect()
        };
        if expected.fails.is_empty() || round.keep_going {
            assert_eq!((&ran, &failed), (&must(true), &expected.fails), "{ended:?}");
            assert_eq!(there, expected.values.keys().copied().collect(), "{ended:?}");
        } else {
            // What had begun before the first failure ends.
            assert!(ran.is_subset(&must(true)), "{ran:?} {:?}\n{ended:?}", must(true));
            assert!(failed.is_subset(&expected.fails) && !failed.is_empty(), "{ended:?}");
        }
        let began: Vec<String> = ran
            .union(&failed)
            .map(|s| format!("s{s}"))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(self.space.log(), began, "what ran is what was said to run, once");
        for (&stage, before) in &before {
            match there.contains(&stage) {
                true => {
                    let (value, _, key) = &expected.values[&stage];
                    assert_eq!(self.value(stage), Some(format!("{value}\n")), "s{stage} {ended:?}");
                    self.known.insert(key.clone());
                }
                false => assert_eq!(self.value(stage), *before, "s{stage} was not done"),
            }
        }
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }

    fn value(&self, stage: usize) -> Option<String> {
        fs_err::read_to_string(self.output(stage)).ok()
    }

    /// Files that a run should have cleaned away.
    fn leftovers(&self) -> Vec<String> {
        self.space.leftovers()
    }
}

#[derive(Default)]
struct Expected {
    values: BTreeMap<usize, (u64, bool, String)>,
    fails: BTreeSet<usize>,
}

/// The stages of the lines that begin with a word.
fn stages(ended: &Ended, word: &str) -> BTreeSet<usize> {
    let rest = ended.err.lines().filter_map(|line| line.strip_prefix(word));
    let names = rest.filter_map(|rest| rest.trim_start().strip_prefix('s'));
    let number = |name: &str| -> Option<usize> {
        let end = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        name[..end].parse().ok()
    };
    names.filter_map(number).collect()
}

#[test]
fn random_edits_of_random_pipelines() {
    let cases = if long() { 3000 } else { 24 };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new(config).run(&rounds(), |rounds| {
        let mut world = World::new();
        for round in &rounds {
            round.edits.iter().for_each(|edit| world.apply(edit));
            world.run(round);
        }
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}
