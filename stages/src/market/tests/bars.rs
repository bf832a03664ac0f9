//! Bars from CSV and Parquet, and what is joined to them.

use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

use super::super::bars::Bars;
use super::super::clock::Sampling;
use super::super::quality::Quality;
use super::super::time::Form;
use super::super::{Sample, Series, Source, open};
use super::{gzip, mirror, run, run_at};

const BARS: &str = "Date,Open,High,Low,Close,Volume
2024-08-07,10,12,9,11,100
2024-08-08,11,13,10,12,200
2024-08-09,12,14,11,13,0
";

#[test]
fn bars_are_samples() {
    let files = [("b.csv", BARS.as_bytes())];
    let ran = run(&json!({ "bars": {} }), &files, &json!({}), &json!({})).unwrap();
    assert_eq!(ran.samples.len(), 3);
    let expected = Sample {
        time: 1_723_075_200_000_000_000,
        open: 11.0,
        high: 13.0,
        low: 10.0,
        close: 12.0,
        volume: 200.0,
        turnover: 2400.0,
        ..Sample::default()
    };
    assert_eq!(ran.samples[1], expected);
    assert_eq!((ran.counts.lines, ran.counts.samples), (3, 3));
}

#[test]
fn files_are_one_series_in_the_order_of_their_names() {
    let (header, rows) = BARS.split_once('\n').unwrap();
    let day = |n: usize| format!("{header}\n{}\n", rows.lines().nth(n).unwrap());
    let (a, b, c) = (day(0), gzip(day(1).as_bytes()), day(2));
    let files =
        [("day-2.csv.gz", &b[..]), ("day-3.csv", c.as_bytes()), ("day-1.csv", a.as_bytes())];
    let ran = run(&json!({ "bars": {} }), &files, &json!({}), &json!({})).unwrap();
    let closes: Vec<f64> = ran.samples.iter().map(|sample| sample.close).collect();
    assert_eq!(closes, [11.0, 12.0, 13.0]);
    // Out of order across files.
    let files = [("day-1.csv", c.as_bytes()), ("day-2.csv", a.as_bytes())];
    let error = run(&json!({ "bars": {} }), &files, &json!({}), &json!({})).err().unwrap();
    assert_eq!(
        error.to_string(),
        "day-2.csv:2: time 2024-08-07 comes after a later one on line 2 of the file before"
    );
}

#[test]
fn columns_by_name_and_rows_by_symbol() {
    let text = "Ticker,Day,o,h,l,Last,v
A,2024-08-07,1,2,1,2,5
B,2024-08-07,3,4,3,4,5
A,2024-08-08,2,3,2,3,5
";
    let source = json!({ "bars": { "columns": { "close": "last" }, "symbol": "A" } });
    let ran = run(&source, &[("b.csv", text.as_bytes())], &json!({}), &json!({})).unwrap();
    let closes: Vec<f64> = ran.samples.iter().map(|sample| sample.close).collect();
    assert_eq!((closes, ran.counts.other), (vec![2.0, 3.0], 1));
    let source: Source =
        serde_json::from_value(json!({ "bars": { "columns": { "clos": "x" } } })).unwrap();
    let invalid = source.check().unwrap_err();
    assert_eq!(invalid.message, "no such column is read: `clos`");
    assert_eq!(
        invalid.help.as_deref(),
        Some("one of time, symbol, open, high, low, close, volume")
    );
}

/// A column of a Parquet file.
enum Column {
    Numbers(Vec<f64>),
    Times(Vec<i64>),
    Texts(Vec<&'static str>),
}

fn parquet(path: &Path, schema: &str, columns: &[Column]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in columns {
        let mut column_writer = group.next_column().unwrap().unwrap();
        match column {
            Column::Numbers(numbers) => {
                let typed = column_writer.typed::<DoubleType>();
                typed.write_batch(numbers, None, None).unwrap();
            }
            Column::Times(times) => {
                let typed = column_writer.typed::<Int64Type>();
                typed.write_batch(times, None, None).unwrap();
            }
            Column::Texts(texts) => {
                let texts: Vec<ByteArray> = texts.iter().map(|text| (*text).into()).collect();
                let typed = column_writer.typed::<ByteArrayType>();
                typed.write_batch(&texts, None, None).unwrap();
            }
        }
        column_writer.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

const NUMBERS: &str = "required double open; required double high; required double low;
    required double close; required double volume;";

fn numbers() -> Vec<Column> {
    let column = |first: f64| Column::Numbers(vec![first, first + 0.5]);
    vec![column(10.0), column(12.0), column(9.0), column(11.1), column(100.0)]
}

#[test]
fn parquet_is_read_as_csv_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bars.parquet");
    let read =
        || run_at(&json!({ "bars": {} }), std::slice::from_ref(&path), &json!({}), &json!({}));
    let mut found = Vec::new();
    for (kind, times) in [
        (
            "int64 date (TIMESTAMP_MILLIS)",
            Column::Times(vec![1_723_075_200_000, 1_723_161_600_000]),
        ),
        (
            "int64 date (TIMESTAMP_MICROS)",
            Column::Times(vec![1_723_075_200_000_000, 1_723_161_600_000_000]),
        ),
        // Nanoseconds have no converted type: what is left is the number.
        (
            "int64 __index_level_0__",
            Column::Times(vec![1_723_075_200_000_000_000, 1_723_161_600_000_000_000]),
        ),
        ("binary date (UTF8)", Column::Texts(vec!["2024-08-08", "2024-08-09"])),
    ] {
        let columns: Vec<Column> = std::iter::once(times).chain(numbers()).collect();
        parquet(&path, &format!("message m {{ required {kind}; {NUMBERS} }}"), &columns);
        found.push(read().unwrap().samples);
    }
    assert!(found.windows(2).all(|two| two[0] == two[1]), "{found:?}");
    let csv = "date,open,high,low,close,volume
2024-08-08,10,12,9,11.1,100
2024-08-09,10.5,12.5,9.5,11.6,100.5
";
    let csv = run(&json!({ "bars": {} }), &[("b.csv", csv.as_bytes())], &json!({}), &json!({}));
    assert_eq!(found[0], csv.unwrap().samples);

    let columns: Vec<Column> = numbers();
    parquet(&path, &format!("message m {{ {NUMBERS} }}"), &columns);
    let error = super::said(&super::relative(read().err().unwrap(), dir.path()));
    assert_eq!(
        error,
        "bars.parquet: missing column `time`\n\
         name the column in `columns`; columns found: open, high, low, close, volume"
    );
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let error = super::said(&super::relative(read().err().unwrap(), dir.path()));
    assert!(error.starts_with("bars.parquet: cannot be read as Parquet: "), "{error}");
}

fn joined(bars: &str, index: &str, peers: &str) -> (Vec<Sample>, Form) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let series = Series {
        files: vec![("b".into(), write("b", bars))],
        index: Some(write("index", index)),
        peers: Some(write("peers", peers)),
    };
    let (sampling, quality) = (Sampling::default(), Quality::default());
    let mut feed = open(&Source::default(), &series, &sampling, &quality).unwrap();
    let (mut samples, mut sample) = (Vec::new(), Sample::default());
    while feed.next(&mut sample).unwrap() {
        samples.push(sample.clone());
    }
    (samples, feed.form())
}

const INDEX: &str = "date,close\n2024-08-07,500\n2024-08-09,510\n";
const PEERS: &str = "Date,AAA,BBB\n2024-08-08,1,\n2024-08-09,2,20\n2024-08-12,,30\n";

#[test]
fn index_and_peers_are_the_last_at_or_before() {
    let (samples, form) = joined(BARS, INDEX, PEERS);
    assert_eq!(form, Form::Date);
    let index: Vec<_> = samples.iter().map(|sample| sample.index).collect();
    assert_eq!(index, [Some(500.0), Some(500.0), Some(510.0)]);
    let peers: Vec<String> = samples.iter().map(|sample| format!("{:?}", sample.peers)).collect();
    assert_eq!(peers, ["[NaN, NaN]", "[1.0, NaN]", "[2.0, 20.0]"]);
}

#[test]
fn the_close_of_a_day_is_not_known_on_that_day() {
    let bars = "time,open,high,low,close,volume
2024-08-09 10:00,1,1,1,1,1
2024-08-09 23:59,1,1,1,1,1
2024-08-10 00:00,1,1,1,1,1
2024-08-13 00:00,1,1,1,1,1
";
    let (samples, form) = joined(bars, INDEX, PEERS);
    assert_eq!(form, Form::Seconds);
    let index: Vec<_> = samples.iter().map(|sample| sample.index).collect();
    assert_eq!(index, [Some(500.0), Some(500.0), Some(510.0), Some(510.0)]);
    // A peer that has no close on a day keeps the one before.
    assert_eq!(samples[3].peers, [2.0, 30.0]);
}

#[test]
fn real_minutes_are_read() {
    let Some(path) = mirror::file(mirror::MINUTES) else { return };
    let ran = run_at(&json!({ "bars": {} }), &[path], &json!({}), &json!({})).unwrap();
    assert_eq!(ran.samples.len(), 45_031);
    assert_eq!(Form::Micros.write(ran.samples[0].time), "2021-12-31T23:01:00.000000Z");
    assert!(ran.counts.faults().iter().all(|(_, count)| *count == 0), "{:?}", ran.counts);
}

/// A table with a column for each instrument is a source of the closes of one.
#[test]
fn closes_alone_are_bars_without_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wide.csv");
    fs_err::write(&path, "Date,AAA,BBB\n2020-01-01,1.5,10\n2020-01-02,1.25,11\n").unwrap();
    let columns = [("close".to_owned(), "BBB".to_owned())].into();
    let params = Bars { columns, closes_only: true, ..Bars::default() };
    params.check().unwrap();
    let source = Source::Bars(params.clone());
    let files = vec![("wide.csv".to_owned(), path)];
    let series = Series { files, ..Series::default() };
    let mut feed = open(&source, &series, &Sampling::default(), &Quality::default()).unwrap();
    let mut sample = Sample::default();
    let mut found = Vec::new();
    while feed.next(&mut sample).unwrap() {
        let Sample { open, high, low, close, volume, .. } = sample;
        found.push([open, high, low, close, volume]);
    }
    assert_eq!(found, [[10.0, 10.0, 10.0, 10.0, 0.0], [11.0, 11.0, 11.0, 11.0, 0.0]]);
    // What is not read may not be named.
    let columns = [("open".to_owned(), "AAA".to_owned())].into();
    assert_eq!(Bars { columns, ..params }.check().unwrap_err().path, "columns");
}

/// An index of two columns needs no name for its close; one of three does.
#[test]
fn a_lone_column_is_the_close_of_an_index() {
    let (samples, _) = joined(BARS, "Date,SP500\n2024-08-07,5\n2024-08-08,6\n", PEERS);
    assert_eq!(
        samples.iter().map(|s| s.index).collect::<Vec<_>>(),
        [Some(5.0), Some(6.0), Some(6.0)]
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index.csv");
    fs_err::write(&path, "Date,SP500,NDX\n2024-08-07,5,7\n").unwrap();
    let error = crate::market::join::Closes::index(&path).err().unwrap();
    assert!(error.to_string().ends_with(":1: missing column `close`"), "{error}");
}
