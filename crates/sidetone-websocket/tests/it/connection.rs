//! Open connections: what is queued, what is received, and how they end.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use sidetone_websocket::{Connection, ConnectionError, Message, Received, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    join,
    task::yield_now,
    time::{Instant, timeout},
};
use tokio_websockets::{CloseCode, Message as Sent};

use crate::support::{Peer, connected, connected_raw};

/// With this many of these messages the buffers of a connection over loopback are full.
const MANY: usize = 64;
const LONG: usize = 1 << 20;

fn long(number: usize) -> Message {
    Message::Binary(vec![number as u8; LONG])
}

fn is_text(message: &Message) -> bool {
    matches!(message, Message::Text(_))
}

/// The next message of data on the peer's side.
async fn take(peer: &mut Peer) -> Sent {
    loop {
        let message = peer.next().await.unwrap().unwrap();
        if !message.is_ping() && !message.is_pong() {
            return message;
        }
    }
}

/// Polls once and drops the future, again and again, until one is ready at its first poll.
macro_rules! polled_once_each {
    ($future:expr) => {
        loop {
            match $future.now_or_never() {
                Some(ready) => break ready,
                None => yield_now().await,
            }
        }
    };
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_read_and_its_backlog_can_be_dropped() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    (0..MANY).for_each(|it| connection.queue(long(it)));
    connection.queue(Message::Text("kept".into()));
    for number in 0..500 {
        let text = number.to_string();
        peer.send(Sent::text(text.clone())).await.unwrap();
        let received = timeout(Duration::from_secs(60), connection.next()).await;
        assert_eq!(received, Ok(Ok(Received::Text(text))));
    }
    let before = connection.queued();
    assert!(before > 2, "{before}");
    assert!(connection.drop_oldest(|it| !is_text(it)));
    assert_eq!(connection.queued(), before - 1);
    while connection.drop_oldest(|it| !is_text(it)) {}
    // The one that the socket has taken a part of, and the one that was not to be dropped.
    assert_eq!(connection.queued(), 2);

    let receive = async {
        let mut number = 0;
        loop {
            let message = take(&mut peer).await;
            match message.as_text() {
                Some(text) => {
                    assert_eq!(text, "kept");
                    return number;
                }
                None => {
                    assert_eq!(message.as_payload().len(), LONG);
                    assert!(message.as_payload().iter().all(|it| *it == number as u8));
                    number += 1;
                }
            }
        }
    };
    let (flushed, received) = join!(connection.flush(), receive);
    flushed.unwrap();
    assert_eq!(connection.queued(), 0);
    // Those before it were sent; two of the others are the text and one that was dropped first.
    assert_eq!(received, MANY + 2 - before);
}

#[tokio::test]
async fn queued_messages_leave_in_order_while_the_next_is_awaited() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    for number in 0..200_u8 {
        connection.queue(Message::Text(number.to_string()));
        connection.queue(Message::Binary(vec![number; 300]));
    }
    assert_eq!(connection.queued(), 400);
    let serve = async {
        for number in 0..200_u8 {
            assert_eq!(take(&mut peer).await.as_text(), Some(&*number.to_string()));
            let bytes = take(&mut peer).await;
            assert_eq!(**bytes.as_payload(), *vec![number; 300]);
        }
        peer.send(Sent::binary("done")).await.unwrap();
    };
    let (received, ()) = join!(connection.next(), serve);
    assert_eq!(received, Ok(Received::Binary("done".into())));
    assert_eq!(connection.queued(), 0);
}

#[tokio::test]
async fn a_long_message_is_one_frame() {
    let (mut connection, mut stream) = connected_raw(&Request::default()).await;
    let len = 5_usize << 20;
    connection.queue(Message::Binary(vec![0; len]));
    let read = async {
        let mut head = [0; 14];
        stream.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; len];
        stream.read_exact(&mut rest).await.unwrap();
        head
    };
    let (flushed, head) = join!(connection.flush(), read);
    flushed.unwrap();
    // The last fragment of a binary message, with a mask and a length of 64 bits.
    assert_eq!(head[..2], [0x82, 0xff]);
    assert_eq!(head[2..10], (len as u64).to_be_bytes());
}

#[tokio::test]
async fn a_cancelled_next_loses_nothing_in_either_direction() {
    let (mut connection, mut stream) = connected_raw(&Request::default()).await;
    for round in 0..3_u8 {
        connection.queue(Message::Binary(vec![round]));
        // Two fragments with a ping between them.
        let mut frames = vec![0x01, 0x02, b'a', b'b', 0x89, 0x00, 0x80, 0x01, b'0' + round];
        let last = frames.pop().unwrap();
        for byte in frames {
            stream.write_all(&[byte]).await.unwrap();
            for _ in 0..100 {
                assert_eq!(connection.next().now_or_never(), None);
                yield_now().await;
            }
        }
        stream.write_all(&[last]).await.unwrap();
        let received = polled_once_each!(connection.next());
        assert_eq!(received, Ok(Received::Text(format!("ab{round}"))));
        assert_eq!(connection.queued(), 0);
    }
    let mut received = Vec::new();
    connection.close(1000).now_or_never();
    stream.read_to_end(&mut received).await.unwrap();
    let mut kinds = Vec::new();
    let mut rest = &received[..];
    while let [kind, len, mask @ ..] = rest {
        let len = usize::from(len & 0x7f);
        kinds.push((
            *kind,
            mask[4..4 + len].iter().zip(mask).map(|(a, b)| a ^ b).next(),
        ));
        rest = &mask[4 + len..];
    }
    let expected = [
        (0x82, Some(0)),
        (0x8a, None),
        (0x82, Some(1)),
        (0x8a, None),
        (0x82, Some(2)),
        (0x8a, None),
        (0x88, Some(3)),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_cancelled_flush_loses_nothing() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    (0..MANY).for_each(|it| connection.queue(long(it)));
    for _ in 0..1000 {
        assert_eq!(connection.flush().now_or_never(), None);
        yield_now().await;
    }
    let receive = async {
        for number in 0..MANY {
            let message = take(&mut peer).await;
            assert_eq!(message.as_payload().len(), LONG);
            assert!(message.as_payload().iter().all(|it| *it == number as u8));
        }
    };
    let flush = async { polled_once_each!(connection.flush()) };
    let (flushed, ()) = join!(flush, receive);
    flushed.unwrap();
    assert_eq!(connection.queued(), 0);
}

#[tokio::test]
async fn fragments_arrive_as_one_message() {
    let (mut connection, mut stream) = connected_raw(&Request::default()).await;
    let text = "grüße";
    let (begin, end) = text.as_bytes().split_at(3);
    // Within a character.
    let mut frames = vec![0x01, begin.len() as u8];
    frames.extend(begin);
    frames.extend([0x8a, 0x00, 0x00, 0x00, 0x80, end.len() as u8]);
    frames.extend(end);
    frames.extend([0x02, 0x01, 1, 0x00, 0x01, 2, 0x80, 0x01, 3]);
    stream.write_all(&frames).await.unwrap();
    // A control frame may stand between them.
    assert_eq!(connection.next().await, Ok(Received::Pong));
    assert_eq!(connection.next().await, Ok(Received::Text(text.into())));
    let bytes = [1, 2, 3].as_slice().into();
    assert_eq!(connection.next().await, Ok(Received::Binary(bytes)));
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_an_error_whole_or_in_fragments() {
    let request = Request {
        max_message_len: 4,
        ..Request::default()
    };
    let allowed = [0x82, 4, 1, 2, 3, 4];
    for too_long in [
        [0x82, 5, 1, 2, 3, 4, 5].as_slice(),
        &[0x02, 4, 1, 2, 3, 4, 0x80, 1, 5],
        // Longer than any memory.
        &[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        let (mut connection, stream) = connected_raw(&request).await;
        let mut peer = tokio_websockets::ServerBuilder::new().serve(stream);
        peer.get_mut().write_all(&allowed).await.unwrap();
        peer.get_mut().write_all(too_long).await.unwrap();
        assert!(matches!(connection.next().await, Ok(Received::Binary(_))));
        let error = connection.next().await.unwrap_err();
        assert_eq!(error, ConnectionError::MessageTooLong { limit: 4 });
        assert_eq!(error.to_string(), "a message exceeds the limit of 4 bytes");
        assert_eq!(connection.next().await, Err(error));
        let closed = take(&mut peer).await;
        assert_eq!(closed.as_close().unwrap().0, CloseCode::MESSAGE_TOO_BIG);
    }
}

#[tokio::test]
async fn what_is_not_websocket_is_an_error() {
    let (mut connection, mut stream) = connected_raw(&Request::default()).await;
    stream.write_all(b"HTTP/1.1 500\r\n").await.unwrap();
    let error = connection.next().await.unwrap_err();
    assert!(matches!(error, ConnectionError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_close_arrives_with_its_code_and_reason_and_is_answered() {
    for (code, reason) in [(1000, ""), (1011, "out of workers"), (4001, "grüße")] {
        let (mut connection, mut peer) = connected(&Request::default()).await;
        let sent = CloseCode::try_from(code).unwrap();
        peer.send(Sent::close(Some(sent), reason)).await.unwrap();
        let reason = reason.to_owned();
        let received = connection.next().await;
        assert_eq!(received, Ok(Received::Closed { code, reason }));
        assert_eq!(take(&mut peer).await.as_close().unwrap().0, sent);
        connection.queue(Message::Text("late".into()));
        assert_eq!(connection.next().await, Err(ConnectionError::Closed));
        assert_eq!(connection.flush().await, Err(ConnectionError::Closed));
        connection.close(1000).await;
        assert!(peer.next().await.is_none());
    }
    let (mut connection, mut peer) = connected(&Request::default()).await;
    peer.send(Sent::close(None, "")).await.unwrap();
    let (code, reason) = (1005, String::new());
    let received = connection.next().await;
    assert_eq!(received, Ok(Received::Closed { code, reason }));
}

#[tokio::test]
async fn a_close_is_received_even_if_nothing_can_be_sent_any_more() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    peer.send(Sent::text("last words")).await.unwrap();
    let close = Sent::close(Some(CloseCode::INTERNAL_SERVER_ERROR), "out of workers");
    peer.send(close).await.unwrap();
    // Closing a socket with something to read resets its connection.
    connection.queue(Message::Text("unread".into()));
    connection.flush().await.unwrap();
    drop(peer);
    (0..100).for_each(|it| connection.queue(Message::Text(it.to_string())));
    let error = connection.flush().await.unwrap_err();
    assert!(matches!(error, ConnectionError::Network(_)), "{error}");
    let received = connection.next().await;
    assert_eq!(received, Ok(Received::Text("last words".into())));
    let (code, reason) = (1011, "out of workers".into());
    let received = connection.next().await;
    assert_eq!(received, Ok(Received::Closed { code, reason }));
}

#[tokio::test]
async fn a_connection_that_is_cut_off_says_so() {
    let (mut connection, peer) = connected(&Request::default()).await;
    drop(peer);
    assert_eq!(connection.next().await, Err(ConnectionError::CutOff));
    // In the middle of a message, too.
    let (mut connection, mut stream) = connected_raw(&Request::default()).await;
    stream.write_all(&[0x82, 5, 1]).await.unwrap();
    drop(stream);
    let error = connection.next().await.unwrap_err();
    assert_eq!(error, ConnectionError::CutOff);
}

#[tokio::test]
async fn a_close_comes_after_what_is_queued() {
    for (code, sent) in [(1000, 1000), (4002, 4002), (1005, 1000), (7, 1000)] {
        let (mut connection, mut peer) = connected(&Request::default()).await;
        connection.queue(Message::Text("stop".into()));
        let receive = async {
            // What comes meanwhile does not disturb it.
            peer.send(Sent::text("late")).await.unwrap();
            assert_eq!(take(&mut peer).await.as_text(), Some("stop"));
            let close = take(&mut peer).await;
            assert_eq!(u16::from(close.as_close().unwrap().0), sent);
            assert!(peer.next().await.is_none());
        };
        join!(connection.close(code), receive);
    }
}

/// Virtual time advances only while no task has work.
#[tokio::test(start_paused = true)]
async fn a_close_waits_no_longer_than_a_second() {
    let began = Instant::now();
    let (connection, _peer) = connected(&Request::default()).await;
    connection.close(1000).await;
    let (mut connection, _peer) = connected(&Request::default()).await;
    (0..MANY).for_each(|it| connection.queue(long(it)));
    connection.close(1000).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_ping_leaves_first_and_its_pong_is_received() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    connection.queue(Message::Text("queued".into()));
    connection.ping();
    connection.ping();
    let serve = async {
        assert!(peer.next().await.unwrap().unwrap().is_ping());
        assert_eq!(
            peer.next().await.unwrap().unwrap().as_text(),
            Some("queued")
        );
        // Reading sends the pong.
        assert!(peer.next().await.unwrap().unwrap().is_close());
    };
    let receive = async {
        assert_eq!(connection.next().await, Ok(Received::Pong));
        connection.close(1000).await;
    };
    join!(serve, receive);
}

/// Virtual time advances only while no task has work.
#[tokio::test(start_paused = true)]
async fn pings_without_end_end_the_connection_only_if_no_pong_is_taken() {
    let (mut connection, mut peer) = connected(&Request::default()).await;
    fill(&mut connection).await;
    // Fewer than too many unsent pongs stop nothing.
    for number in 0..100 {
        peer.send(Sent::ping("")).await.unwrap();
        let text = number.to_string();
        peer.send(Sent::text(text.clone())).await.unwrap();
        assert_eq!(connection.next().await, Ok(Received::Text(text)));
    }
    let flood = async {
        let ping = [[0x89, 125].as_slice(), &[0; 125]].concat().repeat(1000);
        while peer.get_mut().write_all(&ping).await.is_ok() {}
    };
    let receive = async {
        let received = timeout(Duration::from_secs(60), connection.next()).await;
        assert_eq!(received, Ok(Err(ConnectionError::PongsNotTaken)));
        drop(connection);
    };
    join!(flood, receive);

    // More than too many, each of which is taken.
    let (mut connection, mut peer) = connected(&Request::default()).await;
    let (mut pings, mut pongs) = {
        let (sink, stream) = (&mut peer).split();
        (sink, stream)
    };
    let send = async {
        for _ in 0..2000 {
            pings.send(Sent::ping(vec![0; 125])).await.unwrap();
        }
        pings.send(Sent::text("still here")).await.unwrap();
    };
    let take = async {
        for _ in 0..2000 {
            assert!(pongs.next().await.unwrap().unwrap().is_pong());
        }
    };
    let receive = async {
        assert_eq!(
            connection.next().await,
            Ok(Received::Text("still here".into()))
        );
        connection.flush().await.unwrap();
    };
    join!(send, take, receive);
}

/// Gives the connection more than its buffers can hold.
async fn fill(connection: &mut Connection) {
    (0..MANY).for_each(|it| connection.queue(long(it)));
    for _ in 0..1000 {
        assert_eq!(connection.flush().now_or_never(), None);
        yield_now().await;
    }
}
