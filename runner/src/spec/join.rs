//! The cells of every stage: its own axes joined with those of the stages that it reads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::cells::{self, Bound, Cell, MOST, Template};
use super::source::{Source, is_path};
use crate::diagnostic::Problem;
use crate::vars::Vars;
use crate::yaml::{Value, Yaml};

/// Own cells that read the same sources.
struct Group {
    own: Vec<Cell>,
    sources: Vec<Read>,
}

/// A source that is a stage.
struct Read {
    stage: usize,
    text: String,
}

/// The cells of every stage. A stage that reads a broken one is broken.
pub(super) fn all(templates: &mut [Template], vars: &mut Vars) -> Vec<Vec<Cell>> {
    let index: HashMap<&str, usize> =
        templates.iter().enumerate().map(|(i, t)| (t.key.name.as_str(), i)).collect();
    let reads: Vec<Vec<Group>> = templates.iter().map(|t| groups(t, &index, vars)).collect();
    let mut known: Vec<Option<Vec<Cell>>> = vec![None; templates.len()];
    for stage in order(&reads) {
        let join = Join { templates, known: &known };
        let told = vars.problems.len();
        let cells = join.stage(stage, &reads[stage], vars.problems);
        let mut feeding = reads[stage].iter().flat_map(|group| &group.sources);
        let broken = feeding.any(|read| templates[read.stage].broken);
        templates[stage].broken |= broken || vars.problems.len() > told;
        known[stage] = Some(cells);
    }
    known.into_iter().map(Option::unwrap_or_default).collect()
}

/// What each of the own cells of a stage reads, together where that is the same.
fn groups(template: &Template, index: &HashMap<&str, usize>, vars: &mut Vars) -> Vec<Group> {
    let mut texts: Vec<&Yaml> = Vec::new();
    for key in ["from", "map"] {
        match template.yaml.get(key) {
            Some(Yaml { value: Value::Map(entries), .. }) => {
                texts.extend(entries.iter().map(|(_, value)| value));
            }
            other => texts.extend(other),
        }
    }
    let varies = texts.iter().any(|text| text.text().is_some_and(|text| text.contains("${")));
    let mut sources = |cell: &Cell| {
        let mut found = Vec::new();
        for text in &texts {
            let Some(text) = vars.peek(text, cell).filter(|text| !is_path(text)) else { continue };
            if let Some(&stage) = index.get(Source::parse(&text).name) {
                found.push(Read { stage, text });
            }
        }
        found
    };
    if !varies {
        return vec![Group { sources: sources(&Cell::new()), own: template.own.clone() }];
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<Vec<String>, usize> = HashMap::new();
    for cell in &template.own {
        let sources = sources(cell);
        let key = sources.iter().map(|read| read.text.clone()).collect();
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group { own: Vec::new(), sources });
        }
        groups[place].own.push(cell.clone());
    }
    groups
}

/// Stages after those that they read; those in a circle, which is told elsewhere, as they come.
fn order(reads: &[Vec<Group>]) -> Vec<usize> {
    let before = |stage: usize| reads[stage].iter().flat_map(|group| &group.sources);
    let mut seen = vec![false; reads.len()];
    let mut order = Vec::with_capacity(reads.len());
    for first in 0..reads.len() {
        // A stack of its own: a chain may be long.
        let mut open = vec![(first, false)];
        while let Some((stage, done)) = open.pop() {
            if done {
                order.push(stage);
            } else if !std::mem::replace(&mut seen[stage], true) {
                open.push((stage, true));
                open.extend(
                    before(stage).filter(|read| !seen[read.stage]).map(|r| (r.stage, false)),
                );
            }
        }
    }
    order
}

struct Join<'a> {
    templates: &'a [Template],
    known: &'a [Option<Vec<Cell>>],
}

impl Join<'_> {
    fn stage(&self, stage: usize, groups: &[Group], problems: &mut Vec<Problem>) -> Vec<Cell> {
        let template = &self.templates[stage];
        let mut joined = Vec::new();
        for group in groups {
            let mut cells = group.own.clone();
            for read in &group.sources {
                let Some(known) = &self.known[read.stage] else { continue };
                let given = project(known, &Source::parse(&read.text));
                // A pick that picks nothing is told where the source is looked up.
                if given.is_empty() || self.templates[read.stage].broken {
                    continue;
                }
                let (next, alone) = join(&cells, &given, |axis| own(template, axis));
                if let Some(cell) = alone.or_else(|| cells.first().filter(|_| next.is_empty())) {
                    problems.push(self.unmatched(template, cell, read, &given));
                    return Vec::new();
                }
                cells = next;
                if cells.len() > MOST {
                    let message = format!("`{}` has more than {MOST} cells", template.key.name);
                    let problem = Problem::new("matrix::size", template.key.span, message);
                    problems.push(problem.help("gather an axis of what it reads: `stage@*`"));
                    return Vec::new();
                }
            }
            joined.extend(cells);
        }
        for cell in &mut joined {
            // What is handed on comes first in a name, as it comes first in the pipeline.
            let (mine, mut all): (Cell, Cell) =
                cell.iter().cloned().partition(|b| own(template, &b.axis));
            all.extend(mine);
            *cell = all;
        }
        joined
    }

    fn unmatched(&self, stage: &Template, cell: &Cell, read: &Read, given: &[Cell]) -> Problem {
        let source = &self.templates[read.stage].key.name;
        let name = &stage.key.name;
        let have: BTreeSet<&str> = given.iter().flatten().map(Bound::axis).collect();
        let bound = cell.iter().find(|bound| have.contains(bound.axis.as_str()));
        let axis = bound.map_or("", |bound| bound.axis.as_str());
        let own = stage.axes.iter().find(|own| own.key.name == axis);
        let span = own.map_or(stage.key.span, |own| own.key.span);
        let message =
            format!("`{name}@{}` finds no cell of `{source}` to read", cells::label(cell));
        let mut labels: Vec<&str> = (given.iter().flatten())
            .filter(|bound| bound.axis == axis)
            .map(|bound| bound.label.as_str())
            .collect();
        labels.dedup();
        labels.truncate(12);
        let problem = Problem::new("matrix::join", span, message);
        problem.help(format!(
            "both have the axis `{axis}`, and `{source}` has it at {}; give both the same values, or gather: `{source}@*`",
            labels.join(", ")
        ))
    }
}

fn own(stage: &Template, axis: &str) -> bool {
    stage.axes.iter().any(|own| own.key.name == axis)
}

/// The cells that a source means, without the axes that it picks or gathers.
fn project(cells: &[Cell], source: &Source) -> Vec<Cell> {
    if source.picks.is_empty() {
        return cells.to_vec();
    }
    let mut seen = BTreeSet::new();
    let rest = cells.iter().filter(|cell| source.takes(cell)).map(|cell| {
        cell.iter().filter(|bound| !source.mentions(&bound.axis)).cloned().collect::<Cell>()
    });
    rest.filter(|cell| seen.insert(cells::label(cell))).collect()
}

/// Every pair of cells that agree on the axes that they share. Where a shared axis is the stage's
/// own, also a cell of the left that finds no partner.
fn join<'l>(
    left: &'l [Cell],
    right: &[Cell],
    own: impl Fn(&str) -> bool,
) -> (Vec<Cell>, Option<&'l Cell>) {
    let axes = |cells: &[Cell]| -> BTreeSet<String> {
        let mut each = cells.iter().map(|c| c.iter().map(|b| b.axis.clone()).collect());
        let first: BTreeSet<String> = each.next().unwrap_or_default();
        each.fold(first, |common, cell: BTreeSet<String>| &common & &cell)
    };
    let shared: Vec<String> = (&axes(left) & &axes(right)).into_iter().collect();
    let key = |cell: &Cell| -> Vec<String> {
        let label = |axis: &String| cell.iter().find(|b| b.axis == *axis).map(|b| b.label.clone());
        shared.iter().filter_map(label).collect()
    };
    let mut partners: HashMap<Vec<String>, Vec<&Cell>> = HashMap::new();
    for cell in right {
        partners.entry(key(cell)).or_default().push(cell);
    }
    let mut joined = Vec::new();
    let mut alone = None;
    let wanted = shared.iter().any(|axis| own(axis));
    for cell in left {
        let found = joined.len();
        for partner in partners.get(&key(cell)).into_iter().flatten() {
            let other = |bound: &&Arc<Bound>| cell.iter().find(|b| b.axis == bound.axis);
            if partner.iter().all(|bound| other(&bound).is_none_or(|b| b.label == bound.label)) {
                let more = partner.iter().filter(|bound| other(bound).is_none()).cloned();
                joined.push(cell.iter().cloned().chain(more).collect());
            }
        }
        if joined.len() == found && wanted {
            alone = alone.or(Some(cell));
        }
    }
    (joined, alone)
}
