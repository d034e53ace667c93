//! What a query may be: one statement that reads, of tables that there are, and not too large to plan.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::config::Dialect;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use headwater_schema::Problem;
use headwater_schema::contract::nearest;

use super::archive_scan::ARCHIVE_SCHEME;
use super::problem::query_problem;
use super::tables::{CATALOG, DEFAULT_SCHEMA, Kind, names};
use super::{QueryOptions, Snapshot};

/// Operators and set operations of one query. Plans grow as deep as their chains are long.
const OPERATORS_MAX: usize = 1000;
/// Joins of one query.
const JOINS_MAX: usize = 64;
/// Names that an error lists.
const LISTED_MAX: usize = 50;

/// Refuses text that is too long or would make too large a plan.
pub fn check_text(sql: &str, options: &QueryOptions) -> Result<(), Problem> {
    let too_large = |what: String, hint: &str| {
        Problem::user("query-too-large", "the query is too large")
            .field("sql")
            .detail(what)
            .hint(hint)
    };
    let max = options.sql_bytes_max;
    if sql.len() > max {
        let what = format!("its text has {} bytes of at most {max}", sql.len());
        return Err(too_large(
            what,
            "shorten it, or raise `query.sql_bytes_max`",
        ));
    }
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else {
        // The parser says where.
        return Ok(());
    };
    let (mut operators, mut joins) = (0, 0);
    for token in &tokens {
        match token {
            Token::Word(word) => match word.keyword {
                Keyword::JOIN => joins += 1,
                Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::UNION => operators += 1,
                Keyword::EXCEPT | Keyword::INTERSECT | Keyword::IS => operators += 1,
                Keyword::LIKE | Keyword::ILIKE | Keyword::AT | Keyword::COLLATE => operators += 1,
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Comma
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::LParen
            | Token::RParen => {}
            _ => operators += 1,
        }
    }
    if operators > OPERATORS_MAX {
        let what = format!("it has {operators} operators of at most {OPERATORS_MAX}");
        return Err(too_large(what, "use IN with a list, or several queries"));
    }
    if joins > JOINS_MAX {
        let what = format!("it has {joins} joins of at most {JOINS_MAX}");
        return Err(too_large(what, "ask in several queries"));
    }
    Ok(())
}

/// The one statement that a text is, where it reads.
pub fn parse(state: &SessionState, sql: &str) -> Result<Statement, Problem> {
    if sql.trim().is_empty() {
        return Err(Problem::user("invalid-query", "there is no query")
            .field("sql")
            .hint("write a SELECT; SHOW TABLES lists the tables"));
    }
    let parsed = state.sql_to_statement(sql, &Dialect::Generic);
    let statement = parsed.map_err(|e| query_problem(&e))?;
    match reads(&statement) {
        true => Ok(statement),
        false => {
            let text = statement.to_string();
            let verb = text.split_whitespace().next().unwrap_or_default();
            Err(read_only(&verb.to_uppercase()))
        }
    }
}

fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(sql) => match sql.as_ref() {
            Sql::Query(_)
            | Sql::ExplainTable { .. }
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowFunctions { .. } => true,
            Sql::Explain { statement, .. } => matches!(statement.as_ref(), Sql::Query(_)),
            _ => false,
        },
        Statement::Explain(explain) => reads(&explain.statement),
        _ => false,
    }
}

fn read_only(verb: &str) -> Problem {
    Problem::user("read-only", "queries only read")
        .field("sql")
        .detail(format!("{verb} does something else"))
        .hint("write SELECT, EXPLAIN, SHOW TABLES or DESCRIBE; facts are sent to /v1/facts/{contract}")
}

/// Refuses tables that there aren't, and says which there are.
pub fn check_tables(
    state: &SessionState,
    statement: &Statement,
    snapshot: &Snapshot,
) -> Result<(), Problem> {
    let tables = state.resolve_table_references(statement);
    for table in tables.map_err(|e| query_problem(&e))? {
        let asked = table.clone().resolve(CATALOG, DEFAULT_SCHEMA);
        let function = matches!(table, TableReference::Bare { .. })
            && state.table_functions().contains_key(&*asked.table);
        let known = match Kind::named(&asked.schema) {
            _ if function || &*asked.schema == "information_schema" => true,
            Some(kind) => names(snapshot, kind)
                .iter()
                .any(|name| **name == *asked.table),
            None => false,
        };
        if &*asked.catalog != CATALOG || !known {
            return Err(unknown(&table, snapshot));
        }
    }
    Ok(())
}

fn unknown(asked: &TableReference, snapshot: &Snapshot) -> Problem {
    let named = |kind: Kind| {
        let all = names(snapshot, kind).into_iter();
        all.map(move |name| match kind {
            Kind::Facts => name,
            kind => format!("{}.{name}", kind.as_str()),
        })
    };
    let all: Vec<String> = Kind::ALL.into_iter().flat_map(named).collect();
    let text = asked.to_string();
    let file = text.contains('/') || text.contains("://") || text.ends_with(".parquet");
    let hint = match nearest(&text, all.iter().map(String::as_str)) {
        _ if file => "queries read what is stored here, and no files".to_owned(),
        Some(near) => format!("did you mean `{near}`? SHOW TABLES lists all"),
        None => {
            let listed = all.iter().take(LISTED_MAX).map(String::as_str);
            let listed: Vec<&str> = listed.collect();
            let more = if all.len() > LISTED_MAX { ", …" } else { "" };
            format!("there are: {}{more}", listed.join(", "))
        }
    };
    Problem::user("unknown-table", format!("there is no table `{text}`"))
        .field("sql")
        .hint(hint)
}

/// Refuses a plan that does anything but read.
pub fn check_plan(plan: &LogicalPlan) -> Result<(), Problem> {
    let only_read = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    only_read
        .verify_plan(plan)
        .map_err(|_| read_only("the statement"))
}

/// Finds the archive alone: whatever isn't given to a query by name can't be read by it.
#[derive(Debug)]
pub struct OnlyArchive(pub Option<Arc<dyn object_store::ObjectStore>>);

impl datafusion::execution::object_store::ObjectStoreRegistry for OnlyArchive {
    fn register_store(
        &self,
        _: &url::Url,
        _: Arc<dyn object_store::ObjectStore>,
    ) -> Option<Arc<dyn object_store::ObjectStore>> {
        None
    }

    fn get_store(
        &self,
        url: &url::Url,
    ) -> datafusion::common::Result<Arc<dyn object_store::ObjectStore>> {
        match &self.0 {
            Some(store) if url.scheme() == ARCHIVE_SCHEME => Ok(store.clone()),
            _ => {
                datafusion::common::plan_err!("queries read what is stored here, and no files")
            }
        }
    }
}
