//! Values of features, column by column, in blocks of rows that never move; they leave as arrays, in any order.
//!
//! Of latest values it is kept which fact they are read from, for all features of a group at once. They are copied from the
//! facts' columns when the rows leave, or when the facts are let go.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use headwater_aggregate::{InputBatch, InputColumn};
use headwater_features::{Picked, ReadPlan};
use headwater_schema::{DataType, Problem, Value, array_from_values};

use super::results::Taken;

/// Rows of a block. Unit tests have small ones, so that few rows make several.
const BLOCK_ROWS: usize = if cfg!(test) { 4 } else { 4096 };

/// What columns there are: one for each of a plan's features that isn't derived.
pub(super) struct Shape {
    types: Vec<DataType>,
    /// Of those that are latest values.
    latest: Vec<Option<Latest>>,
    groups: usize,
}

/// A column of latest values.
struct Latest {
    group: usize,
    input: usize,
    /// What stands for null.
    default: Value,
    /// Which of the columns of latest values it is.
    nth: usize,
}

/// Where the latest values of a group are.
#[derive(Clone, Copy)]
enum Source {
    Picked(Picked),
    /// Beside the facts: from here on those of all columns of latest values.
    Said(u32),
}

impl Shape {
    pub(super) fn of(plan: &ReadPlan) -> Self {
        let features = &plan.view().features;
        let windowed = plan.windowed();
        let (all, mut nth) = (plan.latest(), 0..);
        let latest = windowed.iter().map(|feature| {
            let latest = all.iter().find(|latest| latest.feature == *feature)?;
            Some(Latest {
                group: latest.group,
                input: latest.input,
                default: features[*feature].default.clone().unwrap_or(Value::Null),
                nth: nth.next()?,
            })
        });
        Self {
            latest: latest.collect(),
            groups: all.iter().map(|latest| latest.group + 1).max().unwrap_or(0),
            types: windowed
                .iter()
                .map(|i| features[*i].data_type.clone())
                .collect(),
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.types.len()
    }

    /// Bytes of a row, without what lies elsewhere; latest values counted or not.
    fn row_bytes(&self, latest: bool) -> usize {
        let columns = self.types.iter().zip(&self.latest);
        let columns = columns.filter(|(_, own)| latest || own.is_none());
        columns.map(|(t, _)| 1 + width(t)).sum()
    }
}

/// Rows of values, one column per feature.
pub(super) struct Values {
    shape: Arc<Shape>,
    blocks: Vec<Block>,
    /// What the latest values of blocks that aren't settled are read from.
    facts: Arc<[InputBatch]>,
    facts_bytes: usize,
    /// Latest values that aren't read from facts.
    said: Vec<Value>,
    /// How many blocks have all values themselves.
    settled: usize,
    /// What is added to by rows: texts and whatever else lies elsewhere.
    beside_bytes: usize,
}

struct Block {
    /// The number of each row.
    numbers: Vec<u64>,
    /// Whether any fact counted for the first column.
    counted: Vec<bool>,
    columns: Vec<Column>,
    /// Of each group of latest values, until it is settled.
    sources: Vec<Vec<Source>>,
}

struct Column {
    nulls: Vec<bool>,
    data: Data,
}

enum Data {
    Bool(Vec<bool>),
    /// Integers and timestamps.
    Int(Vec<i64>),
    Date(Vec<i32>),
    Float(Vec<f64>),
    /// The bytes of all texts, and where each ends.
    Text(Vec<u8>, Vec<usize>),
    Other(Vec<Value>),
}

impl Block {
    fn new(shape: &Shape) -> Self {
        let column = |(data_type, latest): (&DataType, &Option<Latest>)| match latest {
            None => Column::new(data_type, BLOCK_ROWS),
            Some(_) => Column::new(data_type, 0),
        };
        let sources = (0..shape.groups).map(|_| Vec::with_capacity(BLOCK_ROWS));
        Self {
            numbers: Vec::with_capacity(BLOCK_ROWS),
            counted: Vec::with_capacity(BLOCK_ROWS),
            columns: shape.types.iter().zip(&shape.latest).map(column).collect(),
            sources: sources.collect(),
        }
    }
}

impl Values {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self {
            shape,
            blocks: Vec::new(),
            facts: Arc::new([]),
            facts_bytes: 0,
            said: Vec::new(),
            settled: 0,
            beside_bytes: 0,
        }
    }

    pub(super) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    pub(super) fn rows(&self) -> usize {
        self.blocks.iter().map(|b| b.numbers.len()).sum()
    }

    /// About how many bytes of memory they take, without the facts.
    pub(super) fn bytes(&self) -> usize {
        let row = size_of::<u64>() + 1;
        let latest = self.shape.groups * size_of::<Source>();
        let (settled, others) = (
            self.shape.row_bytes(true),
            self.shape.row_bytes(false) + latest,
        );
        let blocks = self.blocks.len() * row
            + self.settled * settled
            + (self.blocks.len() - self.settled) * others;
        blocks * BLOCK_ROWS + self.beside_bytes
    }

    /// About how many bytes of memory they take with the facts.
    pub(super) fn bytes_with_facts(&self) -> usize {
        self.bytes() + self.facts_bytes
    }

    /// About how many bytes of memory they take once they are settled.
    pub(super) fn bytes_settled(&self) -> usize {
        let facts: usize = self.facts.iter().map(|b| b.sequences.len()).sum();
        let fact = self.facts_bytes.checked_div(facts).unwrap_or(0);
        let rows = (self.blocks.len() - self.settled) * BLOCK_ROWS;
        self.bytes() + rows * (self.shape.row_bytes(true) + fact * self.shape.groups)
    }

    /// Whether any rows need the facts.
    pub(super) fn is_settled(&self) -> bool {
        self.shape.groups == 0 || self.settled == self.blocks.len()
    }

    /// Whether some need them and others don't.
    pub(super) fn is_part_settled(&self) -> bool {
        self.settled > 0 && !self.is_settled()
    }

    /// From now on latest values are read from these facts. The rows before must be settled.
    pub(super) fn read_from(&mut self, facts: &Arc<[InputBatch]>) {
        if self.shape.groups > 0 {
            self.facts = facts.clone();
            self.facts_bytes = facts.iter().map(InputBatch::size_bytes).sum();
        }
    }

    /// Copies latest values, so that the facts aren't needed any more.
    pub(super) fn settle(&mut self) {
        if self.shape.groups > 0 {
            for block in self.settled..self.blocks.len() {
                let sources = std::mem::take(&mut self.blocks[block].sources);
                for (column, latest) in self.shape.latest.iter().enumerate() {
                    if let Some(latest) = latest {
                        let sources = &sources[latest.group];
                        let copied = self.copied(column, latest, sources.iter().copied());
                        self.beside_bytes += copied.beside_bytes();
                        self.blocks[block].columns[column] = copied;
                    }
                }
            }
        }
        self.settled = self.blocks.len();
        self.facts = Arc::new([]);
        self.facts_bytes = 0;
        self.said.clear();
    }

    /// Lets all rows go; facts stay.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.said.clear();
        (self.settled, self.beside_bytes) = (0, 0);
    }

    /// Begins a row, which must get a value in every column.
    pub(super) fn begin_row(&mut self, number: u64) {
        let full = |b: &Block| b.numbers.len() == BLOCK_ROWS;
        if self.blocks.len() == self.settled || self.blocks.last().is_none_or(full) {
            self.blocks.push(Block::new(&self.shape));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.numbers.push(number);
        }
    }

    /// Gives the row that was begun last its value in a column that isn't one of latest values, and whether any fact counted. One of
    /// another type becomes null.
    pub(super) fn say(&mut self, column: usize, value: &Value, counted: bool) {
        if let Some(block) = self.blocks.last_mut() {
            self.beside_bytes += block.columns[column].push(value);
            if column == 0 {
                block.counted.push(counted);
            }
        }
    }

    /// Says what a group of latest values is read from in the row that was begun last.
    pub(super) fn pick(&mut self, group: usize, picked: Picked) {
        if let Some(block) = self.blocks.last_mut() {
            block.sources[group].push(Source::Picked(picked));
            if matches!(&self.shape.latest[0], Some(first) if first.group == group) {
                block.counted.push(picked != Picked::Nothing);
            }
        }
    }

    /// Gives the row that was begun last all its values.
    pub(super) fn say_all<'v>(&mut self, values: impl Iterator<Item = (&'v Value, bool)>) {
        let Some(block) = self.blocks.last_mut() else {
            return;
        };
        let source = Source::Said(self.said.len() as u32);
        block
            .sources
            .iter_mut()
            .for_each(|group| group.push(source));
        for (column, (value, counted)) in values.enumerate() {
            self.beside_bytes += match &self.shape.latest[column] {
                None => block.columns[column].push(value),
                Some(_) => {
                    self.said.push(value.clone());
                    size_of::<Value>() + heap_bytes(value)
                }
            };
            if column == 0 {
                block.counted.push(counted);
            }
        }
    }

    /// The value of a column at a place.
    pub(super) fn get(&self, place: usize, column: usize) -> Value {
        let (block, row) = self.at(place);
        match &self.shape.latest[column] {
            Some(latest) if !block.sources.is_empty() => {
                self.read(latest, block.sources[latest.group][row])
            }
            _ => block.columns[column].get(row, &self.shape.types[column]),
        }
    }

    /// The number of the row at a place.
    pub(super) fn number(&self, place: usize) -> u64 {
        let (block, row) = self.at(place);
        block.numbers[row]
    }

    /// Whether any fact counted for the first column at a place.
    pub(super) fn counted(&self, place: usize) -> bool {
        let (block, row) = self.at(place);
        block.counted.get(row).copied().unwrap_or(false)
    }

    fn at(&self, place: usize) -> (&Block, usize) {
        (&self.blocks[place / BLOCK_ROWS], place % BLOCK_ROWS)
    }

    fn read(&self, latest: &Latest, source: Source) -> Value {
        let value = match source {
            Source::Picked(Picked::Fact { batch, row }) => {
                self.facts[batch as usize].columns[latest.input].get(row as usize)
            }
            Source::Picked(_) => Value::Null,
            Source::Said(first) => return self.said[first as usize + latest.nth].clone(),
        };
        match value {
            Value::Null => latest.default.clone(),
            value => value,
        }
    }

    /// The places of the rows in the order of their numbers.
    pub(super) fn places(&self) -> Vec<usize> {
        let places = self.blocks.iter().enumerate().flat_map(|(block, about)| {
            let numbers = about.numbers.iter().enumerate();
            numbers.map(move |(row, number)| (*number, block * BLOCK_ROWS + row))
        });
        let numbers = || self.blocks.iter().flat_map(|b| &b.numbers).copied();
        let first = numbers().min().unwrap_or(0);
        let last = numbers().max().unwrap_or(0);
        let rows = self.rows();
        if last - first != (rows as u64).saturating_sub(1) {
            let mut places: Vec<(u64, usize)> = places.collect();
            places.sort_unstable();
            return places.into_iter().map(|(_, place)| place).collect();
        }
        // None is missing: each says where it stands.
        let mut sorted = vec![0; rows];
        for (number, place) in places {
            sorted[(number - first) as usize] = place;
        }
        sorted
    }

    /// The rows at some places.
    pub(super) fn take(&self, places: &[usize]) -> Result<Taken, Problem> {
        let columns = 0..self.shape.columns();
        let columns = columns.map(|column| self.take_column(column, places));
        Ok(Taken {
            columns: columns.collect::<Result<_, _>>()?,
            counted: match self.shape.columns() {
                0 => Vec::new(),
                _ => places.iter().map(|place| self.counted(*place)).collect(),
            },
        })
    }

    fn take_column(&self, column: usize, places: &[usize]) -> Result<ArrayRef, Problem> {
        let data_type = &self.shape.types[column];
        if let (Some(latest), false) = (&self.shape.latest[column], self.is_settled()) {
            let sources = places.iter().map(|place| {
                let (block, row) = self.at(*place);
                block.sources[latest.group][row]
            });
            return self.copied(column, latest, sources).finish(data_type);
        }
        let columns: Vec<&Column> = self.blocks.iter().map(|b| &b.columns[column]).collect();
        Column::picked(data_type, &columns, places).finish(data_type)
    }

    /// A column of latest values, read from some sources.
    fn copied(
        &self,
        column: usize,
        latest: &Latest,
        sources: impl ExactSizeIterator<Item = Source>,
    ) -> Column {
        let mut copied = Column::new(&self.shape.types[column], sources.len());
        let inputs = self.facts.iter().map(|facts| &facts.columns[latest.input]);
        let inputs: Vec<&InputColumn> = inputs.collect();
        /// Copies values of one type; whatever isn't one is made a value first.
        macro_rules! copy {
            ($input:path, $push:expr) => {{
                let arrays = inputs.iter().map(|input| match input {
                    $input(array) => Some(array),
                    _ => None,
                });
                let arrays: Vec<_> = arrays.collect();
                for source in sources {
                    let present = match source {
                        Source::Picked(Picked::Fact { batch, row }) => {
                            let array = arrays[batch as usize].filter(|a| a.is_valid(row as usize));
                            array.is_some_and(|array| $push(&mut copied, array.value(row as usize)))
                        }
                        _ => false,
                    };
                    if !present {
                        copied.push(&self.read(latest, source));
                    }
                }
            }};
        }
        match &self.shape.types[column] {
            DataType::Float64 => copy!(InputColumn::Float, Column::push_float),
            DataType::Int64 => copy!(InputColumn::Int, Column::push_int),
            DataType::Timestamp => copy!(InputColumn::Timestamp, Column::push_int),
            DataType::String => copy!(InputColumn::String, Column::push_text),
            _ => sources.for_each(|source| {
                copied.push(&self.read(latest, source));
            }),
        }
        copied
    }
}

/// Bytes of a value where it lies in its column.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Bool => 1,
        DataType::Date => 4,
        DataType::Int64 | DataType::Timestamp | DataType::Float64 | DataType::String => 8,
        _ => size_of::<Value>(),
    }
}

/// About how many bytes a value has elsewhere.
fn heap_bytes(value: &Value) -> usize {
    let inner = |value: &Value| size_of::<Value>() + heap_bytes(value);
    match value {
        Value::String(text) => 16 + text.len(),
        Value::Bytes(bytes) => 16 + bytes.len(),
        Value::List(items) => 16 + items.iter().map(inner).sum::<usize>(),
        Value::Struct(members) => members.iter().map(|(_, v)| 32 + inner(v)).sum(),
        Value::Map(entries) => entries.iter().map(|(k, v)| inner(k) + inner(v)).sum(),
        _ => 0,
    }
}

fn texts(
    bytes: Vec<u8>,
    ends: &[usize],
    nulls: Option<NullBuffer>,
) -> Result<StringArray, Problem> {
    let wrong = |e: &dyn std::fmt::Display| {
        Problem::internal("sweep", "texts can't be put together").detail(e)
    };
    i32::try_from(bytes.len()).map_err(|e| wrong(&e))?;
    let offsets = std::iter::once(0).chain(ends.iter().map(|end| *end as i32));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets.collect::<Vec<i32>>()));
    StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls).map_err(|e| wrong(&e))
}

impl Column {
    fn new(data_type: &DataType, rows: usize) -> Self {
        let data = match data_type {
            DataType::Bool => Data::Bool(Vec::with_capacity(rows)),
            DataType::Int64 | DataType::Timestamp => Data::Int(Vec::with_capacity(rows)),
            DataType::Date => Data::Date(Vec::with_capacity(rows)),
            DataType::Float64 => Data::Float(Vec::with_capacity(rows)),
            DataType::String => Data::Text(Vec::new(), Vec::with_capacity(rows)),
            _ => Data::Other(Vec::with_capacity(rows)),
        };
        Self {
            nulls: Vec::with_capacity(rows),
            data,
        }
    }

    /// What some columns, each of a block, have at some places.
    fn picked(data_type: &DataType, columns: &[&Self], places: &[usize]) -> Self {
        let of = |place: &usize| (columns[place / BLOCK_ROWS], place % BLOCK_ROWS);
        let nulls = places.iter().map(of).map(|(column, row)| column.nulls[row]);
        /// What each block of one type has, and the values at the places.
        macro_rules! pick {
            ($variant:path) => {{
                let blocks = columns.iter().map(|column| match &column.data {
                    $variant(values) => values.as_slice(),
                    _ => &[],
                });
                let blocks: Vec<&[_]> = blocks.collect();
                let at = |place: &usize| blocks[place / BLOCK_ROWS][place % BLOCK_ROWS].clone();
                $variant(places.iter().map(at).collect())
            }};
        }
        let data = match data_type {
            DataType::Bool => pick!(Data::Bool),
            DataType::Int64 | DataType::Timestamp => pick!(Data::Int),
            DataType::Date => pick!(Data::Date),
            DataType::Float64 => pick!(Data::Float),
            DataType::String => {
                let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(places.len()));
                for (column, row) in places.iter().map(of) {
                    bytes.extend_from_slice(column.data.text(row));
                    ends.push(bytes.len());
                }
                Data::Text(bytes, ends)
            }
            _ => pick!(Data::Other),
        };
        Self {
            nulls: nulls.collect(),
            data,
        }
    }

    /// Takes a value; the bytes that it takes elsewhere.
    fn push(&mut self, value: &Value) -> usize {
        let mut beside = 0;
        match (&mut self.data, value) {
            (Data::Bool(values), Value::Bool(v)) => values.push(*v),
            (Data::Int(values), Value::Int(v) | Value::Timestamp(v)) => values.push(*v),
            (Data::Date(values), Value::Date(v)) => values.push(*v),
            (Data::Float(values), Value::Float(v)) => values.push(*v),
            (Data::Text(bytes, ends), Value::String(text)) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                beside = text.len();
            }
            (Data::Other(values), value) => {
                values.push(value.clone());
                beside = heap_bytes(value);
                self.nulls.push(value.is_null());
                return beside;
            }
            _ => {
                self.data.push_default();
                self.nulls.push(true);
                return 0;
            }
        }
        self.nulls.push(false);
        beside
    }

    /// Takes a float, unless it counts as null; whether it did.
    fn push_float(&mut self, value: f64) -> bool {
        match &mut self.data {
            Data::Float(values) if value.is_finite() => {
                // −0.0 is 0.0.
                values.push(value + 0.0);
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// Takes an integer or a timestamp; whether it did.
    fn push_int(&mut self, value: i64) -> bool {
        match &mut self.data {
            Data::Int(values) => {
                values.push(value);
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// Takes a text; whether it did.
    fn push_text(&mut self, text: &str) -> bool {
        match &mut self.data {
            Data::Text(bytes, ends) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// The bytes that all values take elsewhere.
    fn beside_bytes(&self) -> usize {
        match &self.data {
            Data::Text(bytes, _) => bytes.len(),
            Data::Other(values) => values.iter().map(heap_bytes).sum(),
            _ => 0,
        }
    }

    /// The values as an array.
    fn finish(self, data_type: &DataType) -> Result<ArrayRef, Problem> {
        let valid = |row: usize| !self.nulls[row];
        let nulls = self
            .nulls
            .contains(&true)
            .then(|| NullBuffer::new(BooleanBuffer::collect_bool(self.nulls.len(), valid)));
        Ok(match (self.data, data_type) {
            (Data::Bool(values), _) => Arc::new(BooleanArray::new(values.into(), nulls)),
            (Data::Int(values), DataType::Timestamp) => {
                let times = TimestampMicrosecondArray::new(values.into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            (Data::Int(values), _) => Arc::new(Int64Array::new(values.into(), nulls)),
            (Data::Date(values), _) => Arc::new(Date32Array::new(values.into(), nulls)),
            (Data::Float(values), _) => Arc::new(Float64Array::new(values.into(), nulls)),
            (Data::Text(bytes, ends), _) => Arc::new(texts(bytes, &ends, nulls)?),
            (Data::Other(values), other) => array_from_values(other, values.iter())?,
        })
    }

    fn get(&self, row: usize, data_type: &DataType) -> Value {
        if self.nulls[row] {
            return Value::Null;
        }
        match &self.data {
            Data::Bool(values) => Value::Bool(values[row]),
            Data::Int(values) if *data_type == DataType::Timestamp => Value::Timestamp(values[row]),
            Data::Int(values) => Value::Int(values[row]),
            Data::Date(values) => Value::Date(values[row]),
            Data::Float(values) => Value::Float(values[row]),
            Data::Text(..) => Value::string(String::from_utf8_lossy(self.data.text(row))),
            Data::Other(values) => values[row].clone(),
        }
    }
}

impl Data {
    fn push_default(&mut self) {
        match self {
            Self::Bool(values) => values.push(false),
            Self::Int(values) => values.push(0),
            Self::Date(values) => values.push(0),
            Self::Float(values) => values.push(0.0),
            Self::Text(bytes, ends) => ends.push(bytes.len()),
            Self::Other(values) => values.push(Value::Null),
        }
    }

    fn text(&self, row: usize) -> &[u8] {
        match self {
            Self::Text(bytes, ends) => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                &bytes[start..ends[row]]
            }
            _ => &[],
        }
    }
}
