//! Broken inputs: each with the message that it gets, or with the count of what was repaired.

use serde_json::{Value, json};

use super::{Ran, gzip, made, run, said};

fn error(source: &str, bytes: &[u8]) -> String {
    let ran = run(&json!({ source: {} }), &[("f", bytes)], &quick(), &json!({}));
    said(&ran.err().unwrap_or_else(|| panic!("no error: {}", String::from_utf8_lossy(bytes))))
}

fn quick() -> Value {
    json!({ "clock": { "events": 1 }, "warm_up": "1ns" })
}

fn repaired(source: &str, text: &str, quality: Value) -> Ran {
    let ran = run(&json!({ source: {} }), &[("f", text.as_bytes())], &quick(), &quality);
    ran.unwrap_or_else(|error| panic!("{}", said(&error)))
}

const BARS: &str = "date,open,high,low,close,volume\n";
const QUOTES: &str = "time,bid,bid_size,ask,ask_size\n";
const TRADES: &str = "time,price,size,side,id\n";
const DEPTH: &str = "time,side,price,size,first_update_id,last_update_id\n";
const ORDERS: &str = "id,timestamp,price,volume,action,direction\n";

#[test]
fn every_broken_table_is_told_what_is_wrong_and_where() {
    let bars = |rows: &str| error("bars", format!("{BARS}{rows}").as_bytes());
    let quotes = |rows: &str| error("quotes", format!("{QUOTES}{rows}").as_bytes());
    let trades = |rows: &str| error("trades", format!("{TRADES}{rows}").as_bytes());
    let depth = |rows: &str| error("depth", format!("{DEPTH}{rows}").as_bytes());
    let orders = |rows: &str| error("orders", format!("{ORDERS}{rows}").as_bytes());
    let mut found = String::new();
    for (name, message) in [
        ("empty file", error("bars", b"")),
        ("empty gzip", error("quotes", &gzip(b""))),
        ("header alone", bars("")),
        ("no header", error("bars", b"1723161600,1,2,1,2,5\n")),
        (
            "missing column",
            error("bars", b"date,open,high,low,price,volume\n2024-08-09,1,2,1,2,5\n"),
        ),
        ("misspelt column", error("quotes", b"time,bid,bid_size,ask,ask_siz\n")),
        ("not a date", bars("8/9/2024,1,2,1,2,5\n")),
        ("mixed zones", bars("2024-08-09 10:00,1,2,1,2,5\n2024-08-09T11:00Z,1,2,1,2,5\n")),
        ("mixed epochs", quotes("1723161600,1,1,2,1\n2024-08-09T11:00Z,1,1,2,1\n")),
        ("NaN price", bars("2024-08-09,1,2,1,NaN,5\n")),
        ("infinite price", trades("1723161600,inf,1,buy,1\n")),
        ("empty price", bars("2024-08-09,1,2,1,,5\n")),
        ("zero price", quotes("1723161600,0,1,2,1\n")),
        ("negative price", trades("1723161600,-5,1,buy,1\n")),
        ("negative volume", bars("2024-08-09,1,2,1,2,-5\n")),
        ("negative size", depth("1723161600,bid,1,-1,1,1\n")),
        ("trade of nothing", trades("1723161600,5,0,buy,1\n")),
        ("thousands", bars("2024-08-09,1,2,1,2,\"5,000\"\n")),
        ("high below low", bars("2024-08-09,1,1,2,1,5\n")),
        ("cells too few", bars("2024-08-09,1,2,1,2\n")),
        ("unsorted bars", bars("2024-08-09,1,2,1,2,5\n2024-08-08,1,2,1,2,5\n")),
        ("bar twice", bars("2024-08-09,1,2,1,2,5\n2024-08-09,1,2,1,2,5\n")),
        ("unsorted quotes", quotes("1723161601,1,1,2,1\n1723161600,1,1,2,1\n")),
        ("crossed quote", quotes("1723161600,3,1,2,1\n")),
        ("no side", trades("1723161600,5,1,up,1\n")),
        ("trade twice", trades("1723161600,5,1,buy,1\n1723161600,5,1,buy,1\n")),
        ("no side of a book", depth("1723161600,middle,1,1,1,1\n")),
        ("gap", depth("1723161600,bid,1,1,1,1\n1723161601,bid,1,2,3,3\n")),
        ("crossed book", depth("1723161600,bid,2,1,1,1\n1723161600,ask,2,1,1,1\n")),
        ("update twice", depth("1723161600,bid,1,1,1,2\n1723161601,bid,1,2,1,2\n")),
        (
            "order twice",
            orders("1,1430438404518,5,5,created,bid\n1,1430438404518,5,5,created,bid\n"),
        ),
        ("no action", orders("1,1430438404518,5,5,moved,bid\n")),
        ("bad UTF-8", error("bars", b"date,open,high,low,close,volume\n2024-08-09,1,2,1,\xff,5\n")),
        ("bad UTF-8 in the header", error("bars", b"d\xffte,open,high,low,close,volume\n")),
    ] {
        found += &format!("{name}: {message}\n\n");
    }
    assert_eq!(found, include_str!("bad_tables.txt"));
}

fn stream(lines: &[&str]) -> String {
    error("binance", lines.join("\n").as_bytes())
}

const TICKER: &str = r#"1723161600000000001 {"u":1,"s":"X","b":"1","B":"1","a":"2","A":"1"}"#;

#[test]
fn every_broken_stream_is_told_what_is_wrong_and_where() {
    let whole = made::spot();
    let packed = gzip(&whole);
    let mut flipped = packed.clone();
    flipped[12..40].fill(0xff);
    let mut lines: Vec<&str> = std::str::from_utf8(&whole).unwrap().lines().collect();
    // An update in the middle of the file.
    let lost = lines.iter().rposition(|line| line.contains("depthUpdate")).unwrap();
    let before = lines[..lost].iter().rposition(|line| line.contains("depthUpdate")).unwrap();
    lines.remove(before);
    let coin = made::coin();
    let mut futures: Vec<&str> = std::str::from_utf8(&coin).unwrap().lines().collect();
    let lost = futures.iter().rposition(|line| line.contains("depthUpdate")).unwrap();
    let before = futures[..lost].iter().rposition(|line| line.contains("depthUpdate")).unwrap();
    futures.remove(before);
    let mut found = String::new();
    for (name, message) in [
        ("empty file", error("binance", b"")),
        ("truncated gzip", error("binance", &packed[..packed.len() - 2000])),
        ("damaged gzip", error("binance", &flipped)),
        ("no time", stream(&[r#"{"u":1}"#])),
        ("time in seconds", stream(&[r#"1723161600 {"u":1}"#])),
        ("not JSON", stream(&[TICKER, r#"1723161600000000002 {"u":1,}"#])),
        ("line cut off", stream(&[r#"1723161600000000001 {"u":1,"b":[["1","2"#])),
        ("more than JSON", stream(&[&format!("{TICKER}}}")])),
        ("wrong fields", stream(&[r#"1723161600000000001 {"e":"depthUpdate","u":1,"b":[]}"#])),
        ("NaN price", stream(&[r#"1723161600000000001 {"e":"trade","p":"NaN","q":"1"}"#])),
        ("price is text", stream(&[r#"1723161600000000001 {"b":[["x","1"]],"a":[],"u":1}"#])),
        ("zero price", stream(&[r#"1723161600000000001 {"b":[["0.00","1"]],"a":[],"u":1}"#])),
        ("negative size", stream(&[r#"1723161600000000001 {"b":[["1","-1"]],"a":[],"u":1}"#])),
        (
            "negative bid",
            stream(&[r#"1723161600000000001 {"u":1,"b":"-1","B":"1","a":"2","A":"1"}"#]),
        ),
        ("bad UTF-8", error("binance", b"1723161600000000001 {\"s\":\"\xff\"}")),
        (
            "unsorted",
            stream(&[
                TICKER,
                r#"1723161600000000000 {"u":2,"s":"X","b":"1","B":"1","a":"2","A":"1"}"#,
            ]),
        ),
        (
            "two symbols",
            stream(&[
                TICKER,
                r#"1723161600000000002 {"u":2,"s":"Y","b":"1","B":"1","a":"2","A":"1"}"#,
            ]),
        ),
        ("quote twice", stream(&[TICKER, TICKER])),
        (
            "crossed quote",
            stream(&[r#"1723161600000000001 {"u":2,"b":"2","B":"1","a":"1","A":"1"}"#]),
        ),
        ("spot gap", stream(&lines)),
        ("futures gap", stream(&futures)),
        (
            "trade gap",
            stream(&[
                r#"1723161600000000001 {"e":"trade","t":1,"p":"1","q":"1"}"#,
                r#"1723161600000000001 {"e":"trade","t":5,"p":"1","q":"1"}"#,
            ]),
        ),
        (
            "trade twice",
            stream(&[
                r#"1723161600000000001 {"e":"trade","t":5,"p":"1","q":"1"}"#,
                r#"1723161600000000001 {"e":"trade","t":5,"p":"1","q":"1"}"#,
            ]),
        ),
    ] {
        found += &format!("{name}: {message}\n\n");
    }
    assert_eq!(found, include_str!("bad_streams.txt"));
}

#[test]
fn what_may_pass_is_repaired_and_counted() {
    let ran = repaired(
        "bars",
        &format!(
            "{BARS}2024-08-09,1,2,1,2,5\n2024-08-08,1,2,1,2,5\n2024-08-09,1,2,1,9,5\n2024-08-10,1,2,1,NaN,5\n2024-08-11,1\nx,1,2,1,2,5\n2024-08-12,1,3,1,3,5\n"
        ),
        json!({ "max_out_of_order": 1, "max_duplicates": 1, "max_bad_values": 1, "max_malformed": 2 }),
    );
    let closes: Vec<f64> = ran.samples.iter().map(|sample| sample.close).collect();
    assert_eq!(closes, [2.0, 3.0]);
    let counts = &ran.counts;
    assert_eq!((counts.lines, counts.out_of_order, counts.duplicates), (7, 1, 1));
    assert_eq!((counts.bad_values, counts.malformed), (1, 2));

    // A time that steps back is raised: what was known later is known later.
    let ran = repaired(
        "quotes",
        &format!(
            "{QUOTES}1723161601,1,1,2,1\n1723161600,1,1,3,1\n1723161602,3,1,2,1\n1723161603,1,1,4,1\n"
        ),
        json!({ "max_out_of_order": 1, "max_crossed": 1 }),
    );
    let times: Vec<i64> = ran.samples.iter().map(|sample| sample.time / 1_000_000_000).collect();
    let closes: Vec<f64> = ran.samples.iter().map(|sample| sample.close).collect();
    assert_eq!((ran.counts.out_of_order, ran.counts.crossed), (1, 1));
    assert_eq!(
        (times, closes),
        (vec![1_723_161_601, 1_723_161_602, 1_723_161_603], vec![2.0, 2.0, 2.5])
    );

    let ran = repaired(
        "trades",
        &format!(
            "{TRADES}1723161600,5,1,buy,1\n1723161600,5,1,buy,1\n1723161601,0,1,buy,2\n1723161602,6,1,?,3\n1723161603,7,1,sell,4\n"
        ),
        json!({ "max_duplicates": 1, "max_bad_values": 1, "max_malformed": 1 }),
    );
    let closes: Vec<f64> = ran.samples.iter().map(|sample| sample.close).collect();
    assert_eq!(closes, [5.0, 7.0]);

    let lines = [
        TICKER,
        "what is this",
        r#"1723161600000000002 {"e":"trade","t":1,"p":"1","q":"1"}"#,
        r#"1723161600000000003 {"e":"trade","t":1,"p":"1","q":"1"}"#,
        r#"1723161600000000004 {"e":"trade","t":4,"p":"1","q":"1"}"#,
        r#"1723161600000000005 {"e":"trade","t":5,"p":"-1","q":"1"}"#,
        r#"1723161600000000006 {"e":"kline","t":5}"#,
    ];
    let quality = json!({
        "max_malformed": 1, "max_duplicates": 1, "max_trade_gaps": 1, "max_bad_values": 1,
    });
    let ran = repaired("binance", &lines.join("\n"), quality);
    let counts = &ran.counts;
    assert_eq!((counts.lines, counts.malformed, counts.duplicates), (7, 1, 1));
    assert_eq!((counts.trade_gaps, counts.bad_values, counts.other), (1, 1, 1));
    assert_eq!((counts.trades, counts.quotes), (2, 1));
}

#[test]
fn past_what_may_pass_it_says_how_many_there_were() {
    let text = format!("{QUOTES}1723161600,3,1,2,1\n1723161600,3,1,2,1\n1723161600,3,1,2,1\n");
    let quality = json!({ "max_crossed": 2 });
    let ran = run(&json!({ "quotes": {} }), &[("f", text.as_bytes())], &quick(), &quality);
    assert_eq!(
        said(&ran.err().unwrap()),
        "f:4: the quote is crossed: bid 3, ask 2 (fault 3 of its kind; max_crossed is 2)\ncheck \
         that bid and ask are not swapped; or set `quality: { max_crossed: N }`, which builds the book anew after \
         each, and leaves such quotes out"
    );
}

#[test]
fn a_lost_update_that_may_pass_begins_the_book_anew() {
    let whole = made::coin();
    let mut lines: Vec<&str> = std::str::from_utf8(&whole).unwrap().lines().collect();
    let depth: Vec<usize> =
        (0..lines.len()).filter(|at| lines[*at].contains("depthUpdate")).collect();
    lines.remove(depth[depth.len() / 2]);
    let text = lines.join("\n");
    let sampling = json!({ "clock": { "every": "10ms" }, "warm_up": "500ms" });
    let files = [("f", text.as_bytes())];
    let quality = json!({ "max_gaps": 1 });
    let ran = run(&json!({ "binance": {} }), &files, &sampling, &quality).unwrap();
    assert_eq!(ran.counts.gaps, 1);
    let steps: Vec<i64> = ran.samples.windows(2).map(|two| two[1].time - two[0].time).collect();
    // While it is not known there are no samples.
    assert_eq!(steps.iter().filter(|step| **step >= 500_000_000).count(), 1);
}
