use std::fmt;

/// What else may come to the port of an AudioSocket server, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OtherProtocol {
    /// A request, of a browser or a health check.
    Http,
    /// A request to become a WebSocket.
    WebSocket,
    /// The beginning of an encrypted connection.
    Tls,
    /// A SIP request, of a phone or a trunk.
    Sip,
    /// A load balancer's line about the client that it stands for.
    Proxy,
    /// Text of another kind, such as the greeting of SSH.
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

/// The first bytes of the PROXY protocol's second version; the first begins with its name.
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

    /// What a connection speaks whose first bytes these are, if it can't be AudioSocket. That begins with a UUID, so
    /// with a byte of 1.
    pub fn of(first: &[u8]) -> Option<Self> {
        let begins = |with: &[&[u8]]| with.iter().any(|word| first.starts_with(word));
        if begins(&[b"PROXY ", PROXY_2]) {
            Some(Self::Proxy)
        } else if begins(&SIP_METHODS) && (holds(first, b" sip:") || holds(first, b" sips:")) {
            Some(Self::Sip)
        } else if begins(&HTTP_METHODS) && holds(first, b"upgrade: websocket") {
            Some(Self::WebSocket)
        } else if begins(&HTTP_METHODS) {
            Some(Self::Http)
        } else if matches!(first, [0x16, 0x03, 0..=4, ..]) {
            // A record of a handshake, of any version.
            Some(Self::Tls)
        } else {
            // No kind of message is a letter, so a beginning that was cut is told, too.
            matches!(first, [b'\r' | b'\n' | b' '..=b'~', ..]).then_some(Self::Text)
        }
    }
}

/// Whether `text` has `part` in it, in capitals or not.
fn holds(text: &[u8], part: &[u8]) -> bool {
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
