//! Finds look-ahead in what a model was given: in features, scalers, labels, regimes and prompts.
//!
//! Each tester sees only what the tables hold, so that it can convict and not acquit: a small leak in
//! a noisy feature looks like skill. What is new in a feature, beside its own past and the return of its
//! bar, can hardly go with the return that follows: of 24 causal features of 21 daily series it had a rank
//! correlation of 0.09 with it at the most, of the same shifted by a bar mostly of 0.6 and more. `featurize` with `check: causality` cuts the input and compares,
//! which finds a leak of any size; these testers also work on tables that came from elsewhere.

use std::collections::BTreeSet;

use super::input::{Prompt, Table};
use super::metrics::{deviation, mean};
use super::quality::{pearson, spearman};

/// Rank correlation of a value with the next return from which it is no forecast: real signals of bars
/// stay far below it.
pub const IMPLAUSIBLE: f64 = 0.5;
/// The same with the size of the next return, which volatility forecasts.
const IMPLAUSIBLE_SIZE: f64 = 0.75;
/// Rank correlation of what is new in a value with the next return, or its size, that no signal of bars has.
pub const IMPLAUSIBLE_NEWS: f64 = 0.3;
/// The same where many returns are 0, as in samples of a book, whose queues do foretell the next tick.
const IMPLAUSIBLE_NEWS_OF_TICKS: f64 = 0.5;
/// The same for bars, from which on one should look.
const STRONG_NEWS: f64 = 0.15;
/// Deviations from 0 of a correlation that is not chance, among tens of features.
const CERTAIN: f64 = 5.0;
/// Share of returns of 0 from which on rows are ticks.
const TICKS: f64 = 0.05;
/// Rows below which a correlation says nothing.
const FEWEST: usize = 50;

/// Look-ahead that was found: where, and how it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Leak {
    /// The column, or what else it is.
    pub place: String,
    /// How it shows.
    pub said: String,
}

/// Features of a table: columns that are neither prices nor labels.
pub fn features(table: &Table) -> impl Iterator<Item = (&str, &[Option<f64>])> {
    use crate::featurize::table::COMPANIONS;
    let plain = |name: &str| name != "volume" && !COMPANIONS.contains(&name);
    let columns = table.features.iter().map(|(name, values)| (name.as_str(), values.as_slice()));
    columns.filter(move |(name, _)| plain(name))
}

/// Log return from each row to the one `bars` later.
pub fn ahead(table: &Table, bars: usize) -> Vec<Option<f64>> {
    (0..table.bars.len())
        .map(|row| Some((table.close(row + bars)? / table.close(row)?).ln()))
        .collect()
}

/// Pairs of which both sides are known.
fn pairs(x: &[Option<f64>], y: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
    x.iter().zip(y).filter_map(|(x, y)| Some(((*x)?, (*y)?))).unzip()
}

/// Whether a column knows the returns that follow it, `returns` as of [`ahead`].
pub fn foreknows(values: &[Option<f64>], returns: &[Option<f64>]) -> Option<String> {
    let (x, y) = pairs(values, returns);
    if x.len() < FEWEST {
        return None;
    }
    let sizes: Vec<f64> = y.iter().map(|r| r.abs()).collect();
    let of = |y: &[f64], bar: f64, what: &str| {
        let rank = spearman(&x, y).filter(|c| c.abs() >= bar)?;
        Some(format!("rank correlation of {rank:.2} with {what}"))
    };
    of(&y, IMPLAUSIBLE, "the return after it")
        .or_else(|| of(&sizes, IMPLAUSIBLE_SIZE, "the size of the return after it"))
}

/// Whether a column has mean 0 and deviation 1 over all its rows, and not over those of training: it
/// was scaled with the future in hand.
pub fn scaled_on_all(values: &[Option<f64>], split: &[String]) -> Option<String> {
    let all: Vec<f64> = values.iter().copied().flatten().collect();
    let trained: Vec<f64> =
        values.iter().zip(split).filter_map(|(v, s)| v.filter(|_| s == "train")).collect();
    // Written with few digits a scaled column is only nearly so.
    let standard = |x: &[f64]| {
        let root = (x.len() as f64 / (x.len() as f64 - 1.0)).sqrt();
        let deviation = deviation(x)?;
        let unit = (deviation - 1.0).abs().min((deviation - root).abs());
        Some(mean(x)?.abs() < 1e-4 && unit < 1e-4)
    };
    let fault = all.len() >= FEWEST
        && trained.len() < all.len()
        && standard(&all) == Some(true)
        && standard(&trained) == Some(false);
    fault.then(|| {
        "its mean is 0 and its deviation 1 over all rows, the test span included, and not over the training span".to_string()
    })
}

/// Whether a column of probabilities of a regime answers to the return that follows: a smoothed
/// probability does, a filtered one cannot.
///
/// A filtered log-odds follows from the one before and the return of its own row. What these do not
/// explain is correlated with the size of the next return.
pub fn smoothed(values: &[Option<f64>], table: &Table) -> Option<String> {
    let known: Vec<f64> = values.iter().copied().flatten().collect();
    // Rounding may leave a little beyond the ends.
    let probability = known.iter().all(|p| (-1e-9..=1.0 + 1e-9).contains(p));
    if known.len() < 4 * FEWEST || !probability {
        return None;
    }
    let odds = |row: usize| {
        let p = values.get(row).copied().flatten()?.clamp(1e-6, 1.0 - 1e-6);
        Some((p / (1.0 - p)).ln())
    };
    let r = |row: usize| Some((table.close(row)? / table.close(row.checked_sub(1)?)?).ln());
    let (mut x, mut y, mut next) = (Vec::new(), Vec::new(), Vec::new());
    for row in 1..values.len() {
        let at = || {
            let (before, now) = (odds(row - 1)?, odds(row)?);
            Some((before, now, r(row)?, r(row + 1)?))
        };
        if let Some((before, now, own, after)) = at() {
            x.push(vec![1.0, before, before.tanh(), before * before, own.abs(), own * own]);
            y.push(now);
            next.push(after.abs());
        }
    }
    let left = residuals(&x, &y)?;
    let own = residuals(&x, &next)?;
    let found = pearson(&left, &own)?;
    // Of a filtered one it stays below an eighth, of a smoothed one it is about a third.
    let strong = found > 0.2 && found * (own.len() as f64).sqrt() > 4.0;
    strong.then(|| {
        format!("what the past does not explain of it has a correlation of {found:.2} with the size of the next return: smoothed, not filtered")
    })
}

/// What is new in a column and goes with what follows.
#[derive(Clone, Debug, PartialEq)]
struct News {
    /// Rank correlation.
    rank: f64,
    /// With what.
    what: &'static str,
    /// From where on no signal is that strong.
    implausible: f64,
}

/// Correlates what a column does not have from its last two values and the returns of its own bar and of
/// the one before with the return that follows, of which the same is taken away. A correlation that may be
/// chance is none. Rows after which the price stays say nothing of direction, and are left out.
fn news(values: &[Option<f64>], table: &Table) -> Option<News> {
    let r = |row: usize| Some((table.close(row)? / table.close(row.checked_sub(1)?)?).ln());
    let at = |row: usize| values.get(row).copied().flatten();
    let (mut x, mut y, mut next, mut still) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for row in 2..values.len() {
        let all =
            || Some((at(row)?, at(row - 1)?, at(row - 2)?, r(row)?, r(row - 1)?, r(row + 1)?));
        match all() {
            Some((.., 0.0)) => still += 1,
            Some((now, last, before, own, own_before, after)) => {
                let sizes = [own.abs(), own * own, own_before.abs()];
                x.push([&[1.0, last, before, own, own_before], &sizes[..]].concat());
                y.push(now);
                next.push(after);
            }
            None => {}
        }
    }
    let rows = y.len();
    if rows < 4 * FEWEST {
        return None;
    }
    let ticks = still as f64 > TICKS * (still + rows) as f64;
    let implausible = if ticks { IMPLAUSIBLE_NEWS_OF_TICKS } else { IMPLAUSIBLE_NEWS };
    let sizes: Vec<f64> = next.iter().map(|r| r.abs()).collect();
    let left = residuals(&x, &y)?;
    let of = |z: &[f64], what| {
        let rank = spearman(&left, &residuals(&x, z)?)?;
        Some(News { rank, what, implausible })
    };
    let both = of(&next, "the return after it").into_iter();
    both.chain(of(&sizes, "the size of the return after it"))
        .filter(|news| news.rank.abs() * (rows as f64).sqrt() > CERTAIN)
        .max_by(|a, b| a.rank.abs().total_cmp(&b.rank.abs()))
}

impl News {
    fn said(&self) -> String {
        format!("what is new in it has a rank correlation of {:.2} with {}", self.rank, self.what)
    }
    fn convicts(&self) -> bool {
        self.rank.abs() >= self.implausible
    }
}

/// Features of bars that no tester convicts, and of which what is new goes with what follows more than
/// signals mostly do.
pub fn strong(table: &Table) -> Vec<Leak> {
    let of = |(name, values)| {
        let news = news(values, table)?;
        let strong = news.rank.abs() >= STRONG_NEWS && news.implausible == IMPLAUSIBLE_NEWS;
        let leak = Leak { place: format!("feature {name}"), said: news.said() };
        (strong && !news.convicts()).then_some(leak)
    };
    features(table).filter_map(of).collect()
}

/// What ordinary least squares leaves of `y`. Columns of `x` that depend on others before them are left
/// out.
fn residuals(x: &[Vec<f64>], y: &[f64]) -> Option<Vec<f64>> {
    let k = x.first()?.len();
    let size: Vec<f64> = (0..k)
        .map(|c| x.iter().map(|row| row[c] * row[c]).sum::<f64>().sqrt().max(f64::MIN_POSITIVE))
        .collect();
    let mut a = vec![vec![0.0; k + 1]; k];
    for (row, y) in x.iter().zip(y) {
        for i in 0..k {
            for j in 0..k {
                a[i][j] += row[i] / size[i] * row[j] / size[j];
            }
            a[i][k] += row[i] / size[i] * y;
        }
    }
    // Gauss-Jordan without exchanges, as the matrix is positive semidefinite with ones on its diagonal.
    let mut used = vec![false; k];
    for i in 0..k {
        if a[i][i] < 1e-9 {
            continue;
        }
        used[i] = true;
        let pivot = a[i].clone();
        for (_, row) in a.iter_mut().enumerate().filter(|(at, _)| *at != i) {
            let by = row[i] / pivot[i];
            row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= by * p);
        }
    }
    let coefficient = |i: usize| if used[i] { a[i][k] / a[i][i] / size[i] } else { 0.0 };
    let b: Vec<f64> = (0..k).map(coefficient).collect();
    let fit = |row: &Vec<f64>| row.iter().zip(&b).map(|(x, b)| x * b).sum::<f64>();
    Some(x.iter().zip(y).map(|(row, y)| y - fit(row)).collect())
}

/// Every feature of a table that a tester convicts.
pub fn table(table: &Table) -> Vec<Leak> {
    let returns = ahead(table, 1);
    let mut found = Vec::new();
    for (name, values) in features(table) {
        let said = foreknows(values, &returns)
            .or_else(|| scaled_on_all(values, &table.split))
            .or_else(|| name.starts_with("p_").then(|| smoothed(values, table))?)
            .or_else(|| news(values, table).filter(News::convicts).map(|news| news.said()));
        found.extend(said.map(|said| Leak { place: format!("feature {name}"), said }));
    }
    found
}

/// Training rows whose labels end in the judged span: those whose `t1` does, or, without such dates,
/// those whose close `horizon` bars later does. With how it was found.
pub fn overlap(table: &Table, judged: &str, horizon: usize) -> (usize, &'static str) {
    let Some(first) = table.split.iter().position(|s| s == judged) else {
        return (0, "no row is judged");
    };
    let dated = table.t1.iter().any(Option::is_some);
    let start = &table.dates[first];
    let reaches = |row: usize| match dated {
        true => table.t1[row].as_ref().is_some_and(|t1| t1 >= start),
        false => row + horizon >= first,
    };
    let count = (0..first).filter(|row| table.split[*row] == "train" && reaches(*row)).count();
    let from = if dated {
        "the dates t1 at which labels end"
    } else {
        "bars counted, because the table has no t1"
    };
    (count, from)
}

/// Bars after a prompt whose prices it must not name.
const AHEAD: usize = 5;
/// Bars before it whose prices it may.
const BEHIND: usize = 260;

/// Prompts that name a date after their own, or prices of the bars that follow and of none before.
pub fn prompts(prompts: &[Prompt], table: &Table) -> Option<Leak> {
    let (mut late, mut priced, mut example) = (0, 0, None);
    for prompt in prompts {
        let date = table.dates.get(prompt.row).map(String::as_str).unwrap_or_default();
        let later = dates(&prompt.text).into_iter().find(|d| *d > date.get(..10).unwrap_or(date));
        late += usize::from(later.is_some());
        let told = price(&prompt.text, table, prompt.row);
        priced += usize::from(told.is_some());
        if let (None, Some(what)) = (&example, later.map(String::from).or(told)) {
            example = Some((date.to_string(), what));
        }
    }
    // A number that happens to be a later price turns up now and then.
    let many = priced * 20 > prompts.len().max(1);
    let (date, what) = example.filter(|_| late > 0 || many)?;
    let mut said = Vec::new();
    if late > 0 {
        said.push(format!("{late} of {} prompts name a date after their own", prompts.len()));
    }
    if many {
        let all = prompts.len();
        said.push(format!("{priced} of {all} name a price of the {AHEAD} bars that follow"));
    }
    let said = format!("{}; that of {date} has `{what}`", said.join(", "));
    Some(Leak { place: "prompts".into(), said })
}

/// ISO dates in a text.
fn dates(text: &str) -> Vec<&str> {
    let is = |part: &str| {
        let bytes = part.as_bytes();
        bytes.len() == 10
            && bytes.iter().enumerate().all(|(i, b)| match i {
                4 | 7 => *b == b'-',
                _ => b.is_ascii_digit(),
            })
    };
    (0..text.len()).filter_map(|at| text.get(at..at + 10)).filter(|part| is(part)).collect()
}

/// A number of at least four digits with a point, that is a price of the next bars as written, and of
/// none before.
fn price(text: &str, table: &Table, row: usize) -> Option<String> {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let words: BTreeSet<&str> = text
        .split(|c| !number(c))
        .map(|w| w.trim_matches('.'))
        .filter(|w| w.matches('.').count() == 1)
        .filter(|w| w.chars().filter(char::is_ascii_digit).count() >= 4)
        .collect();
    let is = |word: &str, at: usize| {
        let places = word.split_once('.').map_or(0, |(_, after)| after.len());
        table.bars.get(at).is_some_and(|bar| {
            [bar.open, bar.high, bar.low, bar.close]
                .iter()
                .any(|price| format!("{price:.places$}") == word)
        })
    };
    let known = |word: &str| (row.saturating_sub(BEHIND)..=row).any(|at| is(word, at));
    let comes = |word: &str| (row + 1..=row + AHEAD).any(|at| is(word, at));
    words.into_iter().find(|word| comes(word) && !known(word)).map(String::from)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::backtest::Bar;
    use super::*;

    /// A walk with calm and stormy regimes, and which it was.
    fn market(n: usize) -> (Table, Vec<f64>, Vec<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut normal = || {
            let (a, b): (f64, f64) = (rng.random::<f64>().max(1e-12), rng.random());
            (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        };
        let (mut price, mut table, mut returns) = (100.0, Table::default(), Vec::new());
        for i in 0..n {
            let r = if (i / 60) % 2 == 0 { 0.005 } else { 0.02 } * normal();
            let open = price;
            price *= f64::exp(r);
            let (high, low) = (open.max(price) * 1.001, open.min(price) * 0.999);
            table.bars.push(Bar { open, high, low, close: price });
            table.dates.push(format!("20{:02}-{:02}-{:02}", i / 336, i / 28 % 12 + 1, i % 28 + 1));
            table.split.push(if i < n / 2 { "train" } else { "test" }.into());
            table.t1.push(None);
            returns.push(r);
        }
        let noise = (0..n).map(|_| normal()).collect();
        (table, returns, noise)
    }

    #[test]
    fn a_planted_future_is_caught_and_noise_is_not() {
        let (mut table, returns, noise) = market(600);
        let wide = deviation(&returns).unwrap();
        let lead = |i: usize| returns.get(i + 1).map(|r| r + wide * noise[i]);
        let shown: Vec<Option<f64>> = (0..600).map(lead).collect();
        let past: Vec<Option<f64>> = (0..600).map(|i| Some(returns[i])).collect();
        table.features.insert("momentum_1".into(), past);
        table.features.insert("noise".into(), noise.iter().map(|x| Some(*x)).collect());
        table.features.insert("label_return".into(), shown.clone());
        assert_eq!(super::table(&table), []);
        table.features.insert("planted".into(), shown);
        let found = super::table(&table);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "feature planted");
        assert!(found[0].said.contains("with the return after it"), "{}", found[0].said);
    }

    #[test]
    fn a_scaler_of_all_rows_is_caught_and_one_of_training_is_not() {
        let (mut table, returns, _) = market(600);
        let vol: Vec<f64> = (0..600).map(|i| returns[i].abs() + 1e-4 * i as f64).collect();
        let scale = |part: &[f64]| {
            let (m, d) = (mean(part).unwrap(), deviation(part).unwrap());
            vol.iter().map(|x| Some(((x - m) / d * 1e8).round() / 1e8)).collect::<Vec<_>>()
        };
        table.features.insert("fair".into(), scale(&vol[..300]));
        assert_eq!(super::table(&table), []);
        table.features.insert("foul".into(), scale(&vol));
        let found = super::table(&table);
        assert_eq!((found.len(), found[0].place.as_str()), (1, "feature foul"));
        assert!(found[0].said.contains("over all rows"));
    }

    #[test]
    fn features_of_the_next_bar_are_caught_and_those_of_their_own_are_not() {
        let (mut table, returns, noise) = market(1500);
        let at = |i: usize, k: usize| i.checked_sub(k).map(|at| returns[at]);
        let sum = |i: usize, k: usize| (0..k).map(|j| at(i, j)).sum::<Option<f64>>();
        let volatility = |i: usize| {
            let squares = (0..20).map(|j| at(i, j).map(|r| r * r)).sum::<Option<f64>>();
            squares.map(f64::sqrt)
        };
        let mean =
            |i: usize| Some((0..10).map(|j| noise[(i + j) % 1500]).sum::<f64>() + sum(i, 1)?);
        type Feature<'a> = (&'a str, &'a dyn Fn(usize) -> Option<f64>);
        let causal: [Feature; 3] =
            [("momentum_10", &|i| sum(i, 10)), ("realised_vol", &volatility), ("noisy", &mean)];
        for (name, of) in causal {
            table.features.insert(name.into(), (0..1500).map(of).collect());
        }
        assert_eq!(super::table(&table), []);
        assert_eq!(strong(&table), []);
        for (name, of) in &causal[..2] {
            let shifted = (0..1500).map(|i| if i < 1499 { of(i + 1) } else { None }).collect();
            table.features.insert(format!("{name}_shifted"), shifted);
        }
        let found = super::table(&table);
        let names: Vec<&str> = found.iter().map(|leak| leak.place.as_str()).collect();
        assert_eq!(names, ["feature momentum_10_shifted", "feature realised_vol_shifted"]);
        assert!(found[0].said.contains("what is new in it has"), "{}", found[0].said);
        assert!(found[1].said.contains("the size of the return"), "{}", found[1].said);
    }

    #[test]
    fn a_strong_signal_is_worth_a_look() {
        let (mut table, returns, noise) = market(1500);
        let wide = deviation(&returns).unwrap();
        let lead = |i: usize| returns.get(i + 1).map(|r| r + 4.0 * wide * noise[i]);
        table.features.insert("hint".into(), (0..1500).map(lead).collect());
        assert_eq!(super::table(&table), []);
        let found = strong(&table);
        assert_eq!((found.len(), found[0].place.as_str()), (1, "feature hint"));
    }

    /// Probabilities of the stormy state, filtered and smoothed, of a hidden Markov model that is known
    /// (Hamilton 1989; Kim 1994).
    fn regimes(returns: &[f64]) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
        let (stay, sd) = (0.98, [0.005f64, 0.02]);
        let seen = |r: f64| sd.map(|s| (-0.5 * (r / s).powi(2)).exp() / s);
        let step =
            |p: [f64; 2]| [stay * p[0] + (1.0 - stay) * p[1], stay * p[1] + (1.0 - stay) * p[0]];
        let (mut filtered, mut p) = (Vec::new(), [0.5, 0.5]);
        for r in returns {
            let (prior, like) = (step(p), seen(*r));
            let sum = prior[0] * like[0] + prior[1] * like[1];
            p = [prior[0] * like[0] / sum, prior[1] * like[1] / sum];
            filtered.push(p);
        }
        let mut smooth = filtered.clone();
        for t in (0..returns.len() - 1).rev() {
            let prior = step(filtered[t]);
            for s in 0..2 {
                let to = |n: usize| if n == s { stay } else { 1.0 - stay };
                let sum: f64 = (0..2).map(|n| to(n) * smooth[t + 1][n] / prior[n]).sum();
                smooth[t][s] = filtered[t][s] * sum;
            }
        }
        let stormy = |p: Vec<[f64; 2]>| p.into_iter().map(|p| Some(p[1])).collect();
        (stormy(filtered), stormy(smooth))
    }

    #[test]
    fn a_smoothed_regime_is_caught_and_a_filtered_one_is_not() {
        let (mut table, returns, _) = market(1500);
        let (filtered, smooth) = regimes(&returns);
        table.features.insert("p_high_vol".into(), filtered);
        assert_eq!(super::table(&table), []);
        table.features.insert("p_high_vol".into(), smooth);
        let found = super::table(&table);
        assert_eq!((found.len(), found[0].place.as_str()), (1, "feature p_high_vol"));
        assert!(found[0].said.contains("smoothed, not filtered"), "{}", found[0].said);
    }

    #[test]
    fn labels_that_reach_into_the_test_span_are_counted() {
        let (mut table, _, _) = market(100);
        // Training ends one bar before the test span: five labels of five bars reach into it.
        assert_eq!(overlap(&table, "test", 5).0, 5);
        for row in 45..50 {
            table.split[row] = "gap".into();
        }
        assert_eq!(overlap(&table, "test", 5).0, 0);
        // A barrier may be touched late; its date says so.
        table.t1 = (0..100).map(|row| table.dates.get(row + 5).cloned()).collect();
        assert_eq!(overlap(&table, "test", 1).0, 0);
        table.t1[3] = table.dates.get(60).cloned();
        assert_eq!(overlap(&table, "test", 1).0, 1);
    }

    #[test]
    fn prompts_that_know_what_comes_are_caught() {
        let (table, _, _) = market(200);
        let of = |text: &dyn Fn(usize) -> String| {
            let rows = (100..150).map(|row| Prompt { row, text: text(row) });
            prompts(&rows.collect::<Vec<_>>(), &table)
        };
        let price = |row: usize| format!("{:.2}", table.bars[row].close);
        let fair =
            |row: usize| format!("Date: {}. Close {}. RSI 51.27", table.dates[row], price(row));
        assert_eq!(of(&fair), None);
        let told = |row: usize| format!("Close {}. Target {}", price(row), price(row + 1));
        let found = of(&told).unwrap();
        assert!(found.said.contains("name a price of the 5 bars that follow"), "{}", found.said);
        let dated = |row: usize| format!("News of {}: rates rise", table.dates[row + 2]);
        let found = of(&dated).unwrap();
        assert!(found.said.contains("50 of 50 prompts name a date after their own"));
    }
}
