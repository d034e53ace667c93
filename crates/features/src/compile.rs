//! From a view's definition to what runs: names, types, shared inputs and slots, hashes.

use std::sync::Arc;

use headwater_aggregate::{Aggregate, Slot, SlotKind, Spread, Window, WindowKind};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Problem};

use self::checks::{read_spread, refuse_stray, refuse_unordered, refuse_widthless};
use self::source::{Source, condition, read_source};
use crate::Expression;
use crate::catalog::{Catalog, CompiledView, Entity, VIEW_FEATURES_MAX, unknown};
use crate::definition::{Definition, FeatureSpec, ViewSpec, check_name};
use crate::function::{categories_max, read_function};
use crate::window::{NamedWindow, read_window};

mod checks;
mod finish;
pub(crate) mod source;

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
    compile_view_of(catalog, document, definition, entity)
}

/// The same over an entity that need not be in the catalog.
pub(crate) fn compile_view_of(
    catalog: &Catalog,
    document: &YamlDocument,
    definition: &Definition<ViewSpec>,
    entity: Arc<Entity>,
) -> Result<CompiledView, Vec<Problem>> {
    let mut compiler = Compiler::new(catalog, document, definition, &entity)?;
    for (index, feature) in definition.spec.features.iter().enumerate() {
        compiler.add_feature(index, feature);
    }
    compiler.finish(entity)
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
    Aggregate(Reads, Slot, Picked),
    Latest(Slot),
    /// A SQL text over other features.
    Derived(String),
}

/// A window, and the bool input that says which facts it is formed of; none: all of the view.
#[derive(Clone, Copy)]
struct Picked {
    window: Window,
    among: Option<usize>,
}

/// What is read from a slot.
#[derive(Clone)]
struct Reads {
    function: Aggregate,
    /// How many of the categories with the largest results are kept.
    largest: Option<usize>,
}

struct Compiler<'a> {
    document: &'a YamlDocument,
    definition: &'a Definition<ViewSpec>,
    sources: Vec<Source>,
    inputs: Vec<Input>,
    pending: Vec<Pending>,
    /// Features of the definition that are wrong, by index.
    failed: Vec<usize>,
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
                Ok(found) => sources.extend(found),
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
            failed: Vec::new(),
            problems,
        })
    }

    /// Compiles one feature of the definition, noting what is wrong with it.
    fn add_feature(&mut self, index: usize, spec: &FeatureSpec) {
        let pointer = format!("/spec/features/{index}");
        if let Err(mut problem) = self.try_feature(index, spec) {
            let key = problem.field.clone().unwrap_or_default();
            let place = match key.as_str() {
                "" => pointer,
                key => format!("{pointer}/{key}"),
            };
            if problem.location.is_none() {
                problem.location = Some(self.document.locate(&place));
            }
            problem.field = Some(format!("{}.{}", self.definition.name, spec.name));
            self.problems.push(problem);
            self.failed.push(index);
        }
    }

    fn try_feature(&mut self, index: usize, spec: &FeatureSpec) -> Result<(), Problem> {
        check_name(&spec.name).map_err(|p| p.field("name"))?;
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
            ("source", spec.source.is_some()),
            ("ttl", spec.ttl.is_some()),
            ("stale", spec.stale.is_some()),
        ];
        refuse_stray(
            spec,
            &stray,
            "a derived feature",
            "it is worked out from other features of the view",
        )?;
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
        if spec.of.is_none() && function.needs_input() {
            return Err(
                Problem::user("invalid-feature", format!("`{aggregate}` needs `of`"))
                    .hint("write the column or SQL expression to aggregate"),
            );
        }
        let (slot, data_type) = self.slot(spec, aggregate, &function)?;
        let aged = matches!(function, Aggregate::Last { .. })
            && slot.by.is_none()
            && slot.spread == Spread::Whole;
        if spec.ttl.is_some() && !aged {
            return Err(
                Problem::user("invalid-feature", format!("`{aggregate}` takes no `ttl`"))
                    .field("ttl")
                    .hint("only latest values and `last` have an age; use a window"),
            );
        }
        let reads = Reads {
            largest: spec.n.filter(|_| !function.takes_n()),
            function,
        };
        let Some(windows) = &spec.windows else {
            let window = Window::new(WindowKind::Lifetime);
            refuse_widthless(&reads.function, &window)?;
            let picked = Picked {
                window,
                among: None,
            };
            let kind = PendingKind::Aggregate(reads, slot, picked);
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
            refuse_widthless(&reads.function, &window)
                .map_err(|p| p.at(self.document.locate(&pointer)))?;
            let picked = Picked {
                window,
                among: self.among(spec, &window)?,
            };
            let kind = PendingKind::Aggregate(reads.clone(), slot, picked);
            self.push(index, name, data_type.clone(), kind)?;
        }
        Ok(())
    }

    /// The slot that a function is read from, and the type of its result.
    fn slot(
        &mut self,
        spec: &FeatureSpec,
        aggregate: &str,
        function: &Aggregate,
    ) -> Result<(Slot, DataType), Problem> {
        let input = self.input(spec, "of", spec.of.as_deref())?;
        let by = self.ordered_input(spec, "by", spec.by.as_deref())?;
        let order_by = self.ordered_input(spec, "order_by", spec.order_by.as_deref())?;
        if function.needs_order() && order_by.is_none() {
            return Err(Problem::user(
                "invalid-feature",
                format!("`{aggregate}` needs `order_by`"),
            )
            .hint(
                "write the column or SQL expression whose least or greatest value chooses the fact",
            ));
        }
        let input_type = input.map(|i| &self.inputs[i].data_type);
        let spread = read_spread(spec, input_type)?;
        let wrong = |why: String| {
            Problem::user("wrong-type", format!("`{aggregate}` can't aggregate this"))
                .field("of")
                .detail(why)
        };
        let whole = function.result_type(input_type, spread, by.is_some());
        let whole = whole.map_err(wrong)?;
        let grouped = by.is_some() || spread == Spread::Entries;
        if spec.n.is_some() && !function.takes_n() {
            refuse_unordered(aggregate, grouped, &whole)?;
        }
        let slot = Slot {
            input,
            filter: self.filter(spec)?,
            order_by,
            by,
            spread,
            categories_max: match grouped {
                true => categories_max(spec)?,
                false => 0,
            },
            kind: function.slot_kind(),
        };
        Ok((slot, whole))
    }

    /// An input whose values have an order.
    fn ordered_input(
        &mut self,
        spec: &FeatureSpec,
        key: &'static str,
        sql: Option<&str>,
    ) -> Result<Option<usize>, Problem> {
        let input = self.input(spec, key, sql)?;
        if let Some(index) = input
            && !self.inputs[index].data_type.is_ordered()
        {
            let what = &self.inputs[index].data_type;
            return Err(Problem::user("wrong-type", format!("`{key}` has no order"))
                .field(key)
                .detail(format!("it is {what}"))
                .hint("name a column or expression that is one value"));
        }
        Ok(input)
    }

    fn add_latest(&mut self, index: usize, spec: &FeatureSpec) -> Result<(), Problem> {
        refuse_stray(
            spec,
            &[],
            "a latest value",
            "add `aggregate:`, or use `ttl:` to bound its age",
        )?;
        let input = self.input(spec, "of", spec.of.as_deref())?;
        let input = input.ok_or_else(|| {
            Problem::user("invalid-feature", "the feature says nothing of what it is").hint(
                "give it `aggregate:`, `expression:`, or `of:` for the latest value of a column",
            )
        })?;
        let slot = Slot {
            input: Some(input),
            filter: self.filter(spec)?,
            ..Slot::new(SlotKind::Last {
                n: 1,
                keep_nulls: true,
            })
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
            .filter(|i| *self.sources[*i].name == **name)
            .collect();
        if named.is_empty() {
            let names = self.sources.iter().map(|s| s.name.as_ref());
            return Err(unknown("contract", "source", name, names).field("source"));
        }
        Ok(named)
    }

    /// Says which of several sources a problem is of.
    fn in_source(&self, index: usize, mut problem: Problem) -> Problem {
        if self.sources.len() > 1 {
            let name = &self.sources[index].name;
            problem.detail = format!("{}, in the source `{name}`", problem.detail);
            if !problem.hint.is_empty() {
                problem.hint.push_str("; or ");
            }
            problem.hint += "map the column with `columns:`, or name one `source`";
        }
        problem
    }

    /// The input of one key of a feature, of all sources that it uses.
    fn input(
        &mut self,
        spec: &FeatureSpec,
        key: &'static str,
        sql: Option<&str>,
    ) -> Result<Option<usize>, Problem> {
        let Some(sql) = sql else {
            return Ok(None);
        };
        let mut expressions: Vec<Option<Expression>> = vec![None; self.sources.len()];
        let mut data_type: Option<DataType> = None;
        for index in self.used(spec)? {
            let expression = Expression::compile(sql, &self.sources[index].columns)
                .map_err(|p| self.in_source(index, p).field(key))?;
            match &data_type {
                Some(known) if known != expression.data_type() => {
                    return Err(
                        Problem::user("wrong-type", "the sources give different types")
                            .field(key)
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
        self.condition(spec, spec.filter.as_deref())
    }

    /// The input that says which facts a window picks from: those of the sources that the feature uses.
    fn among(&mut self, spec: &FeatureSpec, window: &Window) -> Result<Option<usize>, Problem> {
        match window.picks() {
            true => self.condition(spec, None),
            false => Ok(None),
        }
    }

    /// The input that is true for the facts of the sources that a feature uses which meet a condition;
    /// none where that is every fact.
    fn condition(
        &mut self,
        spec: &FeatureSpec,
        sql: Option<&str>,
    ) -> Result<Option<usize>, Problem> {
        let used = self.used(spec)?;
        if sql.is_none() && used.len() == self.sources.len() {
            return Ok(None);
        }
        let sql = sql.unwrap_or("true");
        let mut expressions: Vec<Option<Expression>> = vec![None; self.sources.len()];
        for index in used {
            let expression = condition(sql, &self.sources[index].columns)
                .map_err(|p| self.in_source(index, p).field("where"))?;
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
}
