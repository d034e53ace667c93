//! A query's plan: the tables and functions that it may name, the guard, and nothing that isn't read.

use std::sync::Arc;

use arrow::array::temporal_conversions::as_datetime;
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::SessionConfig;
use headwater_schema::Problem;

use super::as_of::{AS_OF, FeaturesAsOf};
use super::distinct::remembering;
use super::problem::query_problem;
use super::sized::sized;
use super::tables::{CATALOG, DEFAULT_SCHEMA, Tables};
use super::utc::in_utc;
use super::{Query, QueryOptions, Snapshot, guard};

/// The plan of a query, where it is one that reads.
pub async fn plan(
    state: &SessionState,
    snapshot: &Snapshot,
    query: &Query,
) -> Result<LogicalPlan, Problem> {
    let statement = guard::parse(state, &query.sql)?;
    guard::check_tables(state, &statement, snapshot)?;
    let plan = state.statement_to_plan(statement).await;
    let plan = plan.map_err(|e| query_problem(&e))?;
    guard::check_plan(&plan)?;
    let rows = !matches!(
        plan,
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)
    );
    match query.limit.filter(|_| rows) {
        Some(limit) => {
            let limited = LogicalPlanBuilder::from(plan).limit(0, Some(limit));
            let limited = limited.and_then(LogicalPlanBuilder::build);
            limited.map_err(|e| query_problem(&e))
        }
        None => Ok(plan),
    }
}

/// What a query is planned and run in: its tables and functions, and no way to anything else.
pub fn session(
    options: &QueryOptions,
    environment: &RuntimeEnv,
    snapshot: &Arc<Snapshot>,
) -> Result<SessionState, Problem> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(options.threads());
    let settings = config.options_mut();
    settings.sql_parser.enable_ident_normalization = false;
    settings.sql_parser.collect_spans = true;
    settings.execution.time_zone = Some("UTC".into());
    let archive = snapshot.facts.archive();
    let archive = archive.map(|archive| archive.store().objects());
    let environment = RuntimeEnvBuilder::from_runtime_env(environment)
        .with_object_store_registry(Arc::new(guard::OnlyArchive(archive.transpose()?)))
        .build_arc()
        .map_err(|e| query_problem(&e))?;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(environment)
        .with_default_features()
        .build();
    // What `now()` is, for the whole query.
    state.mark_start_execution();
    let now = as_datetime::<TimestampMicrosecondType>(snapshot.env.clock.now());
    state.execution_props_mut().query_execution_start_time = now.map(|now| now.and_utc());
    let own: Vec<_> = state
        .scalar_functions()
        .values()
        .filter_map(|function| sized(function).or_else(|| in_utc(function)))
        .collect();
    for function in own {
        // It takes the place of the one of the same name.
        let _ = state.register_udf(Arc::new(function));
    }
    let counting: Vec<_> = state
        .aggregate_functions()
        .values()
        .filter_map(remembering)
        .collect();
    for function in counting {
        let _ = state.register_udaf(Arc::new(function));
    }
    let features = Arc::new(FeaturesAsOf(snapshot.clone()));
    state.register_udtf(AS_OF, features);
    let tables = Arc::new(Tables(snapshot.clone()));
    state
        .catalog_list()
        .register_catalog(CATALOG.into(), tables);
    Ok(state)
}
