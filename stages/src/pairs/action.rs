//! What a decision can say, and the one grammar that reads and writes it.
//!
//! `buy market`, `sell market`, `buy limit N`, `sell limit N` (N basis points away from the close,
//! passive side) and `flat`. The same words are the completions of preference pairs, what a model
//! is asked to write, and what the reward and the backtest act on. Nothing here guesses: a text
//! that is not exactly one of them is no action, and its reader treats it as flat. Sizes, holding and
//! cancelling are of [`super::decision`], which reads and writes these words too.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The side of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Holds +1 once filled.
    Buy,
    /// Holds -1 once filled.
    Sell,
}

impl Side {
    /// +1 for a buy, -1 for a sell.
    pub fn sign(self) -> f64 {
        match self {
            Side::Buy => 1.0,
            Side::Sell => -1.0,
        }
    }
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }
}

/// A decision at the close of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Crosses the spread at once.
    Market(Side),
    /// Rests this many basis points from the close: below it to buy, above it to sell.
    Limit(Side, u32),
    /// Sends nothing.
    Flat,
}

/// The widest offset of a limit order, in basis points.
pub const MAX_OFFSET_BPS: u32 = 500;

impl Action {
    /// Reads an action. The text without its surrounding white space must be exactly one: lower
    /// case, single spaces, an offset of 1 to [`MAX_OFFSET_BPS`] without sign or leading zero.
    pub fn parse(text: &str) -> Option<Action> {
        let text = text.trim();
        if text == "flat" {
            return Some(Action::Flat);
        }
        let (side, order) = text.split_once(' ')?;
        let side = match side {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            _ => return None,
        };
        if order == "market" {
            return Some(Action::Market(side));
        }
        let digits = order.strip_prefix("limit ")?;
        if !digits.starts_with(|c: char| matches!(c, '1'..='9')) {
            return None;
        }
        let offset: u32 = digits.parse().ok()?;
        (offset <= MAX_OFFSET_BPS).then_some(Action::Limit(side, offset))
    }

    /// The side, where there is one.
    pub fn side(self) -> Option<Side> {
        match self {
            Action::Market(side) | Action::Limit(side, _) => Some(side),
            Action::Flat => None,
        }
    }

    /// Its family: the action without its offset, such as `buy limit`.
    pub fn family(self) -> &'static str {
        match self {
            Action::Market(Side::Buy) => "buy market",
            Action::Market(Side::Sell) => "sell market",
            Action::Limit(Side::Buy, _) => "buy limit",
            Action::Limit(Side::Sell, _) => "sell limit",
            Action::Flat => "flat",
        }
    }
}

/// Every family, in a fixed order.
pub const FAMILIES: [&str; 5] = ["buy market", "sell market", "buy limit", "sell limit", "flat"];

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Limit(_, offset) => write!(f, "{} {offset}", self.family()),
            _ => f.write_str(self.family()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut all = vec![Action::Flat];
        for side in [Side::Buy, Side::Sell] {
            all.push(Action::Market(side));
            all.extend((1..=MAX_OFFSET_BPS).map(|n| Action::Limit(side, n)));
        }
        for action in all {
            assert_eq!(Action::parse(&format!(" {action}\n")), Some(action));
            assert!(FAMILIES.contains(&action.family()));
        }
    }

    #[test]
    fn reads_nothing_else() {
        for text in [
            "",
            "buy",
            "Buy market",
            "buy  market",
            "buy market now",
            "buy limit",
            "buy limit 0",
            "buy limit 501",
            "buy limit 010",
            "buy limit +5",
            "buy limit -5",
            "buy limit 5.0",
            "buy limit 99999999999",
            "sell limit 5 bps",
            "hold",
            "flat flat",
            "buy\nmarket",
        ] {
            assert_eq!(Action::parse(text), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_that_is_read_is_written_back(text in "\\PC{0,20}|(buy|sell) (market|limit [0-9]{1,4})") {
            if let Some(action) = Action::parse(&text) {
                proptest::prop_assert_eq!(action.to_string(), text.trim());
            }
        }
    }
}
