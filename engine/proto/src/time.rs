//! Time as the core sees it: microseconds since a start of the driver's choosing.

/// A point in time, in microseconds. The driver passes it in; the core owns no clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub u64);

impl Time {
    /// The time `us` microseconds later.
    #[must_use]
    pub fn after_us(self, us: u64) -> Time {
        Time(self.0.saturating_add(us))
    }

    /// Microseconds since `earlier`, 0 if that lies ahead.
    #[must_use]
    pub fn since_us(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The earlier of two optional deadlines.
#[must_use]
pub fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
