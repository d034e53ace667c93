//! The columns of a spine that are read: keys and the request's own fields, and what each may be read as. Those that say when
//! a row is read are found by [`MomentColumns`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use headwater_schema::contract::nearest;
use headwater_schema::time::parse_timestamp;
use headwater_schema::{DataType, EntityKey, Field, Micros, Problem, Value};

use crate::moments::{FACT_COLUMNS, MomentColumns, RowMoment};

/// An entity that is read.
#[derive(Debug, Clone)]
pub struct KeyShape {
    pub entity: Arc<str>,
    pub keys: Vec<Field>,
}

/// What a spine has to have.
#[derive(Debug, Clone)]
pub struct SpineShape {
    pub entities: Vec<KeyShape>,
    pub context: Vec<Field>,
    pub time: SpineTime,
    /// The names of what is added: no column of the spine may have one of them.
    pub added: Vec<Arc<str>>,
}

/// Where the moments of a spine's rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpineTime {
    /// This column, which has to be there unless rows are facts.
    Column(String),
    /// This column, or one moment for all rows where there is none.
    ColumnOr(String, Micros),
    /// One moment for all rows. A column of this name would say another.
    One { at: Micros, unless: String },
}

impl SpineTime {
    /// The name that a time column has, or would have.
    pub(crate) fn column(&self) -> &str {
        match self {
            Self::Column(name) | Self::ColumnOr(name, _) | Self::One { unless: name, .. } => name,
        }
    }

    /// The moment of rows that have none of their own.
    pub(crate) fn of_all(&self) -> Option<Micros> {
        match self {
            Self::Column(_) => None,
            Self::ColumnOr(_, at) | Self::One { at, .. } => Some(*at),
        }
    }
}

/// A column of a spine and what it is read as.
#[derive(Debug, Clone)]
pub struct Column {
    index: usize,
    pub field: Field,
}

/// Where a spine's columns lie.
#[derive(Debug, Clone)]
pub struct SpineColumns {
    entities: Vec<Vec<Column>>,
    context: Vec<Column>,
    moments: MomentColumns,
}

impl SpineShape {
    /// The name of the time column.
    pub fn time_column(&self) -> &str {
        self.time.column()
    }

    /// The columns whose types are known beforehand.
    pub fn wanted(&self) -> Vec<Field> {
        let mut wanted = vec![Field::new(self.time_column(), DataType::Timestamp)];
        for entity in &self.entities {
            if let [key] = entity.keys.as_slice() {
                wanted.push(Field::new(entity.entity.clone(), key.data_type.clone()));
            }
            wanted.extend(entity.keys.iter().cloned());
        }
        wanted.extend(self.context.iter().cloned());
        for name in FACT_COLUMNS {
            wanted.push(Field::new(name, DataType::String));
        }
        wanted
    }

    /// Whether a key or the context has that name.
    pub(crate) fn asks_for(&self, name: &str) -> bool {
        let of_entity =
            |e: &KeyShape| *e.entity == *name || e.keys.iter().any(|k| *k.name == *name);
        self.entities.iter().any(of_entity) || self.context.iter().any(|f| *f.name == *name)
    }
}

impl SpineColumns {
    /// Finds the columns; every one that is missing, of another type or in the way is refused by name.
    pub fn find(schema: &SchemaRef, shape: &SpineShape) -> Result<Self, Problem> {
        let names = Names(schema);
        names.refuse_clashes(&shape.added)?;
        let moments = MomentColumns::find(&names, shape)?;
        let mut entities = Vec::new();
        for entity in &shape.entities {
            entities.push(names.keys(entity)?);
        }
        let mut context = Vec::new();
        for field in &shape.context {
            let index = names.index(&field.name).ok_or_else(|| {
                names.missing("missing-context", &field.name, "the set asks for it")
            })?;
            context.push(names.typed(index, field, "wrong-context-type")?);
        }
        Ok(Self {
            entities,
            context,
            moments,
        })
    }

    /// Whether rows say themselves what was known.
    pub fn has_known_at(&self) -> bool {
        self.moments.known_at.is_some()
    }

    /// The moment of all rows, where they have none of their own.
    pub fn one_moment(&self) -> Option<Micros> {
        self.moments.one_moment
    }

    /// Whether rows may be facts themselves.
    pub fn has_facts(&self) -> bool {
        self.moments.fact.is_some()
    }

    /// Refuses rows with a value that doesn't fit. Here and below `first` is the number of the first of the rows in the
    /// spine.
    pub fn check(&self, rows: &RecordBatch, first: usize) -> Result<(), Problem> {
        for columns in self.entities.iter().chain([&self.context]) {
            read_all(columns, rows, first)?;
        }
        Ok(())
    }

    /// The key of the entity at `place` of every row; none where a key column is null.
    pub fn keys(
        &self,
        place: usize,
        rows: &RecordBatch,
        first: usize,
    ) -> Result<Vec<Option<EntityKey>>, Problem> {
        let columns = &self.entities[place];
        let arrays = read_all(columns, rows, first)?;
        let key = |row: usize| {
            let values: Vec<Value> = arrays.iter().map(|a| Value::from_array(a, row)).collect();
            EntityKey::from_values(&values)
        };
        Ok((0..rows.num_rows()).map(key).collect())
    }

    /// The columns of the request's own fields.
    pub fn context(&self, rows: &RecordBatch, first: usize) -> Result<Vec<ArrayRef>, Problem> {
        read_all(&self.context, rows, first)
    }

    /// When every row is read.
    pub fn moments(&self, rows: &RecordBatch, first: usize) -> Result<Vec<RowMoment>, Problem> {
        self.moments.read(rows, first)
    }
}

fn read_all(
    columns: &[Column],
    rows: &RecordBatch,
    first: usize,
) -> Result<Vec<ArrayRef>, Problem> {
    let read = |column| read(column, rows, first);
    columns.iter().map(read).collect()
}

/// A column as the type that it is read as; a value that this type doesn't have is refused.
pub fn read(column: &Column, rows: &RecordBatch, first: usize) -> Result<ArrayRef, Problem> {
    let mut array = rows.column(column.index).clone();
    let wanted = column.field.data_type.to_arrow();
    if *array.data_type() == wanted {
        return Ok(array);
    }
    if *array.data_type() == ArrowType::Null {
        return Ok(new_null_array(&wanted, array.len()));
    }
    let wrong = |row: usize, detail: String| {
        Problem::user("wrong-spine-row", "a row of the spine is wrong")
            .field(column.field.name.as_ref())
            .detail(format!("row {}: {detail}", first + row))
            .hint(hint_of(&column.field.data_type))
    };
    let failed = |e: arrow::error::ArrowError| wrong(0, e.to_string());
    if let ArrowType::Dictionary(_, values) = array.data_type() {
        array = cast(&array, values).map_err(failed)?;
    }
    if column.field.data_type == DataType::Timestamp && is_text(array.data_type()) {
        let texts = cast(&array, &ArrowType::Utf8).map_err(failed)?;
        let mut times = Vec::with_capacity(texts.len());
        for row in 0..texts.len() {
            times.push(match Value::from_array(&texts, row) {
                Value::String(text) => {
                    let at = parse_timestamp(&text, None);
                    Value::Timestamp(at.map_err(|e| wrong(row, e))?)
                }
                _ => Value::Null,
            });
        }
        return headwater_schema::array_from_values(&DataType::Timestamp, times.iter());
    }
    if let ArrowType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, _) = array.data_type() {
        // Nanoseconds are floored, also before 1970; a cast would round towards it.
        let nanos = cast(&array, &ArrowType::Int64).map_err(failed)?;
        let times: Vec<Value> = (0..nanos.len())
            .map(|row| match Value::from_array(&nanos, row) {
                Value::Int(nanos) => Value::Timestamp(nanos.div_euclid(1000)),
                _ => Value::Null,
            })
            .collect();
        return headwater_schema::array_from_values(&DataType::Timestamp, times.iter());
    }
    let cast = cast(&array, &wanted).map_err(failed)?;
    let lost = (0..array.len()).find(|row| array.is_valid(*row) && cast.is_null(*row));
    match lost {
        Some(row) => Err(wrong(
            row,
            format!("it doesn't fit {}", column.field.data_type),
        )),
        None => Ok(cast),
    }
}

/// How a value of a type that a spine's row has wrong is mended.
pub(crate) fn hint_of(wanted: &DataType) -> String {
    match wanted {
        DataType::Timestamp => {
            "times are RFC 3339 with an offset, or integer microseconds since 1970".into()
        }
        other => format!("the column is read as {other}: mend the row, or leave it out"),
    }
}

fn is_text(arrow: &ArrowType) -> bool {
    DataType::from_arrow(arrow).is_ok_and(|t| t == DataType::String)
}

/// The type of a column's values, which a dictionary may hold once each.
fn of_values(arrow: &ArrowType) -> &ArrowType {
    match arrow {
        ArrowType::Dictionary(_, values) => values,
        plain => plain,
    }
}

/// Whether a column is of a type, or of one that only holds nothing.
fn fits(given: &ArrowType, wanted: &DataType) -> bool {
    match (wanted, of_values(given)) {
        (_, ArrowType::Null) => true,
        // Integers all the same; one that is too large is found where its row is read.
        (
            DataType::Int64,
            ArrowType::UInt64
            | ArrowType::Decimal32(_, 0)
            | ArrowType::Decimal64(_, 0)
            | ArrowType::Decimal128(_, 0)
            | ArrowType::Decimal256(_, 0),
        ) => true,
        (_, given) => DataType::from_arrow(given).is_ok_and(|given| given == *wanted),
    }
}

pub(crate) struct Names<'a>(pub &'a SchemaRef);

impl Names<'_> {
    pub fn index(&self, name: &str) -> Option<usize> {
        self.0.fields().iter().position(|f| f.name() == name)
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.0.fields().iter().map(|f| f.name().as_str())
    }

    pub fn list(&self) -> String {
        self.all().collect::<Vec<_>>().join(", ")
    }

    pub fn missing(&self, code: &'static str, name: &str, why: &str) -> Problem {
        let hint = match nearest(name, self.all()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it has: {}", self.list()),
        };
        Problem::user(code, format!("the spine has no column `{name}`"))
            .field(name)
            .detail(why)
            .hint(hint)
    }

    /// Refuses columns that occur twice, and names of columns that are to be added which are taken.
    pub fn refuse_clashes(&self, added: &[Arc<str>]) -> Result<(), Problem> {
        let clash = |name: &str, detail: &str| {
            Problem::user("name-clash", format!("two columns are called `{name}`"))
                .field(name)
                .detail(detail)
                .hint("rename the spine's")
        };
        for (index, name) in self.all().enumerate() {
            if self.index(name) != Some(index) {
                return Err(clash(name, "the spine has it twice"));
            }
            if added.iter().any(|added| **added == *name) {
                return Err(clash(
                    name,
                    "the spine has it, and what is added has the same name",
                ));
            }
        }
        let twice = (1..added.len()).find(|index| added[..*index].contains(&added[*index]));
        match twice {
            Some(index) => Err(clash(&added[index], "two of what is added have it")
                .hint("rename one of them where it is defined")),
            None => Ok(()),
        }
    }

    /// The key columns of an entity: one named like the entity where it has a single key, else by the
    /// keys' own names.
    fn keys(&self, entity: &KeyShape) -> Result<Vec<Column>, Problem> {
        if let ([key], Some(index)) = (entity.keys.as_slice(), self.index(&entity.entity)) {
            return Ok(vec![self.typed(index, key, "wrong-key-type")?]);
        }
        let column = |key: &Field| {
            let index = self.index(&key.name).ok_or_else(|| {
                let why = format!("it is a key of the entity `{}`", entity.entity);
                self.missing("missing-key", &key.name, &why)
            })?;
            self.typed(index, key, "wrong-key-type")
        };
        entity.keys.iter().map(column).collect()
    }

    /// A column that has to be of a type.
    pub fn typed(
        &self,
        index: usize,
        field: &Field,
        code: &'static str,
    ) -> Result<Column, Problem> {
        let given = self.0.field(index).data_type();
        self.refuse_no_zone(index, &field.data_type)?;
        let fits = match DataType::from_arrow(given) {
            Ok(DataType::Int64 | DataType::String) if field.data_type == DataType::Timestamp => {
                true
            }
            Ok(given) => given == field.data_type,
            Err(_) => false,
        };
        match fits {
            true => Ok(self.column(index, field.data_type.clone())),
            false => {
                let wanted = field.data_type.to_string();
                Err(self.wrong_type(index, &wanted, code, "cast it before you write the spine"))
            }
        }
    }

    /// A column that is read as the first of some types that it fits, integers of any width among them.
    pub fn one_of(
        &self,
        index: usize,
        wanted: &[DataType],
        code: &'static str,
        hint: &str,
    ) -> Result<Column, Problem> {
        let given = self.0.field(index).data_type();
        for wanted in wanted {
            self.refuse_no_zone(index, wanted)?;
            if fits(given, wanted) {
                return Ok(self.column(index, wanted.clone()));
            }
        }
        let wanted: Vec<String> = wanted.iter().map(DataType::to_string).collect();
        Err(self.wrong_type(index, &wanted.join(" or "), code, hint))
    }

    fn column(&self, index: usize, data_type: DataType) -> Column {
        let field = Field::new(self.0.field(index).name().as_str(), data_type);
        Column { index, field }
    }

    fn refuse_no_zone(&self, index: usize, wanted: &DataType) -> Result<(), Problem> {
        let field = self.0.field(index);
        let given = of_values(field.data_type());
        match (wanted, given) {
            (DataType::Timestamp, ArrowType::Timestamp(_, None)) => Err(Problem::user(
                "time-without-zone",
                format!("the times of the spine's column `{}` have no time zone", field.name()),
            )
            .field(field.name().as_str())
            .detail(format!("it is {given}"))
            .hint("say which zone they are of, as with pandas' `tz_localize`, before you write the spine")),
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, index: usize, wanted: &str, code: &'static str, hint: &str) -> Problem {
        let field = self.0.field(index);
        let title = format!("the spine's column `{}` has a wrong type", field.name());
        Problem::user(code, title)
            .field(field.name().as_str())
            .detail(format!("it is {}, wanted is {wanted}", field.data_type()))
            .hint(hint)
    }
}
