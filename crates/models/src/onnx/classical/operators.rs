//! Operators as steps, each with what its attributes say.

use std::collections::BTreeMap;

use headwater_schema::Problem;
use tract_onnx::pb;

use super::super::attributes::{Attributes, Kind};
use super::super::steps::{Arithmetic, Function, Linear, Norm, Slot, Step};
use super::super::transform::Transform;
use super::super::trees::{Labels, Trees};
use super::Placed;
use super::read::{Reader, Value};
use crate::limits::{SCORES_MAX, at_most};
use crate::load::{corrupt, unsupported};

impl Reader {
    pub(super) fn cast(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        /// `STRING`, as the format numbers types.
        const TEXT: i64 = 8;
        let to = Attributes(node).int("to", 0);
        if to == TEXT || matches!(self.value(node, 0)?, Value::Text) {
            let name = node.output.first().map_or("", String::as_str);
            return self.bind(name, Value::Text);
        }
        let to = i32::try_from(to).unwrap_or(0);
        let kind = Kind::of(to).ok_or_else(|| unsupported(format!("A cast to the type {to}")))?;
        let slot = self.numbers(node, 0)?;
        let truths = to == pb::tensor_proto::DataType::Bool as i32;
        self.step(node, Step::Cast { truths }, vec![slot], slot.width, kind)?;
        Ok(())
    }

    pub(super) fn concat(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slots: Result<Vec<Slot>, Problem> = (0..node.input.len())
            .map(|index| self.numbers(node, index))
            .collect();
        let slots = slots?;
        let vectorizer = node.op_type == "FeatureVectorizer";
        if !vectorizer && ![1, -1].contains(&Attributes(node).int("axis", 0)) {
            return Err(unsupported("A concatenation that isn't of columns"));
        }
        let kinds = slots.iter().map(|slot| slot.kind);
        let kind = if vectorizer {
            Kind::Single
        } else {
            slots.first().map_or(Kind::Single, |s| s.kind)
        };
        if kinds.clone().any(|k| k != kind) {
            return Err(unsupported("A concatenation of several types"));
        }
        let width = slots.iter().map(|slot| slot.width).sum();
        self.step(node, Step::Concat, slots, width, kind)?;
        Ok(())
    }

    pub(super) fn pick(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        let width = slot.width as i64;
        let columns: Vec<i64> = match node.op_type.as_str() {
            "Slice" => self.slice(node, width)?,
            "Gather" if Attributes(node).int("axis", 0) != 1 => {
                return Err(unsupported("It gathers rows, not columns"));
            }
            _ => self.constant(node, 1)?.whole()?,
        };
        let place = |column: &i64| {
            let place = if *column < 0 { column + width } else { *column };
            usize::try_from(place)
                .ok()
                .filter(|place| *place < slot.width)
        };
        let columns: Option<Vec<usize>> = columns.iter().map(place).collect();
        let columns = columns.ok_or_else(|| corrupt(format!("It picks columns beyond {width}")))?;
        let count = columns.len();
        self.step(node, Step::Pick(columns), vec![slot], count, slot.kind)?;
        Ok(())
    }

    /// Columns of a slice, which is one of columns only.
    fn slice(&self, node: &pb::NodeProto, width: i64) -> Result<Vec<i64>, Problem> {
        let list = |index: usize| match node.input.get(index).map(String::as_str) {
            None | Some("") => Ok(Vec::new()),
            Some(_) => self.constant(node, index)?.whole(),
        };
        let (starts, ends, axes, steps) = (list(1)?, list(2)?, list(3)?, list(4)?);
        let ([start], [end], [1 | -1], [] | [1]) = (
            starts.as_slice(),
            ends.as_slice(),
            axes.as_slice(),
            steps.as_slice(),
        ) else {
            return Err(unsupported("A slice that isn't one run of columns"));
        };
        let place = |at: i64| if at < 0 { at.saturating_add(width) } else { at }.clamp(0, width);
        Ok((place(*start)..place(*end)).collect())
    }

    pub(super) fn combine(
        &mut self,
        node: &pb::NodeProto,
        arithmetic: Arithmetic,
    ) -> Result<(), Problem> {
        let (step, slots, other, kind) = match (self.value(node, 0)?, self.value(node, 1)?) {
            (Value::Numbers(a), Value::Numbers(b)) => (
                Step::Combine(arithmetic, None),
                vec![*a, *b],
                b.width,
                b.kind,
            ),
            (Value::Numbers(a), Value::Constant(b)) => {
                let numbers = b.numbers.clone();
                (
                    Step::Combine(arithmetic, Some(numbers)),
                    vec![*a],
                    b.numbers.len(),
                    b.kind,
                )
            }
            (Value::Constant(a), Value::Numbers(b)) => {
                let numbers = a.numbers.clone();
                (
                    Step::CombineLeft(arithmetic, numbers),
                    vec![*b],
                    a.numbers.len(),
                    a.kind,
                )
            }
            _ => return Err(unsupported("Arithmetic of constants")),
        };
        let slot = slots[0];
        if slot.kind != kind || kind == Kind::Whole {
            return Err(unsupported(
                "Arithmetic of other than floats, or of two types",
            ));
        }
        if slot.width != other && slot.width != 1 && other != 1 {
            return Err(corrupt(format!(
                "It combines {} columns with {other}",
                slot.width
            )));
        }
        self.step(node, step, slots, slot.width.max(other), kind)?;
        Ok(())
    }

    pub(super) fn function(
        &mut self,
        node: &pb::NodeProto,
        function: Function,
    ) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        if slot.kind == Kind::Whole {
            return Err(unsupported("It takes floats"));
        }
        self.step(
            node,
            Step::Each(function),
            vec![slot],
            slot.width,
            slot.kind,
        )?;
        Ok(())
    }

    pub(super) fn scale(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        let attributes = Attributes(node);
        let (offset, scale) = (
            attributes.floats("offset").to_vec(),
            attributes.floats("scale").to_vec(),
        );
        one_or_each("`offset`", offset.len(), slot)?;
        one_or_each("`scale`", scale.len(), slot)?;
        self.step(
            node,
            Step::Scale { offset, scale },
            vec![slot],
            slot.width,
            Kind::Single,
        )?;
        Ok(())
    }

    pub(super) fn impute(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        let attributes = Attributes(node);
        let (missing, by): (f64, Vec<f64>) = match slot.kind {
            Kind::Whole => {
                let by = attributes.ints("imputed_value_int64s").iter();
                (
                    attributes.int("replaced_value_int64", 0) as f64,
                    by.map(|n| *n as f64).collect(),
                )
            }
            _ => {
                let by = attributes.floats("imputed_value_floats").iter();
                (
                    attributes.float("replaced_value_float", 0.0).into(),
                    by.map(|n| f64::from(*n)).collect(),
                )
            }
        };
        one_or_each("imputed values", by.len(), slot)?;
        self.step(
            node,
            Step::Impute { missing, by },
            vec![slot],
            slot.width,
            slot.kind,
        )?;
        Ok(())
    }

    pub(super) fn normalize(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        let norm = match Attributes(node).text("norm", "MAX")? {
            "MAX" => Norm::Max,
            "L1" => Norm::L1,
            "L2" => Norm::L2,
            other => return Err(unsupported(format!("The norm `{other}`"))),
        };
        self.step(
            node,
            Step::Normalize(norm),
            vec![slot],
            slot.width,
            Kind::Single,
        )?;
        Ok(())
    }

    pub(super) fn one_hot(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let slot = self.numbers(node, 0)?;
        let attributes = Attributes(node);
        let categories = attributes.ints("cats_int64s");
        if categories.is_empty() || attributes.int("zeros", 1) == 0 {
            return Err(unsupported(
                "Categories that aren't integers, or that refuse what isn't one of them",
            )
            .hint("Encode text in the features, and export with handle_unknown='ignore'"));
        }
        let places: BTreeMap<i64, usize> = categories.iter().copied().zip(0..).collect();
        if places.len() != categories.len() {
            return Err(corrupt("One category has two columns"));
        }
        let width = slot.width.saturating_mul(places.len());
        self.step(node, Step::OneHot(places), vec![slot], width, Kind::Single)?;
        Ok(())
    }

    pub(super) fn linear(&mut self, node: &pb::NodeProto, classifies: bool) -> Result<(), Problem> {
        let slot = self.single(node)?;
        let attributes = Attributes(node);
        let transform = Transform::parse(attributes.text("post_transform", "NONE")?)?;
        let (coefficients, intercepts) = (
            attributes.floats("coefficients"),
            attributes.floats("intercepts"),
        );
        let labels = if classifies {
            Some(Labels::read(attributes)?)
        } else {
            None
        };
        let targets = usize::try_from(attributes.int("targets", 1)).unwrap_or(0);
        let scores = labels.as_ref().map_or(targets, |labels| labels.names.len());
        at_most("scores", scores, SCORES_MAX)?;
        if classifies && scores < 2 {
            return Err(unsupported(format!("A classifier of {scores} classes")));
        }
        let intercepts = match intercepts {
            [] => vec![0.0; scores],
            given => given.to_vec(),
        };
        if coefficients.len() != slot.width * scores || intercepts.len() != scores || scores == 0 {
            return Err(unsupported(format!(
                "{} coefficients and {} intercepts, for {} inputs and {scores} scores",
                coefficients.len(),
                intercepts.len(),
                slot.width
            )));
        }
        if !classifies && transform != Transform::None {
            return Err(unsupported(format!(
                "`post_transform` {transform:?} of a linear regression"
            )));
        }
        let linear = Linear {
            coefficients: coefficients.to_vec(),
            intercepts,
            transform,
            labels,
        };
        self.scored(node, Step::Linear(linear), slot, scores)
    }

    pub(super) fn trees(&mut self, node: &pb::NodeProto, classifies: bool) -> Result<(), Problem> {
        let mut slot = self.numbers(node, 0)?;
        if slot.kind == Kind::Whole {
            slot = self.single(node)?;
        }
        let read = if classifies {
            Trees::classifier
        } else {
            Trees::regressor
        };
        let trees = read(Attributes(node), slot.width, slot.kind)?;
        let width = trees.width();
        self.scored(node, Step::Trees(Box::new(trees)), slot, width)
    }

    /// The first input as floats.
    fn single(&mut self, node: &pb::NodeProto) -> Result<Slot, Problem> {
        let slot = self.numbers(node, 0)?;
        if slot.kind == Kind::Single {
            return Ok(slot);
        }
        let output = self.place(slot.width, Kind::Single, 0)?;
        self.steps.push(Placed {
            step: Step::Cast { truths: false },
            inputs: vec![slot],
            output,
        });
        Ok(output)
    }

    /// A step of scores: a regressor's only output, or a classifier's second one, after the label.
    fn scored(
        &mut self,
        node: &pb::NodeProto,
        step: Step,
        input: Slot,
        width: usize,
    ) -> Result<(), Problem> {
        let labels = match &step {
            Step::Trees(trees) => trees.labels.as_ref(),
            Step::Linear(linear) => linear.labels.as_ref(),
            _ => None,
        };
        let Some(labels) = labels else {
            self.step(node, step, vec![input], width, Kind::Single)?;
            return Ok(());
        };
        let (names, as_numbers) = (labels.names.clone(), labels.numbers.is_some());
        let output = self.place(width, Kind::Single, step.scratch())?;
        self.steps.push(Placed {
            step,
            inputs: vec![input],
            output,
        });
        self.classes.push((output, names));
        let label = Slot {
            at: output.at + width,
            width: 1,
            kind: Kind::Whole,
        };
        let label = if as_numbers {
            Value::Numbers(label)
        } else {
            Value::Text
        };
        for (name, value) in node.output.iter().zip([label, Value::Numbers(output)]) {
            if !name.is_empty() {
                self.bind(name, value)?;
            }
        }
        Ok(())
    }
}

fn one_or_each(what: &str, count: usize, slot: Slot) -> Result<(), Problem> {
    if count == 1 || count == slot.width {
        return Ok(());
    }
    Err(corrupt(format!(
        "It has {count} {what} for {} columns",
        slot.width
    )))
}
