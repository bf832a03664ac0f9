//! `quantmill runs note`.

use clap::Args;

use super::home;
use crate::exit::Failure;
use crate::experiment::{account, history};

/// Arguments of `runs note`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  quantmill runs note latest \"a lower fee\"
  quantmill runs note 20261121-0813 \"\"       forget it")]
pub struct Note {
    /// The run
    #[arg(value_name = "RUN")]
    run: String,
    /// What it was about; empty takes the note away
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Writes the note beside the record, which itself never changes.
pub fn note(arguments: &Note) -> Result<(), Failure> {
    let run = history::find(&home()?, &arguments.run)?;
    let line = arguments.text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let line = if line.is_empty() { String::new() } else { format!("{line}\n") };
    Ok(fs_err::write(run.folder.join(account::NOTE), line)?)
}
