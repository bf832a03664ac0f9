//! How fast replays are, and how long a whole report takes: 20,000 bars, some 10,000 trades, 5,000
//! draws, 1,000 random portfolios. `cargo bench -p quantmill-stages --bench evaluate`.

use std::hint::black_box;
use std::time::Instant;

use quantmill_stages::evaluate::backtest::{Bar, run};
use quantmill_stages::evaluate::forecasts::{Forecast, Run};
use quantmill_stages::evaluate::input::Table;
use quantmill_stages::evaluate::panel::Panel;
use quantmill_stages::evaluate::policy::Policy;
use quantmill_stages::evaluate::portfolio::{Weights, replay};
use quantmill_stages::evaluate::positions::{Given, assess};
use quantmill_stages::evaluate::{Params, report};
use quantmill_stages::pairs::decision::Decision;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A walk of hours.
fn table(rows: usize, seed: u64) -> Table {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut price = 100.0f64;
    let mut table = Table::default();
    let mut storm = Vec::with_capacity(rows);
    for i in 0..rows {
        let open = price;
        price *= 1.0 + 0.002 * (rng.random::<f64>() - 0.5);
        let (high, low) = (open.max(price) * 1.0005, open.min(price) * 0.9995);
        table.bars.push(Bar { open, high, low, close: price });
        let (day, hour) = (i / 24, i % 24);
        let (year, month, day) = (2000 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
        table.dates.push(format!("{year}-{month:02}-{day:02}T{hour:02}:00"));
        table.split.push(if i < 1000 { "train" } else { "test" }.into());
        table.t1.push(None);
        storm.push(Some(f64::from(i / 500 % 2 == 0)));
    }
    table.features.insert("p_high_vol".into(), storm);
    table
}

fn forecasts(table: &Table, seed: u64) -> Run {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let judged = (1000..table.bars.len()).map(|at| {
        let up = 0.2 + 0.4 * rng.random::<f64>();
        let came = table.close(at + 1).zip(table.close(at)).map(|(b, a)| (b / a).ln());
        Forecast {
            at,
            asset: 0,
            until: table.dates.get(at + 1).cloned(),
            p: [0.8 - up, 0.2, up],
            mean: 0.001 * (up - 0.4),
            scale: Some(0.0005),
            class: came.map(|r| if r > 0.0001 { 2 } else { usize::from(r > -0.0001) }),
            came,
        }
    });
    Run { name: "model".into(), horizon: 1, judged: judged.collect(), folds: Vec::new() }
}

fn main() {
    let table = table(21_000, 1);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let long = self::table(2_000_000, 2);
    let say = ["buy market", "sell market", "flat", "buy limit 5", "hold"];
    let decided: Vec<Option<Decision>> = (0..long.bars.len())
        .map(|_| say.get(rng.random_range(0..15)).and_then(|text| Decision::read(text)))
        .collect();
    let params = Params { forecasts: Some(Policy::default()), ..Params::default() };
    let begun = Instant::now();
    black_box(run(&long.bars, &decided, &params.rules()));
    let rate = long.bars.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!("replay of orders, one instrument: {rate:.1} M bars/s");
    let width = 20;
    let panel = Panel {
        assets: (0..width).map(|a| a.to_string()).collect(),
        dates: long.dates[..long.bars.len() / width].to_vec(),
        bars: long.bars.clone(),
        queue: None,
    };
    let mut weights = Weights::none(panel.len(), width);
    for t in (0..panel.len()).step_by(5) {
        let row: Vec<f64> = (0..width).map(|_| rng.random::<f64>() * 0.1 - 0.05).collect();
        weights.set(t, &row);
    }
    let begun = Instant::now();
    black_box(replay(&panel, |t| weights.get(t), &params.rules()));
    let rate = panel.bars.len() as f64 / begun.elapsed().as_secs_f64() / 1e6;
    println!("replay of weights, {width} instruments, set anew every 5 dates: {rate:.1} M bars/s");
    let tables = [(String::new(), table)];
    let whole = Panel::of(&tables);
    let runs = vec![forecasts(&tables[0].1, 5)];
    let baselines = vec![Run { name: "boosting".into(), ..forecasts(&tables[0].1, 6) }];
    let begun = Instant::now();
    let found = assess(Given {
        params: &params,
        policy: &Policy::default(),
        seed: 0,
        tables: &tables,
        whole: &whole,
        runs,
        baselines,
        control: Vec::new(),
        importance: None,
        inputs: Vec::new(),
        trials: Vec::new(),
    });
    let assessed = begun.elapsed();
    match found.and_then(|found| Ok((report::render(&found)?, found))) {
        Ok((report, found)) => println!(
            "report: {:.2} s ({:.2} s of it the page), {} bars, {} trades, {} draws, {} random portfolios, {} KB of HTML",
            begun.elapsed().as_secs_f64(),
            (begun.elapsed() - assessed).as_secs_f64(),
            found.provenance.bars,
            found.strategies[0].metrics.trades,
            params.draws,
            params.random_portfolios,
            report.html.len() / 1000
        ),
        Err(error) => println!("{error}"),
    }
}
