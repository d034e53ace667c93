//! The aggregate functions: what each accepts, which partial it reads, and its type.

use headwater_schema::DataType;

use crate::SlotKind;

/// How many distinct values `distinct_count` counts exactly unless told otherwise.
pub const EXACT_UP_TO_DEFAULT: usize = 1024;
/// How many categories a `histogram` holds unless told otherwise.
pub const CATEGORIES_MAX_DEFAULT: usize = 1000;

/// An aggregate function with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    First {
        keep_nulls: bool,
    },
    Last {
        keep_nulls: bool,
    },
    FirstN {
        n: usize,
        keep_nulls: bool,
    },
    LastN {
        n: usize,
        keep_nulls: bool,
    },
    Variance {
        sample: bool,
    },
    Stddev {
        sample: bool,
    },
    DistinctCount {
        exact_up_to: usize,
    },
    /// Value → count; with `n` only the `n` most frequent.
    Histogram {
        n: Option<usize>,
        categories_max: usize,
    },
    TimeSinceFirst,
    TimeSinceLast,
}

impl Aggregate {
    /// The partial aggregate that the function is read from.
    pub fn slot_kind(&self) -> SlotKind {
        match *self {
            Self::Count | Self::TimeSinceLast => SlotKind::Count,
            Self::Sum | Self::Avg => SlotKind::Moments { order: 1 },
            Self::Variance { .. } | Self::Stddev { .. } => SlotKind::Moments { order: 2 },
            Self::Min => SlotKind::Min,
            Self::Max => SlotKind::Max,
            Self::First { keep_nulls } => SlotKind::First { n: 1, keep_nulls },
            Self::Last { keep_nulls } => SlotKind::Last { n: 1, keep_nulls },
            Self::FirstN { n, keep_nulls } => SlotKind::First { n, keep_nulls },
            Self::LastN { n, keep_nulls } => SlotKind::Last { n, keep_nulls },
            Self::TimeSinceFirst => SlotKind::First {
                n: 1,
                keep_nulls: false,
            },
            Self::DistinctCount { exact_up_to } => SlotKind::Distinct { exact_up_to },
            Self::Histogram { categories_max, .. } => SlotKind::Histogram { categories_max },
        }
    }

    /// Whether the function makes sense without a column: it then looks at facts alone.
    pub fn needs_input(&self) -> bool {
        !matches!(
            self,
            Self::Count | Self::TimeSinceFirst | Self::TimeSinceLast
        )
    }

    /// The type of the result over inputs of type `input`, or why the function doesn't take it.
    pub fn result_type(&self, input: Option<&DataType>) -> Result<DataType, String> {
        let Some(input) = input else {
            return match self {
                Self::Count => Ok(DataType::Int64),
                Self::TimeSinceFirst | Self::TimeSinceLast => Ok(DataType::Float64),
                _ => Err("it needs a column or expression to aggregate (`of`)".into()),
            };
        };
        let numeric = |result: DataType| {
            if input.is_numeric() {
                Ok(result)
            } else {
                Err(format!("it takes numbers, not {input}"))
            }
        };
        match self {
            Self::Count | Self::DistinctCount { .. } => Ok(DataType::Int64),
            Self::Sum => numeric(match input {
                DataType::Decimal { scale, .. } => DataType::Decimal {
                    precision: 38,
                    scale: *scale,
                },
                other => other.clone(),
            }),
            Self::Avg | Self::Variance { .. } | Self::Stddev { .. } => numeric(DataType::Float64),
            Self::Min | Self::Max if input.is_ordered() => Ok(input.clone()),
            Self::Min | Self::Max => Err(format!("it takes values with an order, not {input}")),
            Self::First { .. } | Self::Last { .. } => Ok(input.clone()),
            Self::FirstN { .. } | Self::LastN { .. } => Ok(DataType::List(input.clone().into())),
            Self::Histogram { .. } if input.is_ordered() => {
                Ok(DataType::Map(DataType::Int64.into()))
            }
            Self::Histogram { .. } => Err(format!("it takes values with an order, not {input}")),
            Self::TimeSinceFirst | Self::TimeSinceLast => Ok(DataType::Float64),
        }
    }
}
