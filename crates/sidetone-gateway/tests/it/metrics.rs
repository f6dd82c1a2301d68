//! The figures, held against what the callers say.

use std::time::Duration;

use sidetone_caller::{Caller, Voice};
use uuid::Uuid;

use crate::kit::{ECHO, OPEN, PATIENCE, TestGateway};

/// The value of a line of the metrics.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
        .parse()
        .unwrap()
}

#[test]
fn figures_agree_with_the_callers_logs() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let ids: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let calls: Vec<_> = ids
        .iter()
        .map(|id| {
            let caller = Caller::new(gateway.address)
                .uuid(*id)
                .say(Voice::Ramp(3))
                .dtmf("123", Duration::from_millis(100))
                .hang_up_after(Duration::from_millis(500));
            gateway.place(caller)
        })
        .collect();
    let records: Vec<_> = calls.into_iter().map(|it| it.join().unwrap()).collect();
    ids.iter()
        .for_each(|id| drop(gateway.of("call.ended", *id)));
    let metrics = gateway.admin("GET", "/metrics", None).body;
    let sum = |of: fn(&sidetone_caller::Counts) -> u64| -> f64 {
        records.iter().map(|record| of(&record.counts)).sum::<u64>() as f64
    };
    assert_eq!(value(&metrics, "sidetone_calls"), 0.0);
    assert_eq!(
        value(
            &metrics,
            "sidetone_calls_ended_total{reason=\"caller_hung_up\"}"
        ),
        10.0
    );
    assert_eq!(
        value(&metrics, "sidetone_digits_total"),
        sum(|counts| counts.digits_sent)
    );
    assert_eq!(
        value(&metrics, "sidetone_frames_received_total"),
        sum(|counts| counts.frames_sent)
    );
    let sent = value(&metrics, "sidetone_frames_sent_total");
    let heard = sum(|counts| counts.frames_heard);
    assert!(heard > 0.0 && heard <= sent, "{sent} sent, {heard} heard");
    let late = value(&metrics, "sidetone_frame_lateness_seconds_count");
    assert_eq!(late, sent);
    assert_eq!(
        value(
            &metrics,
            "sidetone_frame_lateness_seconds_bucket{le=\"+Inf\"}"
        ),
        sent
    );

    // A caller that hangs up doesn't read the last frames; one that is hung up on reads all.
    let id = Uuid::new_v4();
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .dtmf("1", Duration::from_millis(300))
        .hang_up_after(PATIENCE);
    let call = gateway.place(caller);
    gateway.of("dtmf", id);
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    let record = call.join().unwrap();
    gateway.of("call.ended", id);
    let metrics = gateway.admin("GET", "/metrics", None).body;
    let heard = record.counts.frames_heard as f64;
    assert_eq!(value(&metrics, "sidetone_frames_sent_total") - sent, heard);
    assert!(heard >= 10.0, "{heard}");
}

#[test]
fn no_label_is_made_of_what_comes_from_outside() {
    let gateway = TestGateway::start("", ECHO);
    for number in 0..20 {
        let query = format!("route=echo&caller-{number}=%22%7D%0Aevil%201");
        gateway.ticket(&query);
        gateway.get(&format!("/v1/tickets?route=nowhere-{number}"));
    }
    let metrics = gateway.admin("GET", "/metrics", None).body;
    assert!(
        !metrics.contains("evil") && !metrics.contains("nowhere"),
        "{metrics}"
    );
}

#[test]
fn figures_are_in_the_text_format_and_every_reason_is_there_from_the_start() {
    let gateway = TestGateway::start("", ECHO);
    let answer = gateway.admin("GET", "/metrics", None);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    // A counter is named in full where it is described: promtool takes it for undescribed otherwise.
    assert!(
        answer
            .body
            .contains("# TYPE sidetone_frames_sent_total counter\n"),
        "{}",
        answer.body
    );
    for reason in ["no_ticket", "ticket_used", "ticket_expired", "full"] {
        let name = format!("sidetone_calls_rejected_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&answer.body, &name), 0.0);
    }
}
