//! Reads the messages of Binance's market streams out of their JSON, byte by byte.
//!
//! A general JSON reader builds a tree or goes through text; most bytes here are arrays of
//! `["61773.6","1001"]`, and are read straight into levels. The grammar is JSON's with one leniency
//! (escapes within strings are not decoded, as no field that counts has any). A test holds it to
//! serde_json.
//!
//! Fields by Binance's names: <https://developers.binance.com/docs/derivatives/coin-margined-futures>
//! and <https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>.

use std::ops::Range;

use super::event::Level;

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `depthUpdate`
    Depth,
    /// An answer of REST's `depth`, or a partial depth stream: all levels down to some depth.
    Snapshot,
    /// `bookTicker`
    Ticker,
    /// `trade`
    Trade,
    /// `aggTrade`
    Aggregate,
    /// Anything else.
    #[default]
    Other,
}

/// A message; its buffers are used again for the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// What it is. The fields that it has not are 0, empty or `None`.
    pub kind: Kind,
    /// Where in the line the symbol is.
    pub symbol: Option<Range<usize>>,
    /// `U`
    pub first: Option<u64>,
    /// `u`, or a snapshot's `lastUpdateId`
    pub last: Option<u64>,
    /// `pu`
    pub previous: Option<u64>,
    /// `t`, or of an aggregate `a`
    pub id: Option<u64>,
    /// `p`, or a ticker's `b`
    pub price: f64,
    /// `q`, or a ticker's `B`
    pub size: f64,
    /// A ticker's `a`
    pub ask: f64,
    /// A ticker's `A`
    pub ask_size: f64,
    /// `m`: the buyer was there first, hence the taker sold.
    pub maker_bought: Option<bool>,
    /// `b` or `bids`
    pub bids: Vec<Level>,
    /// `a` or `asks`
    pub asks: Vec<Level>,
}

/// Why a line is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not JSON, or not such an object: the byte, from 0, and what was looked for there.
    Syntax(usize, &'static str),
    /// A price or size that cannot be one.
    Value(String),
    /// A field that such a message must have.
    Missing(&'static str),
}

#[derive(Default)]
struct Seen {
    event: Option<Kind>,
    snapshot: bool,
    bid: Side,
    ask: Side,
    bid_size: bool,
    ask_size: bool,
    price: bool,
    size: bool,
}

/// What `b` or `a` was.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Side {
    #[default]
    None,
    Levels,
    Number,
}

/// Reads the JSON that begins at byte `from` of a line.
///
/// # Errors
/// It is not such a message.
pub fn parse(line: &[u8], from: usize, into: &mut Message) -> Result<(), Wrong> {
    let Message { mut bids, mut asks, .. } = std::mem::take(into);
    bids.clear();
    asks.clear();
    *into = Message { bids, asks, ..Message::default() };
    let mut seen = Seen::default();
    let mut cursor = Cursor { bytes: line, at: from };
    cursor.object(into, &mut seen, 0)?;
    cursor.space();
    if cursor.at != line.len() {
        return Err(Wrong::Syntax(cursor.at, "the end of the line"));
    }
    into.kind = match seen.event {
        Some(kind) => kind,
        None if seen.snapshot => Kind::Snapshot,
        None if seen.bid == Side::Levels && seen.ask == Side::Levels => Kind::Depth,
        None if seen.bid == Side::Number && seen.bid_size => Kind::Ticker,
        None => Kind::Other,
    };
    let need = |there: bool, name| if there { Ok(()) } else { Err(Wrong::Missing(name)) };
    match into.kind {
        Kind::Depth | Kind::Snapshot => {
            need(seen.bid == Side::Levels, "bids")?;
            need(seen.ask == Side::Levels, "asks")?;
            need(into.last.is_some(), "u")?;
        }
        Kind::Ticker => {
            need(seen.bid == Side::Number, "b")?;
            need(seen.ask == Side::Number, "a")?;
            need(seen.bid_size, "B")?;
            need(seen.ask_size, "A")?;
        }
        Kind::Trade | Kind::Aggregate => {
            need(seen.price, "p")?;
            need(seen.size, "q")?;
        }
        Kind::Other => {}
    }
    Ok(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// An object: the message, or that in its `data`.
    fn object(&mut self, into: &mut Message, seen: &mut Seen, deep: u8) -> Result<(), Wrong> {
        self.expect(b'{', "`{`")?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.text()?;
            self.expect(b':', "`:`")?;
            self.field(key, into, seen, deep)?;
            if !self.eat(b',') {
                return self.expect(b'}', "`,` or `}`");
            }
        }
    }

    #[inline]
    fn field(
        &mut self,
        key: Range<usize>,
        into: &mut Message,
        seen: &mut Seen,
        deep: u8,
    ) -> Result<(), Wrong> {
        match &self.bytes[key] {
            b"data" if deep == 0 && self.peek() == Some(b'{') => {
                return self.object(into, seen, 1);
            }
            b"e" => {
                let name = self.text()?;
                seen.event = Some(match &self.bytes[name] {
                    b"depthUpdate" => Kind::Depth,
                    b"bookTicker" => Kind::Ticker,
                    b"trade" => Kind::Trade,
                    b"aggTrade" => Kind::Aggregate,
                    _ => Kind::Other,
                });
            }
            b"s" | b"symbol" if self.peek() == Some(b'"') => into.symbol = Some(self.text()?),
            b"U" if self.digit() => into.first = Some(self.count()?),
            b"u" if self.digit() => into.last = Some(self.count()?),
            b"pu" if self.digit() => into.previous = Some(self.count()?),
            b"t" if self.digit() => into.id = Some(self.count()?),
            b"lastUpdateId" if self.digit() => {
                into.last = Some(self.count()?);
                seen.snapshot = true;
            }
            b"b" | b"bids" => match self.peek() {
                Some(b'[') => {
                    self.levels(&mut into.bids)?;
                    seen.bid = Side::Levels;
                }
                Some(b'"') => {
                    into.price = self.number()?;
                    seen.bid = Side::Number;
                }
                // In a trade, the buyer's order.
                _ => return self.skip(0),
            },
            b"a" | b"asks" => match self.peek() {
                Some(b'[') => {
                    self.levels(&mut into.asks)?;
                    seen.ask = Side::Levels;
                }
                Some(b'"') => {
                    into.ask = self.number()?;
                    seen.ask = Side::Number;
                }
                _ if self.digit() => into.id = Some(self.count()?),
                _ => return self.skip(0),
            },
            b"B" if self.peek() == Some(b'"') => {
                into.size = self.number()?;
                seen.bid_size = true;
            }
            b"A" if self.peek() == Some(b'"') => {
                into.ask_size = self.number()?;
                seen.ask_size = true;
            }
            b"p" if self.peek() == Some(b'"') => {
                into.price = self.number()?;
                seen.price = true;
            }
            b"q" if self.peek() == Some(b'"') => {
                into.size = self.number()?;
                seen.size = true;
            }
            b"m" => {
                let from = self.at;
                self.skip(0)?;
                into.maker_bought = match self.bytes[from..self.at].trim_ascii() {
                    b"true" => Some(true),
                    b"false" => Some(false),
                    _ => None,
                };
            }
            _ => return self.skip(0),
        }
        Ok(())
    }

    fn levels(&mut self, into: &mut Vec<Level>) -> Result<(), Wrong> {
        into.clear();
        self.expect(b'[', "`[`")?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.expect(b'[', "`[`")?;
            let price = self.number()?;
            self.expect(b',', "`,`")?;
            let size = self.number()?;
            while self.eat(b',') {
                self.skip(0)?;
            }
            self.expect(b']', "`]`")?;
            if price <= 0.0 || size < 0.0 {
                return Err(unfit(price, size));
            }
            into.push(Level { price, size });
            if !self.eat(b',') {
                return self.expect(b']', "`,` or `]`");
            }
        }
    }

    /// A number, in quotes or bare.
    #[inline]
    fn number(&mut self) -> Result<f64, Wrong> {
        let quoted = self.eat(b'"');
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        if let Some((value, length)) = decimal(rest) {
            if !quoted {
                self.at += length;
                return Ok(value);
            }
            if rest.get(length) == Some(&b'"') {
                self.at += length + 1;
                return Ok(value);
            }
        }
        self.odd_number(quoted)
    }

    /// A number that [`decimal`] leaves: long, signed, with an exponent, or none.
    #[cold]
    fn odd_number(&mut self, quoted: bool) -> Result<f64, Wrong> {
        let from = self.at;
        let end = |b: &u8| if quoted { *b == b'"' } else { b",]} \t".contains(b) };
        let Some(length) = self.bytes[from..].iter().position(end) else {
            return Err(Wrong::Syntax(from, "a number"));
        };
        let text = std::str::from_utf8(&self.bytes[from..from + length])
            .map_err(|_| Wrong::Syntax(from, "UTF-8 text"))?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.at = from + length + usize::from(quoted);
                Ok(value)
            }
            _ if !quoted => Err(Wrong::Syntax(from, "a number")),
            _ => Err(Wrong::Value(format!("`{text}` is not a number"))),
        }
    }

    /// A whole number.
    fn count(&mut self) -> Result<u64, Wrong> {
        let from = self.at;
        let mut value = 0_u64;
        while let Some(digit) = self.bytes.get(self.at).filter(|b| b.is_ascii_digit()) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u64::from(digit - b'0')))
                .ok_or(Wrong::Syntax(from, "a whole number below 2^64"))?;
            self.at += 1;
        }
        if self.at > from { Ok(value) } else { Err(Wrong::Syntax(from, "a whole number")) }
    }

    /// A string's place in the line, without the quotes.
    fn text(&mut self) -> Result<Range<usize>, Wrong> {
        self.expect(b'"', "`\"`")?;
        let from = self.at;
        let mut ascii = true;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => match self.bytes.get(self.at + 1) {
                    Some(b'u') if self.hex(self.at + 2) => self.at += 6,
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                    _ => return Err(Wrong::Syntax(self.at, "an escape of JSON")),
                },
                Some(b) if *b >= b' ' => {
                    ascii &= b.is_ascii();
                    self.at += 1;
                }
                _ => return Err(Wrong::Syntax(self.at, "`\"`")),
            }
        }
        let range = from..self.at;
        if !ascii && std::str::from_utf8(&self.bytes[range.clone()]).is_err() {
            return Err(Wrong::Syntax(from, "UTF-8 text"));
        }
        self.at += 1;
        Ok(range)
    }

    fn hex(&self, from: usize) -> bool {
        self.bytes.get(from..from + 4).is_some_and(|four| four.iter().all(u8::is_ascii_hexdigit))
    }

    /// Passes over any value.
    fn skip(&mut self, deep: u8) -> Result<(), Wrong> {
        let from = self.at;
        match self.peek() {
            Some(b'"') => self.text().map(|_| ()),
            Some(b'{' | b'[') if deep < 32 => {
                let object = self.eat(b'{');
                if !object {
                    self.expect(b'[', "`[`")?;
                }
                let end = if object { b'}' } else { b']' };
                if self.eat(end) {
                    return Ok(());
                }
                loop {
                    if object {
                        self.text()?;
                        self.expect(b':', "`:`")?;
                    }
                    self.skip(deep + 1)?;
                    if !self.eat(b',') {
                        return self.expect(end, if object { "`,` or `}`" } else { "`,` or `]`" });
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                let begin = self.at;
                while self.digit_here() {
                    self.at += 1;
                }
                if self.at > begin && !self.bytes.get(self.at).is_some_and(|b| b"+-.eE".contains(b))
                {
                    return Ok(());
                }
                while self.bytes.get(self.at).is_some_and(|b| b"+-.eE0123456789".contains(b)) {
                    self.at += 1;
                }
                let text = std::str::from_utf8(&self.bytes[begin..self.at]).unwrap_or_default();
                let number = text.parse::<f64>().is_ok();
                if number { Ok(()) } else { Err(Wrong::Syntax(begin, "a number")) }
            }
            _ => {
                let rest = self.bytes.get(self.at..).unwrap_or(&[]);
                let words = [&b"true"[..], b"false", b"null"];
                let word = words.iter().find(|word| rest.starts_with(word));
                let word = word.ok_or(Wrong::Syntax(from, "a value"))?;
                self.at += word.len();
                Ok(())
            }
        }
    }

    fn space(&mut self) {
        while self.bytes.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        if self.bytes.get(self.at).is_some_and(|b| *b <= b' ') {
            self.space();
        }
        self.bytes.get(self.at).copied()
    }

    fn digit_here(&self) -> bool {
        self.bytes.get(self.at).is_some_and(u8::is_ascii_digit)
    }

    fn digit(&mut self) -> bool {
        self.peek().is_some_and(|b| b.is_ascii_digit())
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte) || self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), Wrong> {
        if self.eat(byte) { Ok(()) } else { Err(Wrong::Syntax(self.at, name)) }
    }
}

#[cold]
fn unfit(price: f64, size: f64) -> Wrong {
    match price > 0.0 {
        true => Wrong::Value(format!("size {size} is below 0")),
        false => Wrong::Value(format!("price {price} is not above 0")),
    }
}

/// Powers of ten that are exact.
const TENS: [f64; 19] = [
    1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// The number at the beginning of `bytes`, such as `61773.63000000`, and its length; `None` where it
/// has more digits than can be read exactly this way.
///
/// The digits as a whole number below 2^53 and the power of ten below 10^22 are exact, and one division
/// rounds once: the result is that of `str::parse` (Clinger 1990).
#[inline]
pub fn decimal(bytes: &[u8]) -> Option<(f64, usize)> {
    let (mut mantissa, mut at) = (0_u64, 0);
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        mantissa = mantissa * 10 + u64::from(digit);
        at += 1;
        if at > 10 {
            return None;
        }
    }
    if at == 0 {
        return None;
    }
    if bytes.get(at) != Some(&b'.') {
        return Some((mantissa as f64, at));
    }
    at += 1;
    let point = at;
    if let Some(eight) = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok())
        && let Some(value) = eight_digits(eight)
    {
        mantissa = mantissa * 100_000_000 + value;
        at += 8;
    }
    while let Some(digit) = bytes.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        if at - point >= 8 {
            return None;
        }
        mantissa = mantissa * 10 + u64::from(digit);
        at += 1;
    }
    let exact = at > point && mantissa < 1 << 53;
    if exact { Some((mantissa as f64 / TENS[at - point], at)) } else { None }
}

/// Eight digits at once, a byte each, the first the highest (D. Lemire).
#[inline]
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    let high = word & 0xf0f0_f0f0_f0f0_f0f0;
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    if high != 0x3030_3030_3030_3030 || carried != 0x3030_3030_3030_3030 {
        return None;
    }
    let word = word & 0x0f0f_0f0f_0f0f_0f0f;
    let word = (word.wrapping_mul(10).wrapping_add(word >> 8)) & 0x00ff_00ff_00ff_00ff;
    let word = (word.wrapping_mul(100).wrapping_add(word >> 16)) & 0x0000_ffff_0000_ffff;
    Some((word.wrapping_mul(10_000).wrapping_add(word >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decimal_is_what_parse_makes_of_it(text in "[0-9]{1,12}(\\.[0-9]{1,10})?") {
            let expected: f64 = text.parse().unwrap();
            if let Some((value, length)) = decimal(format!("{text}\"").as_bytes()) {
                prop_assert_eq!(value.to_bits(), expected.to_bits());
                prop_assert_eq!(length, text.len());
            } else {
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                prop_assert!(whole.len() > 10 || fraction.len() > 8 || whole.len() + fraction.len() > 15);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line, 0, &mut Message::default());
        }

        #[test]
        fn a_line_cut_off_is_no_message(cut in 0_usize..DEPTH.len()) {
            prop_assert!(parse(&DEPTH.as_bytes()[..cut], 0, &mut Message::default()).is_err());
        }
    }

    const DEPTH: &str = r#"{"stream":"btcusd_perp@depth@0ms","data":{"e":"depthUpdate","E":1723161257440,"T":1723161257432,"s":"BTCUSD_PERP","ps":"BTCUSD","U":1007198631260,"u":1007198631565,"pu":1007198631198,"b":[["61773.6","1001"],["61776.4","4.12e2"]],"a":[["61801.4","0"]]}}"#;

    fn read(text: &str) -> Result<Message, Wrong> {
        let mut message = Message::default();
        parse(text.as_bytes(), 0, &mut message).map(|()| message)
    }

    #[test]
    fn each_kind_of_message() {
        let depth = read(DEPTH).unwrap();
        assert_eq!(depth.kind, Kind::Depth);
        assert_eq!(depth.previous, Some(1_007_198_631_198));
        let level = |price, size| Level { price, size };
        assert_eq!(depth.bids, [level(61773.6, 1001.0), level(61776.4, 412.0)]);
        assert_eq!(depth.asks, [level(61801.4, 0.0)]);
        let ticker =
            read(r#" { "u" : 5 , "s":"X","b":"1.5","B":"2","a":"1.75","A":"3" } "#).unwrap();
        assert_eq!((ticker.kind, ticker.last), (Kind::Ticker, Some(5)));
        assert_eq!((ticker.price, ticker.size, ticker.ask, ticker.ask_size), (1.5, 2.0, 1.75, 3.0));
        let trade = read(r#"{"e":"trade","t":7,"p":"2","q":"3","b":88,"a":50,"m":true,"M":true}"#);
        let trade = trade.unwrap();
        assert_eq!((trade.kind, trade.price, trade.size), (Kind::Trade, 2.0, 3.0));
        assert_eq!(trade.maker_bought, Some(true));
        let snapshot = read(r#"{"lastUpdateId":9,"bids":[["1","2"]],"asks":[]}"#).unwrap();
        assert_eq!((snapshot.kind, snapshot.last), (Kind::Snapshot, Some(9)));
        let other =
            read(r#"{"e":"markPriceUpdate","p":"2","x":[1,{"y":[null,"\u00e9\n"]}],"r":-1e-5}"#);
        assert_eq!(other.unwrap().kind, Kind::Other);
    }

    #[test]
    fn what_is_no_message_says_why() {
        let syntax = |at, what| Err(Wrong::Syntax(at, what));
        assert_eq!(read(""), syntax(0, "`{`"));
        assert_eq!(read("{} x"), syntax(3, "the end of the line"));
        assert_eq!(read(r#"{"b":[["1","2"]"#), syntax(15, "`,` or `]`"));
        assert_eq!(read(r#"{"b":[["1"]]}"#), syntax(10, "`,`"));
        assert_eq!(read(r#"{"x":tru}"#), syntax(5, "a value"));
        assert_eq!(read(r#"{"x":"\q"}"#), syntax(6, "an escape of JSON"));
        let value = |text: &str| Err(Wrong::Value(text.to_owned()));
        assert_eq!(read(r#"{"b":[["NaN","2"]]}"#), value("`NaN` is not a number"));
        assert_eq!(read(r#"{"b":[["0.0","2"]]}"#), value("price 0 is not above 0"));
        assert_eq!(read(r#"{"b":[["1.0","-2"]]}"#), value("size -2 is below 0"));
        assert_eq!(read(r#"{"e":"trade","p":"1"}"#), Err(Wrong::Missing("q")));
        assert_eq!(read(r#"{"e":"depthUpdate","u":1,"b":[]}"#), Err(Wrong::Missing("asks")));
    }
}
