//! What the language model really said: how much of it can be read, how it is spread over the
//! actions, and whether its direction came true.
//!
//! This is about answers, not money: a model can be right about direction and lose to costs, or
//! gain by always saying `buy` in a market that rose.

use serde::Serialize;

use super::input::Table;
use crate::pairs::action::{Action, FAMILIES, Side};
use crate::pairs::decision::Decision;

/// Share of one action from which the report raises an alarm.
pub const ALARM: f64 = 0.95;

/// An answer to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Row of the features at which it decides.
    pub row: usize,
    /// Every character that the model wrote.
    pub raw: String,
    /// What it means; `None` is a parse failure.
    pub decision: Option<Decision>,
}

impl Answer {
    /// Reads an answer.
    pub fn new(row: usize, raw: String) -> Answer {
        let decision = Decision::read(&raw);
        Answer { row, raw, decision }
    }
    /// Its action without a size; of hold and cancel none is sent.
    pub fn action(&self) -> Option<Action> {
        self.decision.map(Decision::action)
    }
    /// The decision in words, or `parse failure`.
    pub fn label(&self) -> String {
        self.decision.map_or_else(|| FAILURE.into(), |decision| decision.to_string())
    }
}

/// How a parse failure is named.
pub const FAILURE: &str = "parse failure";

/// A count of answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Count {
    /// The family of actions, or `parse failure`.
    pub name: &'static str,
    /// How many.
    pub count: usize,
    /// Share of all answers.
    pub share: f64,
}

/// The answers of one model, counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tally {
    /// `model` or `base`.
    pub source: &'static str,
    /// Answers in all.
    pub answers: usize,
    /// Share that could not be read.
    pub failure_rate: f64,
    /// By family, parse failures last; every family is there. Hold and cancel are of `flat`: nothing is
    /// sent.
    pub counts: Vec<Count>,
    /// Different answers, as written.
    pub distinct: usize,
    /// The most frequent reading (a decision with its offset and size, or `parse failure`) and its share.
    pub top: Option<(String, f64)>,
    /// One reading makes up at least [`ALARM`] of the answers.
    pub always_one: bool,
    /// Whether directions came true.
    pub direction: Direction,
}

/// Counts answers. `ahead` is how many bars later direction is judged.
pub fn tally(source: &'static str, answers: &[Answer], table: &Table, ahead: usize) -> Tally {
    let total = answers.len();
    let share = |count: usize| if total > 0 { count as f64 / total as f64 } else { 0.0 };
    let family = |a: &Answer| a.action().map_or(FAILURE, Action::family);
    let counts: Vec<Count> = FAMILIES
        .into_iter()
        .chain([FAILURE])
        .map(|name| {
            let count = answers.iter().filter(|a| family(a) == name).count();
            Count { name, count, share: share(count) }
        })
        .collect();
    let mut labels: Vec<String> = answers.iter().map(Answer::label).collect();
    labels.sort();
    let runs = labels.chunk_by(|a, b| a == b).rev();
    let top = runs.max_by_key(|run| run.len()).map(|run| (run[0].clone(), share(run.len())));
    let mut raws: Vec<&str> = answers.iter().map(|a| a.raw.as_str()).collect();
    raws.sort_unstable();
    raws.dedup();
    Tally {
        source,
        answers: total,
        failure_rate: counts.last().map_or(0.0, |c| c.share),
        counts,
        distinct: raws.len(),
        always_one: total > 1 && top.as_ref().is_some_and(|(_, share)| *share >= ALARM),
        top,
        direction: direction(answers, table, ahead),
    }
}

/// Directions said against directions that came.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Direction {
    /// Bars from the decision's close to the close that judges it.
    pub ahead: usize,
    /// Rows buy, sell, neither; columns up, not up.
    pub table: [[usize; 2]; 3],
    /// Share of buys and sells whose direction came.
    pub accuracy: Option<f64>,
    /// Share of all judged decisions after which the price rose: what always saying buy would reach.
    pub up: Option<f64>,
    /// Matthews correlation of buys and sells with what came: 0 is no better than a coin.
    pub mcc: Option<f64>,
}

fn direction(answers: &[Answer], table: &Table, ahead: usize) -> Direction {
    let mut counts = [[0usize; 2]; 3];
    for answer in answers {
        let later = table.close(answer.row + ahead);
        let Some((now, later)) = table.close(answer.row).zip(later) else { continue };
        let said = match answer.action().and_then(Action::side) {
            Some(Side::Buy) => 0,
            Some(Side::Sell) => 1,
            None => 2,
        };
        counts[said][usize::from(later <= now)] += 1;
    }
    let [[buy_up, buy_not], [sell_up, sell_not], [none_up, none_not]] = counts;
    let sided = buy_up + buy_not + sell_up + sell_not;
    let all = sided + none_up + none_not;
    let share = |part: usize, of: usize| (of > 0).then(|| part as f64 / of as f64);
    Direction {
        ahead,
        table: counts,
        accuracy: share(buy_up + sell_not, sided),
        up: share(buy_up + sell_up + none_up, all),
        mcc: mcc(&[vec![buy_up, buy_not], vec![sell_up, sell_not]]),
    }
}

/// Matthews correlation of a square confusion matrix (Gorodkin 2004, eq. 8). `None` where one side
/// names a single class.
pub fn mcc(confusion: &[Vec<usize>]) -> Option<f64> {
    let classes = 0..confusion.len();
    let at =
        |i: usize, j: usize| confusion.get(i).and_then(|r| r.get(j)).map_or(0.0, |n| *n as f64);
    let sum = |f: &dyn Fn(usize) -> f64| classes.clone().map(f).sum::<f64>();
    let total = sum(&|i| sum(&|j| at(i, j)));
    let rows: Vec<f64> = classes.clone().map(|i| sum(&|j| at(i, j))).collect();
    let columns: Vec<f64> = classes.clone().map(|j| sum(&|i| at(i, j))).collect();
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = |a: &[f64]| total * total - product(a, a);
    let under = (spread(&rows) * spread(&columns)).sqrt();
    let over = sum(&|i| at(i, i)) * total - product(&rows, &columns);
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::super::backtest::Bar;
    use super::super::testdata::close;
    use super::*;

    fn said(raws: &[&str]) -> Vec<Answer> {
        raws.iter().enumerate().map(|(row, raw)| Answer::new(row, raw.to_string())).collect()
    }

    fn table(closes: &[f64]) -> Table {
        let bar = |c: &f64| Bar { open: *c, high: *c, low: *c, close: *c };
        Table { bars: closes.iter().map(bar).collect(), ..Table::default() }
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let answers = said(&[" buy limit 10", " buy limit 20", "I would buy", " flat\n"]);
        let tally = tally("model", &answers, &table(&[1.0; 5]), 1);
        let counts: Vec<(&str, usize)> = tally.counts.iter().map(|c| (c.name, c.count)).collect();
        let want = [
            ("buy market", 0),
            ("sell market", 0),
            ("buy limit", 2),
            ("sell limit", 0),
            ("flat", 1),
            (FAILURE, 1),
        ];
        assert_eq!(counts, want);
        assert_eq!(tally.failure_rate, 0.25);
        assert_eq!((tally.distinct, tally.always_one), (4, false));
        assert_eq!(answers[2].label(), FAILURE);
    }

    #[test]
    fn one_answer_raises_the_alarm() {
        let one = tally("model", &said(&["flat"; 20]), &table(&[1.0; 21]), 1);
        assert!(one.always_one);
        assert_eq!(one.top, Some(("flat".into(), 1.0)));
        let nothing = tally("model", &said(&["?"; 20]), &table(&[1.0; 21]), 1);
        assert!(nothing.always_one);
        assert_eq!(nothing.top, Some((FAILURE.into(), 1.0)));
    }

    #[test]
    fn directions_are_judged_by_what_came() {
        let closes = [10.0, 11.0, 12.0, 11.0, 10.0, 10.0];
        let answers = said(&[
            "buy market",
            "sell market",
            "sell limit 5",
            "buy market",
            "flat",
            "buy market",
        ]);
        let tally = tally("model", &answers, &table(&closes), 1);
        // Up right, up missed, down right, down missed, flat; the last has no next bar.
        assert_eq!(tally.direction.table, [[1, 1], [1, 1], [0, 1]]);
        assert_eq!(tally.direction.accuracy, Some(0.5));
        assert_eq!(tally.direction.up, Some(0.4));
        assert_eq!(tally.direction.mcc, Some(0.0));
    }

    #[test]
    fn mcc_agrees_with_scikit_learn() {
        // scikit-learn 1.9.1, matthews_corrcoef of 600 three-way labels.
        let confusion = CONFUSION.map(|r| r.to_vec());
        close(mcc(&confusion), 0.09470278935242916, 1e-12);
        assert_eq!(mcc(&[vec![3, 4], vec![0, 0]]), None);
    }

    const CONFUSION: [[usize; 3]; 3] = [[90, 55, 51], [78, 53, 64], [56, 58, 95]];
}
