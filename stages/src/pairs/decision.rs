//! An [`Action`] with a size, or the word to hold or to cancel; in words, as JSON and as a code.
//!
//! | decision | words | JSON | code |
//! | --- | --- | --- | --- |
//! | cross the spread | `buy market` | `{"action":"market","side":"buy","size":1}` | `BM` |
//! | rest N basis points away | `sell limit 25` | `{"action":"limit","side":"sell","offset_bps":25,"size":1}` | `S25` |
//! | the same, of three units | `sell limit 25 x3` | `{"action":"limit","side":"sell","offset_bps":25,"size":3}` | `S25x3` |
//! | hold nothing, and send nothing else | `flat` | `{"action":"flat"}` | `FL` |
//! | leave the position and a resting order | `hold` | `{"action":"hold"}` | `HO` |
//! | take it back | `cancel` | `{"action":"cancel"}` | `CA` |
//!
//! A size is a whole multiple of a unit that the account sets; 1 is not written in words. Every text
//! that [`Action::parse`] reads means the same here and is written back the same. A code has two to
//! four characters, and `x` and digits more where the size is not 1. No text is of two forms: words
//! begin with a small letter, codes with a capital, JSON with a brace.
//!
//! The reward and the backtest take a size as the position that is wanted, and count it as 1 unless they are
//! told of larger ones (`sizes` of `pairs`, `max_size` of `evaluate`).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::action::{Action, MAX_OFFSET_BPS, Side};

/// The largest size, in units.
pub const MAX_SIZE: u32 = 1000;

/// How a decision is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `buy limit 10`.
    #[default]
    Words,
    /// `{"action":"limit","side":"buy","offset_bps":10,"size":1}`.
    Json,
    /// `B10`: few tokens, and so a fast answer.
    Code,
}

/// What is to be done with the orders of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Crosses the spread at once, for so many units.
    Market(Side, u32),
    /// Rests so many basis points from the close, for so many units.
    Limit(Side, u32, u32),
    /// Sends nothing.
    Flat,
    /// Leaves what rests, and sends nothing.
    Hold,
    /// Takes back what rests, and sends nothing.
    Cancel,
}

impl From<Action> for Decision {
    /// Of size 1.
    fn from(action: Action) -> Decision {
        Decision::of(action, 1)
    }
}

impl Decision {
    /// An action of a size; flat has none.
    pub fn of(action: Action, size: u32) -> Decision {
        match action {
            Action::Market(side) => Decision::Market(side, size),
            Action::Limit(side, offset) => Decision::Limit(side, offset, size),
            Action::Flat => Decision::Flat,
        }
    }

    /// The action without its size; hold and cancel are flat.
    pub fn action(self) -> Action {
        match self {
            Decision::Market(side, _) => Action::Market(side),
            Decision::Limit(side, offset, _) => Action::Limit(side, offset),
            Decision::Flat | Decision::Hold | Decision::Cancel => Action::Flat,
        }
    }

    /// Units; 0 where nothing is sent.
    pub fn size(self) -> u32 {
        match self {
            Decision::Market(_, size) | Decision::Limit(_, _, size) => size,
            Decision::Flat | Decision::Hold | Decision::Cancel => 0,
        }
    }

    /// Whether the numbers are within [`MAX_OFFSET_BPS`] and [`MAX_SIZE`], and not 0.
    fn sound(self) -> bool {
        match self {
            Decision::Market(_, size) => (1..=MAX_SIZE).contains(&size),
            Decision::Limit(_, offset, size) => {
                (1..=MAX_OFFSET_BPS).contains(&offset) && (1..=MAX_SIZE).contains(&size)
            }
            _ => true,
        }
    }

    /// Reads words, without the white space around them. What [`Action::parse`] reads is of size 1; ` xN`
    /// after an order, N of 2 to [`MAX_SIZE`], is its size.
    pub fn parse(text: &str) -> Option<Decision> {
        let text = text.trim();
        match text {
            "hold" => return Some(Decision::Hold),
            "cancel" => return Some(Decision::Cancel),
            _ => {}
        }
        if let Some(action) = Action::parse(text) {
            return Some(action.into());
        }
        let (order, size) = text.rsplit_once(" x")?;
        // `buy market  x2`: the parser of actions would pass over the blank.
        if order.trim() != order {
            return None;
        }
        let action = Action::parse(order).filter(|action| *action != Action::Flat)?;
        Some(Decision::of(action, number(size, 2)?)).filter(|decision| decision.sound())
    }

    /// Reads a code, without the white space around it.
    pub fn from_code(text: &str) -> Option<Decision> {
        let text = text.trim();
        match text {
            "FL" => return Some(Decision::Flat),
            "HO" => return Some(Decision::Hold),
            "CA" => return Some(Decision::Cancel),
            _ => {}
        }
        let (side, order) = match text.split_at_checked(1)? {
            ("B", order) => (Side::Buy, order),
            ("S", order) => (Side::Sell, order),
            _ => return None,
        };
        let (order, size) = match order.split_once('x') {
            Some((order, size)) => (order, number(size, 2)?),
            None => (order, 1),
        };
        let decision = match order {
            "M" => Decision::Market(side, size),
            _ => Decision::Limit(side, number(order, 1)?, size),
        };
        Some(decision).filter(|decision| decision.sound())
    }

    /// The code.
    pub fn code(self) -> String {
        let side = |side| if side == Side::Buy { 'B' } else { 'S' };
        let sized = |order: String, size| match size {
            1 => order,
            _ => format!("{order}x{size}"),
        };
        match self {
            Decision::Market(of, size) => sized(format!("{}M", side(of)), size),
            Decision::Limit(of, offset, size) => sized(format!("{}{offset}", side(of)), size),
            Decision::Flat => "FL".into(),
            Decision::Hold => "HO".into(),
            Decision::Cancel => "CA".into(),
        }
    }

    /// Reads JSON: one object with the fields that its action has and no other, in any order. Without a
    /// size it is 1.
    pub fn from_json(text: &str) -> Option<Decision> {
        let wire: Wire = serde_json::from_str(text).ok()?;
        let order = wire.side.is_some() || wire.size.is_some();
        let size = wire.size.unwrap_or(1);
        let decision = match (wire.action, wire.side, wire.offset_bps) {
            (Kind::Market, Some(side), None) => Decision::Market(side, size),
            (Kind::Limit, Some(side), Some(offset)) => Decision::Limit(side, offset, size),
            (Kind::Flat, None, None) if !order => Decision::Flat,
            (Kind::Hold, None, None) if !order => Decision::Hold,
            (Kind::Cancel, None, None) if !order => Decision::Cancel,
            _ => return None,
        };
        Some(decision).filter(|decision| decision.sound())
    }

    /// The JSON, on one line.
    pub fn to_json(self) -> String {
        match self {
            Decision::Market(side, size) => {
                format!(r#"{{"action":"market","side":"{}","size":{size}}}"#, side.name())
            }
            Decision::Limit(side, offset, size) => format!(
                r#"{{"action":"limit","side":"{}","offset_bps":{offset},"size":{size}}}"#,
                side.name()
            ),
            _ => format!(r#"{{"action":"{self}"}}"#),
        }
    }

    /// Writes one of the three forms.
    pub fn write(self, form: Form) -> String {
        match form {
            Form::Words => self.to_string(),
            Form::Json => self.to_json(),
            Form::Code => self.code(),
        }
    }

    /// Reads any of the three forms.
    pub fn read(text: &str) -> Option<Decision> {
        match text.trim_start().chars().next()? {
            '{' => Decision::from_json(text),
            'A'..='Z' => Decision::from_code(text),
            _ => Decision::parse(text),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Hold => f.write_str("hold"),
            Decision::Cancel => f.write_str("cancel"),
            _ if self.size() > 1 => write!(f, "{} x{}", self.action(), self.size()),
            _ => self.action().fmt(f),
        }
    }
}

/// Digits without a sign or a leading zero, of `least` or more.
fn number(digits: &str, least: u32) -> Option<u32> {
    if !digits.starts_with(|c: char| matches!(c, '1'..='9')) {
        return None;
    }
    digits.parse().ok().filter(|n| *n >= least)
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Market,
    Limit,
    Flat,
    Hold,
    Cancel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    action: Kind,
    #[serde(default, deserialize_with = "given")]
    side: Option<Side>,
    #[serde(default, deserialize_with = "given")]
    offset_bps: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    size: Option<u32>,
}

/// A field that is there has a value: `null` is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// The JSON Schema of [`Decision::to_json`], with the offsets that may be said; any of 1 to
/// [`MAX_OFFSET_BPS`] where there are none. It is for decoders that are kept to a schema.
pub fn json_schema(offsets_bps: &[u32]) -> Value {
    Allowed { offsets_bps: offsets_bps.to_vec(), max_size: MAX_SIZE, resting: true }.json_schema()
}

/// Which decisions may be said: the grammars of decoders that are kept to one, all from one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Offsets of limit orders, basis points; any of 1 to [`MAX_OFFSET_BPS`] where there are none.
    pub offsets_bps: Vec<u32>,
    /// The largest size, units.
    pub max_size: u32,
    /// Hold and cancel may be said: where orders rest.
    pub resting: bool,
}

impl Allowed {
    /// Says what does not hold, in lower case.
    pub fn check(&self) -> Result<(), String> {
        if let Some(wrong) = self.offsets_bps.iter().find(|n| !(1..=MAX_OFFSET_BPS).contains(*n)) {
            return Err(format!("an offset of {wrong} is not one of 1 to {MAX_OFFSET_BPS} bps"));
        }
        if !(1..=MAX_SIZE).contains(&self.max_size) {
            return Err(format!("a size of {} is not one of 1 to {MAX_SIZE}", self.max_size));
        }
        Ok(())
    }

    /// Whether a decision is one of them.
    pub fn allows(&self, decision: Decision) -> bool {
        let offset = match decision {
            Decision::Hold | Decision::Cancel => return self.resting,
            Decision::Flat => return true,
            Decision::Market(..) => None,
            Decision::Limit(_, offset, _) => Some(offset),
        };
        decision.sound()
            && decision.size() <= self.max_size
            && offset.is_none_or(|n| self.offsets_bps.is_empty() || self.offsets_bps.contains(&n))
    }

    /// All of size 1, in a fixed order: flat, market orders, limits, then hold and cancel.
    pub fn of_one_unit(&self) -> Vec<Decision> {
        let mut all = vec![Decision::Flat];
        let sides = [Side::Buy, Side::Sell];
        all.extend(sides.map(|side| Decision::Market(side, 1)));
        let mut offsets = self.offsets_bps.clone();
        if offsets.is_empty() {
            offsets.extend(1..=MAX_OFFSET_BPS);
        }
        offsets.sort_unstable();
        offsets.dedup();
        for side in sides {
            all.extend(offsets.iter().map(|offset| Decision::Limit(side, *offset, 1)));
        }
        if self.resting {
            all.extend([Decision::Hold, Decision::Cancel]);
        }
        all
    }

    /// The JSON Schema of [`Form::Json`].
    pub fn json_schema(&self) -> Value {
        let offset = match self.offsets_bps.as_slice() {
            [] => json!({ "type": "integer", "minimum": 1, "maximum": MAX_OFFSET_BPS }),
            some => json!({ "enum": some }),
        };
        let side = json!({ "enum": ["buy", "sell"] });
        let size = json!({ "type": "integer", "minimum": 1, "maximum": self.max_size });
        let object = |properties: Value, required: &[&str]| {
            json!({
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false
            })
        };
        let nothing: &[&str] = if self.resting { &["flat", "hold", "cancel"] } else { &["flat"] };
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "decision",
            "oneOf": [
                object(
                    json!({ "action": { "const": "market" }, "side": side, "size": size }),
                    &["action", "side", "size"],
                ),
                object(
                    json!({
                        "action": { "const": "limit" }, "side": side, "offset_bps": offset, "size": size
                    }),
                    &["action", "side", "offset_bps", "size"],
                ),
                object(json!({ "action": { "enum": nothing } }), &["action"]),
            ]
        })
    }

    /// The regular expression of [`Form::Words`] or [`Form::Code`]; `None` of JSON.
    pub fn regex(&self, form: Form) -> Option<String> {
        let offsets = match self.offsets_bps.as_slice() {
            [] => up_to(1, MAX_OFFSET_BPS),
            some => some.iter().map(u32::to_string).collect::<Vec<_>>().join("|"),
        };
        let (order, times, nothing) = match form {
            Form::Json => return None,
            Form::Words => {
                (format!("(buy|sell) (market|limit ({offsets}))"), " x", ["flat", "hold", "cancel"])
            }
            Form::Code => (format!("[BS](M|{offsets})"), "x", ["FL", "HO", "CA"]),
        };
        let size = match self.max_size {
            0 | 1 => String::new(),
            most => format!("({times}({}))?", up_to(2, most)),
        };
        let nothing = if self.resting { &nothing[..] } else { &nothing[..1] };
        Some(format!("{order}{size}|{}", nothing.join("|")))
    }
}

/// The regular expression of the numbers from `least`, of one digit, to `most`, without leading zeros.
fn up_to(least: u32, most: u32) -> String {
    let digits = most.to_string().into_bytes();
    let class = |from: u8, to: u8| match from == to {
        true => char::from(from).to_string(),
        false => format!("[{}-{}]", char::from(from), char::from(to)),
    };
    let any = |n: usize| "[0-9]".repeat(n);
    let first = |length: usize| if length == 1 { b'0' + least as u8 } else { b'1' };
    // Shorter numbers; then those that agree with the largest up to a digit, where they are smaller.
    let mut parts: Vec<String> =
        (1..digits.len()).map(|n| class(first(n), b'9') + &any(n - 1)).collect();
    for (at, digit) in digits.iter().enumerate() {
        let lowest = if at == 0 { first(digits.len()) } else { b'0' };
        let highest = if at + 1 == digits.len() { *digit } else { digit - 1 };
        if lowest <= highest {
            let same = String::from_utf8_lossy(&digits[..at]);
            parts.push(format!("{same}{}{}", class(lowest, highest), any(digits.len() - at - 1)));
        }
    }
    parts.join("|")
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn any_decision() -> impl Strategy<Value = Decision> {
        let side = || prop_oneof![Just(Side::Buy), Just(Side::Sell)];
        prop_oneof![
            Just(Decision::Flat),
            Just(Decision::Hold),
            Just(Decision::Cancel),
            (side(), 1..=MAX_SIZE).prop_map(|(side, size)| Decision::Market(side, size)),
            (side(), 1..=MAX_OFFSET_BPS, 1..=MAX_SIZE)
                .prop_map(|(side, offset, size)| Decision::Limit(side, offset, size)),
        ]
    }

    #[test]
    fn every_old_text_reads_and_is_written_as_before() {
        let mut old = vec![Action::Flat];
        for side in [Side::Buy, Side::Sell] {
            old.push(Action::Market(side));
            old.extend((1..=MAX_OFFSET_BPS).map(|n| Action::Limit(side, n)));
        }
        let mut codes = std::collections::HashSet::new();
        for action in old {
            let text = action.to_string();
            let decision = Decision::parse(&text).unwrap();
            assert_eq!((decision, decision.action()), (Decision::of(action, 1), action));
            assert_eq!(decision.to_string(), text);
            let code = decision.code();
            assert!((2..=4).contains(&code.len()), "{code}");
            assert!(codes.insert(code));
        }
    }

    #[test]
    fn by_hand() {
        let table = [
            ("buy market", r#"{"action":"market","side":"buy","size":1}"#, "BM"),
            ("sell market x20", r#"{"action":"market","side":"sell","size":20}"#, "SMx20"),
            ("buy limit 10", r#"{"action":"limit","side":"buy","offset_bps":10,"size":1}"#, "B10"),
            (
                "sell limit 500 x3",
                r#"{"action":"limit","side":"sell","offset_bps":500,"size":3}"#,
                "S500x3",
            ),
            ("flat", r#"{"action":"flat"}"#, "FL"),
            ("hold", r#"{"action":"hold"}"#, "HO"),
            ("cancel", r#"{"action":"cancel"}"#, "CA"),
        ];
        for (words, json, code) in table {
            let decision = Decision::read(words).unwrap();
            assert_eq!(decision.to_string(), words);
            assert_eq!(decision.to_json(), json);
            assert_eq!(decision.code(), code);
            assert_eq!(Decision::read(json), Some(decision));
            assert_eq!(Decision::read(code), Some(decision));
        }
        // Order of fields and white space do not matter, and a size of 1 may be left out.
        let json = "{ \"offset_bps\": 10,\n \"side\": \"buy\", \"action\": \"limit\" }";
        assert_eq!(Decision::read(json), Some(Decision::Limit(Side::Buy, 10, 1)));
    }

    #[test]
    fn reads_nothing_else() {
        for text in [
            "buy limit 10 x1",
            "buy limit 10 x0",
            "buy limit 10 x1001",
            "buy limit 10 x03",
            "buy limit 10 x-3",
            "buy limit 10 x+3",
            "buy limit 10x3",
            "buy limit 10 3",
            "buy limit 10  x3",
            "buy limit 10 x3 x3",
            "buy market\t x3",
            "flat x2",
            "hold x2",
            "cancel 5",
            "Cancel",
            "B",
            "B0",
            "B010",
            "B501",
            "Bm",
            "b10",
            "B10x1",
            "B10x1001",
            "BMx",
            "FLx2",
            "X10",
            "B10 x3",
            "BM BM",
            r#"{"action":"limit","side":"buy"}"#,
            r#"{"action":"limit","side":"buy","offset_bps":0}"#,
            r#"{"action":"limit","side":"buy","offset_bps":501}"#,
            r#"{"action":"limit","side":"buy","offset_bps":10.0}"#,
            r#"{"action":"limit","side":"buy","offset_bps":"10"}"#,
            r#"{"action":"limit","side":"Buy","offset_bps":10}"#,
            r#"{"action":"limit","side":"buy","offset_bps":10,"size":0}"#,
            r#"{"action":"limit","side":"buy","offset_bps":10,"size":null}"#,
            r#"{"action":"limit","side":"buy","offset_bps":10,"price":1}"#,
            r#"{"action":"limit","side":"buy","side":"sell","offset_bps":10}"#,
            r#"{"action":"market","side":"buy","offset_bps":10}"#,
            r#"{"action":"flat","side":"buy"}"#,
            r#"{"action":"cancel","size":1}"#,
            r#"{"action":"buy"}"#,
            r#"{"action":"flat"} {"action":"flat"}"#,
            "{}",
            "[]",
        ] {
            assert_eq!(Decision::read(text), None, "{text:?}");
        }
    }

    /// Whether a value is as the parts of a JSON Schema that [`json_schema`] uses say.
    fn valid(schema: &Value, value: &Value) -> bool {
        let list = |name: &str| schema.get(name).and_then(Value::as_array);
        if let Some(all) = list("oneOf") {
            return all.iter().filter(|schema| valid(schema, value)).count() == 1;
        }
        let within = |limit: &str, holds: fn(u64, u64) -> bool| {
            let limit = schema.get(limit).and_then(Value::as_u64);
            limit.is_none_or(|limit| value.as_u64().is_some_and(|n| holds(n, limit)))
        };
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("integer") => value.is_u64(),
            Some("object") => value.is_object(),
            _ => true,
        };
        let fields = value.as_object().into_iter().flatten();
        let property = |name: &str| schema.get("properties").and_then(|all| all.get(name));
        kind && schema.get("const").is_none_or(|own| own == value)
            && list("enum").is_none_or(|all| all.contains(value))
            && within("minimum", |n, limit| n >= limit)
            && within("maximum", |n, limit| n <= limit)
            && list("required").is_none_or(|all| {
                all.iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            })
            && (!kind
                || schema.get("properties").is_none()
                || fields.clone().all(|(name, of)| property(name).is_some_and(|s| valid(s, of))))
    }

    #[test]
    fn the_schema_knows_the_offsets() {
        let of = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let ten = of(r#"{"action":"limit","side":"buy","offset_bps":10,"size":1}"#);
        let five = of(r#"{"action":"limit","side":"buy","offset_bps":5,"size":1}"#);
        assert!(valid(&json_schema(&[10, 25]), &ten) && !valid(&json_schema(&[10, 25]), &five));
        assert!(valid(&json_schema(&[]), &five));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(decision in any_decision()) {
            for text in [decision.to_string(), decision.to_json(), decision.code()] {
                prop_assert_eq!(Decision::read(&text), Some(decision));
                prop_assert_eq!(Decision::read(&format!(" {text}\n")), Some(decision));
            }
            let json: Value = serde_json::from_str(&decision.to_json()).unwrap();
            prop_assert!(valid(&json_schema(&[]), &json));
        }

        /// Words and codes have one text for each decision; no text is of two forms.
        #[test]
        fn no_text_reads_in_two_ways(
            text in "\\PC{0,20}|(buy|sell) (market|limit [0-9]{1,4})( x[0-9]{1,5})?|[A-Z]{1,2}[0-9]{0,4}(x[0-9]{1,4})?|\\{\"action\":\"(flat|hold|market|limit)\"(,\"side\":\"buy\")?(,\"offset_bps\":[0-9]{1,4})?(,\"size\":[0-9]{1,4})?\\}"
        ) {
            let all = [Decision::parse(&text), Decision::from_code(&text), Decision::from_json(&text)];
            let mut read = all.iter().flatten();
            prop_assert_eq!(read.next().copied(), Decision::read(&text));
            prop_assert_eq!(read.next(), None);
            if let Some(decision) = all[0] {
                prop_assert_eq!(decision.to_string(), text.trim());
            }
            if let Some(decision) = all[1] {
                prop_assert_eq!(decision.code(), text.trim());
            }
            // The schema and the reader agree, where a size is given.
            if let Ok(json) = serde_json::from_str::<Value>(&text)
                && json.is_object() && json.get("size").is_some()
            {
                prop_assert_eq!(valid(&json_schema(&[]), &json), all[2].is_some());
            }
        }
    }
}
