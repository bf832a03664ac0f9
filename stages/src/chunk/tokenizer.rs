//! Counts by a `tokenizer.json` of Hugging Face.
//!
//! Special tokens in a text count as the text they are, and none are added, as a trainer packs text.
//! A build without the feature `tokenizers` knows of the type and can make none.

#[cfg(feature = "lm")]
mod real {
    use std::ops::Range;
    use std::path::Path;
    use std::sync::Arc;

    use crate::StageError;

    /// A tokenizer of a file.
    #[derive(Clone)]
    pub struct Tokenizer(Arc<tokenizers::Tokenizer>);

    impl Tokenizer {
        /// Reads a `tokenizer.json`; `name` is what people call it.
        pub fn read(path: &Path, name: &str) -> crate::Result<Tokenizer> {
            let bad = |why: tokenizers::Error| {
                StageError::bad(name, format!("this is no tokenizer: {why}"))
                    .hint("name the `tokenizer.json` of a model")
            };
            let mut tokenizer =
                tokenizers::Tokenizer::from_bytes(fs_err::read(path)?).map_err(bad)?;
            tokenizer.with_truncation(None).map_err(bad)?;
            tokenizer.with_padding(None);
            tokenizer.set_encode_special_tokens(true);
            Ok(Tokenizer(Arc::new(tokenizer)))
        }

        /// The number of tokens of a text, or why it has none.
        pub fn count(&self, text: &str) -> Result<u32, String> {
            let encoding = self.0.encode_fast(text, false).map_err(|why| why.to_string())?;
            Ok(encoding.len() as u32)
        }

        /// Adds where the tokens of a part of a text end, in order, as offsets in the text.
        pub fn ends(
            &self,
            text: &str,
            part: Range<usize>,
            ends: &mut Vec<usize>,
        ) -> Result<(), String> {
            let encoding = self.0.encode(&text[part.clone()], false).map_err(|e| e.to_string())?;
            let mut last = part.start;
            ends.extend(encoding.get_offsets().iter().map(|(_, end)| {
                // Tokens that share a character end with it, and one that was put in has no place.
                last = last.max(text.ceil_char_boundary(part.start + end));
                last
            }));
            Ok(())
        }
    }
}

#[cfg(not(feature = "lm"))]
mod real {
    use std::convert::Infallible;
    use std::ops::Range;
    use std::path::Path;

    use crate::StageError;

    /// There is none in this build.
    #[derive(Clone)]
    pub struct Tokenizer(Infallible);

    impl Tokenizer {
        /// Says that this build reads none.
        pub fn read(_: &Path, _: &str) -> crate::Result<Tokenizer> {
            Err(StageError::failed("this build reads no `tokenizer.json`")
                .hint("build it with the feature `models` (the default) or `tokenizers`"))
        }

        /// Nothing, as there is none.
        pub fn count(&self, _: &str) -> Result<u32, String> {
            match self.0 {}
        }

        /// Nothing, as there is none.
        pub fn ends(&self, _: &str, _: Range<usize>, _: &mut Vec<usize>) -> Result<(), String> {
            match self.0 {}
        }
    }
}

pub use real::Tokenizer;
