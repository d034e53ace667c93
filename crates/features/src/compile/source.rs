//! A view's sources: their columns under the names of the view, their keys, their conditions.

use std::sync::Arc;

use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Field, Problem};

use crate::Expression;
use crate::catalog::{Catalog, Entity, unknown};
use crate::chain::{CHAIN_DEPTH_MAX, Upstream};
use crate::definition::SourceSpec;

/// A source as expressions see it.
pub struct Source {
    /// What a feature's `source` calls it: the contract, or the view upstream.
    pub name: Arc<str>,
    /// The contract of its facts.
    pub contract: Arc<str>,
    /// The columns of its rows under the names they have in the view.
    pub columns: Vec<Field>,
    /// The contract's column that each of them is, where it is one.
    pub stored: Vec<Option<Arc<str>>>,
    pub filter: Option<Expression>,
    /// The places of the entity's keys among the columns.
    pub keys: Vec<usize>,
    pub upstream: Option<Upstream>,
}

/// A SQL condition.
pub fn condition(sql: &str, columns: &[Field]) -> Result<Expression, Problem> {
    let expression = Expression::compile(sql, columns)?;
    if *expression.data_type() != DataType::Bool {
        return Err(
            Problem::user("wrong-type", "the condition isn't true or false")
                .detail(format!("`{sql}` is {}", expression.data_type())),
        );
    }
    Ok(expression)
}

/// Reads one source of a definition: several where it is a view that has several.
pub fn read_source(
    catalog: &Catalog,
    document: &YamlDocument,
    pointer: &str,
    entity: &Entity,
    spec: &SourceSpec,
) -> Result<Vec<Source>, Problem> {
    let reader = Reader {
        document,
        pointer,
        entity,
        spec,
    };
    match (&spec.contract, &spec.view) {
        (Some(contract), None) => Ok(vec![reader.named(reader.contract(catalog, contract)?)?]),
        (None, Some(view)) => {
            let sources = reader.view(catalog, view)?.into_iter();
            sources.map(|source| reader.named(source)).collect()
        }
        _ => Err(
            Problem::user("invalid-definition", "a source is a contract or a view")
                .hint("write `contract: NAME` or `view: NAME`")
                .at(document.locate(pointer)),
        ),
    }
}

struct Reader<'a> {
    document: &'a YamlDocument,
    pointer: &'a str,
    entity: &'a Entity,
    spec: &'a SourceSpec,
}

impl Reader<'_> {
    fn at(&self, problem: Problem, key: &str) -> Problem {
        problem.at(self.document.locate(&format!("{}/{key}", self.pointer)))
    }

    /// The key that names where the facts come from.
    fn origin(&self) -> &'static str {
        match self.spec.view {
            Some(_) => "view",
            None => "contract",
        }
    }

    fn contract(&self, catalog: &Catalog, name: &str) -> Result<Source, Problem> {
        let contract = catalog.contract(name).ok_or_else(|| {
            let names = catalog.contracts().map(|c| c.name.as_ref());
            self.at(unknown("contract", "contract", name, names), "contract")
        })?;
        let columns = contract.fields_as();
        Ok(Source {
            name: contract.name.clone(),
            contract: contract.name.clone(),
            stored: columns.iter().map(|c| Some(c.name.clone())).collect(),
            columns,
            filter: None,
            keys: Vec::new(),
            upstream: None,
        })
    }

    fn view(&self, catalog: &Catalog, name: &str) -> Result<Vec<Source>, Problem> {
        let view = catalog.view(name).ok_or_else(|| {
            let names = catalog.views().map(|v| v.name.as_ref());
            self.at(unknown("view", "feature view", name, names), "view")
        })?;
        if view.depth >= CHAIN_DEPTH_MAX {
            let problem = Problem::user("limit", "too many views are upstream of each other")
                .detail(format!("`{name}` is the last of {CHAIN_DEPTH_MAX} already"))
                .hint("take some of the facts from a contract");
            return Err(self.at(problem, "view"));
        }
        let source = |upstream: Upstream| Source {
            name: view.name.clone(),
            contract: view.sources[upstream.source].contract.clone(),
            columns: upstream.fields().to_vec(),
            stored: upstream.stored(),
            filter: None,
            keys: Vec::new(),
            upstream: Some(upstream),
        };
        Ok(Upstream::of(view).into_iter().map(source).collect())
    }

    /// A source with its keys, its columns under the names that they have in the view, and its `where`.
    fn named(&self, mut source: Source) -> Result<Source, Problem> {
        source.keys = self.keys(&source)?;
        self.rename(&mut source)?;
        let filter = self.spec.filter.as_deref();
        let filter = filter
            .map(|sql| condition(sql, &source.columns))
            .transpose();
        source.filter = filter.map_err(|p| self.at(p, "where"))?;
        Ok(source)
    }

    fn keys(&self, source: &Source) -> Result<Vec<usize>, Problem> {
        let mut places = Vec::with_capacity(self.entity.keys.len());
        let names = || source.columns.iter().map(|c| c.name.as_ref());
        for key in &self.entity.keys {
            let column = self.spec.keys.get(key.name.as_ref());
            let column = column.map_or(key.name.as_ref(), String::as_str);
            let place = names().position(|name| name == column).ok_or_else(|| {
                let problem = unknown("column", "column", column, names())
                    .detail(format!("it is a key of the entity `{}`", self.entity.name));
                self.at(problem, self.origin())
            })?;
            let field = &source.columns[place];
            if field.data_type != key.data_type {
                let problem = Problem::user(
                    "wrong-type",
                    format!("the key `{}` has another type", key.name),
                )
                .detail(format!(
                    "it is {} in the entity `{}`, and {} in `{}`",
                    key.data_type, self.entity.name, field.data_type, source.name
                ));
                return Err(self.at(problem, self.origin()));
            }
            if source.stored[place].is_none() {
                let problem = Problem::user(
                    "invalid-definition",
                    format!("the key `{}` is a feature", key.name),
                )
                .detail("facts are found by what they say themselves")
                .hint("take a column of the contract as the key");
                return Err(self.at(problem, self.origin()));
            }
            places.push(place);
        }
        let mut keys = self.spec.keys.keys();
        if let Some(stray) = keys.find(|k| !self.entity.keys.iter().any(|e| *e.name == ***k)) {
            let known = self.entity.keys.iter().map(|k| k.name.as_ref());
            let problem = unknown("column", "key", stray, known);
            return Err(self.at(problem, &format!("keys/{stray}")));
        }
        Ok(places)
    }

    fn rename(&self, source: &mut Source) -> Result<(), Problem> {
        let before: Vec<Field> = source.columns.clone();
        for (name, column) in &self.spec.columns {
            let place = before.iter().position(|c| *c.name == **column);
            let place = place.ok_or_else(|| {
                let names = before.iter().map(|c| c.name.as_ref());
                let problem = unknown("column", "column", column, names);
                self.at(problem, &format!("columns/{name}"))
            })?;
            source.columns[place].name = name.as_str().into();
        }
        let columns = &source.columns;
        let clash = (1..columns.len()).find(|i| {
            let mut before = columns[..*i].iter();
            before.any(|c| c.name == columns[*i].name)
        });
        match clash {
            None => Ok(()),
            Some(index) => {
                let name = &columns[index].name;
                let problem = Problem::user("name-clash", format!("the source has two columns `{name}`"))
                    .detail("`columns` gives one the name that another has")
                    .hint("give the other one another name too, as in `columns: {delay: lateness, raw_delay: delay}`");
                Err(self.at(problem, "columns"))
            }
        }
    }
}
