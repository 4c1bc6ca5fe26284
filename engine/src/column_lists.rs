//! Lists of names behind a table, as in `(SELECT …) AS q(a, b)` and `WITH q(a, b) AS (…)`.
//!
//! The planner reads the names that such columns had before as identifiers without quotes, and finds none
//! with capital letters, dots or quotes. Here they are columns, whatever their names.

use datafusion::{
    common::{Column, JoinConstraint, JoinType},
    error::DataFusionError,
    logical_expr::{
        Expr, LogicalPlan, LogicalPlanBuilder,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    sql::sqlparser::{
        ast::{Cte, Query, SetExpr, Statement, TableFactor, VisitMut, VisitorMut},
        dialect::GenericDialect,
        parser::Parser,
    },
};
use std::{collections::HashSet, convert::Infallible, mem, ops::ControlFlow};

/// Plans the tables that have a list.
#[derive(Debug)]
pub struct ListPlanner;

impl RelationPlanner for ListPlanner {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning, DataFusionError> {
        let alias = match &mut relation {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => alias.take_if(|alias| !alias.columns.is_empty()),
            _ => None,
        };
        let Some(mut alias) = alias else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let mut plan = context.plan(relation)?;
        let shared = shared_columns(&plan);
        if !shared.is_empty() {
            let columns = plan.schema().columns().into_iter();
            let kept = columns.filter(|column| !shared.contains(column)).map(Expr::Column);
            plan = LogicalPlanBuilder::from(plan).project(kept)?.build()?;
        }
        // Columns behind the last name keep theirs. Of more names the planner says what is wrong.
        if alias.columns.len() <= plan.schema().fields().len() {
            let mut given = mem::take(&mut alias.columns).into_iter();
            let columns: Vec<Expr> = plan
                .schema()
                .iter()
                .map(|column| {
                    let column = Expr::Column(Column::from(column));
                    match given.next() {
                        Some(given) => column.alias(context.normalize_ident(given.name)),
                        None => column,
                    }
                })
                .collect();
            plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        }
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, Some(alias)))))
    }
}

/// Columns on the right of a join that `USING` makes one with those on its left. Of RIGHT and FULL joins there
/// are none: [`crate::clauses`] refuses `USING` there.
fn shared_columns(plan: &LogicalPlan) -> HashSet<Column> {
    let LogicalPlan::Join(join) = plan else { return HashSet::new() };
    let mut shared = shared_columns(&join.left);
    shared.extend(shared_columns(&join.right));
    if join.join_constraint == JoinConstraint::Using
        && matches!(join.join_type, JoinType::Inner | JoinType::Left)
    {
        let keys = join.on.iter().flat_map(|(one, other)| [one, other]);
        let columns = keys.filter_map(Expr::get_as_join_column);
        shared.extend(columns.filter(|column| join.right.schema().has_column(column)).cloned());
    }
    shared
}

/// Writes the lists of common table expressions as those of tables in them, which [`ListPlanner`] plans:
/// `q AS (SELECT * FROM (…) AS q(a, b))`.
pub fn move_into_queries(statement: &mut Statement) {
    let ControlFlow::Continue(()) = VisitMut::visit(statement, &mut ListVisitor);
}

struct ListVisitor;

impl VisitorMut for ListVisitor {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let tables = query.with.iter_mut().flat_map(|with| with.cte_tables.iter_mut());
        tables.filter(|cte| !cte.alias.columns.is_empty()).for_each(move_into_query);
        ControlFlow::Continue(())
    }
}

fn move_into_query(cte: &mut Cte) {
    let mut outer = Parser::new(&GenericDialect {})
        .try_with_sql("SELECT * FROM (SELECT 1) AS q")
        .and_then(|mut parser| parser.parse_query())
        .expect("the text is SQL");
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(table) = select.from.first_mut()
        && let TableFactor::Derived { subquery, alias, .. } = &mut table.relation
    {
        *alias = Some(cte.alias.clone());
        cte.alias.columns.clear();
        mem::swap(subquery, &mut cte.query);
        cte.query = outer;
    }
}
