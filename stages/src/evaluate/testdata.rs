//! The reference series of `testdata/`, and comparison within a tolerance.

/// Returns of a strategy and of the index.
pub fn perf() -> (Vec<f64>, Vec<f64>) {
    columns(include_str!("testdata/perf.csv"))
}

/// Returns, and the rows of one bootstrap draw.
pub fn boot() -> (Vec<f64>, Vec<usize>) {
    let (returns, rows) = columns(include_str!("testdata/boot.csv"));
    (returns, rows.into_iter().map(|r| r as usize).collect())
}

fn columns(text: &str) -> (Vec<f64>, Vec<f64>) {
    let number = |cell: &str| cell.parse::<f64>().expect("a number");
    let row = |line: &str| {
        let (a, b) = line.split_once(',').expect("two columns");
        (number(a), number(b))
    };
    text.lines().skip(1).map(row).unzip()
}

/// Asserts that a number is there and near.
#[track_caller]
pub fn close(got: impl Into<Option<f64>>, want: f64, within: f64) {
    let got = got.into();
    assert!(got.is_some_and(|g| (g - want).abs() <= within), "{got:?} is not {want}");
}
