//! Where things are in the rows of a set, by their names: what models and meanings refer to.

use headwater_schema::{DataType, Problem, Value};

use super::{FeatureSet, OnDemand};
use crate::Expression;

/// Where a row of a set has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among the values that are answered: features, then on-demand features.
    Value(usize),
    /// Among the request's own fields.
    Context(usize),
}

impl FeatureSet {
    pub(crate) fn places_read_by(&self, feature: &OnDemand) -> impl Iterator<Item = Place> {
        let (features, context) = (self.features.len(), self.context.len());
        feature.inputs.iter().map(move |place| match *place {
            place if place < features => Place::Value(place),
            place if place < features + context => Place::Context(place - features),
            place => Place::Value(place - context),
        })
    }

    /// The type of what is at a place.
    pub fn place_type(&self, place: Place) -> &DataType {
        match place {
            Place::Context(index) => &self.context[index].data_type,
            Place::Value(index) => match self.features.get(index) {
                Some(feature) => &feature.feature().data_type,
                None => &self.on_demand[index - self.features.len()].data_type,
            },
        }
    }

    /// Where a name is: a full name, `context.FIELD`, or a bare name that only one thing of the set has.
    pub fn place(&self, name: &str) -> Result<Place, Problem> {
        if let Some(index) = self.full_names().position(|full| **full == *name) {
            return Ok(Place::Value(index));
        }
        let own = name.strip_prefix("context.").unwrap_or(name);
        let context = self.context.iter().position(|f| *f.name == *own);
        let context = context.map(Place::Context);
        if own != name && context.is_some() {
            return context.ok_or_else(|| self.no_place(name));
        }
        let last = |full: &str| full.rsplit('.').next() == Some(name);
        let bare = self.full_names().enumerate().filter(|(_, full)| last(full));
        let mut found: Vec<Place> = bare.map(|(index, _)| Place::Value(index)).collect();
        found.extend(context);
        match found.as_slice() {
            [place] => Ok(*place),
            [] => Err(self.no_place(name)),
            _ => Err(Problem::user(
                "ambiguous-name",
                format!("the set `{}` has several `{name}`", self.name),
            )
            .hint("write `view.name`, `context.name` or `set.name`")),
        }
    }

    fn no_place(&self, name: &str) -> Problem {
        let names: Vec<&str> = self.full_names().map(AsRef::as_ref).collect();
        let context = self.context.iter().map(|f| f.name.as_ref());
        let names = names.into_iter().chain(context);
        crate::catalog::unknown("feature", "feature or context field", name, names)
            .detail(format!("the feature set is `{}`", self.name))
    }
}

impl OnDemand {
    pub(crate) fn expression(&self) -> &Expression {
        &self.expression
    }

    pub(crate) fn default_value(&self) -> Option<&Value> {
        self.default.as_ref()
    }
}
