//! Counters, their values, and the name of the instance that owns them.

use core::fmt;

use crate::keys::{RandomSourceError, fill_random};

/// A life of a replica's trusted counters: drawn where they are made, once, and known to the others by the
/// configuration of an epoch.
///
/// Counters that were lost must not come back under the name that they had, or a used value could be
/// certified a second time. The life is what tells old counters from those that take their place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Life(pub u64);

impl Life {
    /// The counters that a group was made with, if its configuration names no lives.
    pub const FIRST: Self = Self(0);

    /// A new life, from the random source of the operating system; never [`Life::FIRST`].
    pub fn generate() -> Result<Self, RandomSourceError> {
        loop {
            let mut bytes = [0; 8];
            fill_random(&mut bytes)?;
            let life = Self(u64::from_le_bytes(bytes));
            if life != Self::FIRST {
                return Ok(life);
            }
        }
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({self})")
    }
}

/// Names one TrInX instance: the one of a pillar of a replica, in one of its lives and in one epoch of
/// its group.
///
/// An epoch is another run of the protocol, in which counters begin again; so they are counters of
/// another name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct InstanceId {
    /// The replica whose host owns the instance.
    pub replica: u16,
    /// The pillar of that replica that uses the instance.
    pub pillar: u16,
    /// The epoch of the group. Only rises.
    pub epoch: u32,
    /// The life of the replica's counters.
    pub life: Life,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} pillar {} epoch {}", self.replica, self.pillar, self.epoch)?;
        if self.life == Life::FIRST { Ok(()) } else { write!(f, " life {}", self.life) }
    }
}

/// The counters that every instance has (`ctrtypes` of TR listing 10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Counter {
    /// `O`: ordering. Its values are view|order.
    Ordering = 1,
    /// `N`: new views. Its values are views.
    NewView = 2,
}

impl Counter {
    /// Every counter, in the order of the wire numbers.
    pub const ALL: [Self; 2] = [Self::Ordering, Self::NewView];

    /// The number that stands for this counter in certified bytes and on the wire. Never changes.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The counter with that wire number, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ordering),
            2 => Some(Self::NewView),
            _ => None,
        }
    }

    /// Where its value is among those of [`Counter::ALL`].
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordering => "O (ordering)",
            Self::NewView => "N (new view)",
        })
    }
}

/// A value of a counter: 128 bits, the view in the high half and the order number in the low half.
///
/// So values order first by view and then by order number, and entering a view leaves all values of
/// lower views behind at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CounterValue(u128);

impl CounterValue {
    /// The value of every counter of a new instance.
    pub const ZERO: Self = Self(0);

    /// The value after which a counter can certify nothing more.
    pub const MAX: Self = Self(u128::MAX);

    /// The value view|order.
    pub const fn new(view: u64, order: u64) -> Self {
        Self(((view as u128) << 64) | order as u128)
    }

    /// The view: the high half.
    pub const fn view(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The order number: the low half.
    pub const fn order(self) -> u64 {
        self.0 as u64
    }

    /// The value as one number.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The value that is this number.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }
}

impl fmt::Debug for CounterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.view(), self.order())
    }
}

impl fmt::Display for CounterValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_order_by_view_first() {
        assert!(CounterValue::new(1, 0) > CounterValue::new(0, u64::MAX));
        assert!(CounterValue::new(1, 1) > CounterValue::new(1, 0));
        let value = CounterValue::new(7, 9);
        assert_eq!((value.view(), value.order()), (7, 9));
        assert_eq!(CounterValue::from_u128(value.as_u128()), value);
        assert_eq!(CounterValue::new(u64::MAX, u64::MAX), CounterValue::MAX);
    }

    #[test]
    fn wire_numbers_are_pinned() {
        assert_eq!((Counter::Ordering.wire(), Counter::NewView.wire()), (1, 2));
        for counter in Counter::ALL {
            assert_eq!(Counter::from_wire(counter.wire()), Some(counter));
        }
        assert_eq!(Counter::from_wire(0), None);
        assert_eq!(Counter::from_wire(3), None);
    }
}
