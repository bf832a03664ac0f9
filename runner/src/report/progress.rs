//! Shows a run as it happens. Everything goes to stderr.
//!
//! On a terminal there is a line for each running stage, in its own units, and one for the run; in a
//! pipe there are plain lines. What a command prints stays together: it is passed on at once while
//! it runs alone, else when it ends, or every few seconds. Hits are worth a line each only where
//! they are few, and what failed is named again at the end where it has scrolled away.

mod bars;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::Write;
use std::time::{Duration, Instant};

use quantmill_stages::Progress;

use crate::event::{Event, Finished, Outcome, Summary};
use crate::past::Past;
use crate::report::text::{Paint, count, duration, number, pad, paint};
use bars::Bars;

/// A stage in a pipe says how far it is this often, and what its command printed.
const QUIET: Duration = Duration::from_secs(5);
/// Of more stages hits and skipped ones are counted rather than named.
const FEW: usize = 40;
/// So many failures of one stage are told one by one.
const FAILURES: usize = 10;
/// So many lines of a command are remembered as shown.
const SHOWN: usize = 64;

/// A progress display.
pub struct Display {
    bars: Option<Bars>,
    colour: bool,
    width: usize,
    running: BTreeMap<String, Running>,
    /// What each stage that may still run takes, in milliseconds, and how many run at a time.
    expected: HashMap<String, u64>,
    jobs: u64,
    done: usize,
    total: usize,
    hits: usize,
    restored: usize,
    /// How often each stage failed, and how many lines were printed since the last.
    failed: BTreeMap<String, usize>,
    since: usize,
    /// How many stages were skipped, by the one that failed.
    skipped: BTreeMap<String, usize>,
    /// What was warned of, and in which stage.
    warned: BTreeSet<(String, String)>,
}

struct Running {
    /// How far each item is that is not done.
    items: HashMap<String, (u64, u64)>,
    /// How far all items are that spoke.
    sum: (u64, u64),
    unit: String,
    note: String,
    /// What was worked through when it was first heard of, and since; the unit, and when.
    work: Option<(u64, u64, String, Instant)>,
    actions: usize,
    finished: usize,
    cached: usize,
    /// The last line that its command printed.
    last: String,
    /// What its command printed and is not yet shown.
    held: Vec<String>,
    /// The last of what is shown.
    shown: VecDeque<String>,
    spoke: Instant,
    flushed: Instant,
}

impl Display {
    /// A display for stages whose names are at most `width` long; with bars on a `terminal`.
    pub fn new(terminal: bool, colour: bool, width: usize) -> Display {
        Display {
            bars: terminal.then(|| Bars::new(width)),
            colour,
            width: width.min(40),
            running: BTreeMap::new(),
            expected: HashMap::new(),
            jobs: 1,
            done: 0,
            total: 0,
            hits: 0,
            restored: 0,
            failed: BTreeMap::new(),
            since: 0,
            skipped: BTreeMap::new(),
            warned: BTreeSet::new(),
        }
    }

    /// Lets it say how long the run will take, by what the stages that may run took before.
    pub fn expect<'a>(&mut self, past: &Past, stages: impl Iterator<Item = &'a str>, jobs: usize) {
        let known = stages.filter_map(|stage| Some((stage.to_owned(), past.action(stage)?)));
        (self.expected, self.jobs) = (known.collect(), jobs.max(1) as u64);
    }

    /// Shows an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::RunStarted(setting) => {
                self.total = setting.stages;
                if let Some(bars) = &mut self.bars {
                    bars.begin(setting.stages);
                }
            }
            Event::StageStarted { stage, kind, why, actions, cached } => {
                self.start(stage, kind, why, *actions, *cached);
            }
            Event::Progress { stage, item, progress } => {
                if let Some(running) = self.running.get_mut(stage) {
                    running.progress(item.as_deref().unwrap_or(""), progress);
                    self.show(stage);
                }
            }
            Event::ActionFinished { stage, item, .. } => {
                if let Some(running) = self.running.get_mut(stage) {
                    running.finished += 1;
                    running.items.remove(item.as_deref().unwrap_or(""));
                    if running.actions > 1 {
                        self.show(stage);
                    }
                }
            }
            Event::Warning { stage, item, message } => self.warn(stage, item, message),
            Event::Output { stage, line } => self.output(stage, line),
            Event::StageFinished(done) => self.finish(done),
            Event::StageFailed { stage, item, message, help } => {
                self.fail(stage, item, message, help.as_deref());
            }
            Event::StageSkipped { stage, because } => {
                *self.skipped.entry(because.clone()).or_default() += 1;
                if self.total <= FEW {
                    let word = self.word(Paint::Dim, "skipped");
                    self.line(&format!("{word} {stage}: {because} failed"));
                }
            }
            Event::RunFinished(summary) => self.end(summary),
            _ => {}
        }
    }

    /// Many items say the same; once is enough to read.
    fn warn(&mut self, stage: &str, item: &Option<String>, message: &str) {
        if self.warned.insert((stage.to_owned(), message.to_owned())) {
            let word = self.word(Paint::Yellow, "warning");
            self.line(&format!("{word} {}: {message}", place(stage, item)));
        }
    }

    fn word(&self, colour: Paint, word: &str) -> String {
        paint(self.colour, colour, word)
    }

    fn line(&mut self, text: &str) {
        self.since += 1;
        match &self.bars {
            Some(bars) => bars.print(text),
            None => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    fn start(&mut self, stage: &str, kind: &str, why: &str, actions: usize, cached: usize) {
        self.say_hits();
        match &mut self.bars {
            Some(bars) => bars.add(stage, &format!("{kind}: {why}")),
            None => {
                let mut said = why.to_owned();
                if actions + cached > 1 {
                    said.push_str(&format!(", {}", count(actions, "item")));
                }
                if cached > 0 {
                    said.push_str(&format!(", {} cached", number(cached)));
                }
                let word = self.word(Paint::Yellow, "run    ");
                self.line(&format!("{word} {} {kind} ({said})", pad(stage, self.width)));
            }
        }
        self.running.insert(stage.to_owned(), Running::new(actions, cached));
    }

    /// Shows how far a stage is.
    fn show(&mut self, stage: &str) {
        let Some(running) = self.running.get_mut(stage) else { return };
        let (done, total, said) = running.said();
        if let Some(bars) = &mut self.bars {
            bars.set(stage, done, total, said);
        } else if running.spoke.elapsed() >= QUIET {
            running.spoke = Instant::now();
            let left = running.pace().and_then(|(_, left)| left);
            let left = left.map(|left| format!("  about {} left", duration(left)));
            let left = left.unwrap_or_default();
            let text = format!("        {} {said}{left}", pad(stage, self.width));
            self.line(&text);
        }
    }

    fn output(&mut self, stage: &str, line: &str) {
        let alone = self.running.len() <= 1;
        let Some(running) = self.running.get_mut(stage) else {
            let word = self.word(Paint::Dim, &format!("{stage} |"));
            return self.line(&format!("{word} {line}"));
        };
        running.held.push(line.to_owned());
        running.last = line.to_owned();
        let (late, held) = (running.flushed.elapsed() >= QUIET, running.held.len());
        if let Some(bars) = &mut self.bars {
            let (done, total, said) = running.said();
            bars.set(stage, done, total, said);
        }
        if alone || late || held >= SHOWN {
            self.flush(stage);
        }
    }

    /// Prints what a stage's command printed.
    fn flush(&mut self, stage: &str) {
        let Some(running) = self.running.get_mut(stage) else { return };
        running.flushed = Instant::now();
        let held = std::mem::take(&mut running.held);
        let word = self.word(Paint::Dim, &format!("{stage} |"));
        for line in &held {
            self.line(&format!("{word} {line}"));
        }
        if let Some(running) = self.running.get_mut(stage) {
            running.shown.extend(held);
            let old = running.shown.len().saturating_sub(SHOWN);
            running.shown.drain(..old);
        }
    }

    fn fail(&mut self, stage: &str, item: &Option<String>, message: &str, help: Option<&str>) {
        self.flush(stage);
        let shown = self.running.get(stage).map(|running| running.shown.clone());
        let shown = shown.unwrap_or_default();
        self.clear(stage);
        // Of a stage that maps over items more than one may fail.
        let failures = self.failed.entry(stage.to_owned()).or_default();
        *failures += 1;
        let failures = *failures;
        if failures > FAILURES {
            if failures == FAILURES + 1 {
                let word = self.word(Paint::Red, "failed ");
                self.line(&format!("{word} {stage}: more items; they are in the run's record"));
            }
            return;
        }
        // What its command printed stands right above.
        let mut lines = message.lines();
        let head = lines.next().unwrap_or("");
        let rest: Vec<&str> =
            lines.filter(|l| !shown.iter().any(|s| s.trim() == l.trim())).collect();
        let head = match (rest.is_empty(), head.rsplit_once("; ")) {
            (true, Some((head, tail))) if tail.ends_with(':') => head,
            _ => head,
        };
        let word = self.word(Paint::Red, "failed ");
        self.line(&format!("{word} {}: {head}", place(stage, item)));
        for line in rest {
            self.line(line);
        }
        if let Some(help) = help {
            self.line(&format!("  hint: {help}"));
        }
        self.since = 0;
    }

    fn clear(&mut self, stage: &str) {
        self.flush(stage);
        self.running.remove(stage);
        self.expected.remove(stage);
        if let Some(bars) = &mut self.bars {
            bars.remove(stage);
        }
    }

    fn finish(&mut self, done: &Finished) {
        self.clear(&done.stage);
        self.done += 1;
        let left = self.left();
        if let Some(bars) = &mut self.bars {
            bars.done(self.done, left);
        }
        let word = match done.outcome {
            Outcome::Hit | Outcome::Restored if self.total > FEW => {
                self.hits += usize::from(done.outcome == Outcome::Hit);
                self.restored += usize::from(done.outcome == Outcome::Restored);
                return;
            }
            // On a terminal hits are only counted; a log wants them.
            Outcome::Hit if self.bars.is_some() => return,
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

    /// One line for all hits so far, where they are many.
    fn say_hits(&mut self) {
        if self.bars.is_none() {
            for (word, n) in [("cached ", self.hits), ("restore", self.restored)] {
                if n > 0 {
                    let word = self.word(Paint::Dim, word);
                    self.line(&format!("{word} {}", count(n, "stage")));
                }
            }
        }
        (self.hits, self.restored) = (0, 0);
    }

    /// Milliseconds that are left by what is known; `None` where nothing is.
    fn left(&self) -> Option<u64> {
        let actions = |stage: &str| match self.running.get(stage) {
            Some(running) => running.actions.saturating_sub(running.finished) as u64,
            None => 1,
        };
        let left: u64 = self.expected.iter().map(|(stage, millis)| millis * actions(stage)).sum();
        (left > 0).then_some(left / self.jobs)
    }

    fn end(&mut self, summary: &Summary) {
        for stage in self.running.keys().cloned().collect::<Vec<_>>() {
            self.clear(&stage);
        }
        if let Some(bars) = self.bars.take() {
            bars.end();
        }
        if summary.ran > 0 {
            self.say_hits();
        }
        if self.total > FEW {
            for (because, n) in std::mem::take(&mut self.skipped) {
                let word = self.word(Paint::Dim, "skipped");
                self.line(&format!("{word} {}: {because} failed", count(n, "stage")));
            }
        }
        if self.failed.len() > 1 || self.since > FAILURES && !self.failed.is_empty() {
            let names: Vec<&str> = self.failed.keys().map(String::as_str).collect();
            let more = names.len().saturating_sub(FAILURES);
            let mut said = names[..names.len() - more].join(", ");
            if more > 0 {
                said.push_str(&format!(" and {} more", number(more)));
            }
            let word = self.word(Paint::Red, "failed ");
            self.line(&format!("{word} in all: {said}"));
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

impl Running {
    fn new(actions: usize, cached: usize) -> Running {
        let now = Instant::now();
        Running {
            items: HashMap::new(),
            sum: (0, 0),
            unit: String::new(),
            note: String::new(),
            work: None,
            actions,
            finished: 0,
            cached,
            last: String::new(),
            held: Vec::new(),
            shown: VecDeque::new(),
            spoke: now,
            flushed: now,
        }
    }

    fn progress(&mut self, item: &str, progress: &Progress) {
        let now = (progress.done, progress.total);
        let old = self.items.insert(item.to_owned(), now).unwrap_or_default();
        // An item that ends stays in the sum: only those that are not done need an entry.
        self.sum.0 = (self.sum.0 + now.0).saturating_sub(old.0);
        self.sum.1 = (self.sum.1 + now.1).saturating_sub(old.1);
        self.unit = progress.unit.to_string();
        self.note = progress.note.to_string();
        if let (Some((count, unit)), true) = (&progress.work, self.actions == 1) {
            let now = || (*count, *count, unit.clone(), Instant::now());
            let work = self.work.get_or_insert_with(now);
            // What is behind the first word of it was done at another time, or is unknown.
            work.1 = work.1.max(*count);
        }
    }

    /// How fast it works, and how long the rest will take in milliseconds, once it can be told.
    fn pace(&self) -> Option<(String, Option<u64>)> {
        let (first, now, unit, since) = self.work.as_ref()?;
        let seconds = since.elapsed().as_secs_f64();
        if now <= first || seconds < 1.0 {
            return None;
        }
        let speed = (now - first) as f64 / seconds;
        let (done, total) = self.sum;
        // The first steps of a run that goes on were done before.
        let left = (done > 0 && done < total).then(|| {
            let share = (now - first) as f64 / *now as f64;
            let each = 1000.0 * seconds / (done as f64 * share);
            (each * (total - done) as f64) as u64
        });
        Some((format!("{} {unit}/s", number(speed.round() as usize)), left))
    }

    /// How far it is: done, of how many (0 where that is not known), and in words.
    fn said(&self) -> (u64, u64, String) {
        let of = |done: u64, total: u64, unit: &str| match total {
            0 => format!("{} {unit}", number(done as usize)),
            _ => format!("{}/{} {unit}", number(done as usize), number(total as usize)),
        };
        let (mut done, mut total) = self.sum;
        let mut said = match self.unit.is_empty() {
            true => String::new(),
            false => of(done, total, &self.unit),
        };
        if self.actions > 1 {
            (done, total) = (self.finished as u64, self.actions as u64);
            let items = of(done, total, "items");
            said = if self.unit.is_empty() { items } else { format!("{items}, {said}") };
        }
        if self.cached > 0 {
            said.push_str(&format!(", {} cached", number(self.cached)));
        }
        let note = if self.note.is_empty() { &self.last } else { &self.note };
        if !note.is_empty() {
            said.push_str(&format!("  {note}"));
        }
        if let Some((speed, _)) = self.pace() {
            said.push_str(&format!("  {speed}"));
        }
        (done, total, said.trim_start().to_owned())
    }
}

fn place(stage: &str, item: &Option<String>) -> String {
    item.as_ref().map_or_else(|| stage.to_owned(), |item| format!("{stage} [{item}]"))
}
