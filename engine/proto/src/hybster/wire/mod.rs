//! The wire format of Hybster's own messages; `engine/proto/WIRE.md` draws the layouts.

pub(crate) mod checkpoint;
pub(crate) mod last_seen;
pub(crate) mod ordering;
pub(crate) mod view;

use hybster_tss::{CounterValue, Proof};

use crate::wire::{Reader, WireError};

impl Reader<'_> {
    fn counter(&mut self) -> Result<CounterValue, WireError> {
        Ok(CounterValue::from_u128(u128::from_le_bytes(self.array()?)))
    }

    fn proof(&mut self) -> Result<Proof, WireError> {
        Ok(Proof(self.array()?))
    }
}
