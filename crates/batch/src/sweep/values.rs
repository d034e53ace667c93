//! Values of features, column by column, in blocks of rows that never move; they leave as arrays, in any order.
//!
//! Of latest values it is kept which fact they are read from, for all features of a group at once. They are copied from the
//! facts' columns when the rows leave, or when the facts are let go.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use headwater_aggregate::{InputBatch, InputColumn};
use headwater_features::{Picked, ReadPlan};
use headwater_schema::{DataType, Problem, Value};

use super::column::{Column, heap_bytes, width};
use super::results::Taken;

/// Rows of a block. Unit tests have small ones, so that few rows make several.
pub(super) const BLOCK_ROWS: usize = if cfg!(test) { 4 } else { 4096 };

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
