//! Whether the result can have come from the future: tests that are run on the very data of the
//! report, and said in it.
//!
//! Cutting the data must leave every earlier position and value as it was, to the bit. Decisions in
//! another order must earn nothing that the market does not give to everybody. Features, regimes,
//! labels and prompts go through the testers of `leaks`, and a planted future feature must be caught
//! by them, or the testers themselves are blind.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::backtest::Rules;
use super::forecasts::Forecast;
use super::inference::{Interval, quantile};
use super::input::Table;
use super::leaks::{self, Leak};
use super::metrics::{deviation, mean, sharpe};
use super::numbers::{count, many, ratio};
use super::panel::Panel;
use super::plan::Moves;

/// What a test found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Nothing against it.
    #[serde(rename = "CLEAN")]
    Clean,
    /// Look-ahead, or a test that failed.
    #[serde(rename = "CAUGHT")]
    Caught,
    /// Worth a look; not a proof.
    #[serde(rename = "LOOK")]
    Look,
    /// It could not be run.
    #[serde(rename = "NOT DONE")]
    NotDone,
}

/// A test for look-ahead.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What was done.
    pub name: String,
    /// What was found.
    pub outcome: Outcome,
    /// In words.
    pub said: String,
}

impl Check {
    /// A test by name.
    pub fn new(name: &str, outcome: Outcome, said: impl Into<String>) -> Check {
        Check { name: name.into(), outcome, said: said.into() }
    }
}

/// Replays of shuffled decisions.
const SHUFFLES: u64 = 200;

/// Cuts the data at three dates: positions and equity up to each must be those of the whole. `decide`
/// makes the decisions from the first so many dates.
pub fn truncated(panel: &Panel, rules: &Rules, decide: &(dyn Fn(usize) -> Moves + Sync)) -> Check {
    const NAME: &str = "cut the data and compare";
    let n = panel.len();
    let whole = decide(n).play(panel, rules);
    let cuts = [n / 4, n / 2, 3 * n / 4];
    let differs = |cut: &&usize| {
        let part = decide(**cut).play(&panel.slice(0..**cut), rules);
        let bits = |x: &[f64]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        bits(&part.equity) != bits(&whole.equity[..**cut])
            || part.position.iter().ne(whole.position.iter().take(**cut))
            || part.weights.iter().ne(whole.weights.iter().take(**cut))
    };
    match cuts.iter().filter(|cut| **cut > 2).find(differs) {
        None => Check::new(
            NAME,
            Outcome::Clean,
            "cut at a quarter, half and three quarters, every earlier position and value is the same to the bit",
        ),
        Some(cut) => Check::new(
            NAME,
            Outcome::Caught,
            format!(
                "positions before {} change when what comes after is cut off",
                panel.dates[*cut]
            ),
        ),
    }
}

/// What decisions in another order earn: their Sharpe ratios and where the model stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shuffled {
    /// Mean of the Sharpe ratios.
    pub mean: f64,
    /// Middle 95 % of them.
    pub interval: Interval,
    /// Share that is at least as good as the model.
    pub p: f64,
}

/// Replays the decisions in blocks of dates that stand in another order.
pub fn shuffle(
    moves: &Moves,
    panel: &Panel,
    rules: &Rules,
    (block, per_year, seed): (usize, f64, u64),
) -> Option<Shuffled> {
    let of = |moves: &Moves| sharpe(&moves.play(panel, rules).returns(), per_year);
    let mine = of(moves)?;
    let one = |number: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        of(&moves.shuffled(block, &mut rng))
    };
    let mut all: Vec<f64> = (0..SHUFFLES).into_par_iter().filter_map(one).collect();
    all.sort_by(f64::total_cmp);
    let interval = Interval { low: quantile(&all, 0.025)?, high: quantile(&all, 0.975)? };
    let p = all.iter().filter(|s| **s >= mine).count() as f64 / all.len() as f64;
    Some(Shuffled { mean: mean(&all)?, interval, p })
}

/// [`shuffle`] as a test, in words; `what` are the decisions.
pub fn shuffled(found: Option<Shuffled>, block: usize, what: &str) -> Check {
    let name = format!("shuffle {what} in blocks");
    let Some(s) = found else {
        return Check::new(&name, Outcome::NotDone, "returns do not vary");
    };
    let numbers = format!(
        "{SHUFFLES} orders of blocks of {}: mean Sharpe ratio {}, middle 95% {} to {}",
        many(block, "date"),
        ratio(s.mean),
        ratio(s.interval.low),
        ratio(s.interval.high)
    );
    let place =
        format!("{} of them are at least as good as the model", super::numbers::percent(s.p));
    match s.interval.covers(0.0) {
        true => Check::new(&name, Outcome::Clean, format!("{numbers}, which covers 0; {place}")),
        false => Check::new(
            &name,
            Outcome::Look,
            format!(
                "{numbers}, which does not cover 0: what the order of decisions does not explain is exposure to the market, or costs; {place}"
            ),
        ),
    }
}

/// The testers of `leaks` on tables by name.
pub fn tables(tables: &[(String, Table)]) -> Check {
    const NAME: &str = "features that know the future";
    let all = |of: fn(&Table) -> Vec<Leak>| -> Vec<Leak> {
        let of = |(asset, table): &(String, Table)| -> Vec<Leak> {
            let named = |leak: Leak| match asset.is_empty() {
                true => leak,
                false => Leak { place: format!("{} of {asset}", leak.place), ..leak },
            };
            of(table).into_iter().map(named).collect()
        };
        tables.par_iter().flat_map(of).collect()
    };
    let said = |found: &[Leak]| {
        let each = found.iter().take(5).map(|l| format!("{}: {}", l.place, l.said));
        each.collect::<Vec<_>>().join("; ")
    };
    let columns: usize = tables.iter().map(|(_, t)| leaks::features(t).count()).sum();
    if columns == 0 {
        return Check::new(NAME, Outcome::NotDone, "the tables have no features");
    }
    let found = all(leaks::table);
    if !found.is_empty() {
        return Check::new(NAME, Outcome::Caught, said(&found));
    }
    let strong = all(leaks::strong);
    if !strong.is_empty() {
        let said = format!("{}: a strong signal, or a leak", said(&strong));
        return Check::new(NAME, Outcome::Look, said);
    }
    Check::new(
        NAME,
        Outcome::Clean,
        format!(
            "none of {} has a rank correlation of {} with the return after it, or what is new in it one of {}, was scaled with the test span, or is a smoothed probability; a smaller leak than that looks like skill, and `featurize` with `check: causality` finds it",
            many(columns, "feature"),
            leaks::IMPLAUSIBLE,
            leaks::IMPLAUSIBLE_NEWS
        ),
    )
}

/// Plants a feature that is half the next return and half noise; the testers must catch it.
pub fn planted(table: &Table, seed: u64) -> Check {
    const NAME: &str = "plant a future feature";
    let next = leaks::ahead(table, 1);
    let known: Vec<f64> = next.iter().copied().flatten().collect();
    let Some(wide) = deviation(&known).filter(|d| known.len() >= 100 && *d > 0.0) else {
        return Check::new(NAME, Outcome::NotDone, "it takes at least 100 rows");
    };
    // The noise is the series' own returns, in another order.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut noise = known.clone();
    rand::seq::SliceRandom::shuffle(noise.as_mut_slice(), &mut rng);
    let own = deviation(&noise).unwrap_or(1.0);
    let value = |(i, r): (usize, &Option<f64>)| Some((*r)? + noise.get(i)? * wide / own);
    let values: Vec<Option<f64>> = next.iter().enumerate().map(value).collect();
    match leaks::foreknows(&values, &next) {
        Some(said) => Check::new(
            NAME,
            Outcome::Clean,
            format!("half the next return and half noise: the tester sees it, by a {said}"),
        ),
        None => Check::new(
            NAME,
            Outcome::Caught,
            "the tester does not see it, and its silence about the features says nothing",
        ),
    }
}

/// Whether the returns in a file of forecasts are those of the prices, and whether forecasts know them.
pub fn forecasts(forecasts: &[Forecast], panel: &Panel, horizon: usize) -> [Check; 2] {
    let (mut wrong, mut judged) = (0, 0);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); panel.width()];
    for t in 0..panel.len() {
        for (asset, bar) in panel.row(t).iter().enumerate() {
            if !bar.close.is_nan() {
                rows[asset].push(t);
            }
        }
    }
    for f in forecasts {
        let own = &rows[f.asset];
        let end = own.binary_search(&f.at).ok().and_then(|at| own.get(at + horizon));
        if let (Some(end), Some(came)) = (end, f.came) {
            let real = (panel.row(*end)[f.asset].close / panel.row(f.at)[f.asset].close).ln();
            judged += 1;
            wrong += usize::from((real - came).abs() > 1e-4 * (1.0 + came.abs()));
        }
    }
    const SAME: &str = "returns in the forecasts are those of the prices";
    let same = match (judged, wrong) {
        (0, _) => Check::new(SAME, Outcome::NotDone, "the file says of no row what came"),
        (n, 0) => Check::new(
            SAME,
            Outcome::Clean,
            format!("recomputed from closes {horizon} bars apart for {}", many(n, "row")),
        ),
        (n, wrong) => Check::new(
            SAME,
            Outcome::Caught,
            format!(
                "{} of {} differ from the return over {horizon} bars: the horizon is not what it says, or the prices are others",
                count(wrong),
                count(n)
            ),
        ),
    };
    const KNOWS: &str = "forecasts that know the future";
    let (said, came): (Vec<Option<f64>>, Vec<Option<f64>>) =
        forecasts.iter().map(|f| (Some(f.mean), f.came)).unzip();
    let lean: Vec<Option<f64>> = forecasts.iter().map(|f| Some(f.p[2] - f.p[0])).collect();
    let of = |values: &[Option<f64>]| leaks::foreknows(values, &came);
    let knows = match of(&said).or_else(|| of(&lean)) {
        Some(said) => Check::new(
            KNOWS,
            Outcome::Caught,
            format!(
                "{said}: no forecast of returns is that good; look for a label, or a row after t, among its inputs"
            ),
        ),
        None => Check::new(
            KNOWS,
            Outcome::Clean,
            format!(
                "neither the mean nor p_up - p_down has a rank correlation of {} with what came",
                leaks::IMPLAUSIBLE
            ),
        ),
    };
    [same, knows]
}

/// What delays do to the result, in words.
pub fn delayed(delays: &[super::assessment::Delay]) -> Check {
    const NAME: &str = "shift by a bar";
    let of = |dates: i64| delays.iter().find(|d| d.dates == dates).and_then(|d| d.sharpe);
    let Some((now, late)) = of(0).zip(of(1)) else {
        return Check::new(NAME, Outcome::NotDone, "returns do not vary");
    };
    let early = of(-1)
        .map_or_else(String::new, |s| format!("; a bar early, which nobody can, {}", ratio(s)));
    let numbers = format!("Sharpe ratio {}; a bar later {}{early}", ratio(now), ratio(late));
    // A real edge decays over its horizon; what falls off at once was in the bar itself.
    if now > 2.0 && late < now / 4.0 {
        let said = format!(
            "{numbers}: nearly all of it is gone with one bar, as with a look at the bar that is traded"
        );
        return Check::new(NAME, Outcome::Look, said);
    }
    Check::new(NAME, Outcome::Clean, numbers)
}
