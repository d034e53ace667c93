//! Readers of archived files that say which columns hold bytes.
//!
//! DataFusion reads a file's bytes as text wherever a table has text, before anybody is asked. A contract's evolution has it
//! otherwise: what was stored as bytes is no text, and null. So a file that stands against its table in that way
//! says so in its metadata, where [`super::read_as`] sees it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{HashSet, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::basic::{ConvertedType, Type};
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// The key of the metadata that names the columns, as a list in JSON.
pub const BYTES_COLUMNS: &str = "headwater.bytes";

/// Makes readers of files of a table.
#[derive(Debug)]
pub struct ArchiveReaders {
    pub files: CachedParquetFileReaderFactory,
    /// The table's columns of text.
    pub texts: Arc<HashSet<String>>,
}

impl ParquetFileReaderFactory for ArchiveReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let files = &self.files;
        let file = files.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        let texts = self.texts.clone();
        Ok(Box::new(ArchiveReader { file, texts }))
    }
}

struct ArchiveReader {
    file: Box<dyn AsyncFileReader + Send>,
    texts: Arc<HashSet<String>>,
}

impl AsyncFileReader for ArchiveReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.file.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.file.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let texts = self.texts.clone();
        let metadata = self.file.get_metadata(options);
        metadata
            .map(move |metadata| Ok(with_bytes_named(metadata?, &texts)))
            .boxed()
    }
}

/// The metadata, with the names of those of some columns that hold bytes.
fn with_bytes_named(
    metadata: Arc<ParquetMetaData>,
    texts: &HashSet<String>,
) -> Arc<ParquetMetaData> {
    let file = metadata.file_metadata();
    let schema = file.schema_descr();
    let bytes = schema.columns().iter().filter(|column| {
        column.physical_type() == Type::BYTE_ARRAY
            && column.logical_type_ref().is_none()
            && column.converted_type() == ConvertedType::NONE
            && matches!(column.path().parts(), [name] if texts.contains(name))
    });
    let names: Vec<&str> = bytes.map(|column| column.name()).collect();
    if names.is_empty() {
        return metadata;
    }
    let mut said = file.key_value_metadata().cloned().unwrap_or_default();
    let names = serde_json::json!(names).to_string();
    said.push(KeyValue::new(BYTES_COLUMNS.to_owned(), names));
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        Some(said),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let named = ParquetMetaDataBuilder::new(file)
        .set_row_groups(metadata.row_groups().to_vec())
        .set_column_index(metadata.column_index().cloned())
        .set_offset_index(metadata.offset_index().cloned());
    Arc::new(named.build())
}
