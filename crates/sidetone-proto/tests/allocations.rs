//! A call that runs does not allocate.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use sidetone_proto::{
    CallConfig, CallMachine, Clip, Format, ItemId, Notice, Rate, Received, Time, filters_from,
};

mod support;
use support::{SLOT, frame, uuid_message};

/// A call and the buffers that a media thread shares among all of its calls.
struct Call {
    now: Time,
    machine: CallMachine,
    wire: Vec<u8>,
    pcm: Vec<i16>,
    frame: Vec<u8>,
    /// How the frames that come in are cut.
    cut: usize,
    reached: u64,
}

impl Call {
    fn new() -> Self {
        let mut machine = CallMachine::new(Time::ZERO, CallConfig::default());
        machine.handle_received(Time::ZERO, &uuid_message(), &mut |_| {});
        Self {
            now: Time::ZERO,
            machine,
            wire: Vec::new(),
            pcm: Vec::new(),
            frame: frame(&[500; 160]),
            cut: 0,
            reached: 0,
        }
    }

    /// 20 ms of the call: a frame comes in, and is echoed if asked for, and a slot goes out.
    fn run_slot(&mut self, is_echo: bool) {
        self.now += SLOT;
        self.cut = (self.cut + 1) % self.frame.len();
        let (begin, end) = self.frame.split_at(self.cut);
        let mut echo = [0; 160];
        let mut has_frame = false;
        for piece in [begin, end] {
            self.machine
                .handle_received(self.now, piece, &mut |received| {
                    if let Received::Audio { bytes, .. } = received {
                        for (sample, pair) in echo.iter_mut().zip(bytes.chunks(2)) {
                            *sample = i16::from_le_bytes([pair[0], pair[1]]);
                        }
                        has_frame = true;
                    }
                });
        }
        if is_echo && has_frame {
            self.machine
                .jitter_buffer()
                .push(self.now, Rate::Slin, &echo);
        }
        self.wire.clear();
        let reached = &mut self.reached;
        // The first live audio moves the schedule. From then on a slot is due a moment after the frame that it needs.
        let mut now = self.now;
        while self.wire.is_empty() {
            self.machine
                .poll_transmit(now, &mut self.wire, &mut self.pcm, &mut |notice| {
                    assert!(matches!(notice, Notice::Slot { .. } | Notice::Underrun));
                });
            now = self.machine.poll_timeout();
        }
        self.machine.handle_transmitted(&self.wire, self.wire.len());
        if self.machine.wants_poll_heard() {
            self.machine.poll_heard(Some(0), &mut |notice| {
                if let Notice::Ended { .. } = notice {
                    *reached += 1;
                }
            });
        }
    }
}

/// Allocations in the second minute of calls of `slot`.
fn allocations(mut slot: impl FnMut(&mut Call)) -> u64 {
    let mut call = Call::new();
    let mut minute = || {
        let until = call.now + Duration::from_secs(60);
        while call.now < until {
            slot(&mut call);
        }
    };
    minute();
    allocation_counter::measure(minute).count_total
}

#[test]
fn silence_allocates_nothing() {
    assert_eq!(allocations(|call| call.run_slot(false)), 0);
}

#[test]
fn an_echo_allocates_nothing() {
    assert_eq!(allocations(|call| call.run_slot(true)), 0);
}

#[test]
fn a_shared_clip_that_plays_again_and_again_allocates_nothing() {
    let clip = Clip::new(8_000, vec![700; 1000]).unwrap();
    let count = allocations(|call| {
        if call.machine.playout().is_empty() {
            let playout = call.machine.playout();
            playout.push_clip(clip.clone(), ItemId(1));
            playout.push_mark(ItemId(2));
        }
        call.run_slot(false);
    });
    assert_eq!(count, 0);
}

#[test]
fn a_queue_that_is_kept_full_allocates_nothing() {
    let count = allocations(|call| {
        let now = call.now;
        while call.machine.playout().queued() < Duration::from_secs(2) {
            call.machine.playout().push(now, Rate::Slin, &[300; 320]);
        }
        call.run_slot(false);
    });
    assert_eq!(count, 0);
}

#[test]
fn what_is_resampled_when_it_is_due_allocates_nothing() {
    let filters = filters_from(24_000).unwrap();
    let count = allocations(|call| {
        let now = call.now;
        while call.machine.playout().queued() < Duration::from_secs(2) {
            let format = Format::From(Arc::clone(&filters));
            let playout = call.machine.playout();
            playout.push_piece(now, None, format, [300; 320][..].into());
        }
        call.run_slot(false);
    });
    assert_eq!(count, 0);
}

#[test]
fn a_looped_clip_without_a_variant_allocates_nothing() {
    let clip = Clip::new(44_100, vec![700; 1_000]).unwrap().looped();
    let count = allocations(|call| {
        if call.machine.playout().is_empty() {
            call.machine.playout().push_clip(clip.clone(), ItemId(1));
        }
        call.run_slot(false);
    });
    assert_eq!(count, 0);
}

#[test]
fn the_count_is_of_allocations() {
    let mut kept = Vec::new();
    assert!(
        allocations(|call| {
            call.run_slot(false);
            kept.push(vec![0_u8; 10]);
        }) >= 3000
    );
}
