//! `quantmill schema`: the JSON Schema of a pipeline file, for editors.

use clap::Args;
use quantmill_stages::Kind;

use crate::exit::Failure;
use crate::schema;

/// Arguments of `schema`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Example:
  quantmill schema > pipeline.schema.json
  # then, as the first line of pipeline.yaml:
  # yaml-language-server: $schema=pipeline.schema.json")]
pub struct Schema {}

/// Prints it.
pub fn schema(_: &Schema, kinds: &[Kind]) -> Result<(), Failure> {
    print!("{}", schema::text(kinds));
    Ok(())
}
