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

/// The columns of `stats.csv`.
pub fn stats() -> Vec<Vec<f64>> {
    by_column(include_str!("testdata/stats.csv").lines().skip(1))
}

/// Returns of strategies without skill, a series each.
pub fn noise() -> Vec<Vec<f64>> {
    let mut columns = by_column(include_str!("testdata/noise.csv").lines());
    columns.iter_mut().flatten().for_each(|r| *r *= 1e-6);
    columns
}

fn by_column<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<f64>> {
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for line in lines {
        for (at, cell) in line.split(',').enumerate() {
            if columns.len() <= at {
                columns.push(Vec::new());
            }
            columns[at].push(cell.parse().expect("a number"));
        }
    }
    columns
}
