//! The prompt: reads statements and commands from a terminal until its end. What fails is printed, and
//! the prompt goes on.

use crate::{
    cli::{
        CliError, admin,
        client::ServerClient,
        complain, remark, say,
        sql::{
            PrintFormat, SqlCommand,
            completion::PromptNames,
            meta_command::{self, MetaCommand},
            pointer, print_answer,
            screen::{self, ScreenStyle},
            script::{self, SqlScript},
            text::printable,
        },
    },
    config::environment::user_folder,
};
use rustyline::{
    CompletionType, Config, Editor, config::Builder, error::ReadlineError, history::DefaultHistory,
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tokio::time::Instant;

/// Statements that are kept for the next prompt.
const HISTORY_MAX: usize = 1_000;

/// What a prompt remembers between two statements.
struct SqlPrompt<'a> {
    client: &'a ServerClient,
    /// With the namespace that statements go to now.
    command: SqlCommand,
    style: ScreenStyle,
    editor: Editor<PromptNames, DefaultHistory>,
    /// None for a user without a folder: then nothing is kept.
    history: Option<PathBuf>,
}

/// Runs the prompt until its end.
///
/// # Errors
/// [`CliError::Io`] of the terminal.
pub(super) async fn run(client: &ServerClient, command: &SqlCommand) -> Result<(), CliError> {
    let mut prompt = SqlPrompt::open(client, command)?;
    remark(&format!("icecore {}; \\? for help, \\q to leave", env!("CARGO_PKG_VERSION")));
    // Where there is no such namespace or no server, a person wants to know it now.
    if let Err(problem) = prompt.learn_names().await {
        tell(problem, "");
    }
    let mut typed = String::new();
    // What a person begins with a blank is kept nowhere, whatever its further lines begin with.
    let mut is_kept = true;
    loop {
        let line = match prompt.line(&typed) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(problem) => return Err(terminal(problem)),
        };
        if typed.is_empty() {
            is_kept = !line.starts_with(char::is_whitespace);
            match meta_command::parse(&line) {
                Ok(None) => (),
                Ok(Some(MetaCommand::Quit)) => return Ok(()),
                Ok(Some(meta)) => {
                    prompt.remember(&line);
                    prompt.obey(meta).await?;
                    continue;
                }
                Err(text) => {
                    prompt.remember(&line);
                    complain(&CliError::Usage(printable(&text)));
                    continue;
                }
            }
        }
        typed.push_str(&line);
        let SqlScript { statements, mut rest } = script::split(&typed);
        if is_kept && !statements.is_empty() {
            prompt.remember(&typed);
        }
        for sql in &statements {
            // Who ends one statement wants no further one, nor the beginning of one.
            if !prompt.statement(sql, prompt.style).await {
                rest.clear();
                break;
            }
        }
        typed = rest;
        if !typed.is_empty() {
            typed.push('\n');
        }
    }
}

impl<'a> SqlPrompt<'a> {
    fn open(client: &'a ServerClient, command: &SqlCommand) -> Result<Self, CliError> {
        let config = editor_config().map_err(terminal)?;
        let mut editor: Editor<PromptNames, DefaultHistory> =
            Editor::with_config(config).map_err(terminal)?;
        editor.set_helper(Some(PromptNames::default()));
        let history = user_folder().map(|folder| folder.join("sql-history"));
        if let Some(file) = &history {
            // The history is a convenience: without it the prompt works all the same.
            let _ = make_folder_of(file);
            let _ = editor.load_history(file);
        }
        let style = ScreenStyle::default();
        Ok(Self { client, command: command.clone(), style, editor, history })
    }

    /// The next line. It waits for a person; nothing else runs in this process.
    fn line(&mut self, earlier: &str) -> Result<String, ReadlineError> {
        if let Some(helper) = self.editor.helper_mut() {
            helper.earlier.clear();
            helper.earlier.push_str(earlier);
        }
        let name = format!("{}> ", printable(&self.command.ns));
        let dots = format!("{:>width$}", "...> ", width = name.chars().count());
        self.editor.readline(if earlier.is_empty() { &name } else { &dots })
    }

    /// Keeps what was typed, in the file at once: another prompt may be open, and this one may be killed.
    fn remember(&mut self, typed: &str) {
        // As above: a lost line of history is no reason to stop.
        let _ = self.editor.add_history_entry(typed.trim_end());
        if let Some(file) = &self.history {
            let _ = self.editor.append_history(file);
        }
    }

    /// Asks for the names that completion offers in the namespace of now.
    async fn learn_names(&mut self) -> Result<(), CliError> {
        let learned = PromptNames::of(self.client, &self.command.ns);
        if let Some(helper) = screen::unless_interrupted(Box::pin(learned)).await {
            self.editor.set_helper(Some(helper?));
        }
        Ok(())
    }

    /// Does what a command says.
    async fn obey(&mut self, meta: MetaCommand) -> Result<(), CliError> {
        match meta {
            // The caller ends.
            MetaCommand::Quit => (),
            MetaCommand::Help => say(meta_command::HELP)?,
            MetaCommand::Expanded => {
                self.style.is_expanded = !self.style.is_expanded;
                let shown = if self.style.is_expanded { "blocks of lines" } else { "a table" };
                remark(&format!("rows are shown as {shown}"));
            }
            MetaCommand::Timing => {
                self.style.hides_time = !self.style.hides_time;
                let shown = if self.style.hides_time { "hidden" } else { "shown" };
                remark(&format!("the time of statements is {shown}"));
            }
            MetaCommand::Tables => {
                self.statement("SHOW TABLES", self.list_style()).await;
            }
            MetaCommand::Columns(table) => {
                self.statement(&format!("DESCRIBE {table}"), self.list_style()).await;
            }
            MetaCommand::Namespaces => self.list_namespaces().await?,
            MetaCommand::Namespace(name) => self.go_to(name).await,
        }
        Ok(())
    }

    async fn list_namespaces(&self) -> Result<(), CliError> {
        let listed = admin::namespace_names(self.client);
        match screen::unless_interrupted(Box::pin(listed)).await {
            Some(Ok(names)) => {
                let names = names.iter().map(|name| printable(name));
                say(&names.collect::<Vec<_>>().join("\n"))?;
            }
            Some(Err(problem)) => tell(problem, ""),
            None => (),
        }
        Ok(())
    }

    /// Goes on in another namespace, unless a statement there would fail.
    async fn go_to(&mut self, namespace: String) {
        let before = std::mem::replace(&mut self.command.ns, namespace);
        if let Err(problem) = self.learn_names().await {
            tell(problem, "");
            self.command.ns = before;
        }
    }

    /// How a list is shown that a person wants whole.
    fn list_style(&self) -> ScreenStyle {
        ScreenStyle { is_list: true, ..self.style }
    }

    /// Runs a statement and prints its answer or error; false when Ctrl-C ended it.
    async fn statement(&self, sql: &str, style: ScreenStyle) -> bool {
        let started = Instant::now();
        let (client, command) = (self.client, &self.command);
        let screen_width = screen::width().filter(|_| command.format() == PrintFormat::Table);
        let printed = async {
            let Some(width) = screen_width else {
                print_answer(client, command, sql).await?;
                if !style.hides_time {
                    remark(&format!("({} ms)", started.elapsed().as_millis()));
                }
                return Ok::<(), CliError>(());
            };
            screen::show(client, command, sql, style, width).await
        };
        let ended = screen::unless_interrupted(Box::pin(printed)).await;
        let is_whole = ended.is_some();
        if let Some(Err(problem)) = ended {
            tell(problem, sql);
        }
        is_whole
    }
}

/// Prints why a statement failed.
fn tell(problem: CliError, sql: &str) {
    complain(&pointer::pointed(problem, sql));
}

fn editor_config() -> Result<Config, ReadlineError> {
    let builder: Builder = Config::builder()
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_MAX)?;
    Ok(builder.build())
}

/// Makes the folder that a file of the user is in, for that user alone.
fn make_folder_of(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn terminal(problem: ReadlineError) -> CliError {
    CliError::Io {
        operation: "read from the terminal".to_owned(),
        source: std::io::Error::other(problem),
    }
}
