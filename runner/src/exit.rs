//! How `quantmill` ends: the errors of the engine and the exit codes that they become.

use quantmill_cache::{IndexError, StoreError};

use crate::diagnostic::Problems;

/// Exit codes. They are part of the interface.
pub mod code {
    /// All is well.
    pub const OK: u8 = 0;
    /// A stage failed, or a check did not hold.
    pub const FAILED: u8 = 1;
    /// The pipeline file or the command line is wrong.
    pub const USAGE: u8 = 2;
    /// Quantmill itself is at fault, or the machine.
    pub const INTERNAL: u8 = 70;
    /// Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The pipeline file is wrong.
    #[error(transparent)]
    Problems(#[from] Box<Problems>),
    /// The command line is wrong.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// Stages failed; each was reported as it happened.
    #[error("{0} of the stages failed")]
    Stages(usize),
    /// What a stage's code does for a command failed.
    #[error(transparent)]
    Work(#[from] quantmill_stages::StageError),
    /// A check did not hold; what it found was told.
    #[error("it does not hold")]
    Told,
    /// The pipeline file is wrong; its problems were listed.
    #[error("the pipeline is wrong")]
    Listed,
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The state folder is not usable.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Failure {
        Failure::Problems(Box::new(problems))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Index(error.into())
    }
}

impl Failure {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>, help: Option<String>) -> Failure {
        Failure::Usage { message: message.into(), help }
    }

    /// The exit code it becomes.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Problems(_) | Failure::Listed | Failure::Usage { .. } => code::USAGE,
            Failure::Stages(_) | Failure::Work(_) | Failure::Told => code::FAILED,
            Failure::Interrupted => code::INTERRUPTED,
            Failure::Io(_) | Failure::Index(_) => code::INTERNAL,
        }
    }
}
