//! The trait that a stage implements, and [`Kind`]: the same as a row of a table.
//!
//! A stage is a pure function from parameters and input files to output files. It reads no clock,
//! no environment and no path that its [`Context`] did not give it; what it wants random it draws
//! from `Context::seed`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::Value;

use crate::{Context, Format, Judged, Tried};

/// A stage: parameters, ports, and the function from the one to the other.
pub trait Stage {
    /// What a pipeline's `uses:` names.
    const NAME: &'static str;
    /// Rises whenever the bytes of an output may change for the same inputs.
    const VERSION: u32;
    /// One line for the stage list.
    const ABOUT: &'static str;
    /// The outputs depend on `Context::seed`.
    const SEEDED: bool = false;
    /// The stage computes on `Context::device`. It then runs in a process of its own: a GPU driver
    /// may abort, and Burn's seed belongs to the whole process.
    const DEVICE: bool = false;
    /// A run of it tries a model out: it counts when people ask how many were tried on the same data.
    const TRIAL: bool = false;

    /// The stage keeps what it needs to go on, where it is killed, in `Context::resume`.
    const RESUMES: bool = false;

    /// The stage's inputs must lie under the names that people know, because a program looks at
    /// them; otherwise they may be blobs of the store.
    const NAMED: bool = false;

    /// The parameters (`with:`). Fields have serde defaults, doc comments (they become the JSON
    /// Schema's descriptions) and `deny_unknown_fields`.
    type Params: Serialize + DeserializeOwned + JsonSchema;

    /// The inputs it takes with these parameters. A `from:` that is one source feeds the first.
    fn inputs(params: &Self::Params) -> Vec<Port>;
    /// The outputs it makes with these parameters. `from: stage` means the first.
    fn outputs(params: &Self::Params) -> Vec<Port>;
    /// The port over whose files it maps with these parameters: each file is an action of its own,
    /// and every output is a folder, that of what all of them wrote.
    fn items(_params: &Self::Params) -> Option<Items> {
        None
    }
    /// What the types cannot say of the parameters: ranges, and what excludes what.
    fn check(_params: &Self::Params) -> std::result::Result<(), Invalid> {
        Ok(())
    }
    /// What its parameters may name, for `stages NAME`: a title, and what there is under it.
    fn names() -> Option<(&'static str, Vec<Named>)> {
        None
    }
    /// Does the work: reads the inputs, writes every output.
    fn run(params: &Self::Params, ctx: &Context) -> Result<()>;
    /// Of a [`Stage::TRIAL`]: what the one at `own`, or else the best, is worth among all
    /// configurations that were tried on the same data. `None` where there is nothing to say.
    fn judge(_tried: &[Tried], _own: Option<usize>) -> Result<Option<Judged>> {
        Ok(None)
    }
}

/// The files that a stage maps over.
///
/// An action is given its own file, which `Context::item` names, and the files before it in the
/// order of the names; near the first there are fewer. What it reads decides its key: where a file
/// changes or goes, that item is done again and the `behind` after it, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items {
    /// The input port.
    pub port: &'static str,
    /// How many files before its own an action reads too.
    pub behind: usize,
}

impl Items {
    /// The files of a port, each read alone.
    pub const fn of(port: &'static str) -> Items {
        Items { port, behind: 0 }
    }

    /// What an action reads beside its own file, for people; empty where that is nothing.
    pub fn reads(&self) -> String {
        match self.behind {
            0 => String::new(),
            1 => "an item reads the file before it too".to_owned(),
            n => format!("an item reads the {n} files before it too"),
        }
    }
}

/// Something that a parameter may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// More of it: unit, source and parameters.
    pub notes: Vec<String>,
}

/// A named input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name, as in `from: { name: source }` or `stage.name`.
    pub name: Cow<'static, str>,
    /// What is in it.
    pub format: Format,
    /// Input: whether it must be given.
    pub required: bool,
    /// Output: where it goes below `out/<stage>/`, or, where it begins with `./`, below the
    /// pipeline's folder. Empty for an input.
    pub path: Cow<'static, str>,
    /// Output: a folder rather than a file.
    pub tree: bool,
}

impl Port {
    /// A required input.
    pub fn input(name: impl Into<Cow<'static, str>>, format: Format) -> Port {
        Port { name: name.into(), format, required: true, path: "".into(), tree: false }
    }
    /// An input that may be left out.
    pub fn optional(name: impl Into<Cow<'static, str>>, format: Format) -> Port {
        Port { required: false, ..Port::input(name, format) }
    }
    /// Inputs of any name and format, as many as there are: the port `*`. It comes after the named
    /// ones; a name in `from` that no other port has is one of these.
    pub fn any() -> Port {
        Port::optional("*", Format::Any)
    }
    /// Whether it is [`Port::any`].
    pub fn is_any(&self) -> bool {
        self.name == "*"
    }
    /// An output file at `out/<stage>/<path>`.
    pub fn file(
        name: impl Into<Cow<'static, str>>,
        format: Format,
        path: impl Into<Cow<'static, str>>,
    ) -> Port {
        Port { path: path.into(), ..Port::input(name, format) }
    }
    /// An output folder at `out/<stage>/<path>`.
    pub fn tree(
        name: impl Into<Cow<'static, str>>,
        format: Format,
        path: impl Into<Cow<'static, str>>,
    ) -> Port {
        Port { tree: true, ..Port::file(name, format, path) }
    }
}

/// A parameter that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Dotted path of the parameter below `with`, such as `lora.r`; empty for all of them.
    pub path: String,
    /// What is wrong, in lower case.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// Further parameters that do not hold, where they are known at once.
    pub also: Vec<Invalid>,
}

impl Invalid {
    /// A parameter at `path` that is wrong, and why.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid { path: path.into(), message: message.into(), help: None, also: Vec::new() }
    }
    /// Adds what to do.
    pub fn help(mut self, help: impl Into<String>) -> Invalid {
        self.help = Some(help.into());
        self
    }
    /// Several as one: the first, with the others; `None` where there is none.
    pub fn all(several: impl IntoIterator<Item = Invalid>) -> Option<Invalid> {
        let mut several = several.into_iter();
        let mut first = several.next()?;
        first.also.extend(several);
        Some(first)
    }
}

/// Why a stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A file that it was given is not what it must be.
    #[error("{}{}: {message}", path.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    BadInput {
        /// The file.
        path: PathBuf,
        /// Its line, from 1, where there is one.
        line: Option<u64>,
        /// What is wrong.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// It could not do its work for another reason.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// What a stage returns.
pub type Result<T, E = StageError> = std::result::Result<T, E>;

impl StageError {
    /// A file that is not what it must be.
    pub fn bad(path: impl AsRef<Path>, message: impl Into<String>) -> StageError {
        let path = path.as_ref().to_owned();
        StageError::BadInput { path, line: None, message: message.into(), help: None }
    }
    /// Any other failure.
    pub fn failed(message: impl Into<String>) -> StageError {
        StageError::Failed { message: message.into(), help: None }
    }
    /// Adds the line, from 1.
    pub fn at(mut self, at: u64) -> StageError {
        if let StageError::BadInput { line, .. } = &mut self {
            *line = Some(at);
        }
        self
    }
    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> StageError {
        if let StageError::BadInput { help, .. } | StageError::Failed { help, .. } = &mut self {
            *help = Some(hint.into());
        }
        self
    }
    /// What to do, where it is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            StageError::BadInput { help, .. } | StageError::Failed { help, .. } => help.as_deref(),
            _ => None,
        }
    }
}

/// What the parameters of a stage decide.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The parameters, defaults filled in.
    pub params: Value,
    /// The inputs it takes.
    pub inputs: Vec<Port>,
    /// The outputs it makes.
    pub outputs: Vec<Port>,
    /// What it maps over.
    pub items: Option<Items>,
}

/// A stage as a row of a table: what the engine sees of it.
#[derive(Clone, Copy)]
pub struct Kind {
    /// `Stage::NAME`.
    pub name: &'static str,
    /// `Stage::VERSION`.
    pub version: u32,
    /// `Stage::ABOUT`.
    pub about: &'static str,
    /// `Stage::SEEDED`.
    pub seeded: bool,
    /// `Stage::DEVICE`.
    pub device: bool,
    /// `Stage::TRIAL`.
    pub trial: bool,
    /// `Stage::NAMED`.
    pub named: bool,
    /// `Stage::RESUMES`.
    pub resumes: bool,
    /// The JSON Schema of `with`.
    pub schema: fn() -> schemars::Schema,
    /// Reads `with`, fills in the defaults and checks: what goes into the key.
    pub resolve: fn(&Value) -> std::result::Result<Value, Invalid>,
    /// The same, with what these parameters decide: inputs, outputs, items.
    pub settle: fn(&Value) -> std::result::Result<Settled, Invalid>,
    /// Its inputs, for resolved parameters.
    pub inputs: fn(&Value) -> Vec<Port>,
    /// Its outputs, for resolved parameters.
    pub outputs: fn(&Value) -> Vec<Port>,
    /// What it maps over, for resolved parameters.
    pub items: fn(&Value) -> Option<Items>,
    /// Runs it with resolved parameters.
    pub run: fn(&Value, &Context) -> Result<()>,
    /// `Stage::names`.
    pub names: fn() -> Option<(&'static str, Vec<Named>)>,
    /// `Stage::judge`.
    pub judge: fn(&[Tried], Option<usize>) -> Result<Option<Judged>>,
}

impl Kind {
    /// The row of a stage.
    pub const fn of<S: Stage>() -> Kind {
        Kind {
            name: S::NAME,
            version: S::VERSION,
            about: S::ABOUT,
            seeded: S::SEEDED,
            device: S::DEVICE,
            named: S::NAMED,
            resumes: S::RESUMES,
            trial: S::TRIAL,
            schema: || schemars::schema_for!(S::Params),
            resolve: |params| settle::<S>(params).map(|settled| settled.params),
            settle: settle::<S>,
            inputs: |params| read::<S>(params).map(|p| S::inputs(&p)).unwrap_or_default(),
            outputs: |params| read::<S>(params).map(|p| S::outputs(&p)).unwrap_or_default(),
            items: |params| read::<S>(params).ok().and_then(|p| S::items(&p)),
            run: |params, ctx| {
                let params = read::<S>(params).map_err(|e| StageError::failed(e.message))?;
                S::run(&params, ctx)
            },
            names: S::names,
            judge: S::judge,
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({} v{})", self.name, self.version)
    }
}

fn read<S: Stage>(params: &Value) -> std::result::Result<S::Params, Invalid> {
    // Where all is well, which is nearly always, nothing is copied and no path is kept.
    if let Ok(read) = S::Params::deserialize(params) {
        return Ok(read);
    }
    let given = if params.is_null() { Value::Object(Default::default()) } else { params.clone() };
    serde_path_to_error::deserialize(given).map_err(|e| {
        let path = e.path().to_string();
        Invalid::new(if path == "." { String::new() } else { path }, e.inner().to_string())
    })
}

fn settle<S: Stage>(params: &Value) -> std::result::Result<Settled, Invalid> {
    let params = read::<S>(params)?;
    S::check(&params)?;
    let (inputs, outputs, items) = (S::inputs(&params), S::outputs(&params), S::items(&params));
    let params = serde_json::to_value(&params).map_err(|e| Invalid::new("", e.to_string()))?;
    Ok(Settled { params, inputs, outputs, items })
}
