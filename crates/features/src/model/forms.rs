//! The parts of a model's declaration that have several forms.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{Constant, ConstantOutput, InputsSpec};
use crate::forms::{Forms, read_by_form};

read_by_form!(InputsSpec, Constant, ConstantOutput);

impl Forms for InputsSpec {
    const EXPECTED: &'static str =
        "a list of the set's names, or a map of the model's to the set's";
    type List = Vec<String>;
    type Map = BTreeMap<String, String>;

    fn of_list(list: Vec<String>) -> Option<Self> {
        Some(Self::Listed(list))
    }

    fn of_map(map: BTreeMap<String, String>) -> Option<Self> {
        Some(Self::Named(map))
    }
}

impl Forms for Constant {
    const EXPECTED: &'static str = "a number, or a map of outputs to numbers";
    type List = IgnoredAny;
    type Map = BTreeMap<String, ConstantOutput>;

    fn of_number(number: f64) -> Option<Self> {
        Some(Self::Number(number))
    }

    fn of_map(map: BTreeMap<String, ConstantOutput>) -> Option<Self> {
        Some(Self::Named(map))
    }
}

impl Forms for ConstantOutput {
    const EXPECTED: &'static str = "a number, or a list of numbers";
    type List = Vec<f64>;
    type Map = IgnoredAny;

    fn of_number(number: f64) -> Option<Self> {
        Some(Self::One(number))
    }

    fn of_list(list: Vec<f64>) -> Option<Self> {
        Some(Self::Many(list))
    }
}
