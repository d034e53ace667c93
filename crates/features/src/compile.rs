//! From a view's definition to what runs: names, types, shared inputs and slots, hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_aggregate::{Aggregate, Layout, Slot, SlotKind, Window, WindowKind};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, DataType, Field, Micros, Problem};

use crate::Expression;
use crate::catalog::{
    Catalog, CompiledFeature, CompiledSource, CompiledView, Entity, FeatureKind, VIEW_FEATURES_MAX,
    hash, not_available, unknown,
};
use crate::default::default_value;
use crate::definition::{Definition, FeatureSpec, SourceSpec, Stale, ViewSpec, check_name};
use crate::derive::compile_derived;
use crate::window::{NamedWindow, duration, read_function, read_window};

/// Kept besides the widest window and the allowed lateness.
const RETENTION_MARGIN: Micros = 7 * 24 * 3600 * 1_000_000;

/// Compiles one view; all its mistakes at once.
pub(crate) fn compile_view(
    catalog: &Catalog,
    document: &YamlDocument,
    definition: &Definition<ViewSpec>,
) -> Result<CompiledView, Vec<Problem>> {
    let spec = &definition.spec;
    let entity = catalog.entity(&spec.entity).cloned().ok_or_else(|| {
        let names = catalog.entities().map(|e| e.name.as_ref());
        vec![unknown("entity", "entity", &spec.entity, names).at(document.locate("/spec/entity"))]
    })?;
    let mut compiler = Compiler::new(catalog, document, definition, &entity)?;
    for (index, feature) in spec.features.iter().enumerate() {
        compiler.add_feature(index, feature);
    }
    compiler.finish(entity)
}

/// A source as expressions see it.
struct Source {
    contract: Arc<Contract>,
    /// The contract's columns under the names they have in the view.
    columns: Vec<Field>,
    filter: Option<Expression>,
    key_columns: Vec<Arc<str>>,
}

/// One input of the layout: an expression per source.
struct Input {
    data_type: DataType,
    expressions: Vec<Option<Expression>>,
}

/// A feature whose slot has no number yet.
struct Pending {
    name: String,
    spec_index: usize,
    data_type: DataType,
    kind: PendingKind,
}

enum PendingKind {
    Aggregate(Aggregate, Slot, Window),
    Latest(Slot),
    /// A SQL text over other features.
    Derived(String),
}

struct Compiler<'a> {
    document: &'a YamlDocument,
    definition: &'a Definition<ViewSpec>,
    sources: Vec<Source>,
    inputs: Vec<Input>,
    pending: Vec<Pending>,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(
        catalog: &Catalog,
        document: &'a YamlDocument,
        definition: &'a Definition<ViewSpec>,
        entity: &Entity,
    ) -> Result<Self, Vec<Problem>> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        for (index, spec) in definition.spec.sources.iter().enumerate() {
            let pointer = format!("/spec/sources/{index}");
            match read_source(catalog, document, &pointer, entity, spec) {
                Ok(source) => sources.push(source),
                Err(problem) => problems.push(problem),
            }
        }
        if definition.spec.sources.is_empty() {
            problems.push(
                Problem::user("invalid-definition", "the view has no source")
                    .hint("name a contract: `sources: [{contract: departure}]`")
                    .at(document.locate("/spec/sources")),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            document,
            definition,
            sources,
            inputs: Vec::new(),
            pending: Vec::new(),
            problems,
        })
    }

    /// Compiles one feature of the definition, noting what is wrong with it.
    fn add_feature(&mut self, index: usize, spec: &FeatureSpec) {
        let pointer = format!("/spec/features/{index}");
        if let Err(problem) = self.try_feature(index, spec) {
            let key = problem.field.clone().unwrap_or_default();
            let place = match key.as_str() {
                "" => pointer,
                key => format!("{pointer}/{key}"),
            };
            let mut problem = problem;
            if problem.location.is_none() {
                problem.location = Some(self.document.locate(&place));
            }
            problem.field = Some(format!("{}.{}", self.definition.name, spec.name));
            self.problems.push(problem);
        }
    }

    fn try_feature(&mut self, index: usize, spec: &FeatureSpec) -> Result<(), Problem> {
        check_name(&spec.name).map_err(|p| p.field("name"))?;
        refuse_later(spec)?;
        match (&spec.aggregate, &spec.expression) {
            (Some(_), Some(_)) => Err(Problem::user(
                "invalid-feature",
                "a feature has an `aggregate` or an `expression`, not both",
            )),
            (None, Some(expression)) => self.add_derived(index, spec, expression),
            (Some(aggregate), None) => self.add_aggregate(index, spec, aggregate),
            (None, None) => self.add_latest(index, spec),
        }
    }

    fn add_derived(
        &mut self,
        index: usize,
        spec: &FeatureSpec,
        expression: &str,
    ) -> Result<(), Problem> {
        let stray = [
            ("of", spec.of.is_some()),
            ("where", spec.filter.is_some()),
            ("windows", spec.windows.is_some()),
            ("source", spec.source.is_some()),
            ("ttl", spec.ttl.is_some()),
        ];
        if let Some((key, _)) = stray.iter().find(|(_, given)| *given) {
            return Err(Problem::user(
                "invalid-feature",
                format!("a derived feature has no `{key}`"),
            )
            .field(*key)
            .hint("it is worked out from other features of the view"));
        }
        self.push(
            index,
            spec.name.clone(),
            DataType::Bool,
            PendingKind::Derived(expression.to_owned()),
        )
    }

    fn add_aggregate(
        &mut self,
        index: usize,
        spec: &FeatureSpec,
        aggregate: &str,
    ) -> Result<(), Problem> {
        let function = read_function(aggregate, spec).map_err(|p| {
            let field = p.field.clone().unwrap_or_else(|| "aggregate".into());
            p.field(field)
        })?;
        if spec.ttl.is_some() && !matches!(function, Aggregate::Last { .. }) {
            return Err(
                Problem::user("invalid-feature", format!("`{aggregate}` takes no `ttl`"))
                    .field("ttl")
                    .hint("only latest values and `last` have an age; use a window"),
            );
        }
        if spec.of.is_none() && function.needs_input() {
            return Err(
                Problem::user("invalid-feature", format!("`{aggregate}` needs `of`"))
                    .hint("write the column or SQL expression to aggregate"),
            );
        }
        let input = self.input(spec)?;
        let input_type = input.map(|i| self.inputs[i].data_type.clone());
        let data_type = function.result_type(input_type.as_ref()).map_err(|why| {
            Problem::user("wrong-type", format!("`{aggregate}` can't aggregate this"))
                .field("of")
                .detail(why)
        })?;
        let slot = Slot {
            input,
            filter: self.filter(spec)?,
            kind: function.slot_kind(),
        };
        let Some(windows) = &spec.windows else {
            let lifetime = Window::new(WindowKind::Lifetime);
            let kind = PendingKind::Aggregate(function, slot, lifetime);
            return self.push(index, spec.name.clone(), data_type, kind);
        };
        if windows.is_empty() {
            return Err(Problem::user("invalid-feature", "`windows` is empty")
                .field("windows")
                .hint("name at least one window, or leave `windows` out for all time"));
        }
        for (place, window) in windows.iter().enumerate() {
            let pointer = format!("/spec/features/{index}/windows/{place}");
            let NamedWindow { window, name } = read_window(&spec.name, window)
                .map_err(|p| p.at(self.document.locate(&pointer)))?;
            let kind = PendingKind::Aggregate(function, slot.clone(), window);
            self.push(index, name, data_type.clone(), kind)?;
        }
        Ok(())
    }

    fn add_latest(&mut self, index: usize, spec: &FeatureSpec) -> Result<(), Problem> {
        if let Some(key) = spec.windows.as_ref().map(|_| "windows") {
            return Err(
                Problem::user("invalid-feature", "a latest value has no windows")
                    .field(key)
                    .hint("add `aggregate:`, or use `ttl:` to bound its age"),
            );
        }
        let input = self.input(spec)?.ok_or_else(|| {
            Problem::user("invalid-feature", "the feature says nothing of what it is").hint(
                "give it `aggregate:`, `expression:`, or `of:` for the latest value of a column",
            )
        })?;
        let slot = Slot {
            input: Some(input),
            filter: self.filter(spec)?,
            kind: SlotKind::Last {
                n: 1,
                keep_nulls: true,
            },
        };
        let data_type = self.inputs[input].data_type.clone();
        self.push(
            index,
            spec.name.clone(),
            data_type,
            PendingKind::Latest(slot),
        )
    }

    fn push(
        &mut self,
        spec_index: usize,
        name: String,
        data_type: DataType,
        kind: PendingKind,
    ) -> Result<(), Problem> {
        check_name(&name)?;
        if self.pending.iter().any(|p| p.name == name) {
            return Err(
                Problem::user("name-clash", format!("the view has two features `{name}`"))
                    .hint("rename one, or give its window another name with `as`"),
            );
        }
        if self.pending.len() >= VIEW_FEATURES_MAX {
            return Err(Problem::user(
                "limit",
                format!("the view has more than {VIEW_FEATURES_MAX} features"),
            )
            .hint("split it into several views"));
        }
        self.pending.push(Pending {
            name,
            spec_index,
            data_type,
            kind,
        });
        Ok(())
    }

    /// The sources that a feature uses.
    fn used(&self, spec: &FeatureSpec) -> Result<Vec<usize>, Problem> {
        let all: Vec<usize> = (0..self.sources.len()).collect();
        let Some(name) = &spec.source else {
            return Ok(all);
        };
        let named: Vec<usize> = all
            .into_iter()
            .filter(|i| *self.sources[*i].contract.name == **name)
            .collect();
        if named.is_empty() {
            let names = self.sources.iter().map(|s| s.contract.name.as_ref());
            return Err(unknown("contract", "source", name, names).field("source"));
        }
        Ok(named)
    }

    fn input(&mut self, spec: &FeatureSpec) -> Result<Option<usize>, Problem> {
        let Some(of) = &spec.of else {
            return Ok(None);
        };
        let mut expressions: Vec<Option<Expression>> = vec![None; self.sources.len()];
        let mut data_type: Option<DataType> = None;
        for index in self.used(spec)? {
            let source = &self.sources[index];
            let expression = Expression::compile(of, &source.columns).map_err(|p| p.field("of"))?;
            match &data_type {
                Some(known) if known != expression.data_type() => {
                    return Err(
                        Problem::user("wrong-type", "the sources give different types")
                            .field("of")
                            .detail(format!("{known} and {}", expression.data_type()))
                            .hint("make them equal with CAST, or name one `source`"),
                    );
                }
                _ => data_type = Some(expression.data_type().clone()),
            }
            expressions[index] = Some(expression);
        }
        Ok(data_type.map(|data_type| {
            self.share(Input {
                data_type,
                expressions,
            })
        }))
    }

    /// The input that says which facts count: the feature's `where`, and its `source`.
    fn filter(&mut self, spec: &FeatureSpec) -> Result<Option<usize>, Problem> {
        let used = self.used(spec)?;
        let all = used.len() == self.sources.len();
        let sql = match (&spec.filter, all) {
            (None, true) => return Ok(None),
            (Some(filter), _) => filter.as_str(),
            (None, false) => "true",
        };
        let mut expressions: Vec<Option<Expression>> = vec![None; self.sources.len()];
        for index in used {
            let expression =
                condition(sql, &self.sources[index].columns).map_err(|p| p.field("where"))?;
            expressions[index] = Some(expression);
        }
        Ok(Some(self.share(Input {
            data_type: DataType::Bool,
            expressions,
        })))
    }

    /// The number of an input; the same expressions get the same one.
    fn share(&mut self, input: Input) -> usize {
        let spelling = |input: &Input| -> Vec<Option<String>> {
            let expressions = input.expressions.iter();
            expressions
                .map(|e| e.as_ref().map(|e| e.canonical().to_owned()))
                .collect()
        };
        let wanted = spelling(&input);
        let same = |known: &Input| known.data_type == input.data_type && spelling(known) == wanted;
        match self.inputs.iter().position(same) {
            Some(index) => index,
            None => {
                self.inputs.push(input);
                self.inputs.len() - 1
            }
        }
    }

    fn finish(mut self, entity: Arc<Entity>) -> Result<CompiledView, Vec<Problem>> {
        let spec = &self.definition.spec;
        let (slots, numbers) = number_slots(&self.pending);
        let features = self.features(&numbers);
        let (features, evaluation_order) = match self.derive(features) {
            Ok(derived) => derived,
            Err(problem) => {
                self.problems.push(problem);
                (Vec::new(), Vec::new())
            }
        };
        let layout = Layout {
            inputs: self.inputs.iter().map(|i| i.data_type.clone()).collect(),
            slots,
            lifetime: self.pending.iter().any(Pending::is_lifetime),
            rows_max: self
                .pending
                .iter()
                .filter_map(Pending::rows)
                .max()
                .unwrap_or(0),
        };
        let retention = self.retention().unwrap_or_else(|problem| {
            self.problems.push(problem);
            0
        });
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let sources = self.compiled_sources();
        let name: Arc<str> = self.definition.name.as_str().into();
        Ok(CompiledView {
            state_id: format!("{name}@{}", hash(&state_text(&entity, &sources, &layout))),
            name,
            definition_hash: hash(&self.document.value.to_string()),
            entity,
            sources,
            layout,
            features,
            evaluation_order,
            retention,
            storage: spec.storage,
            owner: self.definition.owner.clone(),
            description: self.definition.description.clone(),
        })
    }

    fn features(&mut self, numbers: &[Option<usize>]) -> Vec<CompiledFeature> {
        let mut features = Vec::with_capacity(self.pending.len());
        for (pending, slot) in self.pending.iter().zip(numbers) {
            let spec = &self.definition.spec.features[pending.spec_index];
            let kind = match (&pending.kind, slot) {
                (PendingKind::Aggregate(function, _, window), Some(slot)) => {
                    FeatureKind::Aggregate {
                        function: *function,
                        slot: *slot,
                        window: *window,
                    }
                }
                (_, slot) => FeatureKind::Latest {
                    slot: slot.unwrap_or(0),
                },
            };
            let ttl = spec.ttl.as_deref().map(read_ttl).transpose();
            let ttl = ttl.unwrap_or_else(|problem| {
                let place = format!("/spec/features/{}/ttl", pending.spec_index);
                self.problems.push(problem.at(self.document.locate(&place)));
                None
            });
            features.push(CompiledFeature {
                full_name: format!("{}.{}", self.definition.name, pending.name).into(),
                name: pending.name.as_str().into(),
                data_type: pending.data_type.clone(),
                kind,
                default: None,
                ttl,
                stale_keep: spec.stale == Some(Stale::Keep),
                description: spec.description.clone(),
            });
        }
        features
    }

    /// Compiles the derived features and reads the defaults, now that every type is known.
    fn derive(
        &self,
        mut features: Vec<CompiledFeature>,
    ) -> Result<(Vec<CompiledFeature>, Vec<usize>), Problem> {
        let place = |index: usize, key: &str| {
            let spec = self.pending[index].spec_index;
            self.document
                .locate(&format!("/spec/features/{spec}/{key}"))
        };
        let derived: BTreeMap<usize, &str> = self
            .pending
            .iter()
            .enumerate()
            .filter_map(|(index, p)| match &p.kind {
                PendingKind::Derived(sql) => Some((index, sql.as_str())),
                _ => None,
            })
            .collect();
        let order = compile_derived(&mut features, &derived)
            .map_err(|(index, problem)| problem.at(place(index, "expression")))?;
        for (index, feature) in features.iter_mut().enumerate() {
            let spec = &self.definition.spec.features[self.pending[index].spec_index];
            if let Some(default) = &spec.default {
                let value = default_value(default, &feature.data_type)
                    .map_err(|p| p.at(place(index, "default")))?;
                feature.default = Some(value);
            }
        }
        Ok((features, order))
    }

    fn retention(&self) -> Result<Micros, Problem> {
        let spec = &self.definition.spec;
        let read = |text: &Option<String>, key: &str| {
            let at = |p: Problem| p.at(self.document.locate(&format!("/spec/{key}")));
            text.as_deref().map(|t| duration(t).map_err(at)).transpose()
        };
        let lateness = read(&spec.allowed_lateness, "allowed_lateness")?.unwrap_or(0);
        if let Some(retention) = read(&spec.retention, "retention")? {
            return Ok(retention);
        }
        let reach = self.pending.iter().filter_map(|p| match &p.kind {
            PendingKind::Aggregate(_, _, window) => window.reach(),
            _ => None,
        });
        Ok(reach
            .max()
            .unwrap_or(0)
            .saturating_add(lateness)
            .saturating_add(RETENTION_MARGIN))
    }

    fn compiled_sources(&self) -> Vec<CompiledSource> {
        let source = |(index, source): (usize, &Source)| CompiledSource {
            contract: source.contract.name.clone(),
            filter: source.filter.clone(),
            key_columns: source.key_columns.clone(),
            inputs: self
                .inputs
                .iter()
                .map(|i| i.expressions[index].clone())
                .collect(),
        };
        self.sources.iter().enumerate().map(source).collect()
    }
}

impl Pending {
    fn slot(&self) -> Option<&Slot> {
        match &self.kind {
            PendingKind::Aggregate(_, slot, _) | PendingKind::Latest(slot) => Some(slot),
            PendingKind::Derived(_) => None,
        }
    }

    fn is_lifetime(&self) -> bool {
        match &self.kind {
            PendingKind::Aggregate(_, _, window) => {
                window.kind == WindowKind::Lifetime && window.limit.is_none()
            }
            PendingKind::Latest(_) => true,
            PendingKind::Derived(_) => false,
        }
    }

    fn rows(&self) -> Option<usize> {
        match &self.kind {
            PendingKind::Aggregate(_, _, window) => match window.kind {
                WindowKind::Rows { rows } => Some(rows),
                WindowKind::Lifetime => window.limit,
                _ => None,
            },
            _ => None,
        }
    }
}

/// The slots of all features, and each feature's number among them. Sums of lower powers are read
/// from a slot that has higher ones too.
fn number_slots(pending: &[Pending]) -> (Vec<Slot>, Vec<Option<usize>>) {
    let highest = |slot: &Slot| {
        let SlotKind::Moments { order } = slot.kind else {
            return slot.clone();
        };
        let others = pending.iter().filter_map(Pending::slot);
        let orders = others
            .filter(|s| s.input == slot.input && s.filter == slot.filter)
            .filter_map(|s| match s.kind {
                SlotKind::Moments { order } => Some(order),
                _ => None,
            });
        Slot {
            kind: SlotKind::Moments {
                order: orders.max().unwrap_or(order),
            },
            ..slot.clone()
        }
    };
    let mut slots: Vec<Slot> = Vec::new();
    let mut numbers = Vec::with_capacity(pending.len());
    for feature in pending {
        numbers.push(feature.slot().map(|slot| {
            let slot = highest(slot);
            slots.iter().position(|s| *s == slot).unwrap_or_else(|| {
                slots.push(slot);
                slots.len() - 1
            })
        }));
    }
    (slots, numbers)
}

fn read_ttl(text: &str) -> Result<Micros, Problem> {
    match duration(text)? {
        0 => Err(Problem::user("invalid-duration", "`ttl` is zero")
            .hint("leave it out: without it a value of any age is taken")),
        ttl => Ok(ttl),
    }
}

/// A SQL condition.
fn condition(sql: &str, columns: &[Field]) -> Result<Expression, Problem> {
    let expression = Expression::compile(sql, columns)?;
    if *expression.data_type() != DataType::Bool {
        return Err(
            Problem::user("wrong-type", "the condition isn't true or false")
                .detail(format!("`{sql}` is {}", expression.data_type())),
        );
    }
    Ok(expression)
}

fn refuse_later(spec: &FeatureSpec) -> Result<(), Problem> {
    let later = [
        ("by", spec.by.is_some()),
        ("order_by", spec.order_by.is_some()),
        ("quantile", spec.quantile.is_some()),
        ("half_life", spec.half_life.is_some()),
        ("unnest", spec.unnest.is_some()),
        ("element_wise", spec.element_wise.is_some()),
    ];
    match later.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(not_available(key, key)),
        None => Ok(()),
    }
}

fn read_source(
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
    let mut key_columns = Vec::with_capacity(entity.keys.len());
    for key in &entity.keys {
        let column = spec
            .keys
            .get(key.name.as_ref())
            .map_or(key.name.as_ref(), String::as_str);
        let field = contract.field(column).ok_or_else(|| {
            unknown("column", "column", column, names.iter().copied())
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

/// Everything that shapes a view's stored state, in one spelling.
fn state_text(entity: &Entity, sources: &[CompiledSource], layout: &Layout) -> String {
    let keys: Vec<String> = entity
        .keys
        .iter()
        .map(|k| k.data_type.to_string())
        .collect();
    let mut text = format!("keys {}\n", keys.join(","));
    let spelling = |e: &Option<Expression>| e.as_ref().map(|e| e.canonical().to_owned());
    for source in sources {
        text.push_str(&format!(
            "source {} where {:?} keys {:?} inputs {:?}\n",
            source.contract,
            spelling(&source.filter),
            source.key_columns,
            source.inputs.iter().map(spelling).collect::<Vec<_>>(),
        ));
    }
    text.push_str(&format!("layout {layout:?}"));
    text
}
