-- Statements of users of the earlier files of events, letter by letter, each under a name. `B1` and `B2` are bookmarks.
-- history of a document
SELECT ts, type, docId, doc, prev, bookmark FROM read_json_auto('r2://events/2026/**/*.jsonl')
WHERE collection = 'users' AND docId = 'user-0-1' ORDER BY ts ASC;
-- changes between two bookmarks
SELECT * FROM read_json_auto('r2://events/2026/**/*.jsonl') WHERE bookmark > 'B1' AND bookmark <= 'B2';
-- latency by method of a month
SELECT method, AVG(durationMs), P95(durationMs), COUNT(*) FROM read_json_auto('r2://events/2026/11/**/*.jsonl')
WHERE type = 'rpc.call' GROUP BY method;
-- updates of a collection
SELECT * FROM read_json_auto('r2://events/2026/**/*.jsonl') WHERE type = 'collection.update' AND collection = 'users';
-- one version
SELECT * FROM things WHERE rowid = 1;
-- current state of a document
SELECT * FROM things WHERE id = 'acme' ORDER BY rowid DESC;
-- created today in several namespaces
SELECT * FROM events WHERE type = 'Customer.created' AND DATE(timestamp) = CURRENT_DATE AND ns LIKE 'startups.%';
-- by type and hour
SELECT type, DATE_TRUNC('hour', timestamp) AS hour, COUNT(*) AS count FROM events
WHERE timestamp > NOW() - INTERVAL '24 hours' GROUP BY type, hour ORDER BY hour DESC;
-- changes by an actor
SELECT * FROM events WHERE actor = 'User/ada' AND op IN ('c', 'u', 'd') ORDER BY timestamp DESC LIMIT 100;
-- names that hold everywhere
SELECT id, type, timestamp, CONCAT(ns, '/', source) AS source, CONCAT(ns, '/', "table") AS table_url, op, store, key, before, after,
       actor, data, correlation_id, _meta FROM events;
-- a path with options
SELECT * FROM read_parquet('r2://events/events/2026/11/**/*.parquet', filename=true, hive_partitioning=false)
WHERE type = 'rpc.call' ORDER BY ts DESC LIMIT 100;
-- two formats at once
SELECT * FROM read_parquet('events/2026/11/20/*/*.parquet', filename=true, hive_partitioning=false)
UNION ALL SELECT * FROM read_json_auto('events/2026/11/20/*/*.jsonl', filename=true, hive_partitioning=false)
WHERE type IN ('rpc.call') ORDER BY ts DESC;
-- one hour
SELECT type, COUNT(*) AS count FROM read_parquet('r2://events/events/2026/11/20/14/*.parquet') GROUP BY type ORDER BY count DESC;
-- a member of an object
SELECT ts, "do".class AS do_class, method, durationMs, success FROM read_parquet('r2://events/events/2026/11/**/*.parquet')
WHERE type = 'rpc.call' ORDER BY ts DESC LIMIT 1000;
-- changes from the files of deltas
SELECT ts, op, pk, data FROM read_parquet('r2://events/cdc/myworker/users/deltas/*.parquet') WHERE pk = 'user-0-1' ORDER BY ts ASC;
-- latency percentiles
SELECT "do".class, method, COUNT(*) AS call_count, AVG(durationMs) AS avg_ms,
       PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY durationMs) AS p50_ms, PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY durationMs) AS p95_ms,
       PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY durationMs) AS p99_ms, MAX(durationMs) AS max_ms
FROM read_parquet('r2://events/events/2026/11/**/*.parquet') WHERE type = 'rpc.call' GROUP BY "do".class, method ORDER BY call_count DESC;
-- state between two bookmarks
SELECT * FROM read_parquet('r2://events/cdc/myworker/users/deltas/*.parquet') WHERE bookmark > 'B1' AND bookmark <= 'B2' ORDER BY ts ASC;
-- failed requests
SELECT url, status_code, COUNT(*) AS error_count FROM read_parquet('r2://events/events/2026/11/**/*.parquet')
WHERE status_code >= 400 GROUP BY url, status_code ORDER BY error_count DESC LIMIT 20;
-- daily volume
SELECT DATE_TRUNC('day', ts) AS day, type, COUNT(*) AS event_count FROM read_parquet('r2://events/events/2026/**/*.parquet')
GROUP BY day, type ORDER BY day DESC, event_count DESC;
