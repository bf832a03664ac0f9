//! Cutting the input after `t` leaves every sample up to `t` bit for bit as it is.

use proptest::prelude::*;
use serde_json::json;

use super::{Ran, made, run};

fn sampled(bytes: &[u8], clock: &serde_json::Value) -> Ran {
    let sampling = json!({ "clock": clock, "warm_up": "1s" });
    run(&json!({ "binance": {} }), &[("day", bytes)], &sampling, &json!({})).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn samples_know_nothing_past_their_time(
        cut in 0.0_f64..1.0,
        spot in any::<bool>(),
        clock in prop_oneof![
            Just(json!({ "every": "10ms" })), Just(json!({ "every": "100ms" })),
            Just(json!({ "events": 20 })), Just(json!({ "volume": 0.05 })),
            Just(json!({ "dollars": 500.0 })),
        ],
    ) {
        let whole = if spot { made::spot() } else { made::coin() };
        let lines: Vec<&[u8]> = whole.split_inclusive(|b| *b == b'\n').collect();
        let time = |line: &[u8]| {
            std::str::from_utf8(&line[..19]).unwrap().parse::<i64>().unwrap()
        };
        let mut kept = 1 + (cut * (lines.len() - 1) as f64) as usize;
        // All of what happened at t.
        while kept < lines.len() && time(lines[kept]) == time(lines[kept - 1]) {
            kept += 1;
        }
        let t = time(lines[kept - 1]);
        let full = sampled(&whole, &clock);
        let part = sampled(&lines[..kept].concat(), &clock);
        let text = |samples: &[super::Sample]| -> Vec<String> {
            samples.iter().filter(|s| s.time <= t).map(|s| format!("{s:?}")).collect()
        };
        prop_assert_eq!(text(&full.samples).len() , text(&part.samples).len());
        prop_assert_eq!(text(&full.samples), text(&part.samples));
        prop_assert!(part.samples.iter().all(|s| s.time <= t));
        prop_assert!(full.samples.windows(2).all(|two| two[0].time < two[1].time));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is done to the bytes, there are samples in order or one error, and no panic.
    #[test]
    fn damaged_bytes_are_an_error_or_counted(
        at in 0.0_f64..1.0, byte in any::<u8>(), coin in any::<bool>(), lenient in any::<bool>(),
    ) {
        let mut whole = if coin { made::coin() } else { made::spot() };
        let at = (at * (whole.len() - 1) as f64) as usize;
        whole[at] = byte;
        let most = if lenient { 1000 } else { 0 };
        let quality = json!({
            "max_malformed": most, "max_bad_values": most, "max_out_of_order": most, "max_gaps": most,
            "max_duplicates": most, "max_trade_gaps": most, "max_crossed": most,
        });
        let sampling = json!({ "clock": { "events": 5 }, "warm_up": "100ms" });
        // A time in a far year gives no end of empty intervals with the other clock.
        match run(&json!({ "binance": {} }), &[("day", &whole)], &sampling, &quality) {
            Ok(ran) => {
                prop_assert!(ran.samples.windows(2).all(|two| two[0].time < two[1].time));
                prop_assert!(ran.samples.iter().all(|s| s.close.is_finite() && s.close > 0.0));
            }
            // Another symbol is no fault that may pass.
            Err(error) => prop_assert!(!lenient || error.to_string().contains("beside"), "{error}"),
        }
    }
}

#[test]
fn the_property_has_samples_to_hold_for() {
    for clock in [
        json!({ "every": "10ms" }),
        json!({ "events": 20 }),
        json!({ "volume": 0.05 }),
        json!({ "dollars": 500.0 }),
    ] {
        assert!(sampled(&made::spot(), &clock).samples.len() > 5, "{clock}");
    }
    // No 0.05 coins change hands in the seconds of the other file.
    for clock in [json!({ "every": "10ms" }), json!({ "events": 20 }), json!({ "volume": 0.001 })] {
        assert!(sampled(&made::coin(), &clock).samples.len() > 2, "{clock}");
    }
}
