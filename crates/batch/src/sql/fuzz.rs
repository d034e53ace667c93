//! The guard, for fuzzing: whether a text is taken as a query, held to what it may be. Behind the feature `fuzz`.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{Statement as Sql, Visit, Visitor};
use headwater_schema::Problem;

use super::planned::{plan, session};
use super::{Query, QueryOptions, Snapshot, guard};

/// Plans texts and runs none.
pub struct Guarded {
    options: QueryOptions,
    snapshot: Arc<Snapshot>,
    state: SessionState,
}

/// Finds a statement that does more than read, however deep.
struct Writes;

impl Visitor for Writes {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Sql) -> ControlFlow<()> {
        let reads = matches!(
            statement,
            Sql::Query(_)
                | Sql::Explain { .. }
                | Sql::ExplainTable { .. }
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowFunctions { .. }
        );
        match reads {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

impl Guarded {
    pub fn new(snapshot: Snapshot) -> Result<Self, Problem> {
        let (options, snapshot) = (QueryOptions::default(), Arc::new(snapshot));
        let state = session(&options, &RuntimeEnv::default(), &snapshot)?;
        Ok(Self {
            options,
            snapshot,
            state,
        })
    }

    /// Whether a text is taken. Panics where what is taken would do more than read.
    pub async fn takes(&self, sql: &str) -> bool {
        let query = Query {
            sql: sql.to_owned(),
            limit: None,
        };
        if guard::check_text(sql, &self.options).is_err() {
            return false;
        }
        let Ok(plan) = plan(&self.state, &self.snapshot, &query).await else {
            return false;
        };
        assert!(only_reads(&plan), "the plan of `{sql}` writes:\n{plan}");
        assert!(says_no_write(sql), "`{sql}` is taken and writes");
        true
    }
}

fn only_reads(plan: &LogicalPlan) -> bool {
    let mut reads = true;
    let visited = plan.apply_with_subqueries(|node| {
        reads &= !matches!(
            node,
            LogicalPlan::Dml(_)
                | LogicalPlan::Ddl(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Statement(_)
        );
        Ok(TreeNodeRecursion::Continue)
    });
    reads && visited.is_ok()
}

fn says_no_write(sql: &str) -> bool {
    let Ok(statements) = DFParser::parse_sql(sql) else {
        return false;
    };
    statements.iter().all(|statement| {
        let mut statement = statement;
        while let Statement::Explain(explain) = statement {
            statement = &explain.statement;
        }
        match statement {
            Statement::Statement(sql) => sql.visit(&mut Writes).is_continue(),
            _ => false,
        }
    })
}
