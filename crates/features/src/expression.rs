//! SQL expressions over the columns of a row: parsed, typed and evaluated by DataFusion's
//! expression crates, so that they mean the same in stream, request and batch.
//!
//! Scalar only: no subqueries, aggregates or window functions, and nothing that answers differently
//! from one time to the next. Identifiers keep their case.

mod size;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::{cast, concat};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{
    Column, DFSchema, DataFusionError, ScalarValue, SchemaError, TableReference, not_impl_err,
};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{
    AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as Sql;
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;
use headwater_schema::contract::suggest;
use headwater_schema::{DataType, Field, Problem};

mod members;

/// Characters of one expression.
pub const EXPRESSION_CHARACTERS_MAX: usize = 16_384;
/// Calls and operators within each other, as they are parsed.
const NESTING_MAX: usize = 64;
/// How many times longer than its row's own text an expression may make a text.
const GROWTH_MAX: u64 = 10_000;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    canonical: String,
    data_type: DataType,
    columns: Vec<usize>,
    /// The column that the expression is, where it is nothing else.
    bare: Option<usize>,
    physical: Arc<dyn PhysicalExpr>,
}

impl Expression {
    /// Compiles `sql` over rows of `columns`.
    pub fn compile(sql: &str, columns: &[Field]) -> Result<Self, Problem> {
        Self::compile_within(sql, columns, &[])
    }

    /// Compiles `sql` over rows of `columns`, each of which has a scope, or none of them: a name that
    /// two scopes have is written `scope.name`.
    pub fn compile_within(sql: &str, columns: &[Field], scopes: &[&str]) -> Result<Self, Problem> {
        if sql.len() > EXPRESSION_CHARACTERS_MAX {
            return Err(
                Problem::user("invalid-expression", "the expression is too long").detail(format!(
                    "it has {} characters of {EXPRESSION_CHARACTERS_MAX}",
                    sql.len()
                )),
            );
        }
        let scope = |index: usize| scopes.get(index).map(|scope| TableReference::bare(*scope));
        let fields = columns.iter().enumerate();
        let fields = fields.map(|(index, f)| (scope(index), Arc::new(f.to_arrow())));
        let schema = DFSchema::new_with_metadata(fields.collect(), HashMap::new())
            .map_err(|e| invalid(sql, columns, scopes, &e))?;
        let parsed = parse(sql).map_err(|e| invalid(sql, columns, scopes, &e))?;
        size::refuse_deep(&parsed)?;
        let planned = plan(parsed, &schema).map_err(|e| invalid(sql, columns, scopes, &e))?;
        refuse_unsuitable(&planned, sql)?;
        size::refuse_large(&planned)?;
        let typed = simplify(planned, &schema).map_err(|e| invalid(sql, columns, scopes, &e))?;
        let physical = create_physical_expr(
            &typed,
            &schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .map_err(|e| invalid(sql, columns, scopes, &e))?;
        let arrow_type = physical
            .data_type(schema.as_arrow())
            .map_err(|e| invalid(sql, columns, scopes, &e))?;
        let data_type = DataType::from_arrow(&arrow_type).map_err(|e| {
            Problem::user(
                "invalid-expression",
                "the expression gives a type that nothing can hold",
            )
            .detail(format!("`{sql}`: {e}"))
            .hint("give it a type with CAST(… AS …)")
        })?;
        let used = typed.column_refs();
        let used = used.iter().filter_map(|c| schema.maybe_index_of_column(c));
        let used: Vec<usize> = used.collect::<BTreeSet<_>>().into_iter().collect();
        let bare = matches!(typed, Expr::Column(_))
            .then(|| used.first().copied())
            .flatten();
        Ok(Self {
            canonical: typed.to_string(),
            data_type,
            columns: used,
            bare,
            physical,
        })
    }

    /// The expression in one spelling, however it was written.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The column that the expression is, by index, where it is nothing else.
    pub fn bare(&self) -> Option<usize> {
        self.bare
    }

    /// The columns it reads, by index.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The value of each row. A row that has none (a division by zero, an overflow) is null.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef, Problem> {
        self.evaluate_counting(rows).map(|(values, _)| values)
    }

    /// The value of each row, and the rows that have none because the arithmetic failed.
    pub fn evaluate_counting(&self, rows: &RecordBatch) -> Result<(ArrayRef, Vec<usize>), Problem> {
        if let Some(column) = self.bare {
            return Ok((rows.column(column).clone(), Vec::new()));
        }
        if rows.num_rows() == 0 {
            return Ok((new_null_array(&self.data_type.to_arrow(), 0), Vec::new()));
        }
        if let Ok(values) = self.evaluate_all(rows) {
            return Ok((values, Vec::new()));
        }
        // One row failed: find out which, so that the others keep their values.
        let (mut parts, mut failed) = (Vec::with_capacity(rows.num_rows()), Vec::new());
        for row in 0..rows.num_rows() {
            parts.push(self.evaluate_all(&rows.slice(row, 1)).unwrap_or_else(|_| {
                failed.push(row);
                new_null_array(&self.data_type.to_arrow(), 1)
            }));
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let values = concat(&parts).map_err(|e| {
            Problem::internal("expression", "values can't be put together").detail(e)
        })?;
        Ok((values, failed))
    }

    fn evaluate_all(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let values = self.physical.evaluate(rows)?.into_array(rows.num_rows())?;
        let wanted = self.data_type.to_arrow();
        if *values.data_type() == wanted {
            Ok(values)
        } else {
            Ok(cast(&values, &wanted)?)
        }
    }
}

fn parse(sql: &str) -> Result<Sql, DataFusionError> {
    let mut parser = Parser::new(&GenericDialect {})
        .with_recursion_limit(NESTING_MAX)
        .try_with_sql(sql)?;
    let parsed = parser.parse_expr()?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return not_impl_err!("`{}` isn't expected after the expression", rest.token);
    }
    Ok(parsed)
}

fn plan(parsed: Sql, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    let options = ParserOptions::new().with_enable_ident_normalization(false);
    SqlToRel::new_with_options(&*FUNCTIONS, options).sql_to_expr(
        parsed,
        schema,
        &mut PlannerContext::new(),
    )
}

fn simplify(expr: Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    let schema = Arc::new(schema.clone());
    let context = SimplifyContext::builder()
        .with_schema(schema.clone())
        .build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(expr, &schema)?;
    simplifier.simplify(coerced)
}

fn refuse_unsuitable(expr: &Expr, sql: &str) -> Result<(), Problem> {
    let mut found = None;
    let mut growth = 1u64;
    let walked = expr.apply(|node| {
        growth = growth.saturating_mul(growth_of(node));
        found = match node {
            Expr::AggregateFunction(f) => Some(format!("the aggregate `{}`", f.func.name())),
            Expr::WindowFunction(_) => Some("a window function".to_owned()),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Some("a subquery".to_owned())
            }
            Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
                Some(format!(
                    "`{}`, which answers differently each time",
                    f.func.name()
                ))
            }
            Expr::ScalarVariable(..) | Expr::Placeholder(_) => Some("a variable".to_owned()),
            _ if growth > GROWTH_MAX => Some(format!(
                "a length, count or replacement that isn't written out, or makes text more than {GROWTH_MAX} times longer"
            )),
            _ => None,
        };
        Ok(if found.is_some() {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    });
    match (walked, found) {
        (Ok(_), None) => Ok(()),
        (_, what) => Err(Problem::user("invalid-expression", "the expression can't be used here")
            .detail(format!("`{sql}` uses {}", what.unwrap_or_default()))
            .hint("write a scalar expression over the row's own columns; aggregate with `aggregate:`")),
    }
}

/// How many times longer a call may make its text. What facts say must not decide how much memory
/// they take, so lengths and counts have to be literals, and what replaces a match too.
fn growth_of(node: &Expr) -> u64 {
    let Expr::ScalarFunction(call) = node else {
        return 1;
    };
    let at = match call.func.name() {
        "repeat" | "lpad" | "rpad" => 1,
        "replace" | "regexp_replace" => 2,
        _ => return 1,
    };
    let Some(Expr::Literal(literal, _)) = call.args.get(at) else {
        return u64::MAX;
    };
    match literal.try_as_str() {
        Some(text) => text.map_or(1, |text| text.len().max(1) as u64),
        None => match literal.cast_to(&arrow::datatypes::DataType::Int64) {
            Ok(ScalarValue::Int64(count)) => count.unwrap_or(1).max(1).unsigned_abs(),
            _ => u64::MAX,
        },
    }
}

fn invalid(sql: &str, columns: &[Field], scopes: &[&str], error: &DataFusionError) -> Problem {
    let problem = Problem::user("invalid-expression", "the expression is wrong");
    if let DataFusionError::SchemaError(schema_error, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } =
            schema_error.as_ref()
    {
        return unknown_name(problem, sql, columns, scopes, field);
    }
    if let Some(problem) = members::taken_apart(sql, error) {
        return problem;
    }
    let message = error.strip_backtrace();
    let first = message.lines().next().unwrap_or_default();
    problem.detail(format!("`{sql}`: {first}"))
}

/// A name that no column has, or several.
fn unknown_name(
    problem: Problem,
    sql: &str,
    columns: &[Field],
    scopes: &[&str],
    asked: &Column,
) -> Problem {
    let same = |index: &usize| *columns[*index].name == *asked.name;
    let scoped = |index: usize| format!("{}.{}", scopes[index], columns[index].name);
    let several = (0..scopes.len()).filter(same).map(scoped);
    let several: Vec<String> = several.collect();
    if asked.relation.is_none() && several.len() > 1 {
        return problem
            .detail(format!("`{sql}`: `{}` may be one of several", asked.name))
            .hint(format!("write {}", several.join(" or ")));
    }
    let (asked, names) = match asked.relation {
        Some(_) => (asked.flat_name(), (0..scopes.len()).map(scoped).collect()),
        None => {
            let names = columns.iter().map(|c| c.name.to_string());
            (asked.name.clone(), names.collect::<Vec<_>>())
        }
    };
    problem
        .detail(format!("`{sql}`: there is no column `{asked}`"))
        .hint(suggest(&asked, names.iter().map(String::as_str)))
}

/// The scalar functions of DataFusion, by name.
struct Functions {
    options: ConfigOptions,
    scalar: std::collections::BTreeMap<String, Arc<ScalarUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut scalar = std::collections::BTreeMap::new();
    for function in datafusion_functions::all_default_functions() {
        for alias in function.aliases() {
            scalar.insert(alias.clone(), function.clone());
        }
        scalar.insert(function.name().to_owned(), function);
    }
    Functions {
        options: ConfigOptions::default(),
        scalar,
        planners: vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(members::MemberPlanner),
        ],
    }
});

impl ContextProvider for Functions {
    fn get_table_source(
        &self,
        name: TableReference,
    ) -> Result<Arc<dyn TableSource>, DataFusionError> {
        not_impl_err!("there are no tables here, so no `{name}`")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<arrow::datatypes::DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
