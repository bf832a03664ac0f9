//! How long a plan will take: from what its stages took before, their order, and how many may run at
//! a time.
//!
//! At least: what surely runs, with every processor busy. At most: all that may run, by the bound
//! that holds for any schedule that leaves no processor idle while something is ready.

use crate::graph::Graph;

/// What a stage will take, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// One action.
    pub action: u64,
    /// How many.
    pub actions: u64,
    /// It runs whatever the stages before it give.
    pub sure: bool,
}

impl Cost {
    /// All of its actions, one after the other.
    pub fn work(&self) -> u64 {
        self.action * self.actions
    }
}

/// What a whole plan will take, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Not less than this.
    pub least: u64,
    /// Not more than this.
    pub most: u64,
}

/// Adds up; `None` is a stage that does not run, or of which nothing is known.
pub fn range(graph: &Graph, costs: &[Option<Cost>], jobs: u64) -> Range {
    let jobs = jobs.max(1);
    let sum = |sure: bool| {
        let (mut work, mut longest) = (0, 0);
        let mut ends = vec![0; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            let before = node.before().into_iter().map(|before| ends[before]).max().unwrap_or(0);
            let cost = costs[index].filter(|cost| cost.sure || !sure).unwrap_or_default();
            let wide = jobs.min(cost.actions.max(1));
            ends[index] = before + cost.action.max(cost.work() / wide);
            longest = longest.max(ends[index]);
            work += cost.work() * u64::from(node.needs.cpu.max(1)).min(jobs);
        }
        (work, longest)
    };
    let ((sure, path), (all, longest)) = (sum(true), sum(false));
    let most = longest + all.saturating_sub(longest) / jobs;
    Range { least: path.max(sure / jobs), most }
}
