//! What a `from` names: `input`, `stage`, `stage.output`, `stage@cell`, `stage.output@*`, `./path`.

use super::cells::{Bound, Cell, ITEM};

/// A source, taken apart. Whether it exists is for others to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// An input, a stage or a path.
    pub name: &'a str,
    /// The output of the stage.
    pub port: Option<&'a str>,
    /// Which cells of the stage.
    pub picks: Vec<Pick<'a>>,
}

/// Which cells a source means, by one axis or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    /// `*`: gathers every axis.
    All,
    /// `axis=*`: gathers an axis.
    Gather(&'a str),
    /// `axis=value`, or the name of an item.
    One(&'a str, &'a str),
}

impl<'a> Source<'a> {
    /// Takes a source apart.
    pub fn parse(text: &'a str) -> Source<'a> {
        if is_path(text) {
            return Source { name: text, port: None, picks: Vec::new() };
        }
        let (name, cells) = match text.split_once('@') {
            Some((name, cells)) => (name, Some(cells)),
            None => (text, None),
        };
        let (name, port) = match name.split_once('.') {
            Some((name, port)) => (name, Some(port)),
            None => (name, None),
        };
        let pick = |part: &'a str| match part.trim().split_once('=') {
            Some((axis, "*")) => Pick::Gather(axis),
            Some((axis, value)) => Pick::One(axis, value),
            None if part.trim() == "*" => Pick::All,
            None => Pick::One(ITEM, part.trim()),
        };
        Source {
            name,
            port,
            picks: cells.into_iter().flat_map(|c| c.split(',').map(pick)).collect(),
        }
    }

    /// Whether it gathers cells.
    pub fn gathers(&self) -> bool {
        self.picks.iter().any(|pick| !matches!(pick, Pick::One(..)))
    }

    /// Whether it says which values of an axis it means; other axes are those of the reader.
    pub fn mentions(&self, axis: &str) -> bool {
        self.picks.iter().any(|pick| match pick {
            Pick::All => true,
            Pick::Gather(name) | Pick::One(name, _) => *name == axis,
        })
    }

    /// Whether it gathers an axis.
    pub fn gathers_axis(&self, axis: &str) -> bool {
        self.mentions(axis)
            && !self.picks.iter().any(|p| matches!(p, Pick::One(name, _) if *name == axis))
    }

    /// Whether a cell is one that it means.
    pub fn takes(&self, cell: &Cell) -> bool {
        self.picks.iter().all(|pick| match pick {
            Pick::All => true,
            Pick::Gather(axis) => cell.iter().any(|bound| bound.axis == *axis),
            Pick::One(axis, value) => cell.iter().any(|b| b.axis == *axis && is(b, value)),
        })
    }
}

/// Whether a source is a path rather than a name.
pub fn is_path(text: &str) -> bool {
    text.starts_with("./")
}

/// A value may be picked as it is named, or as it is written.
fn is(bound: &Bound, value: &str) -> bool {
    bound.label == value
        || bound.name == value
        || value.parse::<f64>().is_ok_and(|value| bound.label.parse() == Ok(value))
}
