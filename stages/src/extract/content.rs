//! The words of a content stream: operands, then an operator, over and over.
//!
//! It reads one operator at a time into buffers that are used again, so a page costs no allocation
//! a word, and it steps over bytes that mean nothing, where lopdf's own iterator ends the page.
//! Arrays and dictionaries stay flat, between marks, so no nesting can exhaust the stack. CMaps
//! are written in the same syntax and are read with it too.

/// An operand. Names and strings are ranges of [`Operands::bytes`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    /// An integer or a real.
    Number(f64),
    /// A name, without its slash.
    Name(u32, u32),
    /// A string, decoded.
    Text(u32, u32),
    /// `[`
    Open,
    /// `]`
    Close,
    /// `<<`
    OpenDict,
    /// `>>`
    CloseDict,
}

/// The operands before an operator.
#[derive(Default)]
pub struct Operands {
    /// In order, flat.
    pub items: Vec<Operand>,
    bytes: Vec<u8>,
}

/// More operands than this before one operator are dropped.
const MOST_OPERANDS: usize = 1 << 20;

impl Operands {
    fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
    }

    fn push(&mut self, operand: Operand) {
        if self.items.len() < MOST_OPERANDS {
            self.items.push(operand);
        }
    }

    fn range(&self, start: u32, end: u32) -> &[u8] {
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The bytes of a string operand.
    pub fn text(&self, operand: Operand) -> Option<&[u8]> {
        match operand {
            Operand::Text(start, end) => Some(self.range(start, end)),
            _ => None,
        }
    }

    /// The operand `at` as a name.
    pub fn name(&self, at: usize) -> Option<&[u8]> {
        match self.items.get(at) {
            Some(&Operand::Name(start, end)) => Some(self.range(start, end)),
            _ => None,
        }
    }

    /// The last `N` operands as numbers; what is not one counts as zero.
    pub fn numbers<const N: usize>(&self) -> [f64; N] {
        let mut out = [0.0; N];
        let from = self.items.len().saturating_sub(N);
        for (slot, operand) in out.iter_mut().zip(&self.items[from..]) {
            if let Operand::Number(value) = operand {
                *slot = *value;
            }
        }
        out
    }

    /// The operand after the name `key`, as in a dictionary.
    pub fn after(&self, key: &[u8]) -> Option<Operand> {
        let at = (0..self.items.len()).find(|&at| self.name(at) == Some(key))?;
        self.items.get(at + 1).copied()
    }
}

/// A reader of a content stream.
pub struct Lexer<'a> {
    data: &'a [u8],
    at: usize,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0 | 12)
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

impl<'a> Lexer<'a> {
    /// A reader of `data`.
    pub fn new(data: &'a [u8]) -> Lexer<'a> {
        Lexer { data, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    /// The next operator, its operands in `operands`. `None` at the end.
    pub fn next(&mut self, operands: &mut Operands) -> Option<&'a [u8]> {
        operands.clear();
        loop {
            match self.peek()? {
                byte if is_space(byte) => self.at += 1,
                b'%' => self.skip_comment(),
                b'(' => self.literal(operands),
                b'<' if self.data.get(self.at + 1) == Some(&b'<') => {
                    self.at += 2;
                    operands.push(Operand::OpenDict);
                }
                b'<' => self.hexadecimal(operands),
                b'>' => {
                    let double = self.data.get(self.at + 1) == Some(&b'>');
                    self.at += 1 + usize::from(double);
                    if double {
                        operands.push(Operand::CloseDict);
                    }
                }
                b'[' => {
                    self.at += 1;
                    operands.push(Operand::Open);
                }
                b']' => {
                    self.at += 1;
                    operands.push(Operand::Close);
                }
                b'/' => self.name(operands),
                b')' | b'{' | b'}' => self.at += 1,
                b'0'..=b'9' | b'+' | b'-' | b'.' => self.number(operands),
                _ => {
                    let word = self.word();
                    match word {
                        b"true" | b"false" | b"null" => operands.push(Operand::Number(0.0)),
                        b"BI" => self.skip_image(),
                        _ => return Some(word),
                    }
                }
            }
        }
    }

    fn word(&mut self) -> &'a [u8] {
        let rest = &self.data[self.at..];
        let len = rest.iter().position(|&b| is_space(b) || is_delimiter(b)).unwrap_or(rest.len());
        self.at += len.max(1);
        &rest[..len]
    }

    fn skip_comment(&mut self) {
        let rest = &self.data[self.at..];
        self.at += rest.iter().position(|&b| b == b'\n' || b == b'\r').unwrap_or(rest.len());
    }

    fn number(&mut self, operands: &mut Operands) {
        let (mut value, mut scale, mut negative, mut any) = (0.0f64, 0.0f64, false, false);
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    let digit = f64::from(byte - b'0');
                    if scale == 0.0 {
                        value = value * 10.0 + digit;
                    } else {
                        value += digit * scale;
                        scale *= 0.1;
                    }
                }
                b'.' if scale == 0.0 => scale = 0.1,
                // `--5` and `5-3` occur; readers take -5 and 5.
                b'-' if self.at == start => negative = true,
                b'-' | b'+' => {}
                _ => break,
            }
            self.at += 1;
        }
        // Words such as `1.2.3` or `12abc`: the rest is read as what follows.
        if self.at == start {
            self.at += 1;
        }
        if any || scale != 0.0 {
            operands.push(Operand::Number(if negative { -value } else { value }));
        }
    }

    fn name(&mut self, operands: &mut Operands) {
        self.at += 1;
        let start = operands.bytes.len() as u32;
        while let Some(byte) = self.peek().filter(|&b| !is_space(b) && !is_delimiter(b)) {
            let escaped = (byte == b'#').then(|| {
                let high = self.data.get(self.at + 1).copied().and_then(hex)?;
                let low = self.data.get(self.at + 2).copied().and_then(hex)?;
                Some(high << 4 | low)
            });
            match escaped.flatten() {
                Some(decoded) => {
                    operands.bytes.push(decoded);
                    self.at += 3;
                }
                None => {
                    operands.bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        operands.push(Operand::Name(start, operands.bytes.len() as u32));
    }

    fn hexadecimal(&mut self, operands: &mut Operands) {
        self.at += 1;
        let start = operands.bytes.len() as u32;
        let mut half = None;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'>' {
                break;
            }
            let Some(digit) = hex(byte) else { continue };
            match half.take() {
                None => half = Some(digit << 4),
                Some(high) => operands.bytes.push(high | digit),
            }
        }
        operands.bytes.extend(half);
        operands.push(Operand::Text(start, operands.bytes.len() as u32));
    }

    fn literal(&mut self, operands: &mut Operands) {
        self.at += 1;
        let start = operands.bytes.len() as u32;
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => depth += 1,
                b')' if depth == 0 => break,
                b')' => depth -= 1,
                b'\\' => {
                    self.escape(operands);
                    continue;
                }
                _ => {}
            }
            operands.bytes.push(byte);
        }
        operands.push(Operand::Text(start, operands.bytes.len() as u32));
    }

    fn escape(&mut self, operands: &mut Operands) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        operands.bytes.push(match byte {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'\r' => {
                self.at += usize::from(self.peek() == Some(b'\n'));
                return;
            }
            b'\n' => return,
            b'0'..=b'7' => {
                let mut value = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    value = value * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                value as u8
            }
            other => other,
        });
    }

    /// From after `BI` to after `EI`. The data may hold anything, so the end is an `EI` between
    /// white space that text follows.
    fn skip_image(&mut self) {
        let rest = &self.data[self.at..];
        let data = rest.windows(3).position(|w| w[..2] == *b"ID" && is_space(w[2])).unwrap_or(0);
        let ends = |&at: &usize| {
            let after = rest.get(at + 3..).unwrap_or_default();
            is_space(rest[at])
                && rest[at + 1..at + 3] == *b"EI"
                && after.first().is_none_or(|&b| is_space(b))
                && after.iter().take(12).all(|&b| is_space(b) || (32..127).contains(&b))
        };
        let end = (data..rest.len().saturating_sub(2)).find(ends);
        self.at += end.map_or(rest.len(), |at| at + 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Vec<(String, Vec<Operand>)> {
        let mut lexer = Lexer::new(data);
        let mut operands = Operands::default();
        let mut out = Vec::new();
        while let Some(operator) = lexer.next(&mut operands) {
            out.push((String::from_utf8_lossy(operator).into(), operands.items.clone()));
        }
        out
    }

    #[test]
    fn operands_of_every_kind() {
        let mut lexer = Lexer::new(b"[(a\\(b\\051\\n) -12.5 <4 1F>]TJ/N#61me <</K/V>>BDC");
        let mut operands = Operands::default();
        assert_eq!(lexer.next(&mut operands), Some(&b"TJ"[..]));
        assert_eq!(operands.text(operands.items[1]), Some(&b"a(b)\n"[..]));
        assert_eq!(operands.items[2], Operand::Number(-12.5));
        assert_eq!(operands.text(operands.items[3]), Some(&b"A\xf0"[..]));
        assert_eq!(lexer.next(&mut operands), Some(&b"BDC"[..]));
        assert_eq!(operands.name(0), Some(&b"Name"[..]));
        assert!(matches!(operands.after(b"K"), Some(Operand::Name(..))));
        assert_eq!(lexer.next(&mut operands), None);
    }

    #[test]
    fn garbage_and_images_are_stepped_over() {
        let ops = read(b"1 0 m ) } \xff\xfe 2 w BI /W 4 ID \x01 EI \x02 EI Q % note\n--3 Td");
        let names: Vec<_> = ops.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["m", "\u{fffd}\u{fffd}", "w", "Q", "Td"]);
        assert_eq!(ops[4].1, [Operand::Number(-3.0)]);
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        assert_eq!(read(&[b'['; 200_000]), []);
        assert_eq!(read(&[b'('; 200_000]), []);
    }
}
