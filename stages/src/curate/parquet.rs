//! The chunks as Parquet, with where they come from in columns beside the text.
//!
//! Written column by column with the format crate alone; Arrow would add nothing to it. `section` is
//! one string, its titles joined by ` > `.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::output::Kept;
use crate::{Result, StageError};

/// The columns, in the order in which they are written.
const SCHEMA: &str = "message chunks {
    REQUIRED BINARY text (UTF8);
    REQUIRED BINARY document (UTF8);
    OPTIONAL BINARY source (UTF8);
    REQUIRED BINARY digest (UTF8);
    REQUIRED BINARY section (UTF8);
    OPTIONAL INT32 first_page;
    OPTIONAL INT32 last_page;
    REQUIRED INT64 start;
    REQUIRED INT64 end;
    REQUIRED INT32 tokens;
    OPTIONAL BINARY language (UTF8);
    REQUIRED BINARY group (UTF8);
}";
/// The chunks of a row group: some 40 MB of text.
const ROWS: usize = 8192;

/// Writes a file.
pub fn write(path: &Path, chunks: &[&Kept]) -> Result<()> {
    let file = fs_err::File::create(path)?.into_parts().0;
    rows(file, chunks)
        .map_err(|e| StageError::failed(format!("{} cannot be written: {e}", path.display())))
}

fn rows(file: std::fs::File, chunks: &[&Kept]) -> std::result::Result<(), ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by("quantmill".into())
        .build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    for rows in chunks.chunks(ROWS) {
        let mut group = writer.next_row_group()?;
        let to = &mut group;
        let places = || rows.iter().map(|chunk| chunk.place);
        let text = |text: &str| Some(ByteArray::from(text));
        column::<ByteArrayType>(to, rows.iter().map(|chunk| text(chunk.text)))?;
        column::<ByteArrayType>(to, places().map(|place| text(&place.document)))?;
        column::<ByteArrayType>(to, places().map(|place| text(place.source.as_deref()?)))?;
        column::<ByteArrayType>(to, places().map(|place| text(&place.digest.to_string())))?;
        column::<ByteArrayType>(to, places().map(|place| text(&place.section.join(" > "))))?;
        for page in 0..2 {
            column::<Int32Type>(to, places().map(|place| Some(place.pages?[page] as i32)))?;
        }
        column::<Int64Type>(to, places().map(|place| Some(place.start as i64)))?;
        column::<Int64Type>(to, places().map(|place| Some(place.end as i64)))?;
        column::<Int32Type>(to, places().map(|place| Some(place.tokens as i32)))?;
        column::<ByteArrayType>(to, rows.iter().map(|chunk| text(chunk.language?)))?;
        column::<ByteArrayType>(to, rows.iter().map(|chunk| text(chunk.group)))?;
        group.close()?;
    }
    writer.close().map(drop)
}

/// Writes the next column of a row group.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<std::fs::File>,
    values: impl Iterator<Item = Option<T::T>>,
) -> std::result::Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("more columns than the schema has".into()));
    };
    let values: Vec<Option<T::T>> = values.collect();
    // Where a value is missing the level is 0. Of required columns the levels are not written.
    let levels: Vec<i16> = values.iter().map(|value| value.is_some().into()).collect();
    let present: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}
