//! One clock for several instruments: their bars side by side, by date.
//!
//! A date on which an instrument has no bar holds `NaN`s: nothing is filled in, and nothing can be
//! traded there. One instrument is a panel of one, with a bar at every date.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::backtest::Bar;
use super::input::Table;
use super::queues::Fills;

/// Bars of several instruments.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// Names of the instruments; of a single one it may be empty.
    pub assets: Vec<String>,
    /// Dates in order: those of all instruments together.
    pub dates: Vec<String>,
    /// `[dates, assets]`: bars, `NaN` where there is none.
    pub bars: Vec<Bar>,
    /// When limit orders fill that wait in the book, of one instrument whose book is known.
    pub queue: Option<Arc<Fills>>,
}

/// What stands where an instrument has no bar.
const NONE: Bar = Bar { open: f64::NAN, high: f64::NAN, low: f64::NAN, close: f64::NAN };

impl Panel {
    /// Of tables by name.
    pub fn of(tables: &[(String, Table)]) -> Panel {
        let mut dates: Vec<&str> =
            tables.iter().flat_map(|(_, t)| t.dates.iter().map(String::as_str)).collect();
        dates.sort_unstable();
        dates.dedup();
        let width = tables.len();
        let mut bars = vec![NONE; dates.len() * width];
        let place: BTreeMap<&str, usize> = dates.iter().enumerate().map(|(i, d)| (*d, i)).collect();
        for (asset, (_, table)) in tables.iter().enumerate() {
            for (date, bar) in table.dates.iter().zip(&table.bars) {
                if let Some(slot) = place.get(date.as_str()) {
                    bars[slot * width + asset] = *bar;
                }
            }
        }
        Panel {
            assets: tables.iter().map(|(name, _)| name.clone()).collect(),
            dates: dates.into_iter().map(String::from).collect(),
            bars,
            queue: None,
        }
    }

    /// Of one instrument without a name.
    pub fn single(table: &Table) -> Panel {
        Panel {
            assets: vec![String::new()],
            dates: table.dates.clone(),
            bars: table.bars.clone(),
            queue: None,
        }
    }

    /// The part between two dates.
    pub fn slice(&self, part: Range<usize>) -> Panel {
        let width = self.width();
        Panel {
            assets: self.assets.clone(),
            dates: self.dates[part.clone()].to_vec(),
            bars: self.bars[part.start * width..part.end * width].to_vec(),
            // Fills go by the number of the bar.
            queue: self.queue.clone().filter(|_| part.start == 0),
        }
    }

    /// How many instruments there are.
    pub fn width(&self) -> usize {
        self.assets.len()
    }

    /// How many dates there are.
    pub fn len(&self) -> usize {
        self.dates.len()
    }

    /// Whether there is no date.
    pub fn is_empty(&self) -> bool {
        self.dates.is_empty()
    }

    /// The bars of a date, one an instrument.
    pub fn row(&self, at: usize) -> &[Bar] {
        let width = self.width();
        &self.bars[at * width..(at + 1) * width]
    }

    /// Closes of an instrument that are known at a date, from the last back: its own bars only.
    pub fn back(&self, asset: usize, at: usize) -> impl Iterator<Item = f64> {
        (0..=at).rev().map(move |t| self.row(t)[asset].close).filter(|close| !close.is_nan())
    }

    /// Returns of the equally weighted index from date to date, without costs: the mean over the
    /// instruments that have a close at both. An instrument's last close is carried over gaps.
    pub fn index(&self) -> Vec<f64> {
        let width = self.width();
        let mut last = vec![f64::NAN; width];
        let mut returns = Vec::with_capacity(self.len().saturating_sub(1));
        for t in 0..self.len() {
            let (mut sum, mut count) = (0.0, 0usize);
            for (bar, last) in self.row(t).iter().zip(&mut last) {
                if bar.close.is_nan() {
                    count += usize::from(!last.is_nan());
                    continue;
                }
                if !last.is_nan() {
                    sum += bar.close / *last - 1.0;
                    count += 1;
                }
                *last = bar.close;
            }
            if t > 0 {
                returns.push(if count > 0 { sum / count as f64 } else { 0.0 });
            }
        }
        returns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, f64)]) -> Table {
        let bar = |c: f64| Bar { open: c, high: c, low: c, close: c };
        Table {
            dates: rows.iter().map(|r| r.0.to_string()).collect(),
            bars: rows.iter().map(|r| bar(r.1)).collect(),
            ..Table::default()
        }
    }

    #[test]
    fn dates_are_shared_and_gaps_stay() {
        let a = table(&[("2020-01-01", 10.0), ("2020-01-03", 12.0)]);
        let b = table(&[("2020-01-02", 5.0), ("2020-01-03", 4.0), ("2020-01-04", 4.0)]);
        let panel = Panel::of(&[("a".into(), a), ("b".into(), b)]);
        assert_eq!(panel.dates, ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"]);
        assert!(panel.row(1)[0].close.is_nan() && panel.row(1)[1].close == 5.0);
        assert_eq!(panel.back(0, 3).collect::<Vec<_>>(), [12.0, 10.0]);
        // `a` has no bar on the second day, `b` had none before it.
        let index = panel.index();
        assert_eq!(index[0], 0.0);
        assert!((index[1] - (0.2 - 0.2) / 2.0).abs() < 1e-15);
        assert_eq!(index[2], 0.0);
        assert_eq!(panel.slice(1..3).dates, ["2020-01-02", "2020-01-03"]);
    }
}
