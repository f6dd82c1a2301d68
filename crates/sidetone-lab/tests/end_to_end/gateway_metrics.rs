//! The gateway's figures, as Prometheus has them, held against what the callers say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sidetone_caller::{CallRecord, Caller, EndCause, Voice, ramp};
use sidetone_lab::Prometheus;
use sidetone_lab::prometheus::Target;
use uuid::Uuid;

use crate::gateway_daemon::{Daemon, TOKEN, place, record};
use crate::wire::FRAME;
use crate::{Lab, available, scenarios};

scenarios![
    what_prometheus_knows_is_what_the_callers_say,
    what_is_shipped_for_prometheus_fits_the_figures,
];

/// Tickets are few and soon too old, and so are places.
const SERVER: &str = "ticket_lifetime = \"1s\"\nmax_calls = 6\ngrace = \"0s\"";
const ECHO: &str = "[route.echo]\necho = {}\n";

/// How often each caller pauses, one after the other.
const PAUSES: [usize; 4] = [0, 1, 2, 3];

async fn what_prometheus_knows_is_what_the_callers_say(lab: Arc<Lab>) -> anyhow::Result<()> {
    let gateway = Daemon::start(lab.asterisk.folder(), SERVER, ECHO).await?;
    let target = Target {
        address: gateway.http,
        token: Some(TOKEN.to_owned()),
    };
    let Some(prometheus) = available(Prometheus::start(&[target]).await)? else {
        return Ok(());
    };

    let mut running = Vec::new();
    let mut used = Vec::new();
    for (seed, pauses) in (1..).zip(PAUSES) {
        let id = gateway.ticket("route=echo").await?;
        used.push(id);
        running.push(place(pausing(&gateway, id, seed, pauses)));
        gateway.started(id).await?;
    }
    let (mut expected, mut rejected_with) = refuse(&gateway, &used).await?;
    let mut records = Vec::new();
    for call in running {
        records.push(record(call).await?);
    }
    for id in &used {
        let id = id.to_string();
        gateway
            .event("call.ended", |data| data["call"] == id)
            .await?;
    }
    let expired = gateway.ticket("route=echo").await?;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for (id, reason) in [(expired, "ticket_expired"), (used[0], "ticket_used")] {
        rejected_with += rejected(&gateway, id).await?;
        expected.insert(reason, 1);
    }

    prometheus.scraped().await?;
    let rejected = prometheus
        .query("sum by (reason) (sidetone_calls_rejected_total) > 0")
        .await?;
    let rejected: BTreeMap<&str, usize> = rejected
        .iter()
        .map(|it| (it.labels["reason"].as_str(), it.value as usize))
        .collect();
    ensure!(rejected == expected, "{rejected:?}, not {expected:?}");

    let of = |count: fn(&CallRecord) -> u64| records.iter().map(count).sum::<u64>() as f64;
    let heard = of(|record| record.counts.frames_heard);
    // A caller that hangs up does not read what is on its way.
    let sent = value(&prometheus, "sidetone_frames_sent_total").await?;
    ensure!(
        heard <= sent && sent <= heard + 2.0 * records.len() as f64,
        "{sent} frames sent, {heard} heard"
    );
    // The slots of calls that are rejected have times, too.
    let all_sent = sent + rejected_with as f64;
    for (expression, expected) in [
        ("sidetone_calls", 0.0),
        ("sum(sidetone_calls_ended_total)", records.len() as f64),
        (
            "sidetone_calls_ended_total{reason=\"caller_hung_up\"}",
            records.len() as f64,
        ),
        (
            "sum(sidetone_calls_rejected_total)",
            expected.values().sum::<usize>() as f64,
        ),
        (
            "sidetone_digits_total",
            of(|record| record.counts.digits_sent),
        ),
        (
            "sidetone_frames_received_total",
            of(|record| record.counts.frames_sent),
        ),
        ("sidetone_underruns_total", of(gaps)),
        ("sidetone_frame_lateness_seconds_count", all_sent),
        (
            "sidetone_frame_lateness_seconds_bucket{le=\"+Inf\"}",
            all_sent,
        ),
        ("sidetone_tickets_used_total", records.len() as f64),
        ("sidetone_tickets_minted_total", records.len() as f64 + 1.0),
        ("sidetone_tickets_expired_total", 1.0),
    ] {
        let found = value(&prometheus, expression).await?;
        ensure!(found == expected, "{expression} is {found}, not {expected}");
    }
    let pauses = PAUSES.iter().sum::<usize>() as f64;
    ensure!(of(gaps) >= pauses, "{} gaps", of(gaps));
    Ok(())
}

/// A caller that says something without silence in it, presses keys, and pauses so often.
fn pausing(gateway: &Daemon, id: Uuid, seed: u64, pauses: usize) -> Caller {
    let ms = |ms: usize| Duration::from_millis(ms as u64);
    let mut caller = Caller::new(gateway.address)
        .uuid(id)
        .say(Voice::Ramp(seed))
        .dtmf(&"123456"[..pauses + 1], ms(200))
        .hang_up_after(ms(3_500));
    for pause in 0..pauses {
        // Far enough from one to the next that the echo goes on between them.
        let begin = ms(700 + 900 * pause);
        caller = caller.mute_between(begin, begin + ms(300));
    }
    caller
}

/// How often the echo stopped, as the caller hears it: an underrun is silence until there is something to play again.
fn gaps(record: &CallRecord) -> u64 {
    let silent: Vec<bool> = record
        .frames()
        .map(|(_, samples)| samples.iter().all(|sample| *sample == 0))
        .collect();
    let begin = silent.iter().position(|silent| !silent);
    let sounding = &silent[begin.unwrap_or(silent.len())..];
    sounding
        .windows(2)
        .filter(|pair| !pair[0] && pair[1])
        .count() as u64
}

/// Has calls rejected while others are running. It answers how many for which reason, and how many frames they heard.
async fn refuse(
    gateway: &Daemon,
    running: &[Uuid],
) -> anyhow::Result<(BTreeMap<&'static str, usize>, u64)> {
    let mut heard = 0;
    for _ in 0..3 {
        heard += rejected(gateway, Uuid::new_v4()).await?;
    }
    for id in &running[..2] {
        heard += rejected(gateway, *id).await?;
    }
    let (status, body) = gateway
        .ask("GET", "/v1/tickets?route=nowhere", None)
        .await?;
    ensure!(status == 400 && body.is_empty(), "{status} {body}");
    let reasons = BTreeMap::from([("no_ticket", 3), ("already_connected", 2)]);
    Ok((reasons, heard))
}

/// Places a call that is rejected: it hears silence at most, of so many frames, and is hung up.
async fn rejected(gateway: &Daemon, id: Uuid) -> anyhow::Result<u64> {
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .hang_up_after(Duration::from_secs(5));
    let record = record(place(caller)).await?;
    ensure!(
        record.ended.cause == EndCause::ServerHungUp
            && record.heard_samples().iter().all(|sample| *sample == 0),
        "{:?}, with {:?}",
        record.ended,
        record.counts
    );
    Ok(record.counts.frames_heard)
}

async fn value(prometheus: &Prometheus, expression: &str) -> anyhow::Result<f64> {
    let samples = prometheus.query(expression).await?;
    ensure!(samples.len() == 1, "{expression}: {samples:?}");
    Ok(samples[0].value)
}

async fn what_is_shipped_for_prometheus_fits_the_figures(lab: Arc<Lab>) -> anyhow::Result<()> {
    let gateway = Daemon::start(lab.asterisk.folder(), "", ECHO).await?;
    let id = gateway.ticket("route=echo").await?;
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(ramp(1, 0, 10 * FRAME))
        .hang_up_after(Duration::from_millis(200));
    record(place(caller)).await?;
    let metrics = gateway.metrics().await?;
    let Some(verdict) = available(Prometheus::promtool(&["check", "metrics"], &metrics).await)?
    else {
        return Ok(());
    };
    ensure!(
        verdict.passed && verdict.printed.is_empty(),
        "promtool check metrics: {}\n{metrics}",
        verdict.printed
    );

    let rules = files("contrib/prometheus", "yml")?;
    for file in &rules {
        let file = file.display().to_string();
        let verdict = Prometheus::promtool(&["check", "rules", &file], "").await?;
        ensure!(verdict.passed, "{file}: {}", verdict.printed);
    }
    let known = series(&metrics);
    for file in rules.into_iter().chain(files("contrib/grafana", "json")?) {
        let text = std::fs::read_to_string(&file)?;
        let asked_for = names(&text);
        ensure!(!asked_for.is_empty(), "{}: no figure", file.display());
        let unknown: Vec<&str> = asked_for
            .into_iter()
            .filter(|name| !known.iter().any(|known| known == name))
            .collect();
        ensure!(
            unknown.is_empty(),
            "{}: the gateway has no {unknown:?}",
            file.display()
        );
    }
    Ok(())
}

/// The files of a folder of the repository; there has to be one.
fn files(folder: &str, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder);
    let listed = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for file in listed {
        let file = file?.path();
        if file.extension().is_some_and(|it| it == extension) {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "{}: no .{extension}", folder.display());
    Ok(files)
}

/// The names of all series that the figures have, or would have with their labels.
fn series(metrics: &str) -> Vec<String> {
    let types = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.flat_map(|(name, kind)| match kind {
        "histogram" => ["_bucket", "_count", "_sum"]
            .map(|suffix| format!("{name}{suffix}"))
            .to_vec(),
        _ => vec![name.to_owned()],
    });
    names.collect()
}

/// The gateway's figures that are named in an expression.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_' && it != ':');
    words.filter(|word| word.starts_with("sidetone_")).collect()
}
