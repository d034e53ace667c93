//! What one view keeps of each fact, and what it aggregates: the shape that all entities share.

use headwater_schema::{DataType, Micros, Position, Value};

/// The shape of a view's state. A fact becomes one row of `inputs`; each slot aggregates one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The types of the values kept of each fact.
    pub inputs: Vec<DataType>,
    /// What is aggregated. Features that need the same partial aggregate share a slot.
    pub slots: Vec<Slot>,
    /// Whether any feature reaches back over all time, so that facts that age out are folded
    /// into a base instead of being dropped.
    pub lifetime: bool,
    /// The most newest facts that a `rows` window needs, kept whatever their age.
    pub rows_max: usize,
}

impl Layout {
    /// About how many bytes of memory one fact takes that is held by itself.
    pub fn row_bytes(&self) -> usize {
        let input = |data_type: &DataType| match data_type {
            DataType::Bool => 1,
            DataType::Date => 4,
            DataType::Int64 | DataType::Float64 | DataType::Timestamp => 8,
            DataType::String => 40,
            _ => 64,
        };
        16 + self.inputs.iter().map(input).sum::<usize>()
    }
}

/// One partial aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The input aggregated; none counts facts.
    pub input: Option<usize>,
    /// A bool input that says which facts count.
    pub filter: Option<usize>,
    /// The input whose least or greatest value chooses the fact; those where it is null don't count.
    pub order_by: Option<usize>,
    /// The input whose values are the categories to group by; facts where it is null don't count.
    pub by: Option<usize>,
    pub spread: Spread,
    /// The most categories, or keys of maps, that are told apart.
    pub categories_max: usize,
    pub kind: SlotKind,
}

/// How the values of one fact are taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spread {
    /// The value is one value.
    Whole,
    /// A list counts as its elements.
    Elements,
    /// A map is aggregated key by key.
    Entries,
    /// Lists of equal length are aggregated place by place.
    Positions,
}

/// What one fact brings to a slot.
#[derive(Debug, Clone)]
pub struct Contribution {
    pub position: Position,
    /// Null for a slot without an input.
    pub value: Value,
    pub order: Value,
    pub category: Value,
}

impl Contribution {
    /// The same with another value: a part of this one's.
    pub(crate) fn with(&self, value: Value) -> Self {
        Self {
            position: self.position,
            value,
            order: self.order.clone(),
            category: self.category.clone(),
        }
    }
}

impl Slot {
    /// A slot that counts or aggregates without an input, a filter or anything else.
    pub const fn new(kind: SlotKind) -> Self {
        Self {
            input: None,
            filter: None,
            order_by: None,
            by: None,
            spread: Spread::Whole,
            categories_max: 0,
            kind,
        }
    }

    /// Every input that it reads; lineage and plans follow them.
    pub fn inputs(&self) -> impl Iterator<Item = usize> + '_ {
        let inputs = [self.input, self.filter, self.order_by, self.by];
        inputs.into_iter().flatten()
    }

    /// What a fact brings, given the values of its inputs; none where it doesn't count.
    pub fn contribution(
        &self,
        position: Position,
        value_of: impl Fn(usize) -> Value,
    ) -> Option<Contribution> {
        if self
            .filter
            .is_some_and(|f| value_of(f) != Value::Bool(true))
        {
            return None;
        }
        let read = |input: Option<usize>| input.map_or(Value::Null, &value_of);
        let (order, category) = (read(self.order_by), read(self.by));
        let lacks = |input: Option<usize>, value: &Value| input.is_some() && value.is_null();
        if lacks(self.order_by, &order) || lacks(self.by, &category) {
            return None;
        }
        Some(Contribution {
            position,
            value: read(self.input),
            order,
            category,
        })
    }

    /// Whether a fact brings its value and nothing else.
    pub(crate) fn is_plain(&self) -> bool {
        self.order_by.is_none() && self.by.is_none() && self.spread == Spread::Whole
    }

    /// Whether there is a partial aggregate per category or per key of maps.
    pub(crate) fn is_grouped(&self) -> bool {
        self.by.is_some() || self.spread == Spread::Entries
    }

    /// The slot of one category, key or place of this one; itself where it isn't taken apart.
    pub(crate) fn inner(&self) -> Self {
        match self.by {
            Some(_) => Self { by: None, ..*self },
            None => Self {
                spread: Spread::Whole,
                ..*self
            },
        }
    }

    /// The type of the values that the aggregate function sees, given the input's.
    pub(crate) fn value_type<'a>(&self, input: Option<&'a DataType>) -> Option<&'a DataType> {
        match (self.spread, input) {
            (Spread::Elements | Spread::Positions, Some(DataType::List(item))) => Some(item),
            (Spread::Entries, Some(DataType::Map(value))) => Some(value),
            _ => input,
        }
    }
}

/// The kinds of partial aggregate. Several functions share one: `sum`, `avg` and `variance` are
/// all read from `Moments`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotKind {
    /// How many facts (with a value, where the slot has an input), and the time of the newest.
    Count,
    /// Exact sums of the powers 1 to `order`.
    Moments {
        order: u8,
    },
    Min,
    Max,
    /// The first `n` by the total order, oldest first.
    First {
        n: usize,
        keep_nulls: bool,
    },
    /// The last `n` by the total order, newest first.
    Last {
        n: usize,
        keep_nulls: bool,
    },
    /// Distinct values: exact up to this many, estimated above.
    Distinct {
        exact_up_to: usize,
    },
    /// Value → count, of at most this many values.
    Histogram {
        categories_max: usize,
    },
    /// The `n` values seen latest, newest first.
    LastDistinct {
        n: usize,
    },
    /// The `n` greatest values, descending.
    Top {
        n: usize,
    },
    /// The `n` least values, ascending.
    Bottom {
        n: usize,
    },
    /// The value where `order_by` is least; the earliest of equals.
    MinBy,
    /// The value where `order_by` is greatest; the earliest of equals.
    MaxBy,
    /// All values up to this many, counts in buckets above.
    Quantile {
        exact_up_to: usize,
    },
    /// Sums of values and weights that halve every `half_life`.
    Decayed {
        half_life: Micros,
    },
}

impl SlotKind {
    /// Whether a null is a value like any other.
    pub fn keeps_nulls(self) -> bool {
        match self {
            Self::First { keep_nulls, .. } | Self::Last { keep_nulls, .. } => keep_nulls,
            _ => false,
        }
    }
}
