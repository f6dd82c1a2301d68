use std::fmt;

/// Another protocol at the port of an AudioSocket server, recognized by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OtherProtocol {
    /// An HTTP request, from a browser or a health check.
    Http,
    /// A WebSocket handshake.
    WebSocket,
    /// A TLS handshake.
    Tls,
    /// A SIP request, from a phone or a trunk.
    Sip,
    /// The PROXY protocol, in which a load balancer names its client.
    Proxy,
    /// Other text, such as the banner of SSH.
    Text,
}

const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
];
const SIP_METHODS: [&[u8]; 6] = [
    b"INVITE ",
    b"REGISTER ",
    b"OPTIONS ",
    b"SUBSCRIBE ",
    b"NOTIFY ",
    b"MESSAGE ",
];

/// The signature of the PROXY protocol, version 2. Version 1 begins with `PROXY `.
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

impl OtherProtocol {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Http,
        Self::WebSocket,
        Self::Tls,
        Self::Sip,
        Self::Proxy,
        Self::Text,
    ];

    /// The protocol of a connection that begins with `first`; `None` if it may be AudioSocket, which begins with a
    /// UUID message and so with the byte 1.
    pub fn of(first: &[u8]) -> Option<Self> {
        let begins = |with: &[&[u8]]| with.iter().any(|word| first.starts_with(word));
        if begins(&[b"PROXY ", PROXY_2]) {
            Some(Self::Proxy)
        } else if begins(&SIP_METHODS)
            && (contains_ignoring_case(first, b" sip:") || contains_ignoring_case(first, b" sips:"))
        {
            Some(Self::Sip)
        } else if begins(&HTTP_METHODS) && contains_ignoring_case(first, b"upgrade: websocket") {
            Some(Self::WebSocket)
        } else if begins(&HTTP_METHODS) {
            Some(Self::Http)
        } else if matches!(first, [0x16, 0x03, 0..=4, ..]) {
            // A handshake record, of any version.
            Some(Self::Tls)
        } else {
            // No kind of message is a letter, so a request that was cut short is recognized, too.
            matches!(first, [b'\r' | b'\n' | b' '..=b'~', ..]).then_some(Self::Text)
        }
    }
}

/// Whether `text` contains `part`, in any case.
fn contains_ignoring_case(text: &[u8], part: &[u8]) -> bool {
    let mut windows = text.windows(part.len());
    windows.any(|window| window.eq_ignore_ascii_case(part))
}

impl fmt::Display for OtherProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::WebSocket => "WebSocket",
            Self::Tls => "TLS",
            Self::Sip => "SIP",
            Self::Proxy => "the PROXY protocol",
            Self::Text => "text",
        })
    }
}
