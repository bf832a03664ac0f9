//! The prompt of one state that comes from outside a table, in the words of `encode`.
//!
//! It goes through the same code as the rows of a table, so that a model is asked as it was taught.
//! The state has to have every feature that the bins have and no other: one that is missing would
//! change the prompt, and one that is not known has no percentile.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::beside::Account;
use super::bins::Bins;
use super::{Due, Params, Teller, failed, words};
use crate::chunk::tokens::{Counter, Tokens};
use crate::featurize::split::Split;
use crate::featurize::table::Row;
use crate::{Result, StageError};

/// A bar and the state of the market at its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The features by name; where they are told one by one, in this order.
    pub features: IndexMap<String, f64>,
    /// The date, for templates that name it.
    pub date: String,
    /// First price.
    pub open: Option<f64>,
    /// Highest price.
    pub high: Option<f64>,
    /// Lowest price.
    pub low: Option<f64>,
    /// Last price.
    pub close: Option<f64>,
    /// Units traded.
    pub volume: Option<f64>,
    /// The bars before this one, the oldest first.
    pub before: Vec<Before>,
    /// The account.
    pub account: Option<Holding>,
    /// News, the oldest first.
    pub news: Vec<String>,
}

/// An earlier bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Its last price.
    pub close: f64,
    /// Its features, where past states are told.
    #[serde(default)]
    pub features: IndexMap<String, f64>,
}

/// An account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Holding {
    /// Units held; below 0 where short.
    pub position: f64,
    /// Profit, basis points.
    pub pnl_bps: f64,
    /// The last decisions, the oldest first.
    pub decisions: Vec<String>,
    /// The order that rests, such as `buy limit 10`; empty where none does.
    pub resting: String,
}

/// The prompt of a state.
///
/// # Errors
/// Its features are not those of the bins, or the template fails.
pub fn tell(params: &Params, bins: &Bins, state: &State) -> Result<String> {
    let missing = bins.percentiles.keys().find(|name| !state.features.contains_key(*name));
    if let Some(name) = missing {
        return Err(StageError::failed(format!("the state lacks the feature `{name}`"))
            .hint("a model must be asked with the features that it was taught"));
    }
    if let Some(name) = state.features.keys().find(|name| !bins.percentiles.contains_key(*name)) {
        let known: Vec<&str> = bins.percentiles.keys().map(String::as_str).collect();
        return Err(StageError::failed(format!("the bins have no feature `{name}`"))
            .hint(format!("they have `{}`", known.join("`, `"))));
    }
    if state.close.is_none() && !state.before.is_empty() {
        return Err(StageError::failed("the state has bars before it, but no `close`")
            .hint("returns are told from one close to the next"));
    }
    let names: Vec<String> = state.features.keys().cloned().collect();
    let row = |close: Option<f64>, features: &IndexMap<String, f64>| Row {
        date: state.date.clone(),
        time: 0,
        open: f64::NAN,
        high: f64::NAN,
        low: f64::NAN,
        close: close.unwrap_or(f64::NAN),
        volume: f64::NAN,
        split: Split::Test,
        features: names.iter().map(|n| features.get(n).copied().unwrap_or(f64::NAN)).collect(),
        quote: None,
        traded: None,
    };
    let mut rows: Vec<Row> = state.before.iter().map(|b| row(Some(b.close), &b.features)).collect();
    rows.push(Row {
        open: state.open.unwrap_or(f64::NAN),
        high: state.high.unwrap_or(f64::NAN),
        low: state.low.unwrap_or(f64::NAN),
        volume: state.volume.unwrap_or(f64::NAN),
        ..row(state.close, &state.features)
    });
    let account = state.account.clone().map(|a| Account {
        position: a.position,
        pnl_bps: a.pnl_bps,
        decisions: a.decisions,
        resting: a.resting,
    });
    let environment = words::parse(params.template()).map_err(|e| failed(&e, &names))?;
    let Some(tokens) = Tokens::built_in(params.encoding) else {
        return Err(StageError::failed("the encoding of `encode` is not built in"));
    };
    let teller = Teller { params, environment: &environment, names: &names, bins };
    let due = Due { at: rows.len() - 1, account, news: state.news.clone() };
    Ok(teller.line(&rows, &due, &mut Counter::new(tokens))?.prompt.prompt)
}
