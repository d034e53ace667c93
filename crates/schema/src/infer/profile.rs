//! What a sample shows of one column, and what that suggests.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};

use super::exact::{Numbers, is_finer_than_times};
use crate::contract::is_usable_name;
use crate::decode::{CsvCell, Kind, Scanner, Syntax};
use crate::time::{TimeUnit, TimeZone, parse_date, parse_timestamp};
use crate::{DataType, Field, Value};

/// Distinct values that are remembered, to tell ids from others.
const DISTINCT_MAX: usize = 100_000;
/// Members of a struct, or columns.
const MEMBERS_MAX: usize = 1000;

/// Counts of what was seen of one column or member.
#[derive(Default)]
pub struct Profile {
    /// Rows, or parents that were not null.
    pub seen: usize,
    pub present: usize,
    bools: usize,
    integers: usize,
    floats: usize,
    texts: usize,
    /// Texts that are times with an offset, times without, and dates.
    instants: usize,
    local_times: usize,
    dates: usize,
    lists: usize,
    least: i64,
    greatest: i64,
    distinct: HashSet<String>,
    repeats: bool,
    /// What its numbers need, where values are counted and let go: which are ids isn't asked.
    numbers: Option<Numbers>,
    /// The type that the sample itself declares.
    declared: Option<DataType>,
    pub items: Option<Box<Profile>>,
    /// Members of objects, and columns of rows, in the order they were first seen.
    pub members: Vec<(String, Profile)>,
}

impl Profile {
    /// A profile of types alone, whose memory doesn't grow with the rows.
    pub fn of_types() -> Self {
        Self {
            numbers: Some(Numbers::default()),
            ..Self::default()
        }
    }

    fn below(&self) -> Self {
        Self {
            numbers: self.numbers.as_ref().map(|_| Numbers::default()),
            ..Self::default()
        }
    }

    pub fn member(&mut self, name: &str) -> &mut Profile {
        let index = match self.members.iter().position(|(known, _)| known == name) {
            Some(index) => index,
            None => {
                let member = self.below();
                self.members.push((name.to_owned(), member));
                self.members.len() - 1
            }
        };
        &mut self.members[index].1
    }

    /// Drops members whose names no contract may use; how many.
    pub fn leave_out_unnamed(&mut self) -> usize {
        let before = self.members.len();
        self.members.retain(|(name, _)| is_usable_name(name));
        let here = before - self.members.len();
        let members = self.members.iter_mut().map(|(_, member)| member);
        let below = members.chain(self.items.as_deref_mut());
        here + below.map(Self::leave_out_unnamed).sum::<usize>()
    }

    pub fn names(&self) -> String {
        self.members
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn observe_text(&mut self, text: &str) {
        self.texts += 1;
        let utc = TimeZone::utc();
        if self.numbers.is_some() && is_finer_than_times(text) {
            // A time would lose some of it.
        } else if parse_timestamp(text, None).is_ok() {
            self.instants += 1;
        } else if parse_timestamp(text, Some(&utc)).is_ok() {
            self.local_times += 1;
        } else if parse_date(text).is_ok() {
            self.dates += 1;
        }
        self.remember(text);
    }

    fn observe_integer(&mut self, value: i64) {
        self.least = if self.integers == 0 {
            value
        } else {
            self.least.min(value)
        };
        self.greatest = if self.integers == 0 {
            value
        } else {
            self.greatest.max(value)
        };
        self.integers += 1;
        if self.numbers.is_none() {
            self.remember(&value.to_string());
        }
    }

    fn remember(&mut self, text: &str) {
        let keeps = self.numbers.is_none() && self.distinct.len() < DISTINCT_MAX;
        if keeps && !self.distinct.insert(text.to_owned()) {
            self.repeats = true;
        }
    }

    pub fn observe_json(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), Syntax> {
        if depth > super::NESTING_MAX {
            return Err(scanner.syntax("values are nested too deep"));
        }
        self.seen += 1;
        let kind = scanner.kind()?;
        self.present += usize::from(kind != Kind::Null);
        match kind {
            Kind::Null => scanner.literal(kind)?,
            Kind::True | Kind::False => {
                scanner.literal(kind)?;
                self.bools += 1;
            }
            Kind::Number => {
                let number = scanner.number()?;
                if let Some(numbers) = &mut self.numbers {
                    numbers.see(number.text);
                }
                match number.text.parse() {
                    Ok(value) if number.is_whole => self.observe_integer(value),
                    _ => self.floats += 1,
                }
            }
            Kind::Text => {
                let text = scanner.string()?;
                self.observe_text(&text);
            }
            Kind::List => {
                self.lists += 1;
                scanner.accept(b'[');
                let below = self.below();
                let items = self.items.get_or_insert_with(|| Box::new(below));
                let mut first = true;
                while scanner.more(b']', first)? {
                    first = false;
                    items.observe_json(scanner, depth + 1)?;
                }
            }
            Kind::Object => {
                scanner.accept(b'{');
                let mut first = true;
                while scanner.more(b'}', first)? {
                    first = false;
                    let key = scanner.key()?;
                    if self.members.len() >= MEMBERS_MAX {
                        return Err(scanner.syntax("an object has too many different members"));
                    }
                    self.member(&key).observe_json(scanner, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    pub fn observe_cell(&mut self, cell: &CsvCell<'_>) {
        self.seen += 1;
        if cell.is_null() {
            return;
        }
        self.present += 1;
        let text = cell.text.as_ref();
        // `007` is a code and no number, and so are `+49` and digits that no integer holds: a float would lose some.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let leads = |with: fn(&u8) -> bool| digits.as_bytes().get(1).is_some_and(with);
        let is_code = digits.starts_with('0') && text.len() > 1 && !text.contains('.')
            || digits.starts_with('0') && leads(u8::is_ascii_digit)
            || text.starts_with('+')
            || text.parse::<i64>().is_err() && digits.bytes().all(|b| b.is_ascii_digit());
        match (text, text.parse::<i64>()) {
            ("true" | "false", _) => self.bools += 1,
            (_, Ok(value)) if !is_code => {
                self.numbers.iter_mut().for_each(|n| n.see(text));
                self.observe_integer(value);
            }
            _ if !is_code && text.parse::<f64>().is_ok() => {
                self.numbers.iter_mut().for_each(|n| n.see_cell(text));
                self.floats += 1;
            }
            _ => self.observe_text(text),
        }
    }

    pub fn observe_batch(&mut self, batch: &RecordBatch) {
        self.seen += batch.num_rows();
        let schema = batch.schema();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            let column = self.member(field.name());
            let declared = DataType::from_arrow(field.data_type()).unwrap_or(DataType::String);
            let plain = arrow::compute::cast(array, &declared.to_arrow());
            column.seen += array.len();
            column.present += array.len() - array.null_count();
            let has_zone = !matches!(
                field.data_type(),
                arrow::datatypes::DataType::Timestamp(_, None)
            );
            if declared == DataType::Timestamp {
                *(if has_zone {
                    &mut column.instants
                } else {
                    &mut column.local_times
                }) += 1;
            }
            if let Ok(plain) = plain.as_ref().filter_key(&declared) {
                for row in 0..plain.len().min(super::SAMPLE_ROWS_MAX) {
                    match Value::from_array(plain.as_ref(), row) {
                        Value::Null => {}
                        Value::Int(value) => column.observe_integer(value),
                        value => column.remember(&crate::value_to_text(&value)),
                    }
                }
            }
            column.declared = Some(declared);
        }
    }

    /// The type that fits every value that was seen, or string where none does.
    pub fn data_type(&self) -> DataType {
        if let Some(declared) = &self.declared {
            return declared.clone();
        }
        let all = |count: usize| count == self.present && self.present > 0;
        match () {
            () if all(self.bools) => DataType::Bool,
            () if all(self.integers) => DataType::Int64,
            () if all(self.integers + self.floats) => DataType::Float64,
            () if all(self.instants) || all(self.local_times) => DataType::Timestamp,
            () if all(self.dates) => DataType::Date,
            () => DataType::String,
        }
    }

    /// The type in which every value that was seen keeps what it says; string where the rows have none in common.
    pub fn exact_type(&self) -> DataType {
        let some = self.present > 0;
        if some && self.is_list() {
            let items = self.items.as_ref();
            let item = items.map_or(DataType::String, |items| items.exact_type());
            return DataType::List(Arc::new(item));
        }
        if self.is_object() && !self.is_mixed() {
            let member = |(name, m): &(String, Self)| Field::new(name.as_str(), m.exact_type());
            return DataType::Struct(self.members.iter().map(member).collect());
        }
        let plain = self.data_type();
        match (&self.numbers, self.local_times) {
            // Of which zone isn't said.
            (Some(_), 1..) if plain == DataType::Timestamp => DataType::String,
            (Some(numbers), _) if plain == DataType::Float64 => numbers.data_type(),
            _ => plain,
        }
    }

    pub fn is_list(&self) -> bool {
        self.lists > 0 && self.lists == self.present
    }

    pub fn is_object(&self) -> bool {
        !self.members.is_empty()
            && self.bools + self.integers + self.floats + self.texts + self.lists == 0
    }

    /// Whether values of several kinds were seen, so that no type but string is left.
    pub fn is_mixed(&self) -> bool {
        let objects = !self.members.is_empty();
        let kinds = [
            self.bools,
            self.integers + self.floats,
            self.texts,
            self.lists,
            usize::from(objects),
        ];
        kinds.iter().filter(|count| **count > 0).count() > 1
    }

    pub fn is_required(&self, parents: usize) -> bool {
        self.present == parents && parents > 1
    }

    fn is_unique(&self) -> bool {
        !self.repeats && self.distinct.len() == self.present && self.present > 1
    }

    /// The unit in which its integers are times of our days, if there is one.
    fn epoch_unit(&self) -> Option<TimeUnit> {
        // 1990 to 2100, in seconds.
        const FIRST: i64 = 631_152_000;
        const LAST: i64 = 4_102_444_800;
        let factors = [
            (TimeUnit::Seconds, 1),
            (TimeUnit::Millis, 1000),
            (TimeUnit::Micros, 1_000_000),
            (TimeUnit::Nanos, 1_000_000_000),
        ];
        let fits = |factor: i64| {
            self.least >= FIRST.saturating_mul(factor)
                && self.greatest <= LAST.saturating_mul(factor)
        };
        (self.data_type() == DataType::Int64 && self.present > 0)
            .then(|| factors.into_iter().find(|(_, factor)| fits(*factor)))
            .flatten()
            .map(|(unit, _)| unit)
    }

    fn needs_zone(&self) -> bool {
        self.local_times > 0 || self.dates > 0 || self.data_type() == DataType::Date
    }
}

/// Keeps arrays whose values can be ids or numbers worth looking at.
trait FilterKey<'a> {
    fn filter_key(self, data_type: &DataType) -> Result<&'a arrow::array::ArrayRef, ()>;
}

impl<'a, E> FilterKey<'a> for Result<&'a arrow::array::ArrayRef, E> {
    fn filter_key(self, data_type: &DataType) -> Result<&'a arrow::array::ArrayRef, ()> {
        self.map_err(|_| ()).and_then(|array| {
            if data_type.is_key() {
                Ok(array)
            } else {
                Err(())
            }
        })
    }
}

/// What is guessed of the contract as a whole.
pub struct Guess {
    pub event_time: usize,
    /// Others that could be the event time.
    pub other_times: Vec<usize>,
    pub time_unit: Option<TimeUnit>,
    pub needs_zone: bool,
    pub fact_id: Option<usize>,
}

impl Guess {
    /// None where no column can be the event time.
    pub fn of(row: &Profile) -> Option<Self> {
        let mut times: Vec<(i32, usize)> = Vec::new();
        for (index, (name, profile)) in row.members.iter().enumerate() {
            times.extend(time_score(name, profile).map(|score| (-score, index)));
        }
        times.sort_unstable();
        let (_, event_time) = *times.first()?;
        let fact_id = row
            .members
            .iter()
            .enumerate()
            .find(|(index, (name, profile))| {
                *index != event_time
                    && is_id_name(name)
                    && profile.data_type().is_key()
                    && profile.is_unique()
                    && profile.present == row.seen
            });
        let zoned = |index: &usize| row.members[*index].1.needs_zone();
        Some(Self {
            event_time,
            other_times: times[1..].iter().map(|(_, index)| *index).collect(),
            time_unit: row.members[event_time].1.epoch_unit(),
            needs_zone: times.iter().any(|(_, index)| zoned(index)),
            fact_id: fact_id.map(|(index, _)| index),
        })
    }
}

/// How likely a column is the event time; none where it can't be.
fn time_score(name: &str, profile: &Profile) -> Option<i32> {
    let name = name.to_lowercase();
    let named = [
        "event_time",
        "eventtime",
        "time",
        "timestamp",
        "ts",
        "datetime",
        "occurred_at",
        "event_timestamp",
        "date",
    ]
    .contains(&name.as_str());
    let like = ["_time", "_at", "_ts", "_timestamp", "_date", "time"]
        .iter()
        .any(|end| name.ends_with(end));
    let base = match profile.data_type() {
        DataType::Timestamp => 40,
        DataType::Date => 20,
        DataType::Int64 if (named || like) && profile.epoch_unit().is_some() => 30,
        _ => return None,
    };
    // What came later than the event, or is missing at times, is rarely its time.
    let later = ["updated", "created", "ingest", "loaded", "processed"]
        .iter()
        .any(|word| name.contains(word));
    let present = if profile.present == profile.seen {
        20
    } else {
        -20
    };
    Some(base + present + 10 * i32::from(named) + 5 * i32::from(like) - 8 * i32::from(later))
}

fn is_id_name(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "id"
        || name == "key"
        || name == "uuid"
        || name.ends_with("_id")
        || name.ends_with("_key")
        || name.ends_with("uuid")
}
