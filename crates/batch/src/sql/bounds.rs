//! What filters say of event times and sequences, so that a scan can pass by what they rule out.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use headwater_schema::{Micros, Sequence};

use super::Snapshot;

/// The least and the greatest of each that may pass a query's filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub time_min: Micros,
    pub time_max: Micros,
    pub sequence_min: Sequence,
    pub sequence_max: Sequence,
}

impl Bounds {
    pub const ALL: Self = Self {
        time_min: Micros::MIN,
        time_max: Micros::MAX,
        sequence_min: 0,
        sequence_max: Sequence::MAX,
    };

    /// The bounds that hold where all filters do. `times` and `sequences` are the names of the columns.
    pub fn of(filters: &[Expr], times: &[&str], sequence: &str) -> Self {
        let mut bounds = Self::ALL;
        for filter in filters {
            bounds.narrow(filter, times, sequence);
        }
        bounds
    }

    /// The same of what a query sees.
    pub fn seen_by(mut self, snapshot: &Snapshot) -> Self {
        self.sequence_max = self.sequence_max.min(snapshot.known_at);
        if let Some(as_of) = snapshot.as_of {
            self.time_max = self.time_max.min(as_of);
        }
        self
    }

    fn narrow(&mut self, filter: &Expr, times: &[&str], sequence: &str) {
        match filter {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => {
                self.narrow(left, times, sequence);
                self.narrow(right, times, sequence);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
                    (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
                    (Expr::Literal(literal, _), Expr::Column(column)) => match op.swap() {
                        Some(op) => (column, op, literal),
                        None => return,
                    },
                    _ => return,
                };
                if times.contains(&column.name.as_str()) {
                    self.narrow_time(op, literal);
                } else if column.name == sequence {
                    self.narrow_sequence(op, literal);
                }
            }
            Expr::Between(Between {
                expr,
                negated: false,
                low,
                high,
            }) => {
                for (op, bound) in [(Operator::GtEq, low), (Operator::LtEq, high)] {
                    let part = BinaryExpr::new(expr.clone(), op, bound.clone());
                    self.narrow(&Expr::BinaryExpr(part), times, sequence);
                }
            }
            _ => {}
        }
    }

    fn narrow_time(&mut self, op: Operator, literal: &ScalarValue) {
        // Finer units are cut off: the bounds only pass by what certainly doesn't count.
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let cast = match literal.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, _) => return,
            _ => literal.cast_to(&micros),
        };
        let Ok(ScalarValue::TimestampMicrosecond(Some(time), _)) = cast else {
            return;
        };
        match op {
            Operator::Eq => {
                self.time_min = self.time_min.max(time);
                self.time_max = self.time_max.min(time);
            }
            Operator::Gt | Operator::GtEq => self.time_min = self.time_min.max(time),
            Operator::Lt | Operator::LtEq => self.time_max = self.time_max.min(time),
            _ => {}
        }
    }

    fn narrow_sequence(&mut self, op: Operator, literal: &ScalarValue) {
        let Ok(ScalarValue::Int64(Some(number))) = literal.cast_to(&DataType::Int64) else {
            return;
        };
        let sequence = Sequence::try_from(number).unwrap_or(0);
        match op {
            Operator::Eq => {
                self.sequence_min = self.sequence_min.max(sequence);
                self.sequence_max = self.sequence_max.min(sequence);
            }
            Operator::Gt | Operator::GtEq => self.sequence_min = self.sequence_min.max(sequence),
            Operator::Lt | Operator::LtEq => self.sequence_max = self.sequence_max.min(sequence),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn filters_narrow_times_and_sequences_and_nothing_else() {
        let time = |micros| {
            lit(ScalarValue::TimestampMicrosecond(
                Some(micros),
                Some("UTC".into()),
            ))
        };
        let filters = [
            col("_event_time")
                .gt_eq(time(10))
                .and(time(20).gt(col("at"))),
            col("_sequence").between(lit(3_i64), lit(9_i64)),
            col("other").lt(lit(1_i64)),
            col("_sequence")
                .gt(lit(5_i64))
                .or(col("other").lt(lit(1_i64))),
        ];
        let bounds = Bounds::of(&filters, &["_event_time", "at"], "_sequence");
        let want = Bounds {
            time_min: 10,
            time_max: 20,
            sequence_min: 3,
            sequence_max: 9,
        };
        assert_eq!(bounds, want);
    }
}
