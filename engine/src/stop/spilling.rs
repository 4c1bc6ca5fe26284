//! Which operators put on disk what does not fit into memory.
//!
//! Some of DataFusion 54.1 answer wrongly once they do, or never: joins without a key lose and repeat rows
//! (apache/datafusion#22641, #24676, #24745), and so do merge joins (#24056), a group by one column of a nested type
//! has groups twice (#24889), and two inputs of one repartition wait for each other (#24883). These fail instead, as
//! all of them do where there is no disk.

use arrow::datatypes::DataType;
use datafusion::{
    error::DataFusionError,
    execution::{
        TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
        session_state::SessionState,
    },
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        joins::{NestedLoopJoinExec, SortMergeJoinExec},
        repartition::RepartitionExec,
    },
};
use std::sync::Arc;

/// What operators run in: with a disk, and without one.
#[derive(Debug)]
pub struct TaskContexts {
    spilling: Arc<TaskContext>,
    in_memory: Arc<TaskContext>,
}

impl TaskContexts {
    /// Those of a session.
    ///
    /// # Errors
    /// Never: what they are made of is there.
    pub fn of(state: &SessionState) -> Result<Self, DataFusionError> {
        let spilling = state.task_ctx();
        let runtime = spilling.runtime_env();
        if !runtime.disk_manager.tmp_files_enabled() {
            return Ok(Self { in_memory: Arc::clone(&spilling), spilling });
        }
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::from_runtime_env(&runtime);
        let runtime = runtime.with_disk_manager_builder(disk).build_arc()?;
        let in_memory = Arc::new(TaskContext::from(state).with_runtime(runtime));
        Ok(Self { spilling, in_memory })
    }

    /// That of an operator.
    #[must_use]
    pub fn of_operator(&self, operator: &dyn ExecutionPlan) -> &Arc<TaskContext> {
        if may_spill(operator) { &self.spilling } else { &self.in_memory }
    }
}

fn may_spill(operator: &dyn ExecutionPlan) -> bool {
    if let Some(repartition) = operator.downcast_ref::<RepartitionExec>() {
        let inputs = repartition.input().properties().partitioning.partition_count();
        return repartition.preserve_order() || inputs < 2;
    }
    if let Some(aggregate) = operator.downcast_ref::<AggregateExec>() {
        let schema = operator.schema();
        // The groups come first.
        return aggregate.group_expr().expr().len() != 1 || is_plain(schema.field(0).data_type());
    }
    operator.downcast_ref::<NestedLoopJoinExec>().is_none()
        && operator.downcast_ref::<SortMergeJoinExec>().is_none()
}

/// Whether groups of one column of this type are told apart one row after the other.
fn is_plain(kind: &DataType) -> bool {
    kind.is_primitive()
        || matches!(
            kind,
            DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::{
        common::tree_node::{TreeNode, TreeNodeRecursion},
        execution::runtime_env::RuntimeEnv,
        prelude::{SessionConfig, SessionContext},
    };

    /// The operators of a statement that have no disk, by their names.
    async fn without_disk(runtime: RuntimeEnv, sql: &str) -> Vec<String> {
        let config = SessionConfig::new().with_target_partitions(2);
        let context = SessionContext::new_with_config_rt(config, Arc::new(runtime));
        let contexts = TaskContexts::of(&context.state()).unwrap();
        let table = "CREATE TABLE t AS SELECT value AS k, [value] AS l FROM range(30000)";
        context.sql(table).await.unwrap().collect().await.unwrap();
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let mut names = Vec::new();
        let walked = plan.apply(|node| {
            let runs_in = contexts.of_operator(node.as_ref()).runtime_env();
            if !runs_in.disk_manager.tmp_files_enabled() {
                names.push(node.name().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.unwrap();
        names
    }

    #[tokio::test]
    async fn operators_that_would_answer_wrongly_have_no_disk() {
        for (sql, wanted) in [
            ("SELECT a.k FROM t a LEFT JOIN t b ON a.k > b.k ORDER BY 1", "NestedLoopJoinExec"),
            ("SELECT l, count(*) FROM t GROUP BY l", "AggregateExec"),
        ] {
            let found = without_disk(RuntimeEnv::default(), sql).await;
            assert!(found.iter().any(|name| name == wanted), "{sql}: {found:?}");
            assert!(found.iter().all(|name| name != "SortExec"), "{sql}: {found:?}");
        }
        let sql = "SELECT k, count(*) FROM t GROUP BY k ORDER BY k";
        let found = without_disk(RuntimeEnv::default(), sql).await;
        assert!(found.iter().all(|name| name == "RepartitionExec"), "{found:?}");
    }

    #[tokio::test]
    async fn without_a_disk_no_operator_has_one() {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk).build().unwrap();
        let found = without_disk(runtime, "SELECT k FROM t ORDER BY k").await;
        assert!(found.iter().any(|name| name == "SortExec"), "{found:?}");
    }
}
