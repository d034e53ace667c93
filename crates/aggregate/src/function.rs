//! The aggregate functions: what each accepts, which partial it reads, and its type.

use std::sync::Arc;

use headwater_schema::{DataType, Micros};

use crate::{SlotKind, Spread};

/// How many distinct values `distinct_count` counts exactly, and how many values `quantile` keeps, unless told otherwise.
pub const EXACT_UP_TO_DEFAULT: usize = 1024;
/// How many categories are told apart unless told otherwise.
pub const CATEGORIES_MAX_DEFAULT: usize = 1000;

/// An aggregate function with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    Skew {
        sample: bool,
    },
    Kurtosis {
        sample: bool,
    },
    DistinctCount {
        exact_up_to: usize,
    },
    /// The `n` values seen latest, newest first.
    DistinctN {
        n: usize,
    },
    /// The `n` greatest values, duplicates kept.
    TopN {
        n: usize,
    },
    /// The `n` least values, duplicates kept.
    BottomN {
        n: usize,
    },
    /// The value where `order_by` is least.
    MinBy,
    /// The value where `order_by` is greatest.
    MaxBy,
    Quantile {
        at: Quantiles,
        exact_up_to: usize,
    },
    /// Value → count; with `n` only the `n` most frequent.
    Histogram {
        n: Option<usize>,
        categories_max: usize,
    },
    /// The `n` most frequent values.
    TopValues {
        n: usize,
        categories_max: usize,
    },
    DecayedSum {
        half_life: Micros,
    },
    DecayedCount {
        half_life: Micros,
    },
    DecayedAvg {
        half_life: Micros,
    },
    /// Facts per second of the window's width.
    Rate,
    TimeSinceFirst,
    TimeSinceLast,
}

/// One quantile or a list of them, in billionths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Quantiles {
    One(u32),
    Many(Arc<[u32]>),
}

impl Aggregate {
    /// The partial aggregate that the function is read from.
    pub fn slot_kind(&self) -> SlotKind {
        match *self {
            Self::Count | Self::Rate | Self::TimeSinceLast => SlotKind::Count,
            Self::Sum | Self::Avg => SlotKind::Moments { order: 1 },
            Self::Variance { .. } | Self::Stddev { .. } => SlotKind::Moments { order: 2 },
            Self::Skew { .. } => SlotKind::Moments { order: 3 },
            Self::Kurtosis { .. } => SlotKind::Moments { order: 4 },
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
            Self::DistinctN { n } => SlotKind::LastDistinct { n },
            Self::TopN { n } => SlotKind::Top { n },
            Self::BottomN { n } => SlotKind::Bottom { n },
            Self::MinBy => SlotKind::MinBy,
            Self::MaxBy => SlotKind::MaxBy,
            Self::Quantile { exact_up_to, .. } => SlotKind::Quantile { exact_up_to },
            Self::Histogram { categories_max, .. } | Self::TopValues { categories_max, .. } => {
                SlotKind::Histogram { categories_max }
            }
            Self::DecayedSum { half_life }
            | Self::DecayedCount { half_life }
            | Self::DecayedAvg { half_life } => SlotKind::Decayed { half_life },
        }
    }

    /// Whether the function makes no sense without a column; others look at facts alone.
    pub fn needs_input(&self) -> bool {
        !matches!(
            self,
            Self::Count
                | Self::Rate
                | Self::DecayedCount { .. }
                | Self::TimeSinceFirst
                | Self::TimeSinceLast
        )
    }

    /// Whether the same facts give another result at another time.
    pub fn fades(&self) -> bool {
        matches!(
            self,
            Self::DecayedSum { .. }
                | Self::DecayedCount { .. }
                | Self::DecayedAvg { .. }
                | Self::TimeSinceFirst
                | Self::TimeSinceLast
        )
    }

    /// Whether the function chooses a fact by the value of `order_by`.
    pub fn needs_order(&self) -> bool {
        matches!(self, Self::MinBy | Self::MaxBy)
    }

    /// Whether the function has an `n` of its own, which bounds its list or map.
    pub fn takes_n(&self) -> bool {
        matches!(
            self,
            Self::FirstN { .. }
                | Self::LastN { .. }
                | Self::DistinctN { .. }
                | Self::TopN { .. }
                | Self::BottomN { .. }
                | Self::Histogram { .. }
                | Self::TopValues { .. }
        )
    }

    /// The largest relative error of the result once it is estimated; none where it is always exact.
    pub fn error_bound(&self) -> Option<f64> {
        match self {
            Self::DistinctCount { exact_up_to } => Some(1.0 / (*exact_up_to as f64).sqrt()),
            Self::Quantile { .. } => Some(crate::quantile::QUANTILE_ERROR),
            _ => None,
        }
    }

    /// The type of the result over inputs of type `input`, taken apart by `spread` and grouped if `grouped`, or why
    /// the function doesn't take it.
    pub fn result_type(
        &self,
        input: Option<&DataType>,
        spread: Spread,
        grouped: bool,
    ) -> Result<DataType, String> {
        let result = match (spread, input) {
            (Spread::Whole, _) => self.value_type(input)?,
            (Spread::Elements, Some(DataType::List(item))) => self.value_type(Some(item))?,
            (Spread::Entries, Some(DataType::Map(value))) => {
                DataType::Map(self.value_type(Some(value))?.into())
            }
            (Spread::Positions, Some(DataType::List(item))) => {
                DataType::List(self.value_type(Some(item))?.into())
            }
            (Spread::Positions, Some(other)) => {
                return Err(format!("`element_wise` takes lists, not {other}"));
            }
            (_, Some(other)) => return Err(format!("`unnest` takes lists and maps, not {other}")),
            (_, None) => return Err("there is nothing to take apart without `of`".into()),
        };
        Ok(match grouped {
            true => DataType::Map(result.into()),
            false => result,
        })
    }

    fn value_type(&self, input: Option<&DataType>) -> Result<DataType, String> {
        let Some(input) = input else {
            return match self {
                Self::Count => Ok(DataType::Int64),
                _ if !self.needs_input() => Ok(DataType::Float64),
                _ => Err("it needs a column or expression to aggregate (`of`)".into()),
            };
        };
        let numeric = |result: DataType| match input.is_numeric() {
            true => Ok(result),
            false => Err(format!("it takes numbers, not {input}")),
        };
        let ordered = |result: DataType| match input.is_ordered() {
            true => Ok(result),
            false => Err(format!("it takes values with an order, not {input}")),
        };
        let list = || DataType::List(input.clone().into());
        match self {
            Self::Count | Self::DistinctCount { .. } => Ok(DataType::Int64),
            Self::Sum => numeric(match input {
                DataType::Decimal { scale, .. } => DataType::Decimal {
                    precision: 38,
                    scale: *scale,
                },
                other => other.clone(),
            }),
            Self::Avg
            | Self::Variance { .. }
            | Self::Stddev { .. }
            | Self::Skew { .. }
            | Self::Kurtosis { .. }
            | Self::DecayedSum { .. }
            | Self::DecayedAvg { .. } => numeric(DataType::Float64),
            Self::Quantile { at, .. } => numeric(match at {
                Quantiles::One(_) => DataType::Float64,
                Quantiles::Many(_) => DataType::List(DataType::Float64.into()),
            }),
            Self::Min | Self::Max => ordered(input.clone()),
            Self::First { .. } | Self::Last { .. } | Self::MinBy | Self::MaxBy => Ok(input.clone()),
            Self::FirstN { .. } | Self::LastN { .. } | Self::DistinctN { .. } => Ok(list()),
            Self::TopN { .. } | Self::BottomN { .. } | Self::TopValues { .. } => ordered(list()),
            Self::Histogram { .. } => ordered(DataType::Map(DataType::Int64.into())),
            Self::DecayedCount { .. } | Self::Rate | Self::TimeSinceFirst | Self::TimeSinceLast => {
                Ok(DataType::Float64)
            }
        }
    }
}
