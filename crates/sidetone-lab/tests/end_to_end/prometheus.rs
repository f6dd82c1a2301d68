//! The lab's Prometheus: it scrapes what a scenario serves, and its promtool judges it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use sidetone_lab::Prometheus;
use sidetone_lab::prometheus::{QueryError, Target};
use tokio::net::TcpListener;

use crate::{Lab, available, scenarios};

scenarios![
    prometheus_knows_what_it_has_scraped,
    promtool_judges_metrics_and_rules,
];

const METRICS: &str = "\
# HELP lab_calls Calls that run.
# TYPE lab_calls gauge
lab_calls{route=\"echo\"} ";

async fn prometheus_knows_what_it_has_scraped(_lab: Arc<Lab>) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let calls = Arc::new(AtomicU32::new(3));
    let served = Arc::clone(&calls);
    let metrics = async move |headers: HeaderMap| {
        if headers
            .get("authorization")
            .is_none_or(|token| token != "Bearer secret")
        {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(format!("{METRICS}{}\n", served.load(Ordering::SeqCst)))
    };
    let router = Router::new().route("/metrics", get(metrics));
    let server = tokio::spawn(async { axum::serve(listener, router).await });
    let token = Some("secret".to_owned());
    let target = Target { address, token };
    let Some(prometheus) = available(Prometheus::start(&[target]).await)? else {
        return Ok(());
    };

    prometheus.scraped().await?;
    let samples = prometheus.query("lab_calls").await?;
    ensure!(
        matches!(&samples[..], [calls]
            if calls.value == 3.0 && calls.labels["route"] == "echo" && calls.labels["instance"] == address.to_string()),
        "{samples:?}"
    );
    calls.store(5, Ordering::SeqCst);
    prometheus.scraped().await?;
    let sum = prometheus.query("scalar(sum(lab_calls))").await?;
    ensure!(sum[0].value == 5.0 && sum[0].labels.is_empty(), "{sum:?}");
    match prometheus.query("sum(").await {
        Err(QueryError::Refused { reason, .. }) => {
            ensure!(reason.contains("parse error"), "{reason}")
        }
        other => anyhow::bail!("{other:?}"),
    }
    server.abort();
    Ok(())
}

async fn promtool_judges_metrics_and_rules(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    let rules = folder.path().join("rules.yml");
    let rules_file = rules.display().to_string();
    let rule = |expression: &str| {
        format!("{{groups: [{{name: lab, rules: [{{alert: Many, expr: {expression}}}]}}]}}\n")
    };
    let (metrics, check_rules) = (["check", "metrics"], ["check", "rules", &rules_file]);
    for (arguments, input, passes) in [
        (&metrics[..], format!("{METRICS}1\n"), true),
        (&metrics[..], "lab_calls 1\n".to_owned(), false),
        (&check_rules[..], rule("lab_calls > 9"), true),
        (&check_rules[..], rule("lab_calls >"), false),
    ] {
        std::fs::write(&rules, &input)?;
        let Some(verdict) = available(Prometheus::promtool(arguments, &input).await)? else {
            return Ok(());
        };
        ensure!(verdict.passed == passes, "{input}: {}", verdict.printed);
        ensure!(passes || !verdict.printed.is_empty(), "{input}: not a word");
    }
    Ok(())
}
