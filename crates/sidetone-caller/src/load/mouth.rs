use {
    rustix::io::Errno,
    sidetone_driver::{Driver, Sent, Token},
    std::net::TcpStream,
};

/// What a call has said and the driver has not taken.
pub(super) struct Mouth {
    /// What is to go next. Nothing else is sent before it.
    rest: Vec<u8>,
    /// The engine has taken something over and has not reported what became of it.
    handed_over: bool,
    waits_for_room: bool,
}

impl Mouth {
    /// Of a connection that is being made, whose room is waited for.
    pub(super) fn new() -> Self {
        Self {
            rest: Vec::new(),
            handed_over: false,
            waits_for_room: true,
        }
    }

    /// Whether all that was said is on its way.
    pub(super) fn is_free(&self) -> bool {
        self.rest.is_empty() && !self.handed_over
    }

    /// Says a message, or keeps it until what was said before is on its way.
    pub(super) fn say(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
        message: &[u8],
    ) -> Result<(), Errno> {
        if !self.is_free() {
            self.rest.extend_from_slice(message);
            return Ok(());
        }
        match driver.send(token, stream, message) {
            Sent::Accepted(count) => self.rest.extend_from_slice(&message[count..]),
            Sent::Pending => self.handed_over = true,
            Sent::Failed(error) => return Err(error),
        }
        self.follow_room(driver, token, stream);
        Ok(())
    }

    /// Of what was handed over, `unsent` has not been sent.
    pub(super) fn note_sent(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
        unsent: &[u8],
    ) -> Result<(), Errno> {
        self.handed_over = false;
        self.rest.splice(..0, unsent.iter().copied());
        if unsent.is_empty() && !self.rest.is_empty() {
            return self.go_on(driver, token, stream);
        }
        self.follow_room(driver, token, stream);
        Ok(())
    }

    /// Sends what was kept, once there is room.
    pub(super) fn go_on(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
    ) -> Result<(), Errno> {
        if self.handed_over {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            self.follow_room(driver, token, stream);
            return Ok(());
        }
        self.say(driver, token, stream, &rest)
    }

    fn follow_room(&mut self, driver: &mut dyn Driver, token: Token, stream: &TcpStream) {
        let wanted = !self.rest.is_empty() && !self.handed_over;
        if wanted != self.waits_for_room {
            driver.set_write_interest(token, stream, wanted);
            self.waits_for_room = wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use sidetone_driver::{IoBackend, IoEvent, PendingRead};
    use std::{collections::VecDeque, io, net::TcpListener, time::Duration};

    /// Answers each send as it is told, and notes what was sent and whether room is waited for.
    #[derive(Default)]
    struct Told {
        answers: VecDeque<Sent>,
        sends: Vec<Vec<u8>>,
        waits_for_room: bool,
    }

    impl Driver for Told {
        fn backend(&self) -> IoBackend {
            IoBackend::Auto
        }
        fn listen(&mut self, _: &TcpListener) -> io::Result<()> {
            Ok(())
        }
        fn stop_listening(&mut self, _: &TcpListener) {}
        fn register(&mut self, _: Token, _: &TcpStream) -> io::Result<()> {
            Ok(())
        }
        fn deregister(&mut self, _: Token, _: TcpStream) {}
        fn send(&mut self, _: Token, _: &TcpStream, wire: &[u8]) -> Sent {
            self.sends.push(wire.to_vec());
            self.answers.pop_front().unwrap()
        }
        fn set_write_interest(&mut self, _: Token, _: &TcpStream, wanted: bool) {
            self.waits_for_room = wanted;
        }
        fn wait(&mut self, _: Option<Duration>, _: Duration) -> io::Result<()> {
            Ok(())
        }
        fn next_event(&mut self) -> Option<IoEvent> {
            None
        }
        fn read(&mut self, _: PendingRead, _: &TcpStream) -> Result<&[u8], Errno> {
            Err(Errno::AGAIN)
        }
    }

    fn stream() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    fn connected(answers: &[Sent]) -> (Mouth, Told, Token, TcpStream) {
        let answers = answers.iter().copied().collect();
        let mut driver = Told {
            answers,
            waits_for_room: true,
            ..Told::default()
        };
        let (mut mouth, token, stream) = (Mouth::new(), Token::default(), stream());
        mouth.go_on(&mut driver, token, &stream).unwrap();
        assert!(!driver.waits_for_room);
        (mouth, driver, token, stream)
    }

    #[test]
    fn what_the_kernel_leaves_over_goes_before_anything_else() {
        let (mut mouth, mut driver, token, stream) =
            connected(&[Sent::Accepted(2), Sent::Accepted(6)]);
        mouth.say(&mut driver, token, &stream, b"first").unwrap();
        assert!(!mouth.is_free() && driver.waits_for_room);
        mouth.say(&mut driver, token, &stream, b"two").unwrap();
        mouth.go_on(&mut driver, token, &stream).unwrap();
        assert_eq!(driver.sends, [b"first".to_vec(), b"rsttwo".to_vec()]);
        assert!(mouth.is_free() && !driver.waits_for_room);
    }

    #[test]
    fn nothing_is_sent_while_a_send_is_with_the_engine() {
        let (mut mouth, mut driver, token, stream) = connected(&[Sent::Pending; 3]);
        mouth.say(&mut driver, token, &stream, b"first").unwrap();
        mouth.say(&mut driver, token, &stream, b"two").unwrap();
        assert_eq!(driver.sends.len(), 1);
        mouth.note_sent(&mut driver, token, &stream, b"st").unwrap();
        assert!(driver.sends.len() == 1 && driver.waits_for_room);
        mouth.go_on(&mut driver, token, &stream).unwrap();
        assert_eq!(driver.sends[1], b"sttwo");
        assert!(!mouth.is_free() && !driver.waits_for_room);
        mouth.note_sent(&mut driver, token, &stream, b"").unwrap();
        assert!(mouth.is_free());
    }

    #[test]
    fn what_was_kept_meanwhile_follows_at_once() {
        let (mut mouth, mut driver, token, stream) = connected(&[Sent::Pending; 2]);
        mouth.say(&mut driver, token, &stream, b"first").unwrap();
        mouth.say(&mut driver, token, &stream, b"two").unwrap();
        mouth.note_sent(&mut driver, token, &stream, b"").unwrap();
        assert_eq!(driver.sends, [b"first".to_vec(), b"two".to_vec()]);
    }
}
