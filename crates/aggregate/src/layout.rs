//! What one view keeps of each fact, and what it aggregates: the shape that all entities share.

use headwater_schema::DataType;

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

/// One partial aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The input aggregated; none counts facts.
    pub input: Option<usize>,
    /// A bool input that says which facts count.
    pub filter: Option<usize>,
    pub kind: SlotKind,
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
}
