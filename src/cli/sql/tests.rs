use crate::cli::{
    CliError,
    sql::{PrintFormat, SqlCommand, check_output},
};

fn command(sql: Option<&str>, format: PrintFormat, output: Option<&str>) -> SqlCommand {
    SqlCommand {
        sql: sql.map(str::to_owned),
        command: None,
        file: None,
        keep_going: false,
        ns: "default".to_owned(),
        as_of: None,
        format: Some(format),
        output: output.map(Into::into),
        url: None,
    }
}

#[test]
fn bytes_are_not_written_to_a_terminal() {
    let check = |format, output, is_terminal, allowed: bool| {
        let checked = check_output(&command(Some("SELECT 1"), format, output), 1, is_terminal);
        match checked {
            Ok(()) => assert!(allowed, "{format:?}"),
            Err(CliError::Usage(text)) => {
                assert!(!allowed, "{format:?}: {text}");
                assert!(text.contains("--output FILE"), "{text}");
            }
            Err(other) => unreachable!("{other}"),
        }
    };
    check(PrintFormat::Parquet, None, true, false);
    check(PrintFormat::Arrow, None, true, false);
    check(PrintFormat::Parquet, None, false, true);
    check(PrintFormat::Parquet, Some("x.parquet"), true, true);
    check(PrintFormat::Csv, None, true, true);
}

#[test]
fn a_file_takes_one_answer() {
    let check = |format, output, statements, expected: Option<&str>| {
        let checked = check_output(&command(None, format, output), statements, false);
        match (checked, expected) {
            (Ok(()), None) => (),
            (Err(CliError::Usage(text)), Some(expected)) => assert_eq!(text, expected),
            (other, _) => unreachable!("{other:?}"),
        }
    };
    let one = "--output takes the result of one statement, but there are";
    check(PrintFormat::Csv, Some("x.csv"), 0, Some(&format!("{one} 0")));
    check(PrintFormat::Csv, Some("x.csv"), 2, Some(&format!("{one} 2")));
    check(PrintFormat::Csv, Some("x.csv"), 1, None);
    check(PrintFormat::Csv, None, 2, None);
    let holds = "this format holds the result of one statement, but there are 2";
    check(PrintFormat::Arrow, None, 2, Some(holds));
    let plain = "would not be compressed: redirect stdout, as in --format csv | gzip > FILE";
    for file in ["x.csv.gz", "x.csv.GZ", "x.Zst"] {
        check(PrintFormat::Csv, Some(file), 1, Some(&format!("`{file}` {plain}")));
    }
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("x.gz");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    check(PrintFormat::Csv, device.to_str(), 1, None);
}

#[test]
fn a_file_of_an_answer_has_the_format_that_its_ending_says() {
    let check = |format: Option<PrintFormat>, output, expected| {
        let command = SqlCommand { format, ..command(None, PrintFormat::Table, output) };
        assert_eq!(command.format(), expected, "{output:?}");
    };
    check(None, Some("x.parquet"), PrintFormat::Parquet);
    check(None, Some("x.jsonl"), PrintFormat::Ndjson);
    check(None, Some("x.txt"), PrintFormat::Table);
    check(None, None, PrintFormat::Table);
    check(Some(PrintFormat::Csv), Some("x.parquet"), PrintFormat::Csv);
}
