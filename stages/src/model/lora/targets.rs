//! Which layers a list of patterns means.
//!
//! A pattern without `*` and `?` is a whole name or its end after a dot, as PEFT has it; with them
//! it is a glob over a whole name or such an end.

use crate::{Result, StageError};

/// The pattern that means every linear layer of the blocks, as in PEFT, but for routers of experts: to
/// send tokens elsewhere is to undo what the experts have learned. A router's name is `mlp.gate`.
pub const ALL_LINEAR: &str = "all-linear";

/// Whether a layer is a router of experts.
pub fn router(name: &str) -> bool {
    name.ends_with(".mlp.gate")
}

/// Whether a layer's name matches a pattern of the list.
pub fn covers(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// An error for a pattern that matches none of the names.
pub fn check(patterns: &[String], names: &[String]) -> Result<()> {
    let idle = patterns.iter().find(|pattern| !names.iter().any(|name| matches(pattern, name)));
    let Some(idle) = idle else { return Ok(()) };
    let mut ends: Vec<&str> = names.iter().map(|name| end(name)).collect();
    let mut seen = std::collections::BTreeSet::new();
    ends.retain(|end| seen.insert(*end));
    let example = names.first().map_or("", String::as_str);
    Err(StageError::failed(format!("`lora.targets`: no layer matches `{idle}`")).hint(format!(
        "there are {}, with names such as `{example}`; or `{ALL_LINEAR}`",
        ends.join(", ")
    )))
}

/// The names as PEFT's `target_modules`: the ends of names where all layers of that end are covered,
/// else whole names.
pub fn peft<'a>(covered: &[&'a str], all: &[&'a str]) -> Vec<&'a str> {
    let whole = |last: &str| {
        let count = |names: &[&str]| names.iter().filter(|name| end(name) == last).count();
        count(covered) == count(all)
    };
    let mut out: Vec<&str> =
        covered.iter().map(|name| if whole(end(name)) { end(name) } else { *name }).collect();
    out.sort_unstable();
    out.dedup();
    out
}

fn end(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn matches(pattern: &str, name: &str) -> bool {
    if pattern == ALL_LINEAR {
        return !router(name);
    }
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(i, _)| i + 1);
    std::iter::once(0).chain(ends).any(|from| glob(pattern, &name[from..]))
}

/// `*` is any text and `?` any byte. Linear in the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_their_ends_or_globs() {
        let name = "model.layers.12.self_attn.q_proj";
        let yes = [
            "q_proj",
            "self_attn.q_proj",
            name,
            "*_proj",
            "?_proj",
            "layers.1?.*",
            "model.layers.*.self_attn.*",
            "self_attn.*",
            ALL_LINEAR,
        ];
        let no = ["_proj", "proj", "q", "layers.12", "layers.2.*", "mlp.*", "", "q_proj.*"];
        for pattern in yes {
            assert!(covers(&[pattern.into()], name), "{pattern}");
        }
        for pattern in no {
            assert!(!covers(&[pattern.into()], name), "{pattern}");
        }
    }

    #[test]
    fn experts_are_linear_layers_and_their_router_is_one_by_its_name_alone() {
        let (expert, router) = ("model.layers.0.mlp.experts.7.up_proj", "model.layers.0.mlp.gate");
        for pattern in ["up_proj", "experts.7.*", "mlp.*", ALL_LINEAR] {
            assert!(covers(&[pattern.into()], expert), "{pattern}");
        }
        assert!(covers(&["mlp.gate".into()], router) && covers(&["gate".into()], router));
        assert!(!covers(&[ALL_LINEAR.into(), "gate_proj".into()], router));
    }

    #[test]
    fn an_idle_pattern_is_an_error_that_names_what_there_is() {
        let names = ["a.0.q_proj".into(), "a.0.up_proj".into(), "a.1.q_proj".into()];
        check(&["q_proj".into(), "a.1.*".into()], &names).unwrap();
        let e = check(&["q_proj".into(), "w_proj".into()], &names).unwrap_err();
        assert_eq!(e.to_string(), "`lora.targets`: no layer matches `w_proj`");
        assert!(e.help().unwrap().contains("q_proj, up_proj, with names such as `a.0.q_proj`"));
    }

    #[test]
    fn peft_gets_ends_where_they_say_all_and_names_else() {
        let all = ["a.0.q", "a.0.k", "a.1.q", "a.1.k"];
        assert_eq!(peft(&["a.0.q", "a.1.q", "a.1.k"], &all), ["a.1.k", "q"]);
    }
}
