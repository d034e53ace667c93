//! The facts of one contract that lie in the archive, scanned as the Parquet files they are: columns that aren't asked for
//! and row groups that can't hold what is asked for are never read.
//!
//! Files that the cursor sees as a whole are scanned as they are. The others, in which something was revised or
//! retracted by then or came later than the cursor, are filtered row by row.

use std::sync::Arc;

use arrow::array::temporal_conversions::as_datetime;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, binary, is_null, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use headwater_facts::{Archive, ArchivedFile};
use headwater_schema::{Contract, Sequence};

use super::Snapshot;
use super::archive_reader::ArchiveReaders;
use super::bounds::Bounds;
use super::facts_table::{EVENT_TIME, Kept, REMOVED_AT, SEQUENCE};
use super::log_scan::blocking;
use super::problem::through;
use super::read_as::ReadAsContract;
use super::removed::Removed;

/// The store of an archive, to those who plan scans of it. No query can name it.
pub const ARCHIVE_SCHEME: &str = "headwater-archive";

/// Brings a checksum into the range of calendars.
const VERSION_SHIFT: u32 = 8;

/// A scan of what the archive has of a contract.
pub struct ArchiveScan<'a> {
    pub snapshot: &'a Snapshot,
    pub contract: &'a Arc<Contract>,
    pub kept: Kept,
    /// The table's columns.
    pub schema: &'a SchemaRef,
    /// The places of those that are asked for.
    pub projection: &'a [usize],
    pub bounds: Bounds,
}

impl ArchiveScan<'_> {
    /// Plans of scans, of which there may be none, and the sequence up to which they tell all.
    pub async fn plan(
        &self,
        state: &dyn Session,
    ) -> Result<(Vec<Arc<dyn ExecutionPlan>>, Sequence)> {
        let Some(archive) = self.snapshot.facts.archive() else {
            return Ok((Vec::new(), 0));
        };
        let listing = archive.listing(&self.contract.name);
        let mut files = listing.facts;
        files.retain(|file| self.may_hold(file));
        let removed = self.removed(state, &files).await?;
        let (whole, filtered): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|file| self.is_seen_whole(file, &removed));
        let mut plans = Vec::new();
        if !whole.is_empty() {
            plans.push(self.scan(archive, state, whole, None)?);
        }
        if !filtered.is_empty() {
            plans.push(self.scan(archive, state, filtered, Some(&removed))?);
        }
        Ok((plans, listing.through))
    }

    fn may_hold(&self, file: &ArchivedFile) -> bool {
        let bounds = &self.bounds;
        file.first_sequence <= bounds.sequence_max
            && file.last_sequence >= bounds.sequence_min
            && file.time_min <= bounds.time_max
            && file.time_max >= bounds.time_min
    }

    /// What counts no longer at the cursor, of the sequences of some files.
    async fn removed(&self, state: &dyn Session, files: &[ArchivedFile]) -> Result<Arc<Removed>> {
        let first = files.iter().map(|f| f.first_sequence).min().unwrap_or(1);
        let last = files.iter().map(|f| f.last_sequence).max().unwrap_or(0);
        let facts = self.snapshot.facts.clone();
        let contract = self.contract.name.clone();
        let known_at = self.snapshot.known_at;
        let mut pairs = blocking(move || {
            let removed = facts.removed(&contract, first, last);
            removed.map_err(through)
        })
        .await?;
        pairs.retain(|(_, at)| *at <= known_at);
        let pool = &state.runtime_env().memory_pool;
        Removed::new(pairs, pool).map(Arc::new)
    }

    fn is_seen_whole(&self, file: &ArchivedFile, removed: &Removed) -> bool {
        self.kept == Kept::Live
            && file.last_sequence <= self.snapshot.known_at
            && self
                .snapshot
                .as_of
                .is_none_or(|as_of| file.time_max <= as_of)
            && !removed.any_among(file.first_sequence, file.last_sequence)
    }

    /// The columns of files: all of the table but the one that no file has.
    fn file_schema(&self) -> SchemaRef {
        let fields = self.schema.fields().iter();
        let fields = fields.filter(|f| f.name() != REMOVED_AT).cloned();
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Scans files; row by row at the cursor where `removed` is given.
    fn scan(
        &self,
        archive: &Archive,
        state: &dyn Session,
        files: Vec<ArchivedFile>,
        removed: Option<&Arc<Removed>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.file_schema();
        let width = schema.fields().len();
        let mut read: Vec<usize> = self.projection.to_vec();
        read.retain(|place| *place < width);
        if removed.is_some() {
            for name in [EVENT_TIME, SEQUENCE] {
                let place = schema.index_of(name)?;
                if !read.contains(&place) {
                    read.push(place);
                }
            }
        }
        let store = archive.store().objects().map_err(through)?;
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let texts = schema.fields().iter();
        let texts = texts.filter(|field| *field.data_type() == DataType::Utf8View);
        let readers = ArchiveReaders {
            store,
            url: archive.store().url().into(),
            metadata: cache,
            texts: Arc::new(texts.map(|field| field.name().clone()).collect()),
        };
        let source =
            ParquetSource::new(schema.clone()).with_parquet_file_reader_factory(Arc::new(readers));
        let statistics = statistics(&schema, &files);
        let parts = state.config().target_partitions();
        let files = files
            .iter()
            .map(|file| partitioned(&schema, file))
            .collect();
        let groups = FileGroup::new(files).split_files(parts);
        let url = ObjectStoreUrl::parse(format!("{ARCHIVE_SCHEME}://facts"))?;
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(match removed {
                None => statistics,
                Some(_) => statistics.to_inexact(),
            })
            .with_projection_indices(Some(read))?
            .with_expr_adapter(Some(Arc::new(ReadAsContract(self.contract.clone()))))
            .build();
        let scan = DataSourceExec::from_data_source(config);
        match removed {
            None => Ok(scan),
            Some(removed) => self.at_the_cursor(scan, removed),
        }
    }

    /// Leaves out of a scan what the cursor doesn't see, and the columns that only told that.
    fn at_the_cursor(
        &self,
        scan: Arc<dyn ExecutionPlan>,
        removed: &Arc<Removed>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = scan.schema();
        let column = |name: &str| -> Result<Arc<dyn PhysicalExpr>> {
            Ok(Arc::new(Column::new(name, schema.index_of(name)?)))
        };
        let removed_at = removed.removed_at(column(SEQUENCE)?);
        let known_at = ScalarValue::Int64(Some(
            i64::try_from(self.snapshot.known_at).unwrap_or(i64::MAX),
        ));
        let mut sees = binary(column(SEQUENCE)?, Operator::LtEq, lit(known_at), &schema)?;
        let mut and = |more: Arc<dyn PhysicalExpr>| -> Result<()> {
            sees = binary(sees.clone(), Operator::And, more, &schema)?;
            Ok(())
        };
        if let Some(as_of) = self.snapshot.as_of {
            let as_of = ScalarValue::TimestampMicrosecond(Some(as_of), Some("UTC".into()));
            let time = column(EVENT_TIME)?;
            and(binary(time, Operator::LtEq, lit(as_of), &schema)?)?;
        }
        if self.kept == Kept::Live && !removed.is_empty() {
            and(is_null(removed_at.clone())?)?;
        }
        let seen = Arc::new(FilterExec::try_new(sees, scan)?);
        let mut columns = Vec::with_capacity(self.projection.len());
        for place in self.projection {
            let name = self.schema.field(*place).name();
            let value = match name.as_str() {
                REMOVED_AT => removed_at.clone(),
                name => column(name)?,
            };
            columns.push((value, name.clone()));
        }
        Ok(Arc::new(ProjectionExec::try_new(columns, seen)?))
    }
}

fn partitioned(schema: &SchemaRef, file: &ArchivedFile) -> PartitionedFile {
    let statistics = statistics(schema, std::slice::from_ref(file));
    let mut planned = PartitionedFile::new(file.object.path.as_str(), file.object.bytes)
        .with_statistics(Arc::new(statistics));
    // What is remembered of a file holds for one of the same size and time alone. Its checksum stands for the time:
    // another file in its place is another one.
    let version = (file.object.checksum >> VERSION_SHIFT).cast_signed();
    if let Some(version) = as_datetime::<TimestampMicrosecondType>(version) {
        planned.object_meta.last_modified = version.and_utc();
    }
    planned
}

/// What the archive knows of files without opening them.
fn statistics(schema: &SchemaRef, files: &[ArchivedFile]) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let rows: u64 = files.iter().map(|f| f.rows).sum();
    let bytes: u64 = files.iter().map(|f| f.object.bytes).sum();
    statistics.num_rows = Precision::Exact(rows as usize);
    statistics.total_byte_size = Precision::Inexact(bytes as usize);
    let between = |min: ScalarValue, max: ScalarValue| ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: Precision::Exact(min),
        max_value: Precision::Exact(max),
        ..ColumnStatistics::new_unknown()
    };
    let instant = |time| ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into()));
    let number = |sequence: Sequence| ScalarValue::Int64(i64::try_from(sequence).ok());
    let times = files.iter().map(|f| f.time_min).min();
    if let Some((min, max)) = times.zip(files.iter().map(|f| f.time_max).max())
        && let Ok(place) = schema.index_of(EVENT_TIME)
    {
        statistics.column_statistics[place] = between(instant(min), instant(max));
    }
    let sequences = files.iter().map(|f| f.first_sequence).min();
    if let Some((min, max)) = sequences.zip(files.iter().map(|f| f.last_sequence).max())
        && let Ok(place) = schema.index_of(SEQUENCE)
    {
        statistics.column_statistics[place] = between(number(min), number(max));
    }
    statistics
}

/// A column's type in tables: texts as views, which are cheap to copy, compare and leave out.
pub fn table_type(stored: DataType) -> DataType {
    match stored {
        DataType::Utf8 => DataType::Utf8View,
        other => other,
    }
}
