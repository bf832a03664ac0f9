//! `extract`: documents to text, one document at a time.
//!
//! ```text
//! bytes -> document (lopdf: objects, decryption)                  with repair
//!       -> interpret (operators -> glyphs)  with content, font, cmap, glyphs, standard, program, type1
//!       -> lines     (glyphs -> words and lines, scripts marked)   with unicode
//!       -> layout    (drawing order, or column by column on evidence), furniture (heads, feet)
//!       -> compose   (paragraphs, headings, equations)             with aside, hyphen
//! ```
//!
//! Each document gives `<stem>.txt` (paragraphs apart by a blank line, headings as `# `) and
//! `<stem>.json` (where pages and sections begin, fonts, warnings, the share of glyphs understood).
//! Text and Markdown files are normalised and passed on; LaTeX, HTML and Jupyter notebooks become
//! Markdown first. It does not read pictures of text: such a file is an error that asks for OCR.

mod aside;
mod cmap;
mod compose;
mod content;
mod document;
mod font;
mod furniture;
mod glyphs;
mod html;
mod hyphen;
mod interpret;
mod language;
mod layout;
mod lines;
mod notebook;
mod plain;
mod program;
mod repair;
mod standard;
#[cfg(test)]
mod tests;
mod tex;
mod type1;
mod unicode;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Context, Format, Items, Port, Result, Stage, StageError};

/// Rises whenever the text of a document may change.
const VERSION: u32 = 2;

/// The stage.
pub struct Extract;

/// What to do with running heads, feet and page numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Headers {
    /// Leave them out.
    #[default]
    Remove,
    /// Keep them as text.
    Keep,
}

/// What to do with hyphens at line ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hyphens {
    /// Put the word together, by what the document writes elsewhere.
    #[default]
    Join,
    /// Leave hyphen and line end (as a space).
    Keep,
}

/// Parameters of `extract`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Running heads, feet and page numbers: `remove` (text at the edge that comes again on three
    /// pages or more) or `keep`.
    pub headers: Headers,
    /// Words cut at line ends: `join` them, or `keep` the hyphens.
    pub hyphens: Hyphens,
    /// The password of encrypted PDFs. It becomes part of the pipeline file and of the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl Stage for Extract {
    const NAME: &'static str = "extract";
    const VERSION: u32 = VERSION;
    const ABOUT: &'static str =
        "turn papers (PDF, LaTeX, HTML, Markdown, notebooks, text) into clean text";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("documents", Format::Document)]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![Port::tree("text", Format::Text, "text")]
    }

    fn items(_: &Params) -> Option<Items> {
        Some(Items::of("documents"))
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let folder = ctx.output("text")?;
        let (mut pages, mut characters, mut documents) = (0, 0, 0u32);
        let mut understood = 0.0;
        for (name, path) in ctx.files("documents") {
            let bytes = fs_err::read(path)?;
            let kind = Path::new(name).extension().map(|kind| kind.to_ascii_lowercase());
            let (text, sidecar) = match kind.as_deref().and_then(|kind| kind.to_str()) {
                Some("txt" | "text") => plain::extract(&bytes, name, false)?,
                Some("md" | "markdown") => plain::extract(&bytes, name, true)?,
                Some("html" | "htm" | "xhtml") => plain::extract(
                    html::markdown(plain::utf8(&bytes, name)?).as_bytes(),
                    name,
                    true,
                )?,
                Some("ipynb") => {
                    plain::extract(notebook::markdown(&bytes, name)?.as_bytes(), name, true)?
                }
                Some("tex" | "ltx" | "rnw") => {
                    let (markdown, missing) = tex::markdown(plain::utf8(&bytes, name)?);
                    let (text, mut sidecar) = plain::extract(markdown.as_bytes(), name, true)?;
                    sidecar.warnings.extend(missing);
                    (text, sidecar)
                }
                _ => document::extract(&bytes, name, params, ctx)?,
            };
            for warning in &sidecar.warnings {
                ctx.warn(format!("{name}: {warning}"));
            }
            documents += 1;
            pages += sidecar.pages.len();
            characters += sidecar.characters;
            understood += sidecar.understood;
            let target = folder.join(Path::new(name).with_extension("txt"));
            if let Some(parent) = target.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::write(&target, text)?;
            let json = serde_json::to_string_pretty(&sidecar)
                .map_err(|error| StageError::failed(error.to_string()))?;
            fs_err::write(target.with_extension("json"), json + "\n")?;
        }
        ctx.metric("pages", pages as f64);
        ctx.metric("characters", characters as f64);
        ctx.metric("understood", understood / f64::from(documents.max(1)));
        Ok(())
    }
}
