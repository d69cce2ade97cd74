//! A fast mixing function without a secret, for hash tables and for telling things apart by accident.

/// A hash of a word behind what was hashed before.
#[inline]
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let product =
        u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93_u64);
    (product >> 64) as u64 ^ product as u64
}
