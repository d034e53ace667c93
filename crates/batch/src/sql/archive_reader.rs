//! Readers of archived files that say which columns hold bytes, and which file can't be read.
//!
//! DataFusion reads a file's bytes as text wherever a table has text, before anybody is asked. A contract's evolution has it
//! otherwise: what was stored as bytes is no text, and null. So a file that stands against its table in that way
//! says so in its metadata, where [`super::read_as`] sees it.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::{HashSet, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::DefaultParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::basic::{ConvertedType, Type};
use datafusion::parquet::errors::{ParquetError, Result as ParquetResult};
use datafusion::parquet::file::metadata::{
    FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use headwater_facts::{archive_damaged, archive_unreachable};
use headwater_schema::Problem;
use object_store::{ObjectMeta, ObjectStore};

use super::problem::causes;

/// The key of the metadata that names the columns, as a list in JSON.
pub const BYTES_COLUMNS: &str = "headwater.bytes";

/// Makes readers of files of a table.
#[derive(Debug)]
pub struct ArchiveReaders {
    pub store: Arc<dyn ObjectStore>,
    /// Where the store is, as problems say it.
    pub url: Arc<str>,
    /// Of files that were read before.
    pub metadata: Arc<FileMetadataCache>,
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
        let object = Arc::new(Object {
            store: self.store.clone(),
            url: self.url.clone(),
            meta: file.object_meta.clone(),
            metadata: self.metadata.clone(),
        });
        let bytes = DefaultParquetFileReaderFactory::new(self.store.clone());
        let bytes = bytes.create_reader(partition_index, file, metadata_size_hint, metrics)?;
        let texts = self.texts.clone();
        Ok(Box::new(ArchiveReader {
            object,
            bytes,
            texts,
        }))
    }
}

struct ArchiveReader {
    object: Arc<Object>,
    bytes: Box<dyn AsyncFileReader + Send>,
    texts: Arc<HashSet<String>>,
}

/// The object that a file is.
struct Object {
    store: Arc<dyn ObjectStore>,
    url: Arc<str>,
    meta: ObjectMeta,
    metadata: Arc<FileMetadataCache>,
}

impl Object {
    /// Why it can't be read, by its name.
    fn problem(&self, error: &(dyn Error + 'static)) -> ParquetError {
        let (url, path) = (&self.url, self.meta.location.as_ref());
        let of_store = causes(error).find_map(|e| e.downcast_ref::<object_store::Error>());
        let problem: Problem = match of_store {
            Some(object_store::Error::NotFound { .. }) => {
                archive_damaged(format!("{url}, {path}: it isn't there"))
            }
            Some(error) => archive_unreachable(url, path, error),
            None => archive_damaged(format!("{url}, {path}: {error}")),
        };
        ParquetError::External(Box::new(problem))
    }
}

impl AsyncFileReader for ArchiveReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let object = self.object.clone();
        let bytes = self.bytes.get_bytes(range);
        bytes
            .map(move |bytes| bytes.map_err(|e| object.problem(&e)))
            .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        let object = self.object.clone();
        let bytes = self.bytes.get_byte_ranges(ranges);
        bytes
            .map(move |bytes| bytes.map_err(|e| object.problem(&e)))
            .boxed()
    }

    /// As DataFusion's own readers get them, whose errors are words alone.
    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let (object, texts) = (self.object.clone(), self.texts.clone());
        let indexes = options.map(ArrowReaderOptions::column_index_policy);
        async move {
            let metadata = DFParquetMetadata::new(object.store.as_ref(), &object.meta)
                .with_file_metadata_cache(Some(object.metadata.clone()))
                .with_page_index_policy(indexes)
                .fetch_metadata()
                .await;
            match metadata {
                Ok(metadata) => Ok(with_bytes_named(metadata, &texts)),
                Err(error) => Err(object.problem(&error)),
            }
        }
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
