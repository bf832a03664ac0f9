//! The calendar, which is known ahead of time: hour, weekday, and how long the month still is.
//!
//! Times are UTC; `zone` adds hours. There are no time zone rules here: where clocks change, the
//! hour is off by one for half the year.

use std::f64::consts::TAU;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Entry, Feature, Need, Settings, Shape, read};
use crate::Invalid;
use crate::market::Sample;
use crate::market::time::{DAY, civil, days};

/// Parameters of the features of the calendar.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// Hours that the local clock is ahead of UTC: -5 in New York's winter.
    pub zone: f64,
}

impl Settings for Clock {
    fn check(&self) -> Result<(), Invalid> {
        if (-14.0..=14.0).contains(&self.zone) {
            return Ok(());
        }
        Err(Invalid::new("zone", "must lie between -14 and 14 hours"))
    }
}

/// What the entries of this file share.
const PLAIN: Entry = Entry {
    name: "",
    aliases: &[],
    suffix: None,
    formula: "",
    unit: "-1 to 1",
    source: "",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Clock>(),
    make: |params, _| clock(read(params)?, |t| (TAU * hours(t) / 24.0).sin()),
    fit: None,
};

/// The hour, as a sine.
pub const HOUR_SIN: Entry = Entry { name: "hour_sin", formula: "sin(2 pi hour / 24)", ..PLAIN };

/// The hour, as a cosine.
pub const HOUR_COS: Entry = Entry {
    name: "hour_cos",
    formula: "cos(2 pi hour / 24)",
    make: |params, _| clock(read(params)?, |t| (TAU * hours(t) / 24.0).cos()),
    ..PLAIN
};

/// The day of the week.
pub const DAY_OF_WEEK: Entry = Entry {
    name: "day_of_week",
    aliases: &["weekday"],
    formula: "0 on Monday to 6 on Sunday",
    unit: "days",
    // 1970-01-01 was a Thursday.
    make: |params, _| clock(read(params)?, |t| (t.div_euclid(DAY) + 3).rem_euclid(7) as f64),
    ..PLAIN
};

/// How long the month still is.
pub const MONTH_END: Entry = Entry {
    name: "minutes_to_month_end",
    aliases: &["month_end"],
    formula: "minutes until the first of the next month, 00:00",
    unit: "minutes",
    make: |params, _| clock(read(params)?, |t| (next_month(t) - t) as f64 / 6e10),
    ..PLAIN
};

struct Of {
    shift: i64,
    of: fn(i64) -> f64,
}

fn clock(p: Clock, of: fn(i64) -> f64) -> Result<Box<dyn Feature>, Invalid> {
    Ok(Box::new(Of { shift: (p.zone * 3_600e9) as i64, of }))
}

impl Feature for Of {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        sample.time.checked_add(self.shift).map(self.of)
    }
}

fn hours(time: i64) -> f64 {
    time.rem_euclid(DAY) as f64 / 3_600e9
}

/// The first of the next month, 00:00, in nanoseconds since 1970.
fn next_month(time: i64) -> i64 {
    let (year, month, _) = civil(time.div_euclid(DAY));
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days(year, month, 1).saturating_mul(DAY)
}
