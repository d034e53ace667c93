//! The columns of rows that bring a model's inputs themselves: one for each input, found by its name.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use headwater_schema::{DataType, Problem};

use crate::columns::Names;

/// An input that rows have to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputShape {
    pub name: String,
    /// Whether it may be a text, which a category by its name is.
    pub is_text: bool,
}

/// Where the inputs lie, in the model's order.
#[derive(Debug, Clone)]
pub struct InputColumns(Vec<usize>);

impl InputColumns {
    /// Finds the columns; one that is missing, of a type that no input has, or in the way of what is `added` is refused by
    /// name.
    pub fn find(
        schema: &SchemaRef,
        inputs: &[InputShape],
        added: &[Arc<str>],
    ) -> Result<Self, Problem> {
        let names = Names(schema);
        names.refuse_clashes(added)?;
        let column = |input: &InputShape| {
            let index = names.index(&input.name).ok_or_else(|| {
                names.missing("missing-input", &input.name, "it is an input of the model")
            })?;
            let given = schema.field(index).data_type();
            match fits(given, input.is_text) {
                true => Ok(index),
                false => Err(wrong_type(input, given)),
            }
        };
        let columns = inputs.iter().map(column);
        Ok(Self(columns.collect::<Result<_, _>>()?))
    }

    /// The inputs of some rows, a column for each.
    pub fn arrays(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        let columns = self.0.iter();
        columns.map(|index| rows.column(*index).clone()).collect()
    }
}

fn fits(given: &ArrowType, text: bool) -> bool {
    match DataType::from_arrow(given) {
        Ok(DataType::Bool | DataType::Int64 | DataType::Float64 | DataType::Decimal { .. }) => true,
        Ok(DataType::String) => text,
        Ok(_) => false,
        Err(_) => *given == ArrowType::Null,
    }
}

fn wrong_type(input: &InputShape, given: &ArrowType) -> Problem {
    let title = format!("the column `{}` has a wrong type", input.name);
    let wanted = match input.is_text {
        true => "a category: a text or a number",
        false => "a number",
    };
    Problem::user("wrong-input-type", title)
        .field(input.name.as_str())
        .detail(format!("it is {given}; the model takes {wanted}"))
        .hint("cast it before you write the file")
}
