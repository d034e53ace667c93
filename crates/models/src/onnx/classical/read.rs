//! From a graph to steps: operator by operator, in the file's order, each made of values that are there already.

use std::collections::BTreeMap;

use headwater_schema::Problem;
use tract_onnx::pb;

use super::super::attributes::{Attributes, Constant, Kind};
use super::super::engine::{Graph, contract};
use super::super::graph::{feeds, inputs, weigh};
use super::super::operators;
use super::super::steps::{Arithmetic, Function, Slot, Step};
use super::{Classical, Placed};
use crate::limits::{INPUTS_MAX, at_most};
use crate::load::{corrupt, unsupported};
use crate::{Output, Predictor};

/// Numbers that all values of one row take.
const ROW_NUMBERS_MAX: usize = 4 * INPUTS_MAX;

pub(in super::super) fn load(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<Box<dyn Predictor>, Problem> {
    operators::check_classical(proto, graph)?;
    weigh(graph, file_bytes)?;
    let feeds = feeds(graph)?;
    let inputs = inputs(proto, &feeds)?;
    let mut reader = Reader::default();
    let mut placed = Vec::with_capacity(feeds.len());
    for feed in feeds {
        let kind = feed.kind().ok_or_else(|| {
            unsupported(format!(
                "The input `{}` isn't of floats, doubles or integers",
                feed.name
            ))
        })?;
        let slot = reader.place(feed.columns(), kind, 0)?;
        reader.bind(&feed.name, Value::Numbers(slot))?;
        placed.push((feed, slot));
    }
    for tensor in &graph.initializer {
        // Text is only refused where it is used.
        if let Ok(constant) = Constant::read(tensor) {
            reader.bind(&tensor.name, Value::Constant(constant))?;
        }
    }
    for node in &graph.node {
        reader.read(node).map_err(|problem| {
            let output = node.output.first().map_or("", String::as_str);
            problem.field(format!("{} `{output}`", node.op_type))
        })?;
    }
    let (outputs, slots) = reader.outputs(graph)?;
    let classes = reader.classes.iter().find(|(slot, _)| slots.contains(slot));
    let classes = classes.map_or(Vec::new(), |(_, names)| names.clone());
    let none = "The file doesn't say how much training data each node had";
    Ok(Graph::boxed(Classical {
        contract: contract(inputs, outputs, classes, none)?,
        feeds: placed,
        steps: reader.steps,
        outputs: slots,
        width: reader.width,
    }))
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Value {
    Numbers(Slot),
    Constant(Constant),
    /// Names of classes, which are answered as numbers of classes or not at all.
    Text,
}

#[derive(Default)]
pub(super) struct Reader {
    values: BTreeMap<String, Value>,
    pub(super) steps: Vec<Placed>,
    width: usize,
    /// Probabilities, and the classes that they are of.
    pub(super) classes: Vec<(Slot, Vec<String>)>,
}

impl Reader {
    /// Room for a value of a row, and for more behind it.
    pub(super) fn place(&mut self, width: usize, kind: Kind, more: usize) -> Result<Slot, Problem> {
        at_most("columns of one value", width, INPUTS_MAX)?;
        if width == 0 {
            return Err(corrupt("It has a value without columns"));
        }
        let at = self.width;
        self.width = at + width + more;
        at_most("numbers of one row", self.width, ROW_NUMBERS_MAX)?;
        Ok(Slot { at, width, kind })
    }

    pub(super) fn bind(&mut self, name: &str, value: Value) -> Result<(), Problem> {
        match self.values.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(corrupt(format!("Two values are called `{name}`"))),
        }
    }

    pub(super) fn value(&self, node: &pb::NodeProto, index: usize) -> Result<&Value, Problem> {
        let name = node.input.get(index).map_or("", String::as_str);
        self.values
            .get(name)
            .ok_or_else(|| corrupt(format!("Its input `{name}` isn't there, or is made later")))
    }

    pub(super) fn numbers(&self, node: &pb::NodeProto, index: usize) -> Result<Slot, Problem> {
        match self.value(node, index)? {
            Value::Numbers(slot) => Ok(*slot),
            _ => Err(unsupported(format!(
                "Its input `{}` isn't made of the rows' numbers",
                node.input[index]
            ))),
        }
    }

    pub(super) fn constant(
        &self,
        node: &pb::NodeProto,
        index: usize,
    ) -> Result<&Constant, Problem> {
        match self.value(node, index)? {
            Value::Constant(constant) => Ok(constant),
            _ => Err(unsupported(format!(
                "Its input `{}` isn't a constant",
                node.input[index]
            ))),
        }
    }

    /// Adds a step, and names its output.
    pub(super) fn step(
        &mut self,
        node: &pb::NodeProto,
        step: Step,
        inputs: Vec<Slot>,
        width: usize,
        kind: Kind,
    ) -> Result<Slot, Problem> {
        let output = self.place(width, kind, step.scratch())?;
        // What becomes of each probability is of the same class.
        let of = |(slot, _): &&(Slot, Vec<String>)| inputs == [*slot] && width == slot.width;
        let names = self.classes.iter().find(of).map(|(_, n)| n.clone());
        self.classes.extend(names.map(|names| (output, names)));
        self.steps.push(Placed {
            step,
            inputs,
            output,
        });
        let name = node.output.first().filter(|name| !name.is_empty());
        if let Some(name) = name {
            self.bind(name, Value::Numbers(output))?;
        }
        Ok(output)
    }

    fn read(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        match node.op_type.as_str() {
            "Identity" | "ZipMap" | "Flatten" | "Reshape" => self.same(node),
            "Cast" => self.cast(node),
            "Concat" | "FeatureVectorizer" => self.concat(node),
            "ArrayFeatureExtractor" | "Gather" | "Slice" => self.pick(node),
            "Add" => self.combine(node, Arithmetic::Add),
            "Sub" => self.combine(node, Arithmetic::Subtract),
            "Mul" => self.combine(node, Arithmetic::Multiply),
            "Div" => self.combine(node, Arithmetic::Divide),
            "Exp" => self.function(node, Function::Exp),
            "Sigmoid" => self.function(node, Function::Sigmoid),
            "Scaler" => self.scale(node),
            "Imputer" => self.impute(node),
            "Normalizer" => self.normalize(node),
            "OneHotEncoder" => self.one_hot(node),
            "LinearRegressor" => self.linear(node, false),
            "LinearClassifier" => self.linear(node, true),
            "TreeEnsembleRegressor" => self.trees(node, false),
            "TreeEnsembleClassifier" => self.trees(node, true),
            other => Err(unsupported(format!("The operator `{other}`"))),
        }
    }

    /// Another name for the same numbers. A map of classes is answered as the numbers in it.
    fn same(&mut self, node: &pb::NodeProto) -> Result<(), Problem> {
        let name = node.output.first().map_or("", String::as_str);
        let slot = match self.value(node, 0)? {
            Value::Text => return self.bind(name, Value::Text),
            _ => self.numbers(node, 0)?,
        };
        let width = slot.width as i64;
        let fits = match node.op_type.as_str() {
            "Reshape" => match self.constant(node, 1)?.whole()?.as_slice() {
                [-1] => width == 1,
                [-1 | 0, -1] => true,
                [-1 | 0, columns] => *columns == width,
                _ => false,
            },
            "Flatten" => Attributes(node).int("axis", 1) == 1,
            _ => true,
        };
        if !fits {
            return Err(unsupported("A change of shape that mixes rows"));
        }
        self.bind(name, Value::Numbers(slot))
    }

    /// What the graph answers for one row, by name. Labels of text are left out: the contract names the classes.
    fn outputs(&self, graph: &pb::GraphProto) -> Result<(Vec<Output>, Vec<Slot>), Problem> {
        let (mut outputs, mut slots) = (Vec::<Output>::new(), Vec::new());
        for output in &graph.output {
            let name = output.name.as_str();
            let slot = match self.values.get(name) {
                Some(Value::Numbers(slot)) => *slot,
                Some(Value::Text) => continue,
                _ => {
                    return Err(corrupt(format!(
                        "Its output `{name}` isn't made by an operator"
                    )));
                }
            };
            outputs.push(Output::new(name, slot.width));
            slots.push(slot);
        }
        if outputs.is_empty() {
            return Err(unsupported("Its graph answers no numbers").hint(
                "Export the probabilities, too; of labels of text only their numbers are answered",
            ));
        }
        Ok((outputs, slots))
    }
}
