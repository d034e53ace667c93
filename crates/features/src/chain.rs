//! Chained views: a view as the source of another. Each fact of the upstream view's sources is one row:
//! the columns of the fact, the key of its entity, and the upstream's features of that entity at the
//! fact itself. Which rows there are is said here; who evaluates them is `stream`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::Schema;
use headwater_aggregate::Outcome;
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Field, Problem, array_from_values};

use crate::catalog::{CompiledFeature, CompiledSource, CompiledView};
use crate::prepare::KeptRows;

/// Views upstream of each other, one behind the other.
pub const CHAIN_DEPTH_MAX: usize = 4;

/// One source of a view whose features are columns of another's rows.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub view: Arc<CompiledView>,
    /// Which of its sources.
    pub source: usize,
    /// What each column of a row is.
    columns: Vec<RowColumn>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, Copy)]
enum RowColumn {
    /// A feature of the upstream view, by index.
    Feature(usize),
    /// A column of its source's rows, by place.
    Column(usize),
}

impl Upstream {
    /// One per source of a view. Their rows have the same columns: the view's features, the keys of its
    /// entity, and what all its sources have under one name and type. Of one name the first wins.
    pub(crate) fn of(view: &Arc<CompiledView>) -> Vec<Self> {
        let sources = 0..view.sources.len();
        let all: Vec<Self> = sources.map(|source| Self::rows_of(view, source)).collect();
        let common = |field: &Field| {
            let has = |other: &Self| {
                let mut fields = other.fields.iter();
                fields.any(|f| f.name == field.name && f.data_type == field.data_type)
            };
            all.iter().all(has)
        };
        let keep = |upstream: &Self| {
            let columns = upstream.fields.iter().zip(&upstream.columns);
            let columns = columns.filter(|(field, _)| common(field));
            let (fields, columns) = columns.map(|(f, c)| (f.clone(), *c)).unzip();
            Self {
                view: view.clone(),
                source: upstream.source,
                columns,
                fields,
            }
        };
        all.iter().map(keep).collect()
    }

    fn rows_of(view: &Arc<CompiledView>, index: usize) -> Self {
        let source = &view.sources[index];
        let features = view.features.iter().enumerate();
        let features = features.map(|(i, f)| {
            let field = Field::new(f.name.clone(), f.data_type.clone());
            (field, RowColumn::Feature(i))
        });
        let keys = view.entity.keys.iter().zip(&source.keys);
        let keys = keys.map(|(key, place)| (key.clone(), RowColumn::Column(*place)));
        let columns = source.columns.iter().cloned().enumerate();
        let columns = columns.map(|(place, field)| (field, RowColumn::Column(place)));
        let mut seen = BTreeSet::new();
        let all = features.chain(keys).chain(columns);
        let all = all.filter(|(field, _)| seen.insert(field.name.clone()));
        let (fields, columns) = all.unzip();
        Self {
            view: view.clone(),
            source: index,
            columns,
            fields,
        }
    }

    /// The columns of a row.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The contract's column that each column of a row is, where it is one.
    pub(crate) fn stored(&self) -> Vec<Option<Arc<str>>> {
        let source = &self.view.sources[self.source];
        let stored = |column: &RowColumn| match column {
            RowColumn::Feature(_) => None,
            RowColumn::Column(place) => source.stored[*place].clone(),
        };
        self.columns.iter().map(stored).collect()
    }

    /// The upstream's feature that a column of a row is, where it is one.
    pub fn feature(&self, place: usize) -> Option<&CompiledFeature> {
        self.view.features.get(self.feature_index(place)?)
    }

    /// The same, as its place among the view's features.
    pub fn feature_index(&self, place: usize) -> Option<usize> {
        match self.columns.get(place)? {
            RowColumn::Feature(index) => Some(*index),
            RowColumn::Column(_) => None,
        }
    }

    /// The upstream's features among some columns of a row, by index.
    pub fn features(&self, needed: &BTreeSet<usize>) -> Vec<usize> {
        let feature = |place: &usize| match self.columns[*place] {
            RowColumn::Feature(index) => Some(index),
            RowColumn::Column(_) => None,
        };
        needed.iter().filter_map(feature).collect()
    }

    /// The columns of the upstream's own rows that some columns of a row need.
    pub fn needed_above(&self, needed: &BTreeSet<usize>) -> BTreeSet<usize> {
        let column = |place: &usize| match self.columns[*place] {
            RowColumn::Column(above) => Some(above),
            RowColumn::Feature(_) => None,
        };
        let source = &self.view.sources[self.source];
        let filter = source.filter.iter().flat_map(|f| f.columns());
        let above = needed.iter().filter_map(column);
        above
            .chain(filter.copied())
            .chain(source.keys.iter().copied())
            .collect()
    }

    /// The rows of facts that the upstream's source kept, of which each has the outcomes of the
    /// upstream's features. Columns that aren't needed are null.
    pub fn rows(
        &self,
        kept: &KeptRows,
        outcomes: &[Vec<Outcome>],
        needed: &BTreeSet<usize>,
    ) -> Result<RecordBatch, Problem> {
        let feature = |index: usize, data_type: &DataType| {
            array_from_values(data_type, outcomes.iter().map(|o| &o[index].value))
        };
        self.rows_with(kept, feature, needed)
    }

    /// The same where the features' values are columns, by index; nulls where one isn't there.
    pub fn rows_of_columns(
        &self,
        kept: &KeptRows,
        features: &[Option<ArrayRef>],
        needed: &BTreeSet<usize>,
    ) -> Result<RecordBatch, Problem> {
        let feature = |index: usize, data_type: &DataType| {
            let column = features.get(index).cloned().flatten();
            Ok(column.unwrap_or_else(|| new_null_array(&data_type.to_arrow(), kept.len())))
        };
        self.rows_with(kept, feature, needed)
    }

    fn rows_with(
        &self,
        kept: &KeptRows,
        feature: impl Fn(usize, &DataType) -> Result<ArrayRef, Problem>,
        needed: &BTreeSet<usize>,
    ) -> Result<RecordBatch, Problem> {
        let array = |(place, column): (usize, &RowColumn)| -> Result<ArrayRef, Problem> {
            let data_type = &self.fields[place].data_type;
            match column {
                _ if !needed.contains(&place) => {
                    Ok(new_null_array(&data_type.to_arrow(), kept.len()))
                }
                RowColumn::Feature(index) => feature(*index, data_type),
                RowColumn::Column(above) => Ok(kept.columns.column(*above).clone()),
            }
        };
        let arrays = self.columns.iter().enumerate().map(array);
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<_, _>>()?;
        // Nulls stand for columns that nobody reads, whatever the contract says of them.
        let fields = self.fields.iter().map(|f| f.to_arrow().with_nullable(true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
            .map_err(|e| Problem::internal("chained-rows", "columns don't fit").detail(e))
    }
}

impl CompiledSource {
    /// The columns of its rows that are read.
    pub fn needed(&self) -> BTreeSet<usize> {
        let inputs = self.inputs.iter().flatten().chain(&self.filter);
        let read = inputs.flat_map(|expression| expression.columns().iter().copied());
        read.chain(self.keys.iter().copied()).collect()
    }
}

/// The documents of views, each after those upstream of it. Those in a circle are left out and named.
pub(crate) fn upstream_first<'a>(
    documents: &[&'a YamlDocument],
    problems: &mut Vec<Problem>,
) -> Vec<&'a YamlDocument> {
    let name = |document: &YamlDocument| document.value["name"].as_str().map(str::to_owned);
    let named: BTreeMap<String, usize> = documents
        .iter()
        .enumerate()
        .filter_map(|(index, document)| Some((name(document)?, index)))
        .collect();
    let upstream = |index: usize| -> Vec<usize> {
        let sources = documents[index].value["spec"]["sources"].as_array();
        let views = sources
            .into_iter()
            .flatten()
            .filter_map(|s| s["view"].as_str());
        views.filter_map(|view| named.get(view).copied()).collect()
    };
    let (mut done, mut order) = (vec![false; documents.len()], Vec::new());
    let mut left: Vec<usize> = (0..documents.len()).collect();
    loop {
        let (ready, waiting): (Vec<usize>, Vec<usize>) = left
            .iter()
            .copied()
            .partition(|index| upstream(*index).iter().all(|above| done[*above]));
        ready.iter().for_each(|index| done[*index] = true);
        order.extend(ready.iter().map(|index| documents[*index]));
        left = waiting;
        if ready.is_empty() {
            break;
        }
    }
    // What is left stands in a circle, or downstream of one.
    if let Some(first) = left.first() {
        let names: Vec<String> = left.iter().filter_map(|i| name(documents[*i])).collect();
        problems.push(
            Problem::user("cycle", "views are upstream of each other in a circle")
                .detail(names.join(", "))
                .hint("a view can't be its own source, through whatever other views")
                .at(documents[*first].locate("/spec/sources")),
        );
    }
    order
}
