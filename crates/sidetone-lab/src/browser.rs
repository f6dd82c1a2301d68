//! One running Chromium without a screen, driven as a person would use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use thirtyfour::cdp::domains::emulation::{
    MediaFeature, SetDeviceMetricsOverride, SetEmulatedMedia,
};
use thirtyfour::error::{WebDriverError, WebDriverResult};
use thirtyfour::extensions::query::{ElementPollerWithTimeout, ElementQueryable};
use thirtyfour::session::http::{Body, HttpClient};
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
};
use tokio::time::{Instant, sleep};
use ureq::http::{Request, Response};

use crate::asterisk::StartError;
use crate::fetch::{self, Packages, Tree};
use crate::http;
use crate::process::{Kept, with_environment};

/// Of the oldest Debian that is still common, so that this machine's C library will do: Chromium starts itself again for each
/// page, by a path that a loader of its own would be in the way of.
const CHROMIUM: Packages<'_> = Packages {
    name: "chromium",
    suite: "bookworm",
    whole: &["chromium", "chromium-driver", "fonts-dejavu-core"],
    without: &[
        // As old as this machine's, or older, which every program built with Rust needs.
        "libc6",
        "libgcc-s1",
        // For windows on a screen.
        "libgtk-3-0",
        "x11-utils",
        "xdg-utils",
        // Data of libraries that are loaded, but have nothing to do.
        "at-spi2-common",
        "libasound2-data",
        "libavahi-common-data",
        "libdrm-common",
        "libthai-data",
        "libx11-data",
        "xkb-data",
        // The rest serves an installation.
        "fontconfig",
        "fontconfig-config",
        "gcc-12-base",
    ],
    alone: &[],
    left_out: &[
        "./etc*",
        "./var*",
        "./usr/share/doc*",
        "./usr/share/icons*",
        "./usr/share/locale*",
        "./usr/share/man*",
        "./usr/lib/chromium/libVkLayer*",
    ],
};

/// What Chromium is told, besides where its folder is.
const ARGUMENTS: [&str; 14] = [
    "--headless=new",
    // Its sandbox needs rights that a container has not; it opens nothing but pages of the tests.
    "--no-sandbox",
    // The shared memory of containers is small.
    "--disable-dev-shm-usage",
    "--disable-gpu",
    // It ends when chromedriver does, by whatever means.
    "--remote-debugging-pipe",
    // Nothing leaves this machine, and there are names for pages of other origins.
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    // A machine without a sound card plays at the pace of one all the same.
    "--disable-audio-output",
    "--lang=en-US",
    "--force-color-profile=srgb",
];

/// How long a page may take to have what is waited for.
const SOON: Duration = Duration::from_secs(10);

/// How often it is asked for.
const LOOK: Duration = Duration::from_millis(20);

/// How long any request of a driver may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A running Chromium with one page, its profile empty. Every name under `.test` is this machine; no other machine can be reached.
///
/// What takes a selector means the first element that fits it, and waits up to 10 s until there is one. Dropping it ends the
/// browser, which blocks for a moment; it doesn't outlive this process either.
#[derive(Debug)]
pub struct Browser {
    // First the browser goes, then its driver, then their folder.
    driver: WebDriver,
    process: Kept,
    _folder: TempDir,
}

/// What a page is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// In CSS pixels, each of which is a pixel of a screenshot.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// Whether it follows the page's `viewport`, and a finger scrolls it.
    pub telephone: bool,
}

/// What a page finds as `prefers-color-scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorScheme {
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    Dark,
}

impl Screen {
    /// An ordinary one.
    pub const DESKTOP: Self = Self {
        width: 1280,
        height: 800,
        telephone: false,
    };

    /// An ordinary telephone, upright.
    pub const TELEPHONE: Self = Self {
        width: 390,
        height: 844,
        telephone: true,
    };
}

impl Browser {
    /// Fetches Chromium if that has not been done yet, which takes 133 MB and some ten seconds, and starts it.
    ///
    /// # Errors
    ///
    /// [`StartError::Fetch`] if it is not available on this machine, else why it did not start.
    pub async fn start() -> Result<Self, StartError> {
        let fetched = tokio::task::spawn_blocking(|| fetch::packages(&CHROMIUM)).await;
        let tree = fetched.map_err(std::io::Error::other)??;
        // Not in the cache: the paths of its sockets must not be long.
        let folder = tempfile::Builder::new().prefix("chromium-").tempdir()?;
        let fonts = folder.path().join("fonts.conf");
        std::fs::write(&fonts, font_configuration(&tree, folder.path()))?;
        let libraries = libraries(&tree);
        let home = folder.path().as_os_str();
        let variables = [
            ("LD_LIBRARY_PATH", libraries.as_ref()),
            ("FONTCONFIG_FILE", fonts.as_os_str()),
            ("HOME", home),
            ("TMPDIR", home),
            ("XDG_CONFIG_HOME", home),
            ("XDG_CACHE_HOME", home),
            ("TZ", "UTC".as_ref()),
            // The machine's own bus, settings and modules are not this browser's business.
            ("DBUS_SESSION_BUS_ADDRESS", "disabled:".as_ref()),
            ("GSETTINGS_BACKEND", "memory".as_ref()),
            ("GIO_MODULE_DIR", home),
        ];
        let mut command = with_environment(variables, tree.root().join("usr/bin/chromedriver"));
        command.arg("--port=0");
        let printed = folder.path().join("printed");
        let port = |printed: &str| {
            let (_, rest) = printed.split_once("started successfully on port ")?;
            rest.split_once('.')?.0.parse::<u16>().ok()
        };
        let (process, port) = Kept::start_until("chromedriver", command, &printed, port).await?;
        let driver = session(port, &tree, folder.path()).await;
        let driver = driver.map_err(|error| StartError::Program {
            program: "Chromium",
            printed: format!(
                "{error}\n{}",
                std::fs::read_to_string(&printed).unwrap_or_default()
            ),
        })?;
        Ok(Self {
            driver,
            process,
            _folder: folder,
        })
    }

    /// The process id of its driver, which is its parent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All else that can be done with a browser: tabs, cookies, keys.
    #[must_use]
    pub fn driver(&self) -> &WebDriver {
        &self.driver
    }

    /// Opens a page and waits until it is loaded.
    ///
    /// # Errors
    ///
    /// If it can't be reached; so for everything else: [`BrowserError`] says what failed.
    pub async fn open(&self, url: &str) -> Result<(), BrowserError> {
        Ok(self.driver.goto(url).await?)
    }

    /// The first element that a CSS selector fits.
    ///
    /// # Errors
    ///
    /// If there is none within 10 s; so for everything that takes a selector.
    pub async fn find(&self, selector: &str) -> Result<WebElement, BrowserError> {
        Ok(self.driver.query(By::Css(selector)).first().await?)
    }

    /// Clicks an element, as a pointer does: it has to be visible, and on top.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); and if it can't be clicked.
    pub async fn click(&self, selector: &str) -> Result<(), BrowserError> {
        Ok(self.find(selector).await?.click().await?)
    }

    /// Types into an element.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); and if nothing can be typed there.
    pub async fn type_text(&self, selector: &str, text: &str) -> Result<(), BrowserError> {
        Ok(self.find(selector).await?.send_keys(text).await?)
    }

    /// The text of an element as it is shown.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub async fn text(&self, selector: &str) -> Result<String, BrowserError> {
        Ok(self.find(selector).await?.text().await?)
    }

    /// Runs the body of a JavaScript function in the page and answers what it returns, a promise's value included.
    ///
    /// # Errors
    ///
    /// What the script throws.
    pub async fn run(&self, script: &str, arguments: Vec<Value>) -> Result<Value, BrowserError> {
        let returned = self.driver.execute(script, arguments).await?;
        Ok(returned.json().clone())
    }

    /// Waits until a JavaScript expression is true in the page, whatever it is or throws before.
    ///
    /// # Errors
    ///
    /// [`BrowserError::NeverTrue`] after 10 s, with its last value; else as [`run`](Self::run).
    pub async fn wait(&self, expression: &str) -> Result<(), BrowserError> {
        // What throws, since something isn't there yet, isn't true yet.
        let script = format!(
            "try {{ const value = {expression}; return [Boolean(value), String(value)]; }} \
             catch (error) {{ return [false, String(error)]; }}"
        );
        let deadline = Instant::now() + SOON;
        loop {
            let value = self.run(&script, Vec::new()).await?;
            if value[0] == true {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(BrowserError::NeverTrue {
                    expression: expression.to_owned(),
                    value: value[1].as_str().unwrap_or_default().to_owned(),
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Shows the page on another screen.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub async fn screen(&self, screen: Screen) -> Result<(), BrowserError> {
        let metrics = SetDeviceMetricsOverride {
            width: screen.width,
            height: screen.height,
            device_scale_factor: 1.0,
            mobile: screen.telephone,
            scale: None,
            screen_orientation: None,
        };
        self.driver.cdp().send(metrics).await?;
        Ok(())
    }

    /// Has the page find that its user prefers these colours.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub async fn color_scheme(&self, scheme: ColorScheme) -> Result<(), BrowserError> {
        let value = match scheme {
            ColorScheme::Light => "light",
            ColorScheme::Dark => "dark",
        };
        let feature = MediaFeature {
            name: "prefers-color-scheme".to_owned(),
            value: value.to_owned(),
        };
        let media = SetEmulatedMedia {
            media: None,
            features: Some(vec![feature]),
        };
        self.driver.cdp().send(media).await?;
        Ok(())
    }

    /// Writes what is on the screen to a PNG file.
    ///
    /// # Errors
    ///
    /// If it can't be written, or the browser is gone.
    pub async fn screenshot(&self, file: &Path) -> Result<(), BrowserError> {
        let png = self.driver.screenshot_as_png().await?;
        tokio::fs::write(file, png)
            .await
            .map_err(|source| BrowserError::Io {
                file: file.to_owned(),
                source,
            })
    }

    /// The errors that are on its console since it was last asked: what scripts threw, what the page's Content-Security-Policy
    /// forbade, what could not be loaded.
    ///
    /// # Errors
    ///
    /// If the browser is gone.
    pub async fn console_errors(&self) -> Result<Vec<String>, BrowserError> {
        let entries = self.driver.browser_log().await?;
        let errors = entries.into_iter().filter(|entry| entry.level == "SEVERE");
        Ok(errors.map(|entry| entry.message).collect())
    }

    /// Ends it. Dropping does that too, but blocks meanwhile.
    ///
    /// # Errors
    ///
    /// If it is gone already.
    pub async fn close(self) -> Result<(), BrowserError> {
        self.driver.quit().await?;
        // The driver's end is waited for, and that blocks.
        let process = self.process;
        let _ = tokio::task::spawn_blocking(move || drop(process)).await;
        Ok(())
    }
}

/// Why the browser did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrowserError {
    /// The browser, or its driver, refused or is gone.
    #[error("the browser: {0}")]
    Driver(#[from] WebDriverError),
    /// What was waited for never came.
    #[error("{expression} is still {value} after 10 s")]
    NeverTrue {
        /// What was to be true.
        expression: String,
        /// What it was in the end.
        value: String,
    },
    /// A screenshot could not be written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

async fn session(port: u16, tree: &Tree, folder: &Path) -> WebDriverResult<WebDriver> {
    let mut wanted = DesiredCapabilities::chrome();
    let chromium = tree.root().join("usr/lib/chromium/chromium");
    wanted.set_binary(&chromium.display().to_string())?;
    for argument in ARGUMENTS {
        wanted.add_arg(argument)?;
    }
    wanted.add_arg(&format!(
        "--user-data-dir={}",
        folder.join("profile").display()
    ))?;
    wanted.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    WebDriver::builder(format!("http://127.0.0.1:{port}"), wanted)
        .client(Client(http::agent(ANSWER)))
        .poller(Arc::new(ElementPollerWithTimeout::new(SOON, LOOK)))
        .await
}

/// Where the browser finds its libraries.
fn libraries(tree: &Tree) -> String {
    let folder = tree.libraries().display();
    format!("{folder}:{folder}/pulseaudio")
}

/// One family of fonts, the same on every machine.
fn font_configuration(tree: &Tree, folder: &Path) -> String {
    let alias = |family: &str, font: &str| {
        format!("<alias><family>{family}</family><prefer><family>{font}</family></prefer></alias>")
    };
    format!(
        "<?xml version=\"1.0\"?><!DOCTYPE fontconfig SYSTEM \"fonts.dtd\"><fontconfig><dir>{}</dir><cachedir>{}</cachedir>{}{}{}{}</fontconfig>",
        tree.root().join("usr/share/fonts").display(),
        folder.join("fonts").display(),
        alias("system-ui", "DejaVu Sans"),
        alias("sans-serif", "DejaVu Sans"),
        alias("serif", "DejaVu Serif"),
        alias("monospace", "DejaVu Sans Mono"),
    )
}

/// The lab's HTTP client, for the driver.
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send(&self, request: Request<Body<'_>>) -> WebDriverResult<Response<Bytes>> {
        let (head, body) = request.into_parts();
        let sent = match body {
            Body::Empty => http::send(&self.0, Request::from_parts(head, ())).await,
            Body::Json(json) => {
                http::send(&self.0, Request::from_parts(head, json.to_string())).await
            }
        };
        let (status, body) =
            sent.map_err(|error| WebDriverError::RequestFailed(error.to_string()))?;
        let mut answer = Response::new(Bytes::from(body));
        *answer.status_mut() = status;
        Ok(answer)
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self(self.0.clone()))
    }
}
