//! When a request is sent again (TR listing 8), and how fast at most.
//!
//! A wait begins when the request has left this host, or when the one before it in its queue ended: as
//! long as requests end in the order in which they were sent, none is lost, and a leader that leaves
//! one out is noticed as soon as it would have been the turn of the one behind it. Otherwise a client
//! with much to send over a slow wire would send all of it again before the first part has arrived.
//!
//! TR listing 8 has one timeout per client, which starts with a constant and grows by it whenever
//! it proves too short. Here the delay also follows the measured latency, and it shrinks again, so
//! that one outage does not slow every later reaction. A request that is sent repeatedly waits
//! twice as long each time.

use super::table::LEVELS;
use crate::time::Time;

/// The longest wait between two transmissions of a request, in microseconds.
const MAX_WAIT_US: u64 = 8_000_000;
/// The wait as long as no latency was measured, in steps: the wire may be a slow one.
const FIRST_STEPS: u64 = 10;
/// A request that has not left waits no longer than this, in microseconds, since it was sent or came to
/// the head of its queue: a leader that hardly reads is no leader.
const MAX_HELD_US: u64 = 60_000_000;
/// A wait is longer than it took a request to leave by this factor at least.
const CARRIED_AGAIN: u64 = 4;
/// A link that carries less counts as stalled, in bytes per millisecond.
const LEAST_RATE: u64 = 8;
/// The adaptive part grows to this multiple of its step at most.
const MAX_STEPS: u64 = 16;
/// Bytes sent again at once, over all replicas.
pub(super) const RESEND_BURST_BYTES: usize = 64 << 10;
/// Bytes sent again per microsecond, over all replicas and in the long run.
const RESEND_BYTES_PER_US: usize = 64;

/// The delays of one client.
#[derive(Debug, Clone)]
pub(super) struct Timing {
    /// delay_delta of TR listing 8.
    step_us: u64,
    /// The time that expired waits have added.
    extra_us: u64,
    /// No second adaptation before a wait that began after the last one has expired.
    adapted_at: Time,
    /// Smoothed latency of requests that needed no second transmission, times 16.
    latency_us_16: u64,
    cap_us: u64,
    /// By level: when the request at the head ended last, so that the next one came to its place.
    turned: [Time; LEVELS as usize],
    /// By level: when the request at the head was last seen not to have left.
    held: [Time; LEVELS as usize],
    /// What had left over the link to the leader when something was held back last, in bytes.
    left: Option<(Time, u64)>,
    /// Nothing may be sent again before this time.
    resend_after: Time,
    /// When read-only requests may be tried unordered again, and how long the last pause was.
    queries_after: Time,
    query_pause_us: u64,
}

impl Timing {
    pub(super) fn new(resend_us: u64) -> Self {
        Self {
            step_us: resend_us.saturating_mul(2).max(1),
            extra_us: 0,
            adapted_at: Time(0),
            latency_us_16: 0,
            cap_us: MAX_WAIT_US,
            turned: [Time(0); LEVELS as usize],
            held: [Time(0); LEVELS as usize],
            left: None,
            resend_after: Time(0),
            queries_after: Time(0),
            query_pause_us: 0,
        }
    }

    /// Requests are given up after this: waits must be shorter by enough to see it in time.
    pub(super) fn limit(&mut self, give_up_us: Option<u64>) {
        let longest = give_up_us.map_or(MAX_WAIT_US, |us| (us / 8).max(self.step_us / 2));
        self.cap_us = longest.min(MAX_WAIT_US);
    }

    /// Takes note of the latency of a request. If it was sent again, nobody knows which transmission was
    /// answered: then it counts from the first, as too short a wait would make too short the next.
    #[inline]
    pub(super) fn measured(&mut self, latency_us: u64) {
        let latency_us = latency_us.max(1);
        if self.latency_us_16 == 0 {
            self.latency_us_16 = 16 * latency_us;
        }
        self.latency_us_16 = self.latency_us_16 - self.latency_us_16 / 16 + latency_us;
        self.extra_us -= (self.extra_us / 256).max(1).min(self.extra_us);
    }

    /// A wait that began at `since` was too short (TR listing 8, adapt).
    pub(super) fn expired(&mut self, since: Time, now: Time) {
        if since >= self.adapted_at {
            self.extra_us = (self.extra_us + self.step_us).min(self.step_us * MAX_STEPS);
            self.adapted_at = now;
        }
    }

    /// The wait after the transmission number `level`, counted from 0.
    #[inline]
    pub(super) fn request_us(&self, level: u32) -> u64 {
        let least = if self.latency_us_16 == 0 { FIRST_STEPS * self.step_us } else { self.step_us };
        let first = least.max(self.latency_us_16 / 4) + self.extra_us;
        (first << level).min(self.cap_us)
    }

    /// When a request at the head of a level is sent again.
    #[inline]
    pub(super) fn due(&self, level: u8, sent_at: Time) -> Time {
        let base = self.base(level, sent_at);
        let left_at = base.max(self.held[usize::from(level)]);
        // The leader's wire, which may be no faster, has to carry it to each follower. While it has not
        // left, it is looked at more often, to know when it has.
        let carried_us = match self.left {
            Some(_) => 0,
            None => CARRIED_AGAIN * left_at.since_us(base),
        };
        let wait_us = self.request_us(u32::from(level)).max(carried_us);
        // What is lost must not wait as long as a wire was slow once.
        let latest =
            base.after_us(MAX_HELD_US).max(left_at.after_us(self.request_us(level.into())));
        left_at.after_us(wait_us).min(latest)
    }

    /// Since when a request is at the head of its level.
    #[inline]
    fn base(&self, level: u8, sent_at: Time) -> Time {
        sent_at.max(self.turned[usize::from(level)])
    }

    /// The request at the head of a queue ended.
    #[inline]
    pub(super) fn turned(&mut self, queue: u8, now: Time) {
        if let Some(turned) = self.turned.get_mut(usize::from(queue)) {
            *turned = now;
        }
    }

    /// The request at the head of a level has not left this host. Whether that is worth waiting for: the
    /// link moves, of which `left` bytes have left, and has not had too long.
    pub(super) fn hold(&mut self, level: u8, sent_at: Time, left: u64, now: Time) -> bool {
        if now >= self.base(level, sent_at).after_us(MAX_HELD_US) {
            return false;
        }
        let before = self.left.replace((now, left));
        let is_moving = before.is_none_or(|(at, before)| {
            left < before || left - before >= now.since_us(at) / 1000 * LEAST_RATE
        });
        if is_moving {
            self.held[usize::from(level)] = now;
        } else {
            self.left = None;
        }
        is_moving
    }

    /// The request at the head of a level has left this host: if it was held back, its wait begins.
    pub(super) fn has_left(&mut self, level: u8, now: Time) {
        if self.left.take().is_some() {
            self.held[usize::from(level)] = now;
        }
    }

    /// The link to the leader is another one.
    pub(super) fn release(&mut self) {
        self.left = None;
    }

    /// The wait before a request is sent again to a replica that refused it for full buffers.
    pub(super) fn overload_us(&self, round: u32) -> u64 {
        ((self.step_us / 16).max(1) << round).min(self.cap_us)
    }

    /// The wait for all n answers to a read-only request; afterwards it is ordered.
    pub(super) fn query_us(&self) -> u64 {
        (self.step_us / 2).max(self.latency_us_16 / 4).max(1).min(self.cap_us)
    }

    /// Whether something may be sent again.
    pub(super) fn may_resend(&self, now: Time) -> bool {
        now >= self.resend_after
    }

    pub(super) fn resend_after(&self) -> Time {
        self.resend_after
    }

    /// Takes note of bytes that were sent again.
    pub(super) fn resent(&mut self, bytes: usize, now: Time) {
        if bytes > 0 {
            self.resend_after = now.after_us((bytes / RESEND_BYTES_PER_US) as u64);
        }
    }

    /// Whether read-only requests may be tried without ordering.
    #[inline]
    pub(super) fn queries_allowed(&self, now: Time) -> bool {
        now >= self.queries_after
    }

    /// Takes note that a replica did not answer: the next read-only requests would wait in vain
    /// too.
    pub(super) fn query_expired(&mut self, now: Time) {
        if now >= self.queries_after {
            let (least, most) = (self.step_us, self.step_us * 64);
            self.query_pause_us = (self.query_pause_us * 2).clamp(least, most);
            self.queries_after = now.after_us(self.query_pause_us);
        }
    }

    /// Takes note that all replicas answer.
    #[inline]
    pub(super) fn query_answered(&mut self) {
        self.query_pause_us = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_a_step_per_expired_wait_and_shrink_again() {
        let mut timing = Timing::new(50);
        // Nothing is known about the wire.
        assert_eq!(timing.request_us(0), 1_000);
        timing.measured(1);
        assert_eq!(timing.request_us(0), 100);
        assert_eq!(timing.request_us(2), 400);
        for sent in 0..10 {
            // All these waits began before the first of them expired: one adaptation.
            timing.expired(Time(sent), Time(100 + sent));
        }
        assert_eq!(timing.request_us(0), 200);
        for round in 1..100 {
            timing.expired(Time(1000 * round), Time(1000 * round + 200));
        }
        assert_eq!(timing.request_us(0), 100 + 16 * 100);
        for _ in 0..5_000 {
            timing.measured(10);
        }
        assert_eq!(timing.request_us(0), 100);
    }

    /// A request that took long to leave waits for the leader's wire, but not for ever.
    #[test]
    fn what_took_long_to_leave_is_sent_again_all_the_same() {
        let mut timing = Timing::new(50_000);
        timing.measured(1_000);
        for (left_us, due_us) in [(1, 5), (10, 50), (30, 60), (59, 60)] {
            let left_at = Time(left_us * 1_000_000);
            timing.held[0] = left_at;
            assert!(timing.due(0, Time(0)) >= Time(due_us * 1_000_000));
            assert!(timing.due(0, Time(0)) <= Time(due_us * 1_000_000).after_us(200_000));
        }
    }

    #[test]
    fn delays_follow_the_measured_latency_and_stay_below_the_limit() {
        let mut timing = Timing::new(50);
        for _ in 0..200 {
            timing.measured(1000);
        }
        let delay = timing.request_us(0);
        assert!((3_800..=4_000).contains(&delay), "{delay}");
        timing.limit(Some(8_000));
        assert_eq!(timing.request_us(5), 1_000);
        assert_eq!(Timing::new(50_000).request_us(60 - 40), MAX_WAIT_US);
    }
}
