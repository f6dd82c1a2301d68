//! Calls that are silent but for 20 ms each second: `callers ADDRESS CALLS SECONDS`. It prints when each sound was sent and when it was
//! heard, CALL SENT HEARD in nanoseconds, and how many frames came back.

use std::{env::args, time::Duration};

use sidetone_bench_bots::{BRIDGED, now};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval_at, timeout_at},
};

const FRAME: usize = 320;
const AUDIO: u8 = 0x10;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut words = args().skip(1);
    let address = words.next().unwrap();
    let calls: u32 = words.next().unwrap().parse().unwrap();
    let seconds: u64 = words.next().unwrap().parse().unwrap();
    let begin = Instant::now() + Duration::from_millis(500);
    let end = begin + Duration::from_secs(seconds);
    let mut running = JoinSet::new();
    for call in 0..calls {
        // Their schedules are spread evenly.
        let begin = begin + Duration::from_millis(20) * call / calls;
        running.spawn(place(address.clone(), call, begin, end));
    }
    let mut frames = 0;
    while let Some(call) = running.join_next().await {
        let (lines, count) = call.unwrap();
        frames += count;
        lines.iter().for_each(|line| println!("{line}"));
    }
    println!("frames {frames}");
}

async fn place(address: String, call: u32, begin: Instant, end: Instant) -> (Vec<String>, u64) {
    let mut id = BRIDGED.to_vec();
    id.extend(u64::from(call).to_be_bytes());
    let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (reader, mut writer) = stream.into_split();
    writer.write_all(&[&[1, 0, 16], &id[..]].concat()).await.unwrap();
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        let mut clock = interval_at(begin, Duration::from_millis(20));
        let mut number = 0_u32;
        while Instant::now() < end {
            clock.tick().await;
            number += 1;
            // Not all at once, and not while bots are still being connected.
            let is_sound = number > 50 && (number + call) % 50 == 0;
            let byte = if is_sound { 0x20 } else { 0 };
            let mut frame = vec![AUDIO, (FRAME >> 8) as u8, FRAME as u8];
            frame.extend([byte; FRAME]);
            if is_sound {
                sent.push(now());
            }
            if writer.write_all(&frame).await.is_err() {
                break;
            }
        }
        sent
    });
    let mut reader = BufReader::new(reader);
    let (mut heard, mut count, mut was_sound) = (Vec::new(), 0, false);
    let mut payload = Vec::new();
    // A relay does not end a call.
    while let Ok(Ok(kind)) = timeout_at(end + Duration::from_millis(300), reader.read_u8()).await {
        let Ok(length) = reader.read_u16().await else { break };
        payload.resize(length.into(), 0);
        if reader.read_exact(&mut payload).await.is_err() {
            break;
        }
        let is_sound = kind == AUDIO && payload.iter().any(|byte| *byte != 0);
        if is_sound && !was_sound {
            heard.push(now());
        }
        was_sound = is_sound;
        count += u64::from(kind == AUDIO);
    }
    let sent = sending.await.unwrap();
    let lines = sent.into_iter().map(|sent| {
        let heard = heard.iter().find(|heard| **heard > sent);
        format!("{name} {sent} {}", heard.copied().unwrap_or(0))
    });
    (lines.collect(), count)
}
