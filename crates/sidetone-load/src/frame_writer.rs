use std::net::TcpStream;

use rustix::io::Errno;
use sidetone_driver::{Driver, Sent, Token};

/// Writes one connection's messages in order. Keeps what the driver has not taken yet.
pub(crate) struct FrameWriter {
    /// Bytes that leave before anything else.
    pending: Vec<u8>,
    /// The driver took over a send and has not reported its result.
    in_flight: bool,
    /// The driver reports when the socket is writable.
    write_interest: bool,
}

impl FrameWriter {
    /// The writer of a connection that is being made, whose socket is writable once it is made.
    pub(crate) fn new() -> Self {
        Self {
            pending: Vec::new(),
            in_flight: false,
            write_interest: true,
        }
    }

    /// Whether all messages have been sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.in_flight
    }

    /// Sends a message, or keeps it until the ones before it have been sent.
    pub(crate) fn write(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
        message: &[u8],
    ) -> Result<(), Errno> {
        if !self.is_idle() {
            self.pending.extend_from_slice(message);
            return Ok(());
        }
        match driver.send(token, stream, message) {
            Sent::Accepted(count) => self.pending.extend_from_slice(&message[count..]),
            Sent::Pending => self.in_flight = true,
            Sent::Failed(error) => return Err(error),
        }
        self.update_write_interest(driver, token, stream);
        Ok(())
    }

    /// The send in flight is done, except for the bytes in `unsent`.
    pub(crate) fn handle_sent(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
        unsent: &[u8],
    ) -> Result<(), Errno> {
        self.in_flight = false;
        self.pending.splice(..0, unsent.iter().copied());
        if unsent.is_empty() && !self.pending.is_empty() {
            return self.flush(driver, token, stream);
        }
        self.update_write_interest(driver, token, stream);
        Ok(())
    }

    /// Sends what is pending, now that the socket is writable.
    pub(crate) fn flush(
        &mut self,
        driver: &mut dyn Driver,
        token: Token,
        stream: &TcpStream,
    ) -> Result<(), Errno> {
        if self.in_flight {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            self.update_write_interest(driver, token, stream);
            return Ok(());
        }
        self.write(driver, token, stream, &pending)
    }

    fn update_write_interest(&mut self, driver: &mut dyn Driver, token: Token, stream: &TcpStream) {
        let wanted = !self.pending.is_empty() && !self.in_flight;
        if wanted != self.write_interest {
            driver.set_write_interest(token, stream, wanted);
            self.write_interest = wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::VecDeque, io, net::TcpListener, time::Duration};

    use sidetone_driver::{IoBackend, IoEvent, PendingRead};

    use super::*;

    /// Answers each send from a list, and records what was sent and the write interest.
    #[derive(Default)]
    struct MockDriver {
        answers: VecDeque<Sent>,
        sends: Vec<Vec<u8>>,
        write_interest: bool,
    }

    impl Driver for MockDriver {
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
            self.write_interest = wanted;
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

    fn connected(answers: &[Sent]) -> (FrameWriter, MockDriver, Token, TcpStream) {
        let answers = answers.iter().copied().collect();
        let mut driver = MockDriver {
            answers,
            write_interest: true,
            ..MockDriver::default()
        };
        let (mut writer, token, stream) = (FrameWriter::new(), Token::default(), stream());
        writer.flush(&mut driver, token, &stream).unwrap();
        assert!(!driver.write_interest);
        (writer, driver, token, stream)
    }

    #[test]
    fn what_the_kernel_did_not_take_is_sent_before_anything_else() {
        let (mut writer, mut driver, token, stream) =
            connected(&[Sent::Accepted(2), Sent::Accepted(6)]);
        writer.write(&mut driver, token, &stream, b"first").unwrap();
        assert!(!writer.is_idle() && driver.write_interest);
        writer.write(&mut driver, token, &stream, b"two").unwrap();
        writer.flush(&mut driver, token, &stream).unwrap();
        assert_eq!(driver.sends, [b"first".to_vec(), b"rsttwo".to_vec()]);
        assert!(writer.is_idle() && !driver.write_interest);
    }

    #[test]
    fn nothing_is_sent_while_a_send_is_in_flight() {
        let (mut writer, mut driver, token, stream) = connected(&[Sent::Pending; 3]);
        writer.write(&mut driver, token, &stream, b"first").unwrap();
        writer.write(&mut driver, token, &stream, b"two").unwrap();
        assert_eq!(driver.sends.len(), 1);
        writer
            .handle_sent(&mut driver, token, &stream, b"st")
            .unwrap();
        assert!(driver.sends.len() == 1 && driver.write_interest);
        writer.flush(&mut driver, token, &stream).unwrap();
        assert_eq!(driver.sends[1], b"sttwo");
        assert!(!writer.is_idle() && !driver.write_interest);
        writer
            .handle_sent(&mut driver, token, &stream, b"")
            .unwrap();
        assert!(writer.is_idle());
    }

    #[test]
    fn what_was_written_during_a_send_follows_it_at_once() {
        let (mut writer, mut driver, token, stream) = connected(&[Sent::Pending; 2]);
        writer.write(&mut driver, token, &stream, b"first").unwrap();
        writer.write(&mut driver, token, &stream, b"two").unwrap();
        writer
            .handle_sent(&mut driver, token, &stream, b"")
            .unwrap();
        assert_eq!(driver.sends, [b"first".to_vec(), b"two".to_vec()]);
    }
}
