//! Views. They are made and changed by commits, as tables are, and their rows lie among theirs.

use super::{Levels, Metastore, NameKind, ObjectKey, TableRow, database::RowLock, outbox, tables};
use crate::error::CatalogError;

impl Metastore {
    /// A view's row, or none. Views are made and changed by commits, as tables are.
    pub(crate) async fn view(
        &self,
        levels: &Levels,
        name: &str,
    ) -> Result<Option<TableRow>, CatalogError> {
        let key = ObjectKey { levels, name };
        tables::by_name(&mut *self.reader().await?, NameKind::View, key, RowLock::None).await
    }

    /// Removes a view and gives back its row; `NoSuchView`.
    pub(crate) async fn drop_view(
        &self,
        levels: &Levels,
        name: &str,
    ) -> Result<TableRow, CatalogError> {
        let key = ObjectKey { levels, name };
        let mut tx = self.begin_change().await?;
        let row = tables::drop(&mut tx, NameKind::View, key).await?;
        self.end(tx, "drop a view", outbox::dropped_view(key, &row)).await?;
        Ok(row)
    }

    /// Renames a view; `NoSuchView`, `NoSuchNamespace` for the target's, `AlreadyExists`.
    pub(crate) async fn rename_view(
        &self,
        from: ObjectKey<'_>,
        to: ObjectKey<'_>,
    ) -> Result<(), CatalogError> {
        let mut tx = self.begin_change().await?;
        let row = tables::rename(&mut tx, NameKind::View, from, to).await?;
        self.end(tx, "rename a view", outbox::renamed(NameKind::View, from, to, &row)).await
    }
}
