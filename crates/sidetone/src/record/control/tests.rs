use super::*;

fn at(milliseconds: u64) -> Time {
    Time::ZERO + Duration::from_millis(milliseconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// How many samples of this frame of 20 ms of ones come through, and where the first and the last of them are.
fn heard(
    filter: &mut PauseFilter,
    pauses: &[Pause],
    side: Side,
    came: Time,
    offset: Duration,
) -> Option<(usize, usize)> {
    let frame = TapFrame::of(side, Rate::Slin, came, offset, 160);
    let samples = filter.apply(pauses, Time::ZERO, &frame, &[1; 160]);
    assert_eq!(samples.len(), 160);
    let first = samples.iter().position(|sample| *sample != 0)?;
    let last = samples.iter().rposition(|sample| *sample != 0)?;
    Some((first, last + 1))
}

fn pause(from: u64, to: u64) -> Pause {
    Pause {
        from: at(from),
        to: Some(at(to)),
    }
}

#[test]
fn nothing_of_a_pause_is_heard_to_the_sample() {
    for (side, resumed) in [(Side::Server, 2_000), (Side::Caller, 2_020)] {
        let mut filter = PauseFilter::default();
        for came in 0..3_000 {
            let offset = ms(came).saturating_sub(ms(20));
            let pauses = [pause(1_005, 2_000)];
            let part = heard(&mut filter, &pauses, side, at(came), offset);
            // In the file the frame lies from where it came on.
            match part {
                None => assert!((1_005..resumed).contains(&came)),
                Some((first, end)) if came < 1_500 => {
                    assert!(first == 0 && came + end as u64 / 8 <= 1_005);
                    assert!(end == 160 || came + end as u64 / 8 == 1_005);
                }
                Some((first, end)) => {
                    // What the caller said in a frame was said before the frame came.
                    assert!(end == 160 && came + first as u64 / 8 >= resumed);
                    assert!(first <= 1 || came + first as u64 / 8 == resumed);
                }
            }
        }
    }
}

#[test]
fn an_open_pause_silences_all_that_follows() {
    let open = Pause {
        from: at(100),
        to: None,
    };
    let mut filter = PauseFilter::default();
    for side in [Side::Caller, Side::Server] {
        let mut heard = |came| heard(&mut filter, &[open], side, at(came), ms(came - 20));
        assert_eq!(heard(80), Some((0, 160)));
        assert_eq!(heard(90), Some((0, 80)));
        assert_eq!(heard(100), None);
        assert_eq!(heard(1_000_000), None);
    }
}

#[test]
fn what_a_freeze_held_back_beyond_the_resumption_is_not_heard_either() {
    let mut filter = PauseFilter::default();
    let pauses = [pause(1_000, 3_000)];
    for frame in 0..300 {
        // Everything said between 2 and 4 s comes at 4 s.
        let said = 20 * frame;
        let came = match said {
            2_000..4_000 => 4_020,
            _ => said + 20,
        };
        let part = heard(&mut filter, &pauses, Side::Caller, at(came), ms(said));
        let is_secret = (980..3_000).contains(&said);
        assert_eq!(part.is_none(), is_secret, "said at {said} ms");
    }
}

#[test]
fn a_slow_clock_of_the_caller_costs_nothing_after_a_pause() {
    let mut filter = PauseFilter::default();
    // 300 ppm for two hours are two seconds.
    let came = |frame: u64| Time::from_nanos(frame * 20_006_000);
    let resumed = came(359_999);
    let pauses = [Pause {
        from: came(359_000),
        to: Some(resumed),
    }];
    for frame in 0..360_002 {
        let part = heard(
            &mut filter,
            &pauses,
            Side::Caller,
            came(frame),
            ms(20 * frame),
        );
        let is_paused = (359_000..360_000).contains(&frame);
        assert_eq!(
            part.is_some_and(|(first, _)| first < 2),
            !is_paused,
            "{frame}"
        );
    }
}

#[test]
fn requests_may_be_repeated_and_end_with_the_recording() {
    let mut requests = Requests::default();
    requests.resume(at(5));
    requests.pause(at(10));
    requests.pause(at(20));
    assert_eq!(requests.paused(at(30)), ms(20));
    requests.resume(at(40));
    requests.resume(at(50));
    assert_eq!(requests.pauses, [pause(10, 40)]);
    requests.pause(at(100));
    requests.stop(at(120));
    requests.stop(at(130));
    requests.resume(at(140));
    assert_eq!(requests.stopped, Some(at(120)));
    assert_eq!(requests.paused(at(1_000)), ms(30 + 20));

    let control = Control::default();
    control.pause();
    control.resume();
    control.end(clock::now());
    let paused = control.paused();
    control.pause();
    control.stop();
    assert!(!control.is_paused() && !control.is_stopped());
    assert_eq!(control.paused(), paused);
}

#[test]
fn pauses_are_bounded_and_those_that_merge_let_nothing_through() {
    let mut requests = Requests::default();
    for second in 0..1_000 {
        requests.pause(at(1_000 * second));
        requests.resume(at(1_000 * second + 500));
    }
    assert_eq!(requests.pauses.len(), MAX_PAUSES);
    assert_eq!(requests.pauses[62], pause(62_000, 62_500));
    assert_eq!(requests.pauses[63], pause(63_000, 999_500));
    let paused = ms(63 * 500 + 936_500);
    assert_eq!(requests.paused(at(2_000_000)), paused);
    // The writer has written all that.
    requests.forget_before(at(2_000_000));
    assert!(requests.pauses.is_empty());
    assert_eq!(requests.paused(at(2_000_000)), paused);
}
