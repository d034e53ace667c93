//! A view's sources: their columns under the names of the view, their keys, their conditions.

use std::sync::Arc;

use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, DataType, Field, Problem};

use crate::Expression;
use crate::catalog::{Catalog, Entity, unknown};
use crate::definition::SourceSpec;

/// A source as expressions see it.
pub struct Source {
    pub contract: Arc<Contract>,
    /// The contract's columns under the names they have in the view.
    pub columns: Vec<Field>,
    pub filter: Option<Expression>,
    pub key_columns: Vec<Arc<str>>,
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

pub fn read_source(
    catalog: &Catalog,
    document: &YamlDocument,
    pointer: &str,
    entity: &Entity,
    spec: &SourceSpec,
) -> Result<Source, Problem> {
    let at = |key: &str| document.locate(&format!("{pointer}/{key}"));
    let contract = catalog.contract(&spec.contract).cloned().ok_or_else(|| {
        let names = catalog.contracts().map(|c| c.name.as_ref());
        unknown("contract", "contract", &spec.contract, names).at(at("contract"))
    })?;
    let names: Vec<&str> = contract.fields.iter().map(|f| f.name.as_ref()).collect();
    let mut columns = contract.fields_as();
    for (name, column) in &spec.columns {
        let index = contract.field_index(column).ok_or_else(|| {
            unknown("column", "column", column, names.iter().copied())
                .at(at(&format!("columns/{name}")))
        })?;
        columns[index].name = name.as_str().into();
    }
    if let Some(twice) = (1..columns.len()).find(|i| {
        let mut before = columns[..*i].iter();
        before.any(|c| c.name == columns[*i].name)
    }) {
        let name = &columns[twice].name;
        return Err(
            Problem::user("name-clash", format!("the source has two columns `{name}`"))
                .detail("`columns` gives one the name that the contract gives another")
                .hint("give the other one another name too, as in `columns: {delay: lateness, raw_delay: delay}`")
                .at(at("columns")),
        );
    }
    let key_columns = key_columns(document, pointer, entity, spec, &contract)?;
    let filter = spec
        .filter
        .as_deref()
        .map(|sql| condition(sql, &columns))
        .transpose();
    Ok(Source {
        filter: filter.map_err(|p| p.at(at("where")))?,
        contract,
        columns,
        key_columns,
    })
}

/// The contract's columns that make the entity's keys, in their order.
fn key_columns(
    document: &YamlDocument,
    pointer: &str,
    entity: &Entity,
    spec: &SourceSpec,
    contract: &Contract,
) -> Result<Vec<Arc<str>>, Problem> {
    let at = |key: &str| document.locate(&format!("{pointer}/{key}"));
    let mut key_columns = Vec::with_capacity(entity.keys.len());
    for key in &entity.keys {
        let column = spec
            .keys
            .get(key.name.as_ref())
            .map_or(key.name.as_ref(), String::as_str);
        let field = contract.field(column).ok_or_else(|| {
            unknown(
                "column",
                "column",
                column,
                contract.fields.iter().map(|f| f.name.as_ref()),
            )
            .detail(format!("it is a key of the entity `{}`", entity.name))
            .at(at("contract"))
        })?;
        if field.data_type != key.data_type {
            return Err(Problem::user(
                "wrong-type",
                format!("the key `{}` has another type", key.name),
            )
            .detail(format!(
                "it is {} in the entity `{}`, and {} in the contract `{}`",
                key.data_type, entity.name, field.data_type, contract.name
            ))
            .at(at("contract")));
        }
        key_columns.push(field.name.clone());
    }
    if let Some(stray) = spec
        .keys
        .keys()
        .find(|k| !entity.keys.iter().any(|e| *e.name == ***k))
    {
        let known = entity.keys.iter().map(|k| k.name.as_ref());
        return Err(unknown("column", "key", stray, known).at(at(&format!("keys/{stray}"))));
    }
    Ok(key_columns)
}
