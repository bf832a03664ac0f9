//! Shows a run as it happens: bars on a terminal (one for the run, one for each running stage in its
//! own units), plain lines in a pipe. Everything goes to stderr.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use quantmill_stages::Progress;

use crate::event::{Event, Finished, Outcome, Summary};
use crate::report::text::{Paint, count, duration, pad, paint};

/// A stage in a pipe says how far it is this often.
const QUIET: Duration = Duration::from_secs(5);

/// A progress display.
pub struct Display {
    terminal: Option<Bars>,
    colour: bool,
    width: usize,
    started: BTreeMap<String, Stage>,
    done: usize,
    total: usize,
}

struct Bars {
    all: MultiProgress,
    run: ProgressBar,
}

struct Stage {
    bar: Option<ProgressBar>,
    items: BTreeMap<String, Progress>,
    actions: usize,
    finished: usize,
    cached: usize,
    spoke: Instant,
}

impl Display {
    /// A display for stages whose names are at most `width` long; with bars on a `terminal`.
    pub fn new(terminal: bool, colour: bool, width: usize) -> Display {
        let terminal = terminal.then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let run = all.add(ProgressBar::no_length());
            run.set_style(style("{prefix:.bold} {bar:30.green/dim} {pos}/{len} stages  {elapsed}"));
            run.set_prefix("run");
            Bars { all, run }
        });
        Display { terminal, colour, width, started: BTreeMap::new(), done: 0, total: 0 }
    }

    /// Shows an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::RunStarted(setting) => {
                self.total = setting.stages;
                if let Some(bars) = &self.terminal {
                    bars.run.set_length(setting.stages as u64);
                    bars.run.enable_steady_tick(Duration::from_millis(200));
                }
            }
            Event::StageStarted { stage, kind, why, actions, cached } => {
                self.start(stage, kind, why, *actions, *cached);
            }
            Event::Progress { stage, item, progress } => self.progress(stage, item, progress),
            Event::ActionFinished { stage, .. } => {
                if let Some(running) = self.started.get_mut(stage) {
                    running.finished += 1;
                }
            }
            Event::Metric { .. } | Event::Surveyed(_) | Event::Hits { .. } => {}
            Event::Warning { stage, item, message } => {
                let place = place(stage, item);
                self.line(&format!("{} {place}: {message}", self.word(Paint::Yellow, "warning")));
            }
            Event::Output { stage, line } => {
                self.line(&format!("{} {line}", self.word(Paint::Dim, &format!("{stage} |"))));
            }
            Event::StageFinished(done) => self.finish(done),
            Event::StageFailed { stage, item, message, help } => {
                self.clear(stage);
                let word = self.word(Paint::Red, "failed ");
                self.line(&format!("{word} {}: {message}", place(stage, item)));
                if let Some(help) = help {
                    self.line(&format!("  hint: {help}"));
                }
            }
            Event::StageSkipped { stage, because } => {
                let word = self.word(Paint::Dim, "skipped");
                self.line(&format!("{word} {stage}: {because} failed"));
            }
            Event::RunFinished(summary) => self.end(summary),
        }
    }

    fn word(&self, colour: Paint, word: &str) -> String {
        paint(self.colour, colour, word)
    }

    fn line(&self, text: &str) {
        match &self.terminal {
            Some(bars) => drop(bars.all.println(text)),
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn start(&mut self, stage: &str, kind: &str, why: &str, actions: usize, cached: usize) {
        let bar = self.terminal.as_ref().map(|bars| {
            let bar = bars.all.insert_before(&bars.run, ProgressBar::new_spinner());
            bar.set_style(style("{spinner:.yellow} {prefix} {wide_msg}"));
            bar.set_prefix(pad(stage, self.width));
            bar.set_message(format!("{kind}: {why}"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            let known = if cached > 0 { format!(", {cached} cached") } else { String::new() };
            let many = if actions + cached > 1 {
                format!(", {}", count(actions, "item"))
            } else {
                String::new()
            };
            let word = self.word(Paint::Yellow, "run    ");
            self.line(&format!("{word} {} {kind} ({why}{many}{known})", pad(stage, self.width)));
        }
        let running = Stage {
            bar,
            items: BTreeMap::new(),
            actions,
            finished: 0,
            cached,
            spoke: Instant::now(),
        };
        self.started.insert(stage.to_owned(), running);
    }

    fn progress(&mut self, stage: &str, item: &Option<String>, progress: &Progress) {
        let Some(running) = self.started.get_mut(stage) else { return };
        running.items.insert(item.clone().unwrap_or_default(), progress.clone());
        let done: u64 = running.items.values().map(|p| p.done).sum();
        let total: u64 = running.items.values().map(|p| p.total).sum();
        let mut said = match total {
            0 => format!("{done} {}", progress.unit),
            _ => format!("{done}/{total} {}", progress.unit),
        };
        if running.actions > 1 {
            said.push_str(&format!(", {}/{} items", running.finished, running.actions));
        }
        if running.cached > 0 {
            said.push_str(&format!(", {} cached", running.cached));
        }
        if !progress.note.is_empty() {
            said.push_str(&format!("  {}", progress.note));
        }
        if let Some(bar) = &running.bar {
            if total > 0 && bar.length().is_none() {
                bar.set_style(style(
                    "{spinner:.yellow} {prefix} {bar:20.yellow/dim} {wide_msg} {eta:.dim}",
                ));
            }
            if total > 0 {
                bar.set_length(total);
            }
            bar.set_position(done);
            bar.set_message(said);
        } else if running.spoke.elapsed() >= QUIET {
            running.spoke = Instant::now();
            self.line(&format!("        {} {said}", pad(stage, self.width)));
        }
    }

    fn clear(&mut self, stage: &str) {
        if let Some(bar) = self.started.remove(stage).and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
    }

    fn finish(&mut self, done: &Finished) {
        self.clear(&done.stage);
        self.done += 1;
        if let Some(bars) = &self.terminal {
            bars.run.set_position(self.done as u64);
        }
        // On a terminal hits are only counted; a log wants them all.
        let word = match done.outcome {
            Outcome::Hit if self.terminal.is_some() => return,
            Outcome::Hit => self.word(Paint::Dim, "cached "),
            Outcome::Restored => self.word(Paint::Green, "restore"),
            Outcome::Ran => self.word(Paint::Green, "done   "),
        };
        let time = if done.outcome == Outcome::Ran { duration(done.millis) } else { String::new() };
        let known =
            if done.cached > 0 { format!(", {} items cached", done.cached) } else { String::new() };
        let line = format!(
            "{word} {} {} {time}{known}",
            pad(&done.stage, self.width),
            pad(&done.key.stage, 9)
        );
        self.line(line.trim_end());
    }

    fn end(&mut self, summary: &Summary) {
        for stage in self.started.keys().cloned().collect::<Vec<_>>() {
            self.clear(&stage);
        }
        if let Some(bars) = self.terminal.take() {
            bars.run.finish_and_clear();
        }
        let mut parts = vec![format!("{} ran", summary.ran), format!("{} cached", summary.hits)];
        if summary.restored > 0 {
            parts[1].push_str(&format!(" ({} restored)", summary.restored));
        }
        if summary.failed > 0 {
            parts.push(format!("{} failed", summary.failed));
        }
        if summary.skipped > 0 {
            parts.push(format!("{} skipped", summary.skipped));
        }
        let left = self
            .total
            .saturating_sub(summary.ran + summary.hits + summary.failed + summary.skipped);
        if summary.interrupted && left > 0 {
            parts.push(format!("{left} left"));
        }
        let word = match (summary.interrupted, summary.failed) {
            (true, _) => self.word(Paint::Yellow, "interrupted"),
            (_, 0) => self.word(Paint::Green, "finished"),
            _ => self.word(Paint::Red, "failed"),
        };
        self.line(&format!("{word}: {} in {}", parts.join(", "), duration(summary.millis)));
    }
}

fn place(stage: &str, item: &Option<String>) -> String {
    item.as_ref().map_or_else(|| stage.to_owned(), |item| format!("{stage} [{item}]"))
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse is a plain bar rather than a panic.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─")
}
