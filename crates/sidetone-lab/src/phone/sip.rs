//! SIP (RFC 3261), as much of it as one outgoing call over loopback needs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The call as both ends know it.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    number: String,
    peer: SocketAddr,
    here: SocketAddr,
    id: String,
    /// Asterisk's name for itself in this call: its `To` with a tag, and where it wants requests.
    to: String,
    target: String,
}

/// A request or a response.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) first_line: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Dialog {
    pub(super) fn new(number: &str, peer: SocketAddr, here: SocketAddr) -> Self {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        let id = format!(
            "{}-{}-{}",
            std::process::id(),
            here.port(),
            CALLS.fetch_add(1, Ordering::Relaxed)
        );
        let target = format!("sip:{number}@{peer}");
        Self {
            number: number.to_owned(),
            peer,
            here,
            id,
            to: format!("<{target}>"),
            target,
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Takes from the answer what the other end is called.
    pub(super) fn answered(&mut self, answer: &Message) {
        answer.get("To").clone_into(&mut self.to);
        if let Some((_, uri)) = answer.get("Contact").split_once('<')
            && let Some((uri, _)) = uri.split_once('>')
        {
            uri.clone_into(&mut self.target);
        }
    }

    pub(super) fn invite(&self, offer: &str) -> String {
        self.request("INVITE", "INVITE", 1, self.here, offer)
    }

    /// Confirms the answer to the INVITE: for a refusal as part of the same transaction, for an acceptance in one of its own.
    pub(super) fn ack(&self, status: u16) -> String {
        self.request(
            "ACK",
            if status < 300 { "ACK" } else { "INVITE" },
            1,
            self.here,
            "",
        )
    }

    pub(super) fn bye(&self, from: SocketAddr) -> String {
        self.request("BYE", "BYE", 2, from, "")
    }

    fn request(
        &self,
        method: &str,
        transaction: &str,
        number: u32,
        from: SocketAddr,
        body: &str,
    ) -> String {
        let Self {
            number: dialled,
            peer,
            here,
            id,
            to,
            ..
        } = self;
        // A refusal is confirmed to the number that was dialled, all else in an accepted call goes to where Asterisk wants it.
        let target = if transaction == "INVITE" {
            &format!("sip:{dialled}@{peer}")
        } else {
            &self.target
        };
        let content = if body.is_empty() {
            ""
        } else {
            "Content-Type: application/sdp\r\n"
        };
        format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {from};branch=z9hG4bK{id}-{transaction};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:phone@{here}>;tag={id}\r\n\
             To: {to}\r\n\
             Call-ID: {id}\r\n\
             CSeq: {number} {method}\r\n\
             Contact: <sip:phone@{here}>\r\n\
             {content}Content-Length: {length}\r\n\r\n{body}",
            length = body.len(),
        )
    }
}

impl Message {
    pub(super) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let first_line = lines.next().unwrap_or_default().to_owned();
        let header = |line: &str| {
            line.split_once(':')
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        };
        Self {
            first_line,
            headers: lines.filter_map(header).collect(),
            body: body.to_owned(),
        }
    }

    /// The number of a response.
    pub(super) fn status(&self) -> Option<u16> {
        self.first_line
            .strip_prefix("SIP/2.0 ")?
            .split(' ')
            .next()?
            .parse()
            .ok()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> Option<&str> {
        if self.status().is_some() {
            None
        } else {
            self.first_line.split(' ').next()
        }
    }

    /// The first header of that name, or nothing.
    pub(super) fn get(&self, key: &str) -> &str {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map_or("", |(_, value)| value)
    }

    /// The response that agrees to this request.
    pub(super) fn ok(&self) -> String {
        let mut text = "SIP/2.0 200 OK\r\n".to_owned();
        for (key, value) in &self.headers {
            if ["via", "from", "to", "call-id", "cseq"].contains(&key.to_ascii_lowercase().as_str())
            {
                text.push_str(&format!("{key}: {value}\r\n"));
            }
        }
        text + "Content-Length: 0\r\n\r\n"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_call_is_confirmed_and_ended_where_the_answer_says() {
        let mut dialog = Dialog::new(
            "100",
            "127.0.0.1:5060".parse().unwrap(),
            "127.0.0.1:4000".parse().unwrap(),
        );
        assert!(
            dialog
                .invite("v=0\r\n")
                .starts_with("INVITE sip:100@127.0.0.1:5060 SIP/2.0\r\n")
        );
        dialog.answered(&Message::parse(
            "SIP/2.0 200 OK\r\nTo: <sip:100@127.0.0.1:5060>;tag=x\r\nContact: <sip:127.0.0.1:5061>\r\n\r\nv=0\r\n",
        ));
        assert!(
            dialog
                .ack(200)
                .starts_with("ACK sip:127.0.0.1:5061 SIP/2.0\r\n")
        );
        let bye = Message::parse(&dialog.bye("127.0.0.1:4001".parse().unwrap()));
        assert_eq!(bye.method(), Some("BYE"));
        assert_eq!(bye.get("to"), "<sip:100@127.0.0.1:5060>;tag=x");
        assert_eq!(bye.get("CSeq"), "2 BYE");
    }

    #[test]
    fn a_refusal_is_confirmed_in_the_same_transaction() {
        let mut dialog = Dialog::new(
            "100",
            "127.0.0.1:5060".parse().unwrap(),
            "127.0.0.1:4000".parse().unwrap(),
        );
        let invite = Message::parse(&dialog.invite("v=0\r\n"));
        dialog.answered(&Message::parse(
            "SIP/2.0 486 Busy Here\r\nTo: <sip:100@127.0.0.1:5060>;tag=y\r\n\r\n",
        ));
        let ack = Message::parse(&dialog.ack(486));
        assert_eq!(ack.get("Via"), invite.get("Via"));
        assert_eq!(ack.first_line, "ACK sip:100@127.0.0.1:5060 SIP/2.0");
    }
}
