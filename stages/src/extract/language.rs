//! The language of a text, by its letters (the crate `whatlang`, trigrams).

/// As much of a text as is looked at, bytes.
const MOST: usize = 1 << 16;

/// The ISO 639-3 code of the language, where it is sure; `None` for texts too short or too mixed.
pub fn language(text: &str) -> Option<&'static str> {
    // The middle is prose more often than the beginning, with its names and contents.
    let from = text.floor_char_boundary(text.len().saturating_sub(MOST) / 2);
    let to = text.floor_char_boundary((from + MOST).min(text.len()));
    let info = whatlang::detect(&text[from..to])?;
    info.is_reliable().then(|| info.lang().code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart() {
        let english =
            "The estimator is consistent under weak conditions on the process. ".repeat(3);
        let german =
            "Der Schätzer ist unter schwachen Bedingungen an den Prozess konsistent. ".repeat(3);
        assert_eq!(language(&english), Some("eng"));
        assert_eq!(language(&german), Some("deu"));
        assert_eq!(language("1 2 3"), None);
        assert_eq!(language(&german.repeat(2000)), Some("deu"));
    }
}
