//! PBFT's messages. None carries a proof: the sealed link says who sent it, and that is worth
//! nothing to anybody else.
//!
//! Kinds 32 to 63 name their pillar at offset 2; those from 64 on are for the control stage.

pub mod help;
pub mod ordering;
pub mod view;

/// Kind bytes.
pub mod kind {
    /// PRE-PREPARE (Castro 2.3.3).
    pub const PRE_PREPARE: u8 = 32;
    /// PREPARE (Castro 2.3.3).
    pub const PREPARE: u8 = 33;
    /// COMMIT (Castro 2.3.3).
    pub const COMMIT: u8 = 34;
    /// The sender has committed a digest at an order number, in whatever view.
    pub const COMMITTED: u8 = 35;
    /// CHECKPOINT (Castro 2.3.4).
    pub const CHECKPOINT: u8 = 36;
    /// Asks for ordering messages of one pillar.
    pub const ORDER_REQUEST: u8 = 37;
    /// Asks for the bodies of proposals by digest.
    pub const BODY_REQUEST: u8 = 38;
    /// A body that was asked for.
    pub const BODY: u8 = 39;
    /// VIEW-CHANGE (Castro 3.2.4).
    pub const VIEW_CHANGE: u8 = 64;
    /// VIEW-CHANGE-ACK (Castro 3.2.4).
    pub const VIEW_CHANGE_ACK: u8 = 65;
    /// NEW-VIEW (Castro 3.2.4).
    pub const NEW_VIEW: u8 = 66;
    /// What the sender has, so that others send what it lacks (Castro 5.2, STATUS).
    pub const STATE_REQUEST: u8 = 67;
    /// The sender's stable checkpoint.
    pub const STABLE: u8 = 68;
}
