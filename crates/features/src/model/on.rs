//! A model that scores arriving facts: which facts, what of them its entities' keys and its set's own fields are.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schema::{Contract, DataType, Field, Problem};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::Expression;
use crate::built_in::PREDICTION;
use crate::catalog::{Catalog, Entity, unknown};
use crate::compile::source::condition;
use crate::forms::{Forms, read_by_form};
use crate::set::FeatureSet;

/// The facts that a model scores as they arrive: a contract, or more said of it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OnSpec {
    Contract(String),
    Facts(OnFactsSpec),
}

read_by_form!(OnSpec);

impl Forms for OnSpec {
    const EXPECTED: &'static str = "a contract, or a map as in `{contract: payment, where: …}`";
    type List = IgnoredAny;
    type Map = OnFactsSpec;

    fn of_text(text: &str) -> Option<Self> {
        Some(Self::Contract(text.to_owned()))
    }

    fn of_map(map: OnFactsSpec) -> Option<Self> {
        Some(Self::Facts(map))
    }
}

/// Facts of a contract.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnFactsSpec {
    pub contract: String,
    /// Only those of which this SQL condition is true.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// The columns that keys are, where they have other names: by an entity with one key, or by a key column.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
}

/// The facts that a model scores, ready to be read.
#[derive(Debug, Clone)]
pub struct OnFacts {
    pub contract: Arc<Contract>,
    pub filter: Option<Expression>,
    /// The set's entities, and of each key the place of its column.
    pub entities: Vec<(Arc<Entity>, Vec<usize>)>,
    /// Of each context field of the set, the place of its column.
    pub context: Vec<usize>,
}

type At<'a> = &'a dyn Fn(Problem, &str) -> Problem;

pub(super) fn read_on(
    catalog: &Catalog,
    set: &FeatureSet,
    spec: &OnSpec,
    at: At<'_>,
) -> Result<OnFacts, Problem> {
    let whole;
    let (facts, named) = match spec {
        OnSpec::Contract(contract) => {
            whole = OnFactsSpec {
                contract: contract.clone(),
                filter: None,
                keys: BTreeMap::new(),
            };
            (&whole, "on")
        }
        OnSpec::Facts(facts) => (facts, "on/contract"),
    };
    if facts.contract == PREDICTION {
        let problem = Problem::user("prediction-loop", "a model can't score predictions")
            .detail("what it says of one would be the next that it scores")
            .hint("score the facts that they are made of; or outcomes, `on: outcome`");
        return Err(at(problem, named));
    }
    let contract = catalog.contract(&facts.contract).ok_or_else(|| {
        let names = catalog.contracts().map(|c| c.name.as_ref());
        at(
            unknown("contract", "contract", &facts.contract, names),
            named,
        )
    })?;
    let reader = Reader {
        columns: contract.fields_as(),
        contract,
        keys: &facts.keys,
        named,
        at,
    };
    let filter = facts.filter.as_deref();
    let filter = filter.map(|sql| condition(sql, &reader.columns).map_err(|p| at(p, "on/where")));
    let mut named: Vec<&Arc<Entity>> = Vec::new();
    for entity in set.features.iter().map(|f| &f.view.entity) {
        if !named.iter().any(|known| known.name == entity.name) {
            named.push(entity);
        }
    }
    reader.check_names(&named)?;
    let entities = named.into_iter();
    let entities = entities.map(|entity| Ok((entity.clone(), reader.keys_of(entity)?)));
    let entities = entities.collect::<Result<_, Problem>>()?;
    let context = set.context.iter().map(|field| reader.context(field));
    Ok(OnFacts {
        filter: filter.transpose()?,
        context: context.collect::<Result<_, _>>()?,
        contract: contract.clone(),
        entities,
    })
}

struct Reader<'a> {
    contract: &'a Contract,
    columns: Vec<Field>,
    keys: &'a BTreeMap<String, String>,
    /// The key of the declaration that names the contract.
    named: &'static str,
    at: At<'a>,
}

impl Reader<'_> {
    fn keys_of(&self, entity: &Entity) -> Result<Vec<usize>, Problem> {
        let place = |key: &Field| {
            let single = (entity.keys.len() == 1)
                .then(|| self.keys.get_key_value(entity.name.as_ref()))
                .flatten();
            let given = single.or_else(|| self.keys.get_key_value(key.name.as_ref()));
            let column = given.map_or(key.name.as_ref(), |(_, column)| column);
            let told = match given {
                Some((name, _)) => format!("on/keys/{name}"),
                None => self.named.to_owned(),
            };
            let detail = format!("it is a key of the entity `{}`", entity.name);
            let hint =
                "name the column that it is, as in `on: {contract: C, keys: {ENTITY: COLUMN}}`";
            self.column(column, &key.data_type, &[], &told, &detail, hint)
        };
        entity.keys.iter().map(place).collect()
    }

    fn context(&self, field: &Field) -> Result<usize, Problem> {
        let detail = format!("the set asks for the context field `{}`", field.name);
        let hint = "the fact brings the set's context itself: give the contract the column, or take another set";
        let wider = match field.data_type {
            DataType::Float64 => &[DataType::Int64][..],
            _ => &[],
        };
        self.column(
            &field.name,
            &field.data_type,
            wider,
            self.named,
            &detail,
            hint,
        )
    }

    /// The place of a column of one of some types.
    fn column(
        &self,
        name: &str,
        wanted: &DataType,
        fits: &[DataType],
        told: &str,
        detail: &str,
        hint: &str,
    ) -> Result<usize, Problem> {
        let names = || self.columns.iter().map(|c| c.name.as_ref());
        let place = names().position(|column| column == name).ok_or_else(|| {
            let problem = unknown("column", "column", name, names());
            let hint = format!("{}; {hint}", problem.hint);
            (self.at)(problem.detail(detail).hint(hint), told)
        })?;
        let found = &self.columns[place].data_type;
        if found != wanted && !fits.contains(found) {
            let title = format!("the column `{name}` has another type");
            let problem = Problem::user("wrong-type", title).detail(format!(
                "{detail}, which is {wanted}; it is {found} in `{}`",
                self.contract.name
            ));
            return Err((self.at)(problem.hint(hint), told));
        }
        Ok(place)
    }

    fn check_names(&self, entities: &[&Arc<Entity>]) -> Result<(), Problem> {
        let names = || {
            entities.iter().flat_map(|entity| {
                let keys = entity.keys.iter().map(|k| k.name.as_ref());
                let own = (entity.keys.len() == 1).then_some(entity.name.as_ref());
                own.into_iter().chain(keys)
            })
        };
        let stray = self
            .keys
            .keys()
            .find(|k| !names().any(|name| name == k.as_str()));
        match stray {
            None => Ok(()),
            Some(stray) => {
                let problem = unknown("column", "key of the set", stray, names());
                Err((self.at)(problem, &format!("on/keys/{stray}")))
            }
        }
    }
}
