//! Files of vendors, by the names that they give their columns.

use serde_json::{Value, json};

use super::super::{Quote, Sample};
use super::{Ran, run};

fn sampled(source: Value, text: &str) -> Ran {
    let sampling = json!({ "clock": { "events": 1 }, "warm_up": "1ns" });
    let ran = run(&source, &[("data.csv", text.as_bytes())], &sampling, &json!({}));
    ran.unwrap_or_else(|error| panic!("{}", super::said(&error)))
}

fn last(source: Value, text: &str) -> Sample {
    sampled(source, text).samples.pop().unwrap()
}

const QUOTE: Quote = Quote { bid: 99.5, bid_size: 3.0, ask: 100.5, ask_size: 4.0 };

#[test]
fn quotes_of_vendors() {
    for text in [
        // Tardis: both clocks, that of receipt counts.
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount
x,BTC,1723161600000000,1723161600100000,1,101,99,1
x,BTC,1723161600000000,1723161600200000,4,100.5,99.5,3
",
        // Binance's archive.
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time
1,99,1,101,1,1723161600000,1723161600100
2,99.5,3,100.5,4,1723161600000,1723161600200
",
        "Time,Bid,Bid_Size,Ask,Ask_Size
2024-08-09 00:00:00.1+00:00,99,1,101,1
2024-08-09 00:00:00.2+00:00,99.5,3,100.5,4
",
    ] {
        let sample = last(json!({ "quotes": {} }), text);
        assert_eq!(sample.quote, Some(QUOTE), "{text}");
        assert_eq!(sample.time, 1_723_161_600_200_000_000, "{text}");
    }
    let text = "t;x\n";
    let source = json!({ "quotes": { "columns": {
        "time": "t", "bid": "x", "bid_size": "xs", "ask": "y", "ask_size": "ys",
    } } });
    let named = "T,X,XS,Y,YS\n1723161600,99.5,3,100.5,4\n1723161601,99.5,3,100.5,4\n";
    assert_eq!(last(source.clone(), named).quote, Some(QUOTE));
    let error = run(&source, &[("q.csv", text.as_bytes())], &json!({}), &json!({})).err().unwrap();
    assert_eq!(
        super::said(&error),
        "q.csv:1: missing column `t`\nname the column in `columns`; columns found: t;x"
    );
}

#[test]
fn trades_of_vendors() {
    for text in [
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount
x,BTC,1723161600000000,1723161600200000,7,sell,100,0.5
",
        "id,price,qty,quote_qty,time,is_buyer_maker
7,100,0.5,50,1723161600200,true
",
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker
7,100,0.5,7,9,1723161600200,True
",
    ] {
        let sample = last(json!({ "trades": {} }), text);
        assert_eq!((sample.close, sample.volume, sample.bought), (100.0, 0.5, Some(0.0)), "{text}");
        assert_eq!(sample.time, 1_723_161_600_200_000_000, "{text}");
    }
}

#[test]
fn changes_of_the_book() {
    // Tardis: a snapshot begins, and another replaces it.
    let text = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount
x,BTC,1723161600000000,1723161600100000,true,bid,99,1
x,BTC,1723161600000000,1723161600100000,true,bid,98,1
x,BTC,1723161600000000,1723161600100000,true,ask,101,1
x,BTC,1723161600000000,1723161600200000,false,bid,99.5,3
x,BTC,1723161600000000,1723161600200000,false,ask,100.5,4
x,BTC,1723161600000000,1723161600300000,false,bid,99.5,0
x,BTC,1723161600000000,1723161600400000,true,bid,90,1
x,BTC,1723161600000000,1723161600400000,true,ask,95,1
";
    let ran = sampled(json!({ "depth": {} }), text);
    let bids: Vec<f64> = ran.samples.iter().map(|sample| sample.quote.unwrap().bid).collect();
    assert_eq!(bids, [99.0, 99.5, 99.0, 90.0]);
    assert_eq!(ran.samples[1].quote, Some(QUOTE));
    assert_eq!((ran.counts.snapshots, ran.counts.updates, ran.counts.levels), (2, 2, 8));
    // Without trades nothing is known of who took.
    assert!(ran.samples.iter().all(|sample| sample.bought.is_none()));
}

#[test]
fn rows_of_numbered_levels() {
    for text in [
        "timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount,asks[1].price,asks[1].amount,bids[1].price,bids[1].amount
1723161600000000,1723161600100000,100.5,4,99.5,3,100.6,1,99.4,1
",
        "time,bid_price_1,bid_size_1,ask_price_1,ask_size_1,bid_price_2,bid_size_2,ask_price_2,ask_size_2
1723161600100,99.5,3,100.5,4,99.4,1,100.6,1
",
        "ts_event,bid_px_00,bid_sz_00,ask_px_00,ask_sz_00,bid_px_01,bid_sz_01,ask_px_01,ask_sz_01
1723161600100000000,99.5,3,100.5,4,99.4,1,100.6,1
",
    ] {
        let sample = last(json!({ "depth": {} }), text);
        assert_eq!(sample.quote, Some(QUOTE), "{text}");
        // 99.5 and 100.5 lie outside of 10 basis points of 100, and are the touch.
        assert_eq!(sample.depth, Some(99.5 * 3.0 + 100.5 * 4.0));
    }
}

#[test]
fn one_symbol_of_several() {
    let text = "time,symbol,bid,bid_size,ask,ask_size
1723161600,A,99.5,3,100.5,4
1723161601,B,9,3,10,4
";
    let sample = last(json!({ "quotes": { "symbol": "a" } }), text);
    assert_eq!(sample.quote, Some(QUOTE));
    let files = [("q.csv", text.as_bytes())];
    let error = run(&json!({ "quotes": {} }), &files, &json!({}), &json!({})).err().unwrap();
    assert_eq!(
        super::said(&error),
        "q.csv:3: `B` beside `A`\nset `symbol` to the one that is wanted"
    );
}
