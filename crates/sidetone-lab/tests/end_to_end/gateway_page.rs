//! The gateway's page, in a browser, as an operator uses it.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use sidetone_audio::tone::caller_voice;
use sidetone_caller::{CallRecord, Caller, CallerError, EndCause, EndedBy};
use sidetone_lab::Browser;
use sidetone_lab::browser::{ColorScheme, Screen};
use sidetone_services::realtime::{RealtimeServer, Script};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::gateway_daemon::{Daemon, TOKEN, command, place, record};
use crate::wire::SOON;
use crate::{Lab, available, scenarios, sound_file};

scenarios![
    an_operator_watches_hangs_up_and_listens_across_a_restart,
    a_bots_times_failures_and_breaker_are_on_the_page,
];

scenarios![fn under_load: five_hundred_calls_leave_the_page_smooth_and_are_no_later];

const ECHO: &str = "[route.echo]\necho = {}\n";
const OPEN: &str = "tickets = \"optional\"\ndefault_route = \"voice\"\ntrusted = [\"127.0.0.0/8\"]";

/// Set, the pictures in `docs/` are taken anew.
const RENEW: &str = "RENEW_SCREENSHOTS";

/// The largest picture in `docs/`, in bytes.
const LARGEST_PICTURE: u64 = 150_000;

async fn an_operator_watches_hangs_up_and_listens_across_a_restart(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let mut gateway = Daemon::start(lab.asterisk.folder(), "", ECHO).await?;
    let first = talk(&gateway, "from=%2B49301234567&to=100&queue=support", 1).await?;
    let second = talk(&gateway, "from=%2B4915112345678&to=200", 2).await?;
    log_in(&browser, &gateway).await?;
    browser
        .wait("document.querySelectorAll('.call').length === 2")
        .await?;
    levels_move(&browser).await?;
    take_pictures(&browser, lab.asterisk.folder()).await?;
    let errors = browser.console_errors().await?;
    // That nobody is logged in yet, the page learns by a 401, which the console shows.
    ensure!(
        errors.iter().all(|error| error.contains("401")),
        "{errors:#?}"
    );

    let hang_up = format!("button[aria-label=\"Hang up call {}\"]", first.id);
    let confirm = format!("button[aria-label=\"Yes, hang up call {}\"]", first.id);
    browser.click(&hang_up).await?;
    browser
        .wait(&format!("!document.querySelector('{confirm}').disabled"))
        .await?;
    browser.click(&confirm).await?;
    let hung_up = record(first.call).await?;
    ensure!(
        hung_up.ended.cause == EndCause::ServerHungUp,
        "{:?}",
        hung_up.ended
    );
    let id = first.id.to_string();
    let logged = gateway
        .event("control", |data| data["action"] == "hangup")
        .await?;
    ensure!(
        logged["call"] == id && logged["token"] == "page",
        "{logged}"
    );

    listen(&browser, second.id).await?;

    gateway.kill().await?;
    browser
        .wait("document.body.classList.contains('gone')")
        .await?;
    let verdict = browser.text("#verdict-text").await?;
    ensure!(verdict.contains("does not answer"), "{verdict}");
    let lost = record(second.call).await?;
    ensure!(lost.ended.by() != EndedBy::Caller, "{:?}", lost.ended);
    gateway.start_again().await?;
    let third = talk(&gateway, "from=301", 3).await?;
    let fourth = talk(&gateway, "from=302", 4).await?;
    browser
        .wait(
            "!document.body.classList.contains('gone') \
             && document.querySelectorAll('.call:not(.over)').length === 2",
        )
        .await?;
    for id in [third.id, fourth.id] {
        browser
            .wait(&format!(
                "document.getElementById('calls').innerText.includes('{id}')"
            ))
            .await?;
    }
    // The session is still good: nobody had to log in again, and it still controls.
    browser
        .wait("document.getElementById('login').hidden")
        .await?;
    let status = browser
        .run("return fetch('/v1/session').then(it => it.status)", vec![])
        .await?;
    ensure!(status == 200, "{status}");
    browser.close().await?;
    Ok(())
}

async fn a_bots_times_failures_and_breaker_are_on_the_page(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let service = RealtimeServer::start("sk-test", Script::default()).await?;
    let key = lab.asterisk.folder().join("openai.key");
    std::fs::write(&key, "sk-test")?;
    let file = format!(
        "[route.talk]\nbot.dialect = \"openai\"\nbot.url = \"{}\"\n[route.talk.bot.openai]\n\
         key = {{ file = \"{}\" }}\nmodel = \"gpt-realtime\"\nspeaks_first = true\n\
         [route.away]\nbot = {{ dialect = \"twilio\", url = \"ws://127.0.0.1:1/\" }}\n",
        service.endpoint(),
        key.display()
    );
    let gateway = Daemon::start(lab.asterisk.folder(), "", &file).await?;
    log_in(&browser, &gateway).await?;
    let shows = async |row: &str, pattern: &str| {
        let condition = format!(
            "new RegExp('{pattern}').test(document.querySelector('#b-rows li:{row}').innerText.replace(/\\s+/g, ' '))"
        );
        browser.wait(&condition).await
    };
    // In the order of their names, also before the first call.
    shows(
        "first-child",
        "^away gets its calls Last call: connected –, first audio – Failed since the start: none$",
    )
    .await?;
    shows(
        "last-child",
        "^talk gets its calls Last call: connected –, first audio –",
    )
    .await?;
    for _ in 0..4 {
        let id = gateway.ticket("route=away").await?;
        record(place(Caller::new(gateway.address).uuid(id))).await?;
    }
    let failing = "^away fails: calls are spared it .*–, .* Failed since the start: 4 .1 spared, 3 unavailable.$";
    shows("first-child", failing).await?;
    let id = gateway.ticket("route=talk").await?;
    let caller = Caller::new(gateway.address).uuid(id);
    let call = place(caller.hang_up_after(Duration::from_secs(60)));
    shows("last-child", "^talk gets its calls Last call: connected [0-9]+ ms, first audio [0-9]+ ms Failed since the start: none$").await?;
    let summary = browser.text("#b-sum").await?;
    ensure!(summary == "1 of 2 fail", "{summary}");
    let path = format!("/v1/calls/{id}/hangup");
    gateway.ask("POST", &path, Some(TOKEN)).await?;
    record(call).await?;
    let errors = browser.console_errors().await?;
    ensure!(
        errors.iter().all(|error| error.contains("401")),
        "{errors:#?}"
    );
    browser.close().await?;
    Ok(())
}

/// A call with a ticket, whose caller talks.
struct Talk {
    id: Uuid,
    call: JoinHandle<Result<CallRecord, CallerError>>,
}

async fn talk(gateway: &Daemon, data: &str, seed: u64) -> anyhow::Result<Talk> {
    let id = gateway.ticket(&format!("route=echo&{data}")).await?;
    let minute = Duration::from_secs(60);
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(caller_voice(8_000, minute, seed))
        .hang_up_after(minute);
    let call = place(caller);
    gateway.started(id).await?;
    Ok(Talk { id, call })
}

pub(crate) async fn log_in(browser: &Browser, gateway: &Daemon) -> anyhow::Result<()> {
    browser.screen(Screen::DESKTOP).await?;
    browser.open(&gateway.url("/")).await?;
    browser.type_text("#token", TOKEN).await?;
    browser.click("#log-in").await?;
    browser
        .wait("!document.getElementById('app').hidden")
        .await?;
    // Never in an address, where it would be logged and kept.
    let address = browser.run("return location.href", vec![]).await?;
    ensure!(address == gateway.url("/"), "{address}");
    Ok(())
}

/// Checks that each call's picture moves, and that both its sides change their levels.
async fn levels_move(browser: &Browser) -> anyhow::Result<()> {
    let watch = "
        const seen = {};
        const note = (key, value) => (seen[key] ??= new Set()).add(value);
        const until = performance.now() + 10000;
        const enough = () => document.querySelectorAll('.call').length === 2
            && Object.keys(seen).length === 6 && Object.values(seen).every(values => values.size >= 3);
        return (async () => {
            while (!enough() && performance.now() < until) {
                document.querySelectorAll('.call').forEach((call, index) => {
                    note(`picture ${index}`, call.querySelector('canvas').toDataURL());
                    note(`caller ${index}`, call.querySelector('[data-f=caller]').textContent);
                    note(`server ${index}`, call.querySelector('[data-f=server]').textContent);
                });
                await new Promise(resolve => setTimeout(resolve, 100));
            }
            return [enough(), Object.entries(seen).map(([key, values]) => `${key}: ${values.size}`)];
        })();";
    let seen = browser.run(watch, vec![]).await?;
    ensure!(seen[0] == true, "different levels: {}", seen[1]);
    Ok(())
}

/// Takes pictures of all that a page can be shown on, and checks that nothing is cut off at the side.
async fn take_pictures(browser: &Browser, folder: &Path) -> anyhow::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let renews = std::env::var_os(RENEW).is_some();
    let folder: PathBuf = if renews { docs } else { folder.to_owned() };
    for (device, screen) in [
        ("telephone", Screen::TELEPHONE),
        ("desktop", Screen::DESKTOP),
    ] {
        browser.screen(screen).await?;
        // What is folded on a telephone is so from the beginning. The session outlasts that.
        browser.driver().refresh().await?;
        browser
            .wait("document.querySelectorAll('.call').length === 2 && !document.querySelector('.verdict.wait')")
            .await?;
        if renews {
            // Until there is more of the levels to see.
            sleep(Duration::from_secs(10)).await;
        }
        for (name, scheme) in [("light", ColorScheme::Light), ("dark", ColorScheme::Dark)] {
            browser.color_scheme(scheme).await?;
            // Two frames, so that what has changed is drawn.
            let drawn = "return new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)))";
            browser.run(drawn, vec![]).await?;
            let file = folder.join(format!("gateway-{device}-{name}.png"));
            browser.screenshot(&file).await?;
            let size = std::fs::metadata(&file)?.len();
            ensure!(size <= LARGEST_PICTURE, "{}: {size} bytes", file.display());
        }
        let widths = browser
            .run(
                "return [document.documentElement.scrollWidth, innerWidth]",
                vec![],
            )
            .await?;
        ensure!(
            widths[0].as_u64() <= widths[1].as_u64(),
            "{device}: {widths}"
        );
    }
    Ok(())
}

/// Listens to a call on the page, and checks that what plays is not silence.
async fn listen(browser: &Browser, id: Uuid) -> anyhow::Result<()> {
    let tap = "
        const context = new AudioContext();
        const analyser = context.createAnalyser();
        context.createMediaElementSource(document.getElementById('audio')).connect(analyser);
        analyser.connect(context.destination);
        window.loudest = 0;
        setInterval(() => {
            const samples = new Float32Array(analyser.fftSize);
            analyser.getFloatTimeDomainData(samples);
            window.loudest = Math.max(window.loudest, ...samples);
        }, 20);
        return context.resume();";
    browser.run(tap, vec![]).await?;
    browser
        .click(&format!("button[aria-label=\"Listen to call {id}\"]"))
        .await?;
    browser
        .wait("document.getElementById('audio').currentTime > 1")
        .await?;
    browser.wait("window.loudest > 0.01").await?;
    Ok(())
}

const CALLS: usize = 500;

/// In milliseconds.
const LONGEST_FRAME: f64 = 50.0;

/// Frames of the page may be longer than that by as much as those of a page with hardly any work are, beside the same calls: so
/// busy is the machine. Calls may be later than without the page by what nobody hears. They hear a file, not an echo: an echo is late
/// where its caller is, and the callers share this machine.
async fn five_hundred_calls_leave_the_page_smooth_and_are_no_later(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let folder = lab.asterisk.folder();
    let voice = folder.join("voice.wav");
    sound_file::write(
        &voice,
        8_000,
        &caller_voice(8_000, Duration::from_secs(5), 1),
    )?;
    let route = format!("[route.voice]\nplay = {{ file = {voice:?}, loop = true }}\n");
    let gateway = Daemon::start(folder, OPEN, &route).await?;
    browser.screen(Screen::DESKTOP).await?;
    browser.open(&gateway.url("/")).await?;
    let control = beside_calls(&gateway, &browser, "true", 5).await?;
    log_in(&browser, &gateway).await?;
    let shown = format!(
        "document.getElementById('f-running').textContent === '{CALLS}' \
         && document.querySelectorAll('.call').length >= 50"
    );
    let page = beside_calls(&gateway, &browser, &shown, 0).await?;
    browser.close().await?;
    eprintln!("    control: {control}\n    with the page: {page}");

    ensure!(
        page.updates >= 15,
        "the page was drawn {} times in 4 s",
        page.updates
    );
    let limit = LONGEST_FRAME + control.frame_p99 - control.frame_p50;
    ensure!(
        page.frame_p99 <= limit,
        "of 100 frames of the page, 99 take {} ms, more than {limit} ms",
        page.frame_p99
    );
    let limit = LONGEST_FRAME + control.frame_max - control.frame_p50;
    ensure!(
        page.update_max <= limit,
        "an update of the page takes {} ms, more than {limit} ms",
        page.update_max
    );
    let limit = 2.0 * control.late_p99 + 10.0;
    ensure!(
        page.late_p99 <= limit,
        "of 100 frames of the calls, 99 are {} ms late, more than {limit} ms",
        page.late_p99
    );
    Ok(())
}

/// What was measured for 4 s, in milliseconds.
struct Measured {
    /// From one frame of the page to the next.
    frame_p50: f64,
    frame_p99: f64,
    frame_max: f64,
    /// How often the page itself drew something, and how long it took.
    updates: u64,
    update_p99: f64,
    update_max: f64,
    /// How late frames of the calls were.
    late_p50: f64,
    late_p99: f64,
}

impl Display for Measured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "frames {:.1} ms at p50, {:.1} at p99, {:.1} at most; {} updates, {:.1} ms at p99, {:.1} at most; calls late {:.2} ms at p50, {:.2} at p99",
            self.frame_p50,
            self.frame_p99,
            self.frame_max,
            self.updates,
            self.update_p99,
            self.update_max,
            self.late_p50,
            self.late_p99
        )
    }
}

/// Places the calls, and measures both them and the page when it is `ready`. Each frame of the page has `work` ms to do besides.
async fn beside_calls(
    gateway: &Daemon,
    browser: &Browser,
    ready: &str,
    work: u32,
) -> anyhow::Result<Measured> {
    let loading = tokio::spawn(load(gateway.address.to_string()));
    has_calls(gateway, CALLS).await?;
    browser.wait(ready).await?;
    let frames = browser.run(WATCH_FRAMES, vec![work.into()]).await?;
    let calls = loading.await??;
    ensure!(calls["ended_early"] == 0, "{calls}");
    has_calls(gateway, 0).await?;
    let number = |value: &Value| value.as_f64().with_context(|| format!("{frames} {calls}"));
    let late = &calls["pace"]["lateness_us"];
    Ok(Measured {
        frame_p50: number(&frames["intervals"]["p50"])?,
        frame_p99: number(&frames["intervals"]["p99"])?,
        frame_max: number(&frames["intervals"]["max"])?,
        updates: frames["updates"]["count"].as_u64().unwrap_or_default(),
        update_p99: frames["updates"]["p99"].as_f64().unwrap_or_default(),
        update_max: frames["updates"]["max"].as_f64().unwrap_or_default(),
        late_p50: number(&late["p50"])? / 1000.0,
        late_p99: number(&late["p99"])? / 1000.0,
    })
}

async fn has_calls(gateway: &Daemon, calls: usize) -> anyhow::Result<()> {
    let line = format!("sidetone_calls {calls}");
    let deadline = Instant::now() + SOON;
    while !gateway.metrics().await?.lines().any(|it| it == line) {
        ensure!(Instant::now() < deadline, "there are never {calls} calls");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Watches the page's frames for 4 s, while somebody scrolls.
const WATCH_FRAMES: &str = "
    const [work] = arguments, updates = [], intervals = [];
    const original = window.requestAnimationFrame;
    window.requestAnimationFrame = callback => original(time => {
        const begin = performance.now();
        callback(time);
        updates.push(performance.now() - begin);
    });
    return (async () => {
        const until = performance.now() + 4000;
        let last = performance.now();
        while (performance.now() < until) {
            await new Promise(resolve => original(resolve));
            const now = performance.now();
            intervals.push(now - last);
            last = now;
            while (performance.now() < now + work);
            window.scrollBy(0, 7);
        }
        window.requestAnimationFrame = original;
        const of = values => {
            values.sort((a, b) => a - b);
            return { count: values.length, p50: values[values.length >> 1], p99: values[Math.floor(values.length * .99)], max: values.at(-1) };
        };
        return { updates: of(updates), intervals: of(intervals) };
    })();";

/// Places the calls, and answers what `sidetone load` reports.
async fn load(address: String) -> anyhow::Result<Value> {
    let mut load = Command::new(command().await?);
    let calls = CALLS.to_string();
    load.args(["load", &address, "--mode", "playout", "--json"])
        .args(["--calls", &calls, "--warm-up", "1", "--seconds", "7"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = timeout(Duration::from_secs(60), load.output());
    let output = output.await.context("sidetone load hangs")??;
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(&text)?)
}
