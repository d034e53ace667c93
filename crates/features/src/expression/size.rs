//! How deep an expression may be, and how large it may become.
//!
//! Planning, simplifying and evaluating go down an expression by recursion, so one that is too deep would end the
//! process; and simplifying writes some parts out several times, which multiplies where they lie within each other.

use std::ops::ControlFlow;

use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::Expr;
use datafusion_expr::expr::Case;
use datafusion_sql::sqlparser::ast::{Expr as Sql, Query, Visit, Visitor};
use headwater_schema::Problem;

/// Levels of an expression. An operator of a chain is one, and takes 3 KiB of the stack in a debug build: a thread of
/// 2 MiB has some 700 of them.
pub const LEVELS_MAX: usize = 400;
/// Nodes of an expression once it is written out.
const NODES_MAX: f64 = 500_000.0;
/// Functions whose arguments but the last are tested, and given where the test holds.
const TESTING: [&str; 4] = ["coalesce", "nvl", "ifnull", "nvl2"];

/// Refuses an expression that is too deep, or holds a query, before anything goes down it.
pub fn refuse_deep(parsed: &Sql) -> Result<(), Problem> {
    match parsed.visit(&mut Levels(0)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(Found::Query) => Err(Problem::user(
            "invalid-expression",
            "the expression can't be used here",
        )
        .detail("it has a subquery")
        .hint("write a scalar expression over the row's own columns")),
        ControlFlow::Break(Found::Deep) => Err(too_large(format!(
            "it is more than {LEVELS_MAX} levels deep, where a chain such as a + b + c is as deep as it is long"
        ))),
    }
}

/// Refuses an expression that would become too large.
pub fn refuse_large(planned: &Expr) -> Result<(), Problem> {
    if nodes(planned) <= NODES_MAX {
        return Ok(());
    }
    Err(too_large(
        "what CASE, BETWEEN and coalesce test is written out several times, and here within itself"
            .to_owned(),
    ))
}

fn too_large(why: String) -> Problem {
    Problem::user("invalid-expression", "the expression is too large")
        .detail(why)
        .hint("let parts of it be features or outputs of their own, and name those")
}

enum Found {
    Deep,
    Query,
}

/// The levels above what is being visited.
struct Levels(usize);

impl Visitor for Levels {
    type Break = Found;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Found> {
        ControlFlow::Break(Found::Query)
    }

    fn pre_visit_expr(&mut self, node: &Sql) -> ControlFlow<Found> {
        self.0 += levels(node);
        match self.0 > LEVELS_MAX {
            true => ControlFlow::Break(Found::Deep),
            false => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, node: &Sql) -> ControlFlow<Found> {
        self.0 -= levels(node);
        ControlFlow::Continue(())
    }
}

/// The levels that a node is, by the stack that planning it takes.
fn levels(node: &Sql) -> usize {
    match node {
        Sql::Identifier(_) | Sql::Value(_) => 0,
        Sql::BinaryOp { .. } => 1,
        Sql::CompoundIdentifier(names) => names.len(),
        Sql::CompoundFieldAccess { access_chain, .. } => 3 * access_chain.len(),
        // Simplified, conditions are a chain.
        Sql::Case { conditions, .. } => 3 + conditions.len(),
        Sql::Function(_) => 6,
        _ => 3,
    }
}

/// The nodes that an expression may have once its parts are written out.
fn nodes(node: &Expr) -> f64 {
    let below = match node {
        Expr::Case(case) => {
            let tested = case.when_then_expr.iter().map(|(when, _)| nodes(when));
            let given = case.when_then_expr.iter().map(|(_, then)| then);
            let given = given.chain(&case.expr).chain(&case.else_expr);
            copies(case) * tested.sum::<f64>() + given.map(|e| nodes(e)).sum::<f64>()
        }
        Expr::Between(between) => {
            2.0 * nodes(&between.expr) + nodes(&between.low) + nodes(&between.high)
        }
        Expr::ScalarFunction(call) if TESTING.contains(&call.func.name()) => {
            let (last, tested) = match call.args.split_last() {
                Some((last, tested)) => (nodes(last), tested),
                None => (0.0, &[][..]),
            };
            4.0 * tested.iter().map(nodes).sum::<f64>() + last
        }
        _ => {
            let mut sum = 0.0;
            let walked = node.apply_children(|child| {
                sum += nodes(child);
                Ok(TreeNodeRecursion::Continue)
            });
            // It can't fail: nothing within it does.
            walked.map_or(f64::INFINITY, |_| sum)
        }
    };
    1.0 + below
}

/// How often each condition of a `CASE` may be written: few conditions, and those of literal bools, become a chain in
/// which each stands beside all that are before it.
fn copies(case: &Case) -> f64 {
    let conditions = case.when_then_expr.len();
    let literal = |then: &Expr| matches!(then, Expr::Literal(..));
    if conditions < 3 || case.when_then_expr.iter().all(|(_, then)| literal(then)) {
        1.0 + conditions as f64
    } else {
        1.0
    }
}
