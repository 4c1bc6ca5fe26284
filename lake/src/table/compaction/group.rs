//! One group of files: its row groups are copied where that holds, and its rows are merged elsewhere.

use crate::{
    ids::IdGenerator,
    table::compaction::{
        copy::FileCopy,
        foreign::ForeignRewrite,
        rewrite::{FileRewrite, RewriteError, RewriteInput, RewrittenFiles},
    },
};

/// The work on one group, in the way that is right for it.
#[derive(Debug)]
pub enum GroupRewrite<'a> {
    /// Row groups are copied.
    Copied(Box<FileCopy<'a>>),
    /// Rows are decoded, merged and encoded.
    Merged(Box<FileRewrite<'a>>),
    /// Rows of another engine's files are written one file after the other.
    Foreign(Box<ForeignRewrite<'a>>),
}

impl<'a> GroupRewrite<'a> {
    /// Opens the files, and decides by what they are.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn open(input: RewriteInput<'a>, ids: &'a IdGenerator) -> Result<Self, RewriteError> {
        let reason = match Box::pin(FileCopy::open(input, ids)).await? {
            Ok(copy) => return Ok(Self::Copied(Box::new(copy))),
            Err(reason) => reason,
        };
        let rewrite = Box::pin(FileRewrite::open(input, ids)).await?;
        Ok(Self::Merged(Box::new(rewrite.not_copied(reason))))
    }

    /// The same of files of another engine's table.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn open_foreign(
        input: RewriteInput<'a>,
        ids: &'a IdGenerator,
    ) -> Result<Self, RewriteError> {
        Ok(Self::Foreign(Box::new(Box::pin(ForeignRewrite::open(input, ids)).await?)))
    }

    /// The files that it takes, and what is left of them; nothing is written yet.
    #[must_use]
    pub fn planned(&self) -> &RewrittenFiles {
        match self {
            Self::Copied(copy) => copy.planned(),
            Self::Merged(rewrite) => rewrite.planned(),
            Self::Foreign(rewrite) => rewrite.planned(),
        }
    }

    /// Goes on with a file or some thousand rows; whether there were any. After an error only
    /// [`GroupRewrite::abandon`] is left.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub async fn step(&mut self) -> Result<bool, RewriteError> {
        match self {
            Self::Copied(copy) => copy.step().await,
            Self::Merged(rewrite) => rewrite.step().await,
            Self::Foreign(rewrite) => rewrite.step().await,
        }
    }

    /// Ends the last file; what was written is durable.
    ///
    /// # Errors
    /// [`RewriteError`]; what was written is deleted then.
    pub async fn finish(self) -> Result<RewrittenFiles, RewriteError> {
        match self {
            Self::Copied(copy) => copy.finish().await,
            Self::Merged(rewrite) => rewrite.finish().await,
            Self::Foreign(rewrite) => rewrite.finish().await,
        }
    }

    /// Deletes what was written; a copy stores nothing before its end.
    pub async fn abandon(self) {
        match self {
            Self::Copied(_) => (),
            Self::Merged(rewrite) => rewrite.abandon().await,
            Self::Foreign(rewrite) => rewrite.abandon().await,
        }
    }
}
