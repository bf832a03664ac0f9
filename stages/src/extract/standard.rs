//! What a reader of PDF must know by heart: the standard encodings and the widths of the fourteen
//! fonts that a file need not embed.
//!
//! Encodings map codes to characters, not to names: only the text is wanted. Beside PDF's own
//! there are TeX's OT1, T1 and TS1 layouts, for bitmap fonts that name their glyphs by code. Widths
//! cover the printable ASCII range; an accented letter takes its base letter's.

/// Text of the codes of a simple font; `None` where the encoding has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Adobe's StandardEncoding.
    Standard,
    /// Windows code page 1252.
    WinAnsi,
    /// Mac OS Roman.
    MacRoman,
    /// The Symbol font's own.
    Symbol,
    /// TeX's seven-bit text layout.
    Ot1,
    /// TeX's eight-bit text layout (Cork).
    T1,
    /// TeX's signs beside the text (text companion).
    Ts1,
    /// Zapf Dingbats' own: bullets, marks and numbers in circles.
    Dingbats,
}

const STANDARD_HIGH: &str = "¡¢£⁄¥ƒ§¤'“«‹›\u{fb01}\u{fb02}\0–†‡·\0¶•‚„”»…‰\0¿\
\0`´ˆ˜¯˘˙¨\0˚¸\0˝˛ˇ—\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0Æ\0ª\0\0\0\0ŁØŒº\0\0\0\0\0æ\0\0\0ı\0\0łøœß";
const CP1252_HIGH: &str = "€\0‚ƒ„…†‡ˆ‰Š‹Œ\0Ž\0\0‘’“”•–—˜™š›œ\0žŸ";
const MAC_HIGH: &str = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
¿¡¬√ƒ≈∆«»… ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›\u{fb01}\u{fb02}‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\0ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const SYMBOL_LOW: &str = " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_\
‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼";
const SYMBOL_HIGH: &str = "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓\
◊⟨®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪\0⟩∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭";
const OT1_LOW: &str = "ΓΔΘΛΞΠΣΥΦΨΩ\u{fb00}\u{fb01}\u{fb02}\u{fb03}\u{fb04}ıȷ`´ˇ˘¯˚¸ßæœøÆŒØ";
const T1_LOW: &str = "`´ˆ˜¨˝˚ˇ˘¯˙¸˛‚‹›“”„«»–—\u{200b}\0ıȷ\u{fb00}\u{fb01}\u{fb02}\u{fb03}\u{fb04}";
const T1_HIGH: &str = "ĂĄĆČĎĚĘĞĹĽŁŃŇŊŐŔŘŚŠŞŤŢŰŮŸŹŽŻĲİđ§ăąćčďěęğĺľłńňŋőŕřśšşťţűůÿźžżĳ¡¿£\
ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖŒØÙÚÛÜÝÞ\0àáâãäåæçèéêëìíîïðñòóôõöœøùúûüýþß";
const TS1_HIGH: &str = "˘ˇ˝\0†‡‖‰•℃$¢ƒ₡₩₦₲₱₤℞‽⸘₫™‱¶฿№⁒℮◦℠⁅⁆¢£¤¥¦§¨©ª\0¬℗®¯°±²³´µ¶·※¹º√¼½¾€";

impl Encoding {
    /// The encoding that a PDF calls `name`.
    pub fn named(name: &[u8]) -> Option<Encoding> {
        Some(match name {
            b"StandardEncoding" => Encoding::Standard,
            b"WinAnsiEncoding" | b"PDFDocEncoding" => Encoding::WinAnsi,
            b"MacRomanEncoding" => Encoding::MacRoman,
            _ => return None,
        })
    }

    /// The characters of all 256 codes.
    pub fn table(self) -> [Option<char>; 256] {
        let mut table = [None; 256];
        let mut fill = |from: usize, text: &str| {
            for (slot, c) in table.iter_mut().skip(from).zip(text.chars()) {
                *slot = (c != '\0').then_some(c);
            }
        };
        let ascii: String = (' '..='~').collect();
        let latin: String = ('\u{a0}'..='\u{ff}').collect();
        match self {
            Encoding::Standard => {
                fill(32, &ascii);
                fill(39, "’");
                fill(96, "‘");
                fill(161, STANDARD_HIGH);
            }
            Encoding::WinAnsi => {
                fill(32, &ascii);
                fill(128, CP1252_HIGH);
                fill(160, &latin);
            }
            Encoding::MacRoman => {
                fill(32, &ascii);
                fill(128, MAC_HIGH);
            }
            Encoding::Symbol => {
                fill(32, SYMBOL_LOW);
                fill(160, SYMBOL_HIGH);
            }
            Encoding::Ot1 => {
                fill(32, &ascii);
                fill(0, OT1_LOW);
                // 60 and 62 stay `<` and `>`, as in the typewriter fonts; the text fonts' inverted
                // marks are the rarer ones.
                for (code, c) in [(34, "”"), (39, "’"), (92, "“")] {
                    fill(code, c);
                }
                fill(94, "ˆ˙‘");
                fill(123, "–—˝˜¨");
            }
            Encoding::T1 => {
                fill(32, &ascii);
                fill(0, T1_LOW);
                fill(39, "’");
                fill(96, "‘");
                fill(127, "-");
                fill(128, T1_HIGH);
            }
            Encoding::Ts1 => {
                fill(48, &ascii[16..26]);
                fill(42, "∗");
                fill(128, TS1_HIGH);
                fill(214, "×");
                fill(246, "÷");
            }
            Encoding::Dingbats => {
                fill(33, &('\u{2701}'..='\u{275e}').collect::<String>());
                fill(161, &('\u{2761}'..='\u{2767}').collect::<String>());
                fill(172, &('①'..='⑩').collect::<String>());
                fill(182, &('\u{2776}'..='\u{27be}').collect::<String>());
                let elsewhere =
                    [(37, "☎"), (42, "☛☞"), (72, "★"), (108, "●"), (110, "■"), (115, "▲▼◆")];
                for (code, c) in
                    elsewhere.into_iter().chain([(119, "◗"), (168, "♣♦♥♠"), (213, "→↔↕")])
                {
                    fill(code, c);
                }
            }
        }
        table
    }
}

/// Widths of a font that need not be embedded, in thousandths of an em.
#[derive(Clone, Copy, Debug)]
pub enum Widths {
    /// Every glyph alike.
    Fixed,
    /// By character, from the space.
    Text(&'static [u16; 95]),
    /// By code of Symbol's encoding, from 32.
    Symbol,
}

impl Widths {
    /// The widths of the standard font that `name` is, or is most like.
    pub fn of(name: &str) -> Widths {
        let low = name.to_ascii_lowercase();
        let bold = low.contains("bold") || low.contains("black") || low.contains("demi");
        let slanted = low.contains("italic") || low.contains("oblique");
        let serif = ["times", "roman", "serif", "nimbusrom", "georgia", "garamond", "palatino"];
        if low.contains("courier") || low.contains("mono") || low.contains("typewriter") {
            Widths::Fixed
        } else if low.starts_with("symbol") {
            Widths::Symbol
        } else if serif.iter().any(|part| low.contains(part)) && !low.contains("sans") {
            Widths::Text(match (bold, slanted) {
                (false, false) => &TIMES,
                (true, false) => &TIMES_BOLD,
                (false, true) => &TIMES_ITALIC,
                (true, true) => &TIMES_BOLD_ITALIC,
            })
        } else if bold {
            Widths::Text(&HELVETICA_BOLD)
        } else {
            Widths::Text(&HELVETICA)
        }
    }

    /// The width of what `code` shows as `c`.
    pub fn get(self, code: u8, c: Option<char>) -> f32 {
        use unicode_normalization::UnicodeNormalization;
        let width = match self {
            Widths::Fixed => Some(600),
            Widths::Symbol => SYMBOL.get(usize::from(code).wrapping_sub(32)).copied(),
            Widths::Text(table) => {
                let plain = c.and_then(|c| match c {
                    '’' | '‘' => Some(','),
                    '–' => Some('n'),
                    '—' => Some('M'),
                    c => c.nfd().next(),
                });
                let at = plain.map(|c| (c as usize).wrapping_sub(32));
                at.and_then(|at| table.get(at)).copied()
            }
        };
        f32::from(width.unwrap_or(556))
    }
}

/// Helvetica and its oblique.
const HELVETICA: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 222, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556,
    556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667,
    611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667,
    667, 611, 278, 278, 278, 469, 556, 222, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500,
    222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];
/// Helvetica-Bold and its oblique.
const HELVETICA_BOLD: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 278, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556,
    556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611, 975, 722, 722, 722, 722, 667,
    611, 778, 722, 278, 556, 722, 611, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667,
    667, 611, 333, 278, 333, 584, 556, 278, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556,
    278, 889, 611, 611, 611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584,
];
/// Times-Roman.
const TIMES: [u16; 95] = [
    250, 333, 408, 500, 500, 833, 778, 333, 333, 333, 500, 564, 250, 333, 250, 278, 500, 500, 500,
    500, 500, 500, 500, 500, 500, 500, 278, 278, 564, 564, 564, 444, 921, 722, 667, 667, 722, 611,
    556, 722, 722, 333, 389, 722, 611, 889, 722, 722, 556, 722, 667, 556, 611, 722, 722, 944, 722,
    722, 611, 333, 278, 333, 469, 500, 333, 444, 500, 444, 500, 444, 333, 500, 500, 278, 278, 500,
    278, 778, 500, 500, 500, 500, 333, 389, 278, 500, 500, 722, 500, 500, 444, 480, 200, 480, 541,
];
/// Times-Bold.
const TIMES_BOLD: [u16; 95] = [
    250, 333, 555, 500, 500, 1000, 833, 333, 333, 333, 500, 570, 250, 333, 250, 278, 500, 500, 500,
    500, 500, 500, 500, 500, 500, 500, 333, 333, 570, 570, 570, 500, 930, 722, 667, 722, 722, 667,
    611, 778, 778, 389, 500, 778, 667, 944, 722, 778, 611, 778, 722, 556, 667, 722, 722, 1000, 722,
    722, 667, 333, 278, 333, 581, 500, 333, 500, 556, 444, 556, 444, 333, 500, 556, 278, 333, 556,
    278, 833, 556, 500, 556, 556, 444, 389, 333, 556, 500, 722, 500, 500, 444, 394, 220, 394, 520,
];
/// Times-Italic.
const TIMES_ITALIC: [u16; 95] = [
    250, 333, 420, 500, 500, 833, 778, 333, 333, 333, 500, 675, 250, 333, 250, 278, 500, 500, 500,
    500, 500, 500, 500, 500, 500, 500, 333, 333, 675, 675, 675, 500, 920, 611, 611, 667, 722, 611,
    611, 722, 722, 333, 444, 667, 556, 833, 667, 722, 611, 722, 611, 500, 556, 722, 611, 833, 611,
    556, 556, 389, 278, 389, 422, 500, 333, 500, 500, 444, 500, 444, 278, 500, 500, 278, 278, 444,
    278, 722, 500, 500, 500, 500, 389, 389, 278, 500, 444, 667, 444, 444, 389, 400, 275, 400, 541,
];
/// Times-BoldItalic.
const TIMES_BOLD_ITALIC: [u16; 95] = [
    250, 389, 555, 500, 500, 833, 778, 333, 333, 333, 500, 570, 250, 333, 250, 278, 500, 500, 500,
    500, 500, 500, 500, 500, 500, 500, 333, 333, 570, 570, 570, 500, 832, 667, 667, 667, 722, 667,
    667, 722, 778, 389, 500, 667, 611, 889, 722, 722, 611, 722, 667, 556, 611, 722, 667, 889, 667,
    611, 611, 333, 278, 333, 570, 500, 333, 500, 500, 444, 500, 444, 333, 500, 556, 278, 278, 500,
    278, 778, 556, 500, 500, 500, 389, 389, 278, 556, 444, 667, 500, 444, 389, 348, 220, 348, 570,
];
/// Symbol, by code from 32.
const SYMBOL: [u16; 223] = [
    250, 333, 713, 500, 549, 833, 778, 439, 333, 333, 500, 549, 250, 549, 250, 278, 500, 500, 500,
    500, 500, 500, 500, 500, 500, 500, 278, 278, 549, 549, 549, 444, 549, 722, 667, 722, 612, 611,
    763, 603, 722, 333, 631, 722, 686, 889, 722, 722, 768, 741, 556, 592, 611, 690, 439, 768, 645,
    795, 611, 333, 863, 333, 658, 500, 500, 631, 549, 549, 494, 439, 521, 411, 603, 329, 603, 549,
    549, 576, 521, 549, 549, 521, 549, 603, 439, 576, 713, 686, 493, 686, 494, 480, 200, 480, 549,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 620, 247, 549, 167, 713, 500, 753, 753, 753, 753, 1042, 987, 603, 987, 603, 400, 549,
    411, 549, 549, 713, 494, 460, 549, 549, 549, 549, 1000, 603, 1000, 658, 823, 686, 795, 987,
    768, 768, 823, 768, 768, 713, 713, 713, 713, 713, 713, 713, 768, 713, 790, 790, 890, 823, 549,
    250, 713, 603, 603, 1042, 987, 603, 987, 603, 494, 329, 790, 790, 786, 713, 384, 384, 384, 384,
    384, 384, 494, 494, 494, 494, 0, 329, 274, 686, 686, 686, 384, 384, 384, 384, 384, 384, 494,
    494, 494,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(encoding: Encoding, code: u8) -> Option<char> {
        encoding.table()[usize::from(code)]
    }

    #[test]
    fn codes_of_each_encoding() {
        use Encoding::*;
        for (encoding, code, want) in [
            (Standard, 0x27, '’'),
            (Standard, 0xa1, '¡'),
            (Standard, 0xae, '\u{fb01}'),
            (Standard, 0xc1, '`'),
            (Standard, 0xcf, 'ˇ'),
            (Standard, 0xd0, '—'),
            (Standard, 0xe1, 'Æ'),
            (Standard, 0xf5, 'ı'),
            (Standard, 0xfb, 'ß'),
            (WinAnsi, 0x80, '€'),
            (WinAnsi, 0x99, '™'),
            (WinAnsi, 0x9f, 'Ÿ'),
            (WinAnsi, 0xe9, 'é'),
            (MacRoman, 0x8e, 'é'),
            (MacRoman, 0xd2, '“'),
            (MacRoman, 0xff, 'ˇ'),
            (Symbol, 0x61, 'α'),
            (Symbol, 0xb3, '≥'),
            (Symbol, 0xe5, '∑'),
            (Symbol, 0xf2, '∫'),
            (Symbol, 0xfe, '⎭'),
            (Ot1, 0, 'Γ'),
            (Ot1, 12, '\u{fb01}'),
            (Ot1, 0x7b, '–'),
            (T1, 0x1c, '\u{fb01}'),
            (T1, 0xa0, 'ă'),
            (T1, 0xe9, 'é'),
            (T1, 0xff, 'ß'),
        ] {
            assert_eq!(at(encoding, code), Some(want), "{encoding:?} {code:#x}");
        }
        assert_eq!(at(Standard, 0xb5), None);
        assert_eq!(at(WinAnsi, 0x81), None);
    }

    #[test]
    fn widths_of_standard_fonts() {
        assert_eq!(Widths::of("Helvetica").get(65, Some('A')), 667.0);
        assert_eq!(Widths::of("Times-Roman").get(0xe9, Some('é')), 444.0);
        assert_eq!(Widths::of("Courier-Bold").get(65, Some('A')), 600.0);
        assert_eq!(Widths::of("Symbol").get(0x61, Some('α')), 631.0);
    }
}
