//! When the rows of a spine are read: each at its time, as it was known then, before the fact that it is.
//!
//! A column whose type says none of this is refused by its name. Passed over, its rows would see more than they say.

use arrow::array::{ArrayRef, RecordBatch};
use headwater_schema::{DataType, Field, Micros, Problem, Value, value_to_text};

use crate::columns::{Column, Names, SpineShape, SpineTime, read};

/// What a row knew: a sequence, or an instant, or either as text.
const KNOWN_AT: &str = "known_at";
const KNOWN_AT_TYPES: [DataType; 3] = [DataType::Int64, DataType::Timestamp, DataType::String];
/// The fact that a row is: its contract, and its id of a type that ids can have.
const FACT_CONTRACT: &str = "fact_contract";
const FACT_ID: &str = "fact_id";
const FACT_ID_TYPES: [DataType; 5] = [
    DataType::String,
    DataType::Int64,
    DataType::Bool,
    DataType::Timestamp,
    DataType::Date,
];
/// The columns that are text wherever nothing declares a type.
pub const FACT_COLUMNS: [&str; 2] = [FACT_CONTRACT, FACT_ID];

/// When a row is read.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMoment {
    /// None where the row is a fact and has no time of its own.
    pub as_of: Option<Micros>,
    /// What the row's own `known_at` says.
    pub known_at: Option<Value>,
    /// (contract, id) where the row is itself a fact.
    pub fact: Option<(String, String)>,
}

/// The columns that say it.
#[derive(Debug, Clone)]
pub struct MomentColumns {
    time: Option<Column>,
    /// The moment of all rows, where they have none of their own.
    pub one_moment: Option<Micros>,
    pub known_at: Option<Column>,
    pub fact: Option<(Column, Column)>,
}

impl MomentColumns {
    pub fn find(names: &Names<'_>, shape: &SpineShape) -> Result<Self, Problem> {
        let fact = fact(names, shape)?;
        let time = time(names, &shape.time, fact.is_some())?;
        let known_at = names.index(KNOWN_AT).map(|index| {
            let hint = "a `known_at` is a `sequence` that a reply gave, as an integer or a text, or an instant with a time zone: cast it before you write the spine";
            names.one_of(index, &KNOWN_AT_TYPES, "wrong-known-at-type", hint)
        });
        let of_all = shape.time.of_all();
        Ok(Self {
            one_moment: of_all.filter(|_| time.is_none() && fact.is_none()),
            time,
            known_at: known_at.transpose()?,
            fact,
        })
    }

    /// When every row is read; `first` is the number of the first of them in the spine.
    pub fn read(&self, rows: &RecordBatch, first: usize) -> Result<Vec<RowMoment>, Problem> {
        let column = |column: &Option<Column>| {
            let array = column.as_ref().map(|c| read(c, rows, first));
            array.transpose()
        };
        let (times, known) = (column(&self.time)?, column(&self.known_at)?);
        let (contract, id) = self.fact.clone().unzip();
        let (contracts, ids) = (column(&contract)?, column(&id)?);
        let mut moments = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let value = |array: &Option<ArrayRef>| {
                let value = array.as_ref().map(|a| Value::from_array(a, row));
                value.filter(|value| !value.is_null())
            };
            let fact = match (value(&contracts), value(&ids)) {
                (Some(contract), Some(id)) => Some((value_to_text(&contract), value_to_text(&id))),
                (None, None) => None,
                (None, _) => return Err(half_a_fact(FACT_CONTRACT, first + row)),
                (_, None) => return Err(half_a_fact(FACT_ID, first + row)),
            };
            let as_of = match value(&times) {
                Some(Value::Timestamp(at)) => Some(at),
                _ => self.one_moment,
            };
            if as_of.is_none() && fact.is_none() {
                return Err(self.no_time(first + row));
            }
            moments.push(RowMoment {
                as_of,
                known_at: value(&known),
                fact,
            });
        }
        Ok(moments)
    }

    fn no_time(&self, row: usize) -> Problem {
        let column = self.time.as_ref().map(|t| t.field.name.to_string());
        Problem::user("missing-time", "a row of the spine has no time")
            .field(column.unwrap_or_else(|| FACT_ID.into()))
            .detail(format!("row {row} has none"))
            .hint("leave rows without a time out")
    }
}

/// The column of the rows' moments, where there is one.
fn time(names: &Names<'_>, time: &SpineTime, facts: bool) -> Result<Option<Column>, Problem> {
    let column = time.column();
    match (names.index(column), time) {
        (Some(_), SpineTime::One { unless, .. }) => Err(Problem::user(
            "two-cursors",
            format!("the spine has a column `{unless}`, and one moment is asked for all rows"),
        )
        .field(unless.as_str())
        .hint(
            "leave `as_of` out of the request to read each row at its own, or rename the column",
        )),
        (Some(index), _) => {
            let field = Field::new(column, DataType::Timestamp);
            names.typed(index, &field, "wrong-time-type").map(Some)
        }
        (None, SpineTime::Column(name)) if !facts => Err(Problem::user(
            "missing-time",
            "the spine has no time column",
        )
        .field(name.as_str())
        .detail(format!("it has: {}", names.list()))
        .hint(
            "name the column of the moments to read at `as_of`, or say which it is with `--time`",
        )),
        (None, _) => Ok(None),
    }
}

/// The columns of the facts that rows are: both, or neither. One alone may be a key's, or the context's.
fn fact(names: &Names<'_>, shape: &SpineShape) -> Result<Option<(Column, Column)>, Problem> {
    let (there, lacks) = match FACT_COLUMNS.map(|name| names.index(name)) {
        [Some(contract), Some(id)] => {
            let hint = "write it as text: ids are as `headwater facts get` lists them";
            let code = "wrong-fact-type";
            return Ok(Some((
                names.one_of(contract, &[DataType::String], code, hint)?,
                names.one_of(id, &FACT_ID_TYPES, code, hint)?,
            )));
        }
        [None, None] => return Ok(None),
        [Some(_), None] => (FACT_CONTRACT, FACT_ID),
        [None, Some(_)] => (FACT_ID, FACT_CONTRACT),
    };
    if shape.asks_for(there) {
        return Ok(None);
    }
    let title = format!("the spine has a column `{there}`, and none `{lacks}`");
    Err(Problem::user("half-a-fact", title)
        .field(there)
        .detail("only both together say which fact a row is")
        .hint(format!(
            "add `{lacks}`; or rename `{there}`, and rows are read at their times"
        )))
}

fn half_a_fact(lacks: &str, row: usize) -> Problem {
    let title = "a row of the spine says half of which fact it is";
    Problem::user("half-a-fact", title)
        .field(lacks)
        .detail(format!("row {row} has no `{lacks}`"))
        .hint("give both, or neither: then the row is read at its time")
}
