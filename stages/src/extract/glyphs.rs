//! Glyph names to Unicode: what a font calls a glyph says which character it shows.
//!
//! Most TeX papers have no ToUnicode map, so names are all there is. The names of the Adobe Glyph
//! List (`data/glyphlist.txt`, Adobe's own file, Apache 2.0) come first, then those of TeX's maths
//! fonts, then the rules for composed names (`uni0041`, `f_i`, `a.alt`). It does not know which
//! font a name came from, apart from Type 3 fonts whose names are codes ([`code_of`]).

use std::collections::HashMap;
use std::sync::LazyLock;

static LIST: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("data/glyphlist.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(';')).collect()
});

static TEX: LazyLock<HashMap<&'static str, &'static str>> =
    LazyLock::new(|| TEX_NAMES.iter().copied().collect());

/// Names of TeX's maths fonts that the Adobe Glyph List lacks, or where it means another sign (its
/// `Delta` is the increment and its `mu` the micro sign; papers mean the Greek letters). The upper
/// halves of stacked delimiters stand for the whole, the other pieces for nothing.
const TEX_NAMES: &[(&str, &str)] = &[
    ("Delta", "Δ"),
    ("Omega", "Ω"),
    ("mu", "μ"),
    ("epsilon1", "ϵ"),
    ("pi1", "ϖ"),
    ("rho1", "ϱ"),
    ("lscript", "ℓ"),
    ("star", "⋆"),
    ("vector", "\u{20d7}"),
    ("tie", "\u{361}"),
    ("dotlessj", "ȷ"),
    ("ff", "ff"),
    ("diamondmath", "⋄"),
    ("minusplus", "∓"),
    ("circleminus", "⊖"),
    ("circledivide", "⊘"),
    ("circledot", "⊙"),
    ("circlecopyrt", "©"),
    ("equivasymptotic", "≍"),
    ("precedesequal", "⪯"),
    ("followsequal", "⪰"),
    ("precedes", "≺"),
    ("follows", "≻"),
    ("lessmuch", "≪"),
    ("greatermuch", "≫"),
    ("similarequal", "≃"),
    ("approxequal", "≈"),
    ("arrownortheast", "↗"),
    ("arrowsoutheast", "↘"),
    ("arrownorthwest", "↖"),
    ("arrowsouthwest", "↙"),
    ("arrowlefttophalf", "↼"),
    ("arrowleftbothalf", "↽"),
    ("arrowrighttophalf", "⇀"),
    ("arrowrightbothalf", "⇁"),
    ("arrowhookleft", ""),
    ("arrowhookright", ""),
    ("arrowbothv", "↕"),
    ("arrowdblbothv", "⇕"),
    ("owner", "∋"),
    ("triangle", "△"),
    ("triangleinv", "▽"),
    ("triangleright", "▷"),
    ("triangleleft", "◁"),
    ("negationslash", "\u{338}"),
    ("mapsto", "↦"),
    ("latticetop", "⊤"),
    ("unionmulti", "⊎"),
    ("unionsq", "⊔"),
    ("intersectionsq", "⊓"),
    ("turnstileleft", "⊢"),
    ("turnstileright", "⊣"),
    ("floorleft", "⌊"),
    ("floorright", "⌋"),
    ("ceilingleft", "⌈"),
    ("ceilingright", "⌉"),
    ("angbracketleft", "⟨"),
    ("angbracketright", "⟩"),
    ("bardbl", "‖"),
    ("wreathproduct", "≀"),
    ("coproduct", "∐"),
    ("subsetsqequal", "⊑"),
    ("supersetsqequal", "⊒"),
    ("contintegral", "∮"),
    ("vextendsingle", "|"),
    ("vextenddouble", "‖"),
    ("hatwide", "ˆ"),
    ("hatwider", "ˆ"),
    ("hatwidest", "ˆ"),
    ("tildewide", "˜"),
    ("tildewider", "˜"),
    ("tildewidest", "˜"),
    ("parenlefttp", "("),
    ("parenrighttp", ")"),
    ("bracketlefttp", "["),
    ("bracketrighttp", "]"),
    ("bracelefttp", "{"),
    ("bracerighttp", "}"),
    ("parenleftbt", ""),
    ("parenrightbt", ""),
    ("parenleftex", ""),
    ("parenrightex", ""),
    ("bracketleftbt", ""),
    ("bracketrightbt", ""),
    ("bracketleftex", ""),
    ("bracketrightex", ""),
    ("braceleftbt", ""),
    ("bracerightbt", ""),
    ("braceleftmid", ""),
    ("bracerightmid", ""),
    ("braceex", ""),
    ("radicalbt", "√"),
    ("radicalvertex", ""),
    ("radicaltp", ""),
    ("arrowvertexdbl", "‖"),
    ("arrowtp", "↑"),
    ("arrowbt", "↓"),
    ("arrowdbltp", "⇑"),
    ("arrowdblbt", "⇓"),
    ("bracehtipdownleft", ""),
    ("bracehtipdownright", ""),
    ("bracehtipupleft", ""),
    ("bracehtipupright", ""),
    ("squaredot", "⊡"),
    ("squareplus", "⊞"),
    ("squaremultiply", "⊠"),
    ("squareminus", "⊟"),
    ("squaresolid", "■"),
    ("squaresmallsolid", "▪"),
    ("diamondsolid", "◆"),
    ("defines", "≜"),
    ("lessorsimilar", "≲"),
    ("greaterorsimilar", "≳"),
    ("lessorapproxeql", "⪅"),
    ("greaterorapproxeql", "⪆"),
    ("lessorequalslant", "⩽"),
    ("greaterorequalslant", "⩾"),
    ("lessdblequal", "≦"),
    ("greaterdblequal", "≧"),
    ("lessorgreater", "≶"),
    ("greaterorless", "≷"),
    ("precedesorcurly", "≼"),
    ("followsorcurly", "≽"),
    ("precedesorequal", "⪷"),
    ("followsorequal", "⪸"),
    ("dblarrowright", "⇉"),
    ("dblarrowleft", "⇇"),
    ("squiggleright", "⇝"),
    ("squiggleleftright", "↭"),
    ("multimap", "⊸"),
    ("equalsdots", "≑"),
    ("circleequal", "≗"),
    ("squareimage", "⊏"),
    ("squareoriginal", "⊐"),
    ("trianglerightequal", "⊵"),
    ("triangleleftequal", "⊴"),
    ("triangleleftsld", "◀"),
    ("trianglerightsld", "▶"),
    ("triangledownsld", "▼"),
    ("trianglesolid", "▲"),
    ("check", "✓"),
    ("forces", "⊩"),
    ("forcesbar", "⊪"),
    ("satisfies", "⊨"),
    ("muchless", "⋘"),
    ("muchgreater", "⋙"),
    ("maltesecross", "✠"),
    ("complement", "∁"),
    ("intercal", "⊺"),
    ("circlering", "⊚"),
    ("circleasterisk", "⊛"),
    ("dotplus", "∔"),
    ("difference", "≏"),
    ("geomequivalent", "≎"),
    ("subsetdbl", "⋐"),
    ("supersetdbl", "⋑"),
    ("primereverse", "‵"),
    ("notlessequal", "≰"),
    ("notgreaterequal", "≱"),
    ("notless", "≮"),
    ("notgreater", "≯"),
    ("notprecedes", "⊀"),
    ("notfollows", "⊁"),
    ("lessnotequal", "⪇"),
    ("greaternotequal", "⪈"),
    ("notsimilar", "≁"),
    ("notapproxequal", "≇"),
    ("notsubseteql", "⊈"),
    ("notsuperseteql", "⊉"),
    ("subsetnoteql", "⊊"),
    ("supersetnoteql", "⊋"),
    ("notparallel", "∦"),
    ("notbar", "∤"),
    ("notturnstile", "⊬"),
    ("notsatisfies", "⊭"),
    ("notarrowleft", "↚"),
    ("notarrowright", "↛"),
    ("notdblarrowleft", "⇍"),
    ("notdblarrowright", "⇏"),
    ("notexistential", "∄"),
    ("dividemultiply", "⋇"),
    ("planckover2pi", "ℏ"),
    ("planckover2pi1", "ℏ"),
    ("equalorsimilar", "≂"),
    ("beth", "ℶ"),
    ("gimel", "ℷ"),
    ("daleth", "ℸ"),
    ("lessdot", "⋖"),
    ("greaterdot", "⋗"),
    ("multicloseleft", "⋉"),
    ("multicloseright", "⋊"),
    ("barshort", "∣"),
    ("parallelshort", "∥"),
    ("approxorequal", "≊"),
    ("Digamma", "Ϝ"),
    ("epsiloninv", "϶"),
    ("prime", "′"),
    ("sharp", "♯"),
    ("flat", "♭"),
    ("natural", "♮"),
    ("Ifractur", "ℑ"),
    ("Rfractur", "ℜ"),
    ("arrowvertex", "|"),
    ("square", "□"),
    ("frown", "⌢"),
    ("smile", "⌣"),
    ("between", "≬"),
    ("Yen", "¥"),
    ("circleR", "®"),
    ("circleS", "Ⓢ"),
    ("nand", "⊼"),
    ("measuredangle", "∡"),
    ("sphericalangle", "∢"),
    ("lessequalgreater", "⋚"),
    ("greaterlessequal", "⋛"),
    ("lessdbleqlgreater", "⪋"),
    ("greaterdbleqlless", "⪌"),
    ("lessornotequal", "≨"),
    ("greaterornotequal", "≩"),
    ("lessornotsimilar", "⋦"),
    ("greaterornotsimilar", "⋧"),
    ("notlessorslnteql", "≰"),
    ("notgreaterorslnteql", "≱"),
    ("notlessdblequal", "≰"),
    ("notgreaterdblequal", "≱"),
    ("notprecedesoreql", "⋠"),
    ("notfollowsoreql", "⋡"),
    ("notsubsetoreql", "⊈"),
    ("notsupersetoreql", "⊉"),
    ("subsetornoteql", "⊊"),
    ("supersetornoteql", "⊋"),
    ("subsetdblequal", "⫅"),
    ("supersetdblequal", "⫆"),
    ("nottriangleleft", "⋪"),
    ("nottriangleright", "⋫"),
    ("nottriangeqlleft", "⋬"),
    ("nottriangeqlright", "⋭"),
    ("notarrowboth", "↮"),
    ("notdblarrowboth", "⇎"),
    ("notforces", "⊮"),
    ("notshortbar", "∤"),
    ("notshortparallel", "∦"),
    ("harpoonleftright", "⇋"),
    ("harpoonrightleft", "⇌"),
    ("harpoonupright", "↾"),
    ("harpoonupleft", "↿"),
    ("harpoondownright", "⇂"),
    ("harpoondownleft", "⇃"),
    ("dblarrowup", "⇈"),
    ("dblarrowdwn", "⇊"),
    ("dblarrowheadright", "↠"),
    ("dblarrowheadleft", "↞"),
    ("arrowtailright", "↣"),
    ("arrowtailleft", "↢"),
    ("arrowtripleright", "⇛"),
    ("arrowtripleleft", "⇚"),
    ("arrowparrleftright", "⇆"),
    ("arrowparrrightleft", "⇄"),
    ("equaldotleftright", "≒"),
    ("equaldotrightleft", "≓"),
    ("ringinequal", "≖"),
    ("equalorless", "⋜"),
    ("equalorgreater", "⋝"),
    ("equalorprecedes", "⋞"),
    ("equalorfollows", "⋟"),
    ("intersectiondbl", "⋒"),
    ("uniondbl", "⋓"),
    ("multiopenleft", "⋋"),
    ("multiopenright", "⋌"),
    ("revsimilar", "∽"),
    ("revasymptequal", "⋍"),
    ("shiftleft", "↰"),
    ("shiftright", "↱"),
    ("clockwise", "↻"),
    ("anticlockwise", "↺"),
    ("rightanglenw", "⌜"),
    ("rightanglene", "⌝"),
    ("rightanglesw", "⌞"),
    ("rightanglese", "⌟"),
    ("Finv", "Ⅎ"),
    ("Gmir", "⅁"),
    ("colonequal", "≔"),
    ("nequal", "≠"),
    ("nelement", "∉"),
    ("iinteg", "∬"),
    ("iiinteg", "∭"),
    ("suppress", ""),
    ("visiblespace", " "),
    ("compwordmark", ""),
    ("perthousandzero", ""),
    ("rangedash", "–"),
    ("punctdash", "—"),
    ("hyphenchar", "-"),
    ("sfthyphen", "-"),
    ("softhyphen", "-"),
    ("Germandbls", "SS"),
    ("quoteleftreversed", "‛"),
    ("nbspace", " "),
    ("nonbreakingspace", " "),
    ("mho", "℧"),
];

/// Size suffixes of TeX's extension font: `summationdisplay` is a `summation`.
const SIZES: &[&str] = &["display", "text", "Bigg", "bigg", "Big", "big"];

/// Appends what the glyph `name` shows. False where the name says nothing.
pub fn push(name: &str, out: &mut String) -> bool {
    if known(name, out) {
        return true;
    }
    // A variant: `a.alt`, `one.oldstyle`, `seven.tab`.
    if let Some((stem, _)) = name.split_once('.') {
        return !stem.is_empty() && push(stem, out);
    }
    // A ligature: `f_i`.
    if name.contains('_') {
        let mark = out.len();
        if name.split('_').all(|part| known(part, out)) {
            return true;
        }
        out.truncate(mark);
    }
    SIZES.iter().any(|size| name.strip_suffix(size).is_some_and(|root| known(root, out)))
}

fn known(name: &str, out: &mut String) -> bool {
    if let Some(text) = TEX.get(name) {
        out.push_str(text);
        return true;
    }
    if let Some(codes) = LIST.get(name) {
        let mark = out.len();
        out.extend(codes.split(' ').filter_map(hex));
        if let Some(c) = out[mark..].chars().find(|c| private(*c)) {
            out.truncate(mark);
            let whole = corporate(c).inspect(|text| out.push_str(text)).is_some();
            return whole || small_capital(name, out);
        }
        return out.len() > mark;
    }
    if let Some(digits) = name.strip_prefix("uni")
        && digits.len() >= 4
        && digits.len() % 4 == 0
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        let mark = out.len();
        let fours = (0..digits.len()).step_by(4).filter_map(|at| digits.get(at..at + 4));
        out.extend(fours.filter_map(hex).filter(|c| !private(*c)));
        return out.len() > mark;
    }
    let unicode = name.strip_prefix('u').filter(|digits| (4..=6).contains(&digits.len()));
    if let Some(c) = unicode.and_then(hex).filter(|c| !private(*c)) {
        out.push(c);
        return true;
    }
    small_capital(name, out)
}

/// `Asmall` is a small capital A, `zerooldstyle` a 0: the list gives both private codes.
fn small_capital(name: &str, out: &mut String) -> bool {
    if let Some(root) = name.strip_suffix("oldstyle") {
        return !root.is_empty() && known(root, out);
    }
    let root = name.strip_suffix("small").filter(|root| root.len() == 1);
    out.extend(root.into_iter().flat_map(|root| root.chars()).flat_map(char::to_lowercase));
    root.is_some()
}

fn hex(digits: &str) -> Option<char> {
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten().and_then(char::from_u32)
}

/// Whether the character means something in one font only.
pub fn private(c: char) -> bool {
    matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
}

/// Adobe's private characters, for the pieces of tall delimiters and the marks in two styles; as
/// with their names, the upper piece stands for the whole.
pub fn corporate(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{f8e6}' => "|",
        '\u{f8e8}' | '\u{f6da}' => "®",
        '\u{f8e9}' | '\u{f6d9}' => "©",
        '\u{f8ea}' | '\u{f6db}' => "™",
        '\u{f8eb}' => "(",
        '\u{f8ee}' => "[",
        '\u{f8f1}' => "{",
        '\u{f8f6}' => ")",
        '\u{f8f9}' => "]",
        '\u{f8fc}' => "}",
        '\u{f8e5}'..='\u{f8fe}' => "",
        _ => return None,
    })
}

/// The code that a name such as `a65`, `g12`, `C0041` or `char33` spells in decimal, for bitmap
/// fonts whose names are their codes.
pub fn code_of(name: &str) -> Option<u8> {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = name.len() - digits.len();
    (1..=4).contains(&letters).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> Option<String> {
        let mut out = String::new();
        push(name, &mut out).then_some(out)
    }

    #[test]
    fn names_of_text_maths_and_composition() {
        for (name, want) in [
            ("A", "A"),
            ("Delta", "Δ"),
            ("alpha", "α"),
            ("quoteright", "’"),
            ("fi", "\u{fb01}"),
            ("f_f_i", "ffi"),
            ("a.alt", "a"),
            ("uni03B1", "α"),
            ("uni00410042", "AB"),
            ("u1D6FC", "𝛼"),
            ("summationdisplay", "∑"),
            ("integraltext", "∫"),
            ("parenleftBigg", "("),
            ("bracketleftbig", "["),
            ("parenleftbt", ""),
            ("zerooldstyle", "0"),
            ("Asmall", "a"),
            ("greaterorequalslant", "⩾"),
        ] {
            assert_eq!(text(name).as_deref(), Some(want), "{name}");
        }
        for name in ["", ".notdef", "g23", "uniXYZW", "uni+041", "xyzzy"] {
            assert_eq!(text(name), None, "{name}");
        }
        assert_eq!(code_of("a65"), Some(65));
        assert_eq!(code_of("alpha"), None);
        assert_eq!(code_of("a999"), None);
    }
}
