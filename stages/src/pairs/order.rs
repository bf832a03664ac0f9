//! From a decision to an order that an exchange takes, within limits that no answer of a model can pass.
//!
//! [`Limits::check`] rounds and refuses: a price goes to the tick away from the market (down to buy, up
//! to sell), so that an order that is to rest never crosses the mid; a quantity goes down to the lot.
//! What then lies outside a limit is refused with a reason, never trimmed to it: an answer that asks
//! for too much is wrong, and a smaller order would hide that.
//!
//! Nothing here sends, signs or knows an account. Fees, margin and an exchange's own filters (least
//! notional, number of orders) are the exchange's to check.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::action::Side;
use super::decision::Decision;

/// A tick or a lot: a decimal number as an exchange writes it, such as `0.05`, kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number times 10^`decimals`.
    digits: u64,
    decimals: u32,
}

impl Step {
    /// Reads digits, perhaps with a point among them: above 0, at most 12 decimals.
    pub fn parse(text: &str) -> Option<Step> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(part) || part.len() > 12 {
            return None;
        }
        let digits: u64 = format!("{whole}{part}").parse().ok().filter(|n| *n > 0)?;
        Some(Step { digits, decimals: part.len() as u32 })
    }

    /// `count` of it.
    pub fn times(self, count: u64) -> f64 {
        // Both are exact up to 2^53, and so the quotient is the number next to the decimal one.
        (self.digits * count) as f64 / 10f64.powi(self.decimals as i32)
    }

    /// How many lie in `x`: the most whose sum is not above it. `None` where that is no number, below
    /// 0, or beyond what is exact.
    pub fn below(self, x: f64) -> Option<u64> {
        let guess = (x / self.times(1)).floor();
        if !(guess >= 0.0 && guess * (self.digits as f64) < 9e15) {
            return None;
        }
        let mut count = guess as u64;
        while count > 0 && self.times(count) > x {
            count -= 1;
        }
        while self.times(count + 1) <= x {
            count += 1;
        }
        Some(count)
    }

    /// `count` of it in decimals.
    pub fn write(self, count: u64) -> String {
        let digits = self.digits * count;
        let scale = 10u64.pow(self.decimals);
        match self.decimals {
            0 => digits.to_string(),
            d => format!("{}.{:0width$}", digits / scale, digits % scale, width = d as usize),
        }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.write(1))
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Step, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || serde::de::Error::custom(format!("`{text}` is no step such as `0.01`"));
        Step::parse(&text).ok_or_else(wrong)
    }
}

/// What is traded, and in what steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instrument {
    /// The exchange's symbol.
    pub symbol: String,
    /// The step of prices, as `"0.01"`.
    #[schemars(with = "String")]
    pub tick: Step,
    /// The step of quantities, as `"0.00001"`.
    #[schemars(with = "String")]
    pub lot: Step,
    /// What one unit of size is, in the instrument's quantity.
    pub unit: f64,
}

/// What an order may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest size of one order, units.
    pub max_size: u32,
    /// The farthest from the mid that a limit order may rest, basis points, after rounding.
    pub price_band_bps: f64,
    /// The most that the position may be worth at the mid once the order is filled. An order that only
    /// makes a position smaller is not held to it.
    pub max_notional: f64,
}

/// An instrument and the limits of an account on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Desk {
    /// What is traded.
    pub instrument: Instrument,
    /// What an order may be at most.
    pub limits: Limits,
}

impl Desk {
    /// What would be sent of a decision at this mid by an account that holds so many units: the body of
    /// the order that leads from there to what the decision wants, or `refused: ` and why. Empty where
    /// nothing is sent.
    pub fn sent(&self, decision: Decision, mid: f64, units: f64) -> String {
        let order = towards(decision, units);
        match self.limits.check(&self.instrument, order, mid, units * self.instrument.unit) {
            Ok(Instruction::Send(order)) => order.to_json(),
            Ok(Instruction::Cancel | Instruction::Nothing) => String::new(),
            Err(why) => format!("refused: {why}"),
        }
    }
}

/// The order that leads from a position to the one that a decision wants, in whole units.
fn towards(decision: Decision, held: f64) -> Decision {
    let more = match decision {
        Decision::Market(side, size) | Decision::Limit(side, _, size) => {
            side.sign() * f64::from(size) - held
        }
        Decision::Flat => -held,
        Decision::Hold | Decision::Cancel => return decision,
    };
    let (side, size) = (if more > 0.0 { Side::Buy } else { Side::Sell }, more.abs().round() as u32);
    match decision {
        _ if size == 0 => Decision::Hold,
        Decision::Limit(own, offset, _) if own == side => Decision::Limit(own, offset, size),
        Decision::Limit(..) => Decision::Hold,
        _ => Decision::Market(side, size),
    }
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    /// An order.
    Send(Order),
    /// Every resting order is to be taken back.
    Cancel,
    /// Nothing.
    Nothing,
}

/// An order within limits, rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// The exchange's symbol.
    pub symbol: String,
    /// The side.
    pub side: Side,
    /// The limit, in decimals; `None` of a market order.
    pub price: Option<String>,
    /// The quantity, in decimals.
    pub quantity: String,
}

impl Order {
    /// The body of Binance's `POST order` endpoints. `GTC`: it rests until it is filled or taken back.
    pub fn to_json(&self) -> String {
        let symbol = serde_json::Value::from(self.symbol.as_str());
        let side = if self.side == Side::Buy { "BUY" } else { "SELL" };
        let quantity = &self.quantity;
        match &self.price {
            Some(price) => format!(
                r#"{{"symbol":{symbol},"side":"{side}","type":"LIMIT","timeInForce":"GTC","quantity":"{quantity}","price":"{price}"}}"#
            ),
            None => format!(
                r#"{{"symbol":{symbol},"side":"{side}","type":"MARKET","quantity":"{quantity}"}}"#
            ),
        }
    }
}

/// Why no order is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The mid or the position is no number that one can trade on.
    State,
    /// More units than one order may have.
    Size {
        /// Units asked for.
        size: u32,
        /// Units allowed.
        most: u32,
    },
    /// Less than a lot.
    Small,
    /// The price would be rounded to 0.
    Tick,
    /// The price lies too far from the mid.
    Band {
        /// How far, basis points.
        away_bps: f64,
        /// How far it may.
        most_bps: f64,
    },
    /// The position would be worth too much.
    Notional {
        /// What it would be worth.
        worth: f64,
        /// What it may be worth.
        most: f64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::State => f.write_str("the mid must be above 0 and the position a number"),
            Refusal::Size { size, most } => {
                write!(f, "an order of {size} units is larger than the {most} allowed")
            }
            Refusal::Small => f.write_str("the quantity is less than a lot"),
            Refusal::Tick => f.write_str("the price is less than a tick"),
            Refusal::Band { away_bps, most_bps } => {
                write!(f, "the price lies {away_bps:.1} bps from the mid; {most_bps} are allowed")
            }
            Refusal::Notional { worth, most } => {
                write!(f, "the position would be worth {worth:.2}; {most} are allowed")
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl Limits {
    /// The order of a decision at this mid, where the account holds `position` (in the instrument's
    /// quantity, below 0 where it is short).
    ///
    /// # Errors
    /// The order would pass a limit, or cannot be made.
    pub fn check(
        &self,
        on: &Instrument,
        decision: Decision,
        mid: f64,
        position: f64,
    ) -> Result<Instruction, Refusal> {
        let (side, offset, size) = match decision {
            Decision::Cancel => return Ok(Instruction::Cancel),
            Decision::Flat | Decision::Hold => return Ok(Instruction::Nothing),
            Decision::Market(side, size) => (side, None, size),
            Decision::Limit(side, offset, size) => (side, Some(offset), size),
        };
        if !(mid > 0.0 && mid.is_finite() && position.is_finite()) {
            return Err(Refusal::State);
        }
        if size > self.max_size {
            return Err(Refusal::Size { size, most: self.max_size });
        }
        let lots = on.lot.below(f64::from(size) * on.unit).filter(|lots| *lots > 0);
        let lots = lots.ok_or(Refusal::Small)?;
        let quantity = on.lot.times(lots);
        let price = offset.map(|offset| passive(on.tick, side, mid, offset)).transpose()?;
        if let Some(ticks) = price {
            let away_bps = 1e4 * (on.tick.times(ticks) / mid - 1.0).abs();
            // Held the other way round, a limit that is no number would let everything pass.
            let within = away_bps <= self.price_band_bps;
            if !within {
                return Err(Refusal::Band { away_bps, most_bps: self.price_band_bps });
            }
        }
        let after = position + side.sign() * quantity;
        let worth = after.abs() * mid;
        let smaller = after.abs() < position.abs() && after * position >= 0.0;
        let within = worth <= self.max_notional;
        if !smaller && !within {
            return Err(Refusal::Notional { worth, most: self.max_notional });
        }
        Ok(Instruction::Send(Order {
            symbol: on.symbol.clone(),
            side,
            price: price.map(|ticks| on.tick.write(ticks)),
            quantity: on.lot.write(lots),
        }))
    }
}

/// The price of a limit in ticks, rounded away from the market.
fn passive(tick: Step, side: Side, mid: f64, offset_bps: u32) -> Result<u64, Refusal> {
    let wanted = mid * (1.0 - side.sign() * f64::from(offset_bps) / 1e4);
    let below = tick.below(wanted).ok_or(Refusal::State)?;
    let ticks = match side {
        Side::Buy => below,
        Side::Sell if tick.times(below) < wanted => below + 1,
        Side::Sell => below,
    };
    if ticks == 0 {
        return Err(Refusal::Tick);
    }
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pairs::decision::tests::any_decision;

    fn step(text: &str) -> Step {
        Step::parse(text).unwrap()
    }

    fn bitcoin() -> Instrument {
        let (tick, lot) = (step("0.01"), step("0.00001"));
        Instrument { symbol: "BTCUSDT".into(), tick, lot, unit: 0.001 }
    }

    const LIMITS: Limits = Limits { max_size: 10, price_band_bps: 100.0, max_notional: 1000.0 };

    fn said(decision: &str, mid: f64, position: f64) -> String {
        match LIMITS.check(&bitcoin(), Decision::read(decision).unwrap(), mid, position) {
            Ok(Instruction::Send(order)) => order.to_json(),
            Ok(other) => format!("{other:?}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn orders_by_hand() {
        let mid = 61837.635;
        assert_eq!(
            said("buy limit 10 x3", mid, 0.0),
            r#"{"symbol":"BTCUSDT","side":"BUY","type":"LIMIT","timeInForce":"GTC","quantity":"0.00300","price":"61775.79"}"#
        );
        assert_eq!(
            said("sell limit 10", mid, 0.0),
            r#"{"symbol":"BTCUSDT","side":"SELL","type":"LIMIT","timeInForce":"GTC","quantity":"0.00100","price":"61899.48"}"#
        );
        assert_eq!(
            said("SMx2", mid, 0.0),
            r#"{"symbol":"BTCUSDT","side":"SELL","type":"MARKET","quantity":"0.00200"}"#
        );
        assert_eq!(said("cancel", mid, 0.0), "Cancel");
        assert_eq!(said("hold", mid, 0.0), "Nothing");
        assert_eq!(said("flat", f64::NAN, 0.0), "Nothing");
    }

    #[test]
    fn refusals_by_hand() {
        let mid = 61837.635;
        assert_eq!(
            said("buy market x11", mid, 0.0),
            "an order of 11 units is larger than the 10 allowed"
        );
        assert_eq!(
            said("buy limit 101", mid, 0.0),
            "the price lies 101.0 bps from the mid; 100 are allowed"
        );
        assert_eq!(
            said("buy market", mid, 0.016),
            "the position would be worth 1051.24; 1000 are allowed"
        );
        // Out of a position that is too large one may sell, but not through to the other side.
        assert!(said("sell market x10", mid, 0.05).contains("SELL"));
        assert_eq!(
            said("sell market x10", mid, -0.007),
            "the position would be worth 1051.24; 1000 are allowed"
        );
        for mid in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let reason = said("buy market", mid, 0.0);
            assert_eq!(reason, "the mid must be above 0 and the position a number");
        }
        let coarse = Instrument { lot: step("1"), ..bitcoin() };
        let refused = LIMITS.check(&coarse, Decision::Market(Side::Buy, 10), mid, 0.0);
        assert_eq!(refused, Err(Refusal::Small));
        let penny = LIMITS.check(&bitcoin(), Decision::Limit(Side::Buy, 10, 1), 0.009, 0.0);
        assert_eq!(penny, Err(Refusal::Tick));
        // A limit that is no number lets nothing pass.
        let broken = Limits { max_notional: f64::NAN, ..LIMITS };
        assert!(broken.check(&bitcoin(), Decision::Market(Side::Buy, 1), mid, 0.0).is_err());
    }

    #[test]
    fn an_order_leads_from_what_is_held_to_what_is_wanted() {
        for (decision, held, order) in [
            ("buy market x3", 0.0, "buy market x3"),
            ("buy market x3", 1.0, "buy market x2"),
            ("buy market", 3.0, "sell market x2"),
            ("sell limit 10", 2.0, "sell limit 10 x3"),
            ("buy limit 10", 2.0, "hold"),
            ("flat", -2.0, "buy market x2"),
            ("flat", 0.0, "hold"),
            ("cancel", 2.0, "cancel"),
        ] {
            let decision = Decision::read(decision).unwrap();
            assert_eq!(towards(decision, held).to_string(), order);
        }
    }

    #[test]
    fn steps_are_read_and_written_exactly() {
        for (text, written) in
            [("0.01", "0.01"), ("0.10", "0.1"), ("5", "5"), ("0.00000001", "0.00000001")]
        {
            assert_eq!(step(text).write(1), written);
        }
        assert_eq!(step("0.1").write(3), "0.3");
        assert_eq!(step("0.05").write(2469), "123.45");
        for text in ["", ".", "0", "0.00", "-1", "1e-3", "1.2.3", ".5", "0.0000000000001"] {
            assert_eq!(Step::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn rounding_stays_on_its_side_and_within_the_limits(
            decision in any_decision(),
            mid in 1e-3f64..2e5,
            half_bps in 0.0f64..50.0,
            position in -1e3f64..1e3,
            tick in prop_oneof![Just("0.01"), Just("0.1"), Just("0.05"), Just("0.000001"), Just("25")],
            lot in prop_oneof![Just("0.001"), Just("1"), Just("0.00001"), Just("0.25")],
            unit in 1e-4f64..10.0,
            max_size in 1u32..1000,
            price_band_bps in 0.0f64..600.0,
            max_notional in 0.0f64..1e7,
        ) {
            let limits = Limits { max_size, price_band_bps, max_notional };
            let (tick, lot) = (step(tick), step(lot));
            let on = Instrument { symbol: "X".into(), tick, lot, unit };
            let Ok(Instruction::Send(order)) = limits.check(&on, decision, mid, position) else {
                return Ok(());
            };
            let sign = order.side.sign();
            let quantity: f64 = order.quantity.parse().unwrap();
            prop_assert!(quantity > 0.0 && quantity <= f64::from(decision.size()) * unit);
            prop_assert!(decision.size() <= max_size);
            prop_assert_eq!(lot.write(lot.below(quantity).unwrap()), order.quantity.clone());
            let after = position + sign * quantity;
            prop_assert!(after.abs() * mid <= max_notional || after.abs() < position.abs());
            if let Some(price) = &order.price {
                let value: f64 = price.parse().unwrap();
                prop_assert_eq!(&tick.write(tick.below(value).unwrap()), price);
                // At or behind where it was to rest, so short of the mid and of the other side's best.
                let Decision::Limit(_, offset, _) = decision else { unreachable!() };
                prop_assert!(sign * value <= sign * mid * (1.0 - sign * f64::from(offset) / 1e4));
                prop_assert!(sign * value < sign * mid * (1.0 + sign * half_bps / 1e4));
                prop_assert!(1e4 * (value / mid - 1.0).abs() <= price_band_bps);
            }
            let body: serde_json::Value = serde_json::from_str(&order.to_json()).unwrap();
            prop_assert_eq!(body["quantity"].as_str(), Some(&order.quantity[..]));
            prop_assert_eq!(body.get("price").is_some(), body.get("timeInForce").is_some());
        }

        #[test]
        fn as_many_steps_as_lie_in_a_number(x in 0.0f64..1e6, tick in prop_oneof![Just("0.01"), Just("0.3"), Just("0.00007")]) {
            let tick = step(tick);
            let count = tick.below(x).unwrap();
            prop_assert!(tick.times(count) <= x && tick.times(count + 1) > x);
            prop_assert_eq!(tick.below(tick.times(count)), Some(count));
            prop_assert_eq!(tick.write(count).parse::<f64>().unwrap(), tick.times(count));
        }
    }
}
