//! `when`: stages that are left out, and what cannot do without them.

use super::{Fed, InputSpec, Wire};
use crate::diagnostic::Problem;
use crate::spec::StageSpec;

/// Which stages are left out: those whose `when` is false, and those that need one of these. A port
/// that may be left unfed is; inputs that only such stages read go too. Whoever goes along with
/// another is warned of.
pub(crate) fn leave_out(
    stages: &[StageSpec],
    order: &[usize],
    wires: &mut [Vec<Wire>],
    inputs: &mut Vec<InputSpec>,
    problems: &mut Vec<Problem>,
) -> Vec<bool> {
    let mut gone: Vec<bool> = stages.iter().map(|stage| stage.left_out.is_some()).collect();
    if !gone.contains(&true) {
        return gone;
    }
    let read = |wires: &[Vec<Wire>], gone: &[bool], left: bool| {
        let wires = wires.iter().zip(gone).filter(|(_, gone)| **gone == left);
        let names = wires.flat_map(|(wires, _)| wires).filter_map(|wire| match &wire.fed {
            Fed::Input(name) => Some(name.clone()),
            _ => None,
        });
        names.collect::<std::collections::BTreeSet<String>>()
    };
    for &stage in order {
        let mut needed = None;
        wires[stage].retain_mut(|wire| {
            let (first, left) = match &mut wire.fed {
                Fed::Stage { stage, .. } => (Some(*stage), !gone[*stage]),
                Fed::Cells { stages, .. } => {
                    let first = stages.first().map(|(_, stage)| *stage);
                    stages.retain(|(_, stage)| !gone[*stage]);
                    (first, !stages.is_empty())
                }
                _ => (None, true),
            };
            if let (false, true, Some(first)) = (left, wire.required, first) {
                needed.get_or_insert((first, wire.span));
            }
            left
        });
        if let (false, Some((other, span))) = (gone[stage], needed) {
            gone[stage] = true;
            let (own, other) = (&stages[stage].base, &stages[other].base);
            let message = format!("`{own}` is left out, because it needs `{other}`");
            let problem = Problem::warning("graph::left_out", span, message);
            let problem = problem.label(format!("`when` leaves out `{other}`, or what it needs"));
            problems.push(problem.help(format!("give `{own}` the same `when`, or another source")));
        }
    }
    let (without, with) = (read(wires, &gone, true), read(wires, &gone, false));
    inputs.retain(|input| with.contains(&input.name) || !without.contains(&input.name));
    gone
}
