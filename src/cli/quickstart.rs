//! `icecore quickstart`: a server, sample events, answers, and lines to paste into other engines.

use crate::{
    cli::{
        CliError,
        client::{ClientRequest, ServerClient, refused},
        counted, sample, say, serve,
        sql::{ask, table},
    },
    config::Config,
    server::Server,
};
use clap::Args;
use icecore_lake::{clock::Clock, ids::IdGenerator};
use icecore_schemas::tables::CommitReply;
use reqwest::{Method, header};
use tokio::time::Instant;

/// Events in one request.
const BATCH_EVENTS: u64 = 500;

/// `icecore quickstart`
#[derive(Debug, Args)]
pub struct QuickstartCommand {
    /// How many sample events are sent
    #[arg(long, default_value_t = 10_000)]
    events: u64,
    /// Stop when everything is shown
    #[arg(long)]
    exit: bool,
}

/// The three questions.
const QUESTIONS: [(&str, &str); 3] = [
    (
        "Events by type",
        "SELECT type, count(*) AS events, max(ts) AS newest FROM events GROUP BY type ORDER BY events DESC",
    ),
    (
        "Slowest calls",
        "SELECT method, count(*) AS calls, round(avg(duration_ms), 1) AS avg_ms, max(duration_ms) AS max_ms FROM events WHERE type = 'rpc.call' GROUP BY method ORDER BY avg_ms DESC",
    ),
    (
        "The history of one order",
        "SELECT seq, ts, op, after FROM events WHERE collection = 'orders' AND key = 'order-0-0' ORDER BY seq LIMIT 5",
    ),
];

/// Runs a server and the tour of it.
///
/// # Errors
/// [`CliError`].
pub async fn run(config: &Config, quickstart: &QuickstartCommand) -> Result<(), CliError> {
    let clock = Clock::system();
    let mut stop = serve::StopSignal::watch()?;
    serve::raise_open_files(config);
    let server = Server::start(config, clock.clone()).await?;
    let url = format!("http://{}", server.address());
    let served = async {
        tour(config, quickstart, &clock, &url).await?;
        if !quickstart.exit {
            say("Serving until Ctrl-C.")?;
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    // Cancel-safe: whoever stops the tour wants no more of it.
    let shown: Result<(), CliError> = tokio::select! {
        shown = served => shown,
        () = stop.received() => Ok(()),
    };
    server.stop().await;
    shown?;
    let folder = config.data_dir.display();
    say(&format!(
        "The events stay in {folder}. To continue: icecore serve --data-dir {folder}, and in another terminal: icecore sql --ns {} \"SELECT count(*) FROM events\"",
        sample::NAMESPACE
    ))
}

async fn tour(
    config: &Config,
    quickstart: &QuickstartCommand,
    clock: &Clock,
    url: &str,
) -> Result<(), CliError> {
    let client = ServerClient::new(config, Some(url));
    let half = quickstart.events / 2;
    let ids = IdGenerator::new(clock.clone());

    let started = Instant::now();
    send(&client, clock, &ids, 0..half).await?;
    let path = format!("/v1/{}/commit", sample::NAMESPACE);
    let commit: CommitReply = client.read(Method::POST, &path, None).await?;
    send(&client, clock, &ids, half..quickstart.events).await?;
    say(&format!(
        "{} sent to {url} and durable in {:.1} s\n",
        counted(quickstart.events, "event"),
        started.elapsed().as_secs_f64()
    ))?;

    for (title, sql) in QUESTIONS {
        show(&client, title, sql, None).await?;
    }
    let count = "SELECT count(*) AS events, max(seq) AS last_seq FROM events";
    show(&client, "Now, including what is not in a snapshot yet", count, None).await?;
    if let Some(snapshot) = commit.snapshots.get("events") {
        show(
            &client,
            "Time travel: the same at the first snapshot",
            count,
            Some(&snapshot.to_string()),
        )
        .await?;
    }
    client.done(Method::POST, &path, None).await?;
    say(&other_engines(url, &config.catalog_name))
}

async fn send(
    client: &ServerClient,
    clock: &Clock,
    ids: &IdGenerator,
    range: std::ops::Range<u64>,
) -> Result<(), CliError> {
    let mut from = range.start;
    while from < range.end {
        let until = range.end.min(from + BATCH_EVENTS);
        let mut body = String::new();
        for n in from..until {
            body.push_str(&sample::event(n, clock.now_ms(), ids).to_string());
            body.push('\n');
        }
        let headers = [(header::CONTENT_TYPE.as_str(), "application/x-ndjson".to_owned())];
        let call = ClientRequest {
            method: Method::POST,
            path: "/ingest",
            headers: &headers,
            body: body.into(),
        };
        let (status, bytes) = client.send_retrying(&call).await?;
        if status.as_u16() != 200 {
            return Err(refused(status, &bytes).into());
        }
        from = until;
    }
    Ok(())
}

async fn show(
    client: &ServerClient,
    title: &str,
    sql: &str,
    as_of: Option<&str>,
) -> Result<(), CliError> {
    let stream =
        ask(client, sample::NAMESPACE, sql, as_of, "application/vnd.apache.arrow.stream").await?;
    let at = as_of.map_or_else(String::new, |as_of| format!(" (as_of {as_of})"));
    say(&format!("{title}{at}\n  {sql}\n{}\n", table(&stream)?))
}

fn other_engines(url: &str, catalog: &str) -> String {
    format!(
        "The same table in other engines:

DuckDB
  INSTALL iceberg; LOAD iceberg;
  ATTACH '{catalog}' AS lake (TYPE ICEBERG, ENDPOINT '{url}/catalog', AUTHORIZATION_TYPE 'none');
  SELECT type, count(*) FROM lake.shop_example.events GROUP BY type;

PyIceberg
  from pyiceberg.catalog import load_catalog
  catalog = load_catalog('lake', type='rest', uri='{url}/catalog')
  catalog.load_table('shop_example.events').scan().to_arrow()

Spark
  spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-3.5_2.12:1.10.1 \\
    --conf spark.sql.catalog.lake=org.apache.iceberg.spark.SparkCatalog \\
    --conf spark.sql.catalog.lake.type=rest --conf spark.sql.catalog.lake.uri={url}/catalog
  SELECT type, count(*) FROM lake.shop_example.events GROUP BY type;
"
    )
}
