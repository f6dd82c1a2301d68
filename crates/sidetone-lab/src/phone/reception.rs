//! How well a phone hears: what its RTP packets tell about the sender's clock.

use std::time::Duration;

use super::Packet;

/// What a row of packets has in common with an ideal one, in which every packet follows the one before by exactly its length.
///
/// Asterisk jumps the timestamp and sets the marker when what it is given is more than 80 ms out of step (measured on 22.10), and a
/// phone's jitter buffer starts anew at each: an audible break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reception {
    /// How many packets of sound there were.
    pub packets: usize,
    /// How many are missing, by their sequence numbers.
    pub lost: usize,
    /// How many bear a marker, besides the first.
    pub markers: usize,
    /// How many bear a timestamp other than the one that follows from the packet before.
    pub jumps: usize,
    /// The time between the arrivals of one packet and the next, shortest first.
    pub gaps: Vec<Duration>,
}

impl Reception {
    /// Judges packets in the order in which they came; keys among them are passed over.
    #[must_use]
    pub fn of(packets: &[Packet]) -> Self {
        let sound: Vec<&Packet> = packets.iter().filter(|packet| packet.is_sound()).collect();
        let pairs = || sound.windows(2).map(|pair| (pair[0], pair[1]));
        let step = |packet: &Packet| u32::try_from(packet.payload.len()).unwrap_or(u32::MAX);
        let missing = |(one, next): (&Packet, &Packet)| {
            // A packet that comes late or twice is none that is missing.
            let ahead = next.sequence.wrapping_sub(one.sequence).wrapping_sub(1);
            if ahead < 0x8000 {
                usize::from(ahead)
            } else {
                0
            }
        };
        let mut gaps: Vec<Duration> = pairs().map(|(one, next)| next.at - one.at).collect();
        gaps.sort_unstable();
        Self {
            packets: sound.len(),
            lost: pairs().map(missing).sum(),
            markers: pairs().filter(|(_, next)| next.marker).count(),
            jumps: pairs()
                .filter(|(one, next)| next.timestamp != one.timestamp.wrapping_add(step(one)))
                .count(),
            gaps,
        }
    }

    /// The gap that `share` (0 to 1) of all gaps don't exceed: 0.5 for the median, 1 for the longest; zero if there is none.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    pub fn gap(&self, share: f64) -> Duration {
        let last = self.gaps.len().saturating_sub(1);
        self.gaps
            .get((last as f64 * share).round() as usize)
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Instant;

    use super::*;

    /// Sequence number, timestamp, marker and arrival in ms of each packet.
    fn heard(packets: &[(u16, u32, bool, u64)]) -> Reception {
        let begin = Instant::now();
        let packet = |&(sequence, timestamp, marker, at)| Packet {
            at: begin + Duration::from_millis(at),
            sequence,
            timestamp,
            marker,
            payload_type: 0,
            payload: vec![0; 160],
        };
        Reception::of(&packets.iter().map(packet).collect::<Vec<_>>())
    }

    #[test]
    fn a_steady_stream_has_nothing_to_complain_of() {
        let reception = heard(&[
            (65_535, u32::MAX - 159, true, 0),
            (0, 0, false, 20),
            (1, 160, false, 41),
        ]);
        assert_eq!(
            (
                reception.packets,
                reception.lost,
                reception.markers,
                reception.jumps
            ),
            (3, 0, 0, 0)
        );
        assert_eq!(
            (reception.gap(0.0), reception.gap(1.0)),
            (Duration::from_millis(20), Duration::from_millis(21))
        );
    }

    #[test]
    fn loss_jumps_and_markers_are_counted() {
        let reception = heard(&[
            (1, 0, false, 0),
            (4, 480, false, 60),
            (5, 1_000, true, 80),
            (5, 1_000, true, 81),
        ]);
        assert_eq!(
            (reception.lost, reception.markers, reception.jumps),
            (2, 2, 3)
        );
    }
}
