//! The encoding that a Type 1 font program brings along: its clear-text head says which name each
//! code has.
//!
//! Nothing is executed or decrypted; the outlines are not wanted.

/// Reads the built-in encoding: (code, glyph name) pairs. `None` where the program says
/// StandardEncoding, or nothing that can be read.
pub fn encoding(program: &[u8]) -> Option<Vec<(u8, String)>> {
    let head = find(program, b"eexec").map_or(program, |end| &program[..end]);
    let start = find(head, b"/Encoding")?;
    let body = &head[start + b"/Encoding".len()..];
    let mut words = words(body);
    if words.next()? == b"StandardEncoding" {
        return None;
    }
    let mut out = Vec::new();
    let mut before: [&[u8]; 2] = [b"", b""];
    for word in words.take(1 << 14) {
        // dup CODE /NAME put
        if word == b"put"
            && let [code, name] = before
            && let (Some(code), Some(name)) = (number(code), name.strip_prefix(b"/"))
            && name != b".notdef"
        {
            out.push((code, String::from_utf8_lossy(name).into_owned()));
        }
        if word == b"def" || word == b"readonly" {
            break;
        }
        before = [before[1], word];
    }
    (!out.is_empty()).then_some(out)
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

/// Words apart by white space or before a slash.
fn words(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let len = rest.iter().skip(1).position(|&b| b.is_ascii_whitespace() || b == b'/');
        let len = len.map_or(rest.len(), |at| at + 1);
        let (word, after) = rest.split_at(len);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// A code in decimal or, as `8#101`, with its radix.
fn number(word: &[u8]) -> Option<u8> {
    let word = std::str::from_utf8(word).ok()?;
    match word.split_once('#') {
        Some((radix, digits)) => {
            let radix = radix.parse().ok().filter(|radix| (2..=36).contains(radix))?;
            u8::from_str_radix(digits, radix).ok()
        }
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_head() {
        let program = b"%!PS-AdobeFont-1.1: CMMI10\n/Encoding 256 array\n\
            0 1 255 {1 index exch /.notdef put} for\ndup 11/alpha put\ndup 8#101 /A put\n\
            dup 12 /.notdef put\nreadonly def\ncurrentfile eexec dup 13 /gamma put";
        let want = vec![(11, "alpha".to_owned()), (65, "A".to_owned())];
        assert_eq!(encoding(program), Some(want));
        assert_eq!(encoding(b"/Encoding StandardEncoding def eexec"), None);
        assert_eq!(encoding(b"/Encoding"), None);
        assert_eq!(encoding(b""), None);
    }
}
