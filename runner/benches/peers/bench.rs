//! A session of measuring: which tools there are, what was asked for, what has come out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::measure::{Cost, measure};
use crate::tools::{OURS, Tool, Trash};

/// How it went.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What was asked for, and what has come out so far.
pub struct Bench {
    /// The tools and where they are.
    pub tools: Vec<(&'static Tool, PathBuf)>,
    /// How often quick things are measured.
    pub rounds: usize,
    /// CPU time that a tool may take.
    pub limit: Duration,
    /// Sizes of graphs.
    pub sizes: Vec<usize>,
    /// Whether to go on to what takes minutes.
    pub big: bool,
    /// Where graphs are made.
    pub space: PathBuf,
    /// What is done with.
    pub trash: Trash,
    /// The results.
    pub rows: Vec<Row>,
}

/// The cost of one tool in one case at one size.
pub struct Row {
    /// The case.
    pub case: String,
    /// What its size counts.
    pub unit: Unit,
    /// The size.
    pub size: usize,
    /// The tool.
    pub tool: String,
    /// A cost for each round.
    pub costs: Vec<Cost>,
}

/// What a size counts.
#[derive(Clone, Copy, PartialEq)]
pub enum Unit {
    /// Nothing: the case has one size.
    One,
    /// Stages of a pipeline.
    Stages,
    /// Files of a folder.
    Files,
    /// Bytes of a file.
    Bytes,
}

impl Bench {
    /// Measures once and keeps the cost. False where the tool failed or took too long.
    pub fn once(
        &mut self,
        (case, unit, size): (&str, Unit, usize),
        tool: &str,
        command: (&Path, &[String]),
        dir: &Path,
        expected: i32,
    ) -> Outcome<bool> {
        let (cost, tail) = measure(command.0, command.1, dir, self.limit * 3)?;
        if cost.code != Some(expected) {
            let why = if cost.late { "it took too long" } else { &tail };
            eprintln!("{case}, {size}: {tool} is left out: {why}");
            return Ok(false);
        }
        let same = |row: &Row| row.case == case && row.size == size && row.tool == tool;
        match self.rows.iter_mut().find(|row| same(row)) {
            Some(row) => row.costs.push(cost),
            None => self.rows.push(Row {
                case: case.into(),
                unit,
                size,
                tool: tool.into(),
                costs: vec![cost],
            }),
        }
        Ok(true)
    }

    /// The least CPU time so far, seconds.
    pub fn least(&self, case: &str, size: usize, tool: &str) -> Option<f64> {
        let same = |row: &&Row| row.case == case && row.size == size && row.tool == tool;
        self.rows.iter().find(same).map(Row::least)
    }

    /// Whether a tool is to be asked, judged by what the size before took.
    pub fn affordable(&self, case: &str, tool: &str, size: usize) -> bool {
        let before = self.rows.iter().rfind(|row| row.case == case && row.tool == tool);
        let expected = before.map(|row| row.least() * size as f64 / row.size as f64);
        tool == OURS || expected.is_none_or(|seconds| seconds <= self.limit.as_secs_f64())
    }

    /// Tells how the tools did.
    pub fn say(&self, case: &str, size: usize) {
        for row in self.rows.iter().filter(|row| row.case == case && row.size == size) {
            eprintln!(
                "{case}, {size}: {:10} cpu {:.4} s (median {:.4}, {} rounds), wall {:.3} s, {:.1} MiB",
                row.tool,
                row.least(),
                row.median(),
                row.costs.len(),
                row.costs.iter().map(|cost| cost.wall).fold(f64::INFINITY, f64::min),
                row.memory() as f64 / f64::from(1 << 20),
            );
        }
    }
}

impl Row {
    /// The least CPU time, seconds.
    pub fn least(&self) -> f64 {
        self.costs.iter().map(|cost| cost.cpu).fold(f64::INFINITY, f64::min)
    }
    /// The median CPU time, seconds.
    pub fn median(&self) -> f64 {
        let mut all: Vec<f64> = self.costs.iter().map(|cost| cost.cpu).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }
    /// The most memory, bytes.
    pub fn memory(&self) -> u64 {
        self.costs.iter().map(|cost| cost.memory).max().unwrap_or(0)
    }
}
