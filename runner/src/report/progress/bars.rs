//! The lines at the foot of a terminal: one for each running stage, as many as fit, and one for the
//! run.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::text::{clip, columns, duration, pad};

/// How often a stage that says nothing is drawn again.
const TICK: Duration = Duration::from_millis(150);

/// Lines that are drawn over and over.
pub struct Bars {
    all: MultiProgress,
    run: ProgressBar,
    /// The width of the names.
    names: usize,
    stages: BTreeMap<String, ProgressBar>,
    /// Stages for which there is no room, what they say, and since when they run.
    waiting: VecDeque<(String, String, Instant)>,
    /// How many lines fit.
    room: usize,
}

impl Bars {
    /// Lines for stages whose names are at most `names` long.
    pub fn new(names: usize) -> Bars {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let run = all.add(ProgressBar::no_length());
        run.set_style(style("run {bar:20.green/dim} {pos}/{len} stages  {elapsed}{wide_msg}"));
        let rows =
            terminal_size::terminal_size_of(std::io::stderr()).map_or(24, |(_, rows)| rows.0);
        let narrow = columns(&std::io::stderr(), 80) / 3;
        let room = usize::from(rows).saturating_sub(3).max(1);
        let (stages, waiting) = (BTreeMap::new(), VecDeque::new());
        Bars { all, run, names: names.min(narrow), stages, waiting, room }
    }

    /// The run begins.
    pub fn begin(&mut self, stages: usize) {
        self.run.set_length(stages as u64);
        self.run.enable_steady_tick(TICK);
    }

    /// Prints a line above.
    pub fn print(&self, text: &str) {
        drop(self.all.println(text));
    }

    /// A stage begins.
    pub fn add(&mut self, stage: &str, said: &str) {
        match self.stages.len() < self.room {
            true => self.draw(stage, said, Instant::now()),
            false => {
                let waits = (stage.to_owned(), said.to_owned(), Instant::now());
                self.waiting.push_back(waits);
            }
        }
    }

    fn draw(&mut self, stage: &str, said: &str, began: Instant) {
        let bar = self
            .all
            .insert_before(&self.run, ProgressBar::new_spinner().with_elapsed(began.elapsed()));
        bar.set_style(style("{spinner:.yellow} {prefix} {wide_msg} {elapsed:.dim}"));
        bar.set_prefix(pad(&clip(stage, self.names), self.names));
        bar.set_message(said.to_owned());
        bar.enable_steady_tick(TICK);
        self.stages.insert(stage.to_owned(), bar);
    }

    /// A stage is so far; a `total` of 0 is not known.
    pub fn set(&mut self, stage: &str, done: u64, total: u64, said: String) {
        let Some(bar) = self.stages.get(stage) else { return };
        if total > 0 {
            if bar.length().is_none() {
                let template =
                    "{spinner:.yellow} {prefix} {bar:16.yellow/dim} {wide_msg} {eta:.dim}";
                bar.set_style(style(template));
            }
            bar.set_length(total);
        }
        bar.set_position(done);
        bar.set_message(said);
    }

    /// A stage ends; another takes its line.
    pub fn remove(&mut self, stage: &str) {
        self.waiting.retain(|(name, ..)| name != stage);
        if let Some(bar) = self.stages.remove(stage) {
            bar.finish_and_clear();
            self.all.remove(&bar);
            if let Some((stage, said, began)) = self.waiting.pop_front() {
                self.draw(&stage, &said, began);
            }
        }
    }

    /// So many stages are done, and about so many milliseconds are left.
    pub fn done(&mut self, stages: usize, left: Option<u64>) {
        self.run.set_position(stages as u64);
        let left = left.map(|left| format!(", about {} left", duration(left)));
        let hidden = self.waiting.len();
        let more = (hidden > 0).then(|| format!(", {hidden} more running"));
        self.run.set_message(left.unwrap_or_default() + &more.unwrap_or_default());
    }

    /// Takes the lines away.
    pub fn end(self) {
        self.run.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse is a plain bar rather than a panic.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
}
