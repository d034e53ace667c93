//! A training set's spine while it is taken in: every row is checked, and kept with the cursor that it is read at.
//!
//! Rows and cursors are held in memory while they fit. Rows that are facts find their places in passes over the log, each for
//! as many facts as fit in memory together.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};
use headwater_api::backend::{KnownAt, TrainingKnownAt};
use headwater_batch::{
    KeptRows, KeptRowsWriter, KnownRule, ProgressHook, RowMoment, Spill, SpineColumns, SpineReader,
    SpineShape, Step, Stop, fact_positions, sha256_of,
};
use headwater_env::ReadFile;
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_schema::{Cursor, Micros, Position, Problem, Sequence, Value};

use crate::Engine;
use crate::parts::{spine_rows, unreadable};

/// The least memory in which facts are looked up together, and about how many bytes one takes beside its id.
const FACTS_BYTES_MIN: usize = 1 << 20;
const FACT_BYTES: usize = 256;

/// A spine that was taken in.
pub(crate) struct Spine {
    pub schema: SchemaRef,
    pub columns: SpineColumns,
    pub rule: KnownRule,
    /// Whether facts at a row's moment itself count.
    pub inclusive: bool,
    /// The last sequence that any row sees.
    pub end: Sequence,
    pub count: usize,
    pub sha256: String,
    /// The earliest time that any row is read at.
    pub earliest: Micros,
    rows: KeptRows,
    cursors: KeptRows,
}

/// Some rows that follow each other.
pub(crate) struct Chunk {
    /// The number of the first of them.
    pub first: usize,
    pub rows: RecordBatch,
    pub cursors: Vec<Cursor>,
}

impl Spine {
    pub fn chunks(&self) -> impl Iterator<Item = Result<Chunk, Problem>> + '_ {
        let mut next = 0;
        let both = self.rows.batches().zip(self.cursors.batches());
        both.map(move |(rows, cursors)| {
            let (first, rows) = (next, rows?);
            next += rows.num_rows();
            Ok(Chunk {
                first,
                rows,
                cursors: cursors_of(&cursors?),
            })
        })
    }
}

/// How a spine is taken in.
pub(super) struct Taking<'a> {
    pub engine: &'a Engine,
    pub known_at: Option<TrainingKnownAt>,
    /// Facts from this sequence on don't count.
    pub facts_until: Option<Sequence>,
    /// Unless it is said, facts at a row's moment itself count where all rows have one moment, as in a live read.
    pub inclusive: Option<bool>,
    pub shape: &'a SpineShape,
    pub spill: &'a Arc<Spill>,
    /// What rows and cursors may take of memory.
    pub bytes_max: usize,
    pub stop: &'a Stop,
    pub progress: &'a ProgressHook,
}

impl Taking<'_> {
    pub fn take(&self, file: &Arc<dyn ReadFile>, format: BodyFormat) -> Result<Spine, Problem> {
        let shape = self.shape;
        let reader = SpineReader::new(shape.wanted());
        let mut taken: Option<Taken> = None;
        let mut sink = |rows: RecordBatch| -> Result<(), Problem> {
            self.stop.check()?;
            let taken = match &mut taken {
                Some(taken) => taken,
                none => none.insert(Taken::begin(self, rows.schema())?),
            };
            taken.push(rows)?;
            let count = taken.count as u64;
            self.progress.tell(Step::ReadSpine, count, None);
            Ok(())
        };
        // Text is looked at as a whole before its first row.
        self.progress.tell(Step::ReadSpine, 0, None);
        spine_rows(file, format, reader, self.stop, &mut sink)?;
        let none = || Problem::internal("spine", "a spine has no rows");
        let sha256 = sha256_of(file.as_ref()).map_err(unreadable)?;
        taken.ok_or_else(none)?.finish(sha256)
    }

    fn keep(&self, part: usize) -> KeptRowsWriter {
        KeptRowsWriter::new(self.spill, self.bytes_max / 4 * part)
    }
}

/// What has been taken of a spine.
struct Taken<'a> {
    taking: &'a Taking<'a>,
    schema: SchemaRef,
    columns: SpineColumns,
    reading: Reading<'a>,
    count: usize,
    rows: KeptRowsWriter,
    cursors: Cursors,
}

/// How rows become cursors.
struct Reading<'a> {
    engine: &'a Engine,
    rule: KnownRule,
    end: Sequence,
    inclusive: bool,
}

/// Cursors on their way.
struct Cursors {
    earliest: Micros,
    kept: KeptRowsWriter,
}

impl<'a> Taken<'a> {
    fn begin(taking: &'a Taking<'a>, schema: SchemaRef) -> Result<Self, Problem> {
        let columns = SpineColumns::find(&schema, taking.shape)?;
        let engine = taking.engine;
        let (rule, asked) = known_rule(taking.known_at, columns.has_known_at())?;
        let until = taking.facts_until.unwrap_or(Sequence::MAX);
        let inclusive = taking.inclusive;
        Ok(Self {
            schema,
            reading: Reading {
                engine,
                rule,
                end: engine.known_at(asked)?.min(until),
                inclusive: inclusive.unwrap_or(columns.one_moment().is_some()),
            },
            columns,
            count: 0,
            rows: taking.keep(3),
            cursors: Cursors {
                earliest: Micros::MAX,
                kept: taking.keep(1),
            },
            taking,
        })
    }

    fn push(&mut self, rows: RecordBatch) -> Result<(), Problem> {
        self.columns.check(&rows, self.count)?;
        let moments = self.columns.moments(&rows, self.count)?;
        let reading = &self.reading;
        match self.columns.has_facts() {
            // Their places are looked up once all rows are known to be right.
            true => moments.iter().try_for_each(|m| {
                let own = m.known_at.as_ref().map(row_known_at);
                own.transpose().map(drop)
            })?,
            false => {
                let cursors = moments.iter().map(|m| reading.cursor(m, None));
                self.cursors
                    .push(&cursors.collect::<Result<Vec<_>, _>>()?)?;
            }
        }
        self.count += rows.num_rows();
        self.rows.push(rows)
    }

    fn finish(self, sha256: String) -> Result<Spine, Problem> {
        let rows = self.rows.finish()?;
        let mut cursors = self.cursors;
        if self.columns.has_facts() {
            let (taking, end) = (self.taking, self.reading.end);
            let facts = taking.engine.facts.clone();
            let mut waiting = Waiting::default();
            let mut first = 0;
            for rows in rows.batches() {
                let rows = rows?;
                waiting.push(self.columns.moments(&rows, first)?);
                first += rows.num_rows();
                if waiting.bytes >= taking.bytes_max.max(FACTS_BYTES_MIN) || first == self.count {
                    taking.stop.check()?;
                    let places = fact_positions(facts.as_ref(), &waiting.wanted, end)?;
                    for moments in std::mem::take(&mut waiting).moments {
                        let cursor = |m: &RowMoment| {
                            let place = m.fact.as_ref().and_then(|fact| places.get(fact));
                            self.reading.cursor(m, place.copied())
                        };
                        let found = moments.iter().map(cursor);
                        cursors.push(&found.collect::<Result<Vec<_>, _>>()?)?;
                    }
                }
            }
        }
        Ok(Spine {
            schema: self.schema,
            columns: self.columns,
            rule: self.reading.rule,
            inclusive: self.reading.inclusive,
            end: self.reading.end,
            count: self.count,
            sha256,
            earliest: cursors.earliest,
            rows,
            cursors: cursors.kept.finish()?,
        })
    }
}

/// Rows that wait for the places of the facts that some of them are.
#[derive(Default)]
struct Waiting {
    moments: Vec<Vec<RowMoment>>,
    wanted: BTreeSet<(String, String)>,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, moments: Vec<RowMoment>) {
        for moment in &moments {
            if let Some((contract, id)) = &moment.fact {
                self.bytes += 2 * (contract.len() + id.len()) + FACT_BYTES;
                self.wanted.insert((contract.clone(), id.clone()));
            }
        }
        self.bytes += moments.len() * size_of::<RowMoment>();
        self.moments.push(moments);
    }
}

impl Reading<'_> {
    /// The cursor of a row; `place` is the fact's that it is.
    fn cursor(&self, moment: &RowMoment, place: Option<Position>) -> Result<Cursor, Problem> {
        let cursor = match (&moment.fact, moment.as_of) {
            (Some(fact), as_of) => before_fact(fact, place, as_of)?,
            (None, Some(as_of)) if self.inclusive => Cursor::inclusive(as_of),
            (None, as_of) => Cursor::exclusive(as_of.unwrap_or_default()),
        };
        let known = match (self.rule, &moment.known_at) {
            (KnownRule::AsOfArrival, _) => Some(KnownAt::Instant(cursor.as_of)),
            (KnownRule::Column, Some(value)) => Some(row_known_at(value)?),
            _ => None,
        };
        let known = match known {
            Some(known) => self.engine.known_at(Some(known))?.min(self.end),
            None => self.end,
        };
        Ok(cursor.known_at(known))
    }
}

impl Cursors {
    fn push(&mut self, cursors: &[Cursor]) -> Result<(), Problem> {
        let earliest = cursors.iter().map(|c| c.as_of).min();
        self.earliest = self.earliest.min(earliest.unwrap_or(Micros::MAX));
        let times = |time: fn(&Cursor) -> Micros| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(cursors.iter().map(time)))
        };
        let sequences = |sequence: fn(&Cursor) -> Sequence| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(cursors.iter().map(sequence)))
        };
        let batch = RecordBatch::try_from_iter([
            ("as_of", times(|c| c.as_of)),
            ("until_time", times(|c| c.until.event_time)),
            ("until_sequence", sequences(|c| c.until.sequence)),
            ("known_at", sequences(|c| c.known_at)),
        ]);
        let failed = |e| Problem::internal("spine", "cursors can't be put together").detail(e);
        self.kept.push(batch.map_err(failed)?)
    }
}

/// What [`Cursors`] wrote.
fn cursors_of(batch: &RecordBatch) -> Vec<Cursor> {
    let times = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
    let sequences = |column: usize| batch.column(column).as_primitive::<UInt64Type>().values();
    let (as_of, until, at, known_at) = (times(0), times(1), sequences(2), sequences(3));
    let cursor = |row: usize| Cursor {
        as_of: as_of[row],
        until: Position::new(until[row], at[row]),
        known_at: known_at[row],
    };
    (0..batch.num_rows()).map(cursor).collect()
}

/// The cursor of a row that is a fact; where the row says a time too, it is the fact's.
fn before_fact(
    (contract, id): &(String, String),
    place: Option<Position>,
    as_of: Option<Micros>,
) -> Result<Cursor, Problem> {
    let place =
        place.ok_or_else(|| Problem::internal("training-set", "a fact's place isn't known"))?;
    match as_of {
        Some(as_of) if as_of != place.event_time => Err(Problem::user(
            "two-times",
            "a row of the spine has another time than the fact that it is",
        )
        .field("fact_id")
        .detail(format!(
            "the row says {}, the fact `{id}` of `{contract}` is of {}",
            format_timestamp(as_of),
            format_timestamp(place.event_time)
        ))
        .hint("leave the row's time out, or the fact's id: a row is read before its fact, or as of its time")),
        _ => Ok(Cursor::before_fact(place)),
    }
}

/// What rows may know, and the one cursor that all of them have where one is asked for.
fn known_rule(
    asked: Option<TrainingKnownAt>,
    by_column: bool,
) -> Result<(KnownRule, Option<KnownAt>), Problem> {
    Ok(match (asked, by_column) {
        (None, true) => (KnownRule::Column, None),
        (None, false) => (KnownRule::Everything, None),
        (Some(_), true) => {
            return Err(Problem::user(
                "two-cursors",
                "the spine has a column `known_at`, and the request says `known_at` too",
            )
            .field("known_at")
            .hint("leave one of them out"));
        }
        (Some(TrainingKnownAt::Arrival), false) => (KnownRule::AsOfArrival, None),
        (Some(TrainingKnownAt::Until(at)), false) => (KnownRule::Everything, Some(at)),
    })
}

/// A row's own `known_at`: a sequence, or an instant.
fn row_known_at(value: &Value) -> Result<KnownAt, Problem> {
    let wrong = |detail: String| {
        Problem::user(
            "invalid-sequence",
            "a row's `known_at` is neither a sequence nor an instant",
        )
        .field("known_at")
        .detail(detail)
        .hint("use a `sequence` that a reply gave, or RFC 3339 with an offset")
    };
    match value {
        Value::Int(sequence) => Sequence::try_from(*sequence)
            .map(KnownAt::Sequence)
            .map_err(|e| wrong(e.to_string())),
        Value::Timestamp(at) => Ok(KnownAt::Instant(*at)),
        Value::String(text) => match text.parse() {
            Ok(sequence) => Ok(KnownAt::Sequence(sequence)),
            Err(_) => parse_timestamp(text, None)
                .map(KnownAt::Instant)
                .map_err(wrong),
        },
        other => Err(wrong(headwater_schema::value_to_text(other))),
    }
}
