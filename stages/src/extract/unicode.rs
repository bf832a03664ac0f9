//! Normalisation of characters: ligatures apart, accents composed, invisible ones gone.
//!
//! NFC and no more: NFKC would flatten superscripts and the mathematical alphabets.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Appends `text`, with ligatures apart and without what cannot be seen.
pub fn push_clean(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\u{fb00}' => out.push_str("ff"),
            '\u{fb01}' => out.push_str("fi"),
            '\u{fb02}' => out.push_str("fl"),
            '\u{fb03}' => out.push_str("ffi"),
            '\u{fb04}' => out.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => out.push_str("st"),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\t' => {
                out.push(' ');
            }
            // Soft hyphen, zero-width characters, direction marks, byte-order mark.
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{feff}'
            | '\u{fe00}'..='\u{fe0f}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

/// The text in NFC.
pub fn composed(text: String) -> String {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => text.nfc().collect(),
    }
}

/// The combining mark of a spacing accent, which TeX prints beside the letter that it sits on.
pub fn combining(accent: char) -> Option<char> {
    Some(match accent {
        '`' | '\u{2cb}' => '\u{300}',
        '´' | '\u{2ca}' => '\u{301}',
        '^' | 'ˆ' => '\u{302}',
        '~' | '˜' => '\u{303}',
        '¯' | '\u{2c9}' => '\u{304}',
        '˘' => '\u{306}',
        '˙' => '\u{307}',
        '¨' => '\u{308}',
        '˚' => '\u{30a}',
        '˝' => '\u{30b}',
        'ˇ' => '\u{30c}',
        '¸' => '\u{327}',
        '˛' => '\u{328}',
        '\u{300}'..='\u{36f}' | '\u{20d0}'..='\u{20ff}' => accent,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ligatures_part_and_accents_compose() {
        let mut out = String::new();
        push_clean("e\u{fb03}cient\u{ad}ly\u{a0}\u{200b}x\u{b2} 𝛼 e\u{301}", &mut out);
        assert_eq!(composed(out), "efficiently x² 𝛼 é");
        assert_eq!(combining('´'), Some('\u{301}'));
        assert_eq!(combining('a'), None);
    }
}
