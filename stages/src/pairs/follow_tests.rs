use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::encode::Encode;
use crate::featurize::Featurize;
use crate::testing::{self, Ran};

const START: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

struct Inputs {
    #[allow(dead_code)]
    dir: tempfile::TempDir,
    events: PathBuf,
    features: PathBuf,
    prompts: PathBuf,
}

/// Orders that are recorded one by one cross each other for a moment.
fn faults(source: &Value) -> Value {
    json!({ "max_crossed": if source.get("orders").is_some() { 10_000 } else { 0 } })
}

/// Features and prompts of events, one a bar of `every`.
fn inputs(events: PathBuf, source: &Value, every: &str) -> Inputs {
    let dir = tempfile::tempdir().unwrap();
    let with = json!({
        "source": source,
        "quality": faults(source),
        "sampling": { "clock": { "every": every }, "warm_up": "2s", "max_idle": "600s" },
        "features": ["spread_bps", "imbalance"],
        "splits": { "train_fraction": 0.8 },
    });
    let ran = testing::run::<Featurize>(with, &[("events", &events)]).unwrap();
    let features = dir.path().join("features.csv");
    fs_err::copy(&ran.outputs["features"], &features).unwrap();
    let with = json!({ "bar": "second", "decimals": 3 });
    let ran = testing::run::<Encode>(with, &[("features", &features)]).unwrap();
    let prompts = dir.path().join("prompts.jsonl");
    fs_err::copy(&ran.outputs["prompts"], &prompts).unwrap();
    Inputs { dir, events, features, prompts }
}

fn run(with: Value, of: &Inputs) -> Result<Ran> {
    let ports: [(&str, &Path); 3] =
        [("prompts", &of.prompts), ("features", &of.features), ("events", &of.events)];
    testing::run::<Pairs>(with, &ports)
}

fn exponential(rng: &mut ChaCha8Rng, rate: f64) -> f64 {
    -(1.0 - rng.random::<f64>()).ln() / rate
}

/// Stream lines of quotes around 10,000 and of trades: takers come on each side at `rate` a second,
/// and reach exponentially deep, so that a fresh level at d basis points is traded at `rate e^(-k d)`.
fn stream(dir: &Path, seconds: i64, rate: f64, k: f64) -> PathBuf {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut events: Vec<(i64, String)> = Vec::new();
    let mut sizes = ChaCha8Rng::seed_from_u64(12);
    let mut quote = |at: i64, mid: f64| {
        let (bid, ask, size) = (mid - 0.5, mid + 0.5, 1.0 + sizes.random::<f64>());
        format!(
            r#"{{"stream":"x@bookTicker","data":{{"u":{at},"s":"X","b":"{bid:.2}","B":"{size:.6}","a":"{ask:.2}","A":"4"}}}}"#
        )
    };
    for second in 0..=seconds {
        let mid = 10_000.0 + f64::from(u8::from(rng.random::<bool>())) / 50.0;
        events.push((START + second * SECOND + 1, quote(second + 1, mid)));
    }
    let mut trades = Vec::new();
    for bought in [false, true] {
        let mut time = 0.0;
        loop {
            time += exponential(&mut rng, rate);
            if time > seconds as f64 {
                break;
            }
            let deep = exponential(&mut rng, k);
            let sign = if bought { 1.0 } else { -1.0 };
            let price = 10_000.01 * (1.0 + sign * deep / 1e4);
            trades.push((START + (time * 1e9) as i64, price, bought));
        }
    }
    trades.sort_by_key(|trade| trade.0);
    for (id, (time, price, bought)) in trades.into_iter().enumerate() {
        let maker = !bought;
        events.push((time, format!(
            r#"{{"stream":"x@trade","data":{{"e":"trade","E":1,"s":"X","t":{id},"p":"{price:.2}","q":"0.5","T":1,"m":{maker},"M":true}}}}"#
        )));
    }
    events.sort_by_key(|event| event.0);
    let mut text = String::new();
    for (time, message) in events {
        writeln!(text, "{time} {message}").unwrap();
    }
    let path = dir.join("x_1.txt");
    fs_err::write(&path, text).unwrap();
    path
}

#[test]
fn queues_give_back_the_intensity_of_trades() {
    let dir = tempfile::tempdir().unwrap();
    let (rate, k) = (0.2, 0.04);
    let path = stream(dir.path(), 6000, rate, k);
    let inputs = inputs(path, &json!({ "binance": {} }), "1s");
    let with = |queue: Value| {
        json!({
            "fills": "queue", "queue": queue, "source": { "binance": {} },
            "offsets_bps": [5, 10, 25, 50], "min_gap_bps": 0.01, "reward": { "fill_distance": "bps" }
        })
    };
    let ran = run(with(json!("log")), &inputs).unwrap();
    let m = &ran.metrics;
    assert!(m["fill_orders"] > 30_000.0 && m["fill_fills"] > 2000.0, "{m:?}");
    // A trade fills all four orders of its side that it reaches: the errors are of as many orders as
    // there are trades, at the widest.
    let wide = 2.0 * 2.0;
    assert!((m["fill_a"] - rate).abs() < wide * m["fill_a_error"], "{m:?}");
    assert!((m["fill_k"] - k).abs() < wide * m["fill_k_error"], "{m:?}");
    assert!(m["fill_k_error"] < 0.1 * k);
    assert_eq!(m["fill_orders_lost"], 0.0);

    assert!(ran.warnings.iter().all(|warning| !warning.contains("k = ")), "{:?}", ran.warnings);
    // In volatilities of a price that hardly moves, distance says next to nothing here.
    let mut still = with(json!("log"));
    still["reward"] = json!({ "fill_distance": "sigma", "sigma_window": 2 });
    let still = run(still, &inputs).unwrap();
    let told =
        still.warnings.iter().any(|w| w.starts_with("fills do not fall with distance (k = "));
    assert_eq!(told, still.metrics["fill_k"] <= 0.0);

    // Bars of the same trades see the same fills, to a bar.
    let mut bars = with(json!("log"));
    (bars["fills"], bars["source"]) = (json!("bars"), json!({ "bars": {} }));
    let bars = run(bars, &inputs).unwrap();
    assert!((bars.metrics["fill_k"] / m["fill_k"] - 1.0).abs() < 0.1, "{:?}", bars.metrics);
    assert!((bars.metrics["fill_a"] / m["fill_a"] - 1.0).abs() < 0.15, "{:?}", bars.metrics);

    // What the test span holds does not matter.
    let text = fs_err::read_to_string(&inputs.events).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let short = dir.path().join("short.txt");
    fs_err::write(&short, lines[..lines.len() * 9 / 10].join("\n")).unwrap();
    let other = Inputs { events: short, dir: tempfile::tempdir().unwrap(), ..inputs };
    assert_eq!(run(with(json!("log")), &other).unwrap().text("reward"), ran.text("reward"));
    // And other events than those of the features are noticed.
    let moved = text.replace("9999.5", "9989.5");
    fs_err::write(&other.events, moved).unwrap();
    let error = run(with(json!("log")), &other).err().unwrap().to_string();
    assert!(error.contains("the mid at ") && error.contains("the features have "), "{error}");
}

/// Orders of a known intensity, as Bitstamp's collectors write them. The quotes are orders as well.
fn placed(dir: &Path, seconds: f64, truth: fill::FillModel) -> PathBuf {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut rows: Vec<(i64, String)> = Vec::new();
    let at = |seconds: f64| START + (seconds * 1e9) as i64;
    let mut id = 0;
    let mut order = |rng: &mut ChaCha8Rng, from: f64, bid: bool, away: f64, patience: f64| {
        id += 1;
        let sign = if bid { -1.0 } else { 1.0 };
        let price = 10_000.0 * (1.0 + sign * away / 1e4);
        let filled = exponential(rng, truth.intensity(away));
        let until = from + filled.min(patience);
        let side = if bid { "bid" } else { "ask" };
        let left = if filled < patience { 0 } else { 200_000_000 };
        rows.push((at(from), format!("{id},{price:.4},200000000,created,{side}")));
        rows.push((at(until), format!("{id},{price:.4},{left},deleted,{side}")));
        until
    };
    for bid in [true, false] {
        // The best quote: a new one as soon as the last is gone.
        let mut from = 0.0;
        while from < seconds {
            let away = 1.0 + rng.random::<f64>() / 2.0;
            // Comes just before, so that the mid is one of quotes.
            from = (order(&mut rng, from, bid, away, 40.0) - 1e-3).max(from + 1e-6);
        }
        let mut from = 1.0;
        while from < seconds {
            from += exponential(&mut rng, 2.0);
            let away = 2.0 + 40.0 * rng.random::<f64>();
            let patience = exponential(&mut rng, 0.2);
            order(&mut rng, from, bid, away, patience);
        }
    }
    rows.sort();
    let mut text = String::from("timestamp,id,price,volume,action,direction\n");
    rows.iter().for_each(|(time, row)| writeln!(text, "{time},{row}").unwrap());
    let path = dir.join("orders.csv");
    fs_err::write(&path, text).unwrap();
    path
}

#[test]
fn lives_of_orders_give_back_their_intensity() {
    let dir = tempfile::tempdir().unwrap();
    let truth = fill::FillModel { a: 0.25, k: 0.05 };
    let path = placed(dir.path(), 3000.0, truth);
    let source = json!({ "orders": {} });
    let inputs = inputs(path, &source, "1s");
    let with = |horizon: usize| {
        json!({
            "fills": "orders", "source": source, "offsets_bps": [2, 5, 10],
            "min_gap_bps": 0.01, "reward": { "fill_distance": "bps", "horizon_bars": horizon }
        })
    };
    for horizon in [1, 5] {
        let ran = run(with(horizon), &inputs).unwrap();
        let m = &ran.metrics;
        assert!(m["fill_orders"] > 5000.0 && m["fill_fills"] > 300.0, "{m:?}");
        assert!((m["fill_a"] - truth.a).abs() < 2.0 * m["fill_a_error"], "{m:?}");
        assert!((m["fill_k"] - truth.k).abs() < 2.0 * m["fill_k_error"], "{m:?}");
        assert!(m["fill_a_error"] < 0.1 * truth.a && m["fill_k_error"] < 0.15 * truth.k, "{m:?}");
    }
    // The same files as a book: imagined orders see real trades.
    let mut with = with(1);
    with["fills"] = json!("queue");
    let ran = run(with, &inputs).unwrap();
    assert!(ran.metrics["fill_fills"] > 100.0, "{:?}", ran.metrics);
}

/// Three units rest at 5 basis points below the mid; every second second half a unit trades there, and
/// as much joins behind.
fn queue_of_three(dir: &Path, level_first: bool) -> PathBuf {
    let (mut text, mut u) = (String::new(), 1);
    let mut line = |time: i64, stream: &str, data: String| {
        writeln!(text, r#"{time} {{"stream":"x@{stream}","data":{{{data}}}}}"#).unwrap();
    };
    let bids = r#"["9999.99","1"],["9995.00","3.0"],["9990.00","3.0"]"#;
    let levels = |u: i64, bids: &str, asks: &str| {
        format!(r#""e":"depthUpdate","E":1,"s":"X","U":{u},"u":{u},"b":[{bids}],"a":[{asks}]"#)
    };
    line(START, "depth@100ms", levels(u, bids, r#"["10000.01","1"]"#));
    for second in 1..200 {
        let time = START + second * SECOND;
        // The mid moves by half a tick, which the price of the order rounds away.
        let (old, new) = if second % 2 == 0 { ("02", "01") } else { ("01", "02") };
        let asks = format!(r#"["10000.{old}","0"],["10000.{new}","1"]"#);
        u += 1;
        line(time - 900_000_000, "depth@100ms", levels(u, "", &asks));
        if second % 2 == 0 {
            let mut events = vec![
                (
                    "trade",
                    format!(
                        r#""e":"trade","E":1,"s":"X","t":{},"p":"9995.00","q":"0.5","T":1,"m":true"#,
                        second / 2
                    ),
                ),
                ("depth@100ms", levels(u + 1, r#"["9995.00","2.5"]"#, "")),
                ("depth@100ms", levels(u + 2, r#"["9995.00","3.0"]"#, "")),
            ];
            u += 2;
            if level_first {
                events.swap(0, 1);
            }
            for (at, (stream, data)) in events.into_iter().enumerate() {
                line(time - 500_000_000 + at as i64 * 1000, stream, data);
            }
        }
    }
    let path = dir.join("x_1.txt");
    fs_err::write(&path, text).unwrap();
    path
}

#[test]
fn an_order_waits_for_what_is_ahead_of_it() {
    for level_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = queue_of_three(dir.path(), level_first);
        let inputs = inputs(path, &json!({ "binance": {} }), "1s");
        let extent = table::extent(std::slice::from_ref(&inputs.features)).unwrap();
        let waits = |queue: Value, horizon: usize| {
            let params: Params = serde_json::from_value(json!({
                "fills": "queue", "queue": queue, "source": { "binance": {} }, "offsets_bps": [5, 10],
                "reward": { "fill_distance": "bps", "horizon_bars": horizon }
            }))
            .unwrap();
            let ports: [(&str, &Path); 2] =
                [("features", &inputs.features), ("events", &inputs.events)];
            testing::with(&ports, |ctx| follow::queues(extent, &params, ctx)).unwrap()
        };
        for queue in [json!("trades"), json!("log"), json!({ "power": 2 })] {
            // The seventh trade is the first that takes more than the three units that are ahead. From
            // a second before a trade it is the 13th second, else the 14th.
            let found = waits(queue.clone(), 13);
            let filled: Vec<_> = found.iter().filter(|wait| wait.fills > 0.0).collect();
            assert_eq!(found.len() % 4, 0);
            let rows = found.len() / 4;
            assert!(
                rows > 80 && filled.len().abs_diff(rows / 2) <= 1,
                "{} of {rows}",
                filled.len()
            );
            for wait in &filled {
                assert!((wait.distance - 5.0).abs() < 0.02, "{wait:?}");
                assert!((wait.exposure - 12.5).abs() < 1e-3, "{queue} {level_first} {wait:?}");
            }
            assert!(found.iter().all(|w| w.fills > 0.0 || (w.exposure - 13.0).abs() < 1e-9));
            let found = waits(queue, 14);
            let filled = found.iter().filter(|wait| wait.fills > 0.0).count();
            assert_eq!(filled, found.len() / 4, "all of them");
        }
    }
}

#[test]
fn what_tells_of_no_queue_is_refused() {
    let resolve = crate::Kind::of::<Pairs>().resolve;
    let wrong = [
        (json!({ "fills": "queue" }), "source"),
        (json!({ "fills": "queue", "source": { "quotes": {} } }), "source"),
        (json!({ "fills": "orders", "source": { "binance": {} } }), "source"),
        (json!({ "source": { "binance": {} } }), "source"),
        (
            json!({ "fills": "queue", "source": { "binance": { "contract": -1 } } }),
            "source.contract",
        ),
        (
            json!({ "fills": "queue", "source": { "binance": {} }, "queue": { "power": 0 } }),
            "queue.power",
        ),
    ];
    for (params, path) in wrong {
        assert_eq!(resolve(&params).unwrap_err().path, path);
    }
    let with = json!({ "fills": "queue", "source": { "orders": {} }, "queue": { "power": 2 } });
    let ports = |params: Value| (crate::Kind::of::<Pairs>().inputs)(&params).len();
    assert_eq!(ports(resolve(&with).unwrap()), 4);
    assert_eq!(ports(resolve(&json!({})).unwrap()), 3);
}

/// Ten minutes of real books (QUANTMILL_MIRROR), in queues of every kind. A basis point is hundreds of
/// ticks there, and orders are mostly passed rather than reached in their queue.
#[test]
fn real_books_fill_fewer_orders_in_longer_queues() {
    let Some(mirror) = std::env::var_os("QUANTMILL_MIRROR").map(PathBuf::from) else {
        eprintln!("skipped: QUANTMILL_MIRROR is not set");
        return;
    };
    for name in ["spot_btcusdt", "cm_btcusd_perp"] {
        let dir = tempfile::tempdir().unwrap();
        for day in ["20240808", "20240809"] {
            let file = format!("{name}_{day}.gz");
            fs_err::copy(mirror.join("binance-l2").join(&file), dir.path().join(&file)).unwrap();
        }
        let source = json!({ "binance": {} });
        let inputs = inputs(dir.path().to_owned(), &source, "1s");
        let fills = |queue: Value| {
            let with = json!({
                "fills": "queue", "queue": queue, "source": source, "offsets_bps": [1, 2, 5, 10],
                "min_gap_bps": 0.1, "reward": { "horizon_bars": 10 }
            });
            let ran = run(with, &inputs).unwrap();
            let m = &ran.metrics;
            eprintln!(
                "{name} {queue}: {} orders, {} filled, A {:.3}, k {:.3}, ln L {:.1}, lost {}, queued {}, filled in queue {}",
                m["fill_orders"],
                m["fill_fills"],
                m["fill_a"],
                m["fill_k"],
                m["fill_log_likelihood"],
                m["fill_orders_lost"],
                m["fill_orders_queued"],
                m["fill_fills_in_queue"]
            );
            assert_eq!(m["fill_rows_unplaced"], 0.0);
            assert!(m["fill_k"] > 0.0);
            (m["fill_orders"], m["fill_fills"], m["fill_fills_in_queue"])
        };
        let (orders, fewest, queued) = fills(json!("trades"));
        let all = [fills(json!("log")), fills(json!({ "power": 1 })), fills(json!({ "power": 3 }))];
        for (count, filled, in_queue) in all {
            assert_eq!(count, orders);
            assert!(filled >= fewest && filled < orders);
            assert!(in_queue >= queued && queued > 0.0);
        }
        assert!(fewest > 100.0);
    }
}

/// Five hours of real orders (QUANTMILL_MIRROR): what became of them, beside imagined ones in the queues
/// of the book that they make up.
#[test]
fn real_orders_and_imagined_ones_agree_on_the_decay() {
    let Some(mirror) = std::env::var_os("QUANTMILL_MIRROR").map(PathBuf::from) else {
        eprintln!("skipped: QUANTMILL_MIRROR is not set");
        return;
    };
    let source = json!({ "orders": {} });
    let path = mirror.join("bitstamp-orders/orders.csv.xz");
    let inputs = inputs(path, &source, "10s");
    let found = |fills: &str, queue: Value| {
        let with = json!({
            "fills": fills, "queue": queue, "source": source, "quality": faults(&source),
            "offsets_bps": [5, 10, 25, 50],
            "min_gap_bps": 0.1, "reward": { "horizon_bars": 6, "fill_distance": "bps" }
        });
        let ran = run(with, &inputs).unwrap();
        let m = &ran.metrics;
        eprintln!(
            "orders, {fills} {queue}: {} orders, {} filled, A {:.4} +- {:.4}, k {:.5} +- {:.5}, ln L {:.1}",
            m["fill_orders"],
            m["fill_fills"],
            m["fill_a"],
            m["fill_a_error"],
            m["fill_k"],
            m["fill_k_error"],
            m["fill_log_likelihood"]
        );
        (m["fill_fills"], m["fill_k"])
    };
    let lives = found("orders", json!("trades"));
    let queues = ["trades", "log"].map(|queue| found("queue", json!(queue)));
    assert!(queues[0].0 <= queues[1].0);
    for (fills, k) in [lives, queues[0], queues[1]] {
        assert!(fills > 100.0 && k > 0.0);
    }
}
