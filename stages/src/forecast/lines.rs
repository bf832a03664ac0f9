//! `forecasts.csv`: a line for each instrument, row and horizon, and what the lines amount to.
//!
//! Sorted by instrument, time and horizon. Numbers are the shortest that read back the same.

use std::collections::BTreeMap;
use std::io::BufWriter;
use std::path::Path;

use serde::Serialize;

use crate::evaluate::answers::mcc;
use crate::evaluate::quality::{log_loss, pearson};
use crate::{Context, Result, StageError};

/// Whether a forecast is out of fold, or of which span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// Of the training span, by a model that was fitted on other rows.
    Fold,
    /// Of the test span.
    Test,
    /// Of the sealed holdout.
    Holdout,
}

impl Span {
    /// As the file has it.
    pub fn name(self) -> &'static str {
        match self {
            Span::Fold => "fold",
            Span::Test => "test",
            Span::Holdout => "holdout",
        }
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The instrument; empty where there is only one.
    pub asset: String,
    /// The date at whose close it is made.
    pub t0: String,
    /// The date at which the horizon ends; empty at the end of the table.
    pub t1: Option<String>,
    /// Its span.
    pub span: Span,
    /// The number of the fold.
    pub fold: Option<usize>,
    /// Bars ahead.
    pub horizon: usize,
    /// Probability of a fall.
    pub p_down: f32,
    /// Probability of neither.
    pub p_flat: f32,
    /// Probability of a rise.
    pub p_up: f32,
    /// The expected log return over the horizon.
    pub mean: f32,
    /// Its scale: that of a Student t with 5 degrees of freedom.
    pub scale: Option<f32>,
    /// What happened: -1, 0 or 1.
    pub class: Option<i8>,
    /// What happened: the log return.
    #[serde(rename = "return")]
    pub came: Option<f32>,
}

impl Line {
    /// Probabilities of down, flat and up.
    pub fn p(&self) -> [f64; 3] {
        [self.p_down, self.p_flat, self.p_up].map(f64::from)
    }

    /// What happened: 0 down, 1 flat, 2 up.
    pub fn index(&self) -> Option<usize> {
        self.class.and_then(|class| usize::try_from(class + 1).ok())
    }
}

/// Writes the file.
///
/// # Errors
/// It cannot be written.
pub fn write(lines: &[Line], path: &Path) -> Result<()> {
    let out = BufWriter::with_capacity(1 << 18, fs_err::File::create(path)?);
    let failed = |e: csv::Error| StageError::failed(format!("cannot write the forecasts: {e}"));
    let mut writer = csv::Writer::from_writer(out);
    for line in lines {
        writer.serialize(line).map_err(failed)?;
    }
    Ok(writer.flush()?)
}

/// A line of a file as it lies there: what [`Line`] owns, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The instrument.
    pub asset: &'a str,
    /// When it is made.
    pub t0: &'a str,
    /// When its horizon ends; empty where that is not known.
    pub t1: &'a str,
    /// Its span.
    pub span: Span,
    /// The number of the fold.
    pub fold: Option<usize>,
    /// Bars ahead.
    pub horizon: usize,
    /// Probabilities of down, flat and up.
    pub p: [f32; 3],
    /// The expected return.
    pub mean: f32,
    /// Its scale.
    pub scale: Option<f32>,
    /// What happened.
    pub class: Option<i8>,
    /// What happened: the log return.
    pub came: Option<f32>,
}

impl Seen<'_> {
    /// The line, owned.
    pub fn line(&self) -> Line {
        let [p_down, p_flat, p_up] = self.p;
        Line {
            asset: self.asset.into(),
            t0: self.t0.into(),
            t1: (!self.t1.is_empty()).then(|| self.t1.into()),
            span: self.span,
            fold: self.fold,
            horizon: self.horizon,
            p_down,
            p_flat,
            p_up,
            mean: self.mean,
            scale: self.scale,
            class: self.class,
            came: self.came,
        }
    }
}

/// The columns, in the order of [`write`].
const COLUMNS: [&str; 13] = [
    "asset", "t0", "t1", "span", "fold", "horizon", "p_down", "p_flat", "p_up", "mean", "scale",
    "class", "return",
];

/// Gives each line of a file to `take`, without keeping it.
///
/// # Errors
/// The file cannot be read, has no line, or a line is no forecast; what `take` says.
pub fn each(path: &Path, mut take: impl FnMut(Seen) -> Result<()>) -> Result<()> {
    const HINT: &str = "feed the output `forecasts` of a `forecast` stage";
    let bad = |line: u64, why: String| StageError::bad(path, why).at(line).hint(HINT);
    let unread = |e: csv::Error| bad(e.position().map_or(1, csv::Position::line), e.to_string());
    let file = std::io::BufReader::with_capacity(1 << 18, fs_err::File::open(path)?);
    let mut reader = csv::Reader::from_reader(file);
    let head = reader.headers().map_err(unread)?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let found = head.iter().position(|column| column == name);
        *place = found.ok_or_else(|| bad(1, format!("missing column `{name}`")))?;
    }
    let (mut record, mut any) = (csv::StringRecord::new(), false);
    while reader.read_record(&mut record).map_err(unread)? {
        let cells = places.map(|at| record.get(at).unwrap_or_default());
        let seen = seen(&cells).map_err(|(at, why)| {
            let line = record.position().map_or(0, csv::Position::line);
            bad(line, format!("{} {why}: `{}`", COLUMNS[at], cells[at]))
        })?;
        take(seen)?;
        any = true;
    }
    match any {
        true => Ok(()),
        false => Err(StageError::bad(path, "the file has no forecasts")),
    }
}

/// What the cells of a line say, or which of them is wrong and how.
fn seen<'a>(
    cells: &[&'a str; COLUMNS.len()],
) -> std::result::Result<Seen<'a>, (usize, &'static str)> {
    fn read<T: std::str::FromStr>(cell: &str) -> Option<T> {
        cell.parse().ok()
    }
    fn perhaps<T: std::str::FromStr>(cell: &str) -> Option<Option<T>> {
        if cell.is_empty() { Some(None) } else { read(cell).map(Some) }
    }
    const NUMBER: &str = "is not a number";
    let number = |at: usize| read::<f32>(cells[at]).filter(|x| x.is_finite()).ok_or((at, NUMBER));
    let maybe = |at: usize| match cells[at] {
        "" => Ok(None),
        _ => number(at).map(Some),
    };
    let share = |at: usize| match number(at)? {
        // A rounding above 1 is none the less one.
        p if (0.0..=1.0 + 1e-6).contains(&p) => Ok(p),
        _ => Err((at, "is no probability")),
    };
    let span = match cells[3] {
        "fold" => Span::Fold,
        "test" => Span::Test,
        "holdout" => Span::Holdout,
        _ => return Err((3, "is none of fold, test, holdout")),
    };
    let class = perhaps::<i8>(cells[11]).ok_or((11, NUMBER))?;
    if class.is_some_and(|class| !(-1..=1).contains(&class)) {
        return Err((11, "is none of -1, 0, 1"));
    }
    Ok(Seen {
        asset: cells[0],
        t0: cells[1],
        t1: cells[2],
        span,
        fold: perhaps(cells[4]).ok_or((4, NUMBER))?,
        horizon: read(cells[5]).ok_or((5, NUMBER))?,
        p: [share(6)?, share(7)?, share(8)?],
        mean: number(9)?,
        scale: maybe(10)?,
        class,
        came: maybe(12)?,
    })
}

/// Reads a file.
///
/// # Errors
/// As [`each`].
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    each(path, |seen| {
        lines.push(seen.line());
        Ok(())
    })?;
    Ok(lines)
}

/// What the lines of one span and horizon amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Lines whose class is known.
    pub count: usize,
    /// Share of them whose most probable class came.
    pub accuracy: f64,
    /// Matthews' correlation for several classes (Gorodkin 2004); 0 where it is not defined.
    pub mcc: f64,
    /// Mean of -ln p of what came.
    pub log_loss: f64,
    /// Correlation of the expected return with what came, pooled; `None` where one does not vary.
    pub ic: Option<f64>,
}

/// Scores lines.
pub fn score<'a>(lines: impl Iterator<Item = &'a Line>) -> Score {
    let mut table = vec![vec![0usize; 3]; 3];
    let (mut loss, mut right) = (Vec::new(), 0);
    let (mut expected, mut real) = (Vec::new(), Vec::new());
    for line in lines {
        let (Some(class), Some(came)) = (line.index(), line.came) else { continue };
        let p = line.p();
        // Of equal ones the first.
        let guess = (0..3).fold(0, |best, class| if p[class] > p[best] { class } else { best });
        table[class][guess] += 1;
        right += usize::from(class == guess);
        loss.push(p[class]);
        expected.push(f64::from(line.mean));
        real.push(f64::from(came));
    }
    let count = real.len();
    if count == 0 {
        return Score::default();
    }
    Score {
        count,
        accuracy: right as f64 / count as f64,
        mcc: mcc(&table).unwrap_or(0.0),
        log_loss: log_loss(loss.into_iter()).unwrap_or(0.0),
        ic: pearson(&expected, &real),
    }
}

/// Keeps the scores of each span and horizon with the run: `test_mcc_5` and so on.
pub fn tell(lines: &[Line], ctx: &Context) {
    let mut parts: BTreeMap<(Span, usize), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        parts.entry((line.span, line.horizon)).or_default().push(line);
    }
    for ((span, horizon), lines) in parts {
        let score = score(lines.into_iter());
        let name = |what: &str| format!("{}_{what}_{horizon}", span.name());
        ctx.metric(&name("rows"), score.count as f64);
        if score.count > 0 {
            ctx.metric(&name("accuracy"), score.accuracy);
            ctx.metric(&name("mcc"), score.mcc);
            ctx.metric(&name("log_loss"), score.log_loss);
        }
        if let Some(ic) = score.ic {
            ctx.metric(&name("ic"), ic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(p: [f32; 3], mean: f32, class: i8) -> Line {
        Line {
            asset: String::new(),
            t0: "2020-01-01".into(),
            t1: None,
            span: Span::Test,
            fold: None,
            horizon: 1,
            p_down: p[0],
            p_flat: p[1],
            p_up: p[2],
            mean,
            scale: None,
            class: Some(class),
            came: Some(f32::from(class) * 0.01),
        }
    }

    /// scikit-learn 1.9: `matthews_corrcoef` and `log_loss`; numpy's `corrcoef`.
    #[test]
    fn scores_agree_with_the_libraries() {
        let lines = [
            line([0.6, 0.3, 0.1], -0.2, -1),
            line([0.2, 0.5, 0.3], 0.1, 1),
            line([0.1, 0.2, 0.7], 0.4, 1),
            line([0.5, 0.25, 0.25], -0.1, 0),
            line([0.1, 0.8, 0.1], 0.0, 0),
            line([0.3, 0.3, 0.4], 0.2, -1),
        ];
        let score = score(lines.iter());
        assert_eq!((score.count, score.accuracy), (6, 0.5));
        assert!((score.mcc - 0.25).abs() < 1e-12, "{}", score.mcc);
        assert!((score.log_loss - 0.814_147_348).abs() < 1e-7, "{}", score.log_loss);
        assert!((score.ic.unwrap() - 0.517_549_169).abs() < 1e-6, "{:?}", score.ic);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.csv");
        let lines = [line([0.6, 0.3, 0.1], 0.1, -1), line([0.1, 0.2, 0.7], -1e-9, 1)];
        write(&lines, &path).unwrap();
        assert_eq!(read(&path).unwrap(), lines);
        let text = fs_err::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            "asset,t0,t1,span,fold,horizon,p_down,p_flat,p_up,mean,scale,class,return\n"
        ));
        assert!(text.contains("\n,2020-01-01,,test,,1,0.6,0.3,0.1,0.1,,-1,-0.01\n"), "{text}");
        for (from, to, told) in [
            ("test", "tset", "f.csv:2: span is none of fold, test, holdout: `tset`"),
            ("0.7", "1.7", "f.csv:3: p_up is no probability: `1.7`"),
            ("-0.01\n", "x\n", "f.csv:2: return is not a number: `x`"),
            ("p_flat", "p_flut", "f.csv:1: missing column `p_flat`"),
        ] {
            fs_err::write(&path, text.replace(from, to)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.ends_with(told), "{error}");
        }
    }
}
