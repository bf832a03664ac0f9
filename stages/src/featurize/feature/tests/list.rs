//! The `features:` list: what is read, what is refused, and what is said of it.

use serde_json::json;

use super::*;

fn columns(list: Value) -> Result<Vec<Column>, Invalid> {
    let list: Vec<FeatureSpec> = serde_json::from_value(list).unwrap();
    parse(&list)
}

#[test]
fn names_maps_numbers_and_renames_are_read() {
    let list = json!([
        "spread_bps", { "ofi": { "window": 100 } }, { "momentum": { "bars": 5, "as": "m5" } },
        "rsi_14", "rsi_7", { "corr_90": { "as": "c" } }, { "obv": null }, { "macd": { "fast": 6 } },
    ]);
    let found = columns(list.clone()).unwrap();
    let names: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.entry.name)).collect();
    let expected = [
        ("spread_bps", "spread_bps"),
        ("ofi", "order_flow_imbalance"),
        ("m5", "momentum"),
        ("rsi_14", "rsi"),
        ("rsi_7", "rsi"),
        ("c", "corr"),
        ("obv", "obv"),
        ("macd", "macd"),
    ];
    assert_eq!(names, expected);
    assert_eq!(found[1].params, json!({ "window": 100, "volatility": 20 }));
    assert_eq!(found[2].params, json!({ "bars": 5, "window": 20 }));
    assert_eq!(found[4].params, json!({ "bars": 7 }));
    assert_eq!(found[5].params, json!({ "window": 90 }));
    assert_eq!(found[7].params, json!({ "fast": 6, "slow": 26, "signal": 9 }));
    // Written with the defaults filled in, so that they are part of a key; it reads as the same.
    let specs: Vec<FeatureSpec> = serde_json::from_value(list).unwrap();
    let written = serde_json::to_value(&specs).unwrap();
    assert_eq!(written[6], json!("obv"));
    assert_eq!(written[2], json!({ "momentum": { "bars": 5, "window": 20, "as": "m5" } }));
    assert_eq!(written[3], json!({ "rsi": { "bars": 14, "as": "rsi_14" } }));
    let same = columns(written.clone()).unwrap();
    let what = |c: &Column| (c.name.clone(), c.entry.name, c.params.clone());
    assert!(same.iter().map(what).eq(found.iter().map(what)));
    let again: Vec<FeatureSpec> = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), written);
    // Every feature comes back as it was, however it is called.
    for entry in FEATURES {
        for name in entry.aliases.iter().copied().chain([entry.name]) {
            let spec = serde_json::to_value([FeatureSpec::new(name)]).unwrap();
            let (back, plain) = (columns(spec).unwrap(), columns(json!([name])).unwrap());
            assert_eq!(what(&back[0]), what(&plain[0]));
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let lists = "`quantmill stages featurize` lists them";
    let cases = [
        (
            json!(["spread_bps", "spred_bps"]),
            "features[1]",
            "there is no feature `spred_bps`",
            &format!("is `spread_bps` meant? {lists}")[..],
        ),
        (json!(["qqq"]), "features[0]", "there is no feature `qqq`", lists),
        (
            json!(["obv_5"]),
            "features[0]",
            "there is no feature `obv_5`",
            &format!("is `obv` meant? {lists}"),
        ),
        (
            json!(["vpin", "imbalance", { "ofi": { "windw": 100 } }]),
            "features[2].ofi.windw",
            "`order_flow_imbalance` has no parameter `windw`",
            "is `window` meant? it takes volatility, window, as",
        ),
        (
            json!([{ "obv": { "bars": 3 } }]),
            "features[0].obv.bars",
            "`obv` has no parameter `bars`",
            "it takes `as` alone",
        ),
        (
            json!([{ "ofi": { "window": 1 } }]),
            "features[0].ofi.window",
            "must lie between 2 and 100000, and is 1",
            "",
        ),
        (json!(["rsi_1"]), "features[0].rsi_1.bars", "must lie between 2 and 100000, and is 1", ""),
        (
            json!([{ "ofi": { "window": "long" } }]),
            "features[0].ofi.window",
            "invalid type: string \"long\", expected usize",
            "",
        ),
        (
            json!([{ "rsi_14": { "bars": 7 } }]),
            "features[0].rsi_14.bars",
            "`rsi_14` says bars: 14 already",
            "write rsi: { bars: … }",
        ),
        (
            json!(["rsi", { "rsi": { "bars": 7 } }]),
            "features[1].rsi",
            "column `rsi` is `features[0].rsi` already",
            "name one of them anew: `as: rsi_7`",
        ),
        (
            json!(["vpin", "vpin"]),
            "features[1].vpin",
            "column `vpin` is `features[0].vpin` already",
            "name one of them anew: `as: vpin_2`",
        ),
        (
            json!([{ "vpin": { "as": "close" } }]),
            "features[0].vpin.as",
            "the table has a column `close` already",
            "choose another name",
        ),
        (
            json!([{ "vpin": { "as": "a b" } }]),
            "features[0].vpin.as",
            "\"a b\" is not a column name",
            "letters, digits and `_`, a letter first",
        ),
        (
            json!([{ "macd": { "fast": 30 } }]),
            "features[0].macd.fast",
            "must lie below slow: 26",
            "",
        ),
        (
            json!([{ "fracdiff": { "d": 0.05, "threshold": 1e-12 } }]),
            "features[0].fracdiff.threshold",
            "makes a window longer than 100000",
            "raise it; 1e-4 is small already",
        ),
    ];
    for (list, path, message, help) in cases {
        let error = columns(list.clone()).unwrap_err();
        let said = (error.path.as_str(), error.message.as_str(), error.help.as_deref());
        assert_eq!(said, (path, message, Some(help).filter(|h| !h.is_empty())), "{list}");
    }
}

#[test]
fn what_is_no_feature_is_refused() {
    for bad in [json!([5]), json!([{}]), json!([{ "a": {}, "b": {} }]), json!([{ "rsi": 14 }])] {
        let error = serde_json::from_value::<Vec<FeatureSpec>>(bad.clone()).unwrap_err();
        assert!(error.to_string().contains("parameters"), "{bad}: {error}");
    }
}

#[test]
fn a_source_that_lacks_something_is_named() {
    let refused = |name: &str, source: &Source| {
        let column = columns(json!([name])).unwrap().remove(0);
        column.make(1.0, source, &Fits::new()).err().map(|e| (e.path, e.message))
    };
    let said = |path: &str, message: &str| Some((path.to_owned(), message.to_owned()));
    let quotes = Source { volume: false, trades: false, depth: false, ..Source::BOOK };
    assert_eq!(
        refused("microprice_dev_bps", &Source::BARS),
        said(
            "features[0].microprice_dev_bps",
            "`microprice_dev_bps` needs quotes, and the source has none"
        )
    );
    assert_eq!(
        refused("corr_60", &Source::BARS),
        said("features[0].corr_60", "`corr` needs index, and the source has none")
    );
    assert_eq!(
        refused("obv", &quotes),
        said("features[0].obv", "`obv` needs volume, and the source has none")
    );
    assert_eq!(
        refused("p_high_vol", &Source::BARS),
        said("features[0].p_high_vol", "was not fitted")
    );
    assert_eq!(refused("spread_bps", &quotes), None);
}

#[test]
fn each_source_has_its_market_state() {
    let names = |source: &Source| {
        let list = default_features(source);
        let columns = parse(&list).unwrap();
        columns.iter().try_for_each(|c| c.check(source)).unwrap();
        columns.into_iter().map(|c| c.name).collect::<Vec<_>>()
    };
    let (bars, book) = (names(&Source::BARS), names(&Source::BOOK));
    assert_eq!((bars.len(), book.len()), (15, 15));
    assert_eq!((bars[6].as_str(), book[6].as_str()), ("momentum_12_1", "microprice_dev_bps"));
    // Quotes without trades know no volume.
    let quotes = Source { volume: false, trades: false, depth: false, ..Source::BOOK };
    let left = names(&quotes);
    for gone in ["depth", "vwap_dev_bps", "trade_intensity", "kyle_lambda", "vpin"] {
        assert!(!left.iter().any(|name| name == gone), "{gone}");
    }
    assert_eq!(left.len(), 10);
}

#[test]
fn every_mistake_of_a_list_is_told() {
    let list = json!(["spred_bps", "rsi_1", "vpin", { "ofi": { "windw": 5 } }, "vpin", "obv"]);
    let error = columns(list).unwrap_err();
    let told: Vec<&str> =
        std::iter::once(&error).chain(&error.also).map(|e| e.path.as_str()).collect();
    let expected =
        ["features[0]", "features[1].rsi_1.bars", "features[3].ofi.windw", "features[4].vpin"];
    assert_eq!(told, expected);
    assert!(error.also.iter().all(|e| e.also.is_empty()));
}

/// Without `features` the names of the market state are not in the key, and neither are their
/// defaults: where one of them changes, VERSION must rise.
#[test]
fn the_defaults_of_the_market_state_are_those_of_the_version() {
    let mut text = String::new();
    for source in [Source::BARS, Source::BOOK] {
        for column in parse(&default_features(&source)).unwrap() {
            // Sorted, whatever order the maps of a build keep.
            let params = column.params.as_object().unwrap().iter();
            let params: std::collections::BTreeMap<_, _> = params.collect();
            text += &format!("{} {} {params:?}\n", column.name, column.entry.name);
        }
    }
    let digest = quantmill_cache::Digest::of(text.as_bytes()).short();
    let version = <crate::featurize::Featurize as crate::Stage>::VERSION;
    assert_eq!((version, digest.as_str()), (2, "4145a1f3"), "{text}");
}

/// The rows of the table are whole: names that are unique, defaults that hold, words for all of it.
#[test]
fn the_table_is_whole() {
    let mut names = std::collections::BTreeSet::new();
    for entry in FEATURES {
        for name in entry.aliases.iter().copied().chain([entry.name]) {
            assert!(names.insert(name), "{name} twice");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "{name}");
        }
        assert!(!entry.formula.is_empty(), "{}", entry.name);
        assert!(!entry.formula.contains("  "), "{}: {}", entry.name, entry.formula);
        assert!(!entry.needs.is_empty(), "{}", entry.name);
        let defaults = (entry.params.settle)(&Value::Null).unwrap();
        let given = (entry.params.settle)(&defaults).unwrap();
        assert_eq!(defaults, given, "{}", entry.name);
        if let Some(suffix) = entry.suffix {
            assert!(defaults[suffix].is_u64(), "{}", entry.name);
        }
    }
    let listed = serde_json::to_value(listing()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), FEATURES.len());
    assert_eq!(listed[0]["needs"], json!(["ranges"]));
    assert_eq!(listed[0]["params"], json!({ "method": "corwin_schultz", "window": 20 }));
}

/// Editors are told of every name and every parameter.
#[test]
fn the_schema_knows_the_table() {
    let schema = serde_json::to_value(schemars::schema_for!(Vec<FeatureSpec>)).unwrap();
    let text = schema.to_string();
    let feature = &schema["$defs"]["Feature"]["anyOf"];
    let names = feature[0]["enum"].as_array().unwrap();
    for entry in FEATURES {
        assert!(names.contains(&json!(entry.name)), "{}", entry.name);
        let place = &feature[2]["properties"][entry.name]["anyOf"][0]["$ref"];
        let shape = schema.pointer(&place.as_str().unwrap()[1..]).unwrap();
        assert_eq!(shape["additionalProperties"], json!(false), "{}", entry.name);
        for name in entry.defaults().as_object().unwrap().keys() {
            let described = &shape["properties"][name]["description"];
            assert!(described.is_string(), "{}.{name}", entry.name);
        }
        assert!(shape["properties"]["as"].is_object());
    }
    assert!(feature[1]["pattern"].as_str().unwrap().contains("|rsi|"));
    assert!(text.contains("corwin_schultz"));
    assert!(text.len() < 60_000, "{}", text.len());
}
