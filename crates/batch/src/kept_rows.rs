//! Rows that are read again and again from the first to the last: in memory while they fit, else in a spill file, one
//! Arrow stream per batch.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::writer::StreamWriter;
use headwater_schema::Problem;
use headwater_schema::decode::{BodyFormat, read_record_batches};

use crate::compact::batch_bytes;
use crate::spill::{Records, Spill, SpillFile, SpilledFile};

/// Takes batches.
pub struct KeptRowsWriter {
    spill: Arc<Spill>,
    bytes_max: usize,
    held: Vec<RecordBatch>,
    held_bytes: usize,
    file: Option<SpillFile>,
}

/// Batches that were taken.
pub struct KeptRows(Kept);

enum Kept {
    Held(Vec<RecordBatch>),
    Spilled(Arc<SpilledFile>),
}

impl KeptRowsWriter {
    /// Holds about `bytes_max` bytes.
    pub fn new(spill: &Arc<Spill>, bytes_max: usize) -> Self {
        Self {
            spill: spill.clone(),
            bytes_max,
            held: Vec::new(),
            held_bytes: 0,
            file: None,
        }
    }

    pub fn push(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        if let Some(file) = &mut self.file {
            return write(file, &batch);
        }
        self.held_bytes += batch_bytes(&batch);
        self.held.push(batch);
        if self.held_bytes > self.bytes_max {
            let file = self.file.insert(self.spill.file()?);
            for batch in std::mem::take(&mut self.held) {
                write(file, &batch)?;
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<KeptRows, Problem> {
        Ok(KeptRows(match self.file {
            Some(file) => Kept::Spilled(file.finish()?),
            None => Kept::Held(self.held),
        }))
    }
}

impl KeptRows {
    /// All batches, as they were taken.
    pub fn batches(&self) -> Box<dyn Iterator<Item = Result<RecordBatch, Problem>> + '_> {
        match &self.0 {
            Kept::Held(batches) => Box::new(batches.iter().cloned().map(Ok)),
            Kept::Spilled(file) => {
                let mut records = Records::all(file.clone());
                let mut next = move || Ok(records.next()?.map(read));
                Box::new(std::iter::from_fn(move || match next() {
                    Ok(batch) => batch,
                    Err(problem) => Some(Err(problem)),
                }))
            }
        }
    }
}

fn write(file: &mut SpillFile, batch: &RecordBatch) -> Result<(), Problem> {
    let failed = |e: arrow::error::ArrowError| {
        Problem::internal("spill", "columns can't be written as a stream").detail(e)
    };
    let mut written = Ok(());
    file.record(|out| {
        written = StreamWriter::try_new(out, &batch.schema()).and_then(|mut writer| {
            writer.write(batch)?;
            writer.finish()
        });
    })?;
    written.map_err(failed)
}

fn read(record: &[u8]) -> Result<RecordBatch, Problem> {
    let mut batches = read_record_batches(BodyFormat::ArrowStream, record)?;
    let none = || Problem::internal("spill", "a record holds no rows");
    batches.next().ok_or_else(none)?
}
