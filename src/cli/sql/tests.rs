use crate::cli::{
    CliError,
    sql::{Format, SqlCommand, check_output},
};

fn command(sql: Option<&str>, format: Format, output: Option<&str>) -> SqlCommand {
    SqlCommand {
        sql: sql.map(str::to_owned),
        ns: "default".to_owned(),
        as_of: None,
        format,
        output: output.map(Into::into),
        url: None,
    }
}

#[test]
fn bytes_are_not_written_to_a_terminal() {
    let check = |format, output, is_terminal, allowed: bool| {
        let checked = check_output(&command(Some("SELECT 1"), format, output), is_terminal);
        match checked {
            Ok(()) => assert!(allowed, "{format:?}"),
            Err(CliError::Usage(text)) => {
                assert!(!allowed, "{format:?}: {text}");
                assert!(text.contains("--output FILE"), "{text}");
            }
            Err(other) => unreachable!("{other}"),
        }
    };
    check(Format::Parquet, None, true, false);
    check(Format::Arrow, None, true, false);
    check(Format::Parquet, None, false, true);
    check(Format::Parquet, Some("x.parquet"), true, true);
    check(Format::Csv, None, true, true);
}

#[test]
fn a_prompt_has_no_output_file() {
    let problem = check_output(&command(None, Format::Csv, Some("x.csv")), true).unwrap_err();
    assert!(matches!(problem, CliError::Usage(_)), "{problem}");
}
