//! The page.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

const PAGE: &str = include_str!("../page/index.html");

/// Nothing from elsewhere, nothing to elsewhere. The page's own script and style are in it, by their hashes.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy()),
    ];
    (headers, PAGE).into_response()
}

fn policy() -> String {
    let (script, style) = (hash("script"), hash("style"));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; media-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The hash of what is between `<TAG>` and `</TAG>`, as the policy names it.
fn hash(tag: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let content = PAGE
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(content, _)| content);
    let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_one_style_and_nothing_from_elsewhere() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1);
            assert_eq!(PAGE.matches(&format!("<{tag}>")).count(), 1);
        }
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            " style=",
            " onclick=",
        ] {
            assert!(!PAGE.contains(foreign), "{foreign}");
        }
    }
}
