//! The lab's browser: it shows a page, does what a person does, and takes pictures.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::Html;
use axum::routing::get;
use rustix::process::{Pid, Signal, kill_process};
use sidetone_audio::tone::caller_voice;
use sidetone_audio::wav;
use sidetone_lab::Browser;
use sidetone_lab::browser::{ColorScheme, Screen};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use zune_png::PngDecoder;

use crate::wire::SOON;
use crate::{Lab, available, scenarios};

scenarios![
    a_browser_clicks_reads_and_takes_pictures,
    a_browser_plays_sound,
    a_browser_ends_when_its_driver_does,
];

const PAGE: &str = r#"<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width">
<style>
  body { margin: 0; background: #ffffff; color: #000000 }
  @media (prefers-color-scheme: dark) { body { background: #000000; color: #ffffff } }
</style></head>
<body><button id="more">more</button> <input id="name"> <output id="count">0</output> <audio id="sound" src="/sound.wav"></audio>
<script nonce="lab">
  document.getElementById("more").onclick = () => document.getElementById("count").value++;
</script>
<script>document.getElementById("count").value = "this script has no nonce";</script>
</body></html>"#;

async fn a_browser_clicks_reads_and_takes_pictures(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let port = serve().await?;
    browser.open(&format!("http://127.0.0.1:{port}/")).await?;
    ensure!(browser.text("#count").await? == "0");
    browser.click("#more").await?;
    browser.click("button").await?;
    browser
        .wait("document.getElementById('count').value === '2'")
        .await?;
    ensure!(browser.text("#count").await? == "2");
    browser.type_text("#name", "Zoë").await?;
    let value = browser.run(
        "return document.querySelector(arguments[0]).value",
        vec!["#name".into()],
    );
    ensure!(value.await? == "Zoë");
    let errors = browser.console_errors().await?;
    ensure!(
        matches!(&errors[..], [error] if error.contains("Content Security Policy")),
        "{errors:#?}"
    );
    // A page of another origin, and one of another machine.
    browser.open(&format!("http://other.test:{port}/")).await?;
    ensure!(browser.text("#count").await? == "0");
    ensure!(browser.open("http://debian.org/").await.is_err());

    browser.open(&format!("http://127.0.0.1:{port}/")).await?;
    let file = lab.asterisk.folder().join("page.png");
    for screen in [Screen::DESKTOP, Screen::TELEPHONE] {
        browser.screen(screen).await?;
        for (scheme, ground) in [(ColorScheme::Dark, 0), (ColorScheme::Light, 255)] {
            browser.color_scheme(scheme).await?;
            browser.screenshot(&file).await?;
            let picture = Picture::read(&file)?;
            ensure!(
                picture.size == (screen.width as usize, screen.height as usize),
                "{screen:?}: {:?}",
                picture.size
            );
            ensure!(
                picture.last == [ground; 3],
                "{scheme:?}: {:?}",
                picture.last
            );
        }
    }
    browser.close().await?;
    Ok(())
}

async fn a_browser_plays_sound(_lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let port = serve().await?;
    browser.open(&format!("http://127.0.0.1:{port}/")).await?;
    // A page may play once its user has done something.
    browser.click("#more").await?;
    browser
        .run("return document.getElementById('sound').play()", Vec::new())
        .await?;
    browser
        .wait("document.getElementById('sound').currentTime > 0.5")
        .await?;
    browser.close().await?;
    Ok(())
}

async fn a_browser_ends_when_its_driver_does(_lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    let driver = i32::try_from(browser.pid())?;
    let children = children(driver)?;
    ensure!(!children.is_empty(), "no browser");
    // As the kernel does when this process is killed.
    kill_process(Pid::from_raw(driver).context("no driver")?, Signal::KILL)?;
    let ended = async {
        while children.iter().any(|child| runs(*child)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, ended)
        .await
        .context("it goes on without its driver")?;
    ensure!(browser.open("http://127.0.0.1/").await.is_err());
    Ok(())
}

fn children(parent: i32) -> std::io::Result<Vec<i32>> {
    let processes = std::fs::read_dir("/proc")?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers
        .filter(|process| state(*process).is_some_and(|(_, of)| of == parent))
        .collect())
}

/// Whether the process is there; one that has ended may wait for somebody to ask how.
fn runs(process: i32) -> bool {
    state(process).is_some_and(|(state, _)| state != "Z")
}

/// The state of a process, and its parent.
fn state(process: i32) -> Option<(String, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before them may have blanks in it, and brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// What there is to know of a screenshot.
struct Picture {
    size: (usize, usize),
    /// Red, green and blue of the last pixel.
    last: [u8; 3],
}

impl Picture {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let mut decoder = PngDecoder::new(BufReader::new(File::open(file)?));
        let broken = |error| anyhow::anyhow!("{}: {error:?}", file.display());
        let pixels = decoder.decode_raw().map_err(broken)?;
        let size = decoder.dimensions().context("no size")?;
        let colours = decoder.colorspace().context("no colours")?.num_components();
        let last = pixels.chunks(colours).next_back();
        let last = last.and_then(|pixel| pixel.first_chunk());
        Ok(Self {
            size,
            last: *last.context("no pixels")?,
        })
    }
}

async fn serve() -> anyhow::Result<u16> {
    let mut sound = std::io::Cursor::new(Vec::new());
    let mut writer = wav::Writer::new(&mut sound, 8_000, wav::Channels::Mono)?;
    writer.write(&caller_voice(8_000, Duration::from_secs(2), 1))?;
    writer.finish()?;
    let sound = sound.into_inner();
    let policy = [(CONTENT_SECURITY_POLICY, "script-src 'nonce-lab'")];
    let router = Router::new()
        .route("/", get(async move || (policy, Html(PAGE))))
        .route("/favicon.ico", get(async || ""))
        .route(
            "/sound.wav",
            get(async || ([(CONTENT_TYPE, "audio/wav")], sound)),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(port)
}
